//! Removal of whole trees that belong to the user, whatever their modes and depth.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, unlinkat};

use super::walk::{Step, Walk};
use super::{open_dir, open_root, set_mode_at, stat_at};

/// Removes an entry of a directory with everything below it; one that is not there is fine.
///
/// Directories that lack permissions are given them first. Symlinks are not followed, file systems mounted below are not left alone.
pub fn remove_tree(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) => return Ok(()),
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(rustix::io::Errno::ISDIR) => {}
        Err(e) => return Err(e.into()),
    }
    empty_dir(dir, name)?;
    Ok(unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

/// [`remove_tree`] by host path.
pub fn remove_tree_at(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    match open_root(parent) {
        Ok(dir) => remove_tree(dir.as_fd(), name.as_encoded_bytes()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

fn empty_dir(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    grant(dir, name)?;
    let mut walk = Walk::new(open_dir(dir, name)?)?;
    // Names of the directories entered: a directory can only be removed from outside.
    let mut entered: Vec<Box<[u8]>> = Vec::new();
    while let Some(step) = walk.step()? {
        match step {
            Step::Entry(entry) => match unlinkat(walk.dir(), &*entry.name, AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(rustix::io::Errno::ISDIR) => {
                    grant(walk.dir(), &entry.name)?;
                    walk.descend(&entry)?;
                    entered.push(entry.name);
                }
                Err(e) => return Err(e.into()),
            },
            Step::Leave => {
                walk.ascend()?;
                if let Some(name) = entered.pop() {
                    unlinkat(walk.dir(), &*name, AtFlags::REMOVEDIR)?;
                }
            }
        }
    }
    Ok(())
}

/// Makes a directory one can empty.
fn grant(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let stat = stat_at(dir, name)?;
    if stat.file_type() == FileType::Directory && stat.mode & 0o700 != 0o700 {
        set_mode_at(dir, name, stat.permissions() | 0o700)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fs::{make_dir, make_symlink};

    #[test]
    fn removes_deep_and_locked_trees_and_follows_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let root = open_root(temp.path()).unwrap();
        std::fs::write(temp.path().join("kept"), "x").unwrap();
        make_dir(&root, c"tree", 0o755).unwrap();
        let mut dir = open_dir(&root, c"tree").unwrap();
        for _ in 0..3000 {
            make_dir(&dir, c"d", 0o755).unwrap();
            make_symlink(b"/kept", &dir, c"link").unwrap();
            dir = open_dir(&dir, c"d").unwrap();
        }
        drop(dir);
        make_dir(&root, c"tree/locked", 0o755).unwrap();
        make_dir(&root, c"tree/locked/inner", 0o755).unwrap();
        set_mode_at(&root, c"tree/locked", 0).unwrap();
        remove_tree(root.as_fd(), b"tree").unwrap();
        remove_tree(root.as_fd(), b"absent").unwrap();
        let left: Vec<_> = std::fs::read_dir(temp.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["kept"]);
    }
}
