//! Berkeley DB's hash form, as rpm before 4.16 uses it: keys are numbers, values headers, which lie on overflow pages.
//!
//! Source: Berkeley DB's dbinc/db_page.h (`HASHHDR`, `PAGE`, `HOFFPAGE`); the database may have either byte order.

use super::damaged;
use crate::error::Result;

const HASH_MAGIC: u32 = 0x0006_1561;
/// Bytes of a page before its content.
const HEAD: usize = 26;
const HASH_UNSORTED: u8 = 2;
const OVERFLOW: u8 = 7;
const HASH: u8 = 13;
/// An item on the page, an item on overflow pages.
const ON_PAGE: u8 = 1;
const OFF_PAGE: u8 = 3;

/// The headers of all packages.
pub(super) fn headers(bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    let broken = || damaged("it is no Berkeley database, or damaged");
    let magic: [u8; 4] = bytes.get(12..16).and_then(|magic| magic.try_into().ok()).ok_or_else(broken)?;
    let big = match (u32::from_le_bytes(magic), u32::from_be_bytes(magic)) {
        (HASH_MAGIC, _) => false,
        (_, HASH_MAGIC) => true,
        _ => return Err(broken()),
    };
    let mut file = File { bytes, big, page: 512 };
    file.page = file.number(bytes, 20, 4).map(|size| size as usize).filter(|size| (512..=65_536).contains(size)).ok_or_else(broken)?;
    let (mut headers, mut taken) = (Vec::new(), 0);
    for page in bytes.chunks_exact(file.page).filter(|page| matches!(page[25], HASH | HASH_UNSORTED)) {
        headers.extend(file.values(page, &mut taken).ok_or_else(broken)?);
    }
    Ok(headers)
}

struct File<'a> {
    bytes: &'a [u8],
    big: bool,
    page: usize,
}

impl File<'_> {
    /// The values of a page of keys and values in turn.
    fn values(&self, page: &[u8], taken: &mut usize) -> Option<Vec<Vec<u8>>> {
        let entries = self.number(page, 20, 2)? as usize;
        let offset = |entry: usize| Some(self.number(page, HEAD + 2 * entry, 2)? as usize);
        let mut values = Vec::new();
        for entry in (1..entries).step_by(2) {
            let item = page.get(offset(entry)?..)?;
            match *item.first()? {
                OFF_PAGE => values.push(self.overflow(self.number(item, 4, 4)?, self.number(item, 8, 4)?)?),
                // Items are laid from the end of the page: each ends where the one before begins. The number of the last package is such a
                // value, and no header.
                ON_PAGE => values.push(page.get(offset(entry)? + 1..offset(entry - 1)?)?.to_vec()),
                _ => {}
            }
            *taken += values.last().map_or(0, Vec::len);
            // Entries that share their pages are no honest ones.
            if *taken > self.bytes.len() {
                return None;
            }
        }
        Some(values)
    }

    fn overflow(&self, first: u64, length: u64) -> Option<Vec<u8>> {
        let length = usize::try_from(length).ok().filter(|length| *length <= self.bytes.len())?;
        let mut value = Vec::with_capacity(length);
        let mut next = first;
        while value.len() < length {
            let start = usize::try_from(next).ok()?.checked_mul(self.page)?;
            let page = self.bytes.get(start..start.checked_add(self.page)?)?;
            // The page says how much of it is used.
            let used = self.number(page, 22, 2)? as usize;
            if page[25] != OVERFLOW || used == 0 {
                return None;
            }
            value.extend_from_slice(page.get(HEAD..HEAD + used)?);
            next = self.number(page, 16, 4)?;
        }
        value.truncate(length);
        Some(value)
    }

    fn number(&self, bytes: &[u8], at: usize, length: usize) -> Option<u64> {
        let digits = bytes.get(at..at.checked_add(length)?)?;
        let add = |sum: u64, digit: &u8| sum << 8 | u64::from(*digit);
        Some(if self.big { digits.iter().fold(0, add) } else { digits.iter().rev().fold(0, add) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_values() {
        let mut bytes = vec![0; 3 * 512];
        bytes[12..16].copy_from_slice(&HASH_MAGIC.to_le_bytes());
        bytes[20..24].copy_from_slice(&512_u32.to_le_bytes());
        let page = &mut bytes[512..1024];
        (page[20], page[25]) = (2, HASH);
        page[26..28].copy_from_slice(&507_u16.to_le_bytes());
        page[28..30].copy_from_slice(&495_u16.to_le_bytes());
        (page[507], page[495]) = (ON_PAGE, OFF_PAGE);
        (page[499], page[503]) = (2, 3);
        let page = &mut bytes[1024..];
        (page[22], page[25]) = (3, OVERFLOW);
        page[26..29].copy_from_slice(b"abc");
        assert_eq!(headers(&bytes).unwrap(), [b"abc"]);
        bytes[512 + 503] = 4;
        assert!(headers(&bytes).is_err(), "the chain of pages ends too early");
        assert!(headers(b"").is_err() && headers(&[0; 600]).is_err());
    }
}
