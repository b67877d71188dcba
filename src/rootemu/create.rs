//! Making files, directories, nodes and symlinks.
//!
//! A process whose file system IDs are 0 makes them natively, except devices, and except in a directory that hands down another group. For
//! others, and in a directory with a default access control list, the supervisor makes the object, gives it its owner, and, for open, hands over the
//! descriptor: nobody ever sees it without owner.
//! A socket's name is made by bind: the supervisor calls it for the caller, whose servers check and change the owner of what they made.
//! openat2 with RESOLVE_* flags is left to the kernel, its new files are root's.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::UnixAddr;
use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::access;
use super::attributes::{self, Attributes};
use super::credentials::{Credentials, capability};
use super::filter::TMPFILE;
use super::lists;
use super::paths::{Follow, Located, Place, locate, locate_new};
use super::processes::View;
use super::procfs::{self, errno};
use super::request::{DONE, Outcome, PASS, Request, Scratch, Shared};
use crate::rootfs::access_list::AccessList;
use crate::rootfs::meta::{Kind, OVERRIDE_XATTR, Override};

/// Answers an open that may make a file.
pub fn open(request: &Request<'_>, scratch: &mut Scratch) -> Outcome {
    create(request, scratch, request.operand_int(0), request.operand_int(1))
}

/// Answers creat.
pub fn creat(request: &Request<'_>, scratch: &mut Scratch) -> Outcome {
    const FLAGS: i32 = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
    create(request, scratch, FLAGS as u32, request.operand_int(0))
}

/// Answers openat2.
pub fn openat2(request: &Request<'_>, scratch: &mut Scratch) -> Outcome {
    // struct open_how: flags, mode, resolve.
    let mut how = [[0_u8; 8]; 3];
    if request.operand(1) < 24 || request.read(request.operand(0), how.as_flattened_mut()).is_err() {
        return PASS;
    }
    let [flags, mode, resolve] = how.map(u64::from_le_bytes);
    if flags as u32 & (libc::O_CREAT as u32 | TMPFILE) == 0 || resolve != 0 {
        return PASS;
    }
    create(request, scratch, flags as u32, mode as u32)
}

fn create(request: &Request<'_>, scratch: &mut Scratch, flags: u32, mode: u32) -> Outcome {
    let Ok(caller) = request.caller() else { return PASS };
    if flags & TMPFILE != 0 {
        return create_unnamed(request, scratch, flags, mode);
    }
    let Ok(place) = locate_new(request, &caller, &mut scratch.path, &mut scratch.other) else { return PASS };
    let Some(heritage) = Heritage::of(request.shared, &caller.credentials, place.parent) else { return PASS };
    let flags = OFlags::from_bits_retain(flags);
    access::may_open(request.shared, &caller, &place, flags)?;
    let mode = heritage.mode(request, mode & 0o7777)?;
    request.check_alive()?;
    let native = Mode::from_raw_mode(mode | 0o600);
    let own = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
    let mut fresh = false;
    let file = match rustix::fs::open(place.path, own | OFlags::CREATE | OFlags::EXCL, native) {
        Ok(file) => {
            fresh = true;
            file
        }
        // A symlink that leads to nothing is followed and its target made, unless the caller wants the name itself to be new.
        Err(rustix::io::Errno::EXIST) if !flags.intersects(OFlags::EXCL | OFlags::NOFOLLOW) && leads_nowhere(place.path) => {
            rustix::fs::open(place.path, own | OFlags::CREATE, native).map_err(errno)?
        }
        Err(_) => return PASS,
    };
    let outcome = hand_over(request, file, flags, &heritage, mode);
    if fresh && outcome == Err(Errno::EMFILE) {
        // The kernel looks for a free number first, and then makes nothing.
        let _ = rustix::fs::unlink(place.path);
    }
    outcome
}

