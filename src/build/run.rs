//! RUN: a command in a workspace, root emulated, what it changed committed as a layer.

use std::collections::BTreeMap;
use std::io::Read;

use crate::error::{Error, Kind, Result, quote};
use crate::event::{Event, Stream};
use crate::oci::ImagePath;
use crate::rootemu::fakeroot::{After, Pretence};
use crate::rootemu::{EmulationSpec, Mode, Report, User};
use crate::rootfs::record::Record;
use crate::rootfs::view::View;
use crate::sandbox::{self, Access, Devices, Exit, IdMap, Missing, Mount, MountKind, Namespace, Privileges, Process, Root, Spec, Stdio};
use crate::store::{CommitOptions, Layer, Workspace, WorkspaceRoot};

use super::Failed;
use super::engine::Engine;
use super::image::keep_failed;
use super::mounts::{self, Mounts, Provided};
use super::passwd::{Accounts, Identity};
use super::resolve::Command;
use super::state::{DEFAULT_PATH, State, StateLayer};

/// The host name every step sees, so that none depends on the machine.
pub const HOSTNAME: &str = "rootling";

/// What helps where a foreign program did not run and the kernel had something to say.
const FOREIGN: &str =
    "programs of another architecture need Linux 6.7 or later, or an administrator who registers qemu-user-static for all";

/// Where a program given in the Dockerfile is put, as BuildKit does.
const SCRIPTS: &str = "/dev/pipes";

/// Runs; `None` if nothing changed.
pub fn run(engine: &Engine<'_>, state: &State, command: &Command, mounts: &Mounts<'_>, id: u64) -> Result<Option<Layer>> {
    let stack = state.stack();
    let view = View::new(engine.store.stack(&stack)?);
    let identity = Accounts::of(&view)?.identity(&state.config.config.user)?;
    let workspace = engine.store.workspace(engine.request.workspace, &stack)?;
    let mut provided = mounts.provide(engine, &workspace.scratch())?;
    let spec = spec(engine, state, command, &identity, &workspace, &view, &provided)?;
    engine.show_rewritten(command, id);
    let io = Stdio { stdin: sandbox::Stream::Null, stdout: sandbox::Stream::Pipe, stderr: sandbox::Stream::Pipe };
    engine.stop.check()?;
    let mut running = sandbox::spawn_holding(&spec, io, std::mem::take(&mut provided.held))?;
    let watched = engine.stop.watch(&running)?;
    let (out, err) = (running.stdout.take(), running.stderr.take());
    // The readers end when the last process that holds the pipe does, which is when the sandbox ends; and that is when it has told all, however
    // much that is: whoever waits for the readers first may wait for ever.
    let status = std::thread::scope(|scope| {
        scope.spawn(|| forward(engine, id, Stream::Out, out));
        scope.spawn(|| forward(engine, id, Stream::Err, err));
        for (connections, agent) in std::mem::take(&mut provided.agents) {
            scope.spawn(move || mounts::serve(connections, &agent));
        }
        running.wait()
    })?;
    let report = status.emulation.as_ref().map(Report::from_value).transpose()?;
    provided.keep(engine, report.as_ref())?;
    // Whoever waits for a locked cache need not wait for the layer.
    drop(provided);
    drop(watched);
    engine.stop.check()?;
    for notice in &status.notices {
        engine.sink.event(Event::Warning(notice));
    }
    let options = CommitOptions { left: report.map(|report| report.left), times: engine.request.times };
    let result = check(status.exit, command).map_err(|error| match spec.binfmt.is_empty() {
        false if !status.notices.is_empty() => error.hint(FOREIGN),
        _ => error,
    });
    match (result, engine.request.failed) {
        (Ok(()), _) => workspace.commit(&options),
        (Err(error), Failed::Drop) => Err(error),
        (Err(error), Failed::Keep) => Err(kept(engine, state, workspace, &options, error)),
    }
}

/// Keeps what a failed command left, and tells how to get there.
fn kept(engine: &Engine<'_>, state: &State, workspace: Workspace, options: &CommitOptions, error: Error) -> Error {
    let layer = workspace.commit(options).map(|layer| layer.map(|layer| StateLayer::made((layer.diff_id, layer.size))));
    match layer.and_then(|layer| keep_failed(engine.store, state, layer)) {
        Ok(name) => error.hint(format!("look around: `rootling run --write --root-emulation {}`", name.familiar())),
        Err(why) => error.hint(format!("what it left could not be kept: {why}")),
    }
}

