//! The root file system as a mount: plain directory, overlay, or overlay over a skeleton of mount points.
//!
//! Everything is mounted on one directory that exists anyway, the *anchor* (the one the root is in), each mount over the
//! one before: nothing has to be created on the host, and all of it is out of sight once the last one has become `/`. What is
//! needed from the host is opened before, since the anchor hides what is below it.

use std::collections::HashSet;
use std::ffi::{CString, OsStr};
use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;

use super::attach::{bind, proc_path};
use super::socket::listen_at;
use super::spec::{Access, Root};
use super::target::{self, Shape, Walk};
use crate::error::{Error, Kind, Result, quote, quote_path};
use crate::oci::ImagePath;

/// The place where the root file system comes into being, and a file system in memory for what has no other home.
pub(super) struct Stage {
    anchor: PathBuf,
    memory: Option<OwnedFd>,
    count: u32,
}

impl Stage {
    /// A fresh directory in memory.
    pub fn directory(&mut self) -> Result<OwnedFd> {
        let name = format!("{}", self.count);
        self.count += 1;
        let memory = self.memory()?;
        let fail = |errno: Errno| Error::os("can't make a directory in a tmpfs", errno);
        rustix::fs::mkdirat(memory, &*name, Mode::from_raw_mode(0o755)).map_err(fail)?;
        open_path(memory, Path::new(&name)).map_err(fail)
    }

    /// A fresh file in memory.
    pub fn file(&mut self, content: &[u8], mode: u32) -> Result<OwnedFd> {
        let name = format!("{}", self.count);
        self.count += 1;
        let memory = self.memory()?;
        let fail = |errno: Errno| Error::os("can't make a file in a tmpfs", errno);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(memory, &*name, flags, Mode::from_raw_mode(0o600)).map_err(fail)?;
        std::io::Write::write_all(&mut File::from(file.try_clone().map_err(|e| Error::os("can't copy a descriptor", e))?), content)
            .map_err(|e| Error::os("can't write a file in a tmpfs", e))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777)).map_err(fail)?;
        open_path(memory, Path::new(&name)).map_err(fail)
    }

    /// A fresh listening socket in memory, handed over on the channel.
    pub fn socket(&mut self, channel: BorrowedFd<'_>, mode: u32) -> Result<OwnedFd> {
        let name = format!("{}", self.count);
        self.count += 1;
        let memory = self.memory()?;
        listen_at(memory, &name, mode, channel)?;
        open_path(memory, Path::new(&name)).map_err(|errno| Error::os("can't open a socket in a tmpfs", errno))
    }

    /// The file system in memory, mounted on first use.
    fn memory(&mut self) -> Result<BorrowedFd<'_>> {
        let fd = match self.memory.take() {
            Some(fd) => fd,
            None => {
                let flags = MountFlags::NOSUID | MountFlags::NODEV;
                rustix::mount::mount("tmpfs", &self.anchor, "tmpfs", flags, c"mode=0755")
                    .map_err(|errno| Error::os("can't mount a tmpfs", errno))?;
                self.opened()?
            }
        };
        let fd: &OwnedFd = self.memory.insert(fd);
        Ok(fd.as_fd())
    }

    /// What is mounted on the anchor now.
    fn opened(&self) -> Result<OwnedFd> {
        open_path(rustix::fs::CWD, &self.anchor).map_err(|errno| Error::io("open", &self.anchor, errno))
    }
}

impl Upper {
    /// Makes both in an empty directory.
    fn make(base: BorrowedFd<'_>) -> Result<Self> {
        let make = |name: &str| {
            rustix::fs::mkdirat(base, name, Mode::from_raw_mode(0o755))?;
            open_path(base, Path::new(name))
        };
        let fail = |errno: Errno| Error::os("can't make an overlay's upper directory", errno);
        Ok(Self { upper: make("upper").map_err(fail)?, work: make("work").map_err(fail)? })
    }
}

/// A root file system of which everything that is on the host has been opened.
pub(super) struct Opened {
    pub stage: Stage,
    source: Source,
}

/// What a root file system is made of.
enum Source {
    Directory { path: OwnedFd, access: Access },
    Stack { lowers: Vec<OwnedFd>, changes: Changes },
}

/// Where an overlay's changes go.
enum Changes {
    /// There can be none.
    None,
    /// To a directory the caller keeps.
    Kept(Upper),
    /// To memory, or to this directory on disk where memory can't hold them.
    Discarded { disk: Option<OwnedFd> },
}

