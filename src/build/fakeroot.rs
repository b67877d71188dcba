//! Fakeroot mode of a build: which config is an image's, the steps that get fakeroot into it, and RUN rewritten.
//!
//! The steps are a config's `[[install]]` entries. They come before the first RUN that needs them, in the output, the history and the cache
//! like any other; a stage built on this one has them already.

use std::sync::Arc;
use std::time::Instant;

use crate::dockerfile::ast::{Instruction, Kind};
use crate::error::{Result, quote};
use crate::event::{Event, Outcome, Stream, next_id};
use crate::oci::ImagePath;
use crate::rootemu::Mode;
use crate::rootemu::fakeroot::{Config, Install, LARGEST_FILE};
use crate::rootfs::view::{Follow, View};

use super::engine::Engine;
use super::plan::{Stage, locate};
use super::resolve::{Action, Command, Resolver};
use super::scope::Scope;
use super::state::{Certainty, DEFAULT_PATH, State};

/// Where a step's fakeroot keeps what it pretends: `/dev` is the step's own, and nobody empties it.
const PRETENCE: &str = "/dev/fakeroot.state";

/// What fakeroot mode knows of a stage.
#[derive(Clone, Debug, Default)]
pub struct Fakeroot {
    chosen: Chosen,
    installed: Installed,
}

/// The config of a stage.
#[derive(Clone, Debug, Default)]
enum Chosen {
    /// Nobody has looked yet.
    #[default]
    NotYet,
    /// There is none; that was said.
    Nothing,
    /// This one.
    Config(Arc<Config>),
}

/// Whether a config's steps are done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Installed {
    #[default]
    No,
    Yes,
}

/// The first config that is for an image of these layers.
pub fn choose<'c>(configs: &'c [Arc<Config>], view: &View) -> Result<Option<&'c Arc<Config>>> {
    let read = |file: &ImagePath| view.read(&view.resolve(file, Follow::Last)?, LARGEST_FILE);
    for config in configs {
        if config.matches(&read).map_err(|e| e.context(format!("can't tell whether {} is for this image", quote(config.name()))))? {
            return Ok(Some(config));
        }
    }
    Ok(None)
}

