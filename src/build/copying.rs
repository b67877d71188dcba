//! The step of a COPY or ADD: select, digest, look up, place, make.
//!
//! Files whose content is not known must be read for the key and again for the layer. The first time an instruction is met, no old result can
//! answer for it, so then the layer is made before it is looked up and everything is read once.

use std::collections::HashMap;

use crate::error::Result;
use crate::oci::{DiffId, Digest, ImagePath};
use crate::rootfs::assemble::{Assembly, assemble};
use crate::rootfs::meta::{Kind, Meta, Mtime};
use crate::rootfs::view::View;
use crate::rootfs::writer::LayerWriter;
use crate::store::{Draft, Layer, StepRecord};

use super::archive::{self, is_tar};
use super::cache::{Inputs, Made};
use super::copy::{Archives, Plan, Rules};
use super::engine::Engine;
use super::key::Key;
use super::origin::Origin;
use super::passwd::Accounts;
use super::plan::Stage;
use super::remote::{self, Fetched};
use super::resolve::{Copy, Link};
use super::selection::{Entry, Selection};
use super::sources::Wanted;
use super::state::State;
use super::{Cache, Execution};

/// All that a layer is made from, but for the selection.
struct Work<'a> {
    base: View,
    origin: Origin<'a>,
    copy: &'a Copy,
    /// What is selected, for the memory of contents.
    what: Vec<String>,
    chown: Option<(u32, u32)>,
    fetched: Vec<Fetched>,
}

/// A layer that is made and not yet kept.
enum Ready {
    /// It would change nothing.
    Nothing,
    /// Its tar was digested while it was made.
    Packed(Draft, DiffId, u64),
    /// It must be packed to know what it is.
    Written(Draft),
}

impl Ready {
    fn commit(self) -> Result<Option<Layer>> {
        match self {
            Self::Nothing => Ok(None),
            Self::Packed(draft, diff_id, size) => draft.commit_digested(diff_id, size).map(Some),
            Self::Written(draft) => draft.commit_packed().map(Some),
        }
    }
}

