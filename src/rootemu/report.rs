//! What the step leaves: which symlinks and FIFOs in its layer belong to whom.
//!
//! An entry counts if its inode is still there, under the name it had or, after a rename, under another; a name is looked for only if an
//! entry is missing.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Statx};

use super::attributes::IDENTITY;
use super::inodes::{Entry, Inodes, Key, Origin};
use super::overrides::Override;
use crate::oci::ImagePath;

/// The owners of what lies in `upper`, or below the root if there is none.
pub fn owners(inodes: &Inodes, upper: Option<&OwnedFd>) -> Vec<(ImagePath, Override)> {
    let mut missing = inodes.snapshot();
    // In an overlay, what came with the layers and was not touched is in the lower layers' records.
    missing.retain(|_, entry| upper.is_none() || entry.origin == Origin::Step);
    let mut found = Vec::new();
    for (key, entry) in missing.clone() {
        if let Some((path, native)) = entry.path.clone().and_then(|path| Some((path.clone(), look(&path)?)))
            && Key::of(&native) == key
            && lies_in(upper, &path)
            && let Some(owner) = recordable(&native, &entry)
        {
            found.push((path, owner));
            missing.remove(&key);
        }
    }
    missing.retain(|_, entry| entry.path.is_some());
    // Hard links and renamed links have another name than the one entered.
    if !missing.is_empty() {
        let root = match upper {
            Some(upper) => rustix::fs::openat(upper, c".", DIRECTORY, Mode::empty()),
            None => rustix::fs::open(c"/", DIRECTORY, Mode::empty()),
        };
        if let Ok(root) = root {
            search(&root, &ImagePath::root(), &missing, &mut found);
        }
    }
    found
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn look(path: &ImagePath) -> Option<Statx> {
    rustix::fs::statx(CWD, [b"/", path.as_bytes()].concat(), AtFlags::SYMLINK_NOFOLLOW, IDENTITY).ok()
}

fn lies_in(upper: Option<&OwnedFd>, path: &ImagePath) -> bool {
    upper.is_none_or(|upper| rustix::fs::statat(upper, path.as_relative() as &Path, AtFlags::SYMLINK_NOFOLLOW).is_ok())
}

/// Files and directories carry their own owner; of the rest, layers hold symlinks and FIFOs.
fn recordable(native: &Statx, entry: &Entry) -> Option<Override> {
    let mode = u32::from(native.stx_mode);
    matches!(mode & libc::S_IFMT, libc::S_IFLNK | libc::S_IFIFO).then(|| Override {
        uid: entry.uid,
        gid: entry.gid,
        mode: mode & 0o7777,
        device: None,
    })
}

/// Looks for entries in a directory and all below it.
fn search(directory: &OwnedFd, path: &ImagePath, missing: &HashMap<Key, Entry>, found: &mut Vec<(ImagePath, Override)>) {
    let Ok(entries) = Dir::read_from(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let below = path.child(name.to_bytes());
        match entry.file_type() {
            FileType::Directory => {
                // Not into /proc and other mounts of a step that runs in a plain directory.
                if let Ok(below_open) = rustix::fs::openat(directory, name, DIRECTORY, Mode::empty())
                    && same_device(directory, &below_open)
                {
                    search(&below_open, &below, missing, found);
                }
            }
            FileType::Symlink | FileType::Fifo => {
                if let Some(native) = look(&below)
                    && let Some(known) = missing.get(&Key::of(&native))
                    && let Some(owner) = recordable(&native, known)
                    && !found.iter().any(|(path, _)| *path == below)
                {
                    found.push((below, owner));
                }
            }
            _ => {}
        }
    }
}

fn same_device(a: &OwnedFd, b: &OwnedFd) -> bool {
    match (rustix::fs::fstat(a), rustix::fs::fstat(b)) {
        (Ok(a), Ok(b)) => a.st_dev == b.st_dev,
        _ => false,
    }
}
