//! The processes of a step: who they are, what they inherit, when they are gone.
//!
//! Fork is not intercepted. A process is met at its first notification and takes its parent's credentials then. What could go wrong between
//! fork and that moment is prevented where it would: before a process changes its credentials, and before one with credentials of its own
//! ends, all its children are met ([`Processes::meet_children`]). What is left is a parent killed by a signal before its child made one
//! noticed call; such an orphan takes the credentials of its process group's or session's leader.
//!
//! A process descriptor for each tells of its death before its number can be used again. Where there are more processes than descriptors to be
//! had, the rest are asked for their time of birth at every call.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use nix::errno::Errno;

use super::credentials::Credentials;
use super::graft::Grafts;
use super::procfs::{self, Mark, RootIdentity};
use super::spec::User;
use crate::sys::notify::{self, Interest, Watch};

/// Whether a process sees the same files under the same names as the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// It does.
    Shared,
    /// It has, or may have, its own root directory or mount namespace.
    Own,
}

/// Who makes a call.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The process (thread group).
    pub process: u32,
    /// What it believes to be.
    pub credentials: Arc<Credentials>,
    /// What it sees.
    pub view: View,
}

/// All processes met and still alive.
pub struct Processes {
    table: Mutex<Table>,
    deaths: Watch,
    user: User,
    initial: OnceLock<Arc<Credentials>>,
    root: RootIdentity,
    serial: AtomicU32,
    /// Descriptors with higher numbers are for the workers' own use.
    highest: i32,
}

#[derive(Default)]
struct Table {
    live: HashMap<u32, Process>,
    /// Threads other than the first of a process.
    threads: HashMap<u32, u32>,
    /// Credentials other than the initial ones, of processes that are gone; for orphans they leave in their process group.
    departed: HashMap<u32, Arc<Credentials>>,
}

struct Process {
    number: u32,
    /// Tells it from another process of this number.
    serial: u32,
    credentials: Arc<Credentials>,
    view: View,
    pending: Option<Pending>,
    descriptor: Option<OwnedFd>,
    began: u64,
    grafts: Grafts,
}

impl Process {
    fn caller(&self) -> Caller {
        Caller { process: self.number, credentials: Arc::clone(&self.credentials), view: self.view }
    }

    /// By which the kernel tells of its death.
    fn token(&self) -> u64 {
        u64::from(self.serial) << 32 | u64::from(self.number)
    }
}

/// Credentials that hold once an exec, let through to the kernel, has succeeded.
struct Pending {
    credentials: Arc<Credentials>,
    thread: u32,
    before: Mark,
}

/// So many descriptors are left for the workers' own use.
const RESERVED: u64 = 64;
/// So many threads are remembered before all are forgotten; they can be asked for again.
const THREADS: usize = 4096;
/// A chain of unmet ancestors longer than this is not a chain.
const ANCESTORS: usize = 64;

impl Processes {
    /// No processes yet; the first will be this user.
    pub fn new(user: User) -> Result<Self, Errno> {
        let root = RootIdentity::own()?;
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        let highest = i32::try_from(limit.saturating_sub(RESERVED)).unwrap_or(i32::MAX);
        Ok(Self {
            table: Mutex::default(),
            deaths: Watch::new()?,
            user,
            initial: OnceLock::new(),
            root,
            serial: AtomicU32::new(0),
            highest,
        })
    }

    /// Forgets the processes that have ended. To be called before a notification is looked at: it may come from a new process with an old
    /// number.
    pub fn bury(&self) {
        let _ = self.deaths.poll(|event| {
            let process = event.token as u32;
            let mut table = self.lock();
            // Another worker may have buried it already and met a new process of its number.
            if table.live.get(&process).is_some_and(|known| known.token() == event.token)
                && let Some(gone) = table.live.remove(&process)
            {
                let last = gone.pending.map_or(gone.credentials, |pending| pending.credentials);
                if self.is_initial(&last) {
                    table.departed.remove(&process);
                } else {
                    table.departed.insert(process, last);
                }
            }
        });
    }

