//! One step: resolve, key, look up, do, commit.

use std::time::Instant;

use crate::dockerfile::ast::Instruction;
use crate::error::{Error, Result, hide_credentials, quote};
use crate::event::{Event, Outcome, next_id};
use crate::oci::ImagePath;
use crate::rootfs::meta::Kind;
use crate::rootfs::view::{Follow, View};
use crate::rootfs::writer::LayerWriter;

use super::cache::Made;
use super::engine::Engine;
use super::key::Key;
use super::mounts::Mounts;
use super::passwd::Accounts;
use super::plan::{Stage, find_stage, locate};
use super::resolve::{self, Action, Resolver};
use super::state::{Certainty, State};
use super::{Execution, config_step, run};

impl Engine<'_> {
    /// Does one instruction of a stage.
    pub(super) fn step(
        &self,
        stage: &Stage<'_>,
        state: &mut State,
        instruction: &Instruction,
        (number, total): (usize, usize),
    ) -> Result<()> {
        self.prepare_fakeroot(stage, state, instruction, (number, total))?;
        let id = next_id();
        self.sink.event(Event::StepStarted { id, stage: &self.name(stage), number, total, text: &hide_credentials(&instruction.original) });
        let start = Instant::now();
        let below = state.layers.len();
        let before = self.before(stage, state, instruction);
        let result = self.act(stage, state, instruction, id);
        let outcome = match &result {
            Ok(outcome) => *outcome,
            Err(_) if self.stop.is_stopped() => Outcome::Stopped,
            Err(_) => Outcome::Failed,
        };
        let layer = state.layers.get(below).map(|layer| layer.descriptor.size);
        self.sink.event(Event::StepFinished { id, outcome, elapsed: start.elapsed(), layer });
        self.after(before, stage, number, outcome)?;
        result.map(drop).map_err(|e| locate(self.file, e, instruction))
    }

    fn act(&self, stage: &Stage<'_>, state: &mut State, instruction: &Instruction, id: u64) -> Result<Outcome> {
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
            Action::Workdir(path) if state.certainty == Certainty::Guessed => {
                state.config.config.working_dir.clone_from(path);
                (Made::planned(), format!("WORKDIR {path}"))
            }
            _ if self.is_guess(stage, state, &action)? => (Made::planned(), hide_credentials(&instruction.original)),
            Action::Run(command) => {
                let command = state.under_fakeroot(command.clone());
                (self.run(stage, state, &command, id)?, resolve::run_history(state, &command))
            }
            Action::Copy(copy) => (self.copy(stage, state, copy, id)?, hide_credentials(&instruction.original)),
            Action::Workdir(path) => {
                let made = self.workdir(state, path, id)?;
                state.config.config.working_dir.clone_from(path);
                (made, format!("WORKDIR {path}"))
            }
        };
        let outcome = made.outcome;
        if outcome == Outcome::Planned {
            state.certainty = Certainty::Guessed;
        }
        state.record(Some(made.created), history, made.layer);
        Ok(outcome)
    }

    /// Whether a dry run can't know what the step would be: what it stands on or copies from would be made first.
    fn is_guess(&self, stage: &Stage<'_>, state: &State, action: &Action) -> Result<bool> {
        if self.request.execution == Execution::Full {
            return Ok(false);
        }
        let sources: Vec<&str> = match action {
            // What others have now is not asked for either.
            Action::Copy(copy) if !copy.remotes.is_empty() => return Ok(true),
            Action::Copy(copy) => copy.from.as_deref().into_iter().collect(),
            Action::Run(command) => command.mounts.iter().filter_map(|mount| mount.from.as_deref()).collect(),
            _ => Vec::new(),
        };
        // A trigger of a base image may name this stage or a later one; that error is the step's own.
        let earlier = sources.into_iter().filter_map(|from| find_stage(&self.plan.stages, from)).filter(|index| *index < stage.index);
        let sources = earlier.map(|index| self.state(index)).collect::<Result<Vec<_>>>()?;
        Ok(sources.iter().chain([state]).any(|source| source.certainty == Certainty::Guessed))
    }

    pub(super) fn run(&self, stage: &Stage<'_>, state: &State, command: &resolve::Command, id: u64) -> Result<Made> {
        let config = &state.config.config;
        let surroundings = &self.request.surroundings;
        let network = command.network.unwrap_or(surroundings.network);
        let mut key = Key::new(&state.chain(), "RUN");
        key.list(&command.argv).list(command.script.iter().flat_map(|s| [&s.name, &s.text]));
        key.list(state.scope.variables().map(|(name, value)| format!("{name}={value}")));
        key.field(&config.user).field(&config.working_dir);
        key.field(format!("{} {network:?} {:?}", state.config.platform(), self.request.emulation));
        surroundings.add_to(&mut key);
        let mounts = Mounts::find(self, stage, state, &command.mounts, &mut key)?;
        let still = |engine: &Self| Ok(mounts.inputs(engine));
        self.cached_while(Some(id), key.finish(), still, |engine| run::run(engine, state, command, &mounts, id))
    }

    fn workdir(&self, state: &State, path: &str, id: u64) -> Result<Made> {
        let mut key = Key::new(&state.chain(), "WORKDIR");
        key.field(path).field(&state.config.config.user);
        self.cached(Some(id), key.finish(), |engine| {
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
            let mut writer = LayerWriter::create(draft.path(), view)?.with_times(engine.request.times);
            writer.make_dirs(&target, 0o755, uid, gid, None)?;
            writer.finish()?;
            draft.commit_packed().map(Some)
        })
    }
}
