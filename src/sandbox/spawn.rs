//! The caller's side: starts the sandbox process, signals it, waits for its report.

use std::borrow::Cow;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socketpair};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};

use super::enter::{self, NAME, processes, write_request};
use super::explain;
use super::spec::{IdMap, Namespace, Network, Spec};
use super::status::{Exit, Status};
use super::wire::{CONTROL_FD, Ended, HELD_FD, Hardening, Processes, REQUEST_FD, Report, Request, Run};
use crate::error::{Error, IoContext, Result};
use crate::sys::namespace::{Launch, LaunchStep, Namespaces, attempt, fork, launch};
use crate::sys::process::Forwarding;

/// What the command gets as standard input, output and error.
#[derive(Debug)]
pub struct Stdio {
    /// Standard input.
    pub stdin: Stream,
    /// Standard output.
    pub stdout: Stream,
    /// Standard error.
    pub stderr: Stream,
}

/// One of the command's standard streams.
#[derive(Debug)]
pub enum Stream {
    /// The caller's own.
    Inherit,
    /// `/dev/null`.
    Null,
    /// A pipe; the other end is in [`Running`].
    Pipe,
    /// This open file.
    File(OwnedFd),
}

/// A command that was started. Dropping it kills everything inside, as does the end of this process.
#[derive(Debug)]
pub struct Running {
    /// The end of the command's standard input, if it is a pipe.
    pub stdin: Option<PipeWriter>,
    /// The end of the command's standard output, if it is a pipe.
    pub stdout: Option<PipeReader>,
    /// The end of the command's standard error, if it is a pipe.
    pub stderr: Option<PipeReader>,
    sandbox: Sandbox,
}

/// The sandbox process, not yet waited for. Dropped, it is killed and waited for.
#[derive(Debug)]
pub(super) struct Sandbox {
    pid: Pid,
    /// Closing it tells the sandbox process to end everything.
    control: File,
    state: State,
}

#[derive(Debug)]
enum State {
    Running(Processes),
    Reaped,
}

/// What goes to the command while its caller waits.
const FORWARDED: [Signal; 8] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGWINCH, Signal::SIGCONT];

impl Running {
    /// Waits until everything inside has ended and all mounts are gone. Closes this side of the command's standard input first.
    ///
    /// Must not be put off until piped output has ended: that is when the sandbox has ended, which waits until its report is read.
    ///
    /// # Errors
    /// What could not be set up: the command was not executed then. A command that was executed gives a [`Status`], unless its
    /// root emulation broke down.
    pub fn wait(mut self) -> Result<Status> {
        drop(self.stdin.take());
        let State::Running(processes) = self.sandbox.state else { return Err(Error::new("the sandbox process was waited for before")) };
        match (self.sandbox.report()?, processes) {
            (Ok(Report::Ended { exit, notices, emulation }), _) => Ok(Status { exit: exit.into(), notices, emulation }),
            (Ok(Report::Failed(failure)), _) => Err(failure.into()),
            (Ok(Report::Probed(_)), _) => Err(Error::new("the sandbox process answered another question")),
            // It was to watch over the command and to report.
            (Err(Exit::Signal(signal)), Processes::Namespace | Processes::Adopted) => {
                Err(Error::new("the sandbox process ended before the command")
                    .cause(format!("killed by signal {signal}"))
                    .hint("if nobody killed it, the machine ran out of memory or this program has a defect"))
            }
            // It became the command itself.
            (Err(exit), _) => Ok(Status { exit, notices: Vec::new(), emulation: None }),
        }
    }

