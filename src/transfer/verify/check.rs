//! Reading everything, several things at a time.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::needs::{Needs, Role};
use super::{Checked, Finding, Outcome, Part, VerifyRequest};
use crate::error::{Error, Kind, Result, from_io};
use crate::event::{Event, next_id};
use crate::oci::{Descriptor, DiffId, Digest, Hasher, Reference};
use crate::rootfs::differ::{Clock, differences};
use crate::rootfs::pack::pack_view;
use crate::rootfs::view::{LayerDir, View};
use crate::store::{Draft, Inventory, LayerState};
use crate::transfer::copy::Means;
use crate::transfer::parallel;
use crate::transfer::pipeline::{self, Unpacked};

/// Files of a layer that are told; the rest is counted.
const MOST_DETAILS: usize = 20;

/// One run of the checks.
pub(super) struct Check<'a> {
    means: &'a Means<'a>,
    inventory: &'a Inventory,
    needs: &'a Needs,
    /// Names to whose things the check is limited.
    only: Option<BTreeSet<Reference>>,
    threads: usize,
    progress: (u64, AtomicU64),
    clock: OnceLock<Clock>,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    checked: Checked,
    findings: Vec<Finding>,
    unproven: Vec<(DiffId, Vec<Reference>)>,
    proven: BTreeSet<Digest>,
    /// Blobs that were told of already.
    told: BTreeSet<Digest>,
}

enum Job {
    Layer(DiffId),
    Blob(Digest, u64),
}

impl<'a> Check<'a> {
    pub(super) fn new(means: &'a Means<'a>, inventory: &'a Inventory, needs: &'a Needs, request: &VerifyRequest) -> Self {
        let only = request.images.iter().map(|record| record.reference.clone()).collect();
        let only = Some(only).filter(|_| !request.images.is_empty());
        let progress = (next_id(), AtomicU64::new(0));
        let check = Self {
            means,
            inventory,
            needs,
            only,
            threads: request.threads.max(1),
            progress,
            clock: OnceLock::new(),
            found: Mutex::default(),
        };
        let of_records = needs.findings.iter().filter(|finding| check.is_meant(&finding.images));
        check.found().findings.extend(of_records.cloned());
        check
    }

    /// Whether the check is about something that these names need.
    fn is_meant(&self, users: &[Reference]) -> bool {
        self.only.as_ref().is_none_or(|only| users.iter().any(|user| only.contains(user)))
    }

    /// Layers first, since blobs that they are compared with are read by that.
    pub(super) fn all(&self) -> Result<()> {
        let store = self.means.store;
        let mut layers: BTreeSet<DiffId> = self.needs.layers.keys().chain(&self.inventory.layers).copied().collect();
        layers.retain(|layer| self.is_meant(&self.needs.users_of_layer(layer)));
        let blobs = self.inventory.blobs.iter().filter(|(digest, _)| self.is_meant(&self.needs.users(digest)));
        let mut jobs: Vec<(u64, Job)> = layers.iter().map(|layer| (store.layer_weight(layer), Job::Layer(*layer))).collect();
        // What takes longest starts first.
        jobs.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
        let blobs: Vec<(u64, Job)> = blobs.map(|(digest, size)| (*size, Job::Blob(*digest, *size))).collect();
        let total = jobs.iter().chain(&blobs).map(|(weight, _)| weight).sum();
        let id = self.progress.0;
        self.means.sink.event(Event::TransferStarted { id, what: "checking", total: Some(total) });
        for phase in [jobs, blobs] {
            parallel::each(phase, self.threads, |(weight, job), _| {
                match job {
                    Job::Layer(diff_id) => self.layer(&diff_id)?,
                    Job::Blob(digest, size) => self.blob(&digest, size)?,
                }
                let done = self.progress.1.fetch_add(weight, Ordering::Relaxed) + weight;
                self.means.sink.event(Event::TransferAdvanced { id, done });
                Ok(())
            })?;
        }
        self.absent_blobs();
        if self.only.is_none() {
            self.cache();
        }
        self.means.sink.event(Event::TransferFinished { id, note: "done" });
        let mut found = self.found();
        let records = self.needs.records.iter().filter(|record| self.is_meant(std::slice::from_ref(&record.reference)));
        found.checked.images = records.count() as u64;
        found.checked.bytes = self.progress.1.load(Ordering::Relaxed);
        Ok(())
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        self.found().findings.clone()
    }

    pub(super) fn proven(&self) -> BTreeSet<Digest> {
        self.found().proven.clone()
    }

    pub(super) fn unproven(&self) -> Vec<(DiffId, Vec<Reference>)> {
        let mut unproven = self.found().unproven.clone();
        unproven.sort();
        unproven
    }

