//! What an image says about one of its entries, and how that is kept on a file system that holds only one owner.
//! No I/O.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Kind as ErrorKind, quote};

/// The xattr that holds an [`Override`]; the name podman and fuse-overlayfs use.
pub const OVERRIDE_XATTR: &str = "user.containers.override_stat";

/// Prefix of xattrs kept under another name since an unprivileged process can't set them under their own.
pub const KEPT_XATTR_PREFIX: &str = "user.rootling.xattr.";

/// The xattr that makes a directory of a layer hide what lower layers have below it.
pub const OPAQUE_XATTR: &str = "user.overlay.opaque";

/// The type of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket; can't be in a layer.
    Socket,
}

impl Kind {
    /// Whether entries of this kind are kept as an empty regular file with an override.
    pub fn is_device(self) -> bool {
        matches!(self, Self::CharDevice { .. } | Self::BlockDevice { .. })
    }

    /// The permission bits the one user must have natively, to read, change and delete it.
    pub(crate) fn needed_bits(self) -> u32 {
        match self {
            Self::Directory => 0o700,
            Self::File | Self::CharDevice { .. } | Self::BlockDevice { .. } => 0o600,
            // Nobody but the container opens these; they can be deleted whatever their mode.
            Self::Symlink | Self::Fifo | Self::Socket => 0,
        }
    }
}

/// A time as files have it; may lie before 1970, `nanos` always counts forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtime {
    /// Whole seconds since 1970, rounded down.
    pub secs: i64,
    /// The rest, below 1,000,000,000.
    pub nanos: u32,
}

impl Mtime {
    /// A time without fraction.
    pub fn from_secs(secs: i64) -> Self {
        Self { secs, nanos: 0 }
    }
}

/// What becomes of the modification times of what a layer holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Times {
    /// They stay.
    #[default]
    Kept,
    /// Later ones become this, in seconds since 1970 (reproducible-builds.org, "SOURCE_DATE_EPOCH").
    NoLaterThan(i64),
    /// All become this, in seconds since 1970.
    Exactly(i64),
}

impl Times {
    /// The time something gets.
    pub fn of(self, mtime: Mtime) -> Mtime {
        match self {
            Self::Kept => mtime,
            Self::NoLaterThan(limit) => mtime.min(Mtime::from_secs(limit)),
            Self::Exactly(time) => Mtime::from_secs(time),
        }
    }

    /// The time that stands for now, if one is set.
    pub fn epoch(self) -> Option<i64> {
        match self {
            Self::Kept => None,
            Self::NoLaterThan(time) | Self::Exactly(time) => Some(time),
        }
    }
}

/// An entry's metadata as the image means it, not as the host's file system shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Type.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky: 0o7777 at most.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content.
    pub mtime: Mtime,
    /// Bytes of content of a file, of the target of a symlink; else 0.
    pub size: u64,
    /// Extended attributes under the names they have in the image.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Meta {
    /// An entry of root's without xattrs, of the epoch.
    pub fn new(kind: Kind, mode: u32) -> Self {
        Self { kind, mode, uid: 0, gid: 0, mtime: Mtime::default(), size: 0, xattrs: BTreeMap::new() }
    }

    /// The mode the entry gets on the host.
    pub(crate) fn native_mode(&self) -> u32 {
        self.mode | self.kind.needed_bits()
    }

    /// What the host's file system can't show of it; `None` if nothing.
    pub(crate) fn needed_override(&self) -> Option<Override> {
        let lacking = self.mode & self.kind.needed_bits() != self.kind.needed_bits();
        let device = self.kind.is_device().then_some(self.kind);
        (self.uid != 0 || self.gid != 0 || lacking || device.is_some()).then_some(Override {
            uid: self.uid,
            gid: self.gid,
            mode: self.mode,
            device,
        })
    }

    /// The same metadata with an override applied.
    pub(crate) fn apply(&mut self, over: &Override) {
        (self.uid, self.gid) = (over.uid, over.gid);
        if self.kind != Kind::Symlink {
            self.mode = over.mode;
        }
        if let (Some(device), Kind::File) = (over.device, self.kind) {
            self.kind = device;
            self.size = 0;
        }
    }

    /// Whether the two differ in more than times and size.
    pub(crate) fn same_but_for_times(&self, other: &Self) -> bool {
        (self.kind, self.mode, self.uid, self.gid, &self.xattrs) == (other.kind, other.mode, other.uid, other.gid, &other.xattrs)
    }
}

/// True owner, mode and type of an entry whose native ones differ, written `UID:GID:MODE[:TYPE]`: `33:33:0755`, `0:0:0666:char-1-3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, 0o7777 at most.
    pub mode: u32,
    /// The type that a regular file stands for.
    pub device: Option<Kind>,
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:0{:o}", self.uid, self.gid, self.mode & 0o7777)?;
        match self.device {
            Some(Kind::CharDevice { major, minor }) => write!(f, ":char-{major}-{minor}"),
            Some(Kind::BlockDevice { major, minor }) => write!(f, ":block-{major}-{minor}"),
            Some(Kind::Fifo) => f.write_str(":pipe"),
            Some(Kind::Socket) => f.write_str(":socket"),
            Some(Kind::File | Kind::Directory | Kind::Symlink) | None => Ok(()),
        }
    }
}

impl FromStr for Override {
    type Err = Error;

    /// Reads what [`Override`] writes and what containers/storage writes (which also names `dir`, `file` and `symlink`).
    fn from_str(text: &str) -> Result<Self, Error> {
        parse_override(text).ok_or_else(|| {
            Error::with_kind(ErrorKind::Corrupt, format!("invalid owner override {}", quote(text))).cause("expected `UID:GID:MODE[:TYPE]`")
        })
    }
}