    /// As [`wait`](Self::wait); meanwhile signals sent to this process go to the command.
    ///
    /// Those are HUP, INT, QUIT, TERM, USR1, USR2, WINCH and CONT, when another process sent them: what the terminal sends
    /// (Ctrl-C) reaches the command by itself, as it is in the same process group, and does not end this process.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn wait_forwarding_signals(self) -> Result<Status> {
        let forwarding = Forwarding::start(self.sandbox.pid.as_raw().unsigned_abs(), &FORWARDED);
        let status = self.wait();
        drop(forwarding);
        status
    }

    /// Sends a signal to the command; `SIGKILL` kills everything inside.
    ///
    /// # Errors
    /// If the kernel refuses; not if the command has ended.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let signal = Signal::try_from(signal).map_err(|_| Error::input(format!("there is no signal {signal}")))?;
        // Not waited for yet, so the number still is our child's.
        match kill(self.sandbox.pid, signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
            Err(errno) => Err(Error::os("can't signal the command", errno)),
        }
    }
}

impl Running {
    /// Something by which another thread can end everything inside while this one waits.
    ///
    /// # Errors
    /// If there are no more descriptors.
    pub fn killer(&self) -> Result<Killer> {
        let control = self.sandbox.control.try_clone().map_err(|e| Error::os("can't duplicate a descriptor", e))?;
        Ok(Killer(control))
    }
}

/// Ends everything in a sandbox, from any thread; see [`Running::killer`].
#[derive(Debug)]
pub struct Killer(File);

impl Killer {
    /// Kills everything inside. Does nothing when it has ended already. A command that took the sandbox's own place
    /// (host's processes, no emulation) is not watched and goes on.
    pub fn kill(&self) {
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Both);
    }
}

impl Sandbox {
    /// Waits for the report and the end; without a report, the process' own end is all there is to say.
    pub fn report(&mut self) -> Result<Result<Report, Exit>> {
        let mut text = Vec::new();
        let read = self.control.read_to_end(&mut text);
        let exit = self.reap()?;
        read.map_err(|e| Error::os("can't read the sandbox's report", e))?;
        if text.is_empty() {
            return Ok(Err(exit));
        }
        serde_json::from_slice(&text).map(Ok).map_err(|e| Error::new("can't understand the sandbox's report").cause(e))
    }

    fn reap(&mut self) -> Result<Exit> {
        let status = loop {
            match waitpid(self.pid, None) {
                Err(nix::errno::Errno::EINTR) => {}
                result => break result,
            }
        };
        self.state = State::Reaped;
        match status.map_err(|errno| Error::os("can't wait for the sandbox process", errno))? {
            WaitStatus::Exited(_, code) => Ok(Exit::Code(code)),
            WaitStatus::Signaled(_, signal, _) => Ok(Exit::Signal(signal as i32)),
            other => Err(Error::new("can't wait for the sandbox process").cause(format!("{other:?}"))),
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        match self.state {
            State::Reaped => return,
            // It must end the others itself.
            State::Running(Processes::Adopted) => drop(shutdown(self.control.as_raw_fd(), Shutdown::Both)),
            State::Running(Processes::Namespace | Processes::Loose) => drop(kill(self.pid, Signal::SIGKILL)),
        }
        let _ = self.reap();
    }
}

impl From<Ended> for Exit {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Code(code) => Self::Code(code),
            Ended::Signal(signal) => Self::Signal(signal),
            Ended::NotFound(failure) => Self::NotFound(failure.into()),
            Ended::NotExecutable(failure) => Self::NotExecutable(failure.into()),
        }
    }
}

/// Starts the command; set-up goes on while the caller already runs, its errors come from [`Running::wait`].
///
/// With [`Namespace::Host`] processes and no emulation the command ends with the *thread* that called this, otherwise with this process.
///
/// # Errors
/// If no process or no user namespace could be made.
pub fn spawn(spec: &Spec, io: Stdio) -> Result<Running> {
    spawn_holding(spec, io, Vec::new())
}

