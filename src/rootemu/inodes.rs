//! What is known of inodes that hold no user extended attributes: symlinks, FIFOs, sockets, terminals, and everything on file systems without them.
//!
//! The key is the inode's number, as the container sees it, together with its time of birth: a number that is used again has another one.
//! What has none (pipes, terminals; all on NFS before 4.2 and on FUSE) is known by its device, too; there, removals are watched
//! ([`super::removal`]), so that nobody inherits from the dead.
//!
//! A symlink or FIFO of a lower layer gets another number when it is copied up: not at once, but when the kernel's caches have forgotten
//! it (checked on 6.18; overlayfs keeps the old number in `user.overlay.origin`, which can't be set on these). So it is copied up
//! before it gets an owner, and entered under both numbers; an owner that came with the layers is entered under both by the
//! calls that copy up ([`super::owner::before_move`]).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::Statx;

use crate::oci::ImagePath;
use crate::rootfs::meta::Override;
use crate::rootfs::record::Xattrs;

/// The table.
#[derive(Default)]
pub struct Inodes {
    entries: Mutex<HashMap<Key, Entry>>,
    /// Lets stat see without the lock that there is nothing.
    count: AtomicUsize,
}

/// Which inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    number: u64,
    birth: (i64, u32),
    /// 0:0 for what has a time of birth: parts of an overlay on several file systems have several.
    device: (u32, u32),
}

/// What is known of it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Owner, mode and type, if they differ from the native ones. The mode counts for files and directories only, others have theirs natively.
    pub over: Option<Override>,
    /// Extended attributes.
    pub xattrs: Xattrs,
    /// Where it was when it was entered, if it was below the root.
    pub path: Option<ImagePath>,
    /// Where it lies.
    pub origin: Origin,
    /// Its other number.
    pub twin: Option<Key>,
    /// Whether its last name was removed: if it has one, it is another inode with its number.
    pub gone: bool,
}

/// Who entered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It came with the layers below.
    Layers,
    /// The step made it or gave it an owner.
    Step,
}

impl Key {
    /// The key of a file; `stat` must have been asked for the time of birth.
    pub fn of(stat: &Statx) -> Self {
        let birth = birth(stat);
        let device = if birth == (0, 0) { device(stat) } else { (0, 0) };
        Self { number: stat.stx_ino, birth, device }
    }
}

/// The time of birth; zero where the file system has none.
pub fn birth(stat: &Statx) -> (i64, u32) {
    (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec)
}

/// Major and minor number of the file system a file lies on.
pub fn device(stat: &Statx) -> (u32, u32) {
    (stat.stx_dev_major, stat.stx_dev_minor)
}

impl Entry {
    /// One that says nothing yet.
    pub fn new(origin: Origin) -> Self {
        Self { over: None, xattrs: Xattrs::new(), path: None, origin, twin: None, gone: false }
    }

    /// Whether it says anything.
    pub fn is_empty(&self) -> bool {
        self.over.is_none() && self.xattrs.is_empty()
    }

    /// What it says of an inode that may be the one it is about.
    pub fn over(&self, stat: &Statx) -> Option<Override> {
        let over = self.over?;
        let mode = u32::from(stat.stx_mode);
        let holds_mode = matches!(mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR);
        Some(if holds_mode { over } else { Override { mode: mode & 0o7777, device: None, ..over } })
    }

    fn is_about(&self, stat: &Statx) -> bool {
        !self.gone || stat.stx_nlink == 0
    }
}

impl Inodes {
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// What is known of a file.
    pub fn get(&self, stat: &Statx) -> Option<Entry> {
        self.read(stat, Entry::clone)
    }

    /// The override; without a mode of its own the native one.
    pub fn owner(&self, stat: &Statx) -> Option<Override> {
        self.read(stat, |entry| entry.over(stat)).flatten()
    }

