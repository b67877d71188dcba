//! Owners of what holds no user extended attributes: symlinks, FIFOs, sockets, terminals, and everything on file systems without them.
//!
//! The key is the inode, as the container sees it, together with its time of birth: a number that is used again has another one (pipes have
//! none, and live no longer than the step that made them). The overlay gives a symlink of a lower layer another number once it is copied up,
//! so one is copied up before it gets an owner, and an owner that came with the layers is moved to the new number by the
//! calls that copy up ([`super::owner::before_move`]).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::Statx;

use super::overrides::Override;
use crate::oci::ImagePath;

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
    device: (u32, u32),
    number: u64,
    birth: (i64, u32),
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
        Self {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            number: stat.stx_ino,
            birth: (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec),
        }
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

    /// Enters or replaces.
    pub fn insert(&self, stat: &Statx, entry: Entry) {
        let mut entries = self.lock();
        entries.insert(Key::of(stat), entry);
        self.count.store(entries.len(), Ordering::Release);
    }

    /// Removes.
    pub fn remove(&self, stat: &Statx) {
        let mut entries = self.lock();
        entries.remove(&Key::of(stat));
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
