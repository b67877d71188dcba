//! How a command ended.

use serde_json::Value;

use crate::error::Error;

/// What is known after everything inside has ended.
#[derive(Debug)]
pub struct Status {
    /// How the command ended.
    pub exit: Exit,
    /// What had to be done differently on this machine, in words for the user.
    pub notices: Vec<String>,
    /// What the emulator's supervisor returned.
    pub emulation: Option<Value>,
}

/// How the command ended.
#[derive(Debug)]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
    /// It does not exist inside: conventionally 127.
    NotFound(Error),
    /// It exists but the kernel can't execute it: conventionally 126.
    NotExecutable(Error),
}

impl Exit {
    /// Whether the command returned 0.
    pub fn success(&self) -> bool {
        matches!(self, Self::Code(0))
    }

    /// The code a shell would show: 128 + n for signal n, 127 not found, 126 not executable.
    pub fn shell_code(&self) -> i32 {
        match self {
            Self::Code(code) => *code,
            Self::Signal(signal) => 128 + signal,
            Self::NotFound(_) => 127,
            Self::NotExecutable(_) => 126,
        }
    }
}
