//! exec, exit, and calls that change what a process sees or may do.
//!
//! The kernel executes them all; the emulation takes note. AT_SECURE is not set for emulated setuid programs: they are not privileged.

use std::os::fd::AsFd;

use rustix::fs::{CWD, Mode, OFlags};

use super::attributes::Attributes;
use super::graft::{self, Grafts};
use super::paths::{Located, locate};
use super::request::{Outcome, PASS, Request, Scratch};

/// Notes what exec will make of the caller's credentials, also by the file's setuid and setgid bits.
pub fn exec(request: &Request<'_>, scratch: &mut Scratch) -> Outcome {
    let Ok(caller) = request.caller() else { return PASS };
    let credentials = &*caller.credentials;
    // Another program, which may ask often, too.
    request.shared.processes.with_grafts(caller.process, |grafts| *grafts = Grafts::default());
    // Root stays root whatever it executes, unless that is another user's setuid file, which the native mode shows below.
    let bits = match locate(request, &caller, &mut scratch.path) {
        Ok(file) => set_ids(request, &file),
        Err(_) if *credentials == credentials.after_exec(None, None) => return PASS,
        Err(_) => (None, None),
    };
    let new = credentials.after_exec(bits.0, bits.1);
    if new != *credentials {
        let _ = request.shared.processes.change_on_exec(&caller, request.note.thread, new);
    }
    PASS
}

/// As whom a file makes its program act: user, group.
fn set_ids(request: &Request<'_>, file: &Located<'_>) -> (Option<u32>, Option<u32>) {
    let Ok(native) = rustix::fs::stat(file.path) else { return (None, None) };
    // Native bits are the true ones or fewer.
    if native.st_mode & (libc::S_ISUID | libc::S_ISGID) == 0 || native.st_mode & libc::S_IFMT != libc::S_IFREG {
        return (None, None);
    }
    let Ok(attributes) = Attributes::load(request.shared, file) else { return (None, None) };
    if is_script(file) {
        return (None, None);
    }
    let mode = attributes.mode();
    let setuid = (mode & libc::S_ISUID != 0).then(|| attributes.uid());
    let setgid = (mode & libc::S_ISGID != 0 && mode & libc::S_IXGRP != 0).then(|| attributes.gid());
    (setuid, setgid)
}

/// The kernel ignores the bits of scripts.
fn is_script(file: &Located<'_>) -> bool {
    let mut magic = [0; 2];
    let Ok(open) = rustix::fs::openat(CWD, file.path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()) else {
        return false;
    };
    rustix::io::read(open.as_fd(), &mut magic).is_ok() && magic == *b"#!"
}

/// Before a process ends: those of its children that nobody has noticed yet inherit from it now.
pub fn exit(request: &Request<'_>) -> Outcome {
    if let Ok(caller) = request.caller()
        && !request.shared.processes.is_initial(&caller.credentials)
    {
        request.shared.processes.meet_children(caller.process);
    }
    PASS
}

/// Before a process restricts itself to some calls, which may not be those that grafts make.
pub fn restrict(request: &Request<'_>) -> Outcome {
    if let Ok(caller) = request.caller() {
        graft::withdraw(request, caller.process);
    }
    PASS
}

/// Before chroot, unshare, setns, pivot_root: from now on paths must be looked up in the caller's own root.
pub fn change_view(request: &Request<'_>) -> Outcome {
    if let Ok(caller) = request.caller() {
        request.shared.processes.lose_view(caller.process);
    }
    PASS
}
