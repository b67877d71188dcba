//! The step cache: a key's result looked up, or made and remembered.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::event::Outcome;
use crate::oci::{DiffId, Digest};
use crate::rootfs::meta::Times;
use crate::store::{Layer, StepRecord, Work};

use super::engine::Engine;
use super::key::Key;
use super::state::StateLayer;
use super::{Cache, Execution};

/// What the step cache remembers: the layer, if there was something to keep, and when it was made.
#[derive(Serialize, Deserialize)]
struct Record {
    layer: Option<(DiffId, u64)>,
    created: String,
}

/// What a step made.
pub struct Made {
    /// Nothing if nothing changed.
    pub layer: Option<StateLayer>,
    /// When, as configs have it.
    pub created: String,
    /// Whether it was executed.
    pub outcome: Outcome,
}

impl Made {
    /// Nothing yet.
    pub fn planned() -> Self {
        Self { layer: None, created: String::new(), outcome: Outcome::Planned }
    }
}

impl Engine<'_> {
    /// Answers from the step cache, or does the work and remembers it.
    pub(super) fn cached(&self, key: Digest, work: impl FnOnce(&Self) -> Result<Option<Layer>>) -> Result<Made> {
        let key = self.dated(key);
        let mut _lock = None;
        if self.request.cache == Cache::Use {
            if let Some(made) = self.remembered(&key)? {
                return Ok(made);
            }
            // Another platform, or another build, may be at this very step: wait, and find it done.
            if self.request.execution == Execution::Full {
                _lock = Some(self.store.lock(Work::Step(&key))?);
                if let Some(made) = self.remembered(&key)? {
                    return Ok(made);
                }
            }
        }
        if self.request.execution == Execution::Dry {
            return Ok(Made::planned());
        }
        let layer = work(self)?;
        let created = self.request.times.epoch().map_or_else(|| Ok(super::now()), super::timestamp)?;
        let layer = layer.map(|layer| (layer.diff_id, layer.size));
        let record = Record { layer, created };
        let layers = layer.map(|(diff_id, _)| diff_id).into_iter().collect();
        let value = serde_json::to_value(&record).expect("plain data");
        self.store.step_put(&key, &StepRecord { layers, blobs: Vec::new(), value })?;
        Ok(Made { layer: record.layer.map(StateLayer::made), created: record.created, outcome: Outcome::Done })
    }

    /// The key of a step whose layer's times depend on the request's.
    fn dated(&self, key: Digest) -> Digest {
        match self.request.times {
            Times::Kept => key,
            times => {
                let mut dated = Key::new(&key, "times");
                dated.field(format!("{times:?}"));
                dated.finish()
            }
        }
    }

    /// A record counts only if its layer is still there.
    fn remembered(&self, key: &Digest) -> Result<Option<Made>> {
        let Some(step) = self.store.step_get(key)? else { return Ok(None) };
        let Ok(record) = serde_json::from_value::<Record>(step.value) else { return Ok(None) };
        Ok(Some(Made { layer: record.layer.map(StateLayer::made), created: record.created, outcome: Outcome::Cached }))
    }
}
