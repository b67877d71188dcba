//! A file or directory in `tmp/` that becomes something or disappears.

use std::io;
use std::path::{Path, PathBuf};

use super::Store;
use super::remove::remove_tree;
use crate::error::{IoContext, Result};

/// Guards an entry of `tmp/`: removed when dropped, unless it was given its place.
#[derive(Debug)]
pub(super) struct Unfinished {
    path: PathBuf,
    placed: bool,
}

impl Store {
    /// Makes an empty directory for what no one keeps.
    pub fn scratch(&self) -> Result<Scratch> {
        self.unfinished_directory("scratch").map(Scratch)
    }

    /// Names an entry that does not exist yet.
    pub(super) fn unfinished(&self, kind: &str) -> Result<Unfinished> {
        let path = self.inner.owner.unfinished(self.layout(), &self.inner.live, kind)?;
        Ok(Unfinished { path, placed: false })
    }

    /// Makes a directory in `tmp/`.
    pub(super) fn unfinished_directory(&self, kind: &str) -> Result<Unfinished> {
        let unfinished = self.unfinished(kind)?;
        std::fs::create_dir(unfinished.path()).doing("create directory", unfinished.path())?;
        Ok(unfinished)
    }
}

/// An empty directory for what no one keeps; gone with everything in it when dropped.
#[derive(Debug)]
pub struct Scratch(Unfinished);

impl Scratch {
    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Unfinished {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// It never came to be.
    pub fn forget(mut self) {
        self.placed = true;
    }

    /// Renames it to its place. A directory never replaces one that holds something: `AlreadyExists` or `DirectoryNotEmpty`.
    pub fn place(&mut self, to: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, to)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.placed {
            // What can't be removed now is swept by a later command.
            let _ = remove_tree(&self.path);
        }
    }
}
