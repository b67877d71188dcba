//! Why this machine refuses, and what to do about it.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::error::{Error, Kind, describe_io};
use crate::sys::namespace::{LaunchStep, Namespaces, attempt};

const INFO: &str = "`rootling info` lists every requirement";

/// A namespace that can be asked for.
pub(super) const KINDS: [(Namespaces, &str, &str); 5] = [
    (Namespaces::MOUNT, "a mount namespace", "mnt"),
    (Namespaces::PID, "a PID namespace", "pid"),
    (Namespaces::IPC, "an IPC namespace", "ipc"),
    (Namespaces::UTS, "a UTS namespace", "uts"),
    (Namespaces::NETWORK, "a network namespace", "net"),
];

/// Why the sandbox process could not be started.
pub(super) fn launch(step: LaunchStep, error: &io::Error, wanted: Namespaces) -> Error {
    match step {
        LaunchStep::Clone => match attempt(Namespaces::USER) {
            Err(error) => user_namespace("clone(CLONE_NEWUSER)", &error),
            Ok(()) => other_namespace(error, wanted),
        },
        LaunchStep::Map => user_namespace("writing /proc/self/uid_map", error),
        LaunchStep::Capabilities => user_namespace("keeping capabilities in the user namespace", error),
        LaunchStep::Descriptors => {
            Error::os("can't pass descriptors to the sandbox process", io::Error::from(error.kind())).cause(describe_io(error))
        }
        LaunchStep::Execute => {
            Error::new("can't start the sandbox process").cause(format!("execve(/proc/self/exe): {}", describe_io(error)))
        }
    }
}

fn user_namespace(call: &str, error: &io::Error) -> Error {
    let refused = Error::with_kind(Kind::Unsupported, "can't create a user namespace").cause(format!("{call}: {}", describe_io(error)));
    match reason(error) {
        Some((cause, hint)) => refused.cause(cause).hint(format!("{hint}; {INFO}")),
        None => refused.hint(INFO),
    }
}

/// The setting that stands in the way of user namespaces, and the remedy.
pub(super) fn reason(error: &io::Error) -> Option<(String, String)> {
    let administrators = |what: &str| format!("ask the administrators to set {what}");
    if setting("/proc/sys/user/max_user_namespaces") == Some(0) {
        return Some(("user.max_user_namespaces is 0 on this machine".into(), administrators("user.max_user_namespaces")));
    }
    if error.raw_os_error() == Some(libc::ENOSPC) || error.raw_os_error() == Some(libc::EUSERS) {
        let limit = "the limit of user namespaces (user.max_user_namespaces, or 32 levels of nesting) is reached";
        return Some((limit.into(), "end other containers or raise the limit".into()));
    }
    if setting("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
        return Some((
            "kernel.unprivileged_userns_clone is 0 on this machine".into(),
            administrators("kernel.unprivileged_userns_clone=1"),
        ));
    }
    if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        let cause = "AppArmor restricts user namespaces (kernel.apparmor_restrict_unprivileged_userns is 1)";
        return Some((
            cause.into(),
            "ask the administrators for an AppArmor profile with `userns,` for this program, or to set it to 0".into(),
        ));
    }
    if in_chroot() {
        return Some((
            "this process runs in a chroot".into(),
            "run it outside of the chroot, or enter that directory with pivot_root".into(),
        ));
    }
    if fs::metadata("/proc/self/uid_map").is_err() {
        return Some(("/proc is not mounted, or this kernel has no user namespaces".into(), "mount /proc".into()));
    }
    if seccomp_filtered() {
        let cause = "a system call filter is in force, such as Docker's";
        return Some((cause.into(), "allow clone and unshare in the surrounding container (`--security-opt seccomp=unconfined`)".into()));
    }
    if error.raw_os_error() == Some(libc::EPERM) {
        // A chroot to where something is mounted can't be told from an ordinary root.
        let cause = "no setting forbids it, so this process runs in a chroot or a security module is in force";
        return Some((cause.into(), "run it outside of the chroot, or ask the administrators".into()));
    }
    None
}

fn other_namespace(error: &io::Error, wanted: Namespaces) -> Error {
    for (kind, name, sysctl) in KINDS {
        if wanted.contains(kind)
            && let Err(error) = attempt(Namespaces::USER.with(kind))
        {
            let refused = Error::with_kind(Kind::Unsupported, format!("can't create {name}")).cause(describe_io(&error));
            let limit = format!("user.max_{sysctl}_namespaces");
            return match setting(&format!("/proc/sys/user/max_{sysctl}_namespaces")) {
                Some(0) => refused.cause(format!("{limit} is 0 on this machine")).hint(format!("ask the administrators to set {limit}")),
                _ => refused.hint(INFO),
            };
        }
    }
    Error::new("can't start the sandbox process").cause(describe_io(error))
}

fn setting(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Whether this process' root directory is not its mount namespace's.
fn in_chroot() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    !mounts.is_empty() && !mounts.lines().any(|line| line.split(' ').nth(4) == Some("/"))
}

fn seccomp_filtered() -> bool {
    fs::read_to_string("/proc/self/status").unwrap_or_default().lines().any(|line| line == "Seccomp:\t2")
}

/// Why an overlay can't be mounted.
pub(super) fn overlay(errno: Errno, layers: usize, upper: Option<BorrowedFd<'_>>) -> Error {
    let error = Error::os(format!("can't mount an overlay of {layers} layers"), errno);
    match (errno, upper) {
        (Errno::NODEV, _) => error.cause("this kernel has no overlayfs").hint("ask the administrators to load the module `overlay`"),
        (Errno::PERM | Errno::ACCESS, _) => {
            error.cause("overlay mounts in user namespaces need Linux 5.11").hint("`rootling info` says what works here instead")
        }
        (Errno::INVAL, Some(_)) => error
            .cause("the file system of the upper directory does not suit (NFS, or no extended attributes)")
            .hint("choose a storage directory on a local file system with `--storage DIR`"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_the_machine_says() {
        // On a machine where namespaces work no setting is to blame, and a full table is told from a zero limit.
        let full = io::Error::from_raw_os_error(libc::ENOSPC);
        assert!(reason(&full).is_some_and(|(cause, _)| cause.contains("limit")));
        assert!(!in_chroot());
    }
}
