//! Locks: byte ranges of files, and lock files for work that only one process should do at a time.
//!
//! Nothing's correctness hangs on a lock file: what they guard ends in an atomic rename that two may race for. They save doing
//! work twice. Leases (see `lease`) use the same byte-range locks.
//!
//! The locks are open-file-description locks (`F_OFD_SETLK`), not `flock`: GPFS keeps `flock` on one node, and on NFS both
//! are the same thing. They belong to the descriptor, so threads exclude each other, and the kernel frees them with the
//! process, however it ends. Lock files are opened for writing (NFS refuses an exclusive lock on a read-only descriptor) and
//! never directories (NFS keeps locks on those to itself).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use super::Store;
use super::owner::Process;
use crate::error::{IoContext, Result, quote};
use crate::event::{Event, Sink};
use crate::oci::{ChainId, DiffId, Digest, Reference};

/// Work that only one process should do at a time.
#[derive(Clone, Copy, Debug)]
pub enum Work<'a> {
    /// Fetching or making a blob.
    Blob(&'a Digest),
    /// Making a layer.
    Layer(&'a DiffId),
    /// Making a tree.
    Tree(&'a ChainId),
    /// Executing a build step, by its cache key.
    Step(&'a Digest),
    /// Changing the list that has a name.
    List(&'a Reference),
}

/// A held lock; given back when dropped.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    /// Closing it frees the lock. `None` on a file system without locks.
    _file: Option<File>,
}

/// How long a wait stays quiet.
const QUIET: Duration = Duration::from_secs(1);

impl Store {
    /// Waits until no other process or thread does this work. Check afterwards whether it is still to be done.
    pub fn lock(&self, work: Work<'_>) -> Result<Lock> {
        let name;
        let (kind, digest, what) = match work {
            Work::Blob(digest) => ("blob", digest, format!("blob {}", digest.short())),
            Work::Layer(diff_id) => ("layer", &diff_id.0, format!("layer {}", diff_id.0.short())),
            Work::Tree(chain) => ("tree", &chain.0, format!("tree {}", chain.0.short())),
            Work::Step(key) => ("step", key, format!("step {}", key.short())),
            Work::List(reference) => {
                name = Digest::of(reference.to_string());
                ("list", &name, format!("manifest list {}", quote(reference.familiar())))
            }
        };
        Lock::take(self.layout().lock(kind, digest), &what, self.sink())
    }
}

impl Lock {
    fn take(path: PathBuf, what: &str, sink: &dyn Sink) -> Result<Self> {
        loop {
            let mut file = open(&path).doing("open lock file", &path)?;
            match wait(&file, &path, what, sink).doing("lock", &path)? {
                Attempt::Taken if is_at(&file, &path) => {
                    // Who waits reads it. On a full disk they don't learn who we are; the lock holds all the same.
                    let _ = file.set_len(0).and_then(|()| file.write_all(Process::current().to_string().as_bytes()));
                    return Ok(Self { path, _file: Some(file) });
                }
                // The holder before us removed the file, and others may lock a new one by now.
                Attempt::Taken | Attempt::Busy => {}
                Attempt::Unsupported => return Ok(Self { path, _file: None }),
            }
        }
    }

    /// Removes a file that nobody has locked: a killed process left it. `false` if it is in use, or gone.
    pub(super) fn clear(path: &Path) -> bool {
        let Ok(file) = OpenOptions::new().read(true).write(true).open(path) else { return false };
        let free = try_lock(&file, Range::ALL, Mode::Exclusive).is_ok_and(|attempt| attempt == Attempt::Taken);
        free && is_at(&file, path) && std::fs::remove_file(path).is_ok()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Before the descriptor closes: whoever gets the lock next sees that its file is gone, and starts over.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Shared or exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Shared,
    Exclusive,
}

/// What came of asking for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    Taken,
    /// Held by another.
    Busy,
    /// The file system has no locks (Lustre mounted without `flock`).
    Unsupported,
}

/// Bytes of a file; they need not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Range {
    start: i64,
    length: i64,
}

impl Range {
    /// The whole file.
    pub const ALL: Self = Self { start: 0, length: 0 };

    /// One byte.
    pub const fn byte(start: i64) -> Self {
        Self { start, length: 1 }
    }
}

/// Asks once.
pub(super) fn try_lock(file: &File, range: Range, mode: Mode) -> io::Result<Attempt> {
    let kind = match mode {
        Mode::Shared => libc::F_RDLCK,
        Mode::Exclusive => libc::F_WRLCK,
    };
    control(file, &description(kind, range), Wait::No)
}

/// Asks until it is there.
pub(super) fn lock(file: &File, range: Range, mode: Mode) -> io::Result<Attempt> {
    let kind = match mode {
        Mode::Shared => libc::F_RDLCK,
        Mode::Exclusive => libc::F_WRLCK,
    };
    control(file, &description(kind, range), Wait::Yes)
}

/// Gives it back.
pub(super) fn unlock(file: &File, range: Range) {
    let _ = control(file, &description(libc::F_UNLCK, range), Wait::No);
}

#[derive(Clone, Copy)]
enum Wait {
    Yes,
    No,
}

fn control(file: &File, description: &libc::flock, wait: Wait) -> io::Result<Attempt> {
    loop {
        let result = match wait {
            Wait::Yes => fcntl(file, FcntlArg::F_OFD_SETLKW(description)),
            Wait::No => fcntl(file, FcntlArg::F_OFD_SETLK(description)),
        };
        return match result {
            Ok(_) => Ok(Attempt::Taken),
            Err(Errno::EINTR) => continue,
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(Attempt::Busy),
            Err(Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::ENOLCK) => Ok(Attempt::Unsupported),
            Err(errno) => Err(errno.into()),
        };
    }
}

fn description(kind: i32, range: Range) -> libc::flock {
    // The constants are small on every architecture; `flock` has them as `short`.
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: range.start, l_len: range.length, l_pid: 0 }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Polls while it stays quiet, so that the holder can be named, then waits in the kernel.
fn wait(file: &File, path: &Path, what: &str, sink: &dyn Sink) -> io::Result<Attempt> {
    let (start, mut pause) = (Instant::now(), Duration::from_micros(200));
    while start.elapsed() < QUIET {
        match try_lock(file, Range::ALL, Mode::Exclusive)? {
            Attempt::Busy => std::thread::sleep(pause),
            other => return Ok(other),
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    let mut holder = String::new();
    let _ = file.try_clone().and_then(|mut f| f.rewind().and_then(|()| f.take(200).read_to_string(&mut holder)));
    let holder = if holder.is_empty() { "another process".to_owned() } else { quote(&holder) };
    sink.event(Event::Warning(&format!("waiting for {what}, held by {holder} (lock file {})", quote(path.as_os_str().as_encoded_bytes()))));
    lock(file, Range::ALL, Mode::Exclusive)
}

/// Whether the path still names this very file.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::event::Silent;

    #[test]
    fn excludes_threads_and_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let (inside, passed) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _lock = Lock::take(path.clone(), "test", &Silent).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        passed.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(passed.load(Ordering::SeqCst), 400);
        assert!(!path.exists());
    }

    #[test]
    fn clears_only_what_nobody_holds() {
        let dir = tempfile::tempdir().unwrap();
        let (held, stale) = (dir.path().join("held"), dir.path().join("stale"));
        let _lock = Lock::take(held.clone(), "test", &Silent).unwrap();
        std::fs::write(&stale, "node 1 2").unwrap();
        assert!(!Lock::clear(&held));
        assert!(Lock::clear(&stale));
        assert!(held.exists() && !stale.exists());
    }

    #[test]
    fn bytes_are_locked_one_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("live");
        let (a, b) = (open(&path).unwrap(), open(&path).unwrap());
        let (one, two) = (Range::byte(1 << 61), Range::byte((1 << 61) + 1));
        for (file, range, mode, expected) in [
            (&a, one, Mode::Shared, Attempt::Taken),
            (&b, one, Mode::Shared, Attempt::Taken),
            (&b, one, Mode::Exclusive, Attempt::Busy),
            (&b, two, Mode::Exclusive, Attempt::Taken),
            (&a, two, Mode::Shared, Attempt::Busy),
        ] {
            assert_eq!(try_lock(file, range, mode).unwrap(), expected, "{range:?} {mode:?}");
        }
        unlock(&b, two);
        assert_eq!(try_lock(&a, two, Mode::Shared).unwrap(), Attempt::Taken);
    }
}
