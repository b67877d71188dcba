//! Seccomp user notification: taking notifications, answering them, and reaching into the caller.
//!
//! The kernel's structures may grow; both are kept in buffers larger than any known version, zeroed where the kernel asks for it.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

/// Room for what a later kernel may append to its structures.
const ROOM: usize = 32;
/// SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (linux/seccomp.h, Linux 6.6): the supervisor runs on the caller's CPU, which waits anyway.
const SYNC_WAKE_UP: u64 = 1;

/// A call that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Notification {
    /// Names the notification to the kernel.
    pub id: u64,
    /// The calling thread, in the receiver's PID namespace.
    pub thread: u32,
    /// `seccomp_data.arch`.
    pub arch: u32,
    /// The system call's number.
    pub number: u32,
    /// Its arguments.
    pub arguments: [u64; 6],
    /// Where the caller goes on: behind the instruction that made the call.
    pub instruction: u64,
}

/// What the caller gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The kernel executes the call as if there were no filter.
    Continue,
    /// The call returns this value.
    Value(i64),
    /// The call fails.
    Fail(Errno),
}

/// The receiving end of a filter's notifications.
pub struct Listener(OwnedFd);

impl Listener {
    /// Takes a descriptor that a filter's installation returned; checks that this kernel's structures fit.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let mut sizes = libc::seccomp_notif_sizes { seccomp_notif: 0, seccomp_notif_resp: 0, seccomp_data: 0 };
        // SAFETY: the kernel writes one `seccomp_notif_sizes`, to which the pointer leads.
        let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_NOTIF_SIZES, 0, &raw mut sizes) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        if usize::from(sizes.seccomp_notif.max(sizes.seccomp_notif_resp)) > ROOM * 8 {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        }
        // Linux before 6.6 does not know it; it is only a gain in speed.
        // SAFETY: the argument is passed by value.
        unsafe { libc::ioctl(fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS as _, SYNC_WAKE_UP) };
        Ok(Self(fd))
    }

    /// Takes a notification; waits for one. `ENOENT`: the caller was killed meanwhile.
    pub fn receive(&self) -> Result<Notification, Errno> {
        // The kernel refuses a buffer that is not zero.
        let mut buffer = [0_u64; ROOM];
        // SAFETY: the kernel writes one `seccomp_notif`, which `new` has found to fit into the buffer.
        Errno::result(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV as _, buffer.as_mut_ptr()) })?;
        // SAFETY: the buffer is aligned to eight bytes, as large as the structure, initialised, and any bits are a valid value.
        let raw = unsafe { &*buffer.as_ptr().cast::<libc::seccomp_notif>() };
        Ok(Notification {
            id: raw.id,
            thread: raw.pid,
            arch: raw.data.arch,
            number: raw.data.nr as u32,
            arguments: raw.data.args,
            instruction: raw.data.instruction_pointer,
        })
    }

    /// Whether a notification waits, so that [`Listener::receive`] will not, if nobody else takes it.
    pub fn is_ready(&self) -> bool {
        self.poll() & libc::POLLIN != 0
    }

    /// Whether the last process under the filter is gone.
    pub fn is_dead(&self) -> bool {
        self.poll() & libc::POLLHUP != 0
    }

    fn poll(&self) -> i16 {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: the kernel reads and writes one `pollfd`, to which the pointer leads.
        if unsafe { libc::poll(&raw mut poll, 1, 0) } == 1 { poll.revents } else { 0 }
    }

    /// Answers. `ENOENT`: the caller is gone, which is nobody's fault.
    pub fn answer(&self, id: u64, answer: Answer) -> Result<(), Errno> {
        let (val, error, flags) = match answer {
            Answer::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
            Answer::Value(value) => (value, 0, 0),
            Answer::Fail(errno) => (0, -(errno as i32), 0),
        };
        let mut response = libc::seccomp_notif_resp { id, val, error, flags };
        // SAFETY: the ioctl's number carries the size of the structure the pointer leads to.
        Errno::result(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND as _, &raw mut response) }).map(drop)
    }

    /// Whether the caller still waits; if so, what was read of its memory before was the caller's, not that of a later process of the
    /// same number.
    pub fn is_waiting(&self, id: u64) -> bool {
        // SAFETY: the kernel reads one u64, to which the pointer leads.
        unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID as _, &raw const id) == 0 }
    }

    /// Gives the caller a copy of `file`, the call's result being its number there. `flags` is 0 or O_CLOEXEC. Since Linux 5.14.
    pub fn answer_with_file(&self, id: u64, file: BorrowedFd<'_>, flags: u32) -> Result<(), Errno> {
        let mut request = libc::seccomp_notif_addfd {
            id,
            flags: libc::SECCOMP_ADDFD_FLAG_SEND as u32,
            srcfd: file.as_raw_fd() as u32,
            newfd: 0,
            newfd_flags: flags,
        };
        // SAFETY: the ioctl's number carries the size of the structure the pointer leads to.
        Errno::result(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD as _, &raw mut request) }).map(drop)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Reads a process's memory at an address until the buffer is full or the readable memory ends; how much.
pub fn read_memory(process: u32, address: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let remote = RemoteIoVec { base: address as usize, len: buffer.len() };
    process_vm_readv(Pid::from_raw(process as i32), &mut [IoSliceMut::new(buffer)], &[remote])
}

