//! Where the files of an archive lie in it, so that they can be read in place: for image archives, whose members are layers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};

use super::archive::{Archive, Body};
use super::meta::Kind;
use super::unpack::MAX_SYMLINKS;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::oci::ImagePath;

/// An image of a thousand layers has some thousand members.
const MOST_MEMBERS: usize = 100_000;

/// A file in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where its content begins.
    pub offset: u64,
    /// Its length in bytes.
    pub size: u64,
}

/// The files of an archive.
#[derive(Debug, Default)]
pub struct Listing(BTreeMap<ImagePath, Entry>);

#[derive(Debug)]
enum Entry {
    File(Member),
    /// Another name of a file, as old `docker save` wrote layers that occur twice.
    Link(ImagePath),
}

/// The name of an archive's first member; its directories' own `./` does not count.
pub fn first_member(archive: impl BufRead) -> Result<Option<ImagePath>> {
    let mut archive = Archive::new(archive);
    while let Some(header) = archive.next_entry()? {
        let path = ImagePath::clean(&header.name);
        if !path.is_root() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

impl Listing {
    /// Lists an uncompressed archive, reading it once. Of two members of one name the later counts.
    pub fn of(archive: &File) -> Result<Self> {
        let source = Counting { inner: BufReader::with_capacity(1 << 20, archive), taken: 0 };
        let mut archive = Archive::new(source);
        let mut listing = Self::default();
        while let Some(header) = archive.next_entry()? {
            let path = ImagePath::clean(&header.name);
            let entry = match &header.body {
                Body::Symlink(target) => Entry::Link(path.parent().unwrap_or_default().resolve(target)),
                Body::HardLink(target) => Entry::Link(ImagePath::clean(target)),
                Body::Plain if header.meta.kind == Kind::File => {
                    Entry::File(Member { offset: archive.source().taken - archive.ahead(), size: header.meta.size })
                }
                _ => continue,
            };
            listing.0.insert(path, entry);
            if listing.0.len() > MOST_MEMBERS {
                return Err(Error::with_kind(ErrorKind::Corrupt, format!("the archive has more than {MOST_MEMBERS} members")));
            }
        }
        Ok(listing)
    }

    /// A file by its name, links within the archive followed.
    pub fn find(&self, name: &str) -> Option<Member> {
        let mut path = ImagePath::clean(name);
        for _ in 0..MAX_SYMLINKS {
            match self.0.get(&path)? {
                Entry::File(member) => return Some(*member),
                Entry::Link(target) => path = target.clone(),
            }
        }
        None
    }
}

/// Counts what was taken.
struct Counting<R> {
    inner: R,
    taken: u64,
}

impl<R: BufRead> io::Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.taken += count as u64;
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Counting<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.taken += count as u64;
        self.inner.consume(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

    #[test]
    fn finds_members_where_they_are() {
        let mut builder = tar::Builder::new(tempfile::tempfile().unwrap());
        let long = "d/".repeat(80) + "long";
        for (name, content) in [("a", "first"), ("b/c", "second, longer"), (long.as_str(), "third"), ("a", "first again"), ("empty", "")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
        let mut link = tar::Header::new_gnu();
        link.set_size(0);
        for (kind, name, target) in [
            (tar::EntryType::Symlink, "b/link", "../a"),
            (tar::EntryType::Link, "hard", "b/c"),
            (tar::EntryType::Symlink, "loop", "loop"),
            (tar::EntryType::Symlink, "out", "../../etc/passwd"),
        ] {
            link.set_entry_type(kind);
            builder.append_link(&mut link, name, target).unwrap();
        }
        let mut file = builder.into_inner().unwrap();
        file.flush().unwrap();
        file.rewind().unwrap();
        let listing = Listing::of(&file).unwrap();
        for (name, expected) in [
            ("a", Some("first again")),
            ("./b/c", Some("second, longer")),
            (long.as_str(), Some("third")),
            ("empty", Some("")),
            ("b/link", Some("first again")),
            ("hard", Some("second, longer")),
            ("loop", None),
            ("out", None),
            ("absent", None),
        ] {
            let found = listing.find(name).map(|member| {
                let mut text = String::new();
                file.seek(SeekFrom::Start(member.offset)).unwrap();
                (&file).take(member.size).read_to_string(&mut text).unwrap();
                text
            });
            assert_eq!(found.as_deref(), expected, "{name}");
        }
    }
}
