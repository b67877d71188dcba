//! From a caller's path to one the supervisor can use for the same file.
//!
//! A caller with the supervisor's root and mount namespace (nearly always) costs no system call: an absolute path is used as it is, a relative
//! one is put behind `PID/cwd` or `PID/fd/N` (the supervisor's working directory is `/proc`). Only names that lead through the reader's own
//! `/proc/self` must be rewritten.
//!
//! A caller with a view of its own (chroot, another mount namespace) has its path opened with RESOLVE_IN_ROOT below `PID/root`; the name
//! then is `self/fd/N` of the supervisor.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::calls::{Call, Last, Target};
use super::links;
use super::processes::{Caller, View};
use super::procfs::{Name, errno};
use super::request::Request;
use crate::sys::notify;

/// A path with room before it for what must be put there. Always ends with NUL.
pub struct PathBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

/// A file the supervisor can name.
pub struct Located<'b> {
    /// Its name; absolute or relative to `/proc`.
    pub path: &'b CStr,
    /// Whether a symlink at the end is followed.
    pub follow: Follow,
    /// Keeps `self/fd/N` alive.
    _open: Option<OwnedFd>,
}

/// A name that may be free.
pub struct Place<'b> {
    /// The name; absolute or relative to `/proc`.
    pub path: &'b CStr,
    /// The directory.
    pub parent: &'b CStr,
    /// Keeps `self/fd/N` alive.
    _open: Option<OwnedFd>,
}

/// Whether a symlink at the end of a path is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Follow {
    Yes,
    No,
}

/// Room for `4194304/fd/2147483647/`, a working directory's name is never put here.
const HEAD: usize = 64;
const PATH_MAX: usize = 4096;

impl Default for PathBuffer {
    fn default() -> Self {
        Self { bytes: vec![0; HEAD + 2 * PATH_MAX], start: HEAD, end: HEAD }
    }
}

impl PathBuffer {
    /// Takes a path from the caller's memory.
    pub fn load(&mut self, request: &Request<'_>, address: u64) -> Result<(), Errno> {
        const PAGE: u64 = 4096;
        (self.start, self.end) = (HEAD, HEAD);
        // Most paths are short; a page at a time, since what follows may not be mapped.
        let mut step = 256;
        while self.end < HEAD + PATH_MAX {
            let at = address.wrapping_add((self.end - HEAD) as u64);
            let in_page = (PAGE - at % PAGE) as usize;
            let length = step.min(in_page).min(HEAD + PATH_MAX - self.end);
            let chunk = &mut self.bytes[self.end..self.end + length];
            let got = notify::read_memory(request.note.thread, at, chunk).map_err(|_| Errno::EFAULT)?;
            if let Some(end) = chunk[..got].iter().position(|&b| b == 0) {
                self.end += end;
                return Ok(());
            }
            if got < length {
                return Err(Errno::EFAULT);
            }
            self.end += length;
            step = PATH_MAX;
        }
        Err(Errno::ENAMETOOLONG)
    }

    /// The path.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The path, for the kernel.
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes[self.start..=self.end]).unwrap_or(c"")
    }

    /// Whether nothing can be put before it.
    fn is_long(&self) -> bool {
        self.end - self.start + HEAD > PATH_MAX && self.as_bytes().first() != Some(&b'/')
    }

    /// Replaces the path.
    pub fn set(&mut self, path: &[u8]) {
        let length = path.len().min(2 * PATH_MAX - 1);
        (self.start, self.end) = (HEAD, HEAD + length);
        self.bytes[HEAD..HEAD + length].copy_from_slice(&path[..length]);
        self.bytes[self.end] = 0;
    }

    /// Puts something directly before it.
    fn prepend(&mut self, head: &[u8]) {
        let start = self.start.saturating_sub(head.len());
        self.bytes[start..start + head.len()].copy_from_slice(head);
        self.start = start;
    }

    /// Takes away what was put before it.
    pub(super) fn keep_last(&mut self, length: usize) {
        self.start = self.end - length;
    }

    fn truncate(&mut self, length: usize) {
        self.end = self.start + length;
        self.bytes[self.end] = 0;
    }

    /// Makes a name through the reader's own `/proc/self` name the caller's; whether it was one, and is placed now.
    fn rewrite_self(&mut self, request: &Request<'_>, caller: &Caller, follow: Follow) -> bool {
        let path = self.as_bytes();
        // A name that comes back to it is for `links`.
        let comes_back = path.get("/proc/self/".len()..).is_some_and(links::names_self);
        let (skip, owner) = match path {
            _ if comes_back => return false,
            [b'/', b'p', b'r', b'o', b'c', b'/', rest @ ..] if rest.starts_with(b"self/") => ("/proc/self".len(), caller.process),
            [b'/', b'p', b'r', b'o', b'c', b'/', rest @ ..] if rest.starts_with(b"thread-self/") => {
                ("/proc/thread-self".len(), request.note.thread)
            }
            [b'/', b'd', b'e', b'v', b'/', rest @ ..] => {
                let number = match rest {
                    b"stdin" => Some(0),
                    b"stdout" => Some(1),
                    b"stderr" => Some(2),
                    _ => None,
                };
                if let Some(number) = number.filter(|_| follow == Follow::Yes) {
                    self.set(Name::new(format_args!("{}/fd/{number}", caller.process)).as_bytes());
                    return true;
                }
                if !rest.starts_with(b"fd/") {
                    return false;
                }
                ("/dev".len(), caller.process)
            }
            _ => return false,
        };
        self.start += skip;
        self.prepend(Name::new(format_args!("{owner}")).as_bytes());
        true
    }
}

