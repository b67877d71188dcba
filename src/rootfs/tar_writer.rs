//! Tar archives written entry by entry, byte for byte the same for the same entries: ustar, PAX records only where ustar can't say it.
//!
//! No user names, no access times, whole seconds. GNU tar, bsdtar and Go's archive/tar read it.

use std::fs::File;
use std::io::{self, Write};

use tar::{EntryType, Header};

use super::chunks::ChunkWriter;
use super::meta::{Kind, Meta};
use crate::sys::fs;

const BLOCK: u64 = 512;
/// The largest numbers that the octal fields of a ustar header hold.
const MAX_ID: u32 = 0o7_777_777;
const MAX_SIZE: u64 = 0o77_777_777_777;
const MAX_TIME: i64 = 0o77_777_777_777;

/// What an entry is, besides its metadata.
pub(super) enum Body<'a> {
    /// As `meta.kind` says; a file's content is written afterwards.
    Plain,
    /// Target of a symlink.
    Symlink(&'a [u8]),
    /// Name of an entry written before.
    HardLink(&'a [u8]),
}

/// A tar being written.
pub(super) struct TarWriter {
    out: ChunkWriter,
    pub bytes: u64,
    pub entries: u64,
}

impl TarWriter {
    /// Starts.
    pub fn new(out: ChunkWriter) -> Self {
        Self { out, bytes: 0, entries: 0 }
    }

    /// Writes an entry's header; a directory's name must end in a slash.
    pub fn header(&mut self, name: &[u8], meta: &Meta, body: &Body<'_>) -> io::Result<()> {
        let mut header = Header::new_ustar();
        let mut pax = Vec::new();
        put_name(&mut header, name, &mut pax);
        let (entry_type, link, size) = match body {
            Body::Symlink(target) => (EntryType::Symlink, *target, 0),
            Body::HardLink(target) => (EntryType::Link, *target, 0),
            Body::Plain => (entry_type(meta.kind), &[][..], if meta.kind == Kind::File { meta.size } else { 0 }),
        };
        header.set_entry_type(entry_type);
        header.set_mode(meta.mode & 0o7777);
        put_link(&mut header, link, &mut pax);
        put_numbers(&mut header, meta, size, &mut pax);
        if let Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } = meta.kind {
            header.set_device_major(major)?;
            header.set_device_minor(minor)?;
        }
        // Another name of a file written before says nothing new about it.
        let xattrs = if entry_type == EntryType::Link { None } else { Some(&meta.xattrs) };
        for (name, value) in xattrs.into_iter().flatten() {
            pax_record(&mut pax, &[b"SCHILY.xattr.", encode_xattr_name(name).as_slice()].concat(), value);
        }
        if !pax.is_empty() {
            self.pax_header(name, &pax)?;
        }
        header.set_cksum();
        self.write(header.as_bytes())?;
        self.entries += 1;
        Ok(())
    }

    fn pax_header(&mut self, name: &[u8], records: &[u8]) -> io::Result<()> {
        let mut header = Header::new_ustar();
        // Only shown by programs that know no PAX; must not be a path that something could be made at.
        let base = name.split(|&b| b == b'/').rfind(|part| !part.is_empty()).unwrap_or(b".");
        let name = [b"PaxHeaders.0/", &base[..base.len().min(80)]].concat();
        header.as_mut_bytes()[..name.len()].copy_from_slice(&name);
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(records.len() as u64);
        header.set_cksum();
        self.write(header.as_bytes())?;
        self.write(records)?;
        self.pad(records.len() as u64)
    }

    /// Writes the `size` bytes of content announced in the header.
    pub fn content(&mut self, file: &File, size: u64) -> io::Result<()> {
        let mut left = size;
        while left > 0 {
            let room = self.out.left().min(usize::try_from(left).unwrap_or(usize::MAX));
            match fs::read_append(file, self.out.room()?, room)? {
                0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was read")),
                read => left -= read as u64,
            }
        }
        self.bytes += size;
        self.pad(size)
    }

    /// Writes a file's whole content.
    pub fn content_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(bytes)?;
        self.pad(bytes.len() as u64)
    }

    /// Writes a large part of a file's content; gives back an empty buffer for another if there is one. [`Self::content_end`] must follow.
    pub fn content_piece(&mut self, piece: Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        self.bytes += piece.len() as u64;
        self.out.send(piece)
    }

    /// Ends a content of `size` bytes that was written in pieces.
    pub fn content_end(&mut self, size: u64) -> io::Result<()> {
        self.pad(size)
    }

    /// Writes the end mark.
    pub fn finish(mut self) -> io::Result<(u64, u64)> {
        self.write(&[0; 2 * BLOCK as usize])?;
        self.out.flush()?;
        Ok((self.bytes, self.entries))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let zeros = [0; BLOCK as usize];
        let n = size.next_multiple_of(BLOCK) - size;
        self.write(&zeros[..usize::try_from(n).unwrap_or_default()])
    }
}

