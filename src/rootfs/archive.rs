//! Tar archives as a stream of entries: an adapter between tar-core's parser of byte slices and a reader.
//!
//! Understands ustar, GNU (long names, base-256 numbers, sparse) and PAX (all of it that Go's archive/tar does, sparse 0.0 to 1.0).
//! Global PAX headers are skipped, as container tools do. Memory is bounded whatever the archive says of itself.

use std::collections::BTreeMap;
use std::io::BufRead;

use tar_core::parse::{Limits, ParseError, ParseEvent, ParsedEntry, Parser};
use tar_core::{EntryType, PaxExtensions};

use super::meta::{Kind, Meta, Mtime};
use crate::error::{Error, Kind as ErrorKind, Result, from_io, quote};

/// The longest name taken.
const MAX_PATH: u32 = super::assemble::MAX_PATH as u32;

/// An entry's header.
#[derive(Debug)]
pub(super) struct Header {
    /// As written: may be absolute, contain `..` or any byte.
    pub name: Vec<u8>,
    pub body: Body,
    pub meta: Meta,
}

/// What follows the header.
#[derive(Debug)]
pub(super) enum Body {
    /// `meta.kind` says what; only files have content.
    Plain,
    /// Content of a file with holes: offset and length of each piece, ascending.
    Sparse(Vec<(u64, u64)>),
    /// The target of a symlink.
    Symlink(Vec<u8>),
    /// The name of the file that gets another name.
    HardLink(Vec<u8>),
}

/// The most that one entry's headers may take; sparse maps, the largest of them, are limited to 100,000 pieces.
const MAX_HEADER: usize = 8 << 20;

/// A tar being read.
pub(super) struct Archive<R> {
    source: R,
    parser: Parser,
    /// Bytes taken from the source and not yet used, from `carry_at` on; they come before what the source gives next.
    carry: Vec<u8>,
    carry_at: usize,
    /// Content left of the current entry, and the padding behind it.
    content: u64,
    padding: u64,
    /// The entry being read, for messages.
    current: Vec<u8>,
}

enum Parsed {
    Entry(Header, u64),
    NeedData(usize),
    Skipped,
    End,
}

impl<R: BufRead> Archive<R> {
    /// Starts reading.
    pub fn new(source: R) -> Self {
        let mut parser = Parser::new(Limits { max_path_len: Some(MAX_PATH), max_sparse_entries: 100_000, ..Limits::default() });
        // Times before 1970 are errors to the parser; `pax_mtime` reads them. Go ignores what else is malformed as well.
        parser.set_ignore_pax_errors(true);
        parser.set_allow_empty_path(true);
        Self { source, parser, carry: Vec::new(), carry_at: 0, content: 0, padding: 0, current: Vec::new() }
    }

    /// The next entry, skipping what was not read of the one before; `None` at the end, with the source read to its end.
    pub fn next_entry(&mut self) -> Result<Option<Header>> {
        self.skip_content()?;
        loop {
            match self.parse_once()? {
                Parsed::Entry(header, content) => {
                    self.content = content;
                    self.padding = content.next_multiple_of(512) - content;
                    self.current.clone_from(&header.name);
                    return Ok(Some(header));
                }
                Parsed::Skipped => {}
                Parsed::NeedData(want) => {
                    if !self.gather(want)? {
                        // Archives without the two final blocks of zeros are common and harmless: a digest guards layers.
                        if self.carry[self.carry_at..].iter().all(|&b| b == 0) {
                            return Ok(None);
                        }
                        return Err(self.truncated());
                    }
                }
                Parsed::End => {
                    self.drain()?;
                    return Ok(None);
                }
            }
        }
    }

    /// The next piece of the current entry's content, empty at its end; [`Self::consume`] says how much was used.
    pub fn fill(&mut self) -> Result<&[u8]> {
        if self.content == 0 {
            return Ok(&[]);
        }
        if self.buffered()?.is_empty() {
            return Err(self.truncated());
        }
        let limit = usize::try_from(self.content).unwrap_or(usize::MAX);
        let available = self.buffered()?;
        Ok(&available[..available.len().min(limit)])
    }

    /// Goes on in the current entry's content.
    pub fn consume(&mut self, n: usize) {
        self.advance(n);
        self.content -= n as u64;
    }

    /// What it reads from.
    pub fn source(&self) -> &R {
        &self.source
    }

    /// Bytes it has taken from the source beyond where it stands.
    pub fn ahead(&self) -> u64 {
        (self.carry.len() - self.carry_at) as u64
    }

    /// Names the current entry in an error.
    pub fn naming_entry(&self, error: Error) -> Error {
        error.context(format!("can't unpack {}", quote(&self.current)))
    }

