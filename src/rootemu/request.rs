//! One notified call: its arguments, its caller, the caller's memory.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use rustix::fs::{AtFlags, CWD, Statx};

use super::attributes;
use super::calls::Row;
use super::graft::Grafting;
use super::inodes::{self, Inodes};
use super::paths::PathBuffer;
use super::processes::{Caller, Processes};
use crate::oci::ImagePath;
use crate::rootfs::meta::OVERRIDE_XATTR;
use crate::sys::notify::{self, Answer, Listener, Notification};

/// What all handlers share.
pub struct Shared {
    /// Where the calls come from.
    pub listener: Listener,
    /// Who makes them.
    pub processes: Processes,
    /// What is known of files that hold no extended attributes.
    pub inodes: Inodes,
    /// How the root's file system keeps what is emulated.
    pub keeping: Keeping,
    /// The overlay's upper directory, if the root is an overlay.
    pub upper: Option<OwnedFd>,
    /// Whether and which programs may be changed to need fewer answers.
    pub grafting: Grafting,
}

impl Shared {
    /// Whether a file is one of those of which the table knows everything, the user's own extended attributes included: files and directories of
    /// the image, or of a cache beside it, on a file system that holds none.
    pub fn keeps_by_inode(&self, stat: &Statx) -> bool {
        self.keeping == Keeping::Inodes(inodes::device(stat)) && attributes::holds_xattrs(stat)
    }

    /// Whether the step's own attributes may be in the table: on a file system without any, or where the layers' records have some.
    pub fn may_keep_xattrs(&self) -> bool {
        self.keeping != Keeping::Attributes || !self.inodes.is_empty()
    }

    /// A file of the image as it lies in the upper directory; `None` if it does not.
    pub fn look_in_upper(&self, path: &ImagePath) -> Option<Statx> {
        let upper = self.upper.as_ref()?;
        rustix::fs::statx(upper, path.as_relative(), AtFlags::SYMLINK_NOFOLLOW, attributes::IDENTITY).ok()
    }
}

/// Where owners, modes, types and extended attributes of files and directories are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// In their user extended attributes.
    Attributes,
    /// In the table, since the root's file system, which has this device number, holds none.
    Inodes((u32, u32)),
}

impl Keeping {
    /// Finds out, by asking for an attribute of the root directory.
    pub fn of_root() -> Self {
        let asked = rustix::fs::getxattr_query(c"/", OVERRIDE_XATTR);
        match (asked, rustix::fs::statx(CWD, c"/", AtFlags::empty(), attributes::IDENTITY)) {
            (Err(rustix::io::Errno::OPNOTSUPP), Ok(stat)) => Self::Inodes(inodes::device(&stat)),
            _ => Self::Attributes,
        }
    }
}

/// One call.
pub struct Request<'a> {
    /// What all handlers share.
    pub shared: &'a Shared,
    /// The call as it came.
    pub note: Notification,
    /// Its line in the table.
    pub row: &'a Row,
}

/// Buffers of a worker, used again for every call.
#[derive(Default)]
pub struct Scratch {
    /// The path the call is about.
    pub path: PathBuffer,
    /// Its directory, or a second path.
    pub other: PathBuffer,
    /// Anything else.
    pub bytes: Vec<u8>,
}

/// How a handler ends; an error is what the call fails with.
pub type Outcome = Result<Answer, Errno>;

/// The call has succeeded and returns 0.
pub const DONE: Outcome = Ok(Answer::Value(0));
/// The kernel shall do it. Handlers answer so whenever they can't find what the call is about: the kernel then fails with exactly the error
/// that the caller expects.
pub const PASS: Outcome = Ok(Answer::Continue);

impl Request<'_> {
    /// The same call, seen as one on another of its arguments.
    pub fn on<'b>(&'b self, row: &'b Row) -> Request<'b> {
        Request { shared: self.shared, note: self.note, row }
    }

    /// Who calls.
    pub fn caller(&self) -> Result<Caller, Errno> {
        self.shared.processes.caller(self.note.thread)
    }

    /// An argument.
    pub fn argument(&self, index: u8) -> u64 {
        self.note.arguments[usize::from(index)]
    }

    /// The `index`th of the arguments after those that name the target.
    pub fn operand(&self, index: u8) -> u64 {
        self.argument(self.row.first + index)
    }

    /// The same, of type `int`.
    pub fn operand_int(&self, index: u8) -> u32 {
        self.operand(index) as u32
    }

    /// Reads the caller's memory; all or `EFAULT`.
    pub fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        match notify::read_memory(self.note.thread, address, buffer) {
            Ok(n) if n == buffer.len() => Ok(()),
            _ if buffer.is_empty() => Ok(()),
            _ => Err(Errno::EFAULT),
        }
    }

    /// Writes the caller's memory; all or `EFAULT`. Checks before that it is still the caller's.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.check_alive()?;
        notify::write_memory(self.note.thread, address, bytes).map_err(|_| Errno::EFAULT)
    }

    /// Fails if the caller is gone, so that what was read may be another process's. To be called before anything is changed.
    pub fn check_alive(&self) -> Result<(), Errno> {
        if self.shared.listener.is_waiting(self.note.id) { Ok(()) } else { Err(Errno::ESRCH) }
    }
}
