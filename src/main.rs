//! The `rootling` program: sandbox re-entry first, then the command line.

use std::process::{ExitCode, exit};

fn main() -> ExitCode {
    // User namespaces can't be entered from a threaded process, so a sandbox is this program started again; nothing may come before.
    if let Some(code) = rootling::sandbox::reenter(&rootling::rootemu::Emulation) {
        exit(code);
    }
    rootling::cli::main()
}
