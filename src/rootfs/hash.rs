//! Content hashes of host files for cache keys, remembered so that what has not changed is never read again.
//!
//! A hash is remembered by path, inode, size, mtime and ctime. Files changed within the last seconds are not remembered: another change
//! could leave the same times. The memory is one file, only ever an optimisation; a damaged one is forgotten:
//!
//! ```text
//! "rootling hashes 1\n"
//! records of 52 bytes: 16 of the key's digest, 32 of the content's digest, 4 for the day of the last use
//! 32 bytes: the digest of all before them
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use super::entry;
use super::meta::{Kind, Meta};
use super::record::Record;
use super::scan::{Source, source};
use crate::error::{IoContext, Result};
use crate::oci::{Digest, Hasher};
use crate::sys::fs::xattr::Target;
use crate::sys::fs::{self, FileStat};

const MAGIC: &[u8] = b"rootling hashes 1\n";
const RECORD: usize = 52;
/// Two seconds cover file systems that keep whole seconds and small differences between clocks.
const SETTLED: Duration = Duration::from_secs(2);
/// Files are handed to threads in groups, since most need only a lookup.
const GROUP: usize = 8;
/// Hashes not asked for this long are forgotten.
const MAX_AGE_DAYS: u32 = 30;
const DAY: u64 = 24 * 60 * 60;

type Key = [u8; 16];

#[derive(Clone, Copy)]
struct Remembered {
    digest: Digest,
    day: u32,
}

/// Remembered hashes. May be used by many threads.
pub struct Hashes {
    file: PathBuf,
    known: Mutex<HashMap<Key, Remembered>>,
    changed: AtomicBool,
}

impl Hashes {
    /// Loads the memory; a missing or damaged one is empty.
    pub fn load(file: &Path) -> Result<Self> {
        let bytes = match std::fs::read(file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            bytes => bytes.doing("read", file)?,
        };
        let whole = bytes.split_last_chunk::<32>().filter(|(before, digest)| Digest::of(before).bytes() == *digest);
        let known = whole.and_then(|(before, _)| before.strip_prefix(MAGIC)).map(parse).unwrap_or_default();
        Ok(Self { file: file.to_owned(), known: Mutex::new(known), changed: AtomicBool::new(false) })
    }

    /// Saves the memory if something was added, whole or not at all.
    pub fn save(&self) -> Result<()> {
        if !self.changed.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let oldest = today().saturating_sub(MAX_AGE_DAYS);
        let mut bytes = MAGIC.to_vec();
        for (key, value) in self.known().iter().filter(|(_, value)| value.day >= oldest) {
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(value.digest.bytes());
            bytes.extend_from_slice(&value.day.to_le_bytes());
        }
        let digest = Digest::of(&bytes);
        bytes.extend_from_slice(digest.bytes());
        let mut name = self.file.as_os_str().to_owned();
        name.push(format!(".{}", std::process::id()));
        let unfinished = PathBuf::from(name);
        std::fs::write(&unfinished, bytes).doing("write", &unfinished)?;
        std::fs::rename(&unfinished, &self.file).doing("write", &self.file)
    }

    /// What is remembered of a regular file that has not changed.
    pub fn recall(&self, root: &Path, listed: &Source) -> Option<Digest> {
        self.find(&key(root, listed))
    }

    /// The digest of a regular file's content, read only if it is not remembered. Extended attributes that count are part of it.
    pub fn hash_file(&self, root: &Path, listed: &Source) -> Result<Digest> {
        if let Some(found) = self.recall(root, listed) {
            return Ok(found);
        }
        let path = root.join(listed.path.as_relative());
        let file = open(&path).doing("open", &path)?;
        let mut hasher = Hasher::new();
        read_all(&file, |bytes| hasher.update(bytes)).doing("read", &path)?;
        let stat = fs::stat_fd(&file).doing("read", &path)?;
        let meta = entry::read(Target::Fd(file.as_fd()), &stat, &Record::default(), &listed.path)?.meta;
        let digest = with_attributes(hasher.finish(), &meta, &stat);
        self.remember(root, listed, &source(listed.path.clone(), &stat), digest);
        Ok(digest)
    }

    /// Remembers the digest of a file that was listed and then read, if it is still the same and has settled.
    pub fn remember(&self, root: &Path, listed: &Source, now: &Source, digest: Digest) {
        if now == listed && is_settled(listed) {
            self.known().insert(key(root, listed), Remembered { digest, day: today() });
            self.changed.store(true, Ordering::Relaxed);
        }
    }

