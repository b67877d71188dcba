//! The supervisor: takes notifications and answers them until the last process of the step is gone.
//!
//! Several threads do it ([`super::rota`]). Each has `/proc` as its working directory and no file mode mask: handlers rely on both.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::thread::{Builder, Scope, ScopedJoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::attributes::IDENTITY;
use super::calls::{Call, Row};
use super::graft::Grafting;
use super::inodes::{Entry, Inodes, Origin};
use super::processes::Processes;
use super::request::{Keeping, Outcome, Request, Scratch, Shared};
use super::rota::{Duty, Look, Rota};
use super::spec::{EmulationSpec, Report};
use super::tables;
use super::{access, create, emulation, exec, identity, owner, removal, report, stat, xattr};
use crate::error::{Error, Kind, Result};
use crate::oci::ImagePath;
use crate::rootfs::record::Record;
use crate::sandbox::Supervision;
use crate::sys::notify::{self, Answer, Interest, Listener, Notification, Watch};
use crate::sys::seccomp::Abi;

/// More at once only wait for each other: what they do is short, and the file system has locks of its own.
const MOST_AT_ONCE: usize = 4;
/// One thread answers 100,000 stat calls a second; the callers want processors, too.
const PROCESSORS_PER_THREAD: usize = 4;
/// How long a handler may be at a file before others must not wait for it any longer.
const PATIENCE: Duration = Duration::from_millis(50);
/// All numbers of the tables are below.
const NUMBERS: usize = 512;

/// Answers until the last filtered process is gone; then says what it found.
pub fn supervise(spec: &EmulationSpec, listener: OwnedFd, context: Supervision) -> Result<Report> {
    let failed = |e: Errno| Error::os("can't supervise root emulation", std::io::Error::from(e));
    let listener = Listener::new(listener).map_err(|e| Error::os("can't supervise root emulation", e))?;
    let proc = context.proc.ok_or_else(|| {
        Error::with_kind(Kind::Unsupported, "root emulation needs a `/proc` of the step's own processes")
            .hint("inside another container, allow it to mount /proc (for Docker `--security-opt systempaths=unconfined`)")
    })?;
    allow_many_descriptors();
    let processes = Processes::new(spec.user.clone()).map_err(failed)?;
    let keeping = Keeping::of_root();
    let shared = Shared { listener, processes, inodes: Inodes::default(), keeping, upper: context.upper, grafting: Grafting::default() };
    let covered = load(&shared.inodes, spec);

    let counts = Mutex::new(BTreeMap::new());
    let rota = Rota::new(&shared.listener, spec.at_once.unwrap_or_else(at_once));
    let crew = Crew { shared: &shared, rota: &rota, proc: &proc, counts: &counts };
    crew.work()?;
    Ok(report::report(&shared, spec, covered, counts.into_inner().unwrap_or_default()))
}

fn at_once() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().div_ceil(PROCESSORS_PER_THREAD)).min(MOST_AT_ONCE)
}

/// There is a descriptor for each process of the step; the command got its limit before.
fn allow_many_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Without it the rest of the processes costs more.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// The threads, and what they share.
#[derive(Clone, Copy)]
struct Crew<'s> {
    shared: &'s Shared,
    rota: &'s Rota<'s>,
    proc: &'s OwnedFd,
    counts: &'s Mutex<BTreeMap<String, u64>>,
}

type Work<'scope> = ScopedJoinHandle<'scope, Result<(), Errno>>;

