//! New processes in new namespaces.
//!
//! A user namespace can't be entered by a threaded process (`unshare` is `EINVAL`), but any thread may clone a child into one. The child
//! here borrows the caller's memory until it executes a program (`CLONE_VM | CLONE_VFORK`, as `posix_spawn` does), so the cost does
//! not depend on the caller's size.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use libc::{c_int, c_void};

/// A set of namespaces, in clone(2)'s flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespaces(c_int);

impl Namespaces {
    /// Users and groups.
    pub const USER: Self = Self(libc::CLONE_NEWUSER);
    /// Mounts.
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS);
    /// Processes.
    pub const PID: Self = Self(libc::CLONE_NEWPID);
    /// Host name.
    pub const UTS: Self = Self(libc::CLONE_NEWUTS);
    /// System V IPC and message queues.
    pub const IPC: Self = Self(libc::CLONE_NEWIPC);
    /// Network devices.
    pub const NETWORK: Self = Self(libc::CLONE_NEWNET);

    /// Both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of the other are in it.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A program to start in new namespaces. It inherits standard streams and `descriptors`, nothing else, starts with all signals
/// blocked, an empty environment, and with every capability if the namespaces include a user namespace.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The program's path.
    pub program: &'a CStr,
    /// Its only argument, argument zero.
    pub name: &'a CStr,
    /// What it inherits, and under which numbers.
    pub descriptors: &'a [(BorrowedFd<'a>, RawFd)],
    /// The namespaces; must include a user namespace.
    pub namespaces: Namespaces,
    /// The caller's user ID inside.
    pub inside_uid: u32,
    /// The caller's group ID inside.
    pub inside_gid: u32,
}

/// What a launch was doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum LaunchStep {
    /// clone(2): a namespace is refused.
    Clone,
    /// Writing `uid_map`, `gid_map` or `setgroups`.
    Map,
    /// Keeping capabilities across the execution.
    Capabilities,
    /// Passing descriptors on.
    Descriptors,
    /// execve(2).
    Execute,
}

/// Everything the child touches; it must not allocate.
struct Child {
    program: *const libc::c_char,
    argv: [*const libc::c_char; 2],
    descriptors: Vec<(RawFd, RawFd)>,
    spares: Vec<RawFd>,
    uid_map: CString,
    gid_map: CString,
    ambient: Ambient,
    failed: LaunchStep,
    errno: c_int,
}

/// Whether capabilities must be made to survive execve(2): they do by themselves for user ID 0 only.
#[derive(PartialEq)]
enum Ambient {
    Raise,
    Leave,
}

const STACK: usize = 64 * 1024;

/// Starts a program in new namespaces and returns its process ID; the caller must wait for it.
///
/// # Errors
/// The step and the cause; no process is left then.
pub fn launch(launch: &Launch<'_>) -> Result<u32, (LaunchStep, io::Error)> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let text = |inside: u32, outside: u32| CString::new(format!("{inside} {outside} 1\n")).unwrap_or_default();
    let mut child = Child {
        program: launch.program.as_ptr(),
        argv: [launch.name.as_ptr(), std::ptr::null()],
        descriptors: launch.descriptors.iter().map(|(fd, number)| (fd.as_raw_fd(), *number)).collect(),
        spares: vec![-1; launch.descriptors.len()],
        uid_map: text(launch.inside_uid, uid),
        gid_map: text(launch.inside_gid, gid),
        ambient: if launch.inside_uid == 0 { Ambient::Leave } else { Ambient::Raise },
        failed: LaunchStep::Clone,
        errno: 0,
    };
    let pid = clone_borrowing(child_main, (&raw mut child).cast(), launch.namespaces).map_err(|e| (LaunchStep::Clone, e))?;
    if child.errno == 0 {
        return Ok(pid.unsigned_abs());
    }
    reap(pid);
    Err((child.failed, io::Error::from_raw_os_error(child.errno)))
}

/// Continues in a child process with new namespaces, without executing anything: half the time of [`launch`]. The child ends with what
/// `child` returns; it is told whether the namespaces could be entered.
///
/// # Errors
/// `EBUSY` if this process has several threads (only one would exist in the child, and none may enter a user namespace), those of fork(2).
pub fn fork(
    namespaces: Namespaces,
    inside_uid: u32,
    inside_gid: u32,
    child: impl FnOnce(Result<(), (LaunchStep, io::Error)>) -> i32,
) -> io::Result<u32> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // SAFETY: there is no other thread whose locks the child could find taken.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = child(enter(namespaces, (inside_uid, uid), (inside_gid, gid)));
            // SAFETY: ends this process without the destructors of what the parent still owns.
            unsafe { libc::_exit(code) }
        }
        pid => Ok(pid.unsigned_abs()),
    }
}

