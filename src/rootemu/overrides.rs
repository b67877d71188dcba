//! The override: owner, mode and type that one user can't hold natively, as the extended attribute's value `UID:GID:MODE[:TYPE]`.
//!
//! The form is that of containers/storage; it is read and written here without allocation, since every stat of an overridden file does it.

use std::fmt::{self, Display};
use std::io::Write;

/// The attribute's name.
pub const NAME: &std::ffi::CStr = c"user.containers.override_stat";

/// True owner, mode and, for a device's placeholder, type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
    /// Permission bits (07777).
    pub mode: u32,
    /// The device that a regular file stands for.
    pub device: Option<Device>,
}

/// A device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Which kind.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// The two kinds of device nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Character device.
    Character,
    /// Block device.
    Block,
}

/// An override's text.
pub struct Text {
    bytes: [u8; Text::ROOM],
    length: usize,
}

impl Text {
    /// More than `4294967295:4294967295:07777:block-4294967295-4294967295` needs.
    pub const ROOM: usize = 64;

    /// The text's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Override {
    /// Reads a value; `None` for one that is not of this form.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = str::from_utf8(value).ok()?.trim_end_matches('\0');
        let mut fields = text.splitn(4, ':');
        let uid = fields.next()?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let mode = u32::from_str_radix(fields.next()?, 8).ok()? & 0o7777;
        let device = fields.next().and_then(Device::parse);
        Some(Self { uid, gid, mode, device })
    }

    /// The value.
    pub fn text(&self) -> Text {
        let mut bytes = [0; Text::ROOM];
        let mut rest = &mut bytes[..];
        // Can't fail: ROOM is more than the longest text.
        let _ = write!(rest, "{self}");
        let length = Text::ROOM - rest.len();
        Text { bytes, length }
    }
}

impl Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:0{:o}", self.uid, self.gid, self.mode)?;
        match self.device {
            Some(Device { kind: DeviceKind::Character, major, minor }) => write!(f, ":char-{major}-{minor}"),
            Some(Device { kind: DeviceKind::Block, major, minor }) => write!(f, ":block-{major}-{minor}"),
            None => Ok(()),
        }
    }
}

impl Device {
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split('-');
        let kind = match fields.next()? {
            "char" => DeviceKind::Character,
            "block" => DeviceKind::Block,
            _ => return None,
        };
        Some(Self { kind, major: fields.next()?.parse().ok()?, minor: fields.next()?.parse().ok()? })
    }

    /// The type bits of `st_mode`.
    pub fn type_bits(&self) -> u32 {
        match self.kind {
            DeviceKind::Character => libc::S_IFCHR,
            DeviceKind::Block => libc::S_IFBLK,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_trip() {
        let disk = Device { kind: DeviceKind::Block, major: u32::MAX, minor: u32::MAX };
        let null = Device { kind: DeviceKind::Character, major: 1, minor: 3 };
        for (value, expected) in [
            ("33:44:0755", Override { uid: 33, gid: 44, mode: 0o755, device: None }),
            ("0:0:00", Override { uid: 0, gid: 0, mode: 0, device: None }),
            ("0:5:0620:char-1-3", Override { uid: 0, gid: 5, mode: 0o620, device: Some(null) }),
            (
                "4294967294:4294967294:07777:block-4294967295-4294967295",
                Override { uid: u32::MAX - 1, gid: u32::MAX - 1, mode: 0o7777, device: Some(disk) },
            ),
        ] {
            assert_eq!(Override::parse(value.as_bytes()), Some(expected), "{value}");
            assert_eq!(expected.text().as_bytes(), value.as_bytes());
        }
    }

    #[test]
    fn foreign_values() {
        for (value, expected) in [
            ("1:2:100644", Some(Override { uid: 1, gid: 2, mode: 0o644, device: None })),
            ("1:2:0644:file", Some(Override { uid: 1, gid: 2, mode: 0o644, device: None })),
            ("1:2", None),
            ("-1:2:0644", None),
            ("1:2:0999", None),
            ("", None),
        ] {
            assert_eq!(Override::parse(value.as_bytes()), expected, "{value}");
        }
    }
}
