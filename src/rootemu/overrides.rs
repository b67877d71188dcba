//! The value of the override attribute, written without allocation: every chown does it.

use std::io::Write;

use crate::rootfs::meta::Override;

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
    /// Reads an attribute's value; `None` for one that is not of this form.
    pub fn parse(value: &[u8]) -> Option<Self> {
        str::from_utf8(value).ok()?.parse().ok()
    }

    /// The attribute's value.
    pub(super) fn text(&self) -> Text {
        let mut bytes = [0; Text::ROOM];
        let mut rest = &mut bytes[..];
        // Can't fail: ROOM is more than the longest text.
        let _ = write!(rest, "{self}");
        let length = Text::ROOM - rest.len();
        Text { bytes, length }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::meta::Kind;

    #[test]
    fn the_longest_value_fits() {
        let disk = Kind::BlockDevice { major: u32::MAX, minor: u32::MAX };
        let longest = Override { uid: u32::MAX, gid: u32::MAX, mode: 0o7777, device: Some(disk) };
        assert_eq!(longest.text().as_bytes(), b"4294967295:4294967295:07777:block-4294967295-4294967295");
        assert_eq!(Override::parse(longest.text().as_bytes()), Some(longest));
    }
}
