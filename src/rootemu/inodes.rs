//! Owners of what holds no user extended attributes: symlinks, FIFOs, sockets, terminals, and everything on file systems without them.
//!
//! The key is the inode's number, as the container sees it, together with its time of birth: a number that is used again has another one.
//! What has none (pipes, terminals) is known by its device, too, and lives no longer than the step that made it.
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
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
    /// Where it was when it was entered, if it was below the root.
    pub path: Option<ImagePath>,
    /// Where it lies.
    pub origin: Origin,
    /// Its other number.
    pub twin: Option<Key>,
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
        let birth = (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec);
        let device = if birth == (0, 0) { (stat.stx_dev_major, stat.stx_dev_minor) } else { (0, 0) };
        Self { number: stat.stx_ino, birth, device }
    }
}

impl Inodes {
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// What is known of a file.
    pub fn get(&self, stat: &Statx) -> Option<Entry> {
        if self.is_empty() {
            return None;
        }
        self.lock().get(&Key::of(stat)).cloned()
    }

    /// The owner as an override; the mode is the native one.
    pub fn owner(&self, stat: &Statx) -> Option<Override> {
        let entry = self.get(stat)?;
        Some(Override { uid: entry.uid, gid: entry.gid, mode: u32::from(stat.stx_mode) & 0o7777, device: None })
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
        let mut entries = self.lock();
        remove(&mut entries, Key::of(stat));
        self.count.store(entries.len(), Ordering::Release);
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

    #[test]
    fn an_entry_has_two_numbers() {
        let mut one = rustix::fs::statx(CWD, c"/", AtFlags::empty(), rustix::fs::StatxFlags::BASIC_STATS).unwrap();
        one.stx_btime.tv_sec = 1;
        let mut other = one;
        other.stx_ino += 1;
        let entry = |uid, twin| Entry { uid, gid: 0, path: None, origin: Origin::Step, twin };
        let inodes = Inodes::default();
        let uids = || [&one, &other].map(|stat| inodes.get(stat).map(|entry| entry.uid));
        inodes.insert(&one, entry(33, Some(Key::of(&other))));
        assert_eq!(uids(), [Some(33), Some(33)]);
        inodes.insert(&other, entry(44, None));
        assert_eq!(uids(), [None, Some(44)]);
        inodes.insert(&one, entry(55, Some(Key::of(&other))));
        inodes.remove(&other);
        assert_eq!(uids(), [None, None]);
        assert!(inodes.is_empty());
    }
}
