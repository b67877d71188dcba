//! Extended attributes in the table of inodes: those of symlinks and FIFOs, which hold none, and of everything where the file system holds none.
//!
//! Here they have the names that they have in the image.

use nix::errno::Errno;
use rustix::fs::XattrFlags;

use super::attributes::{Attributes, holds_xattrs, identify};
use super::paths::Located;
use super::request::Shared;

/// A value; `None` if the table has none.
pub fn get(shared: &Shared, file: &Located<'_>, name: &[u8]) -> Option<Vec<u8>> {
    if shared.inodes.is_empty() {
        return None;
    }
    shared.inodes.read(&identify(file).ok()?, |entry| entry.xattrs.get(name).cloned())?
}

/// All names.
pub fn names(shared: &Shared, file: &Located<'_>) -> Vec<Vec<u8>> {
    if shared.inodes.is_empty() {
        return Vec::new();
    }
    let native = identify(file).ok();
    native.and_then(|native| shared.inodes.read(&native, |entry| entry.xattrs.keys().cloned().collect())).unwrap_or_default()
}

/// Sets a value after the file system has refused it (EOPNOTSUPP, or EPERM for what never holds any).
///
/// # Errors
/// `EOPNOTSUPP` or `EPERM` if it is none of the table's business; else those of setxattr.
pub fn set(shared: &Shared, file: &Located<'_>, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<(), Errno> {
    let attributes = Attributes::load(shared, file)?;
    if !shared.keeps_by_inode(&attributes.native) {
        match (holds_xattrs(&attributes.native), name.starts_with(b"user.")) {
            (true, _) => return Err(Errno::EOPNOTSUPP),
            (false, true) => return Err(Errno::EPERM),
            (false, false) => {}
        }
    }
    let there = get(shared, file, name).is_some();
    if there && flags.contains(XattrFlags::CREATE) {
        return Err(Errno::EEXIST);
    }
    if !there && flags.contains(XattrFlags::REPLACE) {
        return Err(Errno::ENODATA);
    }
    attributes.enter(shared, file, |entry| drop(entry.xattrs.insert(name.to_vec(), value.to_vec())))
}

/// Removes a value.
///
/// # Errors
/// `ENODATA` if the table has none.
pub fn remove(shared: &Shared, file: &Located<'_>, name: &[u8]) -> Result<(), Errno> {
    if get(shared, file, name).is_none() {
        return Err(Errno::ENODATA);
    }
    Attributes::load(shared, file)?.enter(shared, file, |entry| drop(entry.xattrs.remove(name)))
}
