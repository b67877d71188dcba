//! Access control lists: kept as extended attributes, since the kernel refuses lists that name IDs other than root's.
//!
//! The mode follows a list that is set, and whoever reads one sees it with the mode of that moment, so chmod needs to know of none. What is made
//! in a directory gets its default list. Nobody's access depends on a list here.

use std::ffi::CStr;

use nix::errno::Errno;
use rustix::fs::XattrFlags;

use super::attributes::Attributes;
use super::credentials::{Credentials, capability};
use super::paths::{Follow, Located};
use super::request::{DONE, Outcome, Shared};
use super::xattr;
use crate::rootfs::access_list::{ACCESS_XATTR, AccessList, DEFAULT_XATTR, Invalid};

/// Which of the two lists a file can have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one that holds for it.
    Access,
    /// The one that what is made in it gets.
    Default,
}

impl Which {
    /// By the attribute's name.
    pub fn of(name: &[u8]) -> Option<Self> {
        match name {
            ACCESS_XATTR => Some(Self::Access),
            DEFAULT_XATTR => Some(Self::Default),
            _ => None,
        }
    }

    fn name(self) -> &'static [u8] {
        match self {
            Self::Access => ACCESS_XATTR,
            Self::Default => DEFAULT_XATTR,
        }
    }
}

/// Sets a list, or removes it with a value that has no entries (linux/fs/posix_acl.c, vfs_set_acl and set_posix_acl).
pub fn set(shared: &Shared, credentials: &Credentials, file: &Located<'_>, which: Which, value: &[u8]) -> Outcome {
    let list = AccessList::parse(value).map_err(|invalid| match invalid {
        Invalid::Version => Errno::EOPNOTSUPP,
        Invalid::Form => Errno::EINVAL,
    })?;
    let old = Attributes::load(shared, file)?;
    if old.native_type() == libc::S_IFLNK {
        return Err(Errno::EOPNOTSUPP);
    }
    if which == Which::Default && old.native_type() != libc::S_IFDIR {
        return if list.is_some() { Err(Errno::EACCES) } else { DONE };
    }
    if credentials.uid.filesystem != old.uid() && !credentials.can(capability::FOWNER) {
        return Err(Errno::EPERM);
    }
    let Some(list) = list else {
        xattr::take(shared, file, which.name())?;
        return DONE;
    };
    if which == Which::Default || !list.is_mode() {
        xattr::keep(shared, file, which.name(), &list.to_bytes(), XattrFlags::empty())?;
    } else {
        xattr::take(shared, file, which.name())?;
    }
    if which == Which::Access {
        let mut mode = old.mode() & !0o777 | list.mode();
        if !credentials.in_group(old.gid()) && !credentials.can(capability::FSETID) {
            mode &= !libc::S_ISGID;
        }
        old.store(shared, file, old.uid(), old.gid(), mode)?;
    }
    DONE
}

/// A kept list as it is now.
///
/// # Errors
/// `ENODATA` if there is none, `EOPNOTSUPP` on a symlink.
pub fn current(shared: &Shared, file: &Located<'_>, which: Which) -> Result<Vec<u8>, Errno> {
    let Some(value) = xattr::kept_value(shared, file, which.name()) else {
        let symlink = file.follow == Follow::No && Attributes::load(shared, file)?.native_type() == libc::S_IFLNK;
        return Err(if symlink { Errno::EOPNOTSUPP } else { Errno::ENODATA });
    };
    match (which, AccessList::parse(&value)) {
        (Which::Access, Ok(Some(list))) => Ok(list.with_mode(Attributes::load(shared, file)?.mode()).to_bytes()),
        _ => Ok(value),
    }
}

/// The list that a directory hands down; `None` if it hands down none.
pub fn default_of(shared: &Shared, directory: &CStr) -> Option<AccessList> {
    let value = xattr::kept_value(shared, &Located::new(directory, Follow::Yes), DEFAULT_XATTR)?;
    AccessList::parse(&value).ok()?
}

/// Gives what has just been made, with the mode that the list left it, its lists.
pub fn hand_down(shared: &Shared, file: &Located<'_>, default: &AccessList) -> Result<(), Errno> {
    let made = Attributes::load(shared, file)?;
    if made.native_type() == libc::S_IFDIR {
        xattr::keep(shared, file, DEFAULT_XATTR, &default.to_bytes(), XattrFlags::empty())?;
    }
    if default.is_mode() {
        return Ok(());
    }
    xattr::keep(shared, file, ACCESS_XATTR, &default.clone().with_mode(made.mode()).to_bytes(), XattrFlags::empty())
}