/// The directories of a writable overlay.
struct Upper {
    upper: OwnedFd,
    work: OwnedFd,
}

impl Opened {
    /// Opens what the root is made of; mounts nothing.
    pub fn new(root: &Root) -> Result<Self> {
        let stage = Stage { anchor: anchor(root)?, memory: None, count: 0 };
        let stack = |lowers: &[PathBuf], changes| open_layers(lowers).map(|lowers| Source::Stack { lowers, changes });
        let source = match root {
            Root::Directory { path, access } => open_directory(path).map(|path| Source::Directory { path, access: *access }),
            Root::ReadOnly { lowers } => stack(lowers, Changes::None),
            Root::Overlay { lowers, upper, work } => {
                stack(lowers, Changes::Kept(Upper { upper: open_directory(upper)?, work: open_directory(work)? }))
            }
            Root::Scratch { lowers, disk } => stack(lowers, Changes::Discarded { disk: disk.as_deref().map(open_directory).transpose()? }),
        }?;
        Ok(Self { stage, source })
    }

    /// Whether missing mount points can simply be made in it: they can't in a stack of layers, where they would become part of
    /// the layer, nor where nothing can be written.
    pub fn holds_stubs(&self) -> bool {
        matches!(self.source, Source::Directory { access: Access::ReadWrite, .. })
    }

    /// What the root is going to look like, before anything can be changed through it. (An overlay with its upper directory can't be
    /// mounted twice, so to look into it first it has to do without.)
    pub fn look(&self) -> Result<View> {
        match &self.source {
            Source::Directory { path, .. } => duplicate(path).map(View::Plain),
            Source::Stack { lowers, .. } if lowers.len() == 1 => duplicate(&lowers[0]).map(View::Plain),
            Source::Stack { lowers, .. } => {
                overlay(lowers, None, &self.stage.anchor)?;
                self.stage.opened().map(View::Mounted)
            }
        }
    }

    /// Mounts it, with these missing paths in it, in a layer of their own on top of the others.
    pub fn mount(self, view: View, missing: &[(Walk, Shape)]) -> Result<OwnedFd> {
        let Self { mut stage, mut source } = self;
        if !missing.is_empty() {
            let skeleton = stage.directory()?;
            let place = fill_skeleton(skeleton.as_fd(), view.as_fd(), missing)?;
            source = source.layered(skeleton, place);
        } else if let (Source::Stack { changes: Changes::None, .. }, View::Mounted(mount)) = (&source, view) {
            return Ok(mount);
        }
        if let Source::Stack { changes, .. } = &mut source
            && let Changes::Discarded { disk } = changes
        {
            *changes = Changes::Kept(scratch(&mut stage, disk.take())?);
        }
        source.mount(&stage.anchor)?;
        stage.opened()
    }
}

/// A root file system to be looked at.
pub(super) enum View {
    /// A directory where it is.
    Plain(OwnedFd),
    /// A stack, read-only.
    Mounted(OwnedFd),
}

impl AsFd for View {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(fd) | Self::Mounted(fd) => fd.as_fd(),
        }
    }
}

fn duplicate(fd: &OwnedFd) -> Result<OwnedFd> {
    fd.try_clone().map_err(|e| Error::os("can't copy a descriptor", e))
}

impl Source {
    /// Mounts it on the anchor.
    fn mount(&self, anchor: &Path) -> Result<()> {
        match self {
            Self::Directory { path, access } => bind(path.as_fd(), anchor, *access),
            Self::Stack { lowers, changes: Changes::Kept(upper) } => overlay(lowers, Some(upper), anchor),
            Self::Stack { lowers, .. } if lowers.len() == 1 => bind(lowers[0].as_fd(), anchor, Access::ReadOnly),
            Self::Stack { lowers, .. } => overlay(lowers, None, anchor),
        }
    }

    /// The same with one more layer. A read-only directory becomes a stack of two.
    fn layered(self, layer: OwnedFd, place: Place) -> Self {
        let (mut lowers, changes) = match self {
            Self::Directory { path, .. } => (vec![path], Changes::None),
            Self::Stack { lowers, changes } => (lowers, changes),
        };
        lowers.insert(if place == Place::Top { 0 } else { lowers.len() }, layer);
        Self::Stack { lowers, changes }
    }
}

