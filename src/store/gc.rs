//! Garbage collection: what no image, step record or running command needs.
//!
//! The order makes it safe beside any number of builds:
//!
//! 1. read all records; what they don't name is a candidate;
//! 2. take each candidate's lease byte exclusively; one that is leased is in use and no longer a candidate;
//! 3. read all records again; a candidate that is named by now is none. Whoever used one before step 2 has either still its lease
//!    or has written its record; whoever wants one now waits, and will find it gone;
//! 4. move the candidates to `tmp/`, give the bytes back, and only then delete at leisure.
//!
//! A record that can't be read might name anything, so a damaged image record stops the collection before anything is removed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::lease::{Kind, Live};
use super::lock::{Attempt, Lock};
use super::remove::{disk_usage, remove_tree};
use super::tree::chain_of;
use super::unfinished::Unfinished;
use super::{Store, layout, owner, record, step};
use crate::error::{Error, IoContext, Result};
use crate::oci::{ChainId, Descriptor, DiffId, Digest, Reference};

/// Which cache entries survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All that are whole.
    All,
    /// Those used within this time, which is known to a day.
    UsedWithin(Duration),
    /// None.
    Nothing,
}

/// Whether to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Remove.
    Remove,
    /// Only say what would be removed.
    Estimate,
}

/// What to collect besides what nothing needs.
#[derive(Clone, Copy, Debug)]
pub struct PruneOptions {
    /// Build steps, and with them the layers only they need.
    pub steps: Keep,
    /// Trees of images; those of no image always go. They are made again when needed.
    pub trees: Keep,
    /// Cache mounts.
    pub mounts: Keep,
    /// Whether to act.
    pub action: Action,
}

/// Number of things and their disk space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Disk space in bytes.
    pub bytes: u64,
}

/// What was removed (or would be).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Layers.
    pub layers: Tally,
    /// Blobs, interrupted downloads included.
    pub blobs: Tally,
    /// Trees.
    pub trees: Tally,
    /// Build steps.
    pub steps: Tally,
    /// Cache mounts.
    pub mounts: Tally,
    /// What dead processes left.
    pub leftovers: Tally,
    /// Things nothing but a running command needs, which therefore stayed.
    pub in_use: u64,
}

impl PruneReport {
    /// All disk space freed, in bytes.
    pub fn freed(&self) -> u64 {
        [self.layers, self.blobs, self.trees, self.steps, self.mounts, self.leftovers].iter().map(|tally| tally.bytes).sum()
    }
}

impl Store {
    /// Removes what nothing needs. Runs beside builds, pulls and runs; may be killed at any moment.
    pub fn prune(&self, options: &PruneOptions) -> Result<PruneReport> {
        self.prune_without(options, &BTreeSet::new())
    }

    /// The same as if these names were gone already: for estimates, which leave them alone.
    pub fn prune_without(&self, options: &PruneOptions, gone: &BTreeSet<Reference>) -> Result<PruneReport> {
        let mut report = PruneReport::default();
        // First of all, since on a full disk it makes room for the rest.
        let swept = owner::sweep(self.layout(), self.inner.owner.name())?;
        report.leftovers = Tally { count: swept.entries, bytes: swept.bytes };
        let collector = Live::open(&self.layout().live());
        self.check_locks(&collector, swept.alive)?;

        // A damaged image record must stop us before the first removal.
        self.needed(options, gone)?;
        self.prune_steps(options, &mut report.steps)?;
        let needed = self.needed(options, gone)?;
        let mut candidates: Vec<Candidate> = Vec::new();
        for kind in [Kind::Layer, Kind::Blob, Kind::Tree] {
            candidates.extend(self.things(kind)?.into_iter().filter(|c| !needed.has(c)));
        }
        report.in_use = claim(&self.inner.live, &collector, &mut candidates)?;
        let needed = self.needed(options, gone)?;
        candidates.retain(|c| {
            let keep = needed.has(c);
            if keep {
                collector.disown(c.kind, &c.digest);
            }
            !keep
        });
        self.remove(&candidates, options.action, collector, &mut report)?;
        report.in_use += self.prune_cache_mounts(options.mounts, options.action, &mut report.mounts)?;
        self.prune_rest(options.action, &mut report)?;
        Ok(report)
    }