/// [`spawn`], with descriptors that stay open until everything inside has ended, even if this process is killed before: locks, and
/// channels of [`super::MountKind::Socket`]. The command itself does not get them.
///
/// # Errors
/// As for [`spawn`].
pub fn spawn_holding(spec: &Spec, io: Stdio, held: Vec<OwnedFd>) -> Result<Running> {
    let mut streams = Streams::default();
    let stdin = streams.attach(0, io.stdin)?.map(|pipe| PipeWriter::from(pipe.ours));
    let stdout = streams.attach(1, io.stdout)?.map(|pipe| PipeReader::from(pipe.ours));
    let stderr = streams.attach(2, io.stderr)?.map(|pipe| PipeReader::from(pipe.ours));
    let count = held.len();
    streams.theirs.extend((HELD_FD..).zip(held));
    let mut run = Run { spec: Cow::Borrowed(spec), processes: processes(spec), hardening: hardening(), notices: Vec::new(), held: count };
    if run.processes == Processes::Namespace && proc_is_masked() {
        run.without_pid_namespace("the surrounding container hides parts of /proc, so this kernel refuses a fresh one");
    }
    let mut namespaces = wanted(spec, run.processes);
    let plain = Namespaces::USER.with(Namespaces::MOUNT);
    if run.processes == Processes::Loose && namespaces == plain && streams.theirs.is_empty() {
        // Nothing that could be refused and left out, nobody to watch: the quick way, unless this process has threads.
        if let Some(sandbox) = fork_sandbox(&run, namespaces)? {
            return Ok(Running { stdin, stdout, stderr, sandbox });
        }
    }
    loop {
        let started = start(&Request::Run(Box::new(run.clone())), run.processes, spec.id_map, namespaces, &streams.theirs);
        match started {
            Ok(sandbox) => return Ok(Running { stdin, stdout, stderr, sandbox }),
            Err((LaunchStep::Clone, cause)) => match run.lower(namespaces) {
                Some(fewer) => namespaces = fewer,
                None => return Err(explain::launch(LaunchStep::Clone, &cause, namespaces)),
            },
            Err((step, cause)) => return Err(explain::launch(step, &cause, namespaces)),
        }
    }
}

/// Continues in a forked child; `None` if this process can't.
fn fork_sandbox(run: &Run<'_>, namespaces: Namespaces) -> Result<Option<Sandbox>> {
    let failed = |e: std::io::Error| Error::os("can't start the sandbox process", e);
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).map_err(|errno| failed(errno.into()))?;
    let id_map = run.spec.id_map;
    let (mut ours, mut theirs) = (Some(ours), Some(theirs));
    let pid = fork(namespaces, id_map.inside_uid, id_map.inside_gid, |entered| {
        // The caller's end must close when the caller ends.
        drop(ours.take());
        let Some(control) = theirs.take() else { return 125 };
        match entered {
            Ok(()) => enter::continue_in_child(run.clone(), control),
            Err((step, cause)) => enter::refuse(&explain::launch(step, &cause, namespaces), control),
        }
    });
    match (pid, ours) {
        (Ok(pid), Some(ours)) => {
            let state = State::Running(run.processes);
            Ok(Some(Sandbox { pid: Pid::from_raw(pid.cast_signed()), control: File::from(ours), state }))
        }
        (Err(e), _) if e.raw_os_error() == Some(libc::EBUSY) => Ok(None),
        (Err(e), _) => Err(failed(e)),
        (Ok(_), None) => Ok(None),
    }
}

/// Starts a sandbox process on a request.
pub(super) fn start(
    request: &Request<'_>,
    processes: Processes,
    id_map: IdMap,
    namespaces: Namespaces,
    streams: &[(RawFd, OwnedFd)],
) -> Result<Sandbox, (LaunchStep, std::io::Error)> {
    let before = |e| (LaunchStep::Descriptors, e);
    let request = write_request(request).map_err(|e| before(e.into()))?;
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).map_err(|errno| before(errno.into()))?;
    let mut descriptors: Vec<(BorrowedFd<'_>, RawFd)> = streams.iter().map(|(number, fd)| (fd.as_fd(), *number)).collect();
    descriptors.extend([(request.as_fd(), REQUEST_FD), (theirs.as_fd(), CONTROL_FD)]);
    let pid = launch(&Launch {
        program: c"/proc/self/exe",
        name: NAME,
        descriptors: &descriptors,
        namespaces,
        inside_uid: id_map.inside_uid,
        inside_gid: id_map.inside_gid,
    })?;
    Ok(Sandbox { pid: Pid::from_raw(pid.cast_signed()), control: File::from(ours), state: State::Running(processes) })
}