    fn parse_once(&mut self) -> Result<Parsed> {
        let current = &self.current;
        if self.carry_at < self.carry.len() {
            let input = &self.carry[self.carry_at..];
            let (parsed, consumed) = parse(&mut self.parser, input).map_err(|e| e.after(current))?;
            self.advance(consumed);
            return Ok(parsed);
        }
        let input = self.source.fill_buf().map_err(read_error)?;
        let (parsed, consumed) = parse(&mut self.parser, input).map_err(|e| e.after(current))?;
        self.source.consume(consumed);
        Ok(parsed)
    }

    /// Sees to it that `carry` holds at least `want` bytes, and more than before; false if the source ends first.
    fn gather(&mut self, want: usize) -> Result<bool> {
        self.carry.drain(..self.carry_at);
        self.carry_at = 0;
        // The parser asks for too little when a line of a sparse map does not end.
        let want = if want > self.carry.len() { want } else { 2 * self.carry.len() };
        if want > MAX_HEADER {
            return Err(Malformed("a header has no end".into()).after(&self.current));
        }
        while self.carry.len() < want {
            let more = self.source.fill_buf().map_err(read_error)?;
            if more.is_empty() {
                return Ok(false);
            }
            let n = more.len().min(want - self.carry.len());
            self.carry.extend_from_slice(&more[..n]);
            self.source.consume(n);
        }
        Ok(true)
    }

    fn buffered(&mut self) -> Result<&[u8]> {
        if self.carry_at < self.carry.len() {
            return Ok(&self.carry[self.carry_at..]);
        }
        self.source.fill_buf().map_err(read_error)
    }

    fn advance(&mut self, n: usize) {
        if self.carry_at < self.carry.len() {
            self.carry_at += n;
        } else {
            self.source.consume(n);
        }
    }

    fn skip_content(&mut self) -> Result<()> {
        let mut left = self.content + self.padding;
        while left > 0 {
            let available = self.buffered()?.len();
            if available == 0 {
                // Nothing is missing when only the padding of the last entry is.
                if left <= self.padding {
                    break;
                }
                return Err(self.truncated());
            }
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(available);
            self.advance(n);
            left -= n as u64;
        }
        (self.content, self.padding) = (0, 0);
        Ok(())
    }

    /// Reads what follows the end mark: whoever digests the source must see all of it.
    fn drain(&mut self) -> Result<()> {
        loop {
            let n = self.buffered()?.len();
            if n == 0 {
                return Ok(());
            }
            self.advance(n);
        }
    }

    fn truncated(&self) -> Error {
        let error = Error::with_kind(ErrorKind::Corrupt, "the archive ends too early");
        if self.current.is_empty() { error } else { error.cause(format!("in or after its entry {}", quote(&self.current))) }
    }
}

fn read_error(error: std::io::Error) -> Error {
    from_io(|| "can't read the archive".into(), error)
}

/// Why an entry could not be understood, before it is known where.
struct Malformed(String);

impl Malformed {
    fn after(self, current: &[u8]) -> Error {
        let error = Error::with_kind(ErrorKind::Corrupt, "invalid tar archive").cause(self.0);
        if current.is_empty() { error } else { error.cause(format!("after its entry {}", quote(current))) }
    }
}

impl From<ParseError> for Malformed {
    fn from(error: ParseError) -> Self {
        Self(error.to_string())
    }
}

fn parse(parser: &mut Parser, input: &[u8]) -> Result<(Parsed, usize), Malformed> {
    Ok(match parser.parse(input)? {
        ParseEvent::NeedData { min_bytes } => (Parsed::NeedData(min_bytes), 0),
        ParseEvent::GlobalExtensions { consumed, .. } => (Parsed::Skipped, consumed),
        ParseEvent::End { consumed } => (Parsed::End, consumed),
        ParseEvent::Entry { consumed, entry } => (header(&entry, None)?, consumed),
        ParseEvent::SparseEntry { consumed, entry, sparse_map, real_size } => {
            let pieces = sparse_map.iter().map(|piece| (piece.offset, piece.length)).collect();
            (header(&entry, Some((pieces, real_size)))?, consumed)
        }
    })
}

