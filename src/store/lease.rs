//! Leases: what running commands use, so that garbage collection leaves it alone; and which commands run at all.
//!
//! All of it is byte-range locks on one empty file, `locks/live`. A thing's byte is chosen by its kind and digest; who uses the
//! thing holds the byte shared until its store is dropped. A lease needs no disk space, works between the nodes of a
//! network file system, and is given back by the kernel when its process dies. Two things that share a byte (one chance in
//! 2^60) only keep each other.
//!
//! The order that makes it safe: a user takes the lease first and looks for the thing afterwards; the collector takes the byte
//! exclusively first, reads all records afterwards, and then removes what no record names (see `gc`).

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::lock::{Attempt, Mode, Range, lock, try_lock, unlock};
use crate::error::{Error, Result};
use crate::oci::Digest;

/// What a byte of the file stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Owner = 0,
    Layer = 1,
    Blob = 2,
    Tree = 3,
}

/// The file, opened, with the leases this store holds on it.
#[derive(Debug)]
pub(super) struct Live {
    /// `None` if it can't be written: then nothing in the storage directory can.
    file: Option<File>,
    held: Mutex<HashSet<Range>>,
}

impl Live {
    /// Opens the file. One that can't be opened makes leases without effect, so that a read-only storage can be read.
    pub fn open(path: &Path) -> Self {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).ok();
        Self { file, held: Mutex::default() }
    }

    pub fn is_read_only(&self) -> bool {
        self.file.is_none()
    }

    /// Keeps a thing from being collected as long as this lives; waits while a collector is deciding about it.
    pub fn lease(&self, kind: Kind, digest: &Digest) -> Result<()> {
        let (Some(file), range) = (&self.file, range(kind, digest)) else { return Ok(()) };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if !held.contains(&range) {
            lock(file, range, Mode::Shared).map_err(|e| Error::os("can't lock `locks/live` in the storage directory", e))?;
            held.insert(range);
        }
        Ok(())
    }

    /// Whether this store itself leases a thing; its own locks never show as conflicts.
    pub fn holds(&self, kind: Kind, digest: &Digest) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).contains(&range(kind, digest))
    }

    /// Takes a byte for itself alone, if nobody has it.
    pub fn own(&self, kind: Kind, digest: &Digest) -> Result<Attempt> {
        match &self.file {
            None => Ok(Attempt::Unsupported),
            Some(file) => try_lock(file, range(kind, digest), Mode::Exclusive)
                .map_err(|e| Error::os("can't lock `locks/live` in the storage directory", e)),
        }
    }

    /// Gives back what [`Live::own`] took.
    pub fn disown(&self, kind: Kind, digest: &Digest) {
        if let Some(file) = &self.file {
            unlock(file, range(kind, digest));
        }
    }

    /// The bare file: its locks live until it is closed.
    pub fn into_file(self) -> Option<File> {
        self.file
    }
}

/// Below 2^62, since offsets are signed and some network file systems stop short of 2^63.
fn range(kind: Kind, digest: &Digest) -> Range {
    let mut start = [0; 8];
    start.copy_from_slice(&digest.bytes()[..8]);
    let start = (u64::from_be_bytes(start) >> 4 << 2) | kind as u64;
    Range::byte(start.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_keeps_collectors_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("live");
        let (user, collector) = (Live::open(&path), Live::open(&path));
        let digest = Digest::of("thing");
        user.lease(Kind::Layer, &digest).unwrap();
        user.lease(Kind::Layer, &digest).unwrap();
        for (kind, digest, expected) in
            [(Kind::Layer, digest, Attempt::Busy), (Kind::Blob, digest, Attempt::Taken), (Kind::Layer, Digest::of("other"), Attempt::Taken)]
        {
            assert_eq!(collector.own(kind, &digest).unwrap(), expected, "{kind:?}");
        }
        assert!(user.holds(Kind::Layer, &digest) && !user.holds(Kind::Blob, &digest));
        drop(user);
        assert_eq!(collector.own(Kind::Layer, &digest).unwrap(), Attempt::Taken);
    }
}
