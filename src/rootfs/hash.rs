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
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use super::meta::Kind;
use super::scan::{Source, source, trouble};
use crate::error::{IoContext, Result};
use crate::oci::{Digest, Hasher, ImagePath};
use crate::sys::fs;

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

    /// The digest of a regular file's content, read only if it is not remembered.
    pub fn hash_file(&self, root: &Path, listed: &Source) -> Result<Digest> {
        let key = key(root, listed);
        if let Some(found) = self.recall(&key) {
            return Ok(found);
        }
        let path = root.join(listed.path.as_relative());
        let mut file = File::open(&path).doing("open", &path)?;
        let digest = digest(&mut file).doing("read", &path)?;
        let now = source(listed.path.clone(), &fs::stat_fd(&file).doing("read", &path)?);
        if now == *listed && is_settled(listed) {
            self.known().insert(key, Remembered { digest, day: today() });
            self.changed.store(true, Ordering::Relaxed);
        }
        Ok(digest)
    }

    /// The digest of entries listed by [`super::scan::scan`]: their paths below `from`, types, modes, contents and symlink targets; not owners, not times.
    ///
    /// A single file has the same digest whatever its name. Contents are hashed on several threads.
    pub fn hash_tree(&self, root: &Path, from: &ImagePath, sources: &[Source]) -> Result<Digest> {
        let contents = self.contents(root, sources)?;
        let mut hasher = Hasher::new();
        for (source, content) in sources.iter().zip(contents) {
            let below = source.path.strip_prefix(from).unwrap_or_else(|| source.path.clone());
            hasher.update(&(below.as_bytes().len() as u64).to_le_bytes());
            hasher.update(below.as_bytes());
            hasher.update(format!("{:?} {:o} ", source.kind, source.mode).as_bytes());
            hasher.update(content.bytes());
        }
        Ok(hasher.finish())
    }

    fn contents(&self, root: &Path, sources: &[Source]) -> Result<Vec<Digest>> {
        let next = AtomicUsize::new(0);
        let results = Mutex::new(vec![Digest::from_bytes([0; 32]); sources.len()]);
        let error = Mutex::new(None);
        let run = || {
            loop {
                let start = next.fetch_add(GROUP, Ordering::Relaxed);
                let Some(group) = sources.get(start..sources.len().min(start.saturating_add(GROUP))).filter(|group| !group.is_empty())
                else {
                    return;
                };
                match group.iter().map(|source| self.content(root, source)).collect::<Result<Vec<_>>>() {
                    Ok(digests) => lock(&results)[start..start + digests.len()].copy_from_slice(&digests),
                    Err(e) => {
                        lock(&error).get_or_insert(e);
                        next.store(sources.len(), Ordering::Relaxed);
                    }
                }
            }
        };
        let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get).min(sources.len().div_ceil(GROUP));
        thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(run);
            }
            run();
        });
        match lock(&error).take() {
            Some(e) => Err(e),
            None => Ok(std::mem::take(&mut *lock(&results))),
        }
    }

    fn content(&self, root: &Path, source: &Source) -> Result<Digest> {
        match source.kind {
            Kind::File => self.hash_file(root, source),
            Kind::Symlink => {
                let path = root.join(source.path.as_relative());
                let target = std::fs::read_link(&path).map_err(|e| trouble(root, &source.path, e))?;
                Ok(Digest::of(target.as_os_str().as_bytes()))
            }
            _ => Ok(Digest::of(b"")),
        }
    }

    fn recall(&self, key: &Key) -> Option<Digest> {
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

fn digest(file: &mut File) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(n) => hasher.write_all(&buffer[..n])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn today() -> u32 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs() / DAY).unwrap_or(u32::MAX)
}