/// The command's ends of pipes and opened files, and what is only held, by the number they get.
#[derive(Default)]
struct Streams {
    theirs: Vec<(RawFd, OwnedFd)>,
}

/// The caller's end of a pipe.
struct Pipe {
    ours: OwnedFd,
}

impl Streams {
    fn attach(&mut self, number: RawFd, stream: Stream) -> Result<Option<Pipe>> {
        let fail = |e| Error::os("can't make a pipe", e);
        let (theirs, ours) = match stream {
            Stream::Inherit => return Ok(None),
            Stream::File(file) => (file, None),
            Stream::Null => {
                let path = std::path::Path::new("/dev/null");
                (OwnedFd::from(File::options().read(true).write(true).open(path).doing("open", path)?), None)
            }
            Stream::Pipe => {
                let (reader, writer) = std::io::pipe().map_err(fail)?;
                let (reader, writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
                if number == 0 { (reader, Some(Pipe { ours: writer })) } else { (writer, Some(Pipe { ours: reader })) }
            }
        };
        self.theirs.push((number, theirs));
        Ok(ours)
    }
}

impl Run<'_> {
    fn without_pid_namespace(&mut self, why: &str) {
        self.processes = Processes::Adopted;
        self.notices.push(format!("{why}; the command runs without a PID namespace of its own"));
    }

    /// What can be asked for instead of these namespaces, of which one is refused: those that are not needed for what was
    /// promised to the command.
    fn lower(&mut self, namespaces: Namespaces) -> Option<Namespaces> {
        let base = Namespaces::USER.with(Namespaces::MOUNT);
        attempt(base).ok()?;
        for (kind, name, _) in explain::KINDS {
            if kind == Namespaces::NETWORK || !namespaces.contains(kind) || attempt(Namespaces::USER.with(kind)).is_ok() {
                continue;
            }
            if kind == Namespaces::PID {
                self.without_pid_namespace("this machine refuses PID namespaces");
            } else {
                self.notices.push(format!("this machine refuses {name}; the command shares the host's"));
            }
            if kind == Namespaces::UTS {
                self.spec.to_mut().hostname = None;
            }
            return Some(namespaces.without(kind));
        }
        None
    }
}

fn wanted(spec: &Spec, processes: Processes) -> Namespaces {
    let mut namespaces = Namespaces::USER.with(Namespaces::MOUNT);
    for (wanted, kind) in [
        (processes == Processes::Namespace, Namespaces::PID),
        (spec.ipc == Namespace::Private, Namespaces::IPC),
        (spec.hostname.is_some(), Namespaces::UTS),
        (spec.network == Network::None, Namespaces::NETWORK),
    ] {
        if wanted {
            namespaces = namespaces.with(kind);
        }
    }
    namespaces
}

/// What container engines and service managers cover: runtime-spec's default masked and read-only paths, systemd's
/// `ProtectKernelTunables=`. With any of them covered the kernel allows no fresh `/proc` (`mount_too_revealing` in fs/namespace.c).
const COVERED: [&str; 10] = [
    "/proc/sys",
    "/proc/kcore",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/sysrq-trigger",
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/acpi",
    "/proc/scsi",
];

/// Whether something is mounted over a part of `/proc`. A guess: the mount itself is tried in any case.
fn proc_is_masked() -> bool {
    COVERED.iter().any(|path| {
        rustix::fs::statx(rustix::fs::CWD, *path, AtFlags::NO_AUTOMOUNT | AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())
            .is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    })
}

/// Only the machine's root owns what must be protected.
fn hardening() -> Hardening {
    let root_of_all = rustix::process::geteuid().is_root()
        && std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]));
    if root_of_all { Hardening::Needed } else { Hardening::Needless }
}
