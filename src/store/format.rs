//! The storage directory's format: recognising one, making one, refusing what is not ours.
//!
//! `version` holds the format's number in decimal. A change that an older program would misread bumps it; a record gaining an
//! optional field does not. Format 1 is the first; a small store of each older one is kept under `tests/stores/`.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::layout::{DIRECTORIES, Layout};
use super::record;
use crate::error::{Error, IoContext, Kind, Place, Result, quote_path};

/// The format this program reads and writes.
pub const VERSION: u32 = 1;

/// Whether there is a storage directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// One of our format.
    Storage,
    /// Nothing, or an empty directory.
    Nothing,
}

/// Looks at a directory. Errors: another user's, of a newer format, or not ours at all.
pub(super) fn look(layout: &Layout) -> Result<Found> {
    let root = layout.root();
    let stat = match fs::metadata(root) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        other => other.doing("open storage directory", root)?,
    };
    let user = rustix::process::geteuid().as_raw();
    if stat.uid() != user {
        return Err(Error::with_kind(Kind::Denied, format!("storage directory {} belongs to another user", quote_path(root)))
            .cause(format!("its owner has UID {}, this process has UID {user}", stat.uid()))
            .hint("choose your own with `--storage DIR`"));
    }
    match record::read(&layout.version())? {
        Some(text) => check_version(layout, &text).map(|()| Found::Storage),
        None => check_empty(root).map(|()| Found::Nothing),
    }
}

/// Makes a storage directory where there is nothing or half of one. Any number of processes may do so at once.
pub(super) fn create(layout: &Layout) -> Result<()> {
    let root = layout.root();
    DirBuilder::new().recursive(true).mode(0o700).create(root).doing("create storage directory", root)?;
    // The version comes first, so that a directory is never ours in part without saying so.
    if record::read(&layout.version())?.is_none() {
        let unnamed = layout.directory(&format!("version.{}-{:?}", std::process::id(), std::thread::current().id()));
        let write = || -> io::Result<()> {
            fs::write(&unnamed, format!("{VERSION}\n"))?;
            fs::File::open(&unnamed)?.sync_all()?;
            fs::rename(&unnamed, layout.version())
        };
        write().doing("create", &layout.version())?;
    }
    DIRECTORIES.into_iter().chain(["tmp"]).try_for_each(|name| make(&layout.directory(name)))
}

/// Makes the directories again that someone took out of a storage directory; returns them. To be called when `tmp` is there, so that nothing is
/// reported that another process is just making.
pub(super) fn complete(layout: &Layout) -> Result<Vec<PathBuf>> {
    let missing: Vec<PathBuf> = DIRECTORIES.iter().map(|name| layout.directory(name)).filter(|path| is_missing(path)).collect();
    missing.iter().try_for_each(|path| make(path))?;
    Ok(missing)
}

fn is_missing(path: &Path) -> bool {
    fs::metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
}

fn make(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.doing("create directory", path),
    }
}

fn check_version(layout: &Layout, text: &[u8]) -> Result<()> {
    let root = quote_path(layout.root());
    match std::str::from_utf8(text).ok().and_then(|text| text.trim().parse::<u32>().ok()) {
        Some(VERSION) => Ok(()),
        Some(newer) if newer > VERSION => {
            Err(Error::with_kind(Kind::Unsupported, format!("storage directory {root} was made by a newer version of rootling"))
                .cause(format!("its format is {newer}, this program knows format {VERSION}"))
                .hint("use a newer rootling, or another directory with `--storage DIR`"))
        }
        _ => Err(Error::with_kind(Kind::Corrupt, format!("storage directory {root} does not say its format"))
            .at(Place::Path(layout.version()))
            .cause("the file should hold a number")
            .hint(format!("if it is a storage directory of this version, write {VERSION} into the file"))),
    }
}

/// What `create` and an empty file system leave may stand there.
fn check_empty(root: &Path) -> Result<()> {
    for entry in fs::read_dir(root).doing("read directory", root)? {
        let name = entry.doing("read directory", root)?.file_name();
        if !name.as_encoded_bytes().starts_with(b"version.") && name != "lost+found" {
            return Err(Error::input(format!("{} is not a storage directory", quote_path(root)))
                .cause(format!("it is not empty: it holds {}", quote_path(Path::new(&name))))
                .hint("name a new or empty directory with `--storage DIR`"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;

    #[test]
    fn directories_that_are_gone_come_back() {
        let (_dir, store) = super::super::testing::store();
        for gone in ["layers", "blobs", "images", "cache", "locks"] {
            fs::remove_dir_all(store.path().join(gone)).unwrap();
            Store::open(store.path()).unwrap();
            assert!(DIRECTORIES.iter().all(|name| store.path().join(name).is_dir()), "{gone}");
        }
    }

    #[test]
    fn refuses_what_is_not_ours() {
        type Prepare = fn(&Path) -> io::Result<()>;
        let cases: [(Prepare, Kind, &str); 5] = [
            (|d| fs::write(d.join("version"), "2\n"), Kind::Unsupported, "was made by a newer version"),
            (|d| fs::write(d.join("version"), ""), Kind::Corrupt, "does not say its format"),
            (|d| fs::write(d.join("version"), "0"), Kind::Corrupt, "does not say its format"),
            (|d| fs::write(d.join("thesis.tex"), ""), Kind::Input, "is not a storage directory"),
            (|d| fs::create_dir(d.join("tmp")), Kind::Input, "is not a storage directory"),
        ];
        for (prepare, kind, expected) in cases {
            let dir = tempfile::tempdir().unwrap();
            prepare(dir.path()).unwrap();
            let before = fs::read_dir(dir.path()).unwrap().count();
            let error = Store::open(dir.path()).unwrap_err();
            assert!(error.kind() == kind && error.what().contains(expected) && !error.hints().is_empty(), "{error:?}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), before, "touched");
        }
    }

    #[test]
    fn another_users_is_refused() {
        // Root's own directory, seen by an ordinary user; or the other way round nothing to see.
        if rustix::process::geteuid().is_root() {
            return;
        }
        assert_eq!(Store::open(Path::new("/")).unwrap_err().kind(), Kind::Denied);
    }

    #[test]
    fn makes_one_where_there_is_nothing_or_half_of_one() {
        let dir = tempfile::tempdir().unwrap();
        for (name, prepare) in
            [("absent", ""), ("empty", "empty"), ("mounted", "mounted/lost+found"), ("killed", "killed/version.1-x"), ("a/b/c", "")]
        {
            let root = dir.path().join(name);
            fs::create_dir_all(dir.path().join(prepare)).unwrap();
            assert!(Store::open_existing(&root).unwrap().is_none());
            Store::open(&root).unwrap();
            assert_eq!(fs::read_to_string(root.join("version")).unwrap(), "1\n");
            assert!(Store::open_existing(&root).unwrap().is_some());
            if prepare.is_empty() {
                assert_eq!(fs::metadata(&root).unwrap().mode() & 0o777, 0o700);
            }
        }
        // Killed after the version and some directories.
        let root = dir.path().join("absent");
        fs::remove_dir(root.join("tmp")).unwrap();
        fs::remove_dir(root.join("trees")).unwrap();
        Store::open(&root).unwrap();
        assert!(root.join("trees").is_dir() && root.join("tmp").is_dir());
    }
}
