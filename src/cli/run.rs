//! `rootling run`.

mod squashfs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use super::environment::Environment;
use super::fakeroot::FakerootArguments;
use super::{fakeroot, info, render};
use crate::build::{Accounts, DEFAULT_PATH, Identity, emulation, file_mount};
use crate::error::{Error, Result, quote};
use crate::oci::{Config, ImagePath, Platform};
use crate::rootemu;
use crate::rootemu::fakeroot::{After, Pretence};
use crate::rootfs::record::Record;
use crate::rootfs::view::{Follow, LayerDir, View};
use crate::sandbox::{
    self, Access, Capabilities, Devices, Exit, IdMap, Missing, Mount, MountKind, Namespace, Privileges, Process, Root, Spec, Stdio, Stream,
};
use crate::store::{Store, WorkspaceKind};
use crate::transfer::Place;

#[derive(clap::Args)]
pub struct Arguments {
    /// Name or ID of an image, a directory with a root file system (with a `/` in it), or a squashfs image; then command and arguments
    /// instead of the image's CMD. All after IMAGE is the command's, options too; a `--` between them is dropped
    #[arg(value_name = "IMAGE [-- COMMAND", trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    words: Vec<String>,
    /// Let the image be written to; changes are discarded
    #[arg(long, short)]
    write: bool,
    /// Bind a directory or file of this machine
    #[arg(long, short, visible_alias = "volume", visible_short_alias = 'v', value_name = "SRC[:DST[:ro]]")]
    bind: Vec<String>,
    /// Accepted for docker's sake: nothing is kept of a container anyway
    #[arg(long, hide = true)]
    rm: bool,
    /// Accepted for docker's sake: standard input and the terminal are always the command's
    #[arg(short = 'i', long, hide = true)]
    interactive: bool,
    /// Accepted for docker's sake, as above
    #[arg(short = 't', long, hide = true)]
    tty: bool,
    /// Set a variable; without value it is taken from the environment
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Where to start
    #[arg(long, short = 'C', value_name = "DIR", visible_alias = "cd")]
    workdir: Option<String>,
    /// User to run as [default: the image's USER, else yourself]
    #[arg(long, short, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Command instead of the image's ENTRYPOINT; empty for none
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Be root, or another user, as RUN is [default: none, or consistent where a user is named]
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "consistent")]
    root_emulation: Option<EmulationArgument>,
    #[command(flatten)]
    fakeroot: FakerootArguments,
    /// Which of a name's images [default: this machine's, else the first]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Network to see
    #[arg(long, value_enum, default_value_t = NetworkArgument::Host)]
    network: NetworkArgument,
    /// Processes to see; with `private` what the command leaves behind ends with it
    #[arg(long, value_enum, default_value_t = PidArgument::Host)]
    pid: PidArgument,
    /// Host name to have [default: the machine's]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
}

impl Arguments {
    fn image(&self) -> &str {
        &self.words[0]
    }

    fn command(&self) -> &[String] {
        match &self.words[1..] {
            [dashes, command @ ..] if dashes == "--" => command,
            command => command,
        }
    }
}

/// How a process is root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum EmulationArgument {
    /// What is done is seen again: owners, devices, credentials
    Consistent,
    /// System calls that only root may make succeed without effect
    #[value(alias = "success-only")]
    Success,
    /// A fakeroot program in the image pretends, before the commands that need it; where it is missing it is installed
    Fakeroot,
    /// Nothing is emulated
    None,
}

