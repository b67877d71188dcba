//! The mounts of a sandbox, in order, up to the change of the root directory.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, Timestamps};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use super::attach::{bind_path, change_root, proc_path, read_only};
use super::devices;
use super::root::{Opened, Stage, open_directory, open_layers, open_stack};
use super::spec::{Access, Devices, Missing, Mount, MountKind, Root, Spec};
use super::target::{self, Shape, Walk};
use super::wire::{Hardening, Processes, Run};
use crate::error::{Error, Kind, Result, quote, quote_path};
use crate::oci::ImagePath;

/// What is left to know once the root file system is `/`.
pub(super) struct Built {
    /// The upper directory of a root whose changes are kept.
    pub upper: Option<OwnedFd>,
    /// Whether `/proc` shows processes by the numbers they have here.
    pub proc: ProcKind,
    /// Mount points that were made in a writable directory, to be removed at the end.
    pub stubs: Vec<Stub>,
}

/// What is mounted on `/proc`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ProcKind {
    /// Processes have the numbers they know themselves by.
    Own,
    /// The host's, seen from within another PID namespace.
    Foreign,
}

/// A mount point that was made for this run only.
pub(super) struct Stub {
    path: ImagePath,
    /// How many names at the end of the path did not exist.
    made: usize,
    shape: Shape,
    /// Times of the directory that got the first of them, before and after.
    times: Option<(Timestamps, Timestamps)>,
}

/// One thing to be mounted.
struct Item {
    target: ImagePath,
    missing: Missing,
    what: What,
}

enum What {
    Proc,
    Sys,
    Dev,
    Bind { origin: Origin, access: Access },
    Tmpfs { size: Option<u64>, mode: u32, access: Access },
}

/// Something open that is to appear elsewhere.
enum Origin {
    /// A copy of a mount and those below it, in nobody's sight yet. Mounts of ours that come later can't get into it.
    Detached(OwnedFd),
    /// A file or directory where it is.
    InPlace(OwnedFd),
}

impl AsFd for Origin {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Detached(fd) | Self::InPlace(fd) => fd.as_fd(),
        }
    }
}

impl Item {
    fn system(target: &str, what: What) -> Self {
        Self { target: ImagePath::clean(target), missing: Missing::Create, what }
    }

    fn shape(&self) -> Result<Shape> {
        match &self.what {
            What::Bind { origin, .. } => Shape::of(origin.as_fd()).map_err(|errno| self.failed(errno)),
            What::Proc | What::Sys | What::Dev | What::Tmpfs { .. } => Ok(Shape::Directory),
        }
    }

    fn failed(&self, errno: Errno) -> Error {
        let what = match self.what {
            What::Proc => "/proc",
            What::Sys => "/sys",
            What::Dev => "/dev",
            What::Bind { .. } | What::Tmpfs { .. } => {
                return Error::os(format!("can't mount on {}", quote(self.target.to_string())), errno);
            }
        };
        Error::os(format!("can't mount `{what}`"), errno)
    }
}

/// Mounts everything and makes it this process' root directory.
pub(super) fn set_up(run: &Run<'_>, held: &[OwnedFd], notices: &mut Vec<String>) -> Result<Built> {
    let spec = &*run.spec;
    let mut opened = Opened::new(&spec.root)?;
    let upper = match &spec.root {
        Root::Overlay { upper, .. } => Some(open_readable(upper)?),
        _ => None,
    };
    let sources = spec.mounts.iter().map(open_source).collect::<Result<Vec<_>>>()?;
    let binfmt = register_interpreters(&spec.binfmt, notices)?;
    let items = items(spec, binfmt, sources, held, &mut opened.stage)?;
    let root = mount_root(opened, &items)?;
    let mut done = Progress { run, root: root.as_fd(), proc: ProcKind::Own, stubs: Vec::new(), notices };
    let result = items.iter().try_for_each(|item| done.mount(item));
    let Progress { proc, stubs, .. } = done;
    let changed = change_root(root.as_fd());
    match result.and(changed) {
        Ok(()) => Ok(Built { upper, proc, stubs }),
        Err(error) => {
            remove_stubs(&stubs);
            Err(error)
        }
    }
}

/// What a mount is made of, opened while the host can be seen.
enum Source<'a> {
    Host(Origin),
    Layers { lowers: Vec<OwnedFd>, path: &'a ImagePath, changes: Option<OwnedFd> },
    Memory,
}