    /// The process a thread belongs to.
    pub fn caller(&self, thread: u32) -> Result<Caller, Errno> {
        if let Some(caller) = self.known(thread) {
            return Ok(caller);
        }
        let process = self.process_of(thread)?;
        self.meet(process, ANCESTORS)?;
        self.settle(process, thread);
        self.lock().live.get(&process).map(Process::caller).ok_or(Errno::ESRCH)
    }

    /// The usual case, which costs one look at the table: a process that can't have ended unnoticed, and no exec to be decided about.
    fn known(&self, thread: u32) -> Option<Caller> {
        let table = self.lock();
        let process = match table.threads.get(&thread) {
            _ if table.live.contains_key(&thread) => thread,
            Some(&process) if notify::is_thread_of(process, thread) => process,
            _ => return None,
        };
        let entry = table.live.get(&process)?;
        (entry.descriptor.is_some() && entry.pending.is_none()).then(|| entry.caller())
    }

    fn process_of(&self, thread: u32) -> Result<u32, Errno> {
        if notify::is_thread_of(thread, thread) {
            return Ok(thread);
        }
        let process = procfs::process_of(thread)?;
        let mut table = self.lock();
        if table.threads.len() >= THREADS {
            table.threads.clear();
        }
        table.threads.insert(thread, process);
        Ok(process)
    }

    /// Credentials of a process by number, alive or not.
    pub fn credentials_of(&self, process: u32) -> Option<Arc<Credentials>> {
        if let Ok(caller) = self.caller(process) {
            return Some(caller.credentials);
        }
        self.lock().departed.get(&process).cloned()
    }

    /// The mount that the step's root file system is, as statx tells it.
    pub fn root_mount(&self) -> u64 {
        self.root.mount()
    }

    /// Whether these are what the first process began with: what everyone has of whom nothing else is known.
    pub fn is_initial(&self, credentials: &Credentials) -> bool {
        self.initial.get().is_some_and(|initial| **initial == *credentials)
    }

    /// Gives a process other credentials, after its children have been met with the old ones.
    pub fn change<T>(&self, caller: &Caller, change: impl FnOnce(&mut Credentials) -> Result<T, Errno>) -> Result<T, Errno> {
        let mut credentials = Credentials::clone(&caller.credentials);
        let value = change(&mut credentials)?;
        if credentials != *caller.credentials {
            self.meet_children(caller.process);
            if let Some(process) = self.lock().live.get_mut(&caller.process) {
                process.credentials = Arc::new(credentials);
            }
        }
        Ok(value)
    }

    /// Credentials that will hold if the exec the thread is about to do succeeds.
    pub fn change_on_exec(&self, caller: &Caller, thread: u32, credentials: Credentials) -> Result<(), Errno> {
        let before = Mark::of(caller.process)?;
        self.meet_children(caller.process);
        if let Some(process) = self.lock().live.get_mut(&caller.process) {
            process.pending = Some(Pending { credentials: Arc::new(credentials), thread, before });
        }
        Ok(())
    }

    /// Looks at or changes what is known of a process's grafts.
    pub fn with_grafts<T>(&self, process: u32, look: impl FnOnce(&mut Grafts) -> T) -> Option<T> {
        self.lock().live.get_mut(&process).map(|process| look(&mut process.grafts))
    }

    /// From now on the process, those that share its directories, and what it forks, may see other files.
    pub fn lose_view(&self, process: u32) {
        for (&other, entry) in &mut self.lock().live {
            if other == process || (entry.view == View::Shared && notify::share_directories(process, other)) {
                entry.view = View::Own;
            }
        }
    }

