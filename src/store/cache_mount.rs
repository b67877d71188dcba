//! Cache mounts: directories that build steps keep for the steps after them, apart from any image.
//!
//! A cache is known by a key, which says its name and what its first content is made of. It has as many directories as were needed at
//! one time: a step that wants one for itself while all are in use gets a new one. Byte `n + 1` of the file `lock` is held by whoever
//! uses directory `n`, shared or alone; byte 0 while one is being chosen. The locks are the kernel's, so a killed step leaves none, and
//! whoever holds one can hand its descriptor to others (`CacheMount::holder`) to keep it as long as they live.
//!
//! A directory's content is whatever its steps left there: one that was killed leaves what it had written, as a build tool finds it after a
//! power cut. Only the first content is whole or absent.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::gc::{Action, Keep, Tally, expired, files, take_away};
use super::layout::digest_of_name;
use super::lock::{Attempt, Mode, Range, is_at, lock, try_lock, unlock};
use super::remove::{disk_usage, remove_tree};
use super::{Store, record};
use crate::error::{Error, IoContext, Result};
use crate::oci::Digest;
use crate::rootfs::record::Record;

/// How several steps use one cache at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// They see the same directory.
    Shared,
    /// Each has a directory of its own.
    Private,
    /// They wait for each other.
    Locked,
}

/// What a cache is, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheMountRecord {
    /// Its name: `id`, else `target`.
    pub id: String,
    /// What its first content came from; nothing for an empty one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// A cache in use by a step; given back when dropped.
#[derive(Debug)]
pub struct CacheMount {
    directory: PathBuf,
    lock_path: PathBuf,
    lock: File,
}

/// A cache as it lies in storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheMountEntry {
    /// Its key.
    pub key: Digest,
    /// What it is.
    pub record: CacheMountRecord,
    /// How many directories it has.
    pub directories: u64,
    /// Disk space in bytes.
    pub bytes: u64,
    /// When a step last began to use it.
    pub used: SystemTime,
    /// Whether a step uses it now.
    pub in_use: bool,
}

/// Whoever wants a cache that is in use asks again after this time.
const PAUSE: Duration = Duration::from_millis(50);

const CHOOSING: Range = Range::byte(0);

