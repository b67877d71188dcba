//! The step cache: a key's result looked up, taken from a cache elsewhere, or made and remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::event::{Event, Outcome, Sink};
use crate::oci::{DiffId, Digest, Platform};
use crate::rootfs::meta::Times;
use crate::store::{Layer, StepRecord, Work};
use crate::transfer::{Client, MadeStep, StepCache, StepPlace};

use super::engine::Engine;
use super::key::Key;
use super::state::StateLayer;
use super::{Cache, Execution};

/// Caches besides the storage directory's own.
#[derive(Clone, Debug, Default)]
pub struct Caches {
    /// Where steps may be taken from, in this order.
    pub from: Vec<StepPlace>,
    /// Whether the image's config gets its own steps.
    pub inline: Inline,
    /// Stages for which nothing old answers.
    pub fresh: BTreeSet<String>,
}

/// Whether an image carries its own steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Inline {
    /// No.
    #[default]
    No,
    /// In a field of its config that others ignore.
    Yes,
}

/// Reads which steps the other caches have. One that can't be read is warned of and does without: the build gives the same image.
pub fn load(client: &Client, caches: &Caches, platforms: &[Platform], sink: &dyn Sink) -> Vec<StepCache> {
    let load = |place: &StepPlace| match StepCache::load(client, place, platforms) {
        Ok(cache) => Some(cache),
        Err(error) => {
            sink.event(Event::Warning(&format!("going on without the cache {place}: {error}")));
            None
        }
    };
    caches.from.iter().filter_map(load).collect()
}

/// The steps a build went through, whoever answered for them.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<BTreeMap<Digest, MadeStep>>);

impl Ledger {
    fn note(&self, key: &Digest, made: &Made) {
        let layer = made.layer.as_ref().map(|layer| layer.diff_id);
        let step = MadeStep { key: *key, layer, created: made.created.clone() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(*key, step);
    }

    /// All of them, sorted by key.
    pub fn steps(self) -> Vec<MadeStep> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
    }
}

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

/// Whether what a step read is still what its key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inputs {
    /// It is.
    AsKeyed,
    /// Somebody changed it meanwhile: the result answers for nothing.
    Changed,
}

impl Made {
    /// Nothing yet.
    pub fn planned() -> Self {
        Self { layer: None, created: String::new(), outcome: Outcome::Planned }
    }
}

impl Engine<'_> {
    /// Answers from the step cache, or does the work and remembers it.
    ///
    /// `id` is the step's in events, if this is a step's own work.
    pub(super) fn cached(&self, id: Option<u64>, key: Digest, work: impl FnOnce(&Self) -> Result<Option<Layer>>) -> Result<Made> {
        self.cached_while(id, key, |_| Ok(Inputs::AsKeyed), work)
    }

    /// [`Engine::cached`] for a step that reads files which others can change: `inputs` looks again when the work is done.
    pub(super) fn cached_while(
        &self,
        id: Option<u64>,
        key: Digest,
        inputs: impl FnOnce(&Self) -> Result<Inputs>,
        work: impl FnOnce(&Self) -> Result<Option<Layer>>,
    ) -> Result<Made> {
        let key = self.dated(key);
        let made = self.answer(id, key, inputs, work)?;
        if !matches!(made.outcome, Outcome::Planned | Outcome::Unsettled) {
            self.ledger.note(&key, &made);
        }
        Ok(made)
    }

    fn answer(
        &self,
        id: Option<u64>,
        key: Digest,
        inputs: impl FnOnce(&Self) -> Result<Inputs>,
        work: impl FnOnce(&Self) -> Result<Option<Layer>>,
    ) -> Result<Made> {
        let mut _lock = None;
        if self.cache == Cache::Use {
            if let Some(made) = self.remembered(&key)? {
                return Ok(made);
            }
            // Another platform, or another build, may be at this very step: wait, and find it done.
            if self.request.execution == Execution::Full {
                _lock = Some(self.store.lock(Work::Step(&key))?);
                if let Some(made) = self.remembered(&key)? {
                    return Ok(made);
                }
                if self.import(&key)?
                    && let Some(made) = self.remembered(&key)?
                {
                    return Ok(made);
                }
            }
        }
        if self.request.execution == Execution::Dry {
            return Ok(Made::planned());
        }
        if let Some(id) = id {
            self.sink.event(Event::StepExecuting { id });
        }
        let layer = work(self)?;
        let created = self.request.times.epoch().map_or_else(|| Ok(super::now()), super::timestamp)?;
        let layer = layer.map(|layer| (layer.diff_id, layer.size));
        let record = Record { layer, created };
        let outcome = match inputs(self)? {
            Inputs::AsKeyed => {
                self.remember(&key, &record)?;
                Outcome::Done
            }
            Inputs::Changed => {
                let text =
                    "files of the build context changed while a step read them; what it made may be a mixture, and is not remembered";
                self.sink.event(Event::Warning(text));
                Outcome::Unsettled
            }
        };
        Ok(Made { layer: record.layer.map(StateLayer::made), created: record.created, outcome })
    }

    fn remember(&self, key: &Digest, record: &Record) -> Result<()> {
        let layers = record.layer.map(|(diff_id, _)| diff_id).into_iter().collect();
        let value = serde_json::to_value(record).expect("plain data");
        self.store.step_put(key, &StepRecord { layers, blobs: Vec::new(), value })
    }

    /// Takes a step from the first of the other caches that has it; false if none has. One that turns out to lie is warned of.
    fn import(&self, key: &Digest) -> Result<bool> {
        for cache in self.caches {
            let Some(step) = cache.step(key) else { continue };
            match self.take_in(cache, step) {
                Ok(()) => return Ok(true),
                Err(error) if matches!(error.kind(), Kind::NoSpace | Kind::Interrupted) => return Err(error),
                Err(error) => {
                    let text = format!("going on without what the cache {} has for a step: {error}", cache.place());
                    self.sink.event(Event::Warning(&text));
                }
            }
        }
        Ok(false)
    }

    fn take_in(&self, cache: &StepCache, step: &MadeStep) -> Result<()> {
        if step.created.parse::<jiff::Timestamp>().is_err() {
            return Err(Error::with_kind(Kind::Corrupt, "a step's time is none"));
        }
        let fetch = |diff_id| cache.fetch(self.store, self.client, &diff_id, self.sink).map(|size| (diff_id, size));
        let layer = step.layer.map(fetch).transpose()?;
        self.remember(&step.key, &Record { layer, created: step.created.clone() })
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
