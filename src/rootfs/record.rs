//! What a layer's tree can't say by itself: the file `record` beside it.
//!
//! JSON, sorted, absent when empty. Bytes of a path, of an attribute's name or value that are not UTF-8 are written `\xNN`, a backslash `\\`:
//!
//! ```json
//! {"overrides":{"/var/lib/x/fifo":"33:33:0600"},"xattrs":{"/bin/mail":{"user.mime":"text"}},"implicit":["/usr","/usr/lib"]}
//! ```
//!
//! Root emulation uses the same form for what it is told and what it reports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::meta::{self, Override};
use crate::error::{Error, IoContext, Kind, Place, Result};
use crate::oci::ImagePath;

const FILE_NAME: &str = "record";

/// Extended attributes under the names they have in the image.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// A layer's record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "OnDisk", try_from = "OnDisk")]
pub struct Record {
    /// Overrides of what can't hold a user xattr: symlinks and FIFOs; everything on a file system without user xattrs.
    pub overrides: BTreeMap<ImagePath, Override>,
    /// Extended attributes of the same entries; none of them without any.
    pub xattrs: BTreeMap<ImagePath, Xattrs>,
    /// Directories the layer's tar used without having an entry for them: their metadata must not hide the lower layers'.
    pub implicit: BTreeSet<ImagePath>,
    /// Opaque directories on a file system without user xattrs.
    pub opaque: BTreeSet<ImagePath>,
}

#[derive(Default, Serialize, Deserialize)]
struct OnDisk {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    overrides: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    implicit: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    opaque: Vec<String>,
}

impl Record {
    /// Reads the record of a layer directory; an absent one is empty.
    pub fn load(layer: &Path) -> Result<Self> {
        let path = layer.join(FILE_NAME);
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            bytes => bytes.doing("read", &path)?,
        };
        serde_json::from_slice(&bytes)
            .map_err(|e| Error::with_kind(Kind::Corrupt, "invalid layer record").cause(e.to_string()).at(Place::Path(path.clone())))
    }

    /// Writes the record into a layer directory nobody else sees yet; an empty one is removed.
    pub fn save(&self, layer: &Path) -> Result<()> {
        let path = layer.join(FILE_NAME);
        if self.is_empty() {
            return match fs::remove_file(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                done => done.doing("remove", &path),
            };
        }
        let bytes = serde_json::to_vec(self).map_err(|e| Error::new("can't write a layer record").cause(e))?;
        fs::write(&path, bytes).doing("write", &path)
    }

    /// Puts the record saved in one directory into another, on the same file system, in the place of what is there.
    pub fn place(&self, from: &Path, to: &Path) -> Result<()> {
        if self.is_empty() {
            return self.save(to);
        }
        let (from, to) = (from.join(FILE_NAME), to.join(FILE_NAME));
        fs::rename(&from, &to).doing("write", &to)
    }

    /// Whether there is nothing to save.
    pub fn is_empty(&self) -> bool {
        self.overrides.is_empty() && self.xattrs.is_empty() && self.implicit.is_empty() && self.opaque.is_empty()
    }

    /// Whether something is said of an entry's owner, mode, type or extended attributes.
    pub fn speaks_of(&self, path: &ImagePath) -> bool {
        self.overrides.contains_key(path) || self.xattrs.contains_key(path)
    }

    /// Says of an entry what it says of another: of a hard link.
    pub(crate) fn copy(&mut self, from: &ImagePath, to: &ImagePath) {
        if let Some(over) = self.overrides.get(from).copied() {
            self.overrides.insert(to.clone(), over);
        }
        if let Some(xattrs) = self.xattrs.get(from).cloned() {
            self.xattrs.insert(to.clone(), xattrs);
        }
    }

    /// Says of an entry what another record says, perhaps under another name.
    pub fn adopt(&mut self, path: &ImagePath, other: &Self, other_path: &ImagePath) {
        self.overrides.extend(other.overrides.get(other_path).map(|over| (path.clone(), *over)));
        self.xattrs.extend(other.xattrs.get(other_path).map(|xattrs| (path.clone(), xattrs.clone())));
    }

    /// Says nothing any more of the owner, mode, type and extended attributes of an entry.
    pub fn unsay(&mut self, path: &ImagePath) {
        self.overrides.remove(path);
        self.xattrs.remove(path);
    }

    /// The entries of which something is said, each once.
    pub fn entries(&self) -> impl Iterator<Item = &ImagePath> {
        let others = self.xattrs.keys().filter(|path| !self.overrides.contains_key(path));
        self.overrides.keys().chain(others)
    }

    /// Whether two records say the same of an entry.
    pub(crate) fn agrees(&self, other: &Self, path: &ImagePath) -> bool {
        self.overrides.get(path) == other.overrides.get(path) && self.xattrs.get(path) == other.xattrs.get(path)
    }

    /// Keeps an extended attribute that the file system can't hold, unless its name is one that no image may bring.
    pub(crate) fn keep_xattr(&mut self, path: &ImagePath, name: &[u8], value: &[u8]) {
        if meta::host_xattr_name(name).is_some() {
            self.xattrs.entry(path.clone()).or_default().insert(name.to_vec(), value.to_vec());
        }
    }

    /// Forgets a path and everything below it, since something else takes its place.
    pub(crate) fn forget(&mut self, path: &ImagePath) {
        // Order is by component: what is below a path follows it directly, so this costs what it removes.
        for set in [&mut self.implicit, &mut self.opaque] {
            let below: Vec<_> = set.range(path..).take_while(|p| p.starts_with(path)).cloned().collect();
            for p in below {
                set.remove(&p);
            }
        }
        forget_below(&mut self.overrides, path);
        forget_below(&mut self.xattrs, path);
    }
}

