//! The engine: for each step resolve, key, look up, do, commit.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::dockerfile;
use crate::dockerfile::ast::{Dockerfile, Instruction};
use crate::error::{Error, Result, quote};
use crate::event::{Event, Outcome, Sink, next_id};
use crate::oci::{Descriptor, DiffId, Digest, Hasher, ImagePath, media_type};
use crate::rootfs::meta::{Kind, Meta, Mtime};
use crate::rootfs::view::{Follow, View};
use crate::rootfs::writer::{Content, LayerWriter};
use crate::store::{Layer, StepRecord, Store};
use crate::transfer;

use super::context::Context;
use super::copy;
use super::key::Key;
use super::passwd::Accounts;
use super::plan::{Base, Plan, Stage, find_stage, locate};
use super::resolve::{self, Action, Copy, Resolver};
use super::sources::{Selection, Source};
use super::state::{State, StateLayer};
use super::{Cache, Request, base, config_step, run};

/// One build under way.
pub struct Engine<'a> {
    pub(super) store: &'a Store,
    pub(super) request: &'a Request,
    pub(super) sink: &'a dyn Sink,
    client: &'a transfer::Client,
    file: &'a Dockerfile,
    plan: &'a Plan<'a>,
    context: Option<Context>,
    /// Finished stages, by index.
    stages: BTreeMap<usize, State>,
}

/// What the step cache remembers: the layer, if there was something to keep, and when it was made.
#[derive(Serialize, Deserialize)]
struct Record {
    layer: Option<(DiffId, u64)>,
    created: String,
}

/// What a step made.
struct Made {
    layer: Option<StateLayer>,
    created: String,
    outcome: Outcome,
}

impl<'a> Engine<'a> {
    /// Opens the context; nothing else is touched yet.
    pub fn new(
        store: &'a Store,
        client: &'a transfer::Client,
        request: &'a Request,
        sink: &'a dyn Sink,
        file: &'a Dockerfile,
        plan: &'a Plan<'a>,
    ) -> Result<Self> {
        let context = request.context.as_deref().map(|directory| Context::open(store, directory, request.ignore.as_ref())).transpose()?;
        Ok(Self { store, client, request, sink, file, plan, context, stages: BTreeMap::new() })
    }

    /// Executes all stages of the plan and gives the last one's state.
    pub fn execute(&mut self) -> Result<State> {
        let plan = self.plan;
        for instruction in plan.stages.iter().flat_map(|stage| &stage.instructions) {
            resolve::check_supported(instruction).map_err(|e| locate(self.file, e, instruction))?;
        }
        let mut last = None;
        for stage in &plan.stages {
            let state = self.stage(stage)?;
            self.stages.insert(stage.index, state.clone());
            last = Some(state);
        }
        last.ok_or_else(|| Error::new("the plan has no stage"))
    }

    /// Keeps what was learnt about the context.
    pub fn finish(&mut self) -> Result<()> {
        self.context.as_mut().map_or(Ok(()), Context::save)
    }

    fn stage(&mut self, stage: &Stage<'_>) -> Result<State> {
        let (mut state, onbuild) = self.timed(stage, 1, stage.from, |engine| engine.base(stage))?;
        let triggers = self.triggers(stage, &onbuild)?;
        let total = 1 + triggers.len() + stage.instructions.len();
        let all = triggers.iter().flat_map(|file| file.instructions.iter()).chain(stage.instructions.iter().copied());
        for (position, instruction) in all.enumerate() {
            self.step(stage, &mut state, instruction, (position + 2, total))?;
        }
        Ok(state)
    }

    fn timed<T>(
        &mut self,
        stage: &Stage<'_>,
        number: usize,
        instruction: &Instruction,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let id = next_id();
        let total = 1 + stage.instructions.len();
        self.sink.event(Event::StepStarted { id, stage: &stage.name, number, total, text: &instruction.original });
        let start = Instant::now();
        let result = work(self).map_err(|e| locate(self.file, e, instruction));
        let outcome = if result.is_ok() { Outcome::Done } else { Outcome::Failed };
        self.sink.event(Event::StepFinished { id, outcome, elapsed: start.elapsed(), layer: None });
        result
    }

    /// The state a stage starts with, and the triggers it inherits.
    fn base(&mut self, stage: &Stage<'_>) -> Result<(State, Vec<String>)> {
        let mut state = match &stage.base {
            Base::Scratch => return Ok((State::scratch(&stage.platform), Vec::new())),
            Base::Stage(index) => {
                let parent = &self.stages[index];
                let triggers = parent.config.config.on_build.clone();
                return Ok((parent.child(), triggers));
            }
            Base::Image(name) => base::state(&self.image(name, stage)?),
        };
        let triggers = std::mem::take(&mut state.config.config.on_build);
        Ok((state, triggers))
    }

