//! What this machine allows: each feature is tried, not guessed from versions.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;
use rustix::mount::{MountFlags, UnmountFlags};
use serde::{Deserialize, Serialize};

use super::explain;
use super::spawn::start;
use super::spec::IdMap;
use super::wire::{Processes, Report, Request};
use crate::error::{Error, describe_io};
use crate::sys::namespace::{Namespaces, attempt};
use crate::sys::process;

/// Everything that was tried, in the order to show it.
#[derive(Clone, Debug)]
pub struct Probe {
    /// One entry a feature.
    pub checks: Vec<Check>,
}

impl Probe {
    /// Whether a feature works.
    pub fn works(&self, feature: Feature) -> bool {
        self.checks.iter().any(|check| check.feature == feature && check.works.is_ok())
    }
}

/// One thing that was tried.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Check {
    /// What.
    pub feature: Feature,
    /// Whether it works, or why not.
    pub works: Result<(), String>,
    /// What would make it work, or what is done instead; only if it does not.
    pub remedy: Option<String>,
}

/// What can be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Feature {
    /// A user namespace with one mapped ID, and a mount namespace in it. Nothing works without.
    UserNamespace,
    /// PID namespaces.
    PidNamespace,
    /// A fresh `/proc` in one.
    Proc,
    /// Network namespaces, for `--network=none`.
    NetworkNamespace,
    /// Overlay mounts with upper and whiteouts on the file system of the storage directory.
    Overlay,
    /// Overlay mounts with an upper in memory.
    ScratchOverlay,
    /// `user.*` extended attributes on the file system of the storage directory.
    UserXattrs,
    /// Files that share blocks on the file system of the storage directory.
    Reflinks,
    /// System call notification, for consistent root emulation.
    SeccompNotify,
    /// A `binfmt_misc` of its own, for images of other architectures.
    Binfmt,
}

impl Feature {
    /// Its name for a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::UserNamespace => "user namespaces",
            Self::PidNamespace => "PID namespaces",
            Self::Proc => "fresh /proc",
            Self::NetworkNamespace => "network namespaces",
            Self::Overlay => "overlay mounts",
            Self::ScratchOverlay => "overlay mounts in memory",
            Self::UserXattrs => "user extended attributes",
            Self::Reflinks => "reflinks",
            Self::SeccompNotify => "system call notification",
            Self::Binfmt => "own binfmt_misc",
        }
    }

    /// What helps if it does not work.
    fn remedy(self) -> &'static str {
        match self {
            Self::UserNamespace => "ask the administrators to allow user namespaces",
            Self::PidNamespace | Self::Proc => "done instead: commands share the PID namespace and /proc around them",
            Self::NetworkNamespace => "`--network=none` can't be used",
            Self::Overlay => {
                "done instead: each step works on a copy of the tree; a storage directory on a local file system (`--storage DIR`) and Linux 5.11 or later would be faster"
            }
            Self::ScratchOverlay => "done instead: discarded changes go to disk; Linux 6.6 or later keeps them in memory",
            Self::UserXattrs => {
                "done instead: owners, modes, devices and attributes are kept in each layer's `record` file; other programs that read the storage directory don't see them there"
            }
            Self::Reflinks => "done instead: trees are copied byte by byte; XFS and Btrfs share blocks",
            Self::SeccompNotify => "done instead: root emulation answers \"success\" without effect; Linux 5.5 or later",
            Self::Binfmt => "the machine's own binfmt_misc registration is used if there is one; Linux 6.7 or later",
        }
    }

    fn check(self, works: io::Result<()>) -> Check {
        self.explained(works.map_err(|e| describe_io(&e)))
    }

    fn explained(self, works: Result<(), String>) -> Check {
        let remedy = works.is_err().then(|| self.remedy().to_string());
        Check { feature: self, works, remedy }
    }
}

/// Tries what this machine allows; `dir` is an existing directory on the file system that matters. Leaves nothing there.
pub fn probe(dir: &Path) -> Probe {
    let base = Namespaces::USER.with(Namespaces::MOUNT);
    let scratch = Scratch::create(dir);
    let place = scratch.as_ref().map(|scratch| scratch.0.as_path());
    let entered = place.map_err(describe_io).and_then(|place| enter(place, base));
    let mut checks = vec![match &entered {
        Ok(_) => Feature::UserNamespace.check(Ok(())),
        Err(why) => Feature::UserNamespace.explained(Err(why.clone())),
    }];
    if let (Some(check), Err(error)) = (checks.first_mut(), attempt(base))
        && let Some((_, hint)) = explain::reason(&error)
    {
        check.remedy = Some(hint);
    }
    checks.push(Feature::PidNamespace.check(attempt(Namespaces::USER.with(Namespaces::PID))));
    checks.push(Feature::NetworkNamespace.check(attempt(Namespaces::USER.with(Namespaces::NETWORK))));
    let inside = [Feature::Proc, Feature::Overlay, Feature::ScratchOverlay, Feature::Binfmt];
    match entered {
        Ok(found) => checks.extend(found),
        Err(_) => checks.extend(inside.map(|feature| feature.explained(Err("no user namespace".into())))),
    }
    let on_disk = |test: fn(&Path) -> io::Result<()>| place.map_err(|e| io::Error::from(e.kind())).and_then(test);
    checks.push(Feature::UserXattrs.check(on_disk(user_xattrs)));
    checks.push(Feature::Reflinks.check(on_disk(reflinks)));
    checks.push(Feature::SeccompNotify.check(process::seccomp_notification()));
    Probe { checks }
}