fn open_source(mount: &Mount) -> Result<Source<'_>> {
    match &mount.kind {
        MountKind::Bind { source } => open_host(source).map(Source::Host),
        MountKind::Stack { lowers, path, changes } => {
            Ok(Source::Layers { lowers: open_layers(lowers)?, path, changes: changes.as_deref().map(open_directory).transpose()? })
        }
        MountKind::Tmpfs { .. } | MountKind::File { .. } | MountKind::Socket { .. } => Ok(Source::Memory),
    }
}

fn open_host(source: &Path) -> Result<Origin> {
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    if let Ok(fd) = rustix::mount::open_tree(CWD, source, clone) {
        return Ok(Origin::Detached(fd));
    }
    // Before Linux 5.2, or a reason that is said here.
    rustix::fs::open(source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map(Origin::InPlace)
        .map_err(|errno| Error::os(format!("can't bind-mount {}", quote_path(source)), errno))
}

/// Where `binfmt_misc` is mounted, on the host as well as inside.
const BINFMT: &str = "proc/sys/fs/binfmt_misc";

/// Gives this user namespace interpreters of its own, while those of the host can be seen. They are gone when nothing holds the mount
/// any more, so it is going to be in the container's `/proc`.
fn register_interpreters(lines: &[String], notices: &mut Vec<String>) -> Result<Option<OwnedFd>> {
    if lines.is_empty() {
        return Ok(None);
    }
    // Over the host's, in this mount namespace only: nothing an interpreter could be in gets hidden.
    let place = Path::new("/").join(BINFMT);
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mounted = rustix::mount::mount("binfmt_misc", &place, "binfmt_misc", flags, c"")
        .and_then(|()| rustix::fs::open(&place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()));
    let mounted = match mounted {
        Ok(mounted) => mounted,
        Err(errno) => {
            let why = crate::error::describe_io(&errno.into());
            notices.push(format!("this machine refuses a binfmt_misc for the command ({why}); only its own registrations count"));
            return Ok(None);
        }
    };
    for line in lines {
        let fail = |e: std::io::Error| Error::os(format!("can't register the interpreter {}", quote(line)), e);
        let register =
            rustix::fs::openat(&mounted, "register", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(|e| fail(e.into()))?;
        std::io::Write::write_all(&mut std::fs::File::from(register), line.as_bytes()).map_err(fail)?;
    }
    Ok(Some(mounted))
}

/// Everything to be mounted, in order.
fn items(spec: &Spec, binfmt: Option<OwnedFd>, sources: Vec<Source<'_>>, held: &[OwnedFd], stage: &mut Stage) -> Result<Vec<Item>> {
    let mut items = vec![Item::system("proc", What::Proc), Item::system("sys", What::Sys), Item::system("dev", What::Dev)];
    if let Some(binfmt) = binfmt {
        let what = What::Bind { origin: Origin::InPlace(binfmt), access: Access::ReadWrite };
        items.insert(1, Item { missing: Missing::Skip, ..Item::system(BINFMT, what) });
    }
    for (mount, source) in spec.mounts.iter().zip(sources) {
        let access = mount.access;
        let what = match (&mount.kind, source) {
            (_, Source::Host(origin)) => What::Bind { origin, access },
            (_, Source::Layers { lowers, path, changes }) => {
                What::Bind { origin: Origin::InPlace(open_stack(stage, &lowers, path, access, changes)?), access }
            }
            (MountKind::File { content, mode }, _) => What::Bind { origin: Origin::InPlace(stage.file(content, *mode)?), access },
            (MountKind::Socket { channel, mode }, _) => {
                let channel = held.get(*channel).ok_or_else(|| Error::new("a socket's channel was not passed"))?;
                What::Bind { origin: Origin::InPlace(stage.socket(channel.as_fd(), *mode)?), access }
            }
            (MountKind::Tmpfs { size, mode }, _) => What::Tmpfs { size: *size, mode: *mode, access },
            (MountKind::Bind { .. } | MountKind::Stack { .. }, Source::Memory) => continue,
        };
        items.push(Item { target: mount.target.clone(), missing: mount.missing, what });
    }
    Ok(items)
}

/// Mounts the root and sees to it that mount points exist in one that must not or can't keep them.
fn mount_root(opened: Opened, items: &[Item]) -> Result<OwnedFd> {
    let view = opened.look()?;
    let mut missing: Vec<(Walk, Shape)> = Vec::new();
    for (at, item) in items.iter().enumerate() {
        // Below an earlier mount it is that mount's affair.
        let covered = items[..at].iter().any(|earlier| item.target != earlier.target && item.target.starts_with(&earlier.target));
        if opened.holds_stubs() || item.missing != Missing::Create || covered || target::find(view.as_fd(), &item.target)?.is_some() {
            continue;
        }
        missing.push((target::walk(view.as_fd(), &item.target)?, item.shape()?));
    }
    opened.mount(view, &missing).map_err(|error| {
        if missing.is_empty() {
            return error;
        }
        let names: Vec<String> = missing.iter().map(|(walk, _)| quote(walk.path().to_string())).collect();
        error.context(format!("can't provide mount points missing in the image: {}", names.join(", ")))
    })
}

/// The mounts done so far.
struct Progress<'a> {
    run: &'a Run<'a>,
    root: BorrowedFd<'a>,
    proc: ProcKind,
    stubs: Vec<Stub>,
    notices: &'a mut Vec<String>,
}

impl Progress<'_> {
    fn mount(&mut self, item: &Item) -> Result<()> {
        let Some(target) = self.target(item)? else { return Ok(()) };
        let shape = item.shape()?;
        if Shape::of(target.as_fd()).map_err(|errno| item.failed(errno))? != shape {
            let is = if shape == Shape::Directory { "a file, what is mounted a directory" } else { "a directory, what is mounted a file" };
            return Err(Error::input(format!("can't mount on {}", quote(item.target.to_string()))).cause(format!("it is {is}")));
        }
        let at = proc_path(target.as_fd());
        match &item.what {
            What::Proc => self.mount_proc(&at, item),
            What::Sys => {
                bind_path(Path::new("/sys"), &at).map_err(|errno| item.failed(errno))?;
                self.make_read_only(&item.target)
            }
            What::Dev if self.run.spec.devices == Devices::Host => bind_path(Path::new("/dev"), &at).map_err(|errno| item.failed(errno)),
            What::Dev => {
                let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
                rustix::mount::mount("tmpfs", &at, "tmpfs", flags, c"mode=0755").map_err(|errno| item.failed(errno))?;
                devices::fill(self.opened(&item.target)?.as_fd()).map_err(|errno| item.failed(errno))
            }
            What::Bind { origin, access } => {
                match origin {
                    Origin::Detached(fd) => {
                        let by_descriptor = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
                        rustix::mount::move_mount(fd, c"", &target, c"", by_descriptor)
                    }
                    Origin::InPlace(fd) => bind_path(&proc_path(fd.as_fd()), &at),
                }
                .map_err(|errno| item.failed(errno))?;
                if *access == Access::ReadOnly { self.make_read_only(&item.target) } else { Ok(()) }
            }
            What::Tmpfs { size, mode, access } => {
                let mut options = format!("mode={mode:o}");
                if let Some(size) = size {
                    options.push_str(&format!(",size={size}"));
                }
                let read_only = if *access == Access::ReadOnly { MountFlags::RDONLY } else { MountFlags::empty() };
                let options = std::ffi::CString::new(options).unwrap_or_default();
                rustix::mount::mount("tmpfs", &at, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV | read_only, &*options)
                    .map_err(|errno| item.failed(errno))
            }
        }
    }

    /// Opens where it goes, made if it may be made.
    fn target(&mut self, item: &Item) -> Result<Option<OwnedFd>> {
        if let Some(found) = target::find(self.root, &item.target)? {
            return Ok(Some(found));
        }
        let shape = item.shape()?;
        let missing = || {
            Error::with_kind(Kind::NotFound, format!("can't mount on {}", quote(item.target.to_string())))
                .cause("no such file or directory in the image")
        };
        match item.missing {
            Missing::Skip => Ok(None),
            Missing::Fail => Err(missing()),
            Missing::Create => {
                let walk = target::walk(self.root, &item.target)?;
                let before = times_of(walk.found.as_fd());
                let made = target::create(walk.found.as_fd(), &walk.missing, shape).map_err(|errno| {
                    missing()
                        .cause(crate::error::describe_io(&errno.into()))
                        .hint("create it first: in the image, or in what is mounted above it")
                })?;
                let times = before.zip(times_of(walk.found.as_fd()));
                self.stubs.push(Stub { path: walk.path(), made: walk.missing.len(), shape, times });
                Ok(Some(made))
            }
        }
    }

    /// A fresh `/proc`; where that is refused, the host's.
    fn mount_proc(&mut self, at: &Path, item: &Item) -> Result<()> {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        if self.run.processes == Processes::Namespace {
            match rustix::mount::mount("proc", at, "proc", flags, None::<&std::ffi::CStr>) {
                Ok(()) if self.run.hardening == Hardening::Needed => return self.protect_proc(&item.target),
                Ok(()) => return Ok(()),
                Err(Errno::PERM | Errno::ACCESS) => {
                    self.proc = ProcKind::Foreign;
                    self.notices.push("this machine refuses a fresh /proc; the command sees the host's, with other process IDs".into());
                }
                Err(errno) => return Err(item.failed(errno)),
            }
        }
        bind_path(Path::new("/proc"), at).map_err(|errno| item.failed(errno))
    }

    /// Makes read-only what root of the machine could change it through, although without any capability outside.
    fn protect_proc(&self, proc: &ImagePath) -> Result<()> {
        for name in ["bus", "fs", "irq", "sys", "sysrq-trigger"] {
            let path = proc.child(name);
            if let Some(found) = target::find(self.root, &path)? {
                let at = proc_path(found.as_fd());
                bind_path(&at, &at).map_err(|errno| Error::os(format!("can't protect `/proc/{name}`"), errno))?;
                self.make_read_only(&path)?;
            }
        }
        Ok(())
    }

    /// Opens what is mounted there now.
    fn opened(&self, path: &ImagePath) -> Result<OwnedFd> {
        target::find(self.root, path)?.ok_or_else(|| Error::new(format!("can't find {} after mounting it", quote(path.to_string()))))
    }

    fn make_read_only(&self, path: &ImagePath) -> Result<()> {
        read_only(self.opened(path)?.as_fd()).map_err(|errno| Error::os(format!("can't make {} read-only", quote(path.to_string())), errno))
    }
}

