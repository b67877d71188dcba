//! A squashfs image as a directory, by squashfuse, without `fusermount`: the mount is made here, in namespaces of this process, and squashfuse only answers.
//!
//! Nobody else sees the mount, and nobody has to remove it: it is gone with the last process in those namespaces. squashfuse, which is one of them, ends
//! with this process.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::error::{Error, IoContext, Kind, Result, describe_io, quote_path};
use crate::sys::namespace::{Namespaces, enter_here};
use crate::sys::process::die_with_parent;

/// squashfuse by its programs' names; the first is faster and found more seldom.
const PROGRAMS: [&str; 2] = ["squashfuse_ll", "squashfuse"];

/// What is needed to mount a squashfs image.
#[derive(Debug)]
pub struct SquashFuse {
    program: PathBuf,
}

/// A mounted image. Dropped, it is unmounted, whoever still uses it.
#[derive(Debug)]
pub struct MountedSquashfs {
    mount_point: PathBuf,
    server: Child,
}

impl SquashFuse {
    /// Looks whether this machine has what is needed; changes nothing.
    ///
    /// # Errors
    /// [`Kind::Unsupported`], with what is missing.
    pub fn find(programs: &[PathBuf]) -> Result<Self> {
        let missing = |cause: String| Error::with_kind(Kind::Unsupported, "can't mount squashfs images here").cause(cause);
        let candidates = PROGRAMS.iter().flat_map(|name| programs.iter().map(move |directory| directory.join(name)));
        let program = candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| missing("there is no squashfuse".into()))?;
        open_device().map_err(|errno| missing(format!("/dev/fuse: {}", describe_io(&errno.into()))))?;
        Ok(Self { program })
    }

    /// Mounts an image on an empty directory. This process moves into a user namespace, where it is root, and a mount namespace for that, whether it
    /// succeeds or not.
    ///
    /// To be called while this process has one thread only.
    ///
    /// # Errors
    /// If a namespace or the mount is refused, or squashfuse can't read the image.
    pub fn mount(self, image: &Path, mount_point: &Path) -> Result<MountedSquashfs> {
        let what = || format!("can't mount {}", quote_path(image));
        // From another directory it would be another file.
        let image = std::path::absolute(image).doing("find", image)?;
        let namespaces = Namespaces::USER.with(Namespaces::MOUNT);
        enter_here(namespaces, 0, 0).map_err(|(_, e)| Error::os(what(), e))?;
        // The kernel wants it opened in the namespace that mounts.
        let device = open_device().map_err(|errno| Error::os(what(), errno))?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let options = std::ffi::CString::new(options).unwrap_or_default();
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY;
        rustix::mount::mount("squashfuse", mount_point, "fuse.squashfuse", flags, &*options).map_err(|errno| Error::os(what(), errno))?;
        let mut command = Command::new(&self.program);
        // libfuse takes a descriptor for a mount point that is mounted already.
        command.arg("-f").arg(&image).arg("/dev/fd/0").stdin(device).stdout(Stdio::null()).stderr(Stdio::piped());
        // Ctrl-C is meant for the command, which may go on.
        command.process_group(0);
        die_with_parent(&mut command);
        let server = command.spawn();
        // With it our copy of the device is closed: if squashfuse ends, those who wait for it are told.
        drop(command);
        let unmount = |error: Error| {
            let _ = rustix::mount::unmount(mount_point, UnmountFlags::DETACH);
            error
        };
        let server = server.map_err(|e| unmount(Error::io("execute", &self.program, e)))?;
        let mut mounted = MountedSquashfs { mount_point: mount_point.to_owned(), server };
        // It answers once it has read the image.
        match File::open(mount_point).and_then(|directory| rustix::fs::fstat(directory).map_err(Into::into)) {
            Ok(_) => Ok(mounted),
            Err(e) => Err(Error::os(what(), e).cause(mounted.last_words())),
        }
    }
}

fn open_device() -> rustix::io::Result<OwnedFd> {
    rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

impl MountedSquashfs {
    /// What squashfuse said when it gave up.
    fn last_words(&mut self) -> String {
        let _ = self.server.kill();
        let mut said = String::new();
        if let Some(stderr) = &mut self.server.stderr {
            let _ = stderr.take(4096).read_to_string(&mut said);
        }
        let said = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it gave no reason");
        format!("squashfuse: {}", said.trim())
    }
}

impl Drop for MountedSquashfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.mount_point, UnmountFlags::DETACH);
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