/// Asks a sandbox process.
fn enter(place: &Path, namespaces: Namespaces) -> Result<Vec<Check>, String> {
    // A fresh /proc needs a PID namespace to show.
    let with_pid = namespaces.with(Namespaces::PID);
    let namespaces = if attempt(with_pid).is_ok() { with_pid } else { namespaces };
    let request = Request::Probe(place.to_path_buf());
    let mut sandbox = start(&request, Processes::Namespace, IdMap::ROOT, namespaces, &[])
        .map_err(|(step, cause)| explain::launch(step, &cause, namespaces).to_string())?;
    match sandbox.report() {
        Ok(Ok(Report::Probed(checks))) => Ok(checks),
        Ok(Ok(Report::Failed(failure))) => Err(Error::from(failure).to_string()),
        Ok(_) => Err("the sandbox process ended without an answer".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// The checks that need the namespaces, in a sandbox process.
pub(super) fn inside(place: &Path) -> Vec<Check> {
    vec![
        Feature::Proc.check(mountable(place, "proc")),
        Feature::Overlay.check(overlay(place)),
        Feature::ScratchOverlay.check(scratch_overlay(place)),
        Feature::Binfmt.check(mountable(place, "binfmt_misc")),
    ]
}

fn mountable(place: &Path, kind: &str) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount(kind, place, kind, flags, c"")?;
    rustix::mount::unmount(place, UnmountFlags::DETACH)?;
    Ok(())
}

fn scratch_overlay(place: &Path) -> io::Result<()> {
    rustix::mount::mount("tmpfs", place, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"")?;
    let result = overlay(place);
    rustix::mount::unmount(place, UnmountFlags::DETACH)?;
    result
}

/// Does with an overlay all that a build step may do: write, whiteout, opaque directory.
fn overlay(place: &Path) -> io::Result<()> {
    let names = ["lower", "upper", "work", "merged"];
    for name in names {
        fs::create_dir(place.join(name))?;
    }
    fs::create_dir(place.join("lower/d"))?;
    fs::write(place.join("lower/d/f"), "")?;
    fs::write(place.join("lower/f"), "")?;
    // Relative names need no escaping.
    rustix::process::chdir(place)?;
    let options = c"userxattr,lowerdir=lower,upperdir=upper,workdir=work";
    let mounted = rustix::mount::mount("overlay", "merged", "overlay", MountFlags::empty(), options);
    let result = mounted.map_err(io::Error::from).and_then(|()| {
        fs::write("merged/new", "x")?;
        fs::remove_file("merged/f")?;
        fs::remove_dir_all("merged/d")?;
        fs::create_dir("merged/d")?;
        let mut value = [0; 8];
        rustix::fs::getxattr("upper/d", "user.overlay.opaque", &mut value[..])?;
        rustix::mount::unmount("merged", UnmountFlags::DETACH)?;
        Ok(())
    });
    rustix::process::chdir("/")?;
    for name in names {
        let _ = remove(&place.join(name));
    }
    result
}

fn user_xattrs(place: &Path) -> io::Result<()> {
    Ok(rustix::fs::setxattr(place, "user.rootling.probe", b"y", XattrFlags::empty())?)
}

fn reflinks(place: &Path) -> io::Result<()> {
    fs::write(place.join("a"), "x")?;
    rustix::fs::ioctl_ficlone(File::create(place.join("b"))?, File::open(place.join("a"))?)?;
    Ok(())
}

/// A directory to try things in; removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn create(dir: &Path) -> io::Result<Self> {
        let id = crate::event::next_id();
        let path = fs::canonicalize(dir)?.join(format!(".rootling-probe-{}-{id}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = remove(&self.0);
    }
}

/// Removes a tree; overlayfs leaves a directory of mode 000 in its work directory.
fn remove(path: &Path) -> io::Result<()> {
    let inner = path.join("work");
    for directory in [inner.join("work"), inner] {
        if directory.is_dir() {
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        }
    }
    fs::remove_dir_all(path)
}
