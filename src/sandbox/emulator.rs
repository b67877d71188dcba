//! The seam for root emulation: what the sandbox asks of it and what it hands over.

use std::os::fd::OwnedFd;

use serde_json::Value;

use crate::error::Result;

/// Root emulation, as the sandbox sees it. `spec` is always [`super::Spec::emulation`].
///
/// One value serves both sides of a fork: [`install`](Self::install) and [`confirm`](Self::confirm) run in the command's
/// process, [`supervise`](Self::supervise) in PID 1.
pub trait Emulator: Sync {
    /// Installs the system call filter in this process, which becomes the command, and returns the notification listener.
    ///
    /// Runs with all capabilities of the namespace (so `no_new_privs` is not needed), after the bounding set was limited: the
    /// filter may answer `capset` and `prctl`, and the sandbox makes no such call after it. `None` if nobody has to listen.
    ///
    /// # Errors
    /// End the command before it started.
    fn install(&self, spec: &Value) -> Result<Option<OwnedFd>>;

    /// Checks that the filter works. Runs in the command's process, after the supervisor got the listener, before the
    /// command is executed; so notified calls are answered here, and only from here on.
    ///
    /// # Errors
    /// End the command before it started.
    fn confirm(&self, spec: &Value) -> Result<()> {
        let _ = spec;
        Ok(())
    }

    /// Prepares what lies in the container's root. Runs in PID 1, in its root, before the command's process is started; what it returns is
    /// handed to [`conclude`](Self::conclude).
    ///
    /// # Errors
    /// End the whole run.
    fn prepare(&self, spec: &Value) -> Result<Value> {
        let _ = spec;
        Ok(Value::Null)
    }

    /// Does what is left to do. Runs in PID 1, in its root, when every other process has ended; what it returns becomes
    /// [`super::Status::emulation`] where nobody listened.
    ///
    /// # Errors
    /// End the whole run.
    fn conclude(&self, spec: &Value, prepared: &Value) -> Result<Option<Value>> {
        let _ = (spec, prepared);
        Ok(None)
    }

    /// Answers notifications until the last filtered process is gone; what it returns becomes [`super::Status::emulation`].
    ///
    /// Runs on a thread of its own in PID 1, inside all namespaces and the root, with all capabilities, all signals blocked. When
    /// the command ends, everything else inside is killed, so the listener's hang-up always comes.
    ///
    /// # Errors
    /// End the whole run: nobody would answer the command any more.
    fn supervise(&self, spec: &Value, listener: OwnedFd, context: Supervision) -> Result<Value>;
}

/// What the supervisor gets to know.
#[derive(Debug)]
pub struct Supervision {
    /// The container's root directory (`O_PATH`).
    pub root: OwnedFd,
    /// The overlay's upper directory, opened before it went out of sight; `None` if there is no overlay to be kept.
    pub upper: Option<OwnedFd>,
    /// A `/proc` (`O_PATH`) in which processes have the numbers that this process knows them by. `None` where a nested
    /// container has no such thing.
    pub proc: Option<OwnedFd>,
    /// The command's process ID, as this process knows it.
    pub command: u32,
}

/// For programs without root emulation: installs nothing.
impl Emulator for () {
    fn install(&self, _: &Value) -> Result<Option<OwnedFd>> {
        Ok(None)
    }

    fn supervise(&self, _: &Value, _: OwnedFd, _: Supervision) -> Result<Value> {
        Ok(Value::Null)
    }
}