    /// Something of what is known of a file, without copying the rest.
    pub fn read<T>(&self, stat: &Statx, look: impl FnOnce(&Entry) -> T) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        self.lock().get(&Key::of(stat)).filter(|entry| entry.is_about(stat)).map(look)
    }

    /// Enters or replaces, also under the entry's other number.
    pub fn insert(&self, stat: &Statx, entry: Entry) {
        let key = Key::of(stat);
        let twin = entry.twin.filter(|twin| *twin != key);
        let mut entries = self.lock();
        remove(&mut entries, key);
        if let Some(twin) = twin {
            entries.insert(twin, Entry { twin: Some(key), ..entry.clone() });
        }
        entries.insert(key, Entry { twin, ..entry });
        self.count.store(entries.len(), Ordering::Release);
    }

    /// Removes it under both numbers.
    pub fn remove(&self, stat: &Statx) {
        if self.is_empty() {
            return;
        }
        let mut entries = self.lock();
        remove(&mut entries, Key::of(stat));
        self.count.store(entries.len(), Ordering::Release);
    }

    /// Notes that a file has lost its last name. Whoever has it open still sees its owner.
    pub fn bury(&self, stat: &Statx) {
        if let Some(entry) = self.lock().get_mut(&Key::of(stat)) {
            entry.gone = true;
        }
    }

    /// Everything that is in it.
    pub fn snapshot(&self) -> HashMap<Key, Entry> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove(entries: &mut HashMap<Key, Entry>, key: Key) {
    if let Some(twin) = entries.remove(&key).and_then(|old| old.twin) {
        entries.remove(&twin);
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{AtFlags, CWD};

    use super::*;

    fn stat() -> Statx {
        let mut one = rustix::fs::statx(CWD, c"/", AtFlags::empty(), rustix::fs::StatxFlags::BASIC_STATS).unwrap();
        one.stx_btime.tv_sec = 1;
        one
    }

    fn entry(uid: u32, twin: Option<Key>) -> Entry {
        Entry { over: Some(Override { uid, gid: 0, mode: 0, device: None }), twin, ..Entry::new(Origin::Step) }
    }

    #[test]
    fn an_entry_has_two_numbers() {
        let one = stat();
        let mut other = one;
        other.stx_ino += 1;
        let inodes = Inodes::default();
        let uids = || [&one, &other].map(|stat| inodes.owner(stat).map(|over| over.uid));
        inodes.insert(&one, entry(33, Some(Key::of(&other))));
        assert_eq!(uids(), [Some(33), Some(33)]);
        inodes.insert(&other, entry(44, None));
        assert_eq!(uids(), [None, Some(44)]);
        inodes.insert(&one, entry(55, Some(Key::of(&other))));
        inodes.remove(&other);
        assert_eq!(uids(), [None, None]);
        assert!(inodes.is_empty());
    }

    #[test]
    fn nobody_inherits_from_the_dead() {
        let mut file = stat();
        let inodes = Inodes::default();
        inodes.insert(&file, entry(33, None));
        inodes.bury(&file);
        file.stx_nlink = 0;
        assert_eq!(inodes.owner(&file).map(|over| over.uid), Some(33), "somebody has it open");
        file.stx_nlink = 1;
        assert_eq!(inodes.owner(&file), None, "it is another file with the same number");
        inodes.insert(&file, entry(44, None));
        assert_eq!(inodes.owner(&file).map(|over| over.uid), Some(44));
    }

    #[test]
    fn modes_are_those_of_files_and_directories_only() {
        let (mut file, inodes) = (stat(), Inodes::default());
        inodes.insert(&file, entry(33, None));
        for (mode, expected) in [(libc::S_IFDIR | 0o755, 0), (libc::S_IFREG | 0o644, 0), (libc::S_IFIFO | 0o640, 0o640)] {
            file.stx_mode = mode as u16;
            assert_eq!(inodes.owner(&file).map(|over| over.mode), Some(expected), "{mode:o}");
        }
    }
}
