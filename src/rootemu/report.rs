//! What the step leaves: which symlinks and FIFOs in its layer belong to whom.
//!
//! An entry counts if its inode is still there, under the name it had or, after a rename, under another; a name is looked for only if an
//! entry is missing.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Statx};

use super::attributes::IDENTITY;
use super::inodes::{Entry, Key, Origin};
use super::request::Shared;
use crate::oci::ImagePath;
use crate::rootfs::meta::Override;

/// The owners of what lies in the upper directory, or below the root if there is none.
pub fn owners(shared: &Shared) -> Vec<(ImagePath, Override)> {
    let mut known = shared.inodes.snapshot();
    // In an overlay, what came with the layers and was not touched is in the lower layers' records.
    known.retain(|_, entry| shared.upper.is_none() || entry.origin == Origin::Step);
    let mut found = BTreeMap::new();
    let mut missing = false;
    for path in known.values().filter_map(|entry| entry.path.as_ref()) {
        match owner_at(path, &known).filter(|_| shared.upper.is_none() || shared.look_in_upper(path).is_some()) {
            Some((owner, names)) => {
                found.insert(path.clone(), owner);
                missing |= names > 1;
            }
            None => missing = true,
        }
    }
    // Links that were renamed have another name than the one entered; so have second names of one inode.
    if missing {
        let root = match &shared.upper {
            Some(upper) => rustix::fs::openat(upper, c".", DIRECTORY, Mode::empty()),
            None => rustix::fs::open(c"/", DIRECTORY, Mode::empty()),
        };
        if let Ok(root) = root {
            search(&root, &ImagePath::root(), &known, &mut found);
        }
    }
    found.into_iter().collect()
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Whose the file at this path is, if it is one of the known, and how many names it has.
fn owner_at(path: &ImagePath, known: &HashMap<Key, Entry>) -> Option<(Override, u32)> {
    let native = rustix::fs::statx(CWD, [b"/", path.as_bytes()].concat(), AtFlags::SYMLINK_NOFOLLOW, IDENTITY).ok()?;
    Some((recordable(&native, known.get(&Key::of(&native))?)?, native.stx_nlink))
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
fn search(directory: &OwnedFd, path: &ImagePath, known: &HashMap<Key, Entry>, found: &mut BTreeMap<ImagePath, Override>) {
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
                    search(&below_open, &below, known, found);
                }
            }
            FileType::Symlink | FileType::Fifo => {
                if let Some((owner, _)) = owner_at(&below, known) {
                    found.insert(below, owner);
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