fn spec(
    engine: &Engine<'_>,
    state: &State,
    command: &Command,
    identity: &Identity,
    workspace: &Workspace,
    view: &View,
    provided: &Provided,
) -> Result<Spec> {
    let config = &state.config.config;
    let surroundings = &engine.request.surroundings;
    let mut mounts = surroundings.mounts();
    let mut argv = command.argv.clone();
    if let Some(script) = &command.script {
        let target = ImagePath::clean(SCRIPTS).child(&script.name);
        argv.push(target.to_string());
        mounts.push(file(target, script.text.clone().into_bytes(), 0o755));
    }
    mounts.extend(command.pretence.iter().map(|path| file(path.clone(), Vec::new(), 0o600)));
    mounts.extend(provided.mounts.iter().cloned());
    mounts.sort_by(|a, b| a.target.cmp(&b.target));
    let root = match workspace.root() {
        WorkspaceRoot::Overlay { lowers, upper, work, .. } => {
            Root::Overlay { lowers: lowers.clone(), upper: upper.clone(), work: work.clone() }
        }
        WorkspaceRoot::Directory(path) => Root::Directory { path: path.clone(), access: Access::ReadWrite },
    };
    let pretence = command.pretence.as_ref().map(|path| Pretence { file: path.to_string(), after: After::Kept });
    if engine.request.emulation != Mode::Consistent && identity.uid != 0 {
        let user = quote(&config.user);
        engine.sink.event(Event::Warning(&format!(
            "RUN of user {user} is done as root, and what it makes is root's: only `--root-emulation=consistent`, the default, knows other users"
        )));
    }
    let emulation = emulation(engine.request.emulation, identity, view, &provided.said, &provided.caches(), pretence)?;
    let environment = environment(engine, state, command, identity, provided);
    let cwd = ImagePath::clean(&config.working_dir);
    Ok(Spec {
        root,
        id_map: IdMap::ROOT,
        mounts,
        process: Process {
            argv: argv.into_iter().map(Into::into).collect(),
            env: environment.iter().map(|(name, value)| format!("{name}={value}").into()).collect(),
            cwd,
            umask: Some(0o022),
            limits: surroundings.limits.clone(),
        },
        hostname: Some(HOSTNAME.into()),
        network: command.network.unwrap_or(surroundings.network),
        pid: Namespace::Private,
        ipc: Namespace::Private,
        devices: Devices::Minimal,
        capabilities: surroundings.capabilities,
        privileges: Privileges::Raisable,
        binfmt: sandbox::interpreters(&state.config.platform(), &engine.request.programs)?,
        emulation,
    })
}

/// The variables of a command.
fn environment(
    engine: &Engine<'_>,
    state: &State,
    command: &Command,
    identity: &Identity,
    provided: &Provided,
) -> BTreeMap<String, String> {
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
    environment.extend(provided.variables.iter().cloned());
    if let Some(socket) = Mounts::agent_socket(&command.mounts, &state.config.config.working_dir) {
        environment.entry("SSH_AUTH_SOCK".into()).or_insert(socket);
    }
    environment
}

/// Root emulation for a user of a stack; `None` without emulation. `mounted` is what is known of mounts, `caches` are those of them whose records
/// are kept; `pretence` is for commands behind a fakeroot program.
pub fn emulation(
    mode: Mode,
    identity: &Identity,
    view: &View,
    mounted: &Record,
    caches: &[ImagePath],
    pretence: Option<Pretence>,
) -> Result<Option<serde_json::Value>> {
    if mode == Mode::None {
        return Ok(None);
    }
    let user = User { uid: identity.uid, gid: identity.gid, groups: identity.groups.clone() };
    let spec = EmulationSpec::new(mode, user).with_layers(view.recorded(&ImagePath::root())?).with_pretence(pretence);
    Ok(Some(spec.with_mounted(mounted.clone(), caches.iter().cloned()).to_value()))
}

/// A file in memory.
pub fn file(target: ImagePath, content: Vec<u8>, mode: u32) -> Mount {
    Mount { target, kind: MountKind::File { content, mode }, access: Access::ReadWrite, missing: Missing::Create }
}

fn forward(engine: &Engine<'_>, id: u64, stream: Stream, pipe: Option<impl Read>) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; 16 << 10];
    while let Ok(length @ 1..) = pipe.read(&mut buffer) {
        engine.sink.event(Event::StepOutput { id, stream, bytes: &buffer[..length] });
    }
}

/// How much of a command an error repeats.
const LONGEST_SHOWN: usize = 120;

fn check(exit: Exit, command: &Command) -> Result<()> {
    if exit.success() {
        return Ok(());
    }
    let shown = command.script.as_ref().map_or_else(|| command.argv.join(" "), |script| script.name.clone());
    let first: String = shown.lines().next().unwrap_or_default().chars().take(LONGEST_SHOWN).collect();
    let code = exit.shell_code();
    let error = Error::with_kind(Kind::Other, format!("RUN {} failed", crate::error::quote(&first)));
    let error = match exit {
        Exit::Code(code) => error.cause(format!("exit status {code}")),
        Exit::Signal(libc::SIGKILL) => error.cause("killed by SIGKILL: if nobody did, the machine ran out of memory"),
        Exit::Signal(signal) => error.cause(format!("killed by signal {signal}")),
        Exit::NotFound(why) | Exit::NotExecutable(why) => why.context(error.what().to_owned()),
    };
    Err(error.exit_code(u8::try_from(code).unwrap_or(1)))
}