/// Removes mount points where nothing was put. To be called with the command gone, in the container's root.
pub(super) fn remove_stubs(stubs: &[Stub]) {
    stubs.iter().rev().for_each(Stub::remove);
}

impl Stub {
    fn remove(&self) {
        let _ = rustix::mount::unmount(Path::new("/").join(self.path.as_relative()), UnmountFlags::DETACH);
        let untouched = self.untouched();
        let mut path = Some(self.path.clone());
        for at in 0..self.made {
            let Some(here) = path.take() else { return };
            let absolute = Path::new("/").join(here.as_relative());
            let removed = if at == 0 && self.shape == Shape::File {
                match std::fs::symlink_metadata(&absolute) {
                    Ok(stat) if stat.is_file() && stat.len() == 0 => std::fs::remove_file(&absolute),
                    _ => return,
                }
            } else {
                std::fs::remove_dir(&absolute)
            };
            if removed.is_err() {
                return;
            }
            path = here.parent();
        }
        // A directory that the command did not change must not look as if it had been.
        if let Some((directory, before)) = untouched {
            let _ = rustix::fs::futimens(&directory, &before);
        }
    }

    /// The directory that got the first missing name, if nobody changed it since, and its times before that.
    fn untouched(&self) -> Option<(OwnedFd, Timestamps)> {
        let (before, after) = self.times.as_ref()?;
        let parent = (0..self.made).try_fold(self.path.clone(), |path, _| path.parent())?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(Path::new("/").join(parent.as_relative()), flags, Mode::empty()).ok()?;
        let now = times_of(directory.as_fd())?;
        (now.last_modification == after.last_modification).then(|| (directory, before.clone()))
    }
}

fn times_of(file: BorrowedFd<'_>) -> Option<Timestamps> {
    let stat = rustix::fs::fstat(file).ok()?;
    let time = |seconds, nanoseconds: u64| rustix::fs::Timespec { tv_sec: seconds as _, tv_nsec: nanoseconds as _ };
    Some(Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as _),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as _),
    })
}

fn open_readable(path: &Path) -> Result<OwnedFd> {
    let fd = open_directory(path)?;
    rustix::fs::openat(&fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::os(format!("can't open {}", quote_path(path)), errno))
}