/// Moves this process into new namespaces; with a user namespace it has every capability there until it executes another program.
///
/// # Errors
/// The step and the cause: `EBUSY` if this process has several threads, those of unshare(2).
pub fn enter_here(namespaces: Namespaces, inside_uid: u32, inside_gid: u32) -> Result<(), (LaunchStep, io::Error)> {
    let threads = std::fs::read_dir("/proc/self/task").map_err(|e| (LaunchStep::Clone, e))?.count();
    if threads != 1 {
        return Err((LaunchStep::Clone, io::Error::from_raw_os_error(libc::EBUSY)));
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    enter(namespaces, (inside_uid, uid), (inside_gid, gid))
}

/// Enters new namespaces, with one user and one group mapped: (inside, outside).
fn enter(namespaces: Namespaces, uid: (u32, u32), gid: (u32, u32)) -> Result<(), (LaunchStep, io::Error)> {
    // SAFETY: unshare(2) with flags only.
    if unsafe { libc::unshare(namespaces.0) } < 0 {
        return Err((LaunchStep::Clone, io::Error::last_os_error()));
    }
    let map = |path: &str, text: String| std::fs::write(path, text).map_err(|e| (LaunchStep::Map, e));
    map("/proc/self/setgroups", "deny".into())?;
    map("/proc/self/uid_map", format!("{} {} 1\n", uid.0, uid.1))?;
    map("/proc/self/gid_map", format!("{} {} 1\n", gid.0, gid.1))
}

/// Whether these namespaces can be made at all: a child is cloned into them and ends at once.
///
/// # Errors
/// Those of clone(2).
pub fn attempt(namespaces: Namespaces) -> io::Result<()> {
    extern "C" fn leave(_: *mut c_void) -> c_int {
        0
    }
    clone_borrowing(leave, std::ptr::null_mut(), namespaces).map(reap)
}

fn reap(pid: libc::pid_t) {
    // SAFETY: waits for our own child; the status is not wanted.
    while unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) } < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {}
}

/// Clones a child that runs `main` in our memory while this thread is suspended, with all signals blocked on both sides.
fn clone_borrowing(main: extern "C" fn(*mut c_void) -> c_int, argument: *mut c_void, namespaces: Namespaces) -> io::Result<libc::pid_t> {
    let mut stack = vec![0u128; STACK / size_of::<u128>()];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD | namespaces.0;
    // SAFETY: `sigset_t` is plain data that sigfillset and sigprocmask fill in; both pointers are valid. A signal handler must
    // not run in the child, whose writes would be ours.
    let old = unsafe {
        let (mut all, mut old): (libc::sigset_t, libc::sigset_t) = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old);
        old
    };
    // SAFETY: the stack grows downwards from its end and outlives the child's use of our memory, since CLONE_VFORK suspends this
    // thread until the child executed or ended. `main` neither allocates nor unwinds.
    let pid = unsafe { libc::clone(main, stack.as_mut_ptr().add(stack.len()).cast(), flags, argument) };
    let result = if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid) };
    // SAFETY: `old` was filled in above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const old, std::ptr::null_mut()) };
    result
}

extern "C" fn child_main(argument: *mut c_void) -> c_int {
    // SAFETY: `launch` passes its exclusive `Child` and is suspended until we have executed or ended.
    let child = unsafe { &mut *argument.cast::<Child>() };
    // SAFETY: only system calls on memory of `child`, nothing that allocates or locks, as after vfork(2).
    if let Err(step) = unsafe { child_steps(child) } {
        child.failed = step;
        child.errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    }
    127
}

/// SAFETY: only to be called in a child cloned by [`clone_borrowing`].
unsafe fn child_steps(child: &mut Child) -> Result<(), LaunchStep> {
    // SAFETY: as promised by the caller; all pointers come from live C strings and vectors of `child`.
    unsafe {
        write_file(c"/proc/self/setgroups", c"deny", LaunchStep::Map)?;
        write_file(c"/proc/self/uid_map", &child.uid_map, LaunchStep::Map)?;
        write_file(c"/proc/self/gid_map", &child.gid_map, LaunchStep::Map)?;
        if child.ambient == Ambient::Raise {
            raise_ambient()?;
        }
        // First all away from the low numbers, so that no source is overwritten before it was copied.
        for (spare, (source, _)) in child.spares.iter_mut().zip(&child.descriptors) {
            *spare = check(libc::fcntl(*source, libc::F_DUPFD_CLOEXEC, 64), LaunchStep::Descriptors)?;
        }
        for (spare, (_, number)) in child.spares.iter().zip(&child.descriptors) {
            check(libc::dup2(*spare, *number), LaunchStep::Descriptors)?;
        }
        let empty: [*const libc::c_char; 1] = [std::ptr::null()];
        check(libc::execve(child.program, child.argv.as_ptr(), empty.as_ptr()), LaunchStep::Execute)?;
    }
    Ok(())
}

fn check(result: c_int, step: LaunchStep) -> Result<c_int, LaunchStep> {
    if result < 0 { Err(step) } else { Ok(result) }
}

/// SAFETY: only after [`clone_borrowing`].
unsafe fn write_file(path: &CStr, content: &CStr, step: LaunchStep) -> Result<(), LaunchStep> {
    // SAFETY: both are C strings; the descriptor is ours, and closed when we execute.
    unsafe {
        let fd = check(libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC), step)?;
        let written = libc::write(fd, content.as_ptr().cast(), content.count_bytes());
        check(if written < 0 { -1 } else { 0 }, step)?;
        libc::close(fd);
    }
    Ok(())
}

/// Makes all capabilities inheritable and ambient.
///
/// SAFETY: only after [`clone_borrowing`].
unsafe fn raise_ambient() -> Result<(), LaunchStep> {
    let mut sets = super::capability::Sets::read().map_err(|_| LaunchStep::Capabilities)?;
    sets.inheritable = sets.permitted;
    sets.write().map_err(|_| LaunchStep::Capabilities)?;
    for number in 0..64 {
        // SAFETY: prctl with plain numbers. The first unknown capability ends the list.
        if unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, number as libc::c_ulong, 0, 0) } < 0 {
            break;
        }
    }
    Ok(())
}