impl Engine<'_> {
    /// Does a COPY or ADD.
    pub(super) fn copy(&self, stage: &Stage<'_>, state: &State, copy: &Copy, id: u64) -> Result<Made> {
        let image = View::new(self.store.stack(&state.stack())?);
        let chown = copy.chown.as_deref().map(|owner| Accounts::of(&image)?.owner(owner)).transpose()?;
        // A linked layer knows nothing of those below: it is made once for all bases.
        let (base, chain) = match copy.link {
            Link::Linked => (View::new(Vec::new()), Digest::of("linked")),
            Link::Placed => (image, state.chain()),
        };
        let from = copy.from.as_deref();
        let origin = if copy.sources.is_empty() { Origin::nowhere() } else { self.origin(stage, from)? };
        let what = [&[format!("{:?}", copy.shape)], copy.sources.as_slice(), &["--exclude".into()], &copy.exclude_patterns].concat();
        let work = Work { base, origin, copy, what, chown, fetched: remote::fetch(self, &copy.remotes)? };
        let mut selection = None;
        let mut early = None;
        let content = match self.known_content(&work.origin, &work.what)? {
            Some(content) => content,
            None => {
                let mut found = self.select(&work)?;
                if !found.unknown().is_empty() && self.is_new(&work)? {
                    early = Some(self.make(&work, &mut found)?);
                }
                self.hash(&work.origin, &mut found)?;
                let content = found.digest(&work.origin.view)?;
                self.remember_content(&work.origin, &work.what, content)?;
                selection = Some(found);
                content
            }
        };
        let mut key = Key::new(&chain, "COPY");
        key.field(content.bytes()).field(copy.destination.key());
        key.field(format!("{chown:?} {:?} {:?} {:?}", copy.chmod, copy.archives, copy.shape));
        key.list(copy.inline.iter().flat_map(|(name, text)| [name, text]));
        if !work.fetched.is_empty() {
            key.list(work.fetched.iter().map(Fetched::key)).list(&copy.exclude_patterns);
        }
        let still = |engine: &Self| engine.inputs(&work, content);
        self.cached_while(Some(id), key.finish(), still, |engine| {
            if let Some(early) = early {
                return early.commit();
            }
            let mut selection = match selection {
                Some(selection) => selection,
                None => engine.select(&work)?,
            };
            engine.make(&work, &mut selection)?.commit()
        })
    }

    /// Whether the context still holds what was hashed. Images and stages can't change.
    fn inputs(&self, work: &Work<'_>, content: Digest) -> Result<Inputs> {
        if work.origin.context().is_none() || work.copy.sources.is_empty() {
            return Ok(Inputs::AsKeyed);
        }
        let again = self.select(work).and_then(|mut again| {
            self.hash(&work.origin, &mut again)?;
            again.digest(&work.origin.view)
        });
        // What can't be read any more has changed too.
        Ok(if again.is_ok_and(|digest| digest == content) { Inputs::AsKeyed } else { Inputs::Changed })
    }

    /// What a COPY reads.
    fn select(&self, work: &Work<'_>) -> Result<Selection> {
        let Work { origin, copy, .. } = work;
        if copy.sources.is_empty() {
            return Ok(Selection::default());
        }
        let wanted = Wanted { patterns: &copy.sources, excludes: &copy.excludes, shape: copy.shape };
        let mut selection = origin.source().select(&wanted)?;
        if let Some(context) = origin.context() {
            context.recall(&mut selection);
        }
        Ok(selection)
    }

    /// Whether no old result can answer, as far as one can tell without reading: the instruction has never been met with this origin, or none is
    /// asked for.
    fn is_new(&self, work: &Work<'_>) -> Result<bool> {
        if self.request.execution == Execution::Dry {
            return Ok(false);
        }
        let mut key = Key::new(&Digest::of("met"), "COPY");
        match work.origin.context() {
            Some(context) => key.field(context.directory().as_os_str().as_encoded_bytes()),
            None => key.field(work.copy.from.as_deref().unwrap_or_default()),
        };
        key.list(&work.what).field(work.copy.destination.key());
        let key = key.finish();
        let met = self.store.step_get(&key)?.is_some();
        if !met {
            self.store.step_put(&key, &StepRecord { layers: Vec::new(), blobs: Vec::new(), value: true.into() })?;
        }
        Ok(!met || self.cache == Cache::Ignore)
    }

    /// Makes the layer, and fills in the digests of what was read for it.
    fn make(&self, work: &Work<'_>, selection: &mut Selection) -> Result<Ready> {
        let Work { base, origin, copy, chown, fetched, .. } = work;
        let times = self.request.times;
        let now = Mtime::from_secs(times.epoch().unwrap_or_else(|| jiff::Timestamp::now().as_second()));
        // Files of contexts belong to root, whoever owns them where they are.
        let of_context = copy.from.is_none() || origin.context().is_some();
        let owner = chown.or_else(|| of_context.then_some((0, 0)));
        let rules = Rules { owner, chmod: copy.chmod.clone(), times, now };
        if !fetched.is_empty() || copy.archives == Archives::Unpack && holds_archive(origin, selection)? {
            return self.write(work, selection, &rules);
        }
        let draft = self.store.draft()?;
        let mut plan = Plan::new(base, &origin.view, &rules);
        for item in &selection.items {
            plan.item(item, &copy.destination)?;
        }
        for (name, text) in &copy.inline {
            plan.bytes(name.as_bytes(), text.as_bytes(), &copy.destination)?;
        }
        if plan.is_empty() {
            return Ok(Ready::Nothing);
        }
        let (pieces, entries) = plan.pieces();
        let root = base.lookup(&ImagePath::root())?.map_or_else(|| Meta::new(Kind::Directory, PARENT_MODE), |node| node.meta);
        let change = |meta: &mut Meta| rules.apply(meta);
        let made = assemble(draft.path(), &Assembly { pieces: &pieces, root: &root, view: &origin.view, change: &change })?;
        let mut digests = HashMap::new();
        for (piece, now, digest) in made.digests {
            let Some(entry) = entries[piece] else { continue };
            if let (Some(context), Some(listed)) = (origin.context(), &entry.listed) {
                context.remember(listed, &now, digest);
            }
            digests.insert(entry.node.path.clone(), digest);
        }
        drop((pieces, entries));
        selection.learn(|entry| digests.get(&entry.node.path).copied());
        Ok(Ready::Packed(draft, DiffId(made.diff_id), made.size))
    }

    /// Makes a layer one source after the other, where archives are unpacked or what was fetched is put among them.
    fn write(&self, work: &Work<'_>, selection: &Selection, rules: &Rules) -> Result<Ready> {
        let Work { base, origin, copy, chown, fetched, .. } = work;
        let draft = self.store.draft()?;
        let mut writer = LayerWriter::create(draft.path(), base.clone())?.with_times(self.request.times);
        for item in &selection.items {
            let below = writer.view().clone();
            let mut plan = Plan::new(&below, &origin.view, rules);
            if copy.archives == Archives::Unpack && is_archive(origin, &item.own)? {
                let target = plan.directory(&copy.destination)?;
                plan.write(&mut writer)?;
                let (file, name) = (origin.view.open(&item.own.node)?, item.own.node.path.to_string());
                archive::unpack(&mut writer, &target, file, &name, *chown)?;
                continue;
            }
            plan.item(item, &copy.destination)?;
            plan.write(&mut writer)?;
        }
        let place = remote::Place { copy, chown: *chown, rules };
        fetched.iter().try_for_each(|fetched| fetched.write(self, &mut writer, &place))?;
        let below = writer.view().clone();
        let mut plan = Plan::new(&below, &origin.view, rules);
        for (name, text) in &copy.inline {
            plan.bytes(name.as_bytes(), text.as_bytes(), &copy.destination)?;
        }
        plan.write(&mut writer)?;
        Ok(if writer.finish()?.empty { Ready::Nothing } else { Ready::Written(draft) })
    }
}

/// The mode of a root directory that nothing else says anything of.
const PARENT_MODE: u32 = 0o755;

fn holds_archive(origin: &Origin<'_>, selection: &Selection) -> Result<bool> {
    for item in &selection.items {
        if is_archive(origin, &item.own)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_archive(origin: &Origin<'_>, entry: &Entry) -> Result<bool> {
    if entry.node.meta.kind != Kind::File { Ok(false) } else { is_tar(origin.view.open(&entry.node)?) }
}
