//! A small `/dev`. Device nodes can't be made in a user namespace, so the host's are bound one by one.

use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;

/// What every program may expect: the OCI runtime specification, `config-linux.md`, "Default Devices".
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Fills an empty file system mounted as `/dev`. Leaves this process in `/`.
pub(super) fn fill(dev: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::process::fchdir(dev)?;
    let filled = fill_here();
    rustix::process::chdir("/")?;
    filled
}

fn fill_here() -> Result<(), Errno> {
    for name in DEVICES {
        bind(&format!("/dev/{name}"), name)?;
    }
    for (name, target) in LINKS {
        rustix::fs::symlink(target, name)?;
    }
    rustix::fs::mkdir("shm", Mode::from_raw_mode(0o1777))?;
    rustix::fs::chmod("shm", Mode::from_raw_mode(0o1777))?;
    rustix::fs::mkdir("pts", Mode::from_raw_mode(0o755))?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    rustix::mount::mount("devpts", "pts", "devpts", flags, c"newinstance,ptmxmode=0666,mode=0620")?;
    // The caller's terminal belongs to another devpts. Programs that look for its name (`tty`, `ssh`) find it here.
    if let Some(name) = [0, 1, 2].into_iter().find_map(terminal) {
        bind(&name, "console")?;
    }
    Ok(())
}

fn bind(host: &str, name: &str) -> Result<(), Errno> {
    drop(rustix::fs::open(name, OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC, Mode::from_raw_mode(0o666))?);
    match rustix::mount::mount_bind(host, name) {
        // A container around us may have fewer devices.
        Err(Errno::NOENT) => rustix::fs::unlink(name),
        result => result,
    }
}

/// The name of the terminal a standard stream is.
fn terminal(number: i32) -> Option<String> {
    let path = std::fs::read_link(format!("/proc/self/fd/{number}")).ok()?.into_os_string().into_string().ok()?;
    (path.starts_with("/dev/pts/") || path.starts_with("/dev/tty")).then_some(path)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_device_is_on_a_usual_host() {
        for name in super::DEVICES {
            assert!(std::path::Path::new("/dev").join(name).exists(), "{name}");
        }
    }
}
