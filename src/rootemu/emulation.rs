//! Installing the filter, testing it, and starting the supervisor: what the sandbox calls.

use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use nix::errno::Errno;
use serde_json::Value;

use super::filter::{self, Moves};
use super::spec::{EmulationSpec, Mode};
use super::supervisor;
use crate::error::{Error, Kind, Result};
use crate::sandbox::{Emulator, Supervision};
use crate::sys::notify::{Answer, Listener};
use crate::sys::seccomp::{self, Abi};

/// Root emulation as the sandbox knows it.
pub struct Emulation;

/// What the self-test's first call must return; 0 would also be the answer of another filter that is about success.
const ANSWER: i64 = 0x726f_6f74;
/// Number of the self-test's two calls.
const ANSWERED: u64 = 1;
const CONTINUED: u64 = 2;

impl Emulation {
    /// The best mode that works here, and why not a better one.
    ///
    /// Tries it: installs the filter in a thread that ends afterwards.
    pub fn choose() -> (Mode, Option<Error>) {
        match Self::try_out(Mode::Consistent) {
            Ok(()) => (Mode::Consistent, None),
            Err(error) => match Self::try_out(Mode::SuccessOnly) {
                Ok(()) => (Mode::SuccessOnly, Some(error)),
                Err(error) => (Mode::None, Some(error)),
            },
        }
    }

    fn try_out(mode: Mode) -> Result<()> {
        let attempt = thread::spawn(move || {
            seccomp::set_no_new_privs().map_err(|e| Error::os("can't set no_new_privs", e))?;
            install(mode, Moves::Ignored).map(drop)
        });
        attempt.join().unwrap_or_else(|_| Err(Error::new("the test of root emulation ended by a defect of this program")))
    }

    /// Installs the filter for the calling thread and what it forks; the listener to be supervised, if the mode has one.
    ///
    /// For the sandbox, in the command's process, as its last act but dropping what is left of its privilege and exec. From here on capset,
    /// set*id and prctl's capability calls are emulated: real capabilities must be dropped before, from the bounding set; exec does the rest.
    pub fn install(&self, spec: &Value) -> Result<Option<OwnedFd>> {
        let spec = EmulationSpec::from_value(spec)?;
        let moves = if spec.owners().next().is_some() { Moves::Watched } else { Moves::Ignored };
        install(spec.mode, moves)
    }

    /// Answers the calls until the last filtered process is gone. To be run in the step's namespaces and root by a process without filter.
    /// If it fails or dies, calls that need it fail with ENOSYS; the caller should end the step and show the error.
    pub fn supervise(&self, spec: &Value, listener: OwnedFd, upper: Option<OwnedFd>) -> Result<Value> {
        let report = supervisor::supervise(&EmulationSpec::from_value(spec)?, listener, upper)?;
        serde_json::to_value(report).map_err(|e| Error::new("can't write the report of the root emulation").cause(e))
    }
}

impl Emulator for Emulation {
    fn install(&self, spec: &Value) -> Result<Option<OwnedFd>> {
        self.install(spec)
    }

    fn supervise(&self, spec: &Value, listener: OwnedFd, context: Supervision) -> Result<Value> {
        self.supervise(spec, listener, context.upper)
    }
}

fn install(mode: Mode, moves: Moves) -> Result<Option<OwnedFd>> {
    if mode == Mode::None {
        return Ok(None);
    }
    if Abi::native().is_none() {
        return Err(Error::with_kind(Kind::Unsupported, format!("root emulation has no system call table for {}", std::env::consts::ARCH))
            .hint("`--root-emulation=none` runs the step without"));
    }
    let program = filter::program(mode, moves);
    let failed = |e| Error::os("can't install the filter of root emulation", e);
    if mode == Mode::SuccessOnly {
        seccomp::install(&program).map_err(failed)?;
        return match seccomp::call_self_test(0) {
            Ok(0) => Ok(None),
            result => Err(self_test_failed(format!("the filter's answer is {result:?}"))),
        };
    }
    let listener = thread::scope(|scope| {
        // Made before the filter, so that it is not under it.
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let helper = scope.spawn(move || receiver.recv().map_or(Ok(()), |listener| answer_self_test(&listener)));
        let listener = seccomp::install_with_listener(&program).map_err(failed)?;
        let copy = listener.as_fd().try_clone_to_owned().and_then(Listener::new).map_err(failed)?;
        let _ = sender.send(copy);
        let answered = seccomp::call_self_test(ANSWERED);
        let continued = seccomp::call_self_test(CONTINUED);
        let helped = helper.join().unwrap_or(Err(Errno::EIO));
        // The kernel's own answer to the second call is EPERM, or ENOSYS where it can't do this at all.
        match (answered, continued, helped) {
            (Ok(ANSWER), Err(libc::EPERM | libc::ENOSYS), Ok(())) => Ok(listener),
            result => Err(self_test_failed(format!("{result:?}"))),
        }
    })?;
    Ok(Some(listener))
}

fn self_test_failed(cause: String) -> Error {
    Error::with_kind(Kind::Unsupported, "the self-test of root emulation failed")
        .cause(cause)
        .hint("Linux 5.5 or later is needed; inside another container its seccomp profile may stand in the way")
}

/// Plays supervisor for the two calls of the self-test.
fn answer_self_test(listener: &Listener) -> Result<(), Errno> {
    for answer in [Answer::Value(ANSWER), Answer::Continue] {
        let note = listener.receive()?;
        if let Err(error) = listener.answer(note.id, answer) {
            // "Continue" needs Linux 5.5; the caller must not wait for ever.
            listener.answer(note.id, Answer::Fail(Errno::EIO))?;
            return Err(error);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_modes_pass_the_self_test() {
        for mode in [Mode::Consistent, Mode::SuccessOnly, Mode::None] {
            Emulation::try_out(mode).unwrap();
        }
    }
}