fn create_unnamed(request: &Request<'_>, scratch: &mut Scratch, flags: u32, mode: u32) -> Outcome {
    let caller = request.caller()?;
    let Ok(directory) = locate(request, &caller, &mut scratch.path) else { return PASS };
    let Some(heritage) = Heritage::of(request.shared, &caller.credentials, directory.path) else { return PASS };
    let mode = heritage.mode(request, mode & 0o7777)?;
    let flags = OFlags::from_bits_retain(flags);
    match rustix::fs::open(directory.path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(mode | 0o600)) {
        Ok(file) => hand_over(request, file, flags, &heritage, mode),
        Err(_) => PASS,
    }
}

/// Gives a new file its owner, and to the caller.
fn hand_over(request: &Request<'_>, file: OwnedFd, flags: OFlags, heritage: &Heritage, mode: u32) -> Outcome {
    record(request.shared, &file, Override { uid: heritage.uid, gid: heritage.gid, mode, device: None })?;
    if let Some(list) = &heritage.list {
        let name = procfs::Name::new(format_args!("self/fd/{}", file.as_raw_fd()));
        lists::hand_down(request.shared, &Located::new(name.as_c_str(), Follow::Yes), list)?;
    }
    let descriptor_flags = if flags.contains(OFlags::CLOEXEC) { libc::O_CLOEXEC as u32 } else { 0 };
    match request.shared.listener.answer_with_file(request.note.id, file.as_fd(), descriptor_flags) {
        // The kernel has answered: what we answer now finds nobody and is ignored.
        Ok(()) => DONE,
        // Linux before 5.14. The file exists now and the caller can open it, unless it insists on making it.
        Err(Errno::EINVAL) if !flags.contains(OFlags::EXCL) => PASS,
        Err(error) => Err(error),
    }
}

/// Gives a new file its owner, mode and type.
fn record(shared: &Shared, file: &OwnedFd, new: Override) -> Result<(), Errno> {
    if rustix::fs::fsetxattr(file, OVERRIDE_XATTR, new.text().as_bytes(), rustix::fs::XattrFlags::empty()).is_ok() {
        return Ok(());
    }
    let name = procfs::Name::new(format_args!("self/fd/{}", file.as_raw_fd()));
    let located = Located::new(name.as_c_str(), Follow::Yes);
    Attributes::load(shared, &located)?.enter(shared, &located, |entry| entry.over = Some(new))
}

fn leads_nowhere(path: &CStr) -> bool {
    rustix::fs::stat(path).err() == Some(rustix::io::Errno::NOENT)
}

/// What something new gets of its maker and its directory.
struct Heritage {
    uid: u32,
    gid: u32,
    /// The directory's default list.
    list: Option<AccessList>,
}

impl Heritage {
    /// What root's has, where nothing is handed down.
    const NONE: Self = Self { uid: 0, gid: 0, list: None };

    /// `None` if the kernel can make it: root's, in a directory that hands down nothing that the kernel doesn't know.
    fn of(shared: &Shared, credentials: &Credentials, parent: &CStr) -> Option<Self> {
        let (uid, gid) = owner_of_new(shared, credentials, parent);
        let list = lists::default_of(shared, parent);
        ((uid, gid) != (0, 0) || list.is_some()).then_some(Self { uid, gid, list })
    }

    /// The mode of something made with one: the default list takes the place of the mask (posix_acl_create in linux/fs/posix_acl.c).
    fn mode(&self, request: &Request<'_>, mode: u32) -> Result<u32, Errno> {
        match &self.list {
            Some(list) => Ok(mode & !0o777 | list.mode() & mode),
            None => Ok(mode & !procfs::umask_of(request.note.thread)?),
        }
    }
}

/// Whose a new object in this directory is.
fn owner_of_new(shared: &Shared, credentials: &Credentials, parent: &CStr) -> (u32, u32) {
    let uid = credentials.uid.filesystem;
    let gid = credentials.gid.filesystem;
    match recorded(shared, parent) {
        Some(directory) if directory.mode & libc::S_ISGID != 0 => (uid, directory.gid),
        // Nothing recorded: the directory is root's, and may hand down root's group.
        None if gid != 0 && rustix::fs::stat(parent).is_ok_and(|native| native.st_mode & libc::S_ISGID != 0) => (uid, 0),
        _ => (uid, gid),
    }
}