impl Store {
    /// Takes a directory of a cache, making one if there is none, or none that may be used now.
    ///
    /// `fill` makes the first content in a directory in the form of a layer (`fs/` and perhaps `record`). `waiting` is told, again and again,
    /// how long a locked cache has been waited for; its error ends the waiting.
    pub fn cache_mount(
        &self,
        key: &Digest,
        about: &CacheMountRecord,
        sharing: Sharing,
        fill: &dyn Fn(&Path) -> Result<()>,
        waiting: &dyn Fn(Duration) -> Result<()>,
    ) -> Result<CacheMount> {
        let start = Instant::now();
        loop {
            match self.try_cache_mount(key, about, sharing, fill)? {
                Some(mount) => return Ok(mount),
                None => waiting(start.elapsed())?,
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// `None` if all directories are in use, or the cache is just being pruned.
    fn try_cache_mount(
        &self,
        key: &Digest,
        about: &CacheMountRecord,
        sharing: Sharing,
        fill: &dyn Fn(&Path) -> Result<()>,
    ) -> Result<Option<CacheMount>> {
        let cache = self.layout().cache_mount(key);
        let path = self.layout().cache_mount_lock(key);
        let file = match make_directory(&self.layout().cache_mounts()).and_then(|()| make_directory(&cache)).and_then(|()| open(&path)) {
            // Pruned between.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.doing("open lock file", &path)?,
        };
        lock(&file, CHOOSING, Mode::Exclusive).doing("lock", &path)?;
        if !is_at(&file, &path) {
            return Ok(None);
        }
        let mode = if sharing == Sharing::Shared { Mode::Shared } else { Mode::Exclusive };
        let there = directories(&cache)?;
        for number in &there {
            // Without locks nobody can be kept out.
            if try_lock(&file, Range::byte(number + 1), mode).doing("lock", &path)? != Attempt::Busy {
                return self.chosen(key, about, *number, file).map(Some);
            }
        }
        if sharing == Sharing::Locked && !there.is_empty() {
            return Ok(None);
        }
        let number = (0..).find(|number| !there.contains(number)).unwrap_or(0);
        let mut made = self.unfinished_directory("cache")?;
        fill(made.path())?;
        let place = self.layout().cache_mount_directory(key, number);
        made.place(&place).doing("create", &place)?;
        try_lock(&file, Range::byte(number + 1), mode).doing("lock", &path)?;
        self.chosen(key, about, number, file).map(Some)
    }

    fn chosen(&self, key: &Digest, about: &CacheMountRecord, number: i64, lock: File) -> Result<CacheMount> {
        let path = self.layout().cache_mount_record(key);
        match File::open(&path) {
            // Only pruning by age and listings need it.
            Ok(file) => drop(file.set_modified(SystemTime::now())),
            Err(_) => self.write_json(&path, about)?,
        }
        unlock(&lock, CHOOSING);
        Ok(CacheMount { directory: self.layout().cache_mount_directory(key, number), lock_path: self.layout().cache_mount_lock(key), lock })
    }

    /// All caches, by name.
    pub fn cache_mounts(&self) -> Result<Vec<CacheMountEntry>> {
        let mut entries = Vec::new();
        for cache in self.caches()? {
            let Some(key) = digest_of_name(&cache) else { continue };
            let path = self.layout().cache_mount_record(&key);
            let record = record::read(&path)?.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            let record = record.unwrap_or_else(|| CacheMountRecord { id: key.short().to_string(), from: None });
            let used = std::fs::metadata(&path).and_then(|stat| stat.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            let free = match OpenOptions::new().read(true).write(true).open(self.layout().cache_mount_lock(&key)) {
                Ok(file) => try_lock(&file, Range::ALL, Mode::Exclusive).is_ok_and(|attempt| attempt == Attempt::Taken),
                Err(_) => true,
            };
            let directories = directories(&cache)?.len() as u64;
            entries.push(CacheMountEntry { key, record, directories, bytes: disk_usage(&cache), used, in_use: !free });
        }
        entries.sort_by(|a, b| (&a.record.id, &a.record.from, a.key).cmp(&(&b.record.id, &b.record.from, b.key)));
        Ok(entries)
    }

    /// Removes caches that are not kept. What a step uses stays, and is counted.
    pub(super) fn prune_cache_mounts(&self, keep: Keep, action: Action, tally: &mut Tally) -> Result<u64> {
        let mut in_use = 0;
        if keep == Keep::All {
            return Ok(in_use);
        }
        for cache in self.caches()? {
            let Some(key) = digest_of_name(&cache) else { continue };
            if !expired(&self.layout().cache_mount_record(&key), keep) {
                continue;
            }
            let path = self.layout().cache_mount_lock(&key);
            let Ok(file) = open(&path) else { continue };
            if try_lock(&file, Range::ALL, Mode::Exclusive).doing("lock", &path)? == Attempt::Busy {
                in_use += 1;
                continue;
            }
            if action == Action::Estimate {
                tally.add(take_away(&cache, action)?);
                continue;
            }
            // Out of sight first: whoever waits for the lock sees that the file is gone, and starts over.
            let moved = self.unfinished("trash")?;
            match std::fs::rename(&cache, moved.path()) {
                Ok(()) => {
                    // NFS and FUSE keep what is open under another name, in the directory that is to be removed.
                    drop(file);
                    tally.add(remove_tree(moved.path())?);
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => moved.forget(),
                Err(e) => return Err(Error::io("remove", &cache, e)),
            }
        }
        Ok(in_use)
    }

    /// None where no cache was ever made: older storage directories lack the place.
    fn caches(&self) -> Result<Vec<PathBuf>> {
        let place = self.layout().cache_mounts();
        if place.exists() { files(&place) } else { Ok(Vec::new()) }
    }
}

impl CacheMount {
    /// The directory to mount.
    pub fn tree(&self) -> PathBuf {
        self.directory.join("fs")
    }

    /// What its files can't say themselves.
    pub fn record(&self) -> Result<Record> {
        Record::load(&self.directory)
    }

    /// Keeps what a step has left of which the files can't say it: `before` is what the record said when it began, `after` what it must say now.
    /// What other steps have written down meanwhile stays.
    pub fn keep(&self, store: &Store, before: &Record, after: &Record) -> Result<()> {
        if before == after {
            return Ok(());
        }
        // A descriptor of its own: closing it gives up this lock only.
        let alone = open(&self.lock_path).doing("open lock file", &self.lock_path)?;
        lock(&alone, CHOOSING, Mode::Exclusive).doing("lock", &self.lock_path)?;
        let mut record = self.record()?;
        before.entries().for_each(|path| record.unsay(path));
        after.entries().for_each(|path| record.adopt(path, after, path));
        let unfinished = store.unfinished_directory("record")?;
        record.save(unfinished.path())?;
        record.place(unfinished.path(), &self.directory)
    }

    /// A descriptor that keeps the directory in use until it is closed, by whoever has it last.
    pub fn holder(&self) -> Result<OwnedFd> {
        self.lock.try_clone().map(OwnedFd::from).map_err(|e| Error::os("can't copy a descriptor", e))
    }
}

/// The numbers of a cache's directories, ascending.
fn directories(cache: &Path) -> Result<Vec<i64>> {
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse().ok();
    let mut numbers: Vec<i64> = files(cache)?.iter().filter_map(number).filter(|number| *number >= 0).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn make_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::testing;
    use super::*;
    use crate::store::PruneOptions;

    fn take(store: &Store, id: &str, sharing: Sharing) -> Result<CacheMount> {
        let about = CacheMountRecord { id: id.into(), from: None };
        let fill = |path: &Path| fs::create_dir(path.join("fs")).doing("create", path);
        let waiting = |waited: Duration| if waited > Duration::from_millis(120) { Err(Error::new("busy")) } else { Ok(()) };
        store.cache_mount(&Digest::of(id), &about, sharing, &fill, &waiting)
    }

    #[test]
    fn sharing() {
        let (_dir, store) = testing::store();
        for (held, wanted, expected) in [
            (Sharing::Shared, Sharing::Shared, "same"),
            (Sharing::Shared, Sharing::Private, "another"),
            (Sharing::Shared, Sharing::Locked, "busy"),
            (Sharing::Private, Sharing::Shared, "another"),
            (Sharing::Private, Sharing::Private, "another"),
            (Sharing::Private, Sharing::Locked, "busy"),
            (Sharing::Locked, Sharing::Shared, "another"),
            (Sharing::Locked, Sharing::Private, "another"),
            (Sharing::Locked, Sharing::Locked, "busy"),
        ] {
            let id = format!("{held:?} {wanted:?}");
            let first = take(&store, &id, held).unwrap();
            let second = take(&store, &id, wanted);
            let found = second.as_ref().map_or("busy", |second| if second.tree() == first.tree() { "same" } else { "another" });
            assert_eq!(found, expected, "{id}");
            // What was left is found again, by one after the other.
            fs::write(first.tree().join("f"), "").unwrap();
            drop((first, second));
            assert!(take(&store, &id, wanted).unwrap().tree().join("f").exists());
        }
    }

    #[test]
    fn a_handed_out_descriptor_keeps_it() {
        let (_dir, store) = testing::store();
        let mount = take(&store, "x", Sharing::Locked).unwrap();
        let holder = mount.holder().unwrap();
        drop(mount);
        assert!(take(&store, "x", Sharing::Locked).is_err());
        assert!(store.cache_mounts().unwrap()[0].in_use);
        drop(holder);
        assert!(take(&store, "x", Sharing::Locked).is_ok());
        assert!(!store.cache_mounts().unwrap()[0].in_use);
    }

    #[test]
    fn a_failed_first_content_leaves_nothing() {
        let (_dir, store) = testing::store();
        let about = CacheMountRecord { id: "x".into(), from: Some("image".into()) };
        let fill = |path: &Path| {
            fs::create_dir(path.join("fs")).unwrap();
            Err(Error::new("no"))
        };
        assert!(store.cache_mount(&Digest::of("x"), &about, Sharing::Shared, &fill, &|_| Ok(())).is_err());
        assert!(testing::names(&store, "tmp").is_empty());
        assert!(take(&store, "x", Sharing::Locked).is_ok());
    }

    #[test]
    fn pruned_unless_kept_or_in_use() {
        let (_dir, store) = testing::store();
        let mounts = |mounts, action| PruneOptions { steps: Keep::All, trees: Keep::All, mounts, action };
        drop(take(&store, "old", Sharing::Shared).unwrap());
        let day = Duration::from_secs(24 * 3600);
        let record = File::open(store.layout().cache_mount_record(&Digest::of("old"))).unwrap();
        record.set_modified(SystemTime::now() - 3 * day).unwrap();
        drop(take(&store, "young", Sharing::Shared).unwrap());
        let used = take(&store, "used", Sharing::Shared).unwrap();
        let names = || -> Vec<String> { store.cache_mounts().unwrap().into_iter().map(|entry| entry.record.id).collect() };
        for (keep, action, removed, left) in [
            (Keep::All, Action::Remove, 0, vec!["old", "used", "young"]),
            (Keep::UsedWithin(2 * day), Action::Estimate, 1, vec!["old", "used", "young"]),
            (Keep::UsedWithin(2 * day), Action::Remove, 1, vec!["used", "young"]),
            (Keep::Nothing, Action::Remove, 1, vec!["used"]),
        ] {
            let report = store.prune(&mounts(keep, action)).unwrap();
            assert_eq!((report.mounts.count, names()), (removed, left.into_iter().map(str::to_owned).collect()), "{keep:?} {action:?}");
        }
        fs::write(used.tree().join("still"), "here").unwrap();
        assert!(testing::names(&store, "tmp").is_empty());
    }

    #[test]
    fn one_at_a_time_and_never_lost() {
        let (_dir, store) = testing::store();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                let store = Store::open(store.path()).unwrap();
                scope.spawn(move || {
                    for _ in 0..5 {
                        let about = CacheMountRecord { id: "n".into(), from: None };
                        let fill = |path: &Path| fs::create_dir(path.join("fs")).doing("create", path);
                        let mount = store.cache_mount(&Digest::of("n"), &about, Sharing::Locked, &fill, &|_| Ok(())).unwrap();
                        let path = mount.tree().join("count");
                        let count: u32 = fs::read_to_string(&path).map_or(0, |text| text.parse().unwrap());
                        fs::write(&path, (count + 1).to_string()).unwrap();
                    }
                });
            }
        });
        let mount = take(&store, "n", Sharing::Locked).unwrap();
        assert_eq!(fs::read_to_string(mount.tree().join("count")).unwrap(), "40");
    }
}
