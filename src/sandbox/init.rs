//! PID 1: starts the command, adopts and reaps, passes signals on, runs root emulation's supervisor, cleans up.
//!
//! Where there is no PID namespace it does the same as a subreaper, and kills what it adopted at the end.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socketpair};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags};
use serde_json::Value;

use super::command::{self, Install};
use super::emulator::{Emulator, Supervision};
use super::enter::Inherited;
use super::mounts::{Built, ProcKind, remove_stubs};
use super::wire::{Ended, Processes, Report, Run};
use crate::error::{Error, Result};
use crate::sys::process::{self, Forked};

/// What init needs.
pub(super) struct Init<'a> {
    run: &'a Run<'a>,
    built: Built,
    callers: Inherited,
    emulator: &'a dyn Emulator,
    control: OwnedFd,
}

/// What the command's process said before it became the command.
enum Message {
    Listener(OwnedFd),
    /// A report that ends everything.
    Refused(Report),
    /// It became the command, or died.
    Nothing,
}

impl<'a> Init<'a> {
    pub fn new(run: &'a Run<'a>, built: Built, callers: Inherited, emulator: &'a dyn Emulator, control: OwnedFd) -> Self {
        Self { run, built, callers, emulator, control }
    }

    /// Runs the command to its end, and everything it left behind.
    pub fn run(mut self, notices: Vec<String>) -> Result<Report> {
        let report = self.run_command(notices);
        remove_stubs(&self.built.stubs);
        report
    }

    fn run_command(&mut self, notices: Vec<String>) -> Result<Report> {
        let signals = self.take_signals()?;
        let emulation = self.run.spec.emulation.as_ref();
        let prepared = emulation.map_or(Ok(Value::Null), |spec| self.emulator.prepare(spec))?;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|errno| Error::os("can't make a socket pair", errno))?;
        let command = match process::fork().map_err(|e| Error::os("can't start a process", e))? {
            Forked::Child => self.become_command(theirs),
            Forked::Parent(pid) => Pid::from_raw(pid.cast_signed()),
        };
        drop(theirs);
        let listener = match &self.run.spec.emulation {
            Some(spec) => match receive(&ours)? {
                Message::Listener(listener) => Some((spec, listener)),
                Message::Refused(report) => return Ok(report),
                Message::Nothing => None,
            },
            None => None,
        };
        let upper = self.built.upper.take();
        let (status, emulation) = std::thread::scope(|scope| {
            let supervisor = listener.map(|(spec, listener)| {
                let context = self.supervision(command, upper);
                let emulator = self.emulator;
                scope.spawn(move || supervise(emulator, spec, listener, context, command))
            });
            let status = self.watch(&signals, command);
            self.kill_rest();
            (status, supervisor.map(std::thread::ScopedJoinHandle::join))
        });
        let emulation = match emulation {
            Some(Ok(value)) => Some(value?),
            Some(Err(_)) => return Err(Error::new("root emulation ended unexpectedly")),
            None if status.is_err() => None,
            None => self.run.spec.emulation.as_ref().map_or(Ok(None), |spec| self.emulator.conclude(spec, &prepared))?,
        };
        // Said only if it never became the command.
        match receive(&ours)? {
            Message::Refused(Report::Ended { exit, .. }) => Ok(Report::Ended { exit, notices, emulation }),
            Message::Refused(report) => Ok(report),
            Message::Nothing | Message::Listener(_) => Ok(Report::Ended { exit: status?, notices, emulation }),
        }
    }

    /// Gets signals and orphans from now on.
    fn take_signals(&self) -> Result<SignalFd> {
        let fail = |errno: Errno| Error::os("can't watch signals", errno);
        SigSet::all().thread_block().map_err(fail)?;
        if self.run.processes != Processes::Namespace {
            rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
                .map_err(|errno| Error::os("can't adopt processes", errno))?;
        }
        SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(fail)
    }

    fn become_command(&self, channel: OwnedFd) -> ! {
        let emulator = self.emulator;
        let install = self.run.spec.emulation.as_ref().map(|spec| Install { emulator, spec, channel: channel.as_fd() });
        let refusal = command::become_command(&self.run.spec, &self.callers, install);
        command::report_refusal(channel, refusal);
        std::process::exit(127)
    }

    fn supervision(&self, command: Pid, upper: Option<OwnedFd>) -> Result<Supervision> {
        let open = |path| rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let root = open("/").map_err(|errno| Error::os("can't open the root directory", errno))?;
        let proc = if self.built.proc == ProcKind::Own { open("/proc").ok() } else { None };
        Ok(Supervision { root, upper, proc, command: command.as_raw().unsigned_abs() })
    }

    /// Reaps and forwards until the command ends, or the caller does.
    fn watch(&self, signals: &SignalFd, command: Pid) -> Result<Ended> {
        loop {
            let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(self.control.as_fd(), PollFlags::empty())];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::os("can't watch signals", errno)),
            }
            if fds[1].any() == Some(true) {
                return Err(Error::new("the caller is gone"));
            }
            while let Ok(Some(info)) = signals.read_signal() {
                let signal = Signal::try_from(info.ssi_signo.cast_signed());
                if signal == Ok(Signal::SIGCHLD) {
                    if let Some(ended) = reap(command) {
                        return Ok(ended);
                    }
                } else if info.ssi_code <= 0
                    && let Ok(signal) = signal
                {
                    // Sent by a process. What the terminal sends has reached the command already.
                    let _ = kill(command, signal);
                }
            }
        }
    }

    /// Kills and reaps everything but this process.
    fn kill_rest(&self) {
        loop {
            if self.run.processes == Processes::Namespace {
                // As PID 1: all others of this namespace.
                let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
            } else {
                for child in children() {
                    let _ = kill(child, Signal::SIGKILL);
                }
            }
            match waitpid(None, None) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
}

/// Runs the supervisor on its thread. Without it the command would wait for ever for an answer, so it does not survive it.
fn supervise(emulator: &dyn Emulator, spec: &Value, listener: OwnedFd, context: Result<Supervision>, command: Pid) -> Result<Value> {
    let result = context.and_then(|context| emulator.supervise(spec, listener, context));
    if result.is_err() {
        let _ = kill(command, Signal::SIGKILL);
    }
    result
}

/// Reaps whoever ended; how the command ended, if it was among them.
fn reap(command: Pid) -> Option<Ended> {
    let mut ended = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == command => ended = Some(Ended::Code(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == command => ended = Some(Ended::Signal(signal as i32)),
            Ok(WaitStatus::StillAlive) | Err(_) => return ended,
            Ok(_) => {}
        }
    }
}

/// This process' children.
fn children() -> Vec<Pid> {
    let path = format!("/proc/self/task/{}/children", std::process::id());
    let list = std::fs::read_to_string(path).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect()
}

/// Waits for a message from the command's process.
fn receive(channel: &OwnedFd) -> Result<Message> {
    let mut buffer = vec![0; 256 * 1024];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
    let fail = |errno: Errno| Error::os("can't hear from the command's process", errno);
    let (length, fd) = {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let message = recvmsg::<()>(channel.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).map_err(fail)?;
        let fds = message.cmsgs().map_err(fail)?.find_map(|part| match part {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        });
        (message.bytes, fds)
    };
    if let Some(fd) = fd {
        return Ok(Message::Listener(process::received(fd)));
    }
    if length == 0 {
        return Ok(Message::Nothing);
    }
    serde_json::from_slice(&buffer[..length])
        .map(Message::Refused)
        .map_err(|e| Error::new("can't understand the command's process").cause(e))
}