    /// Without locks nobody can be seen to use anything, except by what is unfinished.
    fn check_locks(&self, collector: &Live, alive: u64) -> Result<()> {
        let probe = collector.own(Kind::Owner, &Digest::of("prune"))?;
        if probe != Attempt::Unsupported || alive == 0 && !collector.is_read_only() {
            return Ok(());
        }
        if collector.is_read_only() {
            return Err(Error::new("can't prune: the storage directory can't be written").hint("`rootling info` says more"));
        }
        Err(Error::new("can't prune while other commands use the storage directory")
            .cause("its file system has no locks, so what they need can't be known")
            .hint("try again when they have ended, or have the file system mounted with locks (Lustre: option `flock`)"))
    }

    /// What the records name.
    fn needed(&self, options: &PruneOptions, gone: &BTreeSet<Reference>) -> Result<Needed> {
        let mut needed = Needed::default();
        for (path, image) in self.image_records()? {
            let image = image.map_err(|e| e.context(format!("can't prune while {} can't be read", crate::error::quote_path(&path))))?;
            if gone.contains(&image.reference) {
                continue;
            }
            needed.blobs.extend(&image.index);
            for extra in &image.extras {
                needed.blobs.extend(extra.blobs.iter().chain([&extra.manifest.digest]));
            }
            for member in image.members() {
                needed.blobs.extend(member.blobs.iter().chain([&member.manifest.digest, &member.config]));
                for referrer in self.referrers(&member.manifest.digest)? {
                    needed.blobs.extend(referrer.blobs.iter().chain([&referrer.manifest.digest]));
                }
                if options.trees != Keep::Nothing {
                    needed.trees.insert(chain_of(&member.layers));
                }
                needed.layers.extend(member.layers);
            }
        }
        if options.steps != Keep::Nothing {
            for path in files(&self.layout().steps())? {
                if let Some(step) = step::load(&path)?.filter(|_| !expired(&path, options.steps)) {
                    needed.layers.extend(step.layers);
                    needed.blobs.extend(step.blobs);
                }
            }
        }
        for diff_id in &needed.layers {
            let blobs = record::read(&self.layout().layer_blobs_of(diff_id))?;
            let blobs: Vec<Descriptor> = blobs.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
            needed.blobs.extend(blobs.iter().map(|blob| blob.digest));
        }
        Ok(needed)
    }

    /// Steps that are not kept, are damaged, or lack a layer.
    fn prune_steps(&self, options: &PruneOptions, tally: &mut Tally) -> Result<()> {
        for path in files(&self.layout().steps())? {
            let whole = step::load(&path)?.is_some_and(|step| step.layers.iter().all(|l| self.layout().layer(l).exists()));
            if !whole || expired(&path, options.steps) {
                tally.add(take_away(&path, options.action)?);
            }
        }
        Ok(())
    }

    /// What there is of a kind.
    fn things(&self, kind: Kind) -> Result<Vec<Candidate>> {
        let directory = match kind {
            Kind::Layer => self.layout().layers(),
            Kind::Blob => self.layout().blobs(),
            Kind::Tree => self.layout().trees(),
            Kind::Owner => return Ok(Vec::new()),
        };
        let with_digest = |path: PathBuf| layout::digest_of_name(&path).map(|digest| Candidate { kind, digest, path });
        Ok(files(&directory)?.into_iter().filter_map(with_digest).collect())
    }