/// Whether an image lacks the program that a config puts before commands: it is looked for in the usual search path.
pub fn lacks_program(config: &Config, view: &View) -> Result<bool> {
    for directory in DEFAULT_PATH.split(':') {
        let path = view.resolve(&ImagePath::clean(directory).resolve(config.program()), Follow::Last)?;
        if view.lookup(&path)?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

impl State {
    /// A RUN as fakeroot mode executes it; other modes leave it as it is.
    pub(super) fn under_fakeroot(&self, command: Command) -> Command {
        let Chosen::Config(config) = &self.fakeroot.chosen else { return command };
        if !self.is_roots() {
            return command;
        }
        let script = command.script.as_ref().map(|script| script.text.as_str());
        match config.wrap(&command.argv, script, PRETENCE) {
            Some(argv) => Command { argv, pretence: Some(ImagePath::clean(PRETENCE)), ..command },
            None => command,
        }
    }

    /// Whether RUN is root's: under fakeroot, everybody would be.
    fn is_roots(&self) -> bool {
        matches!(self.config.config.user.split(':').next(), None | Some("" | "0" | "root"))
    }
}

impl Engine<'_> {
    /// Gets fakeroot into a stage, if an instruction is the first that needs it.
    pub(super) fn prepare_fakeroot(
        &self,
        stage: &Stage<'_>,
        state: &mut State,
        instruction: &Instruction,
        place: (usize, usize),
    ) -> Result<()> {
        let relevant = self.request.emulation == Mode::Fakeroot && matches!(instruction.kind, Kind::Run(_));
        if !relevant || state.certainty == Certainty::Guessed {
            return Ok(());
        }
        let resolver = Resolver { file: self.file, state, arguments: &self.request.arguments, globals: &self.plan.globals };
        // What can't be resolved is the step's own error.
        let Ok(Action::Run(command)) = resolver.resolve(instruction) else { return Ok(()) };
        self.choose_fakeroot(stage, state)?;
        let Chosen::Config(config) = &state.fakeroot.chosen.clone() else { return Ok(()) };
        if state.fakeroot.installed == Installed::Yes || state.under_fakeroot(command).pretence.is_none() {
            return Ok(());
        }
        for install in config.installs() {
            self.install(stage, state, (config, install), place).map_err(|e| {
                let error = e.context(format!("can't prepare the image for this RUN as {}.toml says", config.name()));
                let hint = "`--root-emulation=consistent`, the default, needs no program in the image; `rootling info --fakeroot IMAGE` shows the config";
                locate(self.file, error.hint(hint), instruction)
            })?;
        }
        state.fakeroot.installed = Installed::Yes;
        Ok(())
    }

    fn choose_fakeroot(&self, stage: &Stage<'_>, state: &mut State) -> Result<()> {
        if !matches!(state.fakeroot.chosen, Chosen::NotYet) {
            return Ok(());
        }
        let view = View::new(self.store.stack(&state.stack())?);
        let name = self.name(stage);
        let (chosen, text) = match choose(&self.request.fakeroot, &view)? {
            Some(config) => (Chosen::Config(config.clone()), format!("{name} fakeroot: {}.toml ({})", config.name(), config.about())),
            None => (
                Chosen::Nothing,
                format!(
                    "{name} no fakeroot config is for this image: root's system calls succeed there without effect, and owners are lost (`rootling info --fakeroot` lists the configs; a file of your own adds one, see doc/fakeroot.md)"
                ),
            ),
        };
        self.sink.event(match chosen {
            Chosen::Nothing => Event::Warning(text.trim_start()),
            _ => Event::Note(text.trim_start()),
        });
        state.fakeroot.chosen = chosen;
        Ok(())
    }

    /// One install step: like a RUN of root's, in `/`, without the Dockerfile's arguments, so that these don't make it anew.
    fn install(
        &self,
        stage: &Stage<'_>,
        state: &mut State,
        (config, install): (&Config, &Install),
        (number, total): (usize, usize),
    ) -> Result<()> {
        let (test, doing) = (install.test.trim(), install.command.trim());
        let script =
            format!("# as {}.toml says, unless {}:\nif ! (\n{test}\n) >/dev/null 2>&1\nthen\n{doing}\nfi", config.name(), quote(test));
        let id = next_id();
        self.sink.event(Event::StepStarted { id, stage: &self.name(stage), number, total, text: &format!("RUN {script}") });
        let start = Instant::now();
        let mut inside = state.clone();
        inside.config.config.user.clear();
        inside.config.config.working_dir = "/".into();
        inside.scope = Scope::of_image(&state.config.config.env);
        let argv = ["/bin/sh", "-ec", &script].map(str::to_owned).to_vec();
        let command = Command { argv, script: None, network: None, mounts: Vec::new(), pretence: None };
        let made = self.run(stage, &inside, &command, id);
        let outcome = match &made {
            Ok(made) => made.outcome,
            Err(_) if self.stop.is_stopped() => Outcome::Stopped,
            Err(_) => Outcome::Failed,
        };
        let layer = made.as_ref().ok().and_then(|made| made.layer.as_ref()).map(|layer| layer.descriptor.size);
        self.sink.event(Event::StepFinished { id, outcome, elapsed: start.elapsed(), layer });
        let made = made?;
        if outcome == Outcome::Planned {
            state.certainty = Certainty::Guessed;
        } else if made.layer.is_some() {
            state.record(Some(made.created), format!("RUN {}", command.argv.join(" ")), made.layer);
        }
        Ok(())
    }

    /// Shows what became of a RUN that is executed now.
    pub(super) fn show_rewritten(&self, command: &Command, id: u64) {
        if command.pretence.is_some() {
            let script = command.script.as_ref().map_or("", |script| &script.name);
            let first = format!("+ {} {script}", command.argv.join(" "));
            let line = format!("{}\n", first.lines().next().unwrap_or_default().trim_end());
            self.sink.event(Event::StepOutput { id, stream: Stream::Err, bytes: line.as_bytes() });
        }
    }
}