impl<'b> Located<'b> {
    /// A file by a name that the supervisor can use.
    pub fn new(path: &'b CStr, follow: Follow) -> Self {
        Self { path, follow, _open: None }
    }
}

/// Finds the file that a call is about.
pub fn locate<'b>(request: &Request<'_>, caller: &Caller, buffer: &'b mut PathBuffer) -> Result<Located<'b>, Errno> {
    let (directory, pointer, last) = match request.row.target {
        Target::Nothing => return Err(Errno::EINVAL),
        Target::Descriptor(index) => return of_descriptor(request, request.argument(index) as i32, buffer),
        Target::Path { directory, path, last } => (directory_of(request, directory), request.argument(path), last),
    };
    let (follow, may_be_empty) = match last {
        Last::Follow => (Follow::Yes, false),
        Last::Stay => (Follow::No, false),
        Last::Flags(index) => {
            let flags = request.argument(index) as i32;
            if flags & !known_flags(request.row.call) != 0 {
                return Err(Errno::EINVAL);
            }
            let follow = if flags & libc::AT_SYMLINK_NOFOLLOW == 0 { Follow::Yes } else { Follow::No };
            (follow, flags & libc::AT_EMPTY_PATH != 0)
        }
    };
    if pointer == 0 && may_be_empty {
        return of_descriptor(request, directory, buffer);
    }
    buffer.load(request, pointer)?;
    if buffer.as_bytes().is_empty() {
        return if may_be_empty { of_descriptor(request, directory, buffer) } else { Err(Errno::ENOENT) };
    }
    if buffer.rewrite_self(request, caller, follow) {
        return Ok(Located { path: buffer.as_c_str(), follow, _open: None });
    }
    if caller.view == View::Shared && links::lead_home(request, directory, buffer, follow) {
        let path = links::resolve(request, caller, directory, buffer.as_bytes(), follow)?;
        buffer.set(&path);
        return Ok(Located { path: buffer.as_c_str(), follow, _open: None });
    }
    if caller.view == View::Own || buffer.is_long() {
        let open = open_in_view(request, directory, buffer.as_c_str(), follow)?;
        buffer.set(Name::new(format_args!("self/fd/{}", open.as_raw_fd())).as_bytes());
        return Ok(Located { path: buffer.as_c_str(), follow: Follow::Yes, _open: Some(open) });
    }
    prefix(request, directory, buffer);
    Ok(Located { path: buffer.as_c_str(), follow, _open: None })
}

/// Finds the name that a call wants to make; its directory's name goes to `other`.
pub fn locate_new<'b>(
    request: &Request<'_>,
    caller: &Caller,
    buffer: &'b mut PathBuffer,
    other: &'b mut PathBuffer,
) -> Result<Place<'b>, Errno> {
    let Target::Path { directory, path, .. } = request.row.target else { return Err(Errno::EINVAL) };
    let directory = directory_of(request, directory);
    buffer.load(request, request.argument(path))?;
    let end = buffer.as_bytes().iter().rposition(|&b| b != b'/').ok_or(Errno::EEXIST)?;
    buffer.truncate(end + 1);
    let placed = buffer.rewrite_self(request, caller, Follow::No);
    if !placed && caller.view == View::Shared {
        prefix(request, directory, buffer);
    }
    let slash = buffer.as_bytes().iter().rposition(|&b| b == b'/');
    let name = &buffer.as_bytes()[slash.map_or(0, |at| at + 1)..];
    if matches!(name, b"." | b"..") {
        return Err(Errno::EEXIST);
    }
    match slash {
        Some(0) => other.set(b"/"),
        Some(at) => other.set(&buffer.as_bytes()[..at]),
        None => other.set(b"."),
    }
    let mut open = None;
    if !placed && caller.view == View::Own {
        let parent = open_in_view(request, directory, other.as_c_str(), Follow::Yes)?;
        let head = Name::new(format_args!("self/fd/{}", parent.as_raw_fd()));
        other.set(head.as_bytes());
        buffer.start += slash.map_or(0, |at| at + 1);
        buffer.prepend(b"/");
        buffer.prepend(head.as_bytes());
        open = Some(parent);
    }
    Ok(Place { path: buffer.as_c_str(), parent: other.as_c_str(), _open: open })
}

/// A name of what a call is about, for doing to the name itself what the caller asks for: a copy, so that a call can have two.
pub struct OwnName {
    path: std::ffi::CString,
    /// Keeps `self/fd/N` alive.
    _open: Option<OwnedFd>,
}

