//! `RUN --mount`: from a step's mounts to what the sandbox mounts, and what of them enters the cache key.
//!
//! Two steps: [`Mounts::find`] finds what is read, for the key, and mounts nothing; [`Mounts::provide`] makes everything ready once the step is to
//! be executed. Secrets and agents never touch the disk, and of their contents nothing enters the key (BuildKit).

mod agent;
mod cache;
mod tree;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::dockerfile::ast::{self, MountKind as Kind};
use crate::error::{Error, Result, nearest, quote};
use crate::oci::ImagePath;
use crate::rootemu::{Override, Report};
use crate::rootfs::meta::Kind as FileKind;
use crate::rootfs::record::Record;
use crate::sandbox::{Access, Connections, Missing, Mount, MountKind};
use crate::store::CacheMount;

use super::cache::Inputs;
use super::engine::Engine;
use super::key::Key;
use super::plan::Stage;
use super::state::State;
use super::surroundings::{Agent, Secret};

pub use agent::serve;

use agent::OwnAgent;
use cache::Cache;
use tree::{MountPoint, Tree};

/// The mounts of one step.
pub struct Mounts<'a> {
    items: Vec<Item<'a>>,
}

struct Item<'a> {
    target: ImagePath,
    what: What<'a>,
}

enum What<'a> {
    Bind { tree: Tree<'a>, access: Access },
    Cache { cache: Cache<'a>, access: Access },
    Tmpfs { size: Option<u64>, access: Access },
    Secret { secret: &'a Secret, mode: u32, owner: (u32, u32) },
    Variable { secret: &'a Secret, name: String },
    Agent { agent: &'a Agent, mode: u32, owner: (u32, u32) },
}

/// What a step is given. To be kept until it has ended.
#[derive(Default)]
pub struct Provided {
    /// What to mount, parents first.
    pub mounts: Vec<Mount>,
    /// What is to be known of mounted files that can't say it themselves.
    pub said: Record,
    /// Variables.
    pub variables: Vec<(String, String)>,
    /// Descriptors for the sandbox to hold: first the channels of sockets, then locks.
    pub held: Vec<OwnedFd>,
    /// Agents to be served, and where they listen.
    pub agents: Vec<(Connections, PathBuf)>,
    caches: Vec<Taken>,
    own_agents: Vec<OwnAgent>,
}

/// A cache in use.
struct Taken {
    /// The first of the step's mounts that want it.
    item: usize,
    mount: CacheMount,
    /// What its record said when the step began.
    said: Record,
    /// Where it is mounted.
    targets: Vec<ImagePath>,
}

/// Where BuildKit puts sockets of agents.
const AGENTS: &str = "/run/buildkit/ssh_agent";

impl<'a> Mounts<'a> {
    /// Finds what the mounts read, and adds to the key what the step's result may depend on.
    ///
    /// # Errors
    /// A source that is not there, a required secret or agent that is not given, a target that can't be one.
    pub fn find(engine: &'a Engine<'_>, stage: &Stage<'_>, state: &State, mounts: &[ast::Mount], key: &mut Key) -> Result<Self> {
        let working_dir = ImagePath::clean(&state.config.config.working_dir);
        let mut items = Vec::new();
        let mut agents = 0;
        for mount in mounts {
            let access = if mount.read_only { Access::ReadOnly } else { Access::ReadWrite };
            key.field(format!("{:?} {:?} {access:?}", mount.kind, mount.required));
            key.field(format!("{:?} {:?} {:?} {:?}", mount.mode, mount.uid, mount.gid, mount.size));
            let target = |written: &str| target(&working_dir, written);
            match mount.kind {
                Kind::Bind => {
                    let target = target(mount.target.as_deref().unwrap_or_default())?;
                    let tree = Tree::find(engine, stage, mount, key)?;
                    items.push(Item { target, what: What::Bind { tree, access } });
                }
                Kind::Cache => {
                    let target = target(mount.target.as_deref().unwrap_or_default())?;
                    let cache = Cache::find(engine, stage, mount, key)?;
                    items.push(Item { target, what: What::Cache { cache, access } });
                }
                Kind::Tmpfs => {
                    let target = target(mount.target.as_deref().unwrap_or_default())?;
                    items.push(Item { target, what: What::Tmpfs { size: mount.size, access } });
                }
                Kind::Secret => items.extend(secret(engine, mount, &target, key)?),
                Kind::Ssh => {
                    let written = mount.target.clone().unwrap_or_else(|| format!("{AGENTS}.{agents}"));
                    agents += 1;
                    let target = target(&written)?;
                    key.field(mount.id.as_deref().unwrap_or(DEFAULT_AGENT));
                    if let Some(agent) = find_agent(engine, mount)? {
                        items.push(Item {
                            target: target.clone(),
                            what: What::Agent { agent, mode: mount.mode.unwrap_or(0o600), owner: owner(mount) },
                        });
                    }
                }
            }
            key.list(items.last().map(|item| item.target.as_bytes()));
        }
        Ok(Self { items })
    }

    /// Whether what was found in contexts is still there as it was.
    pub fn inputs(&self, engine: &Engine<'_>) -> Inputs {
        let changed = self.items.iter().any(|item| match &item.what {
            What::Bind { tree, .. } => tree.inputs(engine) == Inputs::Changed,
            _ => false,
        });
        if changed { Inputs::Changed } else { Inputs::AsKeyed }
    }

    /// Where the step finds its first SSH agent, given or not, unless it says otherwise.
    pub fn agent_socket(mounts: &[ast::Mount], working_dir: &str) -> Option<String> {
        let first = mounts.iter().find(|mount| mount.kind == Kind::Ssh)?;
        let written = first.target.clone().unwrap_or_else(|| format!("{AGENTS}.0"));
        Some(ImagePath::clean(working_dir).resolve(&written).to_string())
    }

    /// Makes everything ready. `scratch` is an empty directory on the storage's file system that is removed after the step.
    ///
    /// Waits for locked caches, in an order that is the same for all steps, so that no two wait for each other.
    pub fn provide(&self, engine: &Engine<'_>, scratch: &Path) -> Result<Provided> {
        let mut provided = Provided::default();
        let mut caches: Vec<(usize, &Cache<'_>)> = Vec::new();
        for (at, item) in self.items.iter().enumerate() {
            if let What::Cache { cache, .. } = &item.what {
                caches.push((at, cache));
            }
        }
        caches.sort_by_key(|(_, cache)| cache.key);
        for (at, cache) in &caches {
            // One step that mounts one cache twice sees one directory.
            let same = caches.iter().find(|(_, other)| other.key == cache.key).map_or(*at, |(first, _)| *first);
            if same == *at {
                let mount = cache.take(engine)?;
                let said = mount.record()?;
                provided.caches.push(Taken { item: *at, mount, said, targets: Vec::new() });
            }
        }
        for (at, item) in self.items.iter().enumerate() {
            let points = self.points_below(item);
            item.provide(engine, at, &scratch.join(format!("mount-{at}")), (&caches, &points), &mut provided)?;
        }
        let locks = provided.caches.iter().map(|taken| taken.mount.holder()).collect::<Result<Vec<_>>>()?;
        provided.held.extend(locks);
        provided.mounts.sort_by(|a, b| a.target.cmp(&b.target));
        Ok(provided)
    }
}

impl Mounts<'_> {
    /// Where other mounts of the step go below this one.
    fn points_below(&self, item: &Item<'_>) -> Vec<MountPoint> {
        let below = |other: &&Item<'_>| other.target != item.target && other.target.starts_with(&item.target);
        let point = |other: &Item<'_>| Some(MountPoint { path: other.target.strip_prefix(&item.target)?, kind: other.what.kind()? });
        self.items.iter().filter(below).filter_map(point).collect()
    }
}

impl What<'_> {
    /// Whether it is a file or a directory; `None` if it is not mounted.
    fn kind(&self) -> Option<FileKind> {
        match self {
            Self::Bind { tree, .. } => Some(if tree.is_directory() { FileKind::Directory } else { FileKind::File }),
            Self::Cache { .. } | Self::Tmpfs { .. } => Some(FileKind::Directory),
            Self::Secret { .. } | Self::Agent { .. } => Some(FileKind::File),
            Self::Variable { .. } => None,
        }
    }
}

impl Item<'_> {
    fn provide(
        &self,
        engine: &Engine<'_>,
        at: usize,
        scratch: &Path,
        (caches, points): (&[(usize, &Cache<'_>)], &[MountPoint]),
        provided: &mut Provided,
    ) -> Result<()> {
        let (kind, access) = match &self.what {
            What::Bind { tree, access } => {
                let (kind, said) = tree.provide(engine, *access, points, scratch)?;
                provided.take_over(&self.target, &said);
                (kind, *access)
            }
            What::Cache { cache, access } => {
                let first = caches.iter().find(|(_, other)| other.key == cache.key).map_or(at, |(first, _)| *first);
                let Some(taken) = provided.caches.iter_mut().find(|taken| taken.item == first) else { return Ok(()) };
                taken.targets.push(self.target.clone());
                let (source, said) = (taken.mount.tree(), taken.said.clone());
                provided.take_over(&self.target, &said);
                (MountKind::Bind { source }, *access)
            }
            What::Tmpfs { size, access } => (MountKind::Tmpfs { size: *size, mode: 0o1777 }, *access),
            What::Secret { secret, mode, owner } => {
                provided.own(&self.target, *mode, *owner);
                (MountKind::File { content: secret.reveal().to_vec(), mode: *mode }, Access::ReadOnly)
            }
            What::Variable { secret, name } => {
                // A variable holds text without NUL; what is no text can't be passed on unchanged, and is not passed on changed.
                let text = std::str::from_utf8(secret.reveal()).ok().filter(|text| !text.contains('\0'));
                let text = text.ok_or_else(|| {
                    Error::input(format!("a secret can't be the variable {}", quote(name)))
                        .cause("it is not text")
                        .hint("mount it as a file: drop `env=` and read it from `target`")
                })?;
                provided.variables.push((name.clone(), text.to_owned()));
                return Ok(());
            }
            What::Agent { agent, mode, owner } => {
                let socket = match agent {
                    Agent::Socket(socket) => socket.clone(),
                    Agent::Keys(keys) => {
                        let own = OwnAgent::start(keys)?;
                        let socket = own.socket().to_owned();
                        provided.own_agents.push(own);
                        socket
                    }
                };
                let (connections, channel) = Connections::channel()?;
                provided.agents.push((connections, socket));
                provided.held.push(channel);
                provided.own(&self.target, *mode, *owner);
                (MountKind::Socket { channel: provided.held.len() - 1, mode: *mode }, Access::ReadWrite)
            }
        };
        provided.mounts.push(Mount { target: self.target.clone(), kind, access, missing: Missing::Create });
        Ok(())
    }
}

impl Provided {
    /// Where caches are mounted.
    pub fn caches(&self) -> Vec<ImagePath> {
        self.caches.iter().flat_map(|taken| taken.targets.iter().cloned()).collect()
    }

    /// Keeps what the step has made of its caches, whether it failed or not. Without root emulation nobody knows more than the files say.
    pub fn keep(&self, engine: &Engine<'_>, report: Option<&Report>) -> Result<()> {
        let Some(report) = report else { return Ok(()) };
        for taken in &self.caches {
            let mut left = Record::default();
            for found in taken.targets.iter().filter_map(|target| report.cache(target)) {
                found.entries().for_each(|path| left.adopt(path, found, path));
            }
            taken.mount.keep(engine.store, &taken.said, &left)?;
        }
        Ok(())
    }

    fn take_over(&mut self, target: &ImagePath, said: &Record) {
        said.entries().for_each(|path| self.said.adopt(&target.resolve(path.as_bytes()), said, path));
    }

    /// Notes whose a file is; root's are nobody's else.
    fn own(&mut self, target: &ImagePath, mode: u32, (uid, gid): (u32, u32)) {
        if (uid, gid) != (0, 0) {
            self.said.overrides.insert(target.clone(), Override { uid, gid, mode, device: None });
        }
    }
}

/// A mount's target, relative to the working directory.
fn target(working_dir: &ImagePath, written: &str) -> Result<ImagePath> {
    let target = working_dir.resolve(written);
    if target.is_root() {
        let error = Error::input("a mount can't take the place of the root directory");
        return Err(error.hint("name a directory: `target=/PATH`, or set WORKDIR, to which targets are relative"));
    }
    Ok(target)
}

fn owner(mount: &ast::Mount) -> (u32, u32) {
    (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0))
}

/// A secret as a file, as a variable, or as both. One that is not given and not required is not there.
fn secret<'a>(
    engine: &'a Engine<'_>,
    mount: &ast::Mount,
    target: &dyn Fn(&str) -> Result<ImagePath>,
    key: &mut Key,
) -> Result<Vec<Item<'a>>> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (written, variable) = (given(&mount.target), given(&mount.env));
    let last = |path: &str| path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    let id = given(&mount.source)
        .or_else(|| given(&mount.id))
        .or_else(|| written.as_deref().map(last))
        .or_else(|| variable.clone())
        .unwrap_or_default();
    let written = written.or_else(|| variable.is_none().then(|| format!("/run/secrets/{}", last(&id))));
    key.field(&id).list(&written).list(&variable);
    let secrets = &engine.request.surroundings.secrets;
    let Some(secret) = secrets.get(&id) else {
        if !mount.required {
            return Ok(Vec::new());
        }
        let error = Error::input(format!("the secret {} is not given", quote(&id)));
        return Err(match nearest(&id, secrets.keys().map(String::as_str)) {
            Some(near) => error.hint(format!("{} is given; did you mean that one?", quote(near))),
            None => error.hint(format!("give it: `rootling build --secret id={id},src=FILE`, or `env=VARIABLE` instead of `src`")),
        });
    };
    let mut items = Vec::new();
    if let Some(written) = written {
        let what = What::Secret { secret, mode: mount.mode.unwrap_or(0o400), owner: owner(mount) };
        items.push(Item { target: target(&written)?, what });
    }
    if let Some(name) = variable {
        items.push(Item { target: ImagePath::root(), what: What::Variable { secret, name } });
    }
    Ok(items)
}

/// The agent that an SSH mount without `id` means.
const DEFAULT_AGENT: &str = "default";

fn find_agent<'a>(engine: &'a Engine<'_>, mount: &ast::Mount) -> Result<Option<&'a Agent>> {
    let id = mount.id.as_deref().filter(|id| !id.is_empty()).unwrap_or(DEFAULT_AGENT);
    let agents = &engine.request.surroundings.agents;
    if let Some(agent) = agents.get(id) {
        return Ok(Some(agent));
    }
    if !mount.required {
        return Ok(None);
    }
    let error = Error::input(format!("the SSH agent {} is not given", quote(id)));
    Err(match nearest(id, agents.keys().map(String::as_str)) {
        Some(near) => error.hint(format!("{} is given; did you mean that one?", quote(near))),
        None => error.hint(format!("give it: `rootling build --ssh {id}`, or `--ssh {id}=KEY` with a private key's file")),
    })
}
