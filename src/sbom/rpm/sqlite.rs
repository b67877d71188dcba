//! Reading a table of an SQLite database without SQLite: b-tree pages, overflow pages, and what a write-ahead log has not put back yet.
//!
//! Source: sqlite.org/fileformat2.html.

use std::collections::BTreeMap;

use super::damaged;
use crate::error::Result;

const TABLE: &str = "Packages";
/// Pages from the root of a b-tree to a leaf; eight reach a terabyte.
const DEEPEST: usize = 12;

/// The blobs of rpm's table, which is `Packages (hnum INTEGER PRIMARY KEY, blob BLOB)`.
pub(super) fn headers(bytes: &[u8], log: Option<&[u8]>) -> Result<Vec<Vec<u8>>> {
    if !bytes.starts_with(b"SQLite format 3\0") {
        return Err(damaged("it is no SQLite database"));
    }
    let database = Database::new(bytes, log.unwrap_or_default()).ok_or_else(|| damaged("its header is damaged"))?;
    let mut root = None;
    // The first table lists the others: type, name, table, first page, SQL.
    database.rows(1, &mut |row| {
        if let [Value::Text(b"table"), Value::Text(name), _, Value::Integer(page), ..] = row
            && *name == TABLE.as_bytes()
        {
            root = u32::try_from(*page).ok();
        }
    })?;
    let root = root.ok_or_else(|| damaged("it has no table `Packages`"))?;
    let mut headers = Vec::new();
    database.rows(root, &mut |row| {
        if let [_, Value::Blob(blob)] = row {
            headers.push(blob.to_vec());
        }
    })?;
    Ok(headers)
}

struct Database<'a> {
    bytes: &'a [u8],
    /// Newer pages than those in the file.
    logged: BTreeMap<u32, &'a [u8]>,
    page: usize,
    /// Bytes of a page that hold content.
    usable: usize,
    /// How many pages are looked at, all in all: a b-tree with a circle in it must end.
    pages: usize,
}

enum Value<'a> {
    Null,
    Integer(i64),
    Other,
    Text(&'a [u8]),
    Blob(&'a [u8]),
}

impl<'a> Database<'a> {
    fn new(bytes: &'a [u8], log: &'a [u8]) -> Option<Self> {
        let page = match big(bytes, 16, 2)? {
            1 => 65_536,
            size => size as usize,
        };
        if !page.is_power_of_two() || page < 512 {
            return None;
        }
        let usable = page.checked_sub(usize::from(*bytes.get(20)?)).filter(|usable| *usable >= 480)?;
        let logged = logged(log, page);
        let pages = bytes.len() / page + logged.len();
        Some(Self { bytes, logged, page, usable, pages })
    }

    fn page(&self, number: u32) -> Result<&'a [u8]> {
        let start = (number as usize).checked_sub(1).and_then(|index| index.checked_mul(self.page));
        let in_file = || self.bytes.get(start?..start?.checked_add(self.page)?);
        self.logged.get(&number).copied().or_else(in_file).ok_or_else(|| damaged("it names a page that it has not"))
    }

    /// Visits the rows of a table, in the order of their keys.
    fn rows(&self, root: u32, visit: &mut dyn FnMut(&[Value<'_>])) -> Result<()> {
        let broken = || damaged("a page of it is damaged");
        let (mut seen, mut taken) = (0, 0);
        let mut todo = vec![(root, 0)];
        while let Some((number, depth)) = todo.pop() {
            seen += 1;
            if seen > self.pages || depth > DEEPEST {
                return Err(damaged("its pages go round in circles"));
            }
            let page = self.page(number)?;
            // The first page begins with the file's header.
            let head = if number == 1 { 100 } else { 0 };
            let kind = *page.get(head).ok_or_else(broken)?;
            let cells = big(page, head + 3, 2).ok_or_else(broken)? as usize;
            let first = head + if kind == INTERIOR { 12 } else { 8 };
            let cell = |index: usize| page.get(big(page, first + 2 * index, 2)? as usize..);
            match kind {
                LEAF => {
                    for index in 0..cells {
                        let payload = cell(index).and_then(|cell| self.payload(cell)).ok_or_else(broken)?;
                        taken += payload.len();
                        // Rows that share their bytes are no honest ones.
                        if taken > self.pages * self.page {
                            return Err(damaged("its rows hold more than the file does"));
                        }
                        visit(&record(&payload).ok_or_else(broken)?);
                    }
                }
                INTERIOR => {
                    todo.push((big(page, head + 8, 4).ok_or_else(broken)? as u32, depth + 1));
                    for index in (0..cells).rev() {
                        todo.push((cell(index).and_then(|cell| big(cell, 0, 4)).ok_or_else(broken)? as u32, depth + 1));
                    }
                }
                _ => return Err(broken()),
            }
        }
        Ok(())
    }

    /// A leaf cell's payload, put together of its part in the cell and its overflow pages ("B-tree Cell Format").
    fn payload(&self, cell: &'a [u8]) -> Option<Vec<u8>> {
        let (length, cell) = varint(cell)?;
        let (_key, cell) = varint(cell)?;
        let length = usize::try_from(length).ok().filter(|length| *length <= self.bytes.len() + self.logged.len() * self.page)?;
        let (most, least) = (self.usable - 35, (self.usable - 12) * 32 / 255 - 23);
        if length <= most {
            return cell.get(..length).map(<[u8]>::to_vec);
        }
        let fitting = least + (length - least) % (self.usable - 4);
        let local = if fitting <= most { fitting } else { least };
        let mut payload = Vec::with_capacity(length);
        payload.extend_from_slice(cell.get(..local)?);
        let mut next = big(cell, local, 4)? as u32;
        while payload.len() < length {
            let page = self.page(next).ok()?;
            let part = (length - payload.len()).min(self.usable - 4);
            payload.extend_from_slice(page.get(4..4 + part)?);
            next = big(page, 0, 4)? as u32;
        }
        Some(payload)
    }
}

const INTERIOR: u8 = 5;
const LEAF: u8 = 13;

/// The values of a row ("Record Format").
fn record(payload: &[u8]) -> Option<Vec<Value<'_>>> {
    let (size, _) = varint(payload)?;
    let (mut header, mut body) = payload.split_at_checked(usize::try_from(size).ok()?)?;
    header = varint(header)?.1;
    let mut values = Vec::new();
    while !header.is_empty() {
        let (kind, rest) = varint(header)?;
        header = rest;
        let length = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind as usize,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return None,
            _ => usize::try_from((kind - 12) / 2).ok()?,
        };
        let (value, rest) = body.split_at_checked(length)?;
        body = rest;
        values.push(match kind {
            0 => Value::Null,
            1..=6 => Value::Integer(value.iter().fold(if value[0] & 0x80 == 0 { 0 } else { -1 }, |sum, byte| sum << 8 | i64::from(*byte))),
            8 | 9 => Value::Integer(kind as i64 - 8),
            7 => Value::Other,
            _ if kind % 2 == 0 => Value::Blob(value),
            _ => Value::Text(value),
        });
    }
    Some(values)
}

