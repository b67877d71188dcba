//! Owner, mode and type of a file as the container believes them to be: reading them together with the native ones, and writing them.

use std::ffi::CStr;

use nix::errno::Errno;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Statx, StatxFlags, Timespec, Timestamps, XattrFlags};

use super::inodes::{Entry, Key, Origin};
use super::overrides::Text;
use super::paths::{Follow, Located};
use super::procfs::errno;
use super::request::Shared;
use super::xattr;
use crate::oci::ImagePath;
use crate::rootfs::meta::{OVERRIDE_XATTR, Override};

/// What is asked for besides what a caller wants: enough to know an inode again.
pub const IDENTITY: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// A file's attributes.
pub struct Attributes {
    /// As the kernel has them.
    pub native: Statx,
    /// What differs.
    pub recorded: Option<Override>,
}

impl Attributes {
    /// Reads them.
    pub fn load(shared: &Shared, file: &Located<'_>) -> Result<Self, Errno> {
        let native = identify(file)?;
        let mut recorded = None;
        if holds_xattrs(&native) {
            recorded = read_override(file.path, file.follow);
        }
        Ok(Self { recorded: recorded.or_else(|| shared.inodes.owner(&native)), native })
    }

    /// Owner.
    pub fn uid(&self) -> u32 {
        self.recorded.map_or(self.native.stx_uid, |o| o.uid)
    }

    /// Group.
    pub fn gid(&self) -> u32 {
        self.recorded.map_or(self.native.stx_gid, |o| o.gid)
    }

    /// Permission bits.
    pub fn mode(&self) -> u32 {
        self.recorded.map_or(self.native_mode(), |o| o.mode)
    }

    /// Permission bits as the kernel has them.
    pub fn native_mode(&self) -> u32 {
        u32::from(self.native.stx_mode) & 0o7777
    }

    /// The native type bits: a device's placeholder is a regular file.
    pub fn native_type(&self) -> u32 {
        u32::from(self.native.stx_mode) & libc::S_IFMT
    }

