//! Files below directory descriptors: no call here follows a symlink in the last component, none builds a path string.
//!
//! Not here: what a mode, an owner or an xattr means (`rootfs`), mounts.

pub mod copy;
pub mod remove;
pub mod walk;
pub mod xattr;

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

pub use rustix::fs::FileType;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, Timespec, Timestamps, UTIME_OMIT};

/// What `stat` says, with the same field types on every architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    pub dev: u64,
    pub ino: u64,
    pub nlink: u64,
    /// Type and permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev_major: u32,
    pub rdev_minor: u32,
    pub size: u64,
    /// In units of 512 bytes.
    pub blocks: u64,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Seconds and nanoseconds.
    pub ctime: (i64, u32),
}

impl FileStat {
    /// The type bits.
    pub fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.file_type() == FileType::Directory
    }

    /// Whether it is overlayfs' mark for "there is nothing here".
    pub fn is_whiteout(&self) -> bool {
        self.file_type() == FileType::CharacterDevice && (self.rdev_major, self.rdev_minor) == (0, 0)
    }

    /// 07777.
    pub fn permissions(&self) -> u32 {
        self.mode & 0o7777
    }
}

// The C types behind these fields differ between architectures.
#[allow(clippy::unnecessary_cast, clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]
fn file_stat(stat: &rustix::fs::Stat) -> FileStat {
    FileStat {
        dev: stat.st_dev as u64,
        ino: stat.st_ino as u64,
        nlink: stat.st_nlink as u64,
        mode: stat.st_mode as u32,
        uid: stat.st_uid as u32,
        gid: stat.st_gid as u32,
        rdev_major: rustix::fs::major(stat.st_rdev),
        rdev_minor: rustix::fs::minor(stat.st_rdev),
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as u32),
        ctime: (stat.st_ctime as i64, stat.st_ctime_nsec as u32),
    }
}

/// Opens a directory by host path, following symlinks: for roots that the user or the storage layout named.
pub fn open_root(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens a directory in a directory; ENOTDIR for anything else, symlinks included.
pub fn open_dir(dir: impl AsFd, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// The longest path that is given to the kernel at once; it takes 4096 bytes.
const LONG: usize = 4000;

/// Opens a directory any number of levels below another, whatever the length of the path; the directory itself for an empty path.
pub fn open_dir_below(dir: impl AsFd, path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut rest = path;
    let mut at: Option<OwnedFd> = None;
    while rest.len() > LONG {
        let end = rest[..LONG].iter().rposition(|&b| b == b'/').ok_or(rustix::io::Errno::NAMETOOLONG)?;
        let near = at.as_ref().map_or(dir.as_fd(), AsFd::as_fd);
        at = Some(rustix::fs::openat(near, &rest[..end], flags, Mode::empty())?);
        rest = &rest[end + 1..];
    }
    open_dir(at.as_ref().map_or(dir.as_fd(), AsFd::as_fd), if rest.is_empty() { b"." } else { rest })
}

/// Opens the parent of an open directory.
pub fn open_parent(dir: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(dir, c"..", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens a file for reading; never blocks on a FIFO, ELOOP for a symlink.
pub fn open_file(dir: impl AsFd, name: impl rustix::path::Arg) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?.into())
}

/// Creates a file that must not exist, for reading and writing; the umask applies to `mode`.
pub fn create_file(dir: impl AsFd, name: impl rustix::path::Arg, mode: u32) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(mode))?.into())
}

/// Creates a directory; the umask applies to `mode`.
pub fn make_dir(dir: impl AsFd, name: impl rustix::path::Arg, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode))?)
}

/// Creates a symlink.
pub fn make_symlink(target: &[u8], dir: impl AsFd, name: impl rustix::path::Arg) -> io::Result<()> {
    Ok(rustix::fs::symlinkat(target, dir, name)?)
}

/// Creates a FIFO; the umask applies to `mode`.
pub fn make_fifo(dir: impl AsFd, name: impl rustix::path::Arg, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::mknodat(dir, name, FileType::Fifo, Mode::from_raw_mode(mode), 0)?)
}

/// Creates overlayfs' whiteout, which an unprivileged process may since Linux 5.8.
pub fn make_whiteout(dir: impl AsFd, name: impl rustix::path::Arg) -> io::Result<()> {
    Ok(rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)?)
}

/// Gives a file, of any type but a directory, another name.
pub fn make_link(dir: impl AsFd, name: impl rustix::path::Arg, new_dir: impl AsFd, new_name: impl rustix::path::Arg) -> io::Result<()> {
    Ok(rustix::fs::linkat(dir, name, new_dir, new_name, AtFlags::empty())?)
}

/// Reads a symlink.
pub fn read_link(dir: impl AsFd, name: impl rustix::path::Arg) -> io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes())
}

/// Removes anything but a directory.
pub fn unlink(dir: impl AsFd, name: impl rustix::path::Arg) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?)
}

