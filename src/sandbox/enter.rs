//! The sandbox process: takes the request and carries it out.

use super::emulator::Emulator;

/// Does the sandbox's work if this process is one ([`super::spawn`] started it), and returns its exit code.
///
/// Must be the first thing in `main`: no thread may run and no descriptor be open that was not inherited.
pub fn reenter(emulator: &dyn Emulator) -> Option<i32> {
    let _ = emulator;
    None
}
