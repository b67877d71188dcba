//! Places inside a root file system, before it is anybody's `/`: found without ever leaving it.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::oci::ImagePath;

/// A path followed as far as it exists.
pub(super) struct Walk {
    /// The last thing that exists (`O_PATH`).
    pub found: OwnedFd,
    /// Its path, free of symlinks.
    pub reached: ImagePath,
    /// What is missing below it, outermost first. Empty if everything exists.
    pub missing: Vec<Vec<u8>>,
}

impl Walk {
    /// The whole path, free of symlinks, with what is missing.
    pub fn path(&self) -> ImagePath {
        self.missing.iter().fold(self.reached.clone(), |path, name| path.child(name))
    }
}

/// As many links as the kernel follows in one path.
const LINKS: usize = 40;

/// Opens (`O_PATH`) what a path leads to inside `root`, last symlink followed; `None` if it does not exist.
pub(super) fn find(root: BorrowedFd<'_>, path: &ImagePath) -> Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match rustix::fs::openat2(root, path.as_relative(), flags, Mode::empty(), ResolveFlags::IN_ROOT) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        // Before Linux 5.6; an outer seccomp filter; a race with a rename.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => walk(root, path).map(|walk| walk.missing.is_empty().then_some(walk.found)),
        Err(errno) => Err(failed(path, errno)),
    }
}

/// Follows a path inside `root`, link by link, as far as it exists.
pub(super) fn walk(root: BorrowedFd<'_>, path: &ImagePath) -> Result<Walk> {
    let open = |directory: BorrowedFd<'_>, name: &[u8]| {
        rustix::fs::openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    };
    let fail = |errno| failed(path, errno);
    let mut todo: VecDeque<Vec<u8>> = path.components().map(<[u8]>::to_vec).collect();
    let mut done: Vec<(OwnedFd, Vec<u8>)> = vec![(open(root, b".").map_err(fail)?, Vec::new())];
    let mut links = 0;
    let mut missing = Vec::new();
    while let Some(name) = todo.pop_front() {
        match &*name {
            b"" | b"." => continue,
            b".." => {
                done.truncate((done.len() - 1).max(1));
                continue;
            }
            _ => {}
        }
        let Some((here, _)) = done.last() else { break };
        let fd = match open(here.as_fd(), &name) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => {
                missing.push(name);
                // `..` after something that does not exist can only be meant by its letters.
                let rest: Vec<Vec<u8>> = todo.drain(..).collect();
                missing = ImagePath::clean(missing.into_iter().chain(rest).collect::<Vec<_>>().join(&b'/'))
                    .components()
                    .map(<[u8]>::to_vec)
                    .collect();
                break;
            }
            Err(errno) => return Err(fail(errno)),
        };
        if file_type(fd.as_fd()).map_err(fail)? != FileType::Symlink {
            done.push((fd, name));
            continue;
        }
        links += 1;
        if links > LINKS {
            return Err(fail(Errno::LOOP));
        }
        let link = rustix::fs::readlinkat(&fd, "", Vec::new()).map_err(fail)?;
        if link.as_bytes().first() == Some(&b'/') {
            done.truncate(1);
        }
        for part in link.as_bytes().split(|&b| b == b'/').rev() {
            todo.push_front(part.to_vec());
        }
    }
    let reached = done.iter().skip(1).fold(ImagePath::root(), |path, (_, name)| path.child(name));
    let Some((found, _)) = done.pop() else { return Err(fail(Errno::NOENT)) };
    Ok(Walk { found, reached, missing })
}

/// The type of an open file.
pub(super) fn file_type(fd: BorrowedFd<'_>) -> Result<FileType, Errno> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode))
}

fn failed(path: &ImagePath, errno: Errno) -> Error {
    Error::os(format!("can't find {} in the image", crate::error::quote(path.to_string())), errno)
}

/// What a mount target has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Directory,
    File,
}

impl Shape {
    /// The shape of something that is to be mounted.
    pub fn of(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        Ok(if file_type(fd)? == FileType::Directory { Self::Directory } else { Self::File })
    }
}

/// Makes the missing part of a path, the last name in the given shape, and opens it.
pub(super) fn create(from: BorrowedFd<'_>, missing: &[Vec<u8>], shape: Shape) -> Result<OwnedFd, Errno> {
    let path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut here = rustix::io::fcntl_dupfd_cloexec(from, 0)?;
    for (at, name) in missing.iter().enumerate() {
        let name = OsStr::from_bytes(name);
        if at + 1 == missing.len() && shape == Shape::File {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            drop(rustix::fs::openat(&here, name, flags, Mode::from_raw_mode(0o644))?);
        } else {
            rustix::fs::mkdirat(&here, name, Mode::from_raw_mode(0o755))?;
        }
        here = rustix::fs::openat(&here, name, path, Mode::empty())?;
    }
    Ok(here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_stay_inside() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/real")).unwrap();
        std::fs::create_dir(root.path().join("run")).unwrap();
        let link = |to: &str, at: &str| std::os::unix::fs::symlink(to, root.path().join(at)).unwrap();
        link("/etc/real", "etc/absolute");
        link("../../../../etc/real", "etc/dots");
        link("../run/systemd/stub", "etc/resolv.conf");
        link("loop", "etc/loop");
        link("/gone/../run", "etc/odd");
        let fd = std::fs::File::open(root.path()).unwrap();
        for (path, expected, missing) in [
            ("/etc/real", "/etc/real", 0),
            ("/etc/absolute", "/etc/real", 0),
            ("/etc/dots/x", "/etc/real/x", 1),
            ("/etc/resolv.conf", "/run/systemd/stub", 2),
            ("/etc/odd", "/run", 1),
            ("/", "/", 0),
        ] {
            let walk = walk(fd.as_fd(), &ImagePath::clean(path)).unwrap();
            assert_eq!((walk.path().to_string(), walk.missing.len()), (expected.to_string(), missing), "{path}");
            assert_eq!(find(fd.as_fd(), &ImagePath::clean(path)).unwrap().is_some(), missing == 0, "{path}");
        }
        assert!(walk(fd.as_fd(), &ImagePath::clean("etc/loop")).is_err_and(|e| e.to_string().contains("ELOOP")));
    }

    #[test]
    fn creates_what_is_missing() {
        let root = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(root.path()).unwrap();
        let walk = walk(fd.as_fd(), &ImagePath::clean("a/b/c")).unwrap();
        create(walk.found.as_fd(), &walk.missing, Shape::File).unwrap();
        assert!(root.path().join("a/b/c").is_file());
        assert_eq!(create(fd.as_fd(), &[b"a".to_vec()], Shape::Directory).err(), Some(Errno::EXIST));
    }
}
