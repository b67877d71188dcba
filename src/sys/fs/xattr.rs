//! Extended attributes of what is open and of entries of an open directory.
//!
//! Entries are named through `/proc/self/fd/N/name`, so that no file needs opening and no symlink is followed.

use std::io;
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::io::Errno;

/// The longest value and the longest list of names the kernel knows.
const MAX_LEN: usize = 64 << 10;

/// A file to ask.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// What is open, not with `O_PATH`.
    Fd(BorrowedFd<'a>),
    /// An entry of a directory, or of one below it; a symlink in the last component is not followed.
    At(BorrowedFd<'a>, &'a [u8]),
}

/// The longest path that still fits behind `/proc/self/fd/N/` into the kernel's 4096 bytes.
const LONG: usize = 4000;

/// Asks about an entry by a path string; from one that is too long it opens the directory first.
fn at<T>(dir: BorrowedFd<'_>, name: &[u8], ask: impl FnOnce(&[u8]) -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    let slash = name.iter().rposition(|&b| b == b'/').filter(|_| name.len() > LONG);
    let Some(slash) = slash else { return ask(&proc_path(dir, name)) };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let parent = rustix::fs::openat(dir, &name[..slash], flags, Mode::empty())?;
    ask(&proc_path(parent.as_fd(), &name[slash + 1..]))
}

/// Names of a file's xattrs; empty where the file system has none.
pub fn list(target: Target<'_>) -> io::Result<Vec<Vec<u8>>> {
    // One call and no allocation for the many files that have none.
    let mut small = [MaybeUninit::uninit(); 512];
    match list_into(target, &mut small[..]) {
        Err(Errno::RANGE) => {}
        Err(Errno::NOTSUP | Errno::NODATA) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
        Ok((list, _)) => return Ok(split(list)),
    }
    let mut large = vec![MaybeUninit::uninit(); MAX_LEN];
    Ok(split(list_into(target, &mut large[..])?.0))
}

fn list_into<'b>(target: Target<'_>, buffer: &'b mut [MaybeUninit<u8>]) -> rustix::io::Result<(&'b mut [u8], &'b mut [MaybeUninit<u8>])> {
    match target {
        Target::Fd(fd) => rustix::fs::flistxattr(fd, buffer),
        Target::At(dir, name) => at(dir, name, |path| rustix::fs::llistxattr(path, buffer)),
    }
}

fn split(list: &[u8]) -> Vec<Vec<u8>> {
    list.split(|&b| b == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
}

/// A value; `None` if the file has no such xattr.
pub fn get(target: Target<'_>, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut small = [MaybeUninit::uninit(); 256];
    match get_into(target, name, &mut small[..]) {
        Err(Errno::RANGE) => {}
        Err(Errno::NOTSUP | Errno::NODATA) => return Ok(None),
        Err(e) => return Err(e.into()),
        Ok((value, _)) => return Ok(Some(value.to_vec())),
    }
    let mut large = vec![MaybeUninit::uninit(); MAX_LEN];
    Ok(Some(get_into(target, name, &mut large[..])?.0.to_vec()))
}

fn get_into<'b>(
    target: Target<'_>,
    name: &[u8],
    buffer: &'b mut [MaybeUninit<u8>],
) -> rustix::io::Result<(&'b mut [u8], &'b mut [MaybeUninit<u8>])> {
    match target {
        Target::Fd(fd) => rustix::fs::fgetxattr(fd, name, buffer),
        Target::At(dir, entry) => at(dir, entry, |path| rustix::fs::lgetxattr(path, name, buffer)),
    }
}

/// Sets or replaces.
pub fn set(target: Target<'_>, name: &[u8], value: &[u8]) -> io::Result<()> {
    Ok(match target {
        Target::Fd(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
        Target::At(dir, entry) => at(dir, entry, |path| rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())),
    }?)
}

/// Removes; one that is not there is fine.
pub fn remove(target: Target<'_>, name: &[u8]) -> io::Result<()> {
    let removed = match target {
        Target::Fd(fd) => rustix::fs::fremovexattr(fd, name),
        Target::At(dir, entry) => at(dir, entry, |path| rustix::fs::lremovexattr(path, name)),
    };
    match removed {
        Err(Errno::NOTSUP | Errno::NODATA) => Ok(()),
        removed => Ok(removed?),
    }
}

/// Whether an error says that the file system has no such xattrs, rather than no room for this one.
pub fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTSUP | libc::ENOSYS))
}

/// Whether an error says that the file system has no room for an xattr of this size. A full disk looks the same.
pub fn is_too_large(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::E2BIG | libc::ERANGE))
}

fn proc_path(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(32 + name.len());
    let _ = write!(path, "/proc/self/fd/{}/", dir.as_fd().as_raw_fd());
    path.extend_from_slice(name);
    path
}
