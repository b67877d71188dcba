//! Removal of whole trees, however hostile: directories without permissions, ten thousand levels deep, symbolic links anywhere.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RawMode, chmodat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use crate::error::{IoContext, Result};

/// Levels below the top that are descended with one descriptor each; deeper directories are moved up and removed from there.
const DEPTH: usize = 64;

/// Removes a file, or a directory with all that is in it; follows no symbolic link. Absence is success.
///
/// Returns the disk space freed in bytes. After an error, what is left can be removed by calling again.
pub(super) fn remove_tree(path: &Path) -> Result<u64> {
    match remove(path) {
        // Another is removing it, too.
        Err(Errno::NOENT) => Ok(0),
        other => other.doing("remove", path),
    }
}

/// Disk space a file or tree takes, in bytes; hard links count once each, since a layer holds all of its links.
pub(super) fn disk_usage(path: &Path) -> u64 {
    let Ok(stat) = std::fs::symlink_metadata(path) else { return 0 };
    let below = match stat.is_dir().then(|| std::fs::read_dir(path)) {
        Some(Ok(entries)) => entries.flatten().map(|entry| disk_usage(&entry.path())).sum(),
        _ => 0,
    };
    use std::os::unix::fs::MetadataExt as _;
    let share = if stat.is_dir() { 1 } else { stat.nlink().max(1) };
    stat.blocks() * 512 / share + below
}

fn remove(path: &Path) -> Result<u64, Errno> {
    let stat = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    if !is_directory(&stat) {
        unlinkat(CWD, path, AtFlags::empty())?;
        return Ok(freed(&stat));
    }
    let mut sweep = Sweep { top: open_directory(CWD, path)?, moved: 0, freed: 0 };
    let top = sweep.top.try_clone().map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    // What was moved up is in the top directory again, so pass over it until nothing is.
    loop {
        let before = sweep.moved;
        sweep.empty(&top, 0)?;
        if sweep.moved == before {
            break;
        }
    }
    unlinkat(CWD, path, AtFlags::REMOVEDIR)?;
    Ok(sweep.freed + freed(&stat))
}

struct Sweep {
    top: OwnedFd,
    moved: u64,
    freed: u64,
}

impl Sweep {
    fn empty(&mut self, directory: &OwnedFd, depth: usize) -> Result<(), Errno> {
        let mut names = Vec::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(OsString::from_vec(entry.file_name().to_bytes().to_vec()));
            }
        }
        for name in names {
            let stat = match statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            if !is_directory(&stat) {
                self.freed += freed(&stat);
                ignore_absence(unlinkat(directory, &name, AtFlags::empty()))?;
                continue;
            }
            if depth >= DEPTH {
                self.move_up(directory, &name)?;
                continue;
            }
            let child = open_directory(directory, &name)?;
            self.empty(&child, depth + 1)?;
            self.freed += freed(&stat);
            ignore_absence(unlinkat(directory, &name, AtFlags::REMOVEDIR))?;
        }
        Ok(())
    }

    fn move_up(&mut self, directory: &OwnedFd, name: &OsString) -> Result<(), Errno> {
        // Its own `..` changes, so it must be writable itself.
        drop(open_directory(directory, name)?);
        loop {
            self.moved += 1;
            match renameat(directory, name, &self.top, format!(".moved-{}", self.moved)) {
                // An earlier, interrupted removal moved something here, or the tree has such a name.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                other => return other,
            }
        }
    }
}

/// Opens a directory for emptying; gives its owner the permissions this takes.
fn open_directory(at: impl std::os::fd::AsFd + Copy, name: impl rustix::path::Arg + Copy) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let stat = statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if is_directory(&stat) && stat.st_mode & 0o700 != 0o700 {
        chmodat(at, name, Mode::from_raw_mode((stat.st_mode | 0o700) as RawMode & 0o7777), AtFlags::empty())?;
    }
    openat(at, name, flags, Mode::empty())
}

fn is_directory(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn freed(stat: &rustix::fs::Stat) -> u64 {
    let whole = is_directory(stat) || stat.st_nlink == 1;
    if whole { u64::try_from(stat.st_blocks).unwrap_or(0) * 512 } else { 0 }
}

fn ignore_absence(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn removes_what_is_hard_to_remove() {
        let dir = tempfile::tempdir().unwrap();
        let (top, outside) = (dir.path().join("top"), dir.path().join("outside"));
        fs::write(&outside, "stays").unwrap();
        fs::create_dir_all(top.join("locked/inner")).unwrap();
        fs::write(top.join("locked/inner/file"), vec![1; 10_000]).unwrap();
        std::os::unix::fs::symlink(&outside, top.join("link")).unwrap();
        std::os::unix::fs::symlink(dir.path(), top.join("locked/directory-link")).unwrap();
        fs::create_dir(top.join(".moved-1")).unwrap();
        fs::write(top.join(".moved-1/x"), "").unwrap();
        for name in ["locked/inner", "locked"] {
            fs::set_permissions(top.join(name), fs::Permissions::from_mode(0o000)).unwrap();
        }
        assert!(remove_tree(&top).unwrap() >= 10_000);
        assert!(!top.exists());
        assert_eq!(fs::read_to_string(&outside).unwrap(), "stays");
        assert_eq!(remove_tree(&top).unwrap(), 0, "absence is success");
    }

    #[test]
    fn removes_what_is_deep() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir(&top).unwrap();
        let mut at = open_directory(CWD, &top).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "deeper", Mode::RWXU).unwrap();
            at = open_directory(&at, "deeper").unwrap();
        }
        drop(at);
        remove_tree(&top).unwrap();
        assert!(!top.exists());
    }
}
