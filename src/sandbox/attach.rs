//! Bind mounts, read-only mounts, and the change of the root directory. Old calls where they do, since every kernel has them.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::spec::Access;
use crate::error::{Error, Result, quote_path};

/// Bind-mounts what is open on a directory that can be named.
pub(super) fn bind(source: BorrowedFd<'_>, target: &Path, access: Access) -> Result<()> {
    let fail = |errno: Errno| Error::os(format!("can't bind-mount {}", quote_path(target)), errno);
    bind_path(&proc_path(source), target).map_err(fail)?;
    if access == Access::ReadOnly {
        let mounted = rustix::fs::open(target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(fail)?;
        read_only(mounted.as_fd()).map_err(fail)?;
    }
    Ok(())
}

/// Always recursive: mounts below that came from a more privileged namespace can't be left out (`EINVAL`).
pub(super) fn bind_path(source: &Path, target: &Path) -> Result<(), Errno> {
    rustix::mount::mount_bind_recursive(source, target)
}

/// Makes a mount and those below it read-only.
pub(super) fn read_only(mounted: BorrowedFd<'_>) -> Result<(), Errno> {
    match crate::sys::mount::set_read_only(mounted) {
        Ok(()) => Ok(()),
        // Before Linux 5.12 the mount itself has to do; those below keep their own permissions. Flags that are locked must be named again.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            let has = rustix::fs::fstatvfs(mounted)?.f_flag;
            let mut flags = MountFlags::BIND | MountFlags::RDONLY;
            for (flag, mount_flag) in [
                (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
                (StatVfsMountFlags::NODEV, MountFlags::NODEV),
                (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
                (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
                (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
                (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
            ] {
                if has.contains(flag) {
                    flags |= mount_flag;
                }
            }
            rustix::mount::mount_remount(proc_path(mounted), flags, c"")
        }
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

/// Makes the mount this process' root directory and puts the host's out of reach.
pub(super) fn change_root(mount: BorrowedFd<'_>) -> Result<()> {
    let fail = |errno: Errno| Error::os("can't change the root directory", errno);
    rustix::process::fchdir(mount).map_err(fail)?;
    match rustix::process::pivot_root(".", ".") {
        // The old root now lies over the new one.
        Ok(()) => rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(fail)?,
        // The machine runs from its initramfs (diskless nodes), which can't be pivoted away; it can be covered.
        Err(Errno::INVAL) => {
            rustix::mount::mount_move(".", "/").map_err(fail)?;
            rustix::process::chroot(".").map_err(fail)?;
        }
        Err(errno) => return Err(fail(errno)),
    }
    rustix::process::chdir("/").map_err(fail)
}

/// A path that leads to an open file, for calls that take no descriptor.
pub(super) fn proc_path(fd: BorrowedFd<'_>) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}
