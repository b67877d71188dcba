//! rpm's database, in each of the forms it has had: SQLite (since rpm 4.16), ndb (SUSE), Berkeley DB (before, as in RHEL 8).
//!
//! Whatever the form, it holds a header of the package file format for each package.
//!
//! Source: rpm's docs/manual/format_header.md, `rpmtag.h`.

mod bdb;
mod ndb;
mod sqlite;

use super::{Inventory, LARGEST_DATABASE, Manager, Package, damaged, organization};
use crate::error::Result;
use crate::oci::ImagePath;
use crate::rootfs::view::View;

/// Fedora moved the database in 2022, SUSE before.
const DIRECTORIES: [&str; 2] = ["/usr/lib/sysimage/rpm", "/var/lib/rpm"];

/// A form: its file, and how to take the headers out of it.
type Form = (&'static str, fn(&[u8], Option<&[u8]>) -> Result<Vec<Vec<u8>>>);

const FORMS: [Form; 3] =
    [("rpmdb.sqlite", sqlite::headers), ("Packages.db", |bytes, _| ndb::headers(bytes)), ("Packages", |bytes, _| bdb::headers(bytes))];

pub(super) fn find(view: &View, found: &mut Inventory) -> Result<()> {
    for directory in DIRECTORIES {
        for (name, headers) in FORMS {
            let path = ImagePath::clean(format!("{directory}/{name}"));
            let Some(bytes) = found.content(view, &path, LARGEST_DATABASE)? else { continue };
            let log = found.content(view, &ImagePath::clean(format!("{directory}/{name}-wal")), LARGEST_DATABASE)?;
            let location = path.to_string();
            match headers(&bytes, log.as_deref()) {
                Ok(headers) => found.packages.extend(headers.iter().filter_map(|header| package(header, &location))),
                Err(error) => found.note(&path, error),
            }
            // The other directory is often a link to this one.
            return Ok(());
        }
    }
    Ok(())
}

const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const VENDOR: u32 = 1011;
const LICENSE: u32 = 1014;
const URL: u32 = 1020;
const ARCHITECTURE: u32 = 1022;
const SOURCE: u32 = 1044;

fn package(header: &[u8], location: &str) -> Option<Package> {
    let header = Header::parse(header)?;
    let name = header.text(NAME)?;
    // Keys that signatures are checked with are kept as if they were packages.
    if name == "gpg-pubkey" {
        return None;
    }
    let version = format!("{}-{}", header.text(VERSION)?, header.text(RELEASE)?);
    let mut package = Package::new(Manager::Rpm, &name, &version, location);
    package.architecture = header.text(ARCHITECTURE);
    package.supplier = header.text(VENDOR).and_then(|vendor| organization(&vendor));
    package.homepage = header.text(URL);
    package.license = header.text(LICENSE);
    package.qualifiers.extend(header.number(EPOCH).map(|epoch| ("epoch", epoch.to_string())));
    package.qualifiers.extend(header.text(SOURCE).map(|source| ("upstream", source)));
    Some(package)
}

/// A header: an index of tags, and a store of their values.
struct Header<'a> {
    index: &'a [u8],
    store: &'a [u8],
}

impl<'a> Header<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (entries, size) = (number(bytes, 0)? as usize, number(bytes, 4)? as usize);
        let (index, store) = bytes.get(8..)?.split_at_checked(entries.checked_mul(16)?)?;
        Some(Self { index, store: store.get(..size)? })
    }

    /// Type and value of a tag.
    fn find(&self, tag: u32) -> Option<(u32, &'a [u8])> {
        let entry = self.index.chunks_exact(16).find(|entry| number(entry, 0) == Some(tag))?;
        Some((number(entry, 4)?, self.store.get(number(entry, 8)? as usize..)?))
    }

    /// A text: plain, or the first of those that are translated.
    fn text(&self, tag: u32) -> Option<String> {
        const STRING: u32 = 6;
        const TRANSLATED: u32 = 9;
        let (kind, value) = self.find(tag)?;
        let text = value.split(|byte| *byte == 0).next().filter(|_| matches!(kind, STRING | TRANSLATED))?;
        Some(String::from_utf8_lossy(text).into_owned()).filter(|text| !text.is_empty() && text != "(none)")
    }

    fn number(&self, tag: u32) -> Option<u32> {
        const INT32: u32 = 4;
        let (kind, value) = self.find(tag)?;
        number(value, 0).filter(|_| kind == INT32)
    }
}

/// A big-endian number.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with these tags; numbers have type 4.
    pub(super) fn header(tags: &[(u32, &str)]) -> Vec<u8> {
        let (mut index, mut store) = (Vec::new(), Vec::new());
        for (tag, text) in tags {
            let kind = if *tag == EPOCH { 4 } else { 6 };
            for word in [*tag, kind, store.len() as u32, 1] {
                index.extend_from_slice(&word.to_be_bytes());
            }
            match kind {
                4 => store.extend_from_slice(&text.parse::<u32>().unwrap().to_be_bytes()),
                _ => store.extend_from_slice(&[text.as_bytes(), &[0]].concat()),
            }
        }
        [&(tags.len() as u32).to_be_bytes()[..], &(store.len() as u32).to_be_bytes(), &index, &store].concat()
    }

    #[test]
    fn reads_headers() {
        let tags = [(NAME, "bash"), (VERSION, "5.1"), (RELEASE, "2.el9"), (EPOCH, "1"), (ARCHITECTURE, "x86_64"), (LICENSE, "GPLv3+")];
        let bytes = header(&tags);
        let found = package(&bytes, "l").unwrap();
        assert_eq!((found.name.as_str(), found.version.as_str(), found.qualifiers["epoch"].as_str()), ("bash", "5.1-2.el9", "1"));
        for end in 0..bytes.len() {
            // Cut off anywhere it is no header, and nothing worse.
            assert!(package(&bytes[..end], "l").is_none(), "{end}");
        }
        assert!(package(&header(&[(NAME, "gpg-pubkey"), (VERSION, "1"), (RELEASE, "1")]), "l").is_none());
    }
}