    /// Takes the candidates out of sight while their bytes are held, and removes them afterwards.
    fn remove(&self, candidates: &[Candidate], action: Action, collector: Live, report: &mut PruneReport) -> Result<()> {
        if action == Action::Estimate {
            // Measuring takes its time; nobody should wait for it.
            drop(collector);
            candidates.iter().for_each(|c| report.tally(c.kind).add(disk_usage(&c.path)));
            return Ok(());
        }
        let mut trash: Vec<(Kind, Unfinished)> = Vec::new();
        for candidate in candidates {
            let moved = self.unfinished("trash")?;
            match std::fs::rename(&candidate.path, moved.path()) {
                Ok(()) => trash.push((candidate.kind, moved)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => moved.forget(),
                Err(e) => return Err(Error::io("remove", &candidate.path, e)),
            }
        }
        drop(collector);
        for (kind, trash) in trash {
            report.tally(kind).add(remove_tree(trash.path())?);
        }
        Ok(())
    }

    /// Small things that need no lease: memory of layers that are gone, downloads and locks nobody holds.
    fn prune_rest(&self, action: Action, report: &mut PruneReport) -> Result<()> {
        for path in files(&self.layout().layer_blobs())? {
            if layout::digest_of_name(&path).is_none_or(|digest| !self.layout().layer(&DiffId(digest)).exists()) {
                take_away(&path, action)?;
            }
        }
        if self.layout().referrers().exists() {
            for path in files(&self.layout().referrers())? {
                if layout::digest_of_name(&path).is_none_or(|digest| !self.layout().blob(&digest).exists()) {
                    take_away(&path, action)?;
                }
            }
        }
        for path in files(&self.layout().tmp())? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if layout::Unfinished::parse(name) == layout::Unfinished::Partial {
                let bytes = disk_usage(&path);
                if action == Action::Estimate || Lock::clear(&path) {
                    report.blobs.add(bytes);
                }
            }
        }
        if action == Action::Remove {
            files(&self.layout().locks())?.iter().filter(|path| **path != self.layout().live()).for_each(|path| {
                Lock::clear(path);
            });
        }
        Ok(())
    }
}

/// Something that might go.
struct Candidate {
    kind: Kind,
    digest: Digest,
    path: PathBuf,
}

#[derive(Default)]
struct Needed {
    layers: BTreeSet<DiffId>,
    blobs: BTreeSet<Digest>,
    trees: BTreeSet<ChainId>,
}

impl Needed {
    fn has(&self, candidate: &Candidate) -> bool {
        match candidate.kind {
            Kind::Layer => self.layers.contains(&DiffId(candidate.digest)),
            Kind::Blob => self.blobs.contains(&candidate.digest),
            Kind::Tree => self.trees.contains(&ChainId(candidate.digest)),
            Kind::Owner => true,
        }
    }
}

