//! A walk through a directory tree of any depth, by descriptors: parents first, sorted.
//!
//! Deep trees (a build step can nest thousands of directories) neither overflow the stack nor use up descriptors: only the
//! innermost directories stay open, the others are found again through `..`, so the tree must not be moved meanwhile.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::vec;

use super::{DirEntry, list, open_dir, open_parent};

/// How many directories of the current path stay open; few paths are deeper.
const HELD: usize = 48;

struct Frame {
    /// `None` while too many directories below are open.
    dir: Option<OwnedFd>,
    rest: vec::IntoIter<DirEntry>,
    /// Length of the path of this directory.
    path_len: usize,
}

/// The state of a walk; [`Walk::step`] goes on, [`Walk::descend`] enters the entry just met.
pub struct Walk {
    frames: Vec<Frame>,
    path: Vec<u8>,
}

/// What the walk met.
#[derive(Debug)]
pub enum Step {
    /// An entry of the current directory; [`Walk::path`] names it.
    Entry(DirEntry),
    /// All of a directory that was entered has been seen; it is the current one and [`Walk::path`] names it.
    Leave,
}

impl Walk {
    /// Starts at the entries of an open directory.
    pub fn new(root: OwnedFd) -> io::Result<Self> {
        let rest = list(root.as_fd())?.into_iter();
        Ok(Self { frames: vec![Frame { dir: Some(root), rest, path_len: 0 }], path: Vec::new() })
    }

    /// The next entry, or the end of a directory; `None` after the root's own [`Step::Leave`].
    ///
    /// After a `Leave` the directory is closed by the next call, so its caller may still look at it.
    pub fn step(&mut self) -> io::Result<Option<Step>> {
        let Some(frame) = self.frames.last_mut() else { return Ok(None) };
        self.path.truncate(frame.path_len);
        if let Some(entry) = frame.rest.next() {
            if frame.path_len > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&entry.name);
            return Ok(Some(Step::Entry(entry)));
        }
        Ok(Some(Step::Leave))
    }

    /// Closes the directory that was left. To be called once after each [`Step::Leave`].
    pub fn ascend(&mut self) -> io::Result<()> {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        if let (Some(parent), Some(dir)) = (self.frames.last_mut(), frame.dir)
            && parent.dir.is_none()
        {
            parent.dir = Some(open_parent(dir)?);
        }
        Ok(())
    }

    /// Enters the directory that the last entry is.
    pub fn descend(&mut self, entry: &DirEntry) -> io::Result<()> {
        let dir = open_dir(self.dir(), &*entry.name)?;
        let rest = list(dir.as_fd())?.into_iter();
        self.frames.push(Frame { dir: Some(dir), rest, path_len: self.path.len() });
        if let Some(outer) = self.frames.len().checked_sub(HELD + 1)
            && outer > 0
        {
            self.frames[outer].dir = None;
        }
        Ok(())
    }

    /// Entries of the current directory that the walk has not met yet.
    pub fn siblings(&self) -> impl Iterator<Item = &DirEntry> {
        self.frames.last().into_iter().flat_map(|frame| frame.rest.as_slice())
    }

    /// The directory that holds the current entry, or that is being left.
    pub fn dir(&self) -> BorrowedFd<'_> {
        let dir = self.frames.last().and_then(|frame| frame.dir.as_ref());
        // The innermost frame is always open: `descend` opens it, `ascend` opens it again.
        dir.expect("the innermost directory is open").as_fd()
    }

    /// Path of the current entry below the root, without leading slash; empty for the root.
    pub fn path(&self) -> &[u8] {
        &self.path
    }
}