fn forget_below<T>(map: &mut BTreeMap<ImagePath, T>, path: &ImagePath) {
    let below: Vec<_> = map.range(path..).map(|(p, _)| p).take_while(|p| p.starts_with(path)).cloned().collect();
    for p in below {
        map.remove(&p);
    }
}

impl From<Record> for OnDisk {
    fn from(record: Record) -> Self {
        let text = |(name, value): (&Vec<u8>, &Vec<u8>)| (escape_bytes(name), escape_bytes(value));
        Self {
            overrides: record.overrides.iter().map(|(path, value)| (escape(path), value.to_string())).collect(),
            xattrs: record.xattrs.iter().map(|(path, xattrs)| (escape(path), xattrs.iter().map(text).collect())).collect(),
            implicit: record.implicit.iter().map(escape).collect(),
            opaque: record.opaque.iter().map(escape).collect(),
        }
    }
}

impl TryFrom<OnDisk> for Record {
    type Error = String;

    fn try_from(disk: OnDisk) -> Result<Self, String> {
        let path = |name: &String| unescape(name).ok_or_else(|| format!("invalid path {name:?}"));
        let bytes = |text: &String| unescape_bytes(text).ok_or_else(|| format!("invalid extended attribute {text:?}"));
        let over = |value: &String| value.parse().map_err(|e: Error| e.to_string());
        let mut xattrs: BTreeMap<ImagePath, Xattrs> = BTreeMap::new();
        for (name, values) in &disk.xattrs {
            let values = values.iter().map(|(name, value)| Ok((bytes(name)?, bytes(value)?))).collect::<Result<_, String>>()?;
            xattrs.insert(path(name)?, values);
        }
        Ok(Self {
            overrides: disk.overrides.iter().map(|(name, value)| Ok((path(name)?, over(value)?))).collect::<Result<_, String>>()?,
            xattrs,
            implicit: disk.implicit.iter().map(path).collect::<Result<_, _>>()?,
            opaque: disk.opaque.iter().map(path).collect::<Result<_, _>>()?,
        })
    }
}

/// A path as text without loss.
pub(crate) fn escape(path: &ImagePath) -> String {
    format!("/{}", escape_bytes(path.as_bytes()))
}

fn escape_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(&chunk.valid().replace('\\', "\\\\"));
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// Reads what [`escape`] wrote.
pub(crate) fn unescape(text: &str) -> Option<ImagePath> {
    ImagePath::strict(unescape_bytes(text)?)
}

fn unescape_bytes(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        match tail {
            [b'\\', tail @ ..] => {
                bytes.push(b'\\');
                rest = tail;
            }
            [b'x', high, low, tail @ ..] => {
                let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
                bytes.push(digit(high)? << 4 | digit(low)?);
                rest = tail;
            }
            _ => return None,
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_a_round_trip_with_any_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = Record::default();
        let over = Override { uid: 33, gid: 4, mode: 0o777, device: None };
        for name in [&b"plain"[..], b"a\xff\xfeb", b"back\\slash\\x41", b"new\nline", "ü\u{202e}".as_bytes(), b"quote\""] {
            record.overrides.insert(ImagePath::clean(name), over);
            record.implicit.insert(ImagePath::clean(name));
            record.keep_xattr(&ImagePath::clean(name), b"user.n\xffme", &[name, b"\0\x01\xf0\\"].concat());
        }
        record.keep_xattr(&ImagePath::clean("plain"), b"user.containers.override_stat", b"0:0:0");
        assert_eq!(record.xattrs.values().map(BTreeMap::len).collect::<Vec<_>>(), [1; 6]);
        record.implicit.insert(ImagePath::root());
        record.opaque.insert(ImagePath::clean("o"));
        record.save(dir.path()).unwrap();
        assert_eq!(Record::load(dir.path()).unwrap(), record);
    }

    #[test]
    fn an_empty_one_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE_NAME), "{}").unwrap();
        Record::default().save(dir.path()).unwrap();
        assert!(!dir.path().join(FILE_NAME).exists());
        assert!(Record::load(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn refuses_damage() {
        let dir = tempfile::tempdir().unwrap();
        for text in [
            "",
            "7",
            r#"{"overrides":{"/a":"x"}}"#,
            r#"{"implicit":["/../a"]}"#,
            r#"{"implicit":["/\\x4"]}"#,
            r#"{"xattrs":{"/a":{"b":"\\y"}}}"#,
        ] {
            fs::write(dir.path().join(FILE_NAME), text).unwrap();
            assert_eq!(Record::load(dir.path()).unwrap_err().kind(), Kind::Corrupt, "{text}");
        }
    }

    #[test]
    fn forgets_whole_trees_only() {
        let mut record = Record::default();
        record.implicit.extend(["a", "a/b", "ab"].map(ImagePath::clean));
        record.keep_xattr(&ImagePath::clean("a/b"), b"user.a", b"b");
        record.forget(&ImagePath::clean("a"));
        assert!(record.xattrs.is_empty());
        assert_eq!(record.implicit.into_iter().collect::<Vec<_>>(), [ImagePath::clean("ab")]);
    }
}