impl<'s> Crew<'s> {
    /// Has as many threads work as there should be, and ends them with the last process; or when one fails, since its caller waits for an
    /// answer that will not come.
    fn work(self) -> Result<()> {
        let failed = |e: Errno| Error::os("can't supervise root emulation", std::io::Error::from(e));
        let over = Watch::new().map_err(failed)?;
        over.add(self.shared.listener.as_fd(), 0, Interest::End).map_err(failed)?;
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            let mut last = Look::default();
            let mut result = self.fill(scope, &mut threads);
            let mut ended = false;
            while !ended && result.is_ok() && !self.rota.has_failed() {
                result = match over.wait(PATIENCE, |event| ended |= event.hung_up) {
                    Ok(()) | Err(Errno::EINTR) => Ok(()),
                    Err(errno) => Err(errno),
                };
                self.rota.look(&mut last);
                // If no thread can be had now, perhaps next time.
                let _ = self.fill(scope, &mut threads);
            }
            self.rota.end();
            let join = |thread: Work<'_>| match thread.join() {
                Ok(result) => result.map_err(failed),
                Err(_) => Err(Error::new("root emulation ended by a defect of this program").hint("please report it")),
            };
            threads.into_iter().map(join).fold(result.map_err(failed), Result::and)
        })
    }

    /// Starts the threads that are missing.
    fn fill<'scope>(self, scope: &'scope Scope<'scope, '_>, threads: &mut Vec<Work<'scope>>) -> Result<(), Errno>
    where
        's: 'scope,
    {
        while threads.len() < self.rota.size() {
            let started = Builder::new().name("root-emulation".into()).spawn_scoped(scope, move || self.serve());
            threads.push(started.map_err(|e| e.raw_os_error().map_or(Errno::EAGAIN, Errno::from_raw))?);
        }
        Ok(())
    }

    /// What each thread does.
    fn serve(self) -> Result<(), Errno> {
        let mut duty = self.rota.enter();
        let mut worker = Worker::new(self.shared, self.proc)?;
        while let Some(note) = duty.next()? {
            worker.answer(note, &duty)?;
            duty.answered();
        }
        worker.add_counts(self.counts);
        Ok(())
    }
}

/// Enters what the layers and the mounts say of their files. Gives back what the layers say of files that a mount covers.
fn load(inodes: &Inodes, spec: &EmulationSpec) -> Record {
    let mut covered = Record::default();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if let Ok(root) = rustix::fs::open(c"/", flags, Mode::empty()) {
        for path in spec.layers().entries() {
            match report::look_within(&root, path) {
                Ok(native) => inodes.insert(&native, entry(spec.layers(), path)),
                Err(rustix::io::Errno::XDEV) => covered.adopt(path, spec.layers(), path),
                Err(_) => {}
            }
        }
    }
    for path in spec.mounted().entries() {
        let name = [b"/", path.as_bytes()].concat();
        if let Ok(native) = rustix::fs::statx(CWD, name, AtFlags::SYMLINK_NOFOLLOW, IDENTITY) {
            inodes.insert(&native, entry(spec.mounted(), path));
        }
    }
    covered
}

fn entry(said: &Record, path: &ImagePath) -> Entry {
    let xattrs = said.xattrs.get(path).cloned().unwrap_or_default();
    Entry { over: said.overrides.get(path).copied(), xattrs, path: Some(path.clone()), ..Entry::new(Origin::Layers) }
}

