//! What a layer's tree can't say by itself: the file `record` beside it.
//!
//! JSON, sorted, absent when empty. Bytes of a path that are not UTF-8 are written `\xNN`, a backslash `\\`:
//!
//! ```json
//! {"overrides":{"/var/lib/x/fifo":"33:33:0600"},"implicit":["/usr","/usr/lib"]}
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::meta::Override;
use crate::error::{Error, IoContext, Kind, Place, Result};
use crate::oci::ImagePath;

const FILE_NAME: &str = "record";

/// A layer's record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Overrides of what can't hold a user xattr: symlinks and FIFOs; everything on a file system without user xattrs.
    pub overrides: BTreeMap<ImagePath, Override>,
    /// Directories the layer's tar used without having an entry for them: their metadata must not hide the lower layers'.
    pub implicit: BTreeSet<ImagePath>,
    /// Opaque directories on a file system without user xattrs.
    pub opaque: BTreeSet<ImagePath>,
}

#[derive(Default, Serialize, Deserialize)]
struct OnDisk {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    overrides: BTreeMap<String, String>,
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
        let bad = |cause: String| Error::with_kind(Kind::Corrupt, "invalid layer record").cause(cause).at(Place::Path(path.clone()));
        let disk: OnDisk = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
        let set = |names: &[String]| -> Result<BTreeSet<ImagePath>> {
            names.iter().map(|name| unescape(name).ok_or_else(|| bad(format!("invalid path {name:?}")))).collect()
        };
        let mut overrides = BTreeMap::new();
        for (name, value) in &disk.overrides {
            let path = unescape(name).ok_or_else(|| bad(format!("invalid path {name:?}")))?;
            overrides.insert(path, value.parse().map_err(|e: Error| bad(e.to_string()))?);
        }
        Ok(Self { overrides, implicit: set(&disk.implicit)?, opaque: set(&disk.opaque)? })
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
        let disk = OnDisk {
            overrides: self.overrides.iter().map(|(path, value)| (escape(path), value.to_string())).collect(),
            implicit: self.implicit.iter().map(escape).collect(),
            opaque: self.opaque.iter().map(escape).collect(),
        };
        let bytes = serde_json::to_vec(&disk).map_err(|e| Error::new("can't write a layer record").cause(e))?;
        fs::write(&path, bytes).doing("write", &path)
    }

    /// Whether there is nothing to save.
    pub fn is_empty(&self) -> bool {
        self.overrides.is_empty() && self.implicit.is_empty() && self.opaque.is_empty()
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
        let below: Vec<_> = self.overrides.range(path..).map(|(p, _)| p).take_while(|p| p.starts_with(path)).cloned().collect();
        for p in below {
            self.overrides.remove(&p);
        }
    }
}

/// A path as text without loss.
pub(crate) fn escape(path: &ImagePath) -> String {
    let mut out = String::from("/");
    for chunk in path.as_bytes().utf8_chunks() {
        out.push_str(&chunk.valid().replace('\\', "\\\\"));
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// Reads what [`escape`] wrote.
pub(crate) fn unescape(text: &str) -> Option<ImagePath> {
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
    ImagePath::strict(bytes)
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
        }
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
        for text in ["", "7", r#"{"overrides":{"/a":"x"}}"#, r#"{"implicit":["/../a"]}"#, r#"{"implicit":["/\\x4"]}"#] {
            fs::write(dir.path().join(FILE_NAME), text).unwrap();
            assert_eq!(Record::load(dir.path()).unwrap_err().kind(), Kind::Corrupt, "{text}");
        }
    }

    #[test]
    fn forgets_whole_trees_only() {
        let mut record = Record::default();
        record.implicit.extend(["a", "a/b", "ab"].map(ImagePath::clean));
        record.forget(&ImagePath::clean("a"));
        assert_eq!(record.implicit.into_iter().collect::<Vec<_>>(), [ImagePath::clean("ab")]);
    }
}