fn header(entry: &ParsedEntry<'_>, sparse: Option<(Vec<(u64, u64)>, u64)>) -> Result<Parsed, Malformed> {
    let name = entry.path.to_vec();
    let bad = |what: &str| Malformed(format!("its entry {} {what}", quote(&name)));
    let device = (entry.dev_major.unwrap_or(0), entry.dev_minor.unwrap_or(0));
    if device.0 >= 1 << 12 || device.1 >= 1 << 20 {
        return Err(bad("has an impossible device number"));
    }
    let target = || entry.link_target.as_deref().unwrap_or_default().to_vec();
    let (kind, body) = match entry.entry_type {
        EntryType::Regular | EntryType::Continuous | EntryType::GnuSparse if name.ends_with(b"/") => (Kind::Directory, Body::Plain),
        EntryType::Regular | EntryType::Continuous | EntryType::GnuSparse => (Kind::File, Body::Plain),
        EntryType::Directory => (Kind::Directory, Body::Plain),
        EntryType::Symlink => (Kind::Symlink, Body::Symlink(target())),
        EntryType::Link => (Kind::File, Body::HardLink(target())),
        EntryType::Fifo => (Kind::Fifo, Body::Plain),
        EntryType::Char => (Kind::CharDevice { major: device.0, minor: device.1 }, Body::Plain),
        EntryType::Block => (Kind::BlockDevice { major: device.0, minor: device.1 }, Body::Plain),
        // A volume label names the archive, not a file.
        EntryType::Other(b'V') => return Ok(Parsed::Skipped),
        other => return Err(bad(&format!("has the unknown type {}", quote([other.to_byte()])))),
    };
    let has_content = matches!(entry.entry_type, EntryType::Regular | EntryType::Continuous | EntryType::GnuSparse);
    let id = |id: u64| u32::try_from(id).map_err(|_| bad(&format!("belongs to the impossible owner {id}")));
    let mut meta = Meta { uid: id(entry.uid)?, gid: id(entry.gid)?, ..Meta::new(kind, entry.mode & 0o7777) };
    meta.mtime = mtime(entry);
    meta.xattrs = xattrs(entry);
    // As in Go's archive/tar, only regular files are followed by content, whatever the header's size says.
    let content = if has_content { entry.size } else { 0 };
    if content > i64::MAX as u64 {
        return Err(bad("has an impossible size"));
    }
    let mut body = body;
    if kind == Kind::File {
        meta.size = content;
    }
    if let (Some((pieces, real_size)), Kind::File, true) = (sparse, kind, has_content) {
        check_pieces(&pieces, content, real_size).ok_or_else(|| bad("has a sparse map that does not fit"))?;
        meta.size = real_size;
        body = Body::Sparse(pieces);
    }
    Ok(Parsed::Entry(Header { name, body, meta }, content))
}

/// Pieces must ascend, lie within the file and add up to what is stored.
fn check_pieces(pieces: &[(u64, u64)], stored: u64, real_size: u64) -> Option<()> {
    let (mut end, mut sum) = (0u64, 0u64);
    for &(offset, length) in pieces {
        if offset < end {
            return None;
        }
        end = offset.checked_add(length)?;
        sum = sum.checked_add(length)?;
    }
    (end <= real_size && sum == stored && i64::try_from(real_size).is_ok()).then_some(())
}

fn mtime(entry: &ParsedEntry<'_>) -> Mtime {
    let pax = entry.pax.and_then(|pax| pax_value(pax, b"mtime")).and_then(|value| pax_mtime(&value));
    // A negative base-256 number arrives as its two's complement.
    pax.unwrap_or(Mtime::from_secs(i64::from_ne_bytes(entry.header.mtime().unwrap_or(0).to_ne_bytes())))
}

fn pax_value(pax: &[u8], key: &[u8]) -> Option<Vec<u8>> {
    PaxExtensions::new(pax).filter_map(Result::ok).filter(|ext| ext.key_bytes() == key).last().map(|ext| ext.value_bytes().to_vec())
}

/// A PAX time: `[-]seconds[.fraction]`; digits beyond nanoseconds are cut off.
fn pax_mtime(value: &[u8]) -> Option<Mtime> {
    let text = std::str::from_utf8(value).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}")[..9].parse().ok()?;
    let secs: i64 = seconds.parse().ok()?;
    Some(match (seconds.starts_with('-'), nanos) {
        (true, 1..) => Mtime { secs: secs.checked_sub(1)?, nanos: 1_000_000_000 - nanos },
        _ => Mtime { secs, nanos },
    })
}

fn xattrs(entry: &ParsedEntry<'_>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    entry.xattrs.iter().map(|(name, value)| (decode_xattr_name(name), value.to_vec())).collect()
}

/// A PAX key can't contain `=`; GNU tar and `pack` write it `%3D`, and then `%` as `%25`.
fn decode_xattr_name(name: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(name);
    if text.contains("%3D") { text.replace("%3D", "=").replace("%25", "%").into_bytes() } else { name.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_pax_times() {
        for (text, expected) in [
            ("0", Some((0, 0))),
            ("1.5", Some((1, 500_000_000))),
            ("1.1234567899", Some((1, 123_456_789))),
            ("-1", Some((-1, 0))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-0.5", Some((-1, 500_000_000))),
            ("", None),
            ("1.x", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(pax_mtime(text.as_bytes()).map(|t| (t.secs, t.nanos)), expected, "{text}");
        }
    }

    #[test]
    fn sparse_maps_must_fit() {
        assert!(check_pieces(&[(0, 5), (10, 5)], 10, 20).is_some());
        for (pieces, stored, real) in [
            (vec![(0, 5), (4, 5)], 10, 20),
            (vec![(0, 5)], 6, 20),
            (vec![(16, 5)], 5, 20),
            (vec![(u64::MAX, 5)], 5, 20),
            (vec![], 0, u64::MAX),
        ] {
            assert!(check_pieces(&pieces, stored, real).is_none(), "{pieces:?}");
        }
    }
}