/// The override of a directory.
fn recorded(shared: &Shared, directory: &CStr) -> Option<Override> {
    attributes::read_override(directory, Follow::Yes).or_else(|| {
        let known = (!shared.inodes.is_empty()).then(|| attributes::identify(&Located::new(directory, Follow::Yes)).ok());
        shared.inodes.owner(&known??)
    })
}

/// Answers mkdir and mkdirat.
pub fn mkdir(request: &Request<'_>, scratch: &mut Scratch) -> Outcome {
    let Ok(caller) = request.caller() else { return PASS };
    let Ok(place) = locate_new(request, &caller, &mut scratch.path, &mut scratch.other) else { return PASS };
    let harmless = request.operand_int(0) & 0o700 == 0o700;
    let heritage = match Heritage::of(request.shared, &caller.credentials, place.parent) {
        None if harmless => return PASS,
        heritage => heritage.unwrap_or(Heritage::NONE),
    };
    access::may_make(request.shared, &caller, &place)?;
    let mode = heritage.mode(request, request.operand_int(0) & 0o1777)?;
    request.check_alive()?;
    if rustix::fs::mkdirat(CWD, place.path, Mode::from_raw_mode(mode | 0o700)).is_err() {
        return PASS;
    }
    own(request, &place, &heritage, |native| mode | native & libc::S_ISGID)
}

/// Answers mknod and mknodat.
pub fn mknod(request: &Request<'_>, scratch: &mut Scratch) -> Outcome {
    let Ok(caller) = request.caller() else { return PASS };
    let Ok(place) = locate_new(request, &caller, &mut scratch.path, &mut scratch.other) else { return PASS };
    let (mode, number) = (request.operand_int(0), request.operand_int(1));
    // The kernel's 32 bit form of a device number (linux/kdev_t.h).
    let (major, minor) = (number >> 8 & 0xfff, number & 0xff | number >> 12 & !0xff);
    let device = match mode & libc::S_IFMT {
        libc::S_IFCHR => Some(Kind::CharDevice { major, minor }),
        libc::S_IFBLK => Some(Kind::BlockDevice { major, minor }),
        libc::S_IFIFO | libc::S_IFSOCK | libc::S_IFREG | 0 => None,
        _ => return PASS,
    };
    let heritage = Heritage::of(request.shared, &caller.credentials, place.parent);
    if device.is_none() && heritage.is_none() {
        return PASS;
    }
    if device.is_some() && !caller.credentials.can(capability::MKNOD) {
        return Err(Errno::EPERM);
    }
    access::may_make(request.shared, &caller, &place)?;
    let heritage = heritage.unwrap_or(Heritage::NONE);
    let permissions = heritage.mode(request, mode & 0o7777)?;
    request.check_alive()?;
    let native = Mode::from_raw_mode(permissions | 0o600);
    let Some(device) = device else {
        let made = rustix::fs::mknodat(CWD, place.path, FileType::from_raw_mode(mode), native, 0);
        return if made.is_err() { PASS } else { own(request, &place, &heritage, |_| permissions) };
    };
    // The placeholder: programs open, and change the mode of, the node they have just made.
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::open(place.path, flags, native).map_err(errno)?;
    record(request.shared, &file, Override { uid: heritage.uid, gid: heritage.gid, mode: permissions, device: Some(device) })?;
    if let Some(list) = &heritage.list {
        lists::hand_down(request.shared, &Located::new(place.path, Follow::No), list)?;
    }
    DONE
}