impl OwnName {
    /// Absolute or relative to `/proc`.
    pub fn path(&self) -> &CStr {
        &self.path
    }
}

/// The name that a call gives, as the caller wrote it.
pub fn own_name(request: &Request<'_>, buffer: &mut PathBuffer) -> Result<OwnName, Errno> {
    let caller = request.caller()?;
    if caller.view == View::Shared {
        let file = locate(request, &caller, buffer)?;
        return Ok(OwnName { path: file.path.to_owned(), _open: None });
    }
    let Target::Path { path, .. } = request.row.target else { return Err(Errno::EINVAL) };
    buffer.load(request, request.argument(path))?;
    if buffer.as_bytes().last() == Some(&b'/') {
        // Means something that is lost on the way.
        return Err(Errno::EINVAL);
    }
    let mut other = PathBuffer::default();
    let place = locate_new(request, &caller, buffer, &mut other)?;
    Ok(OwnName { path: place.path.to_owned(), _open: place._open })
}

/// The `AT_*` flags that a call knows.
fn known_flags(call: Call) -> i32 {
    const STATX_SYNC: i32 = 0x6000;
    let common = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;
    match call {
        Call::Stat(_) => common | libc::AT_NO_AUTOMOUNT,
        Call::AccessWithFlags => common | libc::AT_EACCESS,
        Call::Statx => common | libc::AT_NO_AUTOMOUNT | STATX_SYNC,
        _ => common,
    }
}

fn directory_of(request: &Request<'_>, index: Option<u8>) -> i32 {
    index.map_or(libc::AT_FDCWD, |index| request.argument(index) as i32)
}

/// The file behind a descriptor, or the working directory.
fn of_descriptor<'b>(request: &Request<'_>, number: i32, buffer: &'b mut PathBuffer) -> Result<Located<'b>, Errno> {
    buffer.set(base(request, number)?.as_bytes());
    Ok(Located { path: buffer.as_c_str(), follow: Follow::Yes, _open: None })
}

pub(super) fn base(request: &Request<'_>, directory: i32) -> Result<Name, Errno> {
    let thread = request.note.thread;
    match directory {
        libc::AT_FDCWD => Ok(Name::new(format_args!("{thread}/cwd"))),
        0.. => Ok(Name::new(format_args!("{thread}/fd/{directory}"))),
        _ => Err(Errno::EBADF),
    }
}

pub(super) fn prefix(request: &Request<'_>, directory: i32, buffer: &mut PathBuffer) {
    if buffer.as_bytes().first() == Some(&b'/') {
        return;
    }
    buffer.prepend(b"/");
    match base(request, directory) {
        Ok(base) => buffer.prepend(base.as_bytes()),
        // A name that does not exist: the kernel will find the caller's own error.
        Err(_) => buffer.prepend(b"none"),
    }
}

/// Opens a path as a caller with its own root or mount namespace would find it.
fn open_in_view(request: &Request<'_>, directory: i32, path: &CStr, follow: Follow) -> Result<OwnedFd, Errno> {
    let thread = request.note.thread;
    let root_name = Name::new(format_args!("{thread}/root"));
    let root = rustix::fs::open(root_name.as_c_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(errno)?;
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    flags.set(OFlags::NOFOLLOW, follow == Follow::No);
    let open_below =
        |directory: &OwnedFd, path: &[u8], resolve| rustix::fs::openat2(directory, path, flags, Mode::empty(), resolve).map_err(errno);
    if path.to_bytes().first() == Some(&b'/') {
        return open_below(&root, path.to_bytes(), ResolveFlags::IN_ROOT);
    }
    let base_name = base(request, directory)?;
    let link = |name: &Name| rustix::fs::readlinkat(CWD, name.as_c_str(), Vec::new()).map_err(errno);
    let (base_path, root_path) = (link(&base_name)?, link(&root_name)?);
    let below = base_path.to_bytes().strip_prefix(root_path.to_bytes().strip_suffix(b"/").unwrap_or(root_path.to_bytes()));
    let joined = below.map(|below| [b".", below, b"/", path.to_bytes()].concat()).filter(|joined| joined.len() < PATH_MAX);
    let base = rustix::fs::open(base_name.as_c_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(errno)?;
    // The joined path is right only if it leads to the very directory; that may be unlinked, outside the root, or covered by a mount.
    let stands = |below: &[u8]| {
        let again = rustix::fs::openat2(&root, [b".", below].concat(), flags, Mode::empty(), ResolveFlags::IN_ROOT);
        again.is_ok_and(|again| same_file(&again, &base))
    };
    match (joined, below) {
        (Some(joined), Some(below)) if stands(below) => open_below(&root, &joined, ResolveFlags::IN_ROOT),
        _ => open_below(&base, path.to_bytes(), ResolveFlags::empty()),
    }
}

fn same_file(a: &impl AsFd, b: &impl AsFd) -> bool {
    match (rustix::fs::fstat(a), rustix::fs::fstat(b)) {
        (Ok(a), Ok(b)) => (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino),
        _ => false,
    }
}
