//! What the step leaves: what its layer's record, and those of the caches it used, must say of entries that can't say it themselves.
//!
//! An entry of the table counts if its inode is still there, under the name it had or, after a rename, under another; names are looked for, in one
//! walk, only if an entry is missing or has several.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags, Statx};

use super::attributes::IDENTITY;
use super::inodes::{Entry, Key, Origin};
use super::request::Shared;
use super::spec::{EmulationSpec, Report};
use crate::oci::ImagePath;
use crate::rootfs::record::Record;
use crate::sys::fs;

/// What the step leaves. `covered` is what the layers say of entries that lie below mounts, where no step reaches them.
pub fn report(shared: &Shared, spec: &EmulationSpec, covered: Record, notifications: BTreeMap<String, u64>) -> Report {
    let known = shared.inodes.snapshot();
    let caches: Vec<(ImagePath, Record)> = spec
        .caches()
        .map(|target| {
            let directory = [b"/", target.as_bytes()].concat();
            let left = rustix::fs::open(directory, DIRECTORY, Mode::empty()).ok().map(|root| Region { root, prefix: &target }.left(&known));
            (target, left.unwrap_or_default())
        })
        .collect();
    let mut left = covered;
    let root = match &shared.upper {
        Some(upper) => rustix::fs::openat(upper, c".", DIRECTORY, Mode::empty()),
        None => rustix::fs::open(c"/", DIRECTORY, Mode::empty()),
    };
    if let Ok(root) = root {
        // In an overlay, what came with the layers and was not touched is in the lower layers' records.
        let mut known = known;
        known.retain(|_, entry| shared.upper.is_none() || entry.origin == Origin::Step);
        // What lies in a cache is not missing here.
        known.retain(|_, entry| entry.path.as_ref().is_none_or(|path| !caches.iter().any(|(target, _)| path.starts_with(target))));
        let found = Region { root, prefix: &ImagePath::root() }.left(&known);
        left.overrides.extend(found.overrides);
        left.xattrs.extend(found.xattrs);
    }
    Report::new(left, caches, notifications)
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const WITHIN: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_XDEV).union(ResolveFlags::NO_SYMLINKS);

/// A tree that has a record: the step's layer, or a cache. What is mounted in it is not part of it.
struct Region<'a> {
    root: OwnedFd,
    /// Where it is in the image.
    prefix: &'a ImagePath,
}

impl Region<'_> {
    fn left(&self, known: &HashMap<Key, Entry>) -> Record {
        let mut record = Record::default();
        let mut missing = false;
        for below in known.values().filter_map(|entry| entry.path.as_ref()?.strip_prefix(self.prefix)) {
            match stat_within(&self.root, &below) {
                Some(native) if known.contains_key(&Key::of(&native)) => {
                    missing |= native.stx_nlink > 1 && !is_directory(&native);
                    add(&mut record, below, &native, known);
                }
                _ => missing = true,
            }
        }
        // What was renamed has another name than the one entered; so have second names of one inode.
        if missing {
            search(&self.root, &ImagePath::root(), known, &mut record);
        }
        record
    }
}

fn is_directory(native: &Statx) -> bool {
    u32::from(native.stx_mode) & libc::S_IFMT == libc::S_IFDIR
}

/// A file of a tree, not of one that is mounted there.
pub fn stat_within(root: &OwnedFd, path: &ImagePath) -> Option<Statx> {
    look_within(root, path).ok()
}

/// The same; fails with `EXDEV` if a mount covers the file.
pub fn look_within(root: &OwnedFd, path: &ImagePath) -> rustix::io::Result<Statx> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(root, path.as_relative(), flags, Mode::empty(), WITHIN)?;
    // How many names it has, FUSE must be asked anew.
    let fresh = if fs::is_fuse(root) { AtFlags::STATX_FORCE_SYNC } else { AtFlags::empty() };
    rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH | fresh, IDENTITY)
}

/// Writes down what is known of a file that a layer can hold.
fn add(record: &mut Record, path: ImagePath, native: &Statx, known: &HashMap<Key, Entry>) {
    let Some(entry) = known.get(&Key::of(native)).filter(|entry| !entry.gone) else { return };
    if !matches!(u32::from(native.stx_mode) & libc::S_IFMT, libc::S_IFLNK | libc::S_IFIFO | libc::S_IFREG | libc::S_IFDIR) {
        return;
    }
    if !entry.xattrs.is_empty() {
        record.xattrs.insert(path.clone(), entry.xattrs.clone());
    }
    if let Some(over) = entry.over(native) {
        record.overrides.insert(path, over);
    }
}

/// Looks for entries in a directory and all below it.
fn search(directory: &OwnedFd, path: &ImagePath, known: &HashMap<Key, Entry>, record: &mut Record) {
    let Ok(entries) = Dir::read_from(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let below = path.child(name.to_bytes());
        if let Ok(native) = rustix::fs::statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, IDENTITY) {
            // Not into /proc and other mounts of a step that runs in a plain directory.
            if is_directory(&native) {
                let Ok(open) = rustix::fs::openat2(directory, name, DIRECTORY, Mode::empty(), WITHIN) else { continue };
                add(record, below.clone(), &native, known);
                search(&open, &below, known, record);
            } else {
                add(record, below, &native, known);
            }
        }
    }
}
