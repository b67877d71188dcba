//! What `/proc` says about processes, read without allocation.
//!
//! All names are relative: the supervisor's threads have `/proc` as their working directory, so that neither a step that mounts over it
//! nor a chroot of the caller matters.

use std::ffi::CStr;
use std::fmt;
use std::io::Write;
use std::mem::MaybeUninit;

use nix::errno::Errno;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, StatxFlags};

/// A short name below `/proc`, made on the stack.
pub struct Name([u8; Name::ROOM]);

impl Name {
    const ROOM: usize = 64;

    /// Formats a name; what does not fit is cut, which can only name a file that does not exist.
    pub fn new(text: fmt::Arguments<'_>) -> Self {
        let mut bytes = [0; Self::ROOM];
        let _ = (&mut bytes[..Self::ROOM - 1]).write_fmt(text);
        Self(bytes)
    }

    /// The name.
    pub fn as_c_str(&self) -> &CStr {
        // The last byte is never written.
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }

    /// The name's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.as_c_str().to_bytes()
    }
}

/// Parent, process group and session of a process.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The process that forked it, or that took it over.
    pub parent: u32,
    /// Its process group's leader.
    pub group: u32,
    /// Its session's leader.
    pub session: u32,
    /// When it began; tells it from a later process of the same number.
    pub began: u64,
}

/// Tells one program image of a process from the next: which file it is, and where its code and stack begin, which differ with every exec
/// unless addresses are not randomised (debuggers, `setarch -R`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    file: Option<u64>,
    code: u64,
    stack: u64,
}

/// Which directory is a process's root, in which mount namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootIdentity {
    device: (u32, u32),
    inode: u64,
    mount: u64,
}

impl RootIdentity {
    /// That of a process. A copy of a mount namespace has other mount IDs, so they tell namespaces apart (Linux 5.8).
    pub fn of(process: u32) -> Result<Self, Errno> {
        Self::read(Name::new(format_args!("{process}/root")).as_c_str())
    }

    /// The mount's number, as statx tells it.
    pub fn mount(&self) -> u64 {
        self.mount
    }

    /// The supervisor's own.
    pub fn own() -> Result<Self, Errno> {
        Self::read(c"/")
    }

    fn read(name: &CStr) -> Result<Self, Errno> {
        let root = rustix::fs::statx(CWD, name, AtFlags::empty(), StatxFlags::INO | StatxFlags::MNT_ID).map_err(errno)?;
        Ok(Self { device: (root.stx_dev_major, root.stx_dev_minor), inode: root.stx_ino, mount: root.stx_mnt_id })
    }
}

/// Turns one crate's error number into the other's.
pub fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// Reads the beginning of a file.
pub fn read<'b>(name: &CStr, buffer: &'b mut [u8]) -> Result<&'b [u8], Errno> {
    let file = rustix::fs::open(name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(errno)?;
    let length = rustix::io::read(&file, &mut *buffer).map_err(errno)?;
    Ok(&buffer[..length])
}

/// The thread group of a thread.
pub fn process_of(thread: u32) -> Result<u32, Errno> {
    status_field(thread, "Tgid:", 10).map(|id| id as u32)
}

/// The file mode creation mask of a thread (Linux 4.7).
pub fn umask_of(thread: u32) -> Result<u32, Errno> {
    status_field(thread, "Umask:", 8).map(|mask| mask as u32 & 0o777)
}

/// The capability bounding set of a process; all of Docker's capabilities if it can't be read.
pub fn bounding_of(process: u32) -> u64 {
    const DOCKER: u64 = 0xa804_25fb;
    status_field(process, "CapBnd:", 16).unwrap_or(DOCKER)
}

/// How many threads a process has, and under how many seccomp filters it is (Linux 5.9).
pub fn threads_and_filters_of(process: u32) -> Result<(u64, u64), Errno> {
    Ok((status_field(process, "Threads:", 10)?, status_field(process, "Seccomp_filters:", 10)?))
}

