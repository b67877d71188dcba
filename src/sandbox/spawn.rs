//! The caller's side: starts the sandbox process, signals it, waits for its report.

use std::io::{PipeReader, PipeWriter};
use std::os::fd::OwnedFd;

use super::spec::Spec;
use super::status::Status;
use crate::error::{Error, Result};

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
}

impl Running {
    /// Waits until everything inside has ended and all mounts are gone.
    ///
    /// # Errors
    /// What could not be set up: the command was not executed then. A command that was executed gives a [`Status`] in any case.
    pub fn wait(self) -> Result<Status> {
        Err(Error::new("not yet"))
    }

    /// As [`wait`](Self::wait); meanwhile signals sent to this process go to the command.
    ///
    /// Those are HUP, INT, QUIT, TERM, USR1, USR2, WINCH and CONT, when another process sent them: what the terminal sends
    /// (Ctrl-C) reaches the command by itself, as it is in the same process group.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn wait_forwarding_signals(self) -> Result<Status> {
        self.wait()
    }

    /// Sends a signal to the command; `SIGKILL` kills everything inside.
    ///
    /// # Errors
    /// If the kernel refuses; not if the command has ended.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let _ = signal;
        Ok(())
    }
}

/// Starts the command; set-up goes on while the caller already runs, its errors come from [`Running::wait`].
///
/// # Errors
/// If no process or no user namespace could be made.
pub fn spawn(spec: &Spec, io: Stdio) -> Result<Running> {
    let _ = (spec, io);
    Err(Error::new("not yet"))
}
