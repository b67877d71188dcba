//! The supervisor: takes notifications and answers them until the last process of the step is gone.
//!
//! Several threads share the listener, each woken alone. Each has `/proc` as its working directory and no file mode mask: handlers rely on
//! both. A handler never waits for the step's processes, so no call can wait for itself.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use super::attributes::IDENTITY;
use super::calls::{Call, Row};
use super::inodes::{Entry, Inodes, Origin};
use super::processes::Processes;
use super::request::{Keeping, Outcome, Request, Scratch, Shared};
use super::spec::{EmulationSpec, Report};
use super::tables;
use super::{create, emulation, exec, identity, owner, removal, report, stat, xattr};
use crate::error::{Error, Kind, Result};
use crate::oci::ImagePath;
use crate::rootfs::record::Record;
use crate::sandbox::Supervision;
use crate::sys::notify::{self, Answer, Listener, Notification, Wake, Watch};
use crate::sys::seccomp::Abi;

/// More threads only wake each other: what they do is short, and the file system has locks of its own.
const MOST_WORKERS: usize = 4;
/// One thread answers 90,000 stat calls a second. On two processors a second thread made single calls slower (11 to 16 µs) and eight callers at
/// once hardly faster (11 to 9 µs).
const PROCESSORS_PER_WORKER: usize = 4;

const LISTENER: u64 = u64::MAX;
const DEATHS: u64 = u64::MAX - 1;
const STOP: u64 = u64::MAX - 2;

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
    let processes = Processes::new(spec.user.clone()).map_err(failed)?;
    let shared = Shared { listener, processes, inodes: Inodes::default(), keeping: Keeping::of_root(), upper: context.upper };
    let covered = load(&shared.inodes, spec);

    let counts = Mutex::new(BTreeMap::new());
    let (stop, open) = rustix::pipe::pipe().map_err(|e| Error::os("can't supervise root emulation", e))?;
    let open = Mutex::new(Some(open));
    let turn = Mutex::new(());
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get().div_ceil(PROCESSORS_PER_WORKER)).min(MOST_WORKERS);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|_| {
                scope.spawn(|| {
                    let result = Worker::new(&shared, (workers > 1).then_some(&turn), &stop, &proc).and_then(|mut worker| {
                        let result = worker.run();
                        worker.add_counts(&counts);
                        result
                    });
                    // The others sleep until the last copy of this end is closed.
                    drop(open.lock().map(|mut open| open.take()));
                    result
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .map_err(|_| Error::new("root emulation ended by a defect of this program").hint("please report it"))?
                .map_err(failed)
        })
    })?;
    Ok(report::report(&shared, spec, covered, counts.into_inner().unwrap_or_default()))
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

struct Worker<'s> {
    shared: &'s Shared,
    watch: Watch,
    /// Whose turn it is to take a notification; nothing to decide for a single worker.
    turn: Option<&'s Mutex<()>>,
    scratch: Scratch,
    tables: [(Abi, Vec<Option<&'static Row>>); 2],
    counts: [Vec<u64>; 2],
}

impl<'s> Worker<'s> {
    fn new(shared: &'s Shared, turn: Option<&'s Mutex<()>>, stop: &OwnedFd, proc: &OwnedFd) -> Result<Self, Errno> {
        notify::unshare_directory()?;
        rustix::process::fchdir(proc).map_err(super::procfs::errno)?;
        rustix::process::umask(Mode::empty());
        let watch = Watch::new()?;
        watch.add(shared.listener.as_fd(), LISTENER, Wake::One)?;
        watch.add(shared.processes.deaths(), DEATHS, Wake::All)?;
        watch.add(stop.as_fd(), STOP, Wake::All)?;
        let table = |abi| {
            let mut rows = vec![None; NUMBERS];
            tables::table(abi).for_each(|row| rows[row.number as usize] = Some(row));
            (abi, rows)
        };
        let native = Abi::native().ok_or(Errno::ENOSYS)?;
        let compatible = if native == Abi::X86_64 { Abi::I386 } else { native };
        let counts = [vec![0; NUMBERS], vec![0; NUMBERS]];
        Ok(Self { shared, watch, turn, scratch: Scratch::default(), tables: [table(native), table(compatible)], counts })
    }

    fn run(&mut self) -> Result<(), Errno> {
        loop {
            let (mut asked, mut ended, mut stop) = (false, false, false);
            let waited = self.watch.wait(|event| match event.token {
                LISTENER => {
                    asked = event.readable;
                    stop |= event.hung_up;
                }
                DEATHS => ended = true,
                _ => stop = true,
            });
            match waited {
                Ok(()) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
            // Before the next notification: it may come from a new process with an old number.
            if ended {
                self.shared.processes.bury();
            }
            if asked {
                self.serve()?;
            } else if stop {
                return Ok(());
            }
        }
    }

    /// Answers one notification.
    fn serve(&mut self) -> Result<(), Errno> {
        let note = match self.take() {
            Ok(note) => note,
            // Another worker was quicker, or the caller was killed.
            Err(Errno::EAGAIN | Errno::ENOENT | Errno::EINTR) => return Ok(()),
            Err(error) => return Err(error),
        };
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
        match self.shared.listener.answer(note.id, answer) {
            // The caller is gone, or has its answer together with a descriptor.
            Ok(()) | Err(Errno::ENOENT | Errno::EINPROGRESS | Errno::EINTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes a notification if there still is one. Looking and taking are one act for all workers: one who waits in the kernel for a
    /// notification would not be woken by the end of the last process (before Linux 6.11).
    fn take(&self) -> Result<Notification, Errno> {
        let Some(turn) = self.turn else { return self.shared.listener.receive() };
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.shared.listener.is_ready() { self.shared.listener.receive() } else { Err(Errno::EAGAIN) }
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
        Call::Absent => Err(Errno::ENOSYS),
        Call::SelfTest => Ok(emulation::answer_self_test(request.argument(0))),
    }
}
