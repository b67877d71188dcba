//! Records of build steps: cache key to result. What the result says is `build`'s business; the store knows which layers and
//! blobs it needs.

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::gc::files;
use super::layout::digest_of_name;
use super::{Store, record};
use crate::error::Result;
use crate::oci::{DiffId, Digest};

/// How exactly the last use of a record is known: a day, so that a build without changes writes nothing.
const USE_IS_KNOWN_TO: Duration = Duration::from_secs(24 * 3600);

/// What a step gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Layers without which the record is worth nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<DiffId>,
    /// Blobs likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<Digest>,
    /// The result, in `build`'s own form.
    pub value: Value,
}

/// A step's result as it lies in storage.
#[derive(Clone, Debug, PartialEq)]
pub struct StepEntry {
    /// Its cache key.
    pub key: Digest,
    /// The result.
    pub record: StepRecord,
    /// Bytes of the layers it made.
    pub bytes: u64,
    /// When it last answered for a step, to a day.
    pub used: SystemTime,
}

impl Store {
    /// All steps that made a layer, the one used last first. What is damaged or lacks its layer is left out.
    pub fn steps(&self) -> Result<Vec<StepEntry>> {
        let mut entries = Vec::new();
        for path in files(&self.layout().steps())? {
            let (Some(key), Some(record)) = (digest_of_name(&path), load(&path)?) else { continue };
            // Other things are remembered under keys, too: what is no result of a step has no layer of its own in its value.
            let made = record.value.get("layer").is_some_and(|layer| !layer.is_null());
            let layers = record.layers.iter().map(|diff_id| self.layer(diff_id)).collect::<Result<Option<Vec<_>>>>()?;
            if let (true, Some(layers)) = (made, layers) {
                let used = std::fs::metadata(&path).and_then(|stat| stat.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
                entries.push(StepEntry { key, record, bytes: layers.iter().map(|layer| layer.size).sum(), used });
            }
        }
        entries.sort_by(|a, b| (b.used, a.key).cmp(&(a.used, b.key)));
        Ok(entries)
    }

    /// Looks a step up. A record that is damaged, or needs something that is no longer here, is no record.
    pub fn step_get(&self, key: &Digest) -> Result<Option<StepRecord>> {
        let path = self.layout().step(key);
        let Some(step) = load(&path)? else { return Ok(None) };
        for diff_id in &step.layers {
            if self.layer(diff_id)?.is_none() {
                return Ok(None);
            }
        }
        for digest in &step.blobs {
            if self.has_blob(digest)?.is_none() {
                return Ok(None);
            }
        }
        touch(&path);
        Ok(Some(step))
    }

    /// Records a step, replacing what its key had.
    pub fn step_put(&self, key: &Digest, step: &StepRecord) -> Result<()> {
        self.write_json(&self.layout().step(key), step)?;
        self.made_something();
        Ok(())
    }
}

/// Reads a record; `None` if there is none or it is damaged.
pub(super) fn load(path: &Path) -> Result<Option<StepRecord>> {
    Ok(record::read(path)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Keeps the time of last use in the file's modification time.
fn touch(path: &Path) {
    let now = SystemTime::now();
    let old = |at: SystemTime| now.duration_since(at).is_ok_and(|age| age > USE_IS_KNOWN_TO);
    if std::fs::metadata(path).and_then(|m| m.modified()).is_ok_and(old) {
        // Only collection by age needs it, so a storage that can't be written is fine.
        let _ = std::fs::File::open(path).and_then(|file| file.set_modified(now));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn a_record_is_whole_or_none() {
        let (_dir, store) = testing::store();
        let layer = testing::layer(&store, "a");
        let blob = store.put_blob(b"b").unwrap();
        let absent = Digest::of("absent");
        for (layers, blobs, there) in [
            (vec![layer.diff_id], vec![blob], true),
            (vec![layer.diff_id, DiffId(absent)], vec![], false),
            (vec![], vec![absent], false),
            (vec![], vec![], true),
        ] {
            let key = Digest::of("key");
            let step = StepRecord { layers, blobs, value: serde_json::json!({"env": ["A=1"]}) };
            store.step_put(&key, &step).unwrap();
            assert_eq!(store.step_get(&key).unwrap(), there.then_some(step));
        }
        for garbage in ["", "{", "[]", "\0\0\0"] {
            std::fs::write(store.layout().step(&Digest::of("bad")), garbage).unwrap();
            assert_eq!(store.step_get(&Digest::of("bad")).unwrap(), None, "{garbage:?}");
        }
    }

    #[test]
    fn use_is_noted_once_a_day() {
        let (_dir, store) = testing::store();
        let (key, path) = (Digest::of("key"), store.layout().step(&Digest::of("key")));
        let step = StepRecord { layers: Vec::new(), blobs: Vec::new(), value: Value::Null };
        store.step_put(&key, &step).unwrap();
        let now = SystemTime::now();
        for (age, noted) in [(Duration::from_secs(3600), false), (Duration::from_secs(25 * 3600), true)] {
            std::fs::File::open(&path).unwrap().set_modified(now - age).unwrap();
            store.step_get(&key).unwrap().unwrap();
            let used = std::fs::metadata(&path).unwrap().modified().unwrap();
            assert_eq!(used > now - age, noted);
        }
    }
}