/// Appends up to `limit` bytes, at most what `buffer` has room for, by one read; 0 at the end of the file.
pub fn read_append(file: impl AsFd, buffer: &mut Vec<u8>, limit: usize) -> io::Result<usize> {
    let start = buffer.len();
    let read = loop {
        match rustix::io::read(&file, rustix::buffer::spare_capacity(buffer)) {
            Err(rustix::io::Errno::INTR) => {}
            read => break read?,
        }
    };
    buffer.truncate(start + limit);
    Ok(read.min(limit))
}

/// Where a file's next data begin, at `from` or after it: what lies between is a hole. `None` if no more follow. File systems that know no holes have
/// data everywhere.
pub fn next_data(file: impl AsFd, from: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(from)) {
        Ok(at) => Ok(Some(at)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(rustix::io::Errno::INVAL) => Ok(Some(from)),
        Err(e) => Err(e.into()),
    }
}

/// Sets where the next reading of a file begins.
pub fn seek_to(file: impl AsFd, at: u64) -> io::Result<()> {
    rustix::fs::seek(file, rustix::fs::SeekFrom::Start(at)).map(drop).map_err(Into::into)
}

/// Stats an entry of a directory.
pub fn stat_at(dir: impl AsFd, name: impl rustix::path::Arg) -> io::Result<FileStat> {
    Ok(file_stat(&rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?))
}

/// Whether something lies on a FUSE file system. There, two names of one file are often two inodes to the kernel, which remembers for a
/// second how many names each has, whatever becomes of the other.
pub fn is_fuse(fd: impl AsFd) -> bool {
    /// linux/magic.h.
    const FUSE_SUPER_MAGIC: u64 = 0x6573_5546;
    rustix::fs::fstatfs(fd).is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(FUSE_SUPER_MAGIC))
}

/// Makes the kernel ask the file system again what an entry is, before it is stat'ed. Errors are those of that stat.
pub fn refresh(dir: impl AsFd, name: impl rustix::path::Arg) {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_FORCE_SYNC;
    let _ = rustix::fs::statx(dir, name, flags, rustix::fs::StatxFlags::BASIC_STATS);
}

/// Stats an entry of a directory; `None` if there is none.
pub fn stat_if_any(dir: impl AsFd, name: impl rustix::path::Arg) -> io::Result<Option<FileStat>> {
    match stat_at(dir, name) {
        Ok(stat) => Ok(Some(stat)),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Stats what is open.
pub fn stat_fd(fd: impl AsFd) -> io::Result<FileStat> {
    Ok(file_stat(&rustix::fs::fstat(fd)?))
}

/// Sets the permission bits of what is open.
pub fn set_mode(fd: impl AsFd, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))?)
}

/// Sets the permission bits of an entry that is known to be no symlink.
pub fn set_mode_at(dir: impl AsFd, name: impl rustix::path::Arg, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty())?)
}

/// Gives what is open to the process' own group: a set-group-ID directory above gave it another.
pub fn take_group(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::fchown(fd, None, Some(rustix::process::getegid()))?)
}

/// Sets the modification time of what is open.
pub fn set_mtime(fd: impl AsFd, mtime: (i64, u32)) -> io::Result<()> {
    Ok(rustix::fs::futimens(fd, &timestamps(mtime))?)
}

/// Sets the modification time of an entry.
pub fn set_mtime_at(dir: impl AsFd, name: impl rustix::path::Arg, mtime: (i64, u32)) -> io::Result<()> {
    Ok(rustix::fs::utimensat(dir, name, &timestamps(mtime), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn timestamps((secs, nanos): (i64, u32)) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: secs, tv_nsec: nanos.into() },
    }
}

/// An entry's name with its type, [`FileType::Unknown`] where the file system doesn't tell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// Never `.` or `..`.
    pub name: Box<[u8]>,
    type_bits: u32,
}

impl DirEntry {
    /// The type, if the file system told.
    pub fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.type_bits)
    }

    /// The same name with the type that `stat` found.
    #[must_use]
    pub fn with_type(&self, file_type: FileType) -> Self {
        Self { name: self.name.clone(), type_bits: type_bits(file_type) }
    }
}

/// Lists an open directory from its start, sorted by name.
pub fn list(dir: BorrowedFd<'_>) -> io::Result<Vec<DirEntry>> {
    let mut entries = list_unsorted(dir)?;
    entries.sort_unstable();
    Ok(entries)
}

/// Lists an open directory that was not read before, in the file system's order.
pub fn list_unsorted(dir: BorrowedFd<'_>) -> io::Result<Vec<DirEntry>> {
    let mut buffer = [const { MaybeUninit::uninit() }; 32 << 10];
    let mut raw = RawDir::new(dir, &mut buffer);
    let mut entries = Vec::new();
    while let Some(entry) = raw.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            entries.push(DirEntry { name: name.into(), type_bits: type_bits(entry.file_type()) });
        }
    }
    Ok(entries)
}

fn type_bits(file_type: FileType) -> u32 {
    if file_type == FileType::Unknown { 0 } else { file_type.as_raw_mode() }
}

/// The process' umask, read without changing it; `None` on kernels that don't tell (before 4.7).
pub fn umask() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let digits = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(digits.trim(), 8).ok()
}