fn parse_override(text: &str) -> Option<Override> {
    let mut parts = text.splitn(4, ':');
    let uid = decimal(parts.next()?)?;
    let gid = decimal(parts.next()?)?;
    let mode = parts.next().filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    let mode = u32::from_str_radix(mode, 8).ok()? & 0o7777;
    let device = match parts.next() {
        None | Some("file" | "dir" | "symlink") => None,
        Some("pipe") => Some(Kind::Fifo),
        Some("socket") => Some(Kind::Socket),
        Some(device) => Some(parse_device(device)?),
    };
    Some(Override { uid, gid, mode, device })
}

fn parse_device(text: &str) -> Option<Kind> {
    let mut parts = text.splitn(3, '-');
    let kind = parts.next()?;
    let (major, minor) = (decimal(parts.next()?)?, decimal(parts.next()?)?);
    match kind {
        "char" => Some(Kind::CharDevice { major, minor }),
        "block" => Some(Kind::BlockDevice { major, minor }),
        _ => None,
    }
}

/// A number without the sign that `parse` would take.
fn decimal(digits: &str) -> Option<u32> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// The name under which an image's xattr is kept on the host; `None` for names that are ours or overlayfs' and would forge something.
pub(crate) fn host_xattr_name(name: &[u8]) -> Option<Vec<u8>> {
    if is_private_xattr(name) {
        return None;
    }
    if name.starts_with(b"user.") {
        return Some(name.to_vec());
    }
    Some([KEPT_XATTR_PREFIX.as_bytes(), name].concat())
}

/// The name in the image of an xattr found on the host; `None` if it is none of the image's business.
pub(crate) fn image_xattr_name(name: &[u8]) -> Option<&[u8]> {
    match name.strip_prefix(KEPT_XATTR_PREFIX.as_bytes()) {
        Some(b"") => None,
        // A kept name that is a user name was not written by us.
        Some(kept) => (!kept.starts_with(b"user.")).then_some(kept),
        None if is_private_xattr(name) => None,
        // Set natively inside a user namespace where nothing emulated it.
        None => (name.starts_with(b"user.") || name == b"security.capability").then_some(name),
    }
}

/// Names that mean something to this program, to podman or to overlayfs and therefore never come from or go into a tar.
fn is_private_xattr(name: &[u8]) -> bool {
    [&b"user.overlay."[..], b"user.containers.", b"user.rootling."].iter().any(|prefix| name.starts_with(prefix))
}

/// A `security.capability` value as a tar carries it: the version 3 that a user namespace writes becomes version 2.
///
/// Layout (linux/capability.h): magic and flags, two pairs of permitted and inheritable, and in version 3 the root's uid.
pub(crate) fn capability_v2(value: Vec<u8>) -> Vec<u8> {
    const V3_LEN: usize = 24;
    const V2_LEN: usize = 20;
    if value.len() != V3_LEN || value[3] != 3 {
        return value;
    }
    let mut value = value;
    value.truncate(V2_LEN);
    value[3] = 2;
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_round_trip() {
        for (text, expected) in [
            ("33:33:0755", Override { uid: 33, gid: 33, mode: 0o755, device: None }),
            ("0:0:00", Override { uid: 0, gid: 0, mode: 0, device: None }),
            ("0:5:0620:char-5-1", Override { uid: 0, gid: 5, mode: 0o620, device: Some(Kind::CharDevice { major: 5, minor: 1 }) }),
            ("0:6:0660:block-8-0", Override { uid: 0, gid: 6, mode: 0o660, device: Some(Kind::BlockDevice { major: 8, minor: 0 }) }),
            ("4294967295:1:04755:pipe", Override { uid: u32::MAX, gid: 1, mode: 0o4755, device: Some(Kind::Fifo) }),
        ] {
            let parsed: Override = text.parse().unwrap();
            assert_eq!(parsed, expected);
            assert_eq!(parsed.to_string(), text);
        }
        assert_eq!("0:0:0100644:file".parse::<Override>().unwrap().mode, 0o644, "podman's types and type bits are understood");
    }

    #[test]
    fn refuses_what_is_no_override() {
        for text in [
            "",
            "0",
            "0:0",
            "0:0:",
            "-1:0:0755",
            "0:0:9",
            "0:0:+7",
            "0:0:0:char",
            "0:0:0:char-1",
            "0:0:0:tty-1-2",
            "4294967296:0:0",
            "a:b:c",
        ] {
            assert!(text.parse::<Override>().is_err(), "{text}");
        }
    }

    #[test]
    fn xattr_names_map_both_ways() {
        for (image, host) in [
            (&b"user.mime"[..], Some(&b"user.mime"[..])),
            (b"security.capability", Some(b"user.rootling.xattr.security.capability")),
            (b"trusted.x", Some(b"user.rootling.xattr.trusted.x")),
            (b"user.overlay.opaque", None),
            (b"user.containers.override_stat", None),
            (b"user.rootling.xattr.security.capability", None),
        ] {
            assert_eq!(host_xattr_name(image).as_deref(), host);
            if let Some(host) = host {
                assert_eq!(image_xattr_name(host), Some(image));
            }
        }
        assert_eq!(image_xattr_name(b"user.rootling.xattr.user.containers.override_stat"), None);
        assert_eq!(image_xattr_name(b"security.selinux"), None);
    }

    #[test]
    fn capabilities_become_version_2() {
        let v3 = [&[1, 0, 0, 3][..], &[7; 16], &[0xe8, 3, 0, 0]].concat();
        assert_eq!(capability_v2(v3), [&[1, 0, 0, 2][..], &[7; 16]].concat());
        let v2 = [&[1, 0, 0, 2][..], &[7; 16]].concat();
        assert_eq!(capability_v2(v2.clone()), v2);
    }
}