fn status_field(process: u32, field: &str, radix: u32) -> Result<u64, Errno> {
    let mut buffer = [0; 4096];
    let text = read(Name::new(format_args!("{process}/status")).as_c_str(), &mut buffer)?;
    text.split(|&b| b == b'\n')
        .filter_map(|line| str::from_utf8(line).ok())
        .find_map(|line| u64::from_str_radix(line.strip_prefix(field)?.trim(), radix).ok())
        .ok_or(Errno::ENOENT)
}

/// Parent, process group and session.
pub fn family_of(process: u32) -> Result<Family, Errno> {
    let mut buffer = [0; 1024];
    let mut field = stat_fields(process, &mut buffer)?;
    let mut next = |skip| field.nth(skip).and_then(|text| text.parse::<u64>().ok()).ok_or(Errno::ENOENT);
    // Fields 4, 5, 6 and 22 of proc_pid_stat(5); the first one here is number 3.
    Ok(Family { parent: next(1)? as u32, group: next(0)? as u32, session: next(0)? as u32, began: next(15)? })
}

impl Mark {
    /// That of a process now.
    pub fn of(process: u32) -> Result<Self, Errno> {
        let mut buffer = [0; 1024];
        let mut field = stat_fields(process, &mut buffer)?;
        let mut next = |skip| field.nth(skip).and_then(|text| text.parse().ok()).ok_or(Errno::ENOENT);
        // Fields 26 (startcode) and 28 (startstack) of proc_pid_stat(5); the first one here is number 3.
        let (code, stack) = (next(23)?, next(1)?);
        let name = Name::new(format_args!("{process}/exe"));
        let file = rustix::fs::statx(CWD, name.as_c_str(), AtFlags::empty(), StatxFlags::INO).ok().map(|file| file.stx_ino);
        Ok(Self { file, code, stack })
    }
}

/// The fields of `stat` after the program's name, which may hold anything.
fn stat_fields(process: u32, buffer: &mut [u8]) -> Result<impl Iterator<Item = &str>, Errno> {
    let text = read(Name::new(format_args!("{process}/stat")).as_c_str(), buffer)?;
    let end = text.iter().rposition(|&b| b == b')').ok_or(Errno::ENOENT)?;
    Ok(str::from_utf8(&text[end + 1..]).map_err(|_| Errno::ENOENT)?.split_ascii_whitespace())
}

/// Calls `each` for every child of every thread of a process.
///
/// Needs CONFIG_PROC_CHILDREN, which the distributions have; without it every process is asked for its parent.
pub fn for_each_child(process: u32, mut each: impl FnMut(u32)) {
    let mut found = false;
    for_each_number(Name::new(format_args!("{process}/task")).as_c_str(), |thread| {
        let list = Name::new(format_args!("{process}/task/{thread}/children"));
        found |= for_each_listed(list.as_c_str(), &mut each).is_ok();
    });
    if !found {
        for_each_number(c".", |child| {
            if family_of(child).is_ok_and(|family| family.parent == process) {
                each(child);
            }
        });
    }
}

/// Calls `each` for the numbers in a file, which are separated by blanks.
fn for_each_listed(name: &CStr, mut each: impl FnMut(u32)) -> Result<(), Errno> {
    let file = rustix::fs::open(name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(errno)?;
    let mut buffer = [0; 4096];
    let mut number = None;
    loop {
        let length = rustix::io::read(&file, &mut buffer).map_err(errno)?;
        for byte in &buffer[..length] {
            match byte {
                b'0'..=b'9' => number = Some(number.unwrap_or(0) * 10 + u32::from(byte - b'0')),
                _ => number.take().into_iter().for_each(&mut each),
            }
        }
        if length == 0 {
            number.into_iter().for_each(&mut each);
            return Ok(());
        }
    }
}

/// Calls `each` for the entries of a directory whose names are numbers.
fn for_each_number(directory: &CStr, mut each: impl FnMut(u32)) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = rustix::fs::open(directory, flags, Mode::empty()) else { return };
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(Ok(entry)) = entries.next() {
        if let Some(number) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()) {
            each(number);
        }
    }
}