    fn image(&self, name: &str, stage: &Stage<'_>) -> Result<crate::store::Image> {
        base::find(self.store, self.client, self.request, name, &stage.platform, &self.plan.names, self.sink)
    }

    fn triggers(&self, stage: &Stage<'_>, triggers: &[String]) -> Result<Vec<Dockerfile>> {
        let parse = |trigger: &String| {
            let file = dockerfile::parse_fragment("ONBUILD trigger of the base image", trigger.as_bytes())?;
            file.instructions.iter().try_for_each(resolve::check_supported)?;
            Ok(file)
        };
        let parsed: Result<Vec<Dockerfile>> = triggers.iter().map(parse).collect();
        parsed.map_err(|e| locate(self.file, e, stage.from))
    }

    fn step(&mut self, stage: &Stage<'_>, state: &mut State, instruction: &Instruction, (number, total): (usize, usize)) -> Result<()> {
        let id = next_id();
        self.sink.event(Event::StepStarted { id, stage: &stage.name, number, total, text: &instruction.original });
        let start = Instant::now();
        let below = state.layers.len();
        let result = self.act(stage, state, instruction, id);
        let outcome = *result.as_ref().unwrap_or(&Outcome::Failed);
        let layer = state.layers.get(below).map(|layer| layer.descriptor.size);
        self.sink.event(Event::StepFinished { id, outcome, elapsed: start.elapsed(), layer });
        result.map(drop).map_err(|e| locate(self.file, e, instruction))
    }

    fn act(&mut self, stage: &Stage<'_>, state: &mut State, instruction: &Instruction, id: u64) -> Result<Outcome> {
        let resolver = Resolver { file: self.file, state, arguments: &self.request.arguments, globals: &self.plan.globals };
        let action = resolver.resolve(instruction)?;
        let (made, history) = match &action {
            Action::Config(change) => {
                let line = config_step::apply(state, change)?;
                // ONBUILD leaves no history with docker.
                if !matches!(change, config_step::Change::Onbuild(_)) {
                    state.record(None, line, None);
                }
                return Ok(Outcome::Done);
            }
            Action::Run(command) => (self.run(state, command, id)?, resolve::run_history(state, command)),
            Action::Copy(copy) => (self.copy(stage, state, copy)?, instruction.original.clone()),
            Action::Workdir(path) => {
                let made = self.workdir(state, path)?;
                state.config.config.working_dir.clone_from(path);
                (made, format!("WORKDIR {path}"))
            }
        };
        let outcome = made.outcome;
        state.record(Some(made.created), history, made.layer);
        Ok(outcome)
    }

    fn run(&mut self, state: &State, command: &resolve::Command, id: u64) -> Result<Made> {
        let config = &state.config.config;
        let mut key = Key::new(&state.chain(), "RUN");
        key.list(&command.argv).list(command.script.iter().flat_map(|s| [&s.name, &s.text]));
        key.list(state.scope.variables().map(|(name, value)| format!("{name}={value}")));
        key.field(&config.user).field(&config.working_dir);
        key.field(format!("{:?} {:?}", command.network, self.request.emulation));
        self.cached(key.finish(), |engine| run::run(engine, state, command, id))
    }

    fn workdir(&mut self, state: &State, path: &str) -> Result<Made> {
        let mut key = Key::new(&state.chain(), "WORKDIR");
        key.field(path).field(&state.config.config.user);
        self.cached(key.finish(), |engine| {
            let view = View::new(engine.store.stack(&state.stack())?);
            // A directory can be made for somebody whom the image does not know yet; running as them can't (BuildKit).
            let user = state.config.config.user.as_str();
            let (uid, gid) = if user.is_empty() { (0, 0) } else { Accounts::of(&view)?.owner(user).unwrap_or_default() };
            let target = view.resolve(&ImagePath::clean(path), Follow::Last)?;
            match view.lookup(&target)? {
                Some(node) if node.meta.kind == Kind::Directory => return Ok(None),
                Some(_) => return Err(Error::input(format!("{} is not a directory in the image", quote(path)))),
                None => {}
            }
            let draft = engine.store.draft()?;
            let mut writer = LayerWriter::create(draft.path(), view)?;
            writer.make_dirs(&target, 0o755, uid, gid, None)?;
            writer.finish()?;
            draft.commit_packed().map(Some)
        })
    }

