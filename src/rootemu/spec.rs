//! What the emulation of one step is to do, and what it found: plain data that crosses the sandbox's boundary as JSON.
//!
//! The sandbox hands both through without looking. Paths and what is said of files are written as in a layer's record.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fakeroot::Pretence;
use crate::error::{Error, Result};
use crate::oci::ImagePath;
use crate::rootfs::record::{self, Record};

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
    layers: Record,
    mounted: Record,
    caches: BTreeSet<String>,
    /// Where a fakeroot program keeps what it pretends; `None` where none runs.
    pub pretence: Option<Pretence>,
    /// How many calls are answered at once; by the number of processors if `None`.
    #[serde(default)]
    pub at_once: Option<usize>,
}

impl EmulationSpec {
    /// A specification for a stack, and mounts in it, whose files say all that is to be known of them.
    pub fn new(mode: Mode, user: User) -> Self {
        let (layers, mounted) = (Record::default(), Record::default());
        Self { mode, user, layers, mounted, caches: BTreeSet::new(), pretence: None, at_once: None }
    }

    /// Sets what the records of the layers say.
    #[must_use]
    pub fn with_layers(self, layers: Record) -> Self {
        Self { layers, ..self }
    }

    /// Adds where a fakeroot program keeps what it pretends.
    #[must_use]
    pub fn with_pretence(self, pretence: Option<Pretence>) -> Self {
        Self { pretence, ..self }
    }

    /// Sets what is to be known of what is mounted into the stack, and the directories among that whose records are kept: the report says what is
    /// left in them.
    #[must_use]
    pub fn with_mounted(self, mounted: Record, caches: impl IntoIterator<Item = ImagePath>) -> Self {
        Self { mounted, caches: caches.into_iter().map(|path| record::escape(&path)).collect(), ..self }
    }

    /// What the records of the layers say.
    pub fn layers(&self) -> &Record {
        &self.layers
    }

    /// What is to be known of mounts.
    pub fn mounted(&self) -> &Record {
        &self.mounted
    }

    /// Mounted directories whose records are kept.
    pub fn caches(&self) -> impl Iterator<Item = ImagePath> {
        self.caches.iter().filter_map(|path| record::unescape(path))
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
    /// What the layer's record must say; in a plain directory, where nothing tells what is new, of all that is in it.
    pub left: Record,
    caches: BTreeMap<String, Record>,
    /// How many notifications of each kind were answered.
    pub notifications: BTreeMap<String, u64>,
}

impl Report {
    /// A report. Caches are named by their place in the image.
    pub fn new(left: Record, caches: impl IntoIterator<Item = (ImagePath, Record)>, notifications: BTreeMap<String, u64>) -> Self {
        let caches = caches.into_iter().map(|(path, left)| (record::escape(&path), left)).collect();
        Self { left, caches, notifications }
    }

    /// From what the sandbox carried.
    pub fn from_value(value: &Value) -> Result<Self> {
        Self::deserialize(value).map_err(|e| Error::new("can't read the report of the root emulation").cause(e))
    }

    /// What is left in the cache that was mounted there.
    pub fn cache(&self, target: &ImagePath) -> Option<&Record> {
        self.caches.get(&record::escape(target))
    }

    /// How many notifications were answered.
    pub fn total(&self) -> u64 {
        self.notifications.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::meta::Override;

    #[test]
    fn what_is_said_survives() {
        let mut said = Record::default();
        let mut caches = Vec::new();
        for path in [&b"var/run"[..], b"a\\x41b", b"\xff\xfe/\\", "ä/ö".as_bytes()] {
            let path = ImagePath::clean(path);
            said.overrides.insert(path.clone(), Override { uid: 33, gid: 34, mode: 0o777, device: None });
            said.xattrs.insert(path.clone(), [(b"user.a".to_vec(), path.as_bytes().to_vec())].into());
            caches.push(path);
        }
        let spec =
            EmulationSpec::new(Mode::Consistent, User::default()).with_layers(said.clone()).with_mounted(said.clone(), caches.clone());
        let again = EmulationSpec::from_value(&spec.to_value()).unwrap();
        assert_eq!(again, spec);
        assert_eq!(again.caches().count(), caches.len());
        let report = Report::new(said.clone(), caches.iter().map(|path| (path.clone(), said.clone())), BTreeMap::new());
        let again = Report::from_value(&serde_json::to_value(&report).unwrap()).unwrap();
        assert_eq!(again.left, said);
        assert!(caches.iter().all(|path| again.cache(path) == Some(&said)));
    }
}