/// Mounts a stack that is not the root, and opens what `path` leads to in it.
pub(super) fn open_stack(
    stage: &mut Stage,
    lowers: &[OwnedFd],
    path: &ImagePath,
    access: Access,
    changes: Option<OwnedFd>,
) -> Result<OwnedFd> {
    let missing =
        || Error::with_kind(Kind::NotFound, format!("can't mount {}", quote(path.to_string()))).cause("no such file in the image");
    if let ([only], Access::ReadOnly) = (lowers, access) {
        return target::find(only.as_fd(), path)?.ok_or_else(missing);
    }
    let upper = match (access, changes) {
        (Access::ReadOnly, _) => None,
        (Access::ReadWrite, Some(changes)) => Some(Upper::make(changes.as_fd())?),
        (Access::ReadWrite, None) => Some(scratch(stage, None)?),
    };
    if let (Some(upper), Some(top)) = (&upper, lowers.first()) {
        // The upper's root is the one that shows.
        copy_metadata(top.as_fd(), upper.upper.as_fd(), &ImagePath::root())
            .map_err(|errno| Error::os("can't prepare an overlay's upper directory", errno))?;
    }
    let place = stage.directory()?;
    overlay(lowers, upper.as_ref(), &proc_path(place.as_fd()))?;
    // That descriptor still stands on the directory below the mount; its name leads to the mount.
    let name = stage.count - 1;
    let mounted =
        open_path(stage.memory()?, Path::new(&name.to_string())).map_err(|errno| Error::os("can't open a mounted stack", errno))?;
    target::find(mounted.as_fd(), path)?.ok_or_else(missing)
}

/// Upper and work directory in memory, or on disk if memory can't hold the xattrs an upper needs.
fn scratch(stage: &mut Stage, disk: Option<OwnedFd>) -> Result<Upper> {
    let base = stage.directory()?;
    let probe = File::from(
        rustix::fs::openat(&base, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Error::os("can't open a directory in a tmpfs", errno))?,
    );
    let base = match (rustix::fs::fsetxattr(&probe, "user.rootling.probe", b"y", XattrFlags::empty()), disk) {
        (Ok(()), _) => {
            let _ = rustix::fs::fremovexattr(&probe, "user.rootling.probe");
            base
        }
        (Err(_), Some(disk)) => disk,
        (Err(errno), None) => {
            return Err(Error::os("can't keep changes in memory", errno)
                .cause("tmpfs has no user xattrs before Linux 6.6")
                .hint("run the image read-only, or work on a directory"));
        }
    };
    Upper::make(base.as_fd())
}

/// Mounts an overlay on `target`. Layers are named by their descriptor numbers, relative to `/proc/self/fd`: mount(2)'s 4096
/// bytes hold the most layers the kernel takes (500) and no path needs escaping.
fn overlay(lowers: &[OwnedFd], changes: Option<&Upper>, target: &Path) -> Result<()> {
    let mut options = String::from("userxattr,lowerdir=");
    for (at, lower) in lowers.iter().enumerate() {
        let _ = write!(options, "{}{}", if at == 0 { "" } else { ":" }, lower.as_raw_fd());
    }
    if let Some(Upper { upper, work }) = changes {
        let _ = write!(options, ",upperdir={},workdir={}", upper.as_raw_fd(), work.as_raw_fd());
    }
    let flags = if changes.is_some() { MountFlags::empty() } else { MountFlags::RDONLY };
    let mount = |options: String| -> Result<(), Errno> {
        rustix::process::chdir("/proc/self/fd")?;
        let result = rustix::mount::mount("overlay", target, "overlay", flags, &*CString::new(options).unwrap_or_default());
        rustix::process::chdir("/")?;
        result
    };
    // What is not committed is thrown away, so nothing is gained by writing it to disk early. Before Linux 5.10 there is no such option.
    let result = match changes {
        Some(_) => mount(format!("{options},volatile")).or_else(|errno| if errno == Errno::INVAL { mount(options) } else { Err(errno) }),
        None => mount(options),
    };
    result.map_err(|errno| super::explain::overlay(errno, lowers.len(), changes.map(|changes| changes.upper.as_fd())))
}

/// Where the skeleton goes in the stack.
#[derive(PartialEq)]
enum Place {
    Top,
    Bottom,
}