impl From<EmulationArgument> for rootemu::Mode {
    fn from(argument: EmulationArgument) -> Self {
        match argument {
            EmulationArgument::Consistent => Self::Consistent,
            EmulationArgument::Success => Self::SuccessOnly,
            EmulationArgument::Fakeroot => Self::Fakeroot,
            EmulationArgument::None => Self::None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum NetworkArgument {
    /// The machine's
    Host,
    /// None but loopback
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum PidArgument {
    /// The machine's, as ch-run does: ranks of one job find each other
    Host,
    /// Its own
    Private,
}

/// An image made ready to run: its tree as layers, and how to mount it.
struct Target {
    config: Config,
    /// What an image says that it runs on.
    platform: Option<Platform>,
    view: View,
    root: Root,
    /// Who called.
    caller: (u32, u32),
    /// What the root is mounted from.
    mounted: Option<squashfs::Mounted>,
    /// What a store has handed out stays until it is dropped, whoever prunes meanwhile.
    store: Option<Store>,
}

pub fn execute(arguments: Arguments, environment: &Environment) -> Result<ExitCode> {
    // Docker's habits that mean nothing here.
    let _ = (arguments.rm, arguments.interactive, arguments.tty);
    let target = target(&arguments, environment)?;
    let mut argv = argv(&arguments, &target.config)?;
    let identity = identity(&arguments, &target)?;
    let pretence = pretend(&arguments, environment, &target.view, &identity, &mut argv)?;
    let variables = variables(&arguments, environment, &target.config, &identity);
    let workdir = workdir(&arguments, &target.config);
    let mut mounts: Vec<Mount> = ["/etc/resolv.conf", "/etc/hosts"].into_iter().filter_map(host_file).collect();
    mounts.extend(account_files(&target.view, &identity)?);
    for bind in &arguments.bind {
        mounts.push(super::bind::parse(bind)?);
    }
    mounts.extend(pretence.iter().map(|pretence| file_mount(ImagePath::clean(&pretence.file), Vec::new(), 0o600)));
    let binfmt = target.platform.as_ref().map_or(Ok(Vec::new()), |platform| sandbox::interpreters(platform, &environment.programs()))?;
    let (id_map, emulation) = emulated(&arguments, &target, &identity, &binfmt, pretence)?;
    let spec = Spec {
        root: target.root.clone(),
        id_map,
        mounts,
        process: Process {
            argv: argv.into_iter().map(Into::into).collect(),
            env: variables.iter().map(|(name, value)| format!("{name}={value}").into()).collect(),
            cwd: workdir,
            umask: None,
            limits: Vec::new(),
        },
        hostname: arguments.hostname.clone(),
        network: match arguments.network {
            NetworkArgument::Host => sandbox::Network::Host,
            NetworkArgument::None => sandbox::Network::None,
        },
        // An emulated command needs a watcher beside it, which a namespace of processes makes sure of; interpreters need its /proc.
        pid: if emulation.is_some() || !binfmt.is_empty() || arguments.pid == PidArgument::Private {
            Namespace::Private
        } else {
            Namespace::Host
        },
        ipc: Namespace::Host,
        devices: Devices::Host,
        capabilities: Capabilities::docker(),
        privileges: Privileges::Raisable,
        binfmt,
        emulation,
    };
    let io = Stdio { stdin: Stream::Inherit, stdout: Stream::Inherit, stderr: Stream::Inherit };
    let status = sandbox::spawn(&spec, io)?.wait_forwarding_signals()?;
    for notice in &status.notices {
        render::warning(notice);
    }
    drop(target.mounted);
    let code = u8::try_from(status.exit.shell_code()).unwrap_or(125);
    if let Exit::NotFound(error) | Exit::NotExecutable(error) = status.exit {
        render::error(&error);
    }
    Ok(ExitCode::from(code))
}

/// Who the command is, and how root is emulated for it.
fn emulated(
    arguments: &Arguments,
    target: &Target,
    identity: &Identity,
    binfmt: &[String],
    pretence: Option<Pretence>,
) -> Result<(IdMap, Option<serde_json::Value>)> {
    // Without a name there is one user, the caller, and nothing to tell apart; with one, who owns what begins to matter. Only root of
    // the namespace may register interpreters, so that the caller must be emulated.
    let named = arguments.user.is_some() || !target.config.user.is_empty();
    let default = if named || !binfmt.is_empty() { EmulationArgument::Consistent } else { EmulationArgument::None };
    let mode = info::emulation(target.store.as_ref(), arguments.root_emulation.unwrap_or(default).into())?;
    if mode == rootemu::Mode::None && !binfmt.is_empty() {
        Ok((IdMap::ROOT, None))
    } else if mode == rootemu::Mode::None {
        Ok((IdMap { inside_uid: identity.uid, inside_gid: identity.gid }, None))
    } else {
        Ok((IdMap::ROOT, emulation(mode, identity, &target.view, &Record::default(), &[], pretence)?))
    }
}

/// Puts the image's fakeroot before a command, if that is wanted. It is told what belongs to whom in the image; what it pretends ends with it.
fn pretend(
    arguments: &Arguments,
    environment: &Environment,
    view: &View,
    identity: &Identity,
    argv: &mut Vec<String>,
) -> Result<Option<Pretence>> {
    let wanted = arguments.root_emulation.unwrap_or(EmulationArgument::None);
    let configs = arguments.fakeroot.configs_for(wanted, environment)?;
    if wanted != EmulationArgument::Fakeroot {
        return Ok(None);
    }
    if identity.uid != 0 {
        return Err(Error::input("under fakeroot the command is root")
            .hint("give `--user 0`, or another `--root-emulation`: consistent emulation knows users"));
    }
    *argv = fakeroot::required(&configs, view, arguments.image())?.put_before(argv, PRETENCE);
    Ok(Some(Pretence { file: PRETENCE.into(), after: After::Dropped }))
}

/// What may have been meant by a name that no image has.
fn meant(error: Error, image: &str) -> Error {
    if image.starts_with('-') {
        return Error::input(format!("there is no option {}", quote(image)))
            .hint("`rootling run --help` lists them; options come before the image");
    }
    match Place::of_source(image) {
        _ if Path::new(image).is_dir() => Error::input(error.what()).hint(format!("the directory of that name is run as `./{image}`")),
        Ok(Some(Place::Squashfs(path) | Place::Directory(path))) => {
            Error::input(error.what()).hint(format!("name it without its kind: `rootling run {}`", path.display()))
        }
        Ok(Some(_)) => Error::input(error.what()).hint(format!("`rootling pull {image}` brings it here under its name")),
        _ => error,
    }
}

/// Where that fakeroot reads what belongs to whom.
const PRETENCE: &str = "/run/fakeroot.state";

fn target(arguments: &Arguments, environment: &Environment) -> Result<Target> {
    let path = Path::new(arguments.image());
    if arguments.image().contains('/') && path.is_dir() {
        let path = std::fs::canonicalize(path).map_err(|e| Error::io("open", path, e))?;
        let layer = LayerDir { fs: path.clone(), record: Arc::new(record(&path, environment)?) };
        let root = if arguments.write {
            Root::Scratch { lowers: vec![path], disk: None }
        } else {
            Root::Directory { path, access: Access::ReadOnly }
        };
        return Ok(Target {
            config: Config::default(),
            platform: None,
            view: View::new(vec![layer]),
            root,
            caller: caller(),
            mounted: None,
            store: None,
        });
    }
    if let Some(file) = squashfs::named(arguments.image(), environment) {
        return squashfs::target(&file, arguments, environment);
    }
    if arguments.image().starts_with(['/', '.']) {
        let error = Error::input(format!("{} is neither a directory nor a squashfs image", quote(arguments.image())));
        return Err(error.hint("to run an image, name it; to run a tree, give its root directory"));
    }
    let store = environment.store()?;
    let found = store.find_platform(arguments.image(), arguments.platform.as_ref()).map_err(|error| meant(error, arguments.image()))?;
    let image = store.load_image(&found)?;
    let platform = Some(image.config.platform());
    let stack = &image.config.rootfs.diff_ids;
    let (view, root) = root(&store, environment, stack, arguments)?;
    Ok(Target { config: image.config.config, platform, view, root, caller: caller(), mounted: None, store: Some(store) })
}

/// Who calls.
fn caller() -> (u32, u32) {
    (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw())
}

/// What is known of a tree's files that they can't say themselves, if it is one that `rootling path` has printed.
fn record(tree: &Path, environment: &Environment) -> Result<Record> {
    let storage = std::fs::canonicalize(environment.storage()?).unwrap_or_default();
    match tree.parent() {
        Some(directory) if storage.is_absolute() && directory.starts_with(storage) => Record::load(directory),
        _ => Ok(Record::default()),
    }
}

fn root(store: &Store, environment: &Environment, stack: &[crate::oci::DiffId], arguments: &Arguments) -> Result<(View, Root)> {
    let layers = store.stack(stack)?;
    let overlay = info::workspace(store, environment)? == WorkspaceKind::Overlay;
    let lowers: Vec<PathBuf> = layers.iter().rev().map(|layer| layer.fs.clone()).collect();
    let root = match (overlay, arguments.write) {
        (true, true) => Root::Scratch { lowers, disk: None },
        (true, false) => Root::ReadOnly { lowers },
        (false, false) => Root::Directory { path: store.tree(stack)?, access: Access::ReadOnly },
        (false, true) => {
            return Err(Error::new("can't run with `--write` here")
                .cause("overlay mounts don't work on this machine; see `rootling info`")
                .hint("copy the tree (`cp -a \"$(rootling path IMAGE)\" DIR`) and work in the copy"));
        }
    };
    Ok((View::new(layers), root))
}

/// ENTRYPOINT and CMD as docker combines them: a command takes the place of CMD, `--entrypoint` of both.
fn argv(arguments: &Arguments, config: &Config) -> Result<Vec<String>> {
    let mut argv = match &arguments.entrypoint {
        Some(entrypoint) if entrypoint.is_empty() => Vec::new(),
        Some(entrypoint) => vec![entrypoint.clone()],
        None => config.entrypoint.clone().unwrap_or_default(),
    };
    if !arguments.command().is_empty() {
        argv.extend(arguments.command().iter().cloned());
    } else if arguments.entrypoint.is_none() {
        argv.extend(config.cmd.clone().unwrap_or_default());
    }
    if argv.is_empty() {
        let error =
            Error::input(format!("no command to run in {}", quote(arguments.image()))).cause("the image has neither ENTRYPOINT nor CMD");
        return Err(error.hint(format!("give one: `rootling run {} -- COMMAND`", arguments.image())));
    }
    Ok(argv)
}

/// `--user`, else root where root is emulated, else the image's USER, else the caller.
fn identity(arguments: &Arguments, target: &Target) -> Result<Identity> {
    let chosen = match (&arguments.user, target.config.user.as_str()) {
        (Some(user), _) => Some(user.as_str()),
        (None, user) if !user.is_empty() => Some(user),
        (None, _) if arguments.root_emulation.is_some_and(|emulation| emulation != EmulationArgument::None) => Some("0"),
        (None, _) => None,
    };
    let accounts = Accounts::of(&target.view)?;
    if let Some(user) = chosen {
        return accounts.identity(user);
    }
    let (uid, gid) = target.caller;
    let known = accounts.identity(&uid.to_string())?;
    Ok(Identity { uid, gid, groups: Vec::new(), home: known.home })
}

fn variables(arguments: &Arguments, environment: &Environment, config: &Config, identity: &Identity) -> BTreeMap<String, String> {
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    variables.insert("PATH".into(), DEFAULT_PATH.into());
    variables.insert("HOME".into(), identity.home.clone());
    variables.extend(environment.proxies().map(|(name, value)| (name.to_owned(), value.to_owned())));
    if let Some(term) = environment.variable("TERM") {
        variables.insert("TERM".into(), term.into());
    }
    variables.extend(config.env.iter().filter_map(|entry| entry.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())));
    for entry in &arguments.env {
        match entry.split_once('=') {
            Some((name, value)) => drop(variables.insert(name.to_owned(), value.to_owned())),
            None => {
                if let Some(value) = environment.variable(entry) {
                    variables.insert(entry.clone(), value.to_owned());
                }
            }
        }
    }
    variables
}

fn workdir(arguments: &Arguments, config: &Config) -> ImagePath {
    let image = if config.working_dir.is_empty() { "/" } else { &config.working_dir };
    let image = ImagePath::clean(image);
    arguments.workdir.as_ref().map_or(image.clone(), |chosen| image.resolve(chosen))
}

/// A file of this machine over the image's own: programs count on `localhost` and on name servers.
fn host_file(path: &str) -> Option<Mount> {
    let source = std::fs::canonicalize(path).ok()?;
    let target = ImagePath::clean(path);
    Some(Mount { target, kind: MountKind::Bind { source }, access: Access::ReadOnly, missing: Missing::Create })
}

/// The image's account files with an entry for the user, where it has none: programs ask who they are.
fn account_files(view: &View, identity: &Identity) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    for (path, id, line) in [
        ("/etc/passwd", identity.uid, format!("user:x:{}:{}::{}:/bin/sh\n", identity.uid, identity.gid, identity.home)),
        ("/etc/group", identity.gid, format!("group:x:{}:\n", identity.gid)),
    ] {
        let target = view.resolve(&ImagePath::clean(path), Follow::Last)?;
        let Some(mut text) = view.read(&target, ACCOUNTS_LIMIT)? else { continue };
        let known = text.split(|&b| b == b'\n').any(|entry| entry.split(|&b| b == b':').nth(2) == Some(id.to_string().as_bytes()));
        if known {
            continue;
        }
        if !text.is_empty() && !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        text.extend_from_slice(line.as_bytes());
        mounts.push(file_mount(target, text, 0o644));
    }
    Ok(mounts)
}

const ACCOUNTS_LIMIT: u64 = 16 << 20;