    /// The digests of regular files, those that must be read being read by several threads.
    pub fn hash_files(&self, root: &Path, files: &[&Source]) -> Result<Vec<Digest>> {
        in_parallel(files.len(), GROUP, |at| self.hash_file(root, files[at]))
    }

    fn find(&self, key: &Key) -> Option<Digest> {
        let mut known = self.known();
        let found = known.get_mut(key)?;
        // Written down once a week, not with each use: an unchanged memory is not saved.
        if today() > found.day + 7 {
            found.day = today();
            self.changed.store(true, Ordering::Relaxed);
        }
        Some(found.digest)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Key, Remembered>> {
        lock(&self.known)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn parse(records: &[u8]) -> HashMap<Key, Remembered> {
    let field = |record: &[u8], at: usize| <[u8; 4]>::try_from(&record[at..at + 4]).map(u32::from_le_bytes).unwrap_or_default();
    records
        .chunks_exact(RECORD)
        .filter_map(|record| {
            let digest = Digest::from_bytes(record[16..48].try_into().ok()?);
            Some((record[..16].try_into().ok()?, Remembered { digest, day: field(record, 48) }))
        })
        .collect()
}

fn key(root: &Path, source: &Source) -> Key {
    let mut hasher = Hasher::new();
    hasher.update(root.as_os_str().as_bytes());
    hasher.update(b"/");
    hasher.update(source.path.as_bytes());
    hasher.update(&[0]);
    for number in [source.ino, source.size, source.mtime.0.cast_unsigned(), source.ctime.0.cast_unsigned()] {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(&source.mtime.1.to_le_bytes());
    hasher.update(&source.ctime.1.to_le_bytes());
    let mut key = [0; 16];
    key.copy_from_slice(&hasher.finish().bytes()[..16]);
    key
}

fn is_settled(source: &Source) -> bool {
    let (secs, nanos) = source.mtime.max(source.ctime);
    let changed = SystemTime::UNIX_EPOCH + Duration::new(u64::try_from(secs).unwrap_or_default(), nanos);
    SystemTime::now().duration_since(changed).is_ok_and(|age| age >= SETTLED)
}

/// The digest that stands for a file in cache keys: that of its content, and of the attributes that are part of an image's file and that
/// the listing did not show.
pub(super) fn with_attributes(content: Digest, meta: &Meta, stat: &FileStat) -> Digest {
    if meta.xattrs.is_empty() && (meta.kind, meta.uid, meta.gid, meta.mode) == (Kind::File, 0, 0, stat.permissions()) {
        return content;
    }
    let mut hasher = Hasher::new();
    hasher.update(content.bytes());
    hasher.update(format!("{:?} {:o} {}:{}", meta.kind, meta.mode, meta.uid, meta.gid).as_bytes());
    for (name, value) in &meta.xattrs {
        for field in [name, value] {
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field);
        }
    }
    hasher.finish()
}

/// Opens a file for reading without waiting for anybody: it may have become a FIFO since it was listed.
fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file any more")),
    }
}

/// Hands on a file's content from where it stands to its end.
pub(super) fn read_all(mut file: &File, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => take(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Works on the numbers below `count`, in groups that go to several threads; results in order. The first error ends it.
pub fn in_parallel<T: Send + Clone>(count: usize, group: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<T>>> = Mutex::new(vec![None; count]);
    let error = Mutex::new(None);
    let run = || {
        loop {
            let start = next.fetch_add(group, Ordering::Relaxed);
            if start >= count {
                return;
            }
            match (start..count.min(start + group)).map(&work).collect::<Result<Vec<_>>>() {
                Ok(done) => {
                    let mut results = lock(&results);
                    done.into_iter().enumerate().for_each(|(at, result)| results[start + at] = Some(result));
                }
                Err(e) => {
                    lock(&error).get_or_insert(e);
                    next.store(count, Ordering::Relaxed);
                }
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get).min(count.div_ceil(group));
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(run);
        }
        run();
    });
    if let Some(e) = lock(&error).take() {
        return Err(e);
    }
    Ok(std::mem::take(&mut *lock(&results)).into_iter().flatten().collect())
}

fn today() -> u32 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs() / DAY).unwrap_or(u32::MAX)
}