/// What answers, with memory of its own.
struct Worker<'s> {
    shared: &'s Shared,
    scratch: Scratch,
    tables: [(Abi, Vec<Option<&'static Row>>); 2],
    counts: [Vec<u64>; 2],
}

impl<'s> Worker<'s> {
    /// Makes the calling thread fit for handlers.
    fn new(shared: &'s Shared, proc: &OwnedFd) -> Result<Self, Errno> {
        notify::allow_interrupts()?;
        notify::unshare_directory()?;
        rustix::process::fchdir(proc).map_err(super::procfs::errno)?;
        rustix::process::umask(Mode::empty());
        let table = |abi| {
            let mut rows = vec![None; NUMBERS];
            tables::table(abi).for_each(|row| rows[row.number as usize] = Some(row));
            (abi, rows)
        };
        let native = Abi::native().ok_or(Errno::ENOSYS)?;
        let compatible = if native == Abi::X86_64 { Abi::I386 } else { native };
        let counts = [vec![0; NUMBERS], vec![0; NUMBERS]];
        Ok(Self { shared, scratch: Scratch::default(), tables: [table(native), table(compatible)], counts })
    }

    /// Answers one notification.
    fn answer(&mut self, note: Notification, duty: &Duty<'_>) -> Result<(), Errno> {
        // It may come from a new process with an old number.
        self.shared.processes.bury();
        let abi = Abi::from_audit(note.arch);
        let index = self.tables.iter().position(|(known, _)| Some(*known) == abi);
        let row = index.and_then(|index| {
            let row = *self.tables[index].1.get(note.number as usize)?;
            self.counts[index][note.number as usize] += 1;
            row
        });
        let answer = match row {
            Some(row) => {
                let request = Request { shared: self.shared, note, row };
                dispatch(&request, &mut self.scratch).unwrap_or_else(Answer::Fail)
            }
            None => Answer::Fail(Errno::ENOSYS),
        };
        if row.is_some_and(|row| row.call == Call::Exit) {
            // The parent, which will get SIGCHLD, may be calling.
            duty.receive_waiting();
        }
        match self.shared.listener.answer(note.id, answer) {
            // The caller is gone, or has its answer together with a descriptor.
            Ok(()) | Err(Errno::ENOENT | Errno::EINPROGRESS | Errno::EINTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn add_counts(&self, sum: &Mutex<BTreeMap<String, u64>>) {
        let Ok(mut sum) = sum.lock() else { return };
        for ((_, rows), counts) in self.tables.iter().zip(&self.counts) {
            for (row, &count) in rows.iter().zip(counts).filter(|(_, count)| **count > 0) {
                *sum.entry(row.map_or("?".into(), |row| format!("{:?}", row.call))).or_default() += count;
            }
        }
    }
}

fn dispatch(request: &Request<'_>, scratch: &mut Scratch) -> Outcome {
    match request.row.call {
        Call::Stat(layout) => stat::stat(request, scratch, layout),
        Call::Statx => stat::statx(request, scratch),
        Call::Access | Call::AccessWithFlags => access::access(request, scratch),
        Call::Open => create::open(request, scratch),
        Call::Openat2 => create::openat2(request, scratch),
        Call::Creat => create::creat(request, scratch),
        Call::Mkdir => create::mkdir(request, scratch),
        Call::Mknod => create::mknod(request, scratch),
        Call::Symlink => create::symlink(request, scratch),
        Call::Bind => create::bind(request),
        Call::Chown(width) => owner::chown(request, scratch, width),
        Call::Chmod => owner::chmod(request, scratch),
        Call::Move => owner::before_move(request, scratch),
        Call::Rename | Call::RenameWithFlags => {
            owner::before_move(request, scratch)?;
            removal::rename(request, scratch)
        }
        Call::Remove | Call::RemoveDirectory => removal::remove(request, scratch),
        Call::SetXattr => xattr::set_call(request, scratch),
        Call::SetXattrAt => xattr::set_call_at(request, scratch),
        Call::GetXattr => xattr::get_call(request, scratch),
        Call::GetXattrAt => xattr::get_call_at(request, scratch),
        Call::ListXattr => xattr::list_call(request, scratch),
        Call::RemoveXattr => xattr::remove_call(request, scratch),
        Call::Identity(call, width) => identity::identity(request, call, width),
        Call::Capget => identity::capget(request),
        Call::Capset => identity::capset(request),
        Call::Prctl => identity::prctl(request),
        Call::PeerCredentials => identity::peer_credentials(request),
        Call::Exec => exec::exec(request, scratch),
        Call::Exit => exec::exit(request),
        Call::View => exec::change_view(request),
        Call::Restrict => exec::restrict(request),
        Call::Absent => Err(Errno::ENOSYS),
        Call::SelfTest => Ok(emulation::answer_self_test(request.argument(0))),
    }
}