    pub(super) fn checked(&self) -> Checked {
        self.found().checked
    }

    fn tell(&self, part: Part, name: String, path: PathBuf, what: String, details: Vec<String>, images: Vec<Reference>) {
        self.found().findings.push(Finding { part, name, path, what, details, images, outcome: Outcome::Found });
    }

    fn tell_of_blob(&self, digest: &Digest, what: String) {
        if self.found().told.insert(*digest) {
            self.tell(Part::Blob, digest.to_string(), self.means.store.blob_path(digest), what, Vec::new(), self.needs.users(digest));
        }
    }

    /// A layer, and the blobs that hold it.
    fn layer(&self, diff_id: &DiffId) -> Result<()> {
        let store = self.means.store;
        let state = store.examine_layer(diff_id)?;
        self.found().checked.layers += u64::from(state != LayerState::Absent);
        let mut fresh: Option<Draft> = None;
        for blob in self.needs.sources.get(diff_id).into_iter().flatten() {
            // Unpacked again only where that tells something.
            let wanted = fresh.is_none() && matches!(state, LayerState::Foreign(_) | LayerState::Damaged(_));
            let draft = if wanted { Some(store.draft()?) } else { None };
            if self.source(diff_id, blob, draft.as_ref())? {
                fresh = fresh.or(draft);
            }
        }
        let tell = |what: String, details: Vec<String>| {
            let images = self.needs.users_of_layer(diff_id);
            self.tell(Part::Layer, diff_id.to_string(), store.layer_path(diff_id), what, details, images);
        };
        let compared = |fresh: &Draft| -> Result<Vec<String>> {
            let mut lines = differences(&store.open_layer(diff_id)?, &LayerDir::open(fresh.path())?, self.clock()?)?;
            let more = lines.len().saturating_sub(MOST_DETAILS);
            lines.truncate(MOST_DETAILS);
            lines.extend((more > 0).then(|| format!("and {more} more")));
            Ok(lines)
        };
        match (state, &fresh) {
            (LayerState::Proven, _) => {}
            (LayerState::Absent, _) if self.needs.layers.contains_key(diff_id) => tell("it is missing".into(), Vec::new()),
            (LayerState::Absent, _) => {}
            (LayerState::Damaged(why), None) => tell(why, Vec::new()),
            // What can't be packed can't be compared.
            (LayerState::Damaged(why), Some(fresh)) => tell(why, compared(fresh).unwrap_or_default()),
            (LayerState::Foreign(_), None) => self.found().unproven.push((*diff_id, self.needs.users_of_layer(diff_id))),
            (LayerState::Foreign(ours), Some(fresh)) => {
                if store.packed_digest(fresh.path())? != ours {
                    let lines = compared(fresh)?;
                    if self.clock()? == Clock::Kept || !lines.is_empty() {
                        tell("it is not what its blob holds".into(), lines);
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether the file system keeps the times that files are given. Some of FUSE's do not (bindfs in a user namespace).
    fn clock(&self) -> Result<Clock> {
        if let Some(clock) = self.clock.get() {
            return Ok(*clock);
        }
        let scratch = self.means.store.scratch()?;
        let path = scratch.path().join("probe");
        let told = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        let kept = || -> std::io::Result<bool> {
            let mut file = std::fs::File::create(&path)?;
            std::io::Write::write_all(&mut file, b"probe")?;
            file.set_modified(told)?;
            drop(file);
            Ok(std::fs::metadata(&path)?.modified()? == told)
        };
        let clock = if kept().map_err(|e| Error::io("probe", &path, e))? { Clock::Kept } else { Clock::Lost };
        Ok(*self.clock.get_or_init(|| clock))
    }

    /// A blob that should hold a layer; `false` if it is absent or not whole.
    fn source(&self, diff_id: &DiffId, blob: &Descriptor, draft: Option<&Draft>) -> Result<bool> {
        let store = self.means.store;
        if store.has_blob(&blob.digest)?.is_none() {
            return Ok(false);
        }
        match take_apart(self.means, blob, draft) {
            Ok(unpacked) if unpacked.diff_id == *diff_id => {
                let mut found = self.found();
                found.checked.blobs += u64::from(found.proven.insert(blob.digest));
                Ok(true)
            }
            Ok(unpacked) => {
                let what = format!("it says that blob `{}` holds this layer, which holds `{}`", blob.digest, unpacked.diff_id);
                let images = self.needs.users_of_layer(diff_id);
                self.tell(Part::Memory, diff_id.to_string(), store.memory_path(diff_id), what, Vec::new(), images);
                Ok(false)
            }
            // The whole blob is read below, if this was not the fault of its bytes.
            Err(error) if error.kind() == Kind::Corrupt => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn blob(&self, digest: &Digest, size: u64) -> Result<()> {
        if self.found().proven.contains(digest) {
            return Ok(());
        }
        self.found().checked.blobs += 1;
        let mut hasher = Hasher::new();
        let mut reader = match self.means.store.blob_reader(digest) {
            Ok(reader) => reader,
            // Collected meanwhile.
            Err(error) if error.kind() == Kind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let expected = self.needs.blobs.get(digest).and_then(|need| need.descriptor.as_ref()).map(|descriptor| descriptor.size);
        match std::io::copy(&mut reader, &mut hasher).map_err(|e| from_io(|| "can't read a blob".into(), e)) {
            Ok(_) => {
                self.found().proven.insert(*digest);
            }
            Err(error) if error.kind() == Kind::Corrupt => {
                let size = expected.filter(|expected| *expected != size).map(|expected| format!(": {size} bytes instead of {expected}"));
                self.tell_of_blob(digest, format!("its bytes don't have its digest{}", size.unwrap_or_default()));
            }
            Err(error) => self.tell_of_blob(digest, error.to_string()),
        }
        Ok(())
    }

    /// Documents without which an image is none. Blobs of layers need not be here.
    fn absent_blobs(&self) {
        let here: BTreeSet<Digest> = self.inventory.blobs.iter().map(|(digest, _)| *digest).collect();
        for (digest, need) in &self.needs.blobs {
            if need.role != Role::Layer && self.is_meant(&self.needs.users(digest)) && !here.contains(digest) {
                self.tell_of_blob(digest, "it is missing".into());
            }
        }
    }

    fn cache(&self) {
        let store = self.means.store;
        self.found().checked.records += (self.inventory.steps.len() + self.inventory.memories.len()) as u64;
        for (key, step) in &self.inventory.steps {
            let what = match step {
                None => "its record can't be read".to_owned(),
                Some(step) => match step.layers.iter().find(|layer| !store.layer_path(layer).exists()) {
                    Some(layer) => format!("it needs layer `{layer}`, which is not here"),
                    None => continue,
                },
            };
            self.tell(Part::Step, key.to_string(), store.step_path(key), what, Vec::new(), Vec::new());
        }
        for (diff_id, memory) in &self.inventory.memories {
            if memory.is_none() {
                let images = self.needs.users_of_layer(diff_id);
                self.tell(Part::Memory, diff_id.to_string(), store.memory_path(diff_id), "it can't be read".into(), Vec::new(), images);
            }
        }
    }

    /// Trees of images, when their layers are good.
    pub(super) fn trees(&self) -> Result<Vec<Finding>> {
        let store = self.means.store;
        // Their times could not be told from others.
        if self.clock()? == Clock::Lost {
            return Ok(Vec::new());
        }
        let findings = Mutex::new(Vec::new());
        let trees = self.inventory.trees.iter().filter_map(|chain| Some((*chain, self.needs.stacks.get(chain)?)));
        parallel::each(trees.collect(), self.threads, |(chain, (stack, names)), _| {
            let path = store.tree_path(&chain);
            // A link to the one layer it is.
            if path.is_symlink() {
                return Ok(());
            }
            let layers = stack.iter().map(|layer| store.open_layer(layer)).collect::<Result<Vec<_>>>()?;
            let should = digest(&View::new(layers))?;
            let is = LayerDir::open(&path).and_then(|tree| digest(&View::new(vec![tree])));
            self.found().checked.trees += 1;
            let what = match is {
                Ok(is) if is == should => return Ok(()),
                Ok(_) => "it is not what its layers are".to_owned(),
                Err(error) => error.to_string(),
            };
            let images: Vec<Reference> = names.iter().cloned().collect();
            let (name, details, outcome) = (chain.to_string(), Vec::new(), Outcome::Found);
            let finding = Finding { part: Part::Tree, name, path, what, details, images, outcome };
            findings.lock().unwrap_or_else(PoisonError::into_inner).push(finding);
            Ok(())
        })?;
        Ok(findings.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

fn digest(view: &View) -> Result<Digest> {
    let mut hasher = Hasher::new();
    pack_view(view, &mut hasher)?;
    Ok(hasher.finish())
}

/// Takes a blob apart that is here, into a draft if there is one.
pub(super) fn take_apart(means: &Means<'_>, blob: &Descriptor, draft: Option<&Draft>) -> Result<Unpacked> {
    let reader = means.store.blob_reader(&blob.digest)?;
    pipeline::take_apart(draft.map(|draft| draft.path()), |feed| feed.copy(reader, |_| Ok::<(), Error>(())))
}