    /// Meets all children of a process, so that they have its credentials of now.
    pub fn meet_children(&self, process: u32) {
        // A child that can't be met is gone.
        procfs::for_each_child(process, |child| self.meet(child, 1).unwrap_or_default());
    }

    /// Copies a descriptor of a process.
    pub fn copy_descriptor(&self, process: u32, number: i32) -> Result<OwnedFd, Errno> {
        let table = self.lock();
        let descriptor = table.live.get(&process).and_then(|process| process.descriptor.as_ref()).ok_or(Errno::ESRCH)?;
        notify::copy_descriptor(descriptor.as_fd(), number)
    }

    /// Makes sure that the process is in the table.
    fn meet(&self, process: u32, ancestors: usize) -> Result<(), Errno> {
        match self.lock().live.get(&process) {
            Some(Process { descriptor: Some(_), .. }) => return Ok(()),
            Some(Process { began, .. }) if procfs::family_of(process)?.began == *began => return Ok(()),
            _ => {}
        }
        // First the descriptor: what is read after it is about this process or about none.
        let descriptor = match notify::open_process(process) {
            Ok(descriptor) => Some(descriptor).filter(|descriptor| descriptor.as_raw_fd() < self.highest),
            Err(Errno::EMFILE | Errno::ENFILE) => None,
            Err(error) => return Err(error),
        };
        let family = procfs::family_of(process)?;
        let own = std::process::id();
        let alone = family.parent <= 1 || family.parent == own || ancestors == 0;
        let inherited = match alone {
            true => None,
            false => {
                let _ = self.meet(family.parent, ancestors - 1);
                self.settle(family.parent, 0);
                self.lock().live.get(&family.parent).map(|parent| (Arc::clone(&parent.credentials), parent.view))
            }
        };
        let (credentials, view) = match inherited {
            Some(inherited) => inherited,
            None => (self.of_orphan(process, family.group, family.session), View::Shared),
        };
        // A parent that has lost its view may have a child in the common one, and clone may have given the child a view of its own.
        let view = match RootIdentity::of(process) {
            Ok(root) if root == self.root => View::Shared,
            Ok(_) => View::Own,
            Err(_) => view,
        };
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let met = Process {
            number: process,
            serial,
            credentials,
            view,
            pending: None,
            descriptor,
            began: family.began,
            grafts: Grafts::default(),
        };
        if let Some(descriptor) = &met.descriptor {
            self.deaths.add(descriptor.as_fd(), met.token(), Interest::Input)?;
        }
        let mut table = self.lock();
        table.departed.remove(&process);
        // Another worker may have met it, too; an entry of another birth is that of a dead process.
        if table.live.get(&process).is_none_or(|known| known.began != family.began) {
            table.live.insert(process, met);
        }
        Ok(())
    }

    fn of_orphan(&self, process: u32, group: u32, session: u32) -> Arc<Credentials> {
        let table = self.lock();
        for leader in [group, session] {
            if leader == process {
                continue;
            }
            let known = table.live.get(&leader).map(|leader| &leader.credentials).or_else(|| table.departed.get(&leader));
            if let Some(credentials) = known {
                return Arc::clone(credentials);
            }
        }
        drop(table);
        let first = || {
            let User { uid, gid, groups } = self.user.clone();
            Arc::new(Credentials::new(uid, gid, groups, procfs::bounding_of(process)))
        };
        Arc::clone(self.initial.get_or_init(first))
    }

    /// Decides whether a pending exec has succeeded.
    fn settle(&self, process: u32, thread: u32) {
        let mut table = self.lock();
        let Some(entry) = table.live.get_mut(&process) else { return };
        let Some(pending) = &entry.pending else { return };
        let now = Mark::of(process);
        if now.is_ok_and(|now| now != pending.before) {
            entry.credentials = Arc::clone(&pending.credentials);
            entry.pending = None;
        } else if pending.thread == thread {
            // The thread that called exec calls again in the same program: exec has failed.
            entry.pending = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