/// The pages of a write-ahead log up to its last commit. Frames of an earlier round have another salt ("WAL Frames").
fn logged(log: &[u8], page: usize) -> BTreeMap<u32, &[u8]> {
    let (mut committed, mut pending) = (BTreeMap::new(), BTreeMap::new());
    let Some((header, frames)) = log.split_at_checked(32).filter(|(header, _)| big(header, 8, 4) == Some(page as u64)) else {
        return committed;
    };
    for frame in frames.chunks_exact(24 + page) {
        if frame[8..16] != header[16..24] {
            break;
        }
        pending.insert(big(frame, 0, 4).unwrap_or_default() as u32, &frame[24..]);
        if big(frame, 4, 4) != Some(0) {
            committed.append(&mut pending);
        }
    }
    committed
}

fn big(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    Some(bytes.get(at..at.checked_add(length)?)?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

/// A number of one to nine bytes, and what follows it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(9).enumerate() {
        if at == 8 {
            return Some((value << 8 | u64::from(*byte), &bytes[9..]));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers() {
        for (bytes, expected) in
            [(&[0x7f][..], Some(0x7f)), (&[0x81, 0x00], Some(128)), (&[0xff; 9], Some(u64::MAX)), (&[0x80], None), (&[], None)]
        {
            assert_eq!(varint(bytes).map(|(value, _)| value), expected, "{bytes:?}");
        }
    }

    #[test]
    fn refuses_what_is_no_database() {
        assert!(headers(b"", None).is_err());
        let mut bytes = b"SQLite format 3\0".to_vec();
        bytes.resize(4096, 0);
        assert!(headers(&bytes, None).is_err());
        bytes[16] = 0x10;
        // A page that is its own child.
        bytes[100] = INTERIOR;
        bytes[108..112].copy_from_slice(&1_u32.to_be_bytes());
        assert!(headers(&bytes, None).unwrap_err().to_string().contains("circles"));
    }

    #[test]
    fn refuses_rows_that_share_their_bytes() {
        let mut bytes = b"SQLite format 3\0".to_vec();
        bytes.resize(8192, 0);
        bytes[16] = 0x10;
        // The first page lists the table, whose rows on the second are all the same cell.
        let record = [&[6, 23, 29, 23, 1, 13][..], b"table", b"Packages", b"table", &[2]].concat();
        let row = [&[record.len() as u8, 1][..], &record].concat();
        bytes[200..200 + row.len()].copy_from_slice(&row);
        bytes[100] = LEAF;
        bytes[104] = 1;
        bytes[108..110].copy_from_slice(&200_u16.to_be_bytes());
        bytes[4096] = LEAF;
        bytes[4099..4101].copy_from_slice(&1000_u16.to_be_bytes());
        for index in 0..1000 {
            bytes[4104 + 2 * index..4106 + 2 * index].copy_from_slice(&3000_u16.to_be_bytes());
        }
        // A record of a NULL and a blob of 100 bytes.
        let varint = |value: u64| [0x80 | (value >> 7) as u8, (value & 0x7f) as u8];
        let cell = [&[104, 1, 4, 0][..], &varint(12 + 2 * 100)].concat();
        bytes[4096 + 3000..4096 + 3000 + cell.len()].copy_from_slice(&cell);
        assert!(headers(&bytes, None).unwrap_err().to_string().contains("more than the file"), "{:?}", headers(&bytes, None));
    }
}
