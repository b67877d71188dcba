//! Installing the filter, testing it, and starting the supervisor: what the sandbox calls.

use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fakeroot::{self, After, Before};
use super::filter::{self, Watched};
use super::spec::{EmulationSpec, Mode};
use super::{removal, supervisor};
use crate::error::{Error, Kind, Result};
use crate::sandbox::{Emulator, Supervision};
use crate::sys::notify::{Answer, Listener};
use crate::sys::seccomp::{self, Abi};

/// Root emulation as the sandbox knows it.
pub struct Emulation;

/// What the self-test's first call must return; 0 would also be the answer of a filter that is about success.
const ANSWER: i64 = 0x726f_6f74;
/// First argument of the self-test's two calls: one is answered, one passed on to the kernel.
const ANSWERED: u64 = 1;
const PASSED: u64 = 2;

impl Emulation {
    /// The best mode that works here, and why not a better one.
    ///
    /// Tries it: installs the filter in a thread, which ends afterwards.
    pub fn choose() -> (Mode, Option<Error>) {
        match try_out(Mode::Consistent) {
            Ok(()) => (Mode::Consistent, None),
            Err(error) => match try_out(Mode::SuccessOnly) {
                Ok(()) => (Mode::SuccessOnly, Some(error)),
                Err(error) => (Mode::None, Some(error)),
            },
        }
    }
}

impl Emulator for Emulation {
    fn install(&self, spec: &Value) -> Result<Option<OwnedFd>> {
        let spec = EmulationSpec::from_value(spec)?;
        install(spec.mode, Watched { moves: !spec.layers().is_empty() && is_overlay(), removals: removal::matters(), exits: true })
    }

    fn confirm(&self, spec: &Value) -> Result<()> {
        confirm(EmulationSpec::from_value(spec)?.mode)
    }

    fn prepare(&self, spec: &Value) -> Result<Value> {
        let spec = EmulationSpec::from_value(spec)?;
        spec.pretence.as_ref().map_or(Ok(Value::Null), |pretence| to_value(&fakeroot::recall(&spec, pretence)?))
    }

    fn conclude(&self, spec: &Value, prepared: &Value) -> Result<Option<Value>> {
        let spec = EmulationSpec::from_value(spec)?;
        let Some(pretence) = spec.pretence.as_ref().filter(|pretence| pretence.after == After::Kept) else { return Ok(None) };
        let before = Before::deserialize(prepared).map_err(|e| Error::new("can't read what was true before the command").cause(e))?;
        fakeroot::keep(&spec, pretence, &before)?.map(|report| to_value(&report)).transpose()
    }

    /// If it fails or dies, calls that need it fail with ENOSYS; nothing waits for ever.
    fn supervise(&self, spec: &Value, listener: OwnedFd, context: Supervision) -> Result<Value> {
        let report = supervisor::supervise(&EmulationSpec::from_value(spec)?, listener, context)?;
        to_value(&report)
    }
}

fn to_value(report: &impl Serialize) -> Result<Value> {
    serde_json::to_value(report).map_err(|e| Error::new("can't write the report of the root emulation").cause(e))
}

fn install(mode: Mode, watched: Watched) -> Result<Option<OwnedFd>> {
    if mode == Mode::None {
        return Ok(None);
    }
    if Abi::native().is_none() {
        return Err(Error::with_kind(Kind::Unsupported, format!("root emulation has no system call table for {}", std::env::consts::ARCH))
            .hint("`--root-emulation=none` runs the step without"));
    }
    let program = filter::program(mode, watched);
    let failed = |e: std::io::Error| {
        let nested = e.raw_os_error() == Some(libc::EBUSY);
        let error = Error::os("can't install the filter of root emulation", e);
        match nested {
            true => error.cause("a container around this process has such a filter already, and the kernel allows one"),
            false => error,
        }
    };
    match mode {
        Mode::Consistent => seccomp::install_with_listener(&program).map(Some).map_err(failed),
        _ => seccomp::install(&program).map(|()| None).map_err(failed),
    }
}

/// Whether the root is an overlay, in which inodes get other numbers when they are copied up.
fn is_overlay() -> bool {
    /// linux/magic.h.
    const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;
    rustix::fs::statfs(c"/").is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(OVERLAYFS_SUPER_MAGIC))
}

/// Checks that the filter is there and, behind it, somebody who answers.
fn confirm(mode: Mode) -> Result<()> {
    let failed = |result: &dyn std::fmt::Debug| {
        Err(Error::with_kind(Kind::Unsupported, "the self-test of root emulation failed")
            .cause(format!("the test's call returned {result:?}"))
            .hint("Linux 5.5 or later is needed; inside another container, its seccomp profile may stand in the way"))
    };
    match mode {
        Mode::None => Ok(()),
        Mode::SuccessOnly | Mode::Fakeroot => match seccomp::call_self_test(ANSWERED) {
            Ok(0) => Ok(()),
            result => failed(&result),
        },
        // The kernel's own answer to the second call is EPERM, or ENOSYS if it is not built to do that at all.
        Mode::Consistent => match (seccomp::call_self_test(ANSWERED), seccomp::call_self_test(PASSED)) {
            (Ok(ANSWER), Err(libc::EPERM | libc::ENOSYS)) => Ok(()),
            result => failed(&result),
        },
    }
}

/// The supervisor's answer to the self-test.
pub(super) fn answer_self_test(argument: u64) -> Answer {
    if argument == ANSWERED { Answer::Value(ANSWER) } else { Answer::Continue }
}

/// Installs and tests in a thread of its own.
fn try_out(mode: Mode) -> Result<()> {
    let attempt = move || -> Result<()> {
        seccomp::set_no_new_privs().map_err(|e| Error::os("can't set no_new_privs", e))?;
        // Made before the filter, so that it is not under it: even seccomp(2), which `Listener::new` calls, would wait for an answer.
        let (sender, receiver) = mpsc::sync_channel::<OwnedFd>(1);
        let helper = thread::spawn(move || match receiver.recv() {
            Ok(listener) => play_supervisor(&Listener::new(listener).map_err(|e| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?),
            Err(_) => Ok(()),
        });
        if let Some(listener) = install(mode, Watched::default())? {
            // If the helper is gone its result says why.
            let _ = sender.send(listener);
        }
        drop(sender);
        let confirmed = confirm(mode);
        match helper.join() {
            Ok(Err(errno)) => Err(Error::os("the kernel refuses answers to notified system calls", errno)),
            _ => confirmed,
        }
    };
    thread::spawn(attempt).join().unwrap_or_else(|_| Err(Error::new("the test of root emulation ended by a defect of this program")))
}

/// Answers until both calls of the self-test have come. The thread's other calls under the filter, if any, are passed on.
fn play_supervisor(listener: &Listener) -> Result<(), Errno> {
    let mut waiting = 2;
    while waiting > 0 {
        let note = listener.receive()?;
        let is_test = i64::from(note.number) == libc::SYS_kexec_load;
        let answer = if is_test { answer_self_test(note.arguments[0]) } else { Answer::Continue };
        waiting -= u32::from(is_test);
        if let Err(errno) = listener.answer(note.id, answer) {
            // "Continue" needs Linux 5.5; the caller must not wait for ever.
            listener.answer(note.id, Answer::Fail(Errno::EIO))?;
            return Err(errno);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_passes_the_self_test() {
        for mode in [Mode::Consistent, Mode::SuccessOnly, Mode::Fakeroot, Mode::None] {
            try_out(mode).unwrap();
        }
    }
}
