//! Processes and signals: what a sandbox's init and its caller need.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Which side of a fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    /// The new process.
    Child,
    /// The old one, with the new one's process ID.
    Parent(u32),
}

/// Forks. To be called while this process has one thread only.
///
/// # Errors
/// Those of fork(2).
pub fn fork() -> io::Result<Forked> {
    // SAFETY: with one thread the child is a whole copy, no lock can be held by a thread that is gone. The C library's
    // allocator stays usable in any case.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => Ok(Forked::Child),
        nix::unistd::ForkResult::Parent { child } => Ok(Forked::Parent(child.as_raw().unsigned_abs())),
    }
}

/// Takes over a descriptor this process inherited under an agreed number; `None` if it is not open.
pub fn inherited(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: asks for flags only.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: it is open, and by the agreement nobody else in this process owns it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Takes over a descriptor that arrived in a control message (`SCM_RIGHTS`) just now.
pub fn received(number: RawFd) -> OwnedFd {
    // SAFETY: the kernel made it for the receiver, who hands it on to us and keeps no copy.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Marks every descriptor from 3 up to be closed when this process executes a program.
pub fn close_on_exec_from_3() {
    // SAFETY: plain numbers; nothing is closed now.
    if unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) } == 0 {
        return;
    }
    // Before Linux 5.11.
    for entry in std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()).filter(|fd| *fd > 2) {
            // SAFETY: sets a flag only.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// Has a program killed when the thread that starts it ends, and so when this process does.
pub fn die_with_parent(command: &mut std::process::Command) {
    let parent = std::process::id();
    let die = move || {
        // SAFETY: system calls with plain numbers, which may be made between fork and execve.
        unsafe {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) < 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have ended before.
            if libc::getppid().unsigned_abs() != parent { Err(io::Error::from_raw_os_error(libc::ESRCH)) } else { Ok(()) }
        }
    };
    // SAFETY: the closure allocates nothing and takes no lock.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, die) };
}

/// Gives `SIGPIPE`, which Rust ignores, its default action back, for a program about to be executed.
pub fn restore_sigpipe() {
    // SAFETY: installs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Where [`Forwarding`] sends signals: a process ID; 0 for nowhere. A signal handler can't reach anything but a static.
static FORWARD_TO: AtomicI32 = AtomicI32::new(0);

/// Signals to this process go to a child while this value lives; dropped, the old actions are back.
#[derive(Debug)]
pub struct Forwarding {
    old: Vec<(Signal, SigAction)>,
}

impl Forwarding {
    /// Starts forwarding these signals to a child that was not waited for yet. One at a time in a process.
    pub fn start(child: u32, signals: &[Signal]) -> Self {
        FORWARD_TO.store(child.cast_signed(), Ordering::SeqCst);
        let action = SigAction::new(SigHandler::SigAction(forward), SaFlags::SA_RESTART | SaFlags::SA_SIGINFO, SigSet::empty());
        let install = |signal: &Signal| {
            // SAFETY: `forward` makes only async-signal-safe calls.
            let old = unsafe { sigaction(*signal, &action) }.ok()?;
            Some((*signal, old))
        };
        Self { old: signals.iter().filter_map(install).collect() }
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        FORWARD_TO.store(0, Ordering::SeqCst);
        for (signal, old) in &self.old {
            // SAFETY: it was in force before.
            let _ = unsafe { sigaction(*signal, old) };
        }
    }
}

extern "C" fn forward(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let pid = FORWARD_TO.load(Ordering::SeqCst);
    // SAFETY: the kernel hands a valid siginfo_t to an SA_SIGINFO handler.
    let sent_by_process = unsafe { (*info).si_code } <= 0;
    // What the terminal sends goes to the whole process group, the child included; twice would be once too often.
    if pid > 0 && sent_by_process {
        // SAFETY: kill(2) is async-signal-safe; errno is put back below.
        unsafe {
            let errno = *libc::__errno_location();
            libc::kill(pid, signal);
            *libc::__errno_location() = errno;
        }
    }
}

/// Whether seccomp filters can ask a supervisor and be told to go on (Linux 5.5).
///
/// # Errors
/// Those of seccomp(2); `ENOSYS` also if the kernel is too old for "go on".
pub fn seccomp_notification() -> io::Result<()> {
    let action: u32 = libc::SECCOMP_RET_USER_NOTIF;
    // SAFETY: the call reads four bytes.
    if unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (5, 5) { Err(io::Error::from_raw_os_error(libc::ENOSYS)) } else { Ok(()) }
}
