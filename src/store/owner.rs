//! Who owns what is unfinished: this process's name in `tmp/`, and the sweeping of what dead owners left.
//!
//! An owner holds an exclusive lock on one byte of `locks/live`, chosen by its name, from before its first entry appears in
//! `tmp/` until it ends. So an entry whose owner's byte can be locked is a leftover, on whichever node its owner was. Process
//! number and start time only make the name unique; they decide only where the file system has no locks.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::layout::{Layout, Unfinished};
use super::lease::{Kind, Live};
use super::lock::Attempt;
use super::remove::remove_tree;
use crate::error::{IoContext, Result};
use crate::oci::Digest;

/// A process, as told from all others that ever were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    host: String,
    pid: u32,
    start: u64,
}

impl Process {
    /// This one. Never cached: it may be a fork.
    pub fn current() -> Self {
        let pid = std::process::id();
        Self { host: host_name(), pid, start: start_time(pid).unwrap_or(0) }
    }

    /// Whether it is known to have ended: only a process of this host can be.
    fn is_gone(&self) -> bool {
        self.host == host_name() && start_time(self.pid) != Some(self.start)
    }

    fn parse(owner: &str) -> Option<Self> {
        let mut parts = owner.rsplitn(4, '-').skip(1);
        let (start, pid, host) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.to_owned());
        Some(Self { host, pid, start })
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.host, self.pid, self.start)
    }
}

/// This store's name in `tmp/`, taken when it is first needed.
#[derive(Debug, Default)]
pub(super) struct Owner {
    name: OnceLock<String>,
    next: AtomicU64,
}

impl Owner {
    /// A path in `tmp/` that nothing has, for something of this kind.
    pub fn unfinished(&self, layout: &Layout, live: &Live, kind: &str) -> Result<PathBuf> {
        let name = match self.name.get() {
            Some(name) => name,
            None => {
                let name = register(live)?;
                // Two threads may come here at once; the loser's byte stays locked, which hurts nobody.
                self.name.get_or_init(|| name)
            }
        };
        Ok(layout.unfinished(name, self.next.fetch_add(1, Ordering::Relaxed), kind))
    }

    pub fn name(&self) -> Option<&str> {
        self.name.get().map(String::as_str)
    }
}

/// Locks the byte of a name that is free. Process namespaces of one host may share a number and a start time.
fn register(live: &Live) -> Result<String> {
    static INSTANCE: AtomicU64 = AtomicU64::new(0);
    let process = Process::current();
    loop {
        let name = format!("{process}-{}", INSTANCE.fetch_add(1, Ordering::Relaxed));
        if live.own(Kind::Owner, &Digest::of(&name))? != Attempt::Busy {
            return Ok(name);
        }
    }
}

/// Removes from `tmp/` what dead owners left. Without such entries it costs one directory listing.
///
/// What can't be removed now (`.nfs` files of a process that still has them open) stays for the next sweep.
pub(super) fn sweep(layout: &Layout, own: Option<&str>) -> Result<Swept> {
    let tmp = layout.tmp();
    let mut swept = Swept::default();
    let mut entries: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(&tmp).doing("read directory", &tmp)? {
        let entry = entry.doing("read directory", &tmp)?;
        entries.extend(entry.file_name().into_string());
    }
    entries.sort();
    let owner_of = |name: &str| match Unfinished::parse(name) {
        Unfinished::Of { owner } => Some(owner.to_owned()),
        _ => None,
    };
    for group in entries.chunk_by(|a, b| owner_of(a) == owner_of(b)) {
        let Some(owner) = owner_of(&group[0]).filter(|owner| Some(owner.as_str()) != own) else { continue };
        let Some(_claim) = claim(layout, &owner)? else {
            swept.alive += group.len() as u64;
            continue;
        };
        for name in group {
            swept.bytes += remove_tree(&tmp.join(name)).unwrap_or(0);
            swept.entries += 1;
        }
    }
    Ok(swept)
}

/// What a sweep found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Swept {
    pub entries: u64,
    pub bytes: u64,
    /// Entries of others who live.
    pub alive: u64,
}

/// A dead owner's byte, which keeps other sweepers away.
struct Claim {
    /// Closing it gives the byte back. `None` on a file system without locks.
    _byte: Option<File>,
}

/// `None` if the owner lives, or can't be known to be dead.
fn claim(layout: &Layout, owner: &str) -> Result<Option<Claim>> {
    let live = Live::open(&layout.live());
    Ok(match live.own(Kind::Owner, &Digest::of(owner))? {
        Attempt::Taken => Some(Claim { _byte: live.into_file() }),
        Attempt::Busy => None,
        Attempt::Unsupported if live.is_read_only() => None,
        Attempt::Unsupported => Process::parse(owner).filter(Process::is_gone).map(|_| Claim { _byte: None }),
    })
}

/// The host's name, made fit for a file name.
fn host_name() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let fit = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' };
    let name: String = name.to_string_lossy().chars().take(64).map(fit).collect();
    if name.is_empty() { "localhost".into() } else { name }
}

/// When a process started, in clock ticks since boot (proc(5), `/proc/PID/stat`, field 22).
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The second field, the command in parentheses, may hold anything.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::{Store, testing};
    use super::*;

    #[test]
    fn processes_are_told_apart() {
        let this = Process::current();
        assert!(this.start > 0);
        assert_eq!(Process::parse(&format!("{this}-0")), Some(this.clone()));
        assert!(!this.is_gone());
        assert!(Process { start: this.start + 1, ..this.clone() }.is_gone());
        assert!(!Process { host: "elsewhere".into(), start: 0, ..this }.is_gone(), "another host's can't be judged");
    }

    #[test]
    fn sweeps_only_what_the_dead_left() {
        let (_dir, store) = testing::store();
        let tmp = store.layout().tmp();
        let mine = store.draft().unwrap();
        let gone = format!("{}-9", Process { start: 1, ..Process::current() });
        for name in [format!("{gone}-0.blob"), format!("{gone}-1.draft"), "notes.txt".into()] {
            std::fs::write(tmp.join(name), "x").unwrap();
        }
        let partial = store.layout().partial(&Digest::of("x"));
        std::fs::write(&partial, "x").unwrap();
        let again = Store::open(store.path()).unwrap();
        assert!(mine.path().exists() && partial.exists() && tmp.join("notes.txt").exists());
        assert_eq!(std::fs::read_dir(&tmp).unwrap().count(), 3);
        // As a process killed between: its store is gone, its entries are not.
        let path = mine.path().to_owned();
        std::mem::forget(mine);
        drop(again);
        // The forgotten draft still holds its store, so its owner lives.
        drop(Store::open(store.path()).unwrap());
        assert!(path.exists());
    }
}