fn entry_type(kind: Kind) -> EntryType {
    match kind {
        Kind::Directory => EntryType::Directory,
        Kind::Symlink => EntryType::Symlink,
        Kind::CharDevice { .. } => EntryType::Char,
        Kind::BlockDevice { .. } => EntryType::Block,
        Kind::Fifo => EntryType::Fifo,
        Kind::File | Kind::Socket => EntryType::Regular,
    }
}

/// Field offsets and lengths of a ustar header (POSIX.1-2017, pax, "ustar Interchange Format").
const NAME: (usize, usize) = (0, 100);
const LINK: (usize, usize) = (157, 100);
const PREFIX: (usize, usize) = (345, 155);

fn put(header: &mut Header, field: (usize, usize), bytes: &[u8]) {
    header.as_mut_bytes()[field.0..field.0 + bytes.len()].copy_from_slice(bytes);
}

/// Puts a name into the header: whole, split at a slash, or as a PAX record with as much of it in the header as fits.
fn put_name(header: &mut Header, name: &[u8], pax: &mut Vec<u8>) {
    if name.len() <= NAME.1 {
        return put(header, NAME, name);
    }
    // The slash between the two is not stored. A directory's final slash is no place to split.
    let split = name[..name.len() - 1].iter().enumerate().rposition(|(at, &b)| b == b'/' && at <= PREFIX.1);
    if let Some(at) = split.filter(|&at| at > 0 && name.len() - at - 1 <= NAME.1) {
        put(header, PREFIX, &name[..at]);
        return put(header, NAME, &name[at + 1..]);
    }
    pax_record(pax, b"path", name);
    put(header, NAME, &name[..NAME.1]);
}

fn put_link(header: &mut Header, link: &[u8], pax: &mut Vec<u8>) {
    if link.len() > LINK.1 {
        pax_record(pax, b"linkpath", link);
    }
    put(header, LINK, &link[..link.len().min(LINK.1)]);
}

fn put_numbers(header: &mut Header, meta: &Meta, size: u64, pax: &mut Vec<u8>) {
    let mut fit = |key: &[u8], fits: bool, value: &dyn std::fmt::Display| {
        if !fits {
            pax_record(pax, key, value.to_string().as_bytes());
        }
        fits
    };
    let uid = fit(b"uid", meta.uid <= MAX_ID, &meta.uid);
    let gid = fit(b"gid", meta.gid <= MAX_ID, &meta.gid);
    let small = fit(b"size", size <= MAX_SIZE, &size);
    let time = fit(b"mtime", (0..=MAX_TIME).contains(&meta.mtime.secs), &meta.mtime.secs);
    header.set_uid(if uid { meta.uid.into() } else { 0 });
    header.set_gid(if gid { meta.gid.into() } else { 0 });
    header.set_size(if small { size } else { 0 });
    header.set_mtime(if time { u64::try_from(meta.mtime.secs).unwrap_or(0) } else { 0 });
}

/// Appends `LENGTH KEY=VALUE\n`, the length counting its own digits.
fn pax_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() > length {
        length += 1;
    }
    out.extend_from_slice(format!("{length} ").as_bytes());
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// A PAX key can't contain `=`: written as GNU tar does.
fn encode_xattr_name(name: &[u8]) -> Vec<u8> {
    if !name.contains(&b'=') {
        return name.to_vec();
    }
    let mut out = Vec::with_capacity(name.len() + 2);
    for &byte in name {
        match byte {
            b'=' => out.extend_from_slice(b"%3D"),
            b'%' => out.extend_from_slice(b"%25"),
            byte => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_lengths_count_themselves() {
        for value in [0, 1, 2, 3, 4, 5, 85, 86, 87, 88, 89, 90, 91, 92, 985, 986, 987, 988, 989, 990, 991] {
            let mut out = Vec::new();
            pax_record(&mut out, b"k", &vec![b'v'; value]);
            let length: usize = std::str::from_utf8(&out[..out.iter().position(|&b| b == b' ').unwrap()]).unwrap().parse().unwrap();
            assert_eq!(length, out.len());
        }
    }

    #[test]
    fn names_are_split_only_where_both_parts_fit() {
        let long = |n: usize| "x".repeat(n);
        for (name, expected_pax) in [
            (long(100), false),
            (long(101), true),
            (format!("{}/{}", long(155), long(100)), false),
            (format!("{}/{}", long(156), long(99)), true),
            (format!("{}/{}/", long(10), long(99)), false),
            (format!("{}/{}/", long(10), long(100)), true),
            (format!("/{}", long(100)), true),
        ] {
            let mut header = Header::new_ustar();
            let mut pax = Vec::new();
            put_name(&mut header, name.as_bytes(), &mut pax);
            assert_eq!(!pax.is_empty(), expected_pax, "{name}");
            if !expected_pax {
                assert_eq!(header.path_bytes(), name.as_bytes());
            }
        }
    }
}