/// Answers symlink and symlinkat.
pub fn symlink(request: &Request<'_>, scratch: &mut Scratch) -> Outcome {
    let Ok(caller) = request.caller() else { return PASS };
    let Ok(place) = locate_new(request, &caller, &mut scratch.path, &mut scratch.other) else { return PASS };
    // A symlink has no list.
    let (uid, gid) = owner_of_new(request.shared, &caller.credentials, place.parent);
    if (uid, gid) == (0, 0) {
        return PASS;
    }
    access::may_make(request.shared, &caller, &place)?;
    let mut text = super::paths::PathBuffer::default();
    if text.load(request, request.argument(0)).is_err() {
        return PASS;
    }
    request.check_alive()?;
    if rustix::fs::symlinkat(text.as_c_str(), CWD, place.path).is_err() {
        return PASS;
    }
    own(request, &place, &Heritage { uid, gid, list: None }, |native| native)
}

/// Answers bind to a path.
pub fn bind(request: &Request<'_>) -> Outcome {
    const FAMILY: usize = 2;
    const LONGEST: usize = 110;
    let length = request.operand_int(2) as usize;
    let mut address = [0; LONGEST];
    if !(FAMILY + 1..=LONGEST).contains(&length) || request.read(request.operand(1), &mut address[..length]).is_err() {
        return PASS;
    }
    let path = address[FAMILY..length].split(|&b| b == 0).next().unwrap_or_default();
    if address[..FAMILY] != (libc::AF_UNIX as u16).to_ne_bytes() || path.is_empty() {
        return PASS;
    }
    let Ok(caller) = request.caller() else { return PASS };
    if (caller.credentials.uid.filesystem, caller.credentials.gid.filesystem) == (0, 0) || caller.view == View::Own {
        return PASS;
    }
    let Ok(address) = UnixAddr::new(path) else { return PASS };
    let Ok(socket) = request.shared.processes.copy_descriptor(caller.process, request.operand_int(0) as i32) else { return PASS };
    let umask = procfs::umask_of(request.note.thread)?;
    request.check_alive()?;
    // The name must be made as the caller wrote it, since the socket remembers it: from the caller's directory, with its mask.
    let _place = Borrowed::directory_of(request.note.thread)?;
    rustix::process::umask(Mode::from_raw_mode(umask));
    let bound = nix::sys::socket::bind(socket.as_raw_fd(), &address);
    rustix::process::umask(Mode::empty());
    bound?;
    let name = std::ffi::CString::new(path).map_err(|_| Errno::EINVAL)?;
    let parent = match path.iter().rposition(|&b| b == b'/') {
        Some(0) => std::ffi::CString::from(c"/"),
        Some(at) => std::ffi::CString::new(&path[..at]).map_err(|_| Errno::EINVAL)?,
        None => std::ffi::CString::from(c"."),
    };
    let (uid, gid) = owner_of_new(request.shared, &caller.credentials, &parent);
    let file = Located::new(&name, Follow::No);
    let native = Attributes::load(request.shared, &file)?;
    native.store(request.shared, &file, uid, gid, native.native_mode())?;
    DONE
}

/// The thread's working directory while it is another's; `/proc` again afterwards.
struct Borrowed(OwnedFd);

impl Borrowed {
    fn directory_of(thread: u32) -> Result<Self, Errno> {
        let own = rustix::fs::open(c".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(errno)?;
        rustix::process::chdir(procfs::Name::new(format_args!("{thread}/cwd")).as_c_str()).map_err(errno)?;
        Ok(Self(own))
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        // Can't fail: the directory was the working directory before.
        let _ = rustix::process::fchdir(&self.0);
    }
}

/// Gives what has just been made its owner, and the mode that follows from the native one.
fn own(request: &Request<'_>, place: &Place<'_>, heritage: &Heritage, mode: impl FnOnce(u32) -> u32) -> Outcome {
    let file = Located::new(place.path, Follow::No);
    let native = Attributes::load(request.shared, &file)?;
    native.store(request.shared, &file, heritage.uid, heritage.gid, mode(native.native_mode()))?;
    if let Some(list) = &heritage.list {
        lists::hand_down(request.shared, &file, list)?;
    }
    DONE
}
