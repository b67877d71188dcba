//! RUN: a command in a workspace, root emulated, what it changed committed as a layer.

use std::collections::BTreeMap;
use std::io::Read;

use crate::error::{Error, Kind, Result};
use crate::event::{Event, Stream};
use crate::oci::ImagePath;
use crate::rootemu;
use crate::rootfs::View;
use crate::sandbox::{self, Exit, Mount, Spec};
use crate::store::{Layer, WorkspaceRoot};

use super::passwd::{Accounts, Identity};
use super::resolve::{Command, Network};
use super::state::{DEFAULT_PATH, State};
use super::step::Engine;

/// The host name every step sees, so that none depends on the machine.
const HOSTNAME: &str = "rootling";

/// Where a program given in the Dockerfile is put, as BuildKit does.
const SCRIPTS: &str = "/dev/pipes";

/// Runs; `None` if nothing changed.
pub fn run(engine: &Engine<'_>, state: &State, command: &Command, id: u64) -> Result<Option<Layer>> {
    let stack = state.stack();
    let view = View::new(engine.store.stack(&stack)?);
    let identity = Accounts::of(&view)?.identity(&state.config.config.user)?;
    let workspace = engine.store.workspace(engine.request.workspace, &stack)?;
    let spec = spec(engine, state, command, &identity, &workspace, &view)?;
    let mut running = sandbox::spawn(&spec, sandbox::Io::pipes())?;
    let (out, err) = (running.take_stdout(), running.take_stderr());
    // The readers end when the last process that holds the pipe does, which is when the sandbox ends.
    std::thread::scope(|scope| {
        scope.spawn(|| forward(engine, id, Stream::Out, out));
        scope.spawn(|| forward(engine, id, Stream::Err, err));
    });
    let status = running.wait()?;
    for notice in &status.notices {
        engine.sink.event(Event::Warning(notice));
    }
    check(&status.exit, command)?;
    let overrides = status.emulation.as_ref().map(rootemu::overrides).transpose()?.unwrap_or_default();
    workspace.commit(&overrides)
}

fn spec(
    engine: &Engine<'_>,
    state: &State,
    command: &Command,
    identity: &Identity,
    workspace: &crate::store::Workspace,
    view: &View,
) -> Result<Spec> {
    let config = &state.config.config;
    let mut environment: BTreeMap<String, String> = engine.request.proxies.clone();
    for name in super::PREDEFINED_ARGUMENTS {
        if let Some(value) = engine.request.arguments.get(name) {
            environment.insert(name.into(), value.clone());
        }
    }
    environment.extend(state.scope.variables().map(|(name, value)| (name.to_owned(), value.to_owned())));
    environment.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
    environment.entry("HOME".into()).or_insert_with(|| identity.home.clone());
    environment.entry("HOSTNAME".into()).or_insert_with(|| HOSTNAME.into());
    let mut mounts = sandbox::host_files();
    let mut argv = command.argv.clone();
    if let Some(script) = &command.script {
        let target = ImagePath::clean(SCRIPTS).child(&script.name);
        argv = vec![target.to_string()];
        mounts.push(Mount::file(target, script.text.clone().into_bytes(), 0o755));
    }
    let root = match workspace.root() {
        WorkspaceRoot::Overlay { lowers, upper, work } => sandbox::Root::Overlay { lowers, upper: Some(upper), work: Some(work) },
        WorkspaceRoot::Directory(path) => sandbox::Root::Directory { path, access: sandbox::Access::ReadWrite },
    };
    let credentials = rootemu::Credentials { uid: identity.uid, gid: identity.gid, groups: identity.groups.clone() };
    let emulation = rootemu::Spec::new(engine.request.emulation, credentials, rootemu::stack_overrides(view)?);
    let network = match command.network {
        Network::Host => sandbox::Network::Host,
        Network::None => sandbox::Network::None,
    };
    Ok(Spec::build(root)
        .hostname(HOSTNAME)
        .process(argv, environment, if config.working_dir.is_empty() { "/" } else { &config.working_dir })
        .mounts(mounts)
        .network(network)
        .emulation(emulation.to_value())
        .scratch(workspace.scratch()))
}

fn forward(engine: &Engine<'_>, id: u64, stream: Stream, pipe: Option<impl Read>) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; 16 << 10];
    while let Ok(length @ 1..) = pipe.read(&mut buffer) {
        engine.sink.event(Event::StepOutput { id, stream, bytes: &buffer[..length] });
    }
}

fn check(exit: &Exit, command: &Command) -> Result<()> {
    let shown = command.script.as_ref().map_or_else(|| command.argv.join(" "), |script| script.name.clone());
    let code = exit.code();
    let why = match exit {
        Exit::Code(0) => return Ok(()),
        Exit::Code(code) => format!("exit status {code}"),
        Exit::Signal(9) => "killed by SIGKILL; if nobody did, the machine ran out of memory".to_owned(),
        Exit::Signal(signal) => format!("killed by signal {signal}"),
        Exit::NotFound(what) | Exit::NotExecutable(what) => what.clone(),
    };
    let first = shown.lines().next().unwrap_or_default();
    Err(Error::with_kind(Kind::Other, format!("RUN {} failed", crate::error::quote(first))).cause(why).exit_code(code))
}
