//! From a work tree to a layer's directory: the part that is asked for, with modes and times that depend on the commit alone.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Timespec, Timestamps, utimensat};

use super::Metadata;
use crate::error::{Error, IoContext as _, Kind, Result, quote, quote_path};
use crate::oci::ImagePath;

/// What of a work tree is wanted.
pub(super) struct Part<'a> {
    pub(super) subdir: Option<&'a str>,
    pub(super) metadata: Metadata,
    /// The time of all files, in seconds since 1970.
    pub(super) seconds: u64,
}

/// Moves the part to `place`, which must not exist. Nobody else knows the work tree, so nothing in it changes meanwhile.
pub(super) fn put(work: &Path, place: &Path, part: &Part<'_>) -> Result<()> {
    let subdir = ImagePath::clean(part.subdir.unwrap_or_default());
    let keep = part.metadata == Metadata::Keep && subdir.is_root();
    if keep {
        // They say where it was fetched from and when.
        for name in ["FETCH_HEAD", "logs"] {
            remove(&work.join(".git").join(name))?;
        }
    } else {
        remove(&work.join(".git"))?;
    }
    let mut root = work.to_owned();
    for component in subdir.components() {
        root.push(std::ffi::OsStr::new(std::str::from_utf8(component).unwrap_or_default()));
        let found = fs::symlink_metadata(&root);
        if !found.is_ok_and(|found| found.is_dir()) {
            // A link could lead anywhere.
            return Err(Error::with_kind(Kind::NotFound, format!("the repository has no directory {}", quote(subdir.to_string()))));
        }
    }
    Normaliser { links: keep, time: SystemTime::UNIX_EPOCH + Duration::from_secs(part.seconds), seconds: part.seconds }.directory(&root)?;
    fs::rename(&root, place).doing("move", &root)
}

struct Normaliser {
    /// Whether the links of submodules to their repositories stay.
    links: bool,
    time: SystemTime,
    seconds: u64,
}

impl Normaliser {
    fn directory(&self, path: &Path) -> Result<()> {
        for entry in fs::read_dir(path).doing("read directory", path)? {
            let entry = entry.doing("read directory", path)?;
            let kind = entry.file_type().doing("look at", &entry.path())?;
            self.entry(&entry.path(), kind)?;
        }
        self.settle(path, 0o755)
    }

    fn entry(&self, path: &Path, kind: fs::FileType) -> Result<()> {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if name.starts_with(b".wh.") {
            return Err(Error::with_kind(Kind::Unsupported, format!("can't put {} into a layer", quote(name)))
                .cause("names that begin with `.wh.` mean deletion there"));
        }
        if kind.is_dir() {
            return self.directory(path);
        }
        if kind.is_symlink() {
            let time = Timespec { tv_sec: self.seconds.cast_signed(), tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            return utimensat(rustix::fs::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).doing("set the time of", path);
        }
        if !kind.is_file() {
            return Err(Error::with_kind(Kind::Corrupt, format!("{} is no file, directory or link", quote_path(path))));
        }
        if name == b".git" && !self.links {
            return remove(path);
        }
        let executable = fs::symlink_metadata(path).doing("look at", path)?.permissions().mode() & 0o100 != 0;
        self.settle(path, if executable { 0o755 } else { 0o644 })
    }

    /// Sets mode and time, whatever the umask made of the former.
    fn settle(&self, path: &Path, mode: u32) -> Result<()> {
        fs::set_permissions(path, Permissions::from_mode(mode)).doing("set the mode of", path)?;
        File::open(path).and_then(|file| file.set_modified(self.time)).doing("set the time of", path)
    }
}

fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    };
    removed.doing("remove", path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, symlink};
    use std::path::PathBuf;

    fn work() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path().join("work");
        fs::create_dir_all(work.join("a/b")).unwrap();
        fs::create_dir_all(work.join(".git/logs")).unwrap();
        fs::write(work.join("a/b/file"), "x").unwrap();
        fs::write(work.join("a/.git"), "gitdir: ../.git/modules/a").unwrap();
        symlink("/etc", work.join("out")).unwrap();
        (dir, work)
    }

    fn try_put(subdir: Option<&str>, metadata: Metadata) -> Result<(tempfile::TempDir, PathBuf), String> {
        let (dir, work) = work();
        let place = dir.path().join("place");
        put(&work, &place, &Part { subdir, metadata, seconds: 1_000_000_000 }).map_err(|e| e.to_string())?;
        Ok((dir, place))
    }

    #[test]
    fn subdirectories_stay_inside() {
        for (subdir, expected) in [
            ("out", "the repository has no directory `/out`"),
            ("out/ssh", "the repository has no directory `/out/ssh`"),
            ("absent", "the repository has no directory `/absent`"),
            (".git", "the repository has no directory `/.git`"),
            ("a/b/file", "the repository has no directory `/a/b/file`"),
        ] {
            assert_eq!(try_put(Some(subdir), Metadata::Keep).map(drop), Err(expected.to_owned()), "{subdir}");
        }
        let (_dir, place) = try_put(Some("../../a/b/"), Metadata::Drop).unwrap();
        let file = fs::metadata(place.join("file")).unwrap();
        assert_eq!((file.mode() & 0o777, file.mtime()), (0o644, 1_000_000_000));
    }

    #[test]
    fn metadata_stays_only_where_it_is_wanted() {
        let (_dir, place) = try_put(None, Metadata::Drop).unwrap();
        assert!(!place.join(".git").exists() && !place.join("a/.git").exists());
        assert_eq!(fs::symlink_metadata(place.join("out")).unwrap().mtime(), 1_000_000_000);
        let (_dir, place) = try_put(Some("/"), Metadata::Keep).unwrap();
        assert!(place.join(".git").exists() && place.join("a/.git").exists() && !place.join(".git/logs").exists());
    }
}
