//! What the emulation of one step is to do, and what it found: plain data that crosses the sandbox's boundary as JSON.
//!
//! The sandbox hands both through without looking. Paths are bytes: what is not UTF-8, and the backslash, is written `\xHH`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fakeroot::Pretence;
use crate::error::{Error, Result};
use crate::oci::ImagePath;
use crate::rootfs::meta::Override;

/// How system calls that one mapped user can't make are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// By a supervisor, consistently.
    Consistent,
    /// By the filter: success without effect.
    SuccessOnly,
    /// As success without effect, under what a program in the image pretends ([`super::fakeroot`]).
    Fakeroot,
    /// Not at all.
    None,
}

/// As whom the command starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// What to emulate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmulationSpec {
    /// How.
    pub mode: Mode,
    /// As whom the command starts.
    pub user: User,
    /// Owners of what holds no extended attributes (symlinks, FIFOs) in the layers below, by escaped path.
    owners: BTreeMap<String, String>,
    /// Where a fakeroot program keeps what it pretends; `None` where none runs.
    pub pretence: Option<Pretence>,
}

impl EmulationSpec {
    /// A specification for a stack in which no symlink or FIFO has an owner other than root.
    pub fn new(mode: Mode, user: User) -> Self {
        Self { mode, user, owners: BTreeMap::new(), pretence: None }
    }

    /// Adds the owners of symlinks and FIFOs in the layers below.
    #[must_use]
    pub fn with_owners<'a>(mut self, owners: impl IntoIterator<Item = (&'a ImagePath, Override)>) -> Self {
        self.owners.extend(owners.into_iter().map(|(path, owner)| (escape(path.as_bytes()), owner.to_string())));
        self
    }

    /// Adds where a fakeroot program keeps what it pretends.
    #[must_use]
    pub fn with_pretence(self, pretence: Option<Pretence>) -> Self {
        Self { pretence, ..self }
    }

    /// The owners again; entries that make no sense are left out.
    pub fn owners(&self) -> impl Iterator<Item = (ImagePath, Override)> {
        self.owners.iter().filter_map(|(path, owner)| Some((ImagePath::clean(unescape(path)), Override::parse(owner.as_bytes())?)))
    }

    /// As the sandbox carries it.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or(Value::Null)
    }

    /// From what the sandbox carried.
    pub fn from_value(value: &Value) -> Result<Self> {
        Self::deserialize(value).map_err(|e| Error::new("can't read the description of the root emulation").cause(e))
    }
}

/// What the supervisor found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    owners: BTreeMap<String, String>,
    /// How many notifications of each kind were answered.
    pub notifications: BTreeMap<String, u64>,
}

impl Report {
    /// A report of these owners.
    pub fn new(owners: impl IntoIterator<Item = (ImagePath, Override)>, notifications: BTreeMap<String, u64>) -> Self {
        Self { owners: owners.into_iter().map(|(path, owner)| (escape(path.as_bytes()), owner.to_string())).collect(), notifications }
    }

    /// From what the sandbox carried.
    pub fn from_value(value: &Value) -> Result<Self> {
        Self::deserialize(value).map_err(|e| Error::new("can't read the report of the root emulation").cause(e))
    }

    /// Owners of symlinks and FIFOs that the step left in its layer.
    pub fn overrides(&self) -> BTreeMap<ImagePath, Override> {
        let parse = |(path, owner): (&String, &String)| Some((ImagePath::clean(unescape(path)), Override::parse(owner.as_bytes())?));
        self.owners.iter().filter_map(parse).collect()
    }

    /// How many notifications were answered.
    pub fn total(&self) -> u64 {
        self.notifications.values().sum()
    }
}

fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(&chunk.valid().replace('\\', "\\x5c"));
        out.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    out
}

fn unescape(text: &str) -> Vec<u8> {
    let mut parts = text.split("\\x");
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                out.extend_from_slice(&part.as_bytes()[2..]);
            }
            None => out.extend_from_slice(part.as_bytes()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive() {
        for path in [&b"var/run"[..], b"a\\x41b", b"\xff\xfe/\\", "ä/ö".as_bytes()] {
            let path = ImagePath::clean(path);
            let owner = Override { uid: 33, gid: 34, mode: 0o777, device: None };
            let spec = EmulationSpec::new(Mode::Consistent, User::default()).with_owners([(&path, owner)]);
            let spec = EmulationSpec::from_value(&spec.to_value()).unwrap();
            assert_eq!(spec.owners().collect::<Vec<_>>(), [(path.clone(), owner)]);
            let report = Report::new([(path.clone(), owner)], BTreeMap::new());
            assert_eq!(report.overrides(), BTreeMap::from([(path, owner)]));
        }
    }
}
