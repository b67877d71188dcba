//! The step cache: a key's result looked up, or made and remembered.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::event::Outcome;
use crate::oci::{Descriptor, DiffId, Digest, media_type};
use crate::store::{Layer, StepRecord, Work};

use super::Cache;
use super::engine::Engine;
use super::state::StateLayer;

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

impl Engine<'_> {
    /// Answers from the step cache, or does the work and remembers it.
    pub(super) fn cached(&self, key: Digest, work: impl FnOnce(&Self) -> Result<Option<Layer>>) -> Result<Made> {
        let mut _lock = None;
        if self.request.cache == Cache::Use {
            if let Some(made) = self.remembered(&key)? {
                return Ok(made);
            }
            // Another platform, or another build, may be at this very step: wait, and find it done.
            _lock = Some(self.store.lock(Work::Step(&key))?);
            if let Some(made) = self.remembered(&key)? {
                return Ok(made);
            }
        }
        let layer = work(self)?;
        let created = self.request.epoch.map_or_else(|| Ok(super::now()), super::timestamp)?;
        let layer = layer.map(|layer| (layer.diff_id, layer.size));
        let record = Record { layer, created };
        let layers = layer.map(|(diff_id, _)| diff_id).into_iter().collect();
        let value = serde_json::to_value(&record).expect("plain data");
        self.store.step_put(&key, &StepRecord { layers, blobs: Vec::new(), value })?;
        Ok(Made { layer: record.layer.map(state_layer), created: record.created, outcome: Outcome::Done })
    }

    /// A record counts only if its layer is still there and, with an epoch, if it was made for that time.
    fn remembered(&self, key: &Digest) -> Result<Option<Made>> {
        let Some(step) = self.store.step_get(key)? else { return Ok(None) };
        let Ok(record) = serde_json::from_value::<Record>(step.value) else { return Ok(None) };
        if let Some(epoch) = self.request.epoch
            && record.created != super::timestamp(epoch)?
        {
            return Ok(None);
        }
        Ok(Some(Made { layer: record.layer.map(state_layer), created: record.created, outcome: Outcome::Cached }))
    }
}

/// How the manifest names a layer made here: uncompressed, since nobody asked for its compressed form yet.
fn state_layer((diff_id, size): (DiffId, u64)) -> StateLayer {
    StateLayer { diff_id, descriptor: Descriptor::new(media_type::OCI_LAYER, diff_id.0, size) }
}
