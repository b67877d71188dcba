//! An entry of a layer's tree as it lies on disk, read as what the image means.

use super::access_list::{self, AccessList};
use super::meta::{self, Kind, Meta, Mtime, OPAQUE_XATTR, OVERRIDE_XATTR, Override};
use super::record::Record;
use crate::error::{Error, Kind as ErrorKind, Place, Result, quote};
use crate::oci::ImagePath;
use crate::sys::fs::xattr::{self, Target};
use crate::sys::fs::{FileStat, FileType};

/// What an entry means.
#[derive(Debug)]
pub(super) struct Found {
    pub meta: Meta,
    /// Whether what lower layers have below this directory is hidden.
    pub opaque: bool,
}

/// Reads an entry that is no whiteout. Costs one system call, and one more for each xattr.
pub(super) fn read(target: Target<'_>, stat: &FileStat, record: &Record, path: &ImagePath) -> Result<Found> {
    let kind = kind(stat);
    let mut found = Found { meta: Meta { size: size(stat), ..Meta::new(kind, stat.permissions()) }, opaque: record.opaque.contains(path) };
    found.meta.mtime = Mtime { secs: stat.mtime.0, nanos: stat.mtime.1 };
    let mut over = None;
    if matches!(kind, Kind::File | Kind::Directory) {
        over = read_xattrs(target, &mut found).map_err(|e| e.at(Place::Name(path.to_string())))?;
    }
    if let Some(over) = record.overrides.get(path).copied().or(over) {
        found.meta.apply(&over);
    }
    if let Some(xattrs) = record.xattrs.get(path) {
        found.meta.xattrs.extend(xattrs.clone());
    }
    let mode = found.meta.mode;
    if let Some(value) = found.meta.xattrs.get_mut(access_list::ACCESS_XATTR)
        && let Ok(Some(list)) = AccessList::parse(value)
    {
        *value = list.with_mode(mode).to_bytes();
    }
    Ok(found)
}

fn read_xattrs(target: Target<'_>, found: &mut Found) -> Result<Option<Override>> {
    let doing = |e| Error::os("can't read the extended attributes of a file", e);
    let mut over = None;
    for name in xattr::list(target).map_err(doing)? {
        let image_name = meta::image_xattr_name(&name);
        let is_override = name == OVERRIDE_XATTR.as_bytes();
        let is_opaque = name == OPAQUE_XATTR.as_bytes();
        if image_name.is_none() && !is_override && !is_opaque {
            continue;
        }
        let Some(value) = xattr::get(target, &name).map_err(doing)? else { continue };
        if is_override {
            over = Some(parse_override(&value)?);
        } else if is_opaque {
            found.opaque |= value == b"y";
        } else if let Some(image_name) = image_name {
            let kept = image_name.len() != name.len();
            let value = if image_name == b"security.capability" { meta::capability_v2(value) } else { value };
            if kept {
                found.meta.xattrs.insert(image_name.to_vec(), value);
            } else {
                // What was kept is what the image says; a native twin is the kernel's.
                found.meta.xattrs.entry(image_name.to_vec()).or_insert(value);
            }
        }
    }
    Ok(over)
}

/// Reads an override xattr's value.
pub(super) fn parse_override(value: &[u8]) -> Result<Override> {
    let bad = || Error::with_kind(ErrorKind::Corrupt, format!("invalid owner override {}", quote(value)));
    std::str::from_utf8(value).map_err(|_| bad())?.parse()
}

/// Native type.
pub(super) fn kind(stat: &FileStat) -> Kind {
    let (major, minor) = (stat.rdev_major, stat.rdev_minor);
    match stat.file_type() {
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice => Kind::CharDevice { major, minor },
        FileType::BlockDevice => Kind::BlockDevice { major, minor },
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        _ => Kind::File,
    }
}

fn size(stat: &FileStat) -> u64 {
    match stat.file_type() {
        FileType::RegularFile | FileType::Symlink => stat.size,
        _ => 0,
    }
}