/// Writes a process's memory; all or `EFAULT`.
pub fn write_memory(process: u32, address: u64, bytes: &[u8]) -> Result<(), Errno> {
    let remote = RemoteIoVec { base: address as usize, len: bytes.len() };
    match process_vm_writev(Pid::from_raw(process as i32), &[IoSlice::new(bytes)], &[remote])? {
        n if n == bytes.len() => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}

/// Whether `thread` is one of the threads of the process `process`; the cheapest question that tells.
pub fn is_thread_of(process: u32, thread: u32) -> bool {
    // SAFETY: signal 0 only checks; takes integers only.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, 0) == 0 }
}

/// Whether two processes share their root and working directories (CLONE_FS), so that one's chroot is the other's. Needs CONFIG_KCMP.
pub fn share_directories(process: u32, other: u32) -> bool {
    const KCMP_FS: i32 = 3;
    compare(process, other, KCMP_FS) == 0
}

/// Whether two processes surely have memory of their own; after vfork they have not (CLONE_VM). Needs CONFIG_KCMP.
pub fn have_own_memory(process: u32, other: u32) -> bool {
    const KCMP_VM: i32 = 1;
    compare(process, other, KCMP_VM) > 0
}

fn compare(process: u32, other: u32, what: i32) -> libc::c_long {
    // SAFETY: takes integers only.
    unsafe { libc::syscall(libc::SYS_kcmp, process, other, what, 0, 0) }
}

/// A descriptor that becomes readable when the process ends. Since Linux 5.3.
pub fn open_process(process: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: takes integers only.
    let number = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) })?;
    // SAFETY: the kernel returned a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(number as i32) })
}

/// A copy of another process's descriptor. Since Linux 5.6.
pub fn copy_descriptor(process: BorrowedFd<'_>, number: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: takes integers only.
    let number = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })?;
    // SAFETY: the kernel returned a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(number as i32) })
}

/// The number of the calling thread.
pub fn this_thread() -> u32 {
    // SAFETY: takes and changes nothing.
    unsafe { libc::gettid() as u32 }
}

/// Lets [`interrupt`] end what the calling thread waits for in the kernel.
///
/// It does so by the highest real-time signal, which this process uses for nothing else, and which is ignored otherwise.
pub fn allow_interrupts() -> Result<(), Errno> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: both structures are plain data for which zero is valid; the handler does nothing, so it can run at any moment.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        Errno::result(libc::sigaction(libc::SIGRTMAX(), &raw const action, std::ptr::null_mut()))?;
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut set, libc::SIGRTMAX());
        Errno::result(libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut())).map(drop)
    }
}

/// Ends what a thread of this process waits for in the kernel with `EINTR`; it must have called [`allow_interrupts`].
pub fn interrupt(thread: u32) {
    // SAFETY: takes integers only; the signal does nothing.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGRTMAX()) };
}

/// Gives the calling thread a working directory and file mode mask of its own.
pub fn unshare_directory() -> Result<(), Errno> {
    // SAFETY: changes only what the calling thread shares with others.
    Errno::result(unsafe { libc::unshare(libc::CLONE_FS) }).map(drop)
}

/// A set of descriptors to wait for (epoll), each with a number to know it by.
pub struct Watch(OwnedFd);

/// Something happened to a descriptor of a [`Watch`].
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// The number it was added with.
    pub token: u64,
    /// The other side is gone.
    pub hung_up: bool,
}

/// What of a descriptor to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// That something can be read, or that the other side is gone.
    Input,
    /// That the other side is gone.
    End,
}

impl Watch {
    /// An empty set.
    pub fn new() -> Result<Self, Errno> {
        // SAFETY: takes integers only.
        let number = Errno::result(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel returned a new descriptor that nobody else knows.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(number) }))
    }

    /// Adds a descriptor; closing its last copy takes it out.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> Result<(), Errno> {
        let events = if interest == Interest::Input { libc::EPOLLIN as u32 } else { 0 };
        let mut event = libc::epoll_event { events, u64: token };
        // SAFETY: the kernel reads one `epoll_event`, to which the pointer leads.
        Errno::result(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event) }).map(drop)
    }

    /// Waits until something happens, but not longer than this; calls `each` for what did.
    pub fn wait(&self, most: Duration, each: impl FnMut(Ready)) -> Result<(), Errno> {
        self.wait_for(i32::try_from(most.as_millis()).unwrap_or(i32::MAX), each)
    }

    /// Calls `each` for what has happened already.
    pub fn poll(&self, each: impl FnMut(Ready)) -> Result<(), Errno> {
        self.wait_for(0, each)
    }

    fn wait_for(&self, milliseconds: i32, mut each: impl FnMut(Ready)) -> Result<(), Errno> {
        const BATCH: usize = 32;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; BATCH];
        // SAFETY: the kernel writes at most BATCH events into an array of BATCH.
        let count = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), BATCH as i32, milliseconds) };
        for event in &events[..Errno::result(count)? as usize] {
            let bits = event.events as i32;
            each(Ready { token: event.u64, hung_up: bits & (libc::EPOLLHUP | libc::EPOLLERR) != 0 });
        }
        Ok(())
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// What ends the waiting for notifications where the kernel does not (before Linux 6.11).
    #[test]
    fn an_interrupt_ends_waiting() {
        let (sender, receiver) = mpsc::channel();
        let waiting = thread::spawn(move || {
            allow_interrupts()?;
            sender.send(this_thread()).map_err(|_| Errno::EPIPE)?;
            Watch::new()?.wait(Duration::from_secs(60), |_| {})
        });
        let thread = receiver.recv().unwrap();
        while !waiting.is_finished() {
            interrupt(thread);
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(waiting.join().unwrap(), Err(Errno::EINTR));
    }
}