    /// Gives the file owner, group and mode.
    pub fn store(&self, shared: &Shared, file: &Located<'_>, uid: u32, gid: u32, mode: u32) -> Result<(), Errno> {
        let new = Override { uid, gid, mode, device: self.recorded.and_then(|o| o.device) };
        if !holds_xattrs(&self.native) {
            return self.store_by_inode(shared, file, new);
        }
        if uid == 0 && gid == 0 && new.device.is_none() && !self.locks_out(mode) {
            if self.recorded.is_some() {
                match remove_override(file) {
                    Ok(()) => {}
                    Err(Errno::ENODATA | Errno::EOPNOTSUPP) => self.enter(shared, file, |entry| entry.over = None)?,
                    Err(error) => return Err(error),
                }
            }
            return self.change_native_mode(file, mode);
        }
        match write_override(file, &new) {
            Ok(()) => self.change_native_mode(file, mode | self.floor()),
            Err(Errno::EOPNOTSUPP | Errno::EPERM) => {
                self.change_native_mode(file, mode | self.floor())?;
                self.enter(shared, file, |entry| entry.over = Some(new))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a native mode like this would keep the user from their storage.
    pub fn locks_out(&self, mode: u32) -> bool {
        holds_xattrs(&self.native) && mode & self.floor() != self.floor()
    }

    /// The least native mode with which the user can always read and delete their storage.
    fn floor(&self) -> u32 {
        if self.native_type() == libc::S_IFDIR { 0o700 } else { 0o600 }
    }

    fn change_native_mode(&self, file: &Located<'_>, mode: u32) -> Result<(), Errno> {
        if self.native_mode() == mode || self.native_type() == libc::S_IFLNK {
            return Ok(());
        }
        rustix::fs::chmodat(CWD, file.path, Mode::from_raw_mode(mode), AtFlags::empty()).map_err(errno)
    }

    fn store_by_inode(&self, shared: &Shared, file: &Located<'_>, new: Override) -> Result<(), Errno> {
        if (new.uid, new.gid) == (self.uid(), self.gid()) && new.mode == self.mode() {
            return Ok(());
        }
        self.change_native_mode(file, new.mode)?;
        let over = ((new.uid, new.gid) != (self.native.stx_uid, self.native.stx_gid)).then_some(new);
        self.enter(shared, file, |entry| entry.over = over)
    }

    /// Changes what the table knows of the file, where the step leaves its own.
    pub fn enter(&self, shared: &Shared, file: &Located<'_>, change: impl FnOnce(&mut Entry)) -> Result<(), Errno> {
        let known = shared.inodes.get(&self.native);
        let mut entry = known.clone().unwrap_or_else(|| Entry::new(Origin::Step));
        change(&mut entry);
        if entry.is_empty() {
            shared.inodes.remove(&self.native);
            return Ok(());
        }
        let mut native = self.native;
        entry.origin = Origin::Step;
        if matches!(self.native_type(), libc::S_IFLNK | libc::S_IFIFO) {
            if shared.upper.is_some() {
                native = copy_up(file, &self.native)?;
            }
            entry.path = image_path(file);
            entry.twin = entry.path.as_ref().and_then(|path| shared.look_in_upper(path)).map(|in_upper| Key::of(&in_upper));
        } else if known.is_none() && shared.keeps_by_inode(&native) {
            entry.path = image_path(file);
        }
        shared.inodes.insert(&native, entry);
        Ok(())
    }
}

/// What tells a file from others.
pub fn identify(file: &Located<'_>) -> Result<Statx, Errno> {
    rustix::fs::statx(CWD, file.path, file.follow.flags(), IDENTITY).map_err(errno)
}

/// Whether user extended attributes can exist on this kind of file.
pub fn holds_xattrs(stat: &Statx) -> bool {
    matches!(u32::from(stat.stx_mode) & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR)
}

impl Follow {
    /// As the `*at` calls want it.
    pub fn flags(self) -> AtFlags {
        match self {
            Self::Yes => AtFlags::empty(),
            Self::No => AtFlags::SYMLINK_NOFOLLOW,
        }
    }
}

/// The override of a file; `None` if there is none, or none can be.
pub fn read_override(path: &CStr, follow: Follow) -> Option<Override> {
    let mut buffer = [0; Text::ROOM * 2];
    let length = match follow {
        Follow::Yes => rustix::fs::getxattr(path, OVERRIDE_XATTR, &mut buffer),
        Follow::No => rustix::fs::lgetxattr(path, OVERRIDE_XATTR, &mut buffer),
    };
    Override::parse(&buffer[..length.ok()?])
}

fn write_override(file: &Located<'_>, new: &Override) -> Result<(), Errno> {
    xattr::set(file, OVERRIDE_XATTR, new.text().as_bytes(), XattrFlags::empty())
}

fn remove_override(file: &Located<'_>) -> Result<(), Errno> {
    xattr::remove(file, OVERRIDE_XATTR)
}

/// Makes sure that a symlink or FIFO lies in the upper layer, by giving it the times it has; its identity there.
fn copy_up(file: &Located<'_>, native: &Statx) -> Result<Statx, Errno> {
    let time = |t: &rustix::fs::StatxTimestamp| Timespec { tv_sec: t.tv_sec, tv_nsec: t.tv_nsec.into() };
    let times = Timestamps { last_access: time(&native.stx_atime), last_modification: time(&native.stx_mtime) };
    rustix::fs::utimensat(CWD, file.path, &times, file.follow.flags()).map_err(errno)?;
    identify(file)
}

/// Where a file is in the image.
fn image_path(file: &Located<'_>) -> Option<ImagePath> {
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    flags.set(OFlags::NOFOLLOW, file.follow == Follow::No);
    let open = rustix::fs::open(file.path, flags, Mode::empty()).ok()?;
    let name = super::procfs::Name::new(format_args!("self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open)));
    let path = rustix::fs::readlinkat(CWD, name.as_c_str(), Vec::new()).ok()?;
    path.to_bytes().starts_with(b"/").then(|| ImagePath::clean(path.to_bytes()))
}
