//! rpm's own database, which SUSE uses: a file of slots and blobs.
//!
//! Source: rpm's lib/backend/ndb/rpmpkg.c, the comment at its head and the constants.

use super::damaged;
use crate::error::Result;

const PAGE: usize = 4096;
const SLOT: usize = 16;
const BLOCK: usize = 16;
/// Of the file, of a slot, of a blob.
const MAGIC: u32 = u32::from_le_bytes(*b"RpmP");
const SLOT_MAGIC: u32 = u32::from_le_bytes(*b"Slot");
const BLOB_MAGIC: u32 = u32::from_le_bytes(*b"BlbS");

/// The headers of all packages.
pub(super) fn headers(bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    let broken = || damaged("it is no package database of rpm, or damaged");
    if little(bytes, 0) != Some(MAGIC) {
        return Err(broken());
    }
    // Slots fill this many pages; the file's header takes the place of the first two.
    let pages = little(bytes, 12).ok_or_else(broken)? as usize;
    let slots = pages.checked_mul(PAGE).and_then(|end| bytes.get(2 * SLOT..end)).ok_or_else(broken)?;
    let (mut headers, mut taken) = (Vec::new(), 0);
    for slot in slots.chunks_exact(SLOT) {
        let (Some(SLOT_MAGIC), Some(package), Some(block)) = (little(slot, 0), little(slot, 4), little(slot, 8)) else {
            return Err(broken());
        };
        // A slot that is free.
        if block == 0 {
            continue;
        }
        let header = blob(bytes, block as usize * BLOCK, package).ok_or_else(broken)?;
        taken += header.len();
        // Slots that share a blob are no honest ones.
        if taken > bytes.len() {
            return Err(broken());
        }
        headers.push(header);
    }
    Ok(headers)
}

fn blob(bytes: &[u8], at: usize, package: u32) -> Option<Vec<u8>> {
    let blob = bytes.get(at..)?;
    if little(blob, 0)? != BLOB_MAGIC || little(blob, 4)? != package {
        return None;
    }
    let length = little(blob, 12)? as usize;
    blob.get(16..16_usize.checked_add(length)?).map(<[u8]>::to_vec)
}

fn little(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_blobs() {
        let mut bytes = vec![0; PAGE + 64];
        bytes[..4].copy_from_slice(b"RpmP");
        bytes[12] = 1;
        bytes[2 * SLOT..PAGE].chunks_exact_mut(SLOT).for_each(|slot| slot[..4].copy_from_slice(b"Slot"));
        bytes[2 * SLOT + 4] = 7;
        bytes[2 * SLOT + 8..2 * SLOT + 12].copy_from_slice(&((PAGE / BLOCK) as u32).to_le_bytes());
        bytes[PAGE..PAGE + 4].copy_from_slice(b"BlbS");
        bytes[PAGE + 4] = 7;
        bytes[PAGE + 12] = 3;
        bytes[PAGE + 16..PAGE + 19].copy_from_slice(b"abc");
        assert_eq!(headers(&bytes).unwrap(), [b"abc"]);
        bytes[PAGE + 12] = 200;
        assert!(headers(&bytes).is_err() && headers(b"").is_err() && headers(&bytes[..100]).is_err());
    }
}