    fn copy(&mut self, stage: &Stage<'_>, state: &State, copy: &Copy) -> Result<Made> {
        let view = View::new(self.store.stack(&state.stack())?);
        let chown = copy.chown.as_deref().map(|owner| Accounts::of(&view)?.owner(owner)).transpose()?;
        let (source_view, selection, content) = self.select(stage, copy)?;
        let mut key = Key::new(&state.chain(), "COPY");
        key.field(content.bytes()).field(copy.destination.key());
        key.field(format!("{chown:?} {:?} {:?}", copy.chmod, copy.archives));
        key.list(copy.inline.iter().flat_map(|(name, text)| [name, text]));
        let default_owner = copy.from.is_none().then_some((0, 0));
        let owner = chown.or(default_owner);
        self.cached(key.finish(), |engine| {
            let draft = engine.store.draft()?;
            let mut writer = LayerWriter::create(draft.path(), view)?;
            if let Some(source_view) = &source_view {
                let request = copy::Request {
                    view: source_view,
                    selection: &selection,
                    destination: &copy.destination,
                    owner,
                    archive_owner: chown,
                    chmod: copy.chmod.as_ref(),
                    archives: copy.archives,
                };
                copy::copy(&mut writer, &request)?;
            }
            let now = engine.request.epoch.unwrap_or_else(|| jiff::Timestamp::now().as_second());
            write_inline(&mut writer, copy, owner.unwrap_or_default(), Mtime::from_secs(now))?;
            let written = writer.finish()?;
            if written.empty { Ok(None) } else { draft.commit_packed().map(Some) }
        })
    }

    /// What a COPY reads, and its content as one digest.
    fn select(&mut self, stage: &Stage<'_>, copy: &Copy) -> Result<(Option<View>, Selection, Digest)> {
        if copy.sources.is_empty() {
            return Ok((None, Selection::default(), Digest::of("")));
        }
        let Some(from) = &copy.from else {
            let no_context = || Error::input("there is no build context").hint("give a directory: `rootling build -f - DIR`");
            let context = self.context.as_mut().ok_or_else(no_context)?;
            let source = context.source();
            let selection = source.select(&copy.sources)?;
            let view = source.view.clone();
            let digest = selection.digest(&view, &mut |node| context.content(node))?;
            return Ok((Some(view), selection, digest));
        };
        let stack = match find_stage(&self.plan.stages, from) {
            Some(index) => match self.stages.get(&index) {
                Some(state) => state.stack(),
                None => return Err(Error::input(format!("stage {} is not built before this one", quote(from)))),
            },
            None if from == "scratch" => Vec::new(),
            None => self.image(from, stage)?.config.rootfs.diff_ids,
        };
        let view = View::new(self.store.stack(&stack)?);
        let source = Source { view: &view, ignore: None, name: quote(from) };
        let selection = source.select(&copy.sources)?;
        let digest = self.content_of_image(&stack, &view, &selection, &copy.sources)?;
        Ok((Some(view), selection, digest))
    }

    /// The digest of what was selected from an image, remembered by the image's layers and the patterns: they can't change.
    fn content_of_image(&self, stack: &[DiffId], view: &View, selection: &Selection, patterns: &[String]) -> Result<Digest> {
        let chain = crate::oci::ChainId::of(stack).map_or_else(|| Digest::of("scratch"), |chain| chain.0);
        let mut key = Key::new(&chain, "content");
        key.list(patterns);
        let key = key.finish();
        if let Some(record) = self.store.step_get(&key)?
            && let Some(digest) = record.value.as_str().and_then(|text| text.parse().ok())
        {
            return Ok(digest);
        }
        let digest = selection.digest(view, &mut |node| digest_file(view, node))?;
        self.store.step_put(&key, &StepRecord { layers: stack.to_vec(), blobs: Vec::new(), value: digest.to_string().into() })?;
        Ok(digest)
    }

    /// Answers from the step cache, or does the work and remembers it.
    fn cached(&mut self, key: Digest, work: impl FnOnce(&mut Self) -> Result<Option<Layer>>) -> Result<Made> {
        if self.request.cache == Cache::Use
            && let Some(made) = self.remembered(&key)?
        {
            return Ok(made);
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

fn digest_file(view: &View, node: &crate::rootfs::view::Node) -> Result<Digest> {
    let mut hasher = Hasher::new();
    let path = node.path.as_relative();
    std::io::copy(&mut view.open(node)?, &mut hasher).map_err(|e| Error::io("read", path, e))?;
    Ok(hasher.finish())
}

/// The files given in the Dockerfile itself.
fn write_inline(writer: &mut LayerWriter, copy: &Copy, (uid, gid): (u32, u32), mtime: Mtime) -> Result<()> {
    for (name, text) in &copy.inline {
        let target = copy.destination.place(writer, name.as_bytes(), (uid, gid))?;
        let mode = copy.chmod.as_ref().map_or(0o644, |chmod| chmod.apply(0o644, false));
        let meta = Meta { uid, gid, mtime, ..Meta::new(Kind::File, mode) };
        writer.put(&target, &meta, Content::Bytes(text.as_bytes()))?;
    }
    Ok(())
}