impl Tally {
    pub(super) fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

impl PruneReport {
    fn tally(&mut self, kind: Kind) -> &mut Tally {
        match kind {
            Kind::Layer => &mut self.layers,
            Kind::Blob => &mut self.blobs,
            Kind::Tree => &mut self.trees,
            Kind::Owner => &mut self.leftovers,
        }
    }
}

/// Takes the candidates' bytes; those in use are candidates no longer, and are counted.
fn claim(own: &Live, collector: &Live, candidates: &mut Vec<Candidate>) -> Result<u64> {
    let before = candidates.len();
    let mut error = None;
    candidates.retain(|c| match collector.own(c.kind, &c.digest) {
        // Without locks `check_locks` has seen that nobody else is here.
        Ok(Attempt::Unsupported) => !own.holds(c.kind, &c.digest),
        Ok(attempt) => attempt == Attempt::Taken,
        Err(e) => {
            error = Some(e);
            false
        }
    });
    error.map_or(Ok((before - candidates.len()) as u64), Err)
}

pub(super) fn take_away(path: &Path, action: Action) -> Result<u64> {
    match action {
        Action::Remove => remove_tree(path),
        Action::Estimate => Ok(disk_usage(path)),
    }
}

pub(super) fn expired(path: &Path, keep: Keep) -> bool {
    match keep {
        Keep::All => false,
        Keep::Nothing => true,
        Keep::UsedWithin(limit) => {
            let used = std::fs::metadata(path).and_then(|m| m.modified());
            used.is_ok_and(|used| SystemTime::now().duration_since(used).is_ok_and(|age| age > limit))
        }
    }
}

pub(super) fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).doing("read directory", directory)?;
    entries.map(|entry| Ok(entry.doing("read directory", directory)?.path())).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::testing::{self, image, layer, names};
    use super::super::{Layer, StepRecord};
    use super::*;

    const ALL: PruneOptions = PruneOptions { steps: Keep::Nothing, trees: Keep::Nothing, mounts: Keep::Nothing, action: Action::Remove };

    fn step(store: &Store, key: &str, layer: &Layer) {
        let record = StepRecord { layers: vec![layer.diff_id], blobs: Vec::new(), value: key.into() };
        store.step_put(&Digest::of(key), &record).unwrap();
    }

    /// A new store in the same directory, with no leases.
    fn again(store: Store) -> Store {
        let path = store.path().to_owned();
        drop(store);
        Store::open(&path).unwrap()
    }

    #[test]
    fn takes_what_nothing_needs() {
        let (_dir, store) = testing::store();
        let (used, cached, garbage) = (layer(&store, "used"), layer(&store, "cached"), layer(&store, "garbage"));
        let app = image(&store, "app", &[&used]);
        step(&store, "step", &cached);
        store.put_blob(b"garbage").unwrap();
        let kept = store.put_blob(b"compressed form").unwrap();
        store.remember_layer_blob(&used.diff_id, &Descriptor::new("x", kept, 15)).unwrap();
        let store = again(store);

        let options = PruneOptions { steps: Keep::All, trees: Keep::All, mounts: Keep::All, action: Action::Estimate };
        let estimate = store.prune(&options).unwrap();
        assert_eq!((estimate.layers.count, estimate.blobs.count, estimate.steps.count), (1, 1, 0), "{estimate:?}");
        assert_eq!(names(&store, "layers").len(), 3);

        let report = store.prune(&PruneOptions { action: Action::Remove, ..options }).unwrap();
        assert_eq!(report, estimate);
        assert!(report.freed() > 0 && !garbage.dir.exists() && cached.dir.exists());

        let report = store.prune(&PruneOptions { steps: Keep::UsedWithin(Duration::from_secs(60)), ..ALL }).unwrap();
        assert_eq!((report.steps.count, report.layers.count), (0, 0));
        let report = store.prune(&ALL).unwrap();
        assert_eq!((report.steps.count, report.layers.count, report.blobs.count), (1, 1, 0));
        assert!(store.load_image(&app).is_ok() && store.layer(&used.diff_id).unwrap().is_some());
        assert!(store.has_blob(&kept).unwrap().is_some());

        store.remove_image(&app.reference).unwrap();
        let store = again(store);
        store.prune(&ALL).unwrap();
        for directory in ["layers", "blobs/sha256", "cache/steps", "cache/blobs", "tmp"] {
            assert!(names(&store, directory).is_empty(), "{directory}");
        }
    }

    #[test]
    fn leaves_what_is_in_use() {
        let (_dir, store) = testing::store();
        let made = layer(&store, "made");
        let blob = store.put_blob(b"blob").unwrap();
        // Of this very store, and of another.
        for pruner in [store.clone(), Store::open(store.path()).unwrap()] {
            assert_eq!(pruner.prune(&ALL).unwrap(), PruneReport { in_use: 2, ..PruneReport::default() });
        }
        assert!(made.dir.exists() && store.has_blob(&blob).unwrap().is_some());
    }

    #[test]
    fn a_damaged_image_record_stops_it() {
        let (_dir, store) = testing::store();
        let garbage = layer(&store, "garbage");
        step(&store, "step", &garbage);
        let bad = store.layout().image(&"bad".parse().unwrap());
        fs::write(&bad, "{").unwrap();
        let store = again(store);
        let error = store.prune(&ALL).unwrap_err();
        assert!(error.what().starts_with("can't prune") && !error.hints().is_empty(), "{error:?}");
        assert!(garbage.dir.exists() && names(&store, "cache/steps").len() == 1);
        fs::remove_file(&bad).unwrap();
        store.prune(&ALL).unwrap();
        assert!(!garbage.dir.exists());
    }

    #[test]
    fn takes_abandoned_downloads_and_locks() {
        let (_dir, store) = testing::store();
        let (idle, busy) = (Digest::of("idle"), Digest::of("busy"));
        drop(store.partial(&idle).unwrap());
        let writer = store.partial(&busy).unwrap();
        fs::write(store.layout().lock("step", &idle), "node-1-2").unwrap();
        let held = store.lock(super::super::Work::Step(&busy)).unwrap();
        store.prune(&ALL).unwrap();
        assert_eq!(names(&store, "tmp"), [format!("partial-{}", busy.hex())]);
        assert_eq!(names(&store, "locks"), ["live".to_owned(), format!("step-{}", busy.hex())]);
        drop((writer, held));
    }
}