/// Makes mount points in the skeleton layer, below copies of the directories they are in.
///
/// On top of the stack no whiteout hides them, but there the directories above them must look as the image has them. Where the file
/// system in memory can't hold their xattrs, the skeleton goes to the bottom, where its directories do not show.
fn fill_skeleton(skeleton: BorrowedFd<'_>, merged: BorrowedFd<'_>, missing: &[(Walk, Shape)]) -> Result<Place> {
    let mut place = Place::Top;
    let mut above: Vec<ImagePath> = missing.iter().flat_map(|(walk, _)| walk.reached.ancestors().chain([walk.reached.clone()])).collect();
    above.sort();
    above.dedup();
    let fail = |errno: Errno| Error::os("can't make mount points in a tmpfs", errno);
    for path in above.iter().filter(|path| !path.is_root()) {
        match rustix::fs::mkdirat(skeleton, path.as_relative(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(fail(errno)),
        }
    }
    for (walk, shape) in missing {
        // An earlier target may have made a part of it already.
        let walk = target::walk(skeleton, &walk.path())?;
        if !walk.missing.is_empty() {
            target::create(walk.found.as_fd(), &walk.missing, *shape).map_err(fail)?;
        }
    }
    // Children first, since making them changes the times.
    for path in above.iter().chain([&ImagePath::root()]).rev() {
        if copy_metadata(merged, skeleton, path).map_err(fail)? == Copied::InPart {
            place = Place::Bottom;
        }
    }
    Ok(place)
}

#[derive(PartialEq)]
enum Copied {
    Whole,
    InPart,
}

/// Gives a directory of the skeleton mode, times and xattrs of the image's.
fn copy_metadata(from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &ImagePath) -> Result<Copied, Errno> {
    let open = |at| rustix::fs::openat(at, path.as_relative(), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let (from, to) = (open(from)?, open(to)?);
    let mut copied = Copied::Whole;
    let mut names = vec![0u8; 64 * 1024];
    let length = rustix::fs::flistxattr(&from, &mut names[..]).unwrap_or(0);
    for name in names[..length].split(|&b| b == 0).filter(|name| name.starts_with(b"user.")) {
        let mut value = vec![0u8; 64 * 1024];
        let name = OsStr::new(std::str::from_utf8(name).unwrap_or_default());
        let size = rustix::fs::fgetxattr(&from, name, &mut value[..])?;
        if rustix::fs::fsetxattr(&to, name, &value[..size], XattrFlags::empty()).is_err() {
            copied = Copied::InPart;
        }
    }
    let stat = rustix::fs::fstat(&from)?;
    rustix::fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let time = |tv_sec, nanos: u64| rustix::fs::Timespec { tv_sec, tv_nsec: nanos as _ };
    let times = rustix::fs::Timestamps {
        last_access: time(stat.st_atime as _, stat.st_atime_nsec as _),
        last_modification: time(stat.st_mtime as _, stat.st_mtime_nsec as _),
    };
    rustix::fs::futimens(&to, &times)?;
    Ok(copied)
}

/// Any directory that is there and that holds nothing needed later: the one the root is in. (Not the root itself, since a recursive
/// bind mount of it would bring along what was mounted on it.)
fn anchor(root: &Root) -> Result<PathBuf> {
    let path = match root {
        Root::Directory { path, .. } => path.as_path(),
        Root::Overlay { lowers, .. } | Root::ReadOnly { lowers } | Root::Scratch { lowers, .. } => {
            lowers.first().map(PathBuf::as_path).ok_or_else(|| Error::input("an image without layers has no files to run"))?
        }
    };
    let path = std::path::absolute(path).map_err(|e| Error::io("find", path, e))?;
    match path.parent() {
        // What is mounted on `/` is out of reach by that name.
        Some(parent) if parent == Path::new("/") => Ok("/tmp".into()),
        Some(parent) => Ok(parent.to_path_buf()),
        None => Err(Error::input("can't use `/` as an image")),
    }
}

/// Opens the layers of a stack, the top one first. A layer that is in it twice is opened where it is uppermost: overlayfs refuses to have it twice
/// (`ELOOP`), and below itself nothing of it shows.
pub(super) fn open_layers(lowers: &[PathBuf]) -> Result<Vec<OwnedFd>> {
    let mut known = HashSet::new();
    let lowers: Vec<&PathBuf> = lowers.iter().filter(|lower| known.insert(lower.as_path())).collect();
    // The kernel's OVL_MAX_STACK; saying so is better than its EINVAL.
    if lowers.len() > 498 {
        return Err(
            Error::with_kind(Kind::Unsupported, format!("can't mount {} layers", lowers.len())).cause("overlayfs takes 500 at most")
        );
    }
    lowers.into_iter().map(|lower| open_directory(lower)).collect()
}

pub(super) fn open_directory(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::os(format!("can't open {}", quote_path(path)), errno))
}

fn open_path(directory: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(directory, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}
