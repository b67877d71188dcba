//! The format's numbers, and its superblock.

use crate::error::{Error, Kind, Result};

/// The first bytes of an image.
pub(super) const MAGIC: [u8; 4] = *b"hsqs";
/// Bytes of the superblock.
pub(super) const SUPERBLOCK: usize = 96;
/// Bytes of a metadata block before compression.
pub(super) const METADATA: usize = 8192;
/// In a metadata block's size: it is not compressed.
pub(super) const METADATA_RAW: u16 = 1 << 15;
/// In a data block's size: it is not compressed.
pub(super) const BLOCK_RAW: u32 = 1 << 24;
/// What stands for "none" in tables: a file's fragment, an inode's attributes.
pub(super) const NONE: u32 = u32::MAX;
/// The start of a table that is not there.
pub(super) const NO_TABLE: u64 = u64::MAX;
/// The longest name, and the most entries below one header of a directory.
pub(super) const NAME_MAX: usize = 256;
/// What a directory's size counts more than its listing: room for `.` and `..`, which are not listed.
pub(super) const LISTING_EXTRA: u32 = 3;

/// Flags of the superblock.
pub(super) mod flags {
    /// Inodes are not compressed.
    pub const RAW_INODES: u16 = 0x1;
    /// Blocks are not compressed.
    pub const RAW_DATA: u16 = 0x2;
    /// Fragments are not compressed.
    pub const RAW_FRAGMENTS: u16 = 0x8;
    /// Equal files are stored once.
    pub const DUPLICATES: u16 = 0x40;
    /// There is a table by inode number.
    pub const EXPORTABLE: u16 = 0x80;
    /// Attributes are not compressed.
    pub const RAW_XATTRS: u16 = 0x100;
    /// There are no attributes.
    pub const NO_XATTRS: u16 = 0x200;
    /// Owners are not compressed.
    pub const RAW_IDS: u16 = 0x800;
}

/// Types of inodes; the extended form of each is 7 more.
pub(super) mod types {
    pub const DIRECTORY: u16 = 1;
    pub const FILE: u16 = 2;
    pub const SYMLINK: u16 = 3;
    pub const BLOCK_DEVICE: u16 = 4;
    pub const CHAR_DEVICE: u16 = 5;
    pub const FIFO: u16 = 6;
    pub const SOCKET: u16 = 7;
    pub const EXTENDED: u16 = 7;
}

/// The first bytes of an image of the days when there were two byte orders.
const OTHER_MAGIC: [u8; 4] = *b"sqsh";

/// Whether a file that begins so is a squashfs image.
pub fn is_squashfs(first: &[u8]) -> bool {
    first.starts_with(&MAGIC) || first.starts_with(&OTHER_MAGIC)
}

/// The superblock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Superblock {
    pub inodes: u32,
    /// Seconds since 1970.
    pub time: u32,
    pub block_size: u32,
    pub fragments: u32,
    pub compressor: u16,
    pub flags: u16,
    pub ids: u16,
    pub root: u64,
    /// Bytes of the image, without what pads it.
    pub bytes: u64,
    pub id_table: u64,
    pub xattr_table: u64,
    pub inode_table: u64,
    pub directory_table: u64,
    pub fragment_table: u64,
    pub export_table: u64,
}

impl Superblock {
    /// Reads it. An image of another version is not supported; whether the numbers are any good is left open.
    pub fn parse(bytes: &[u8; SUPERBLOCK]) -> Result<Self> {
        let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from(short(at)) | u32::from(short(at + 2)) << 16;
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if bytes[..4] == OTHER_MAGIC || (short(28), short(30)) != (4, 0) {
            let (major, minor) =
                if bytes[..4] == OTHER_MAGIC { (short(28).swap_bytes(), short(30).swap_bytes()) } else { (short(28), short(30)) };
            let what = format!("can't read squashfs images of version {major}.{minor}");
            return Err(Error::with_kind(Kind::Unsupported, what).hint("make it anew with a mksquashfs of this decade"));
        }
        Ok(Self {
            inodes: word(4),
            time: word(8),
            block_size: word(12),
            fragments: word(16),
            compressor: short(20),
            flags: short(24),
            ids: short(26),
            root: long(32),
            bytes: long(40),
            id_table: long(48),
            xattr_table: long(56),
            inode_table: long(64),
            directory_table: long(72),
            fragment_table: long(80),
            export_table: long(88),
        })
    }

    pub fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SUPERBLOCK);
        out.extend(MAGIC);
        for number in [self.inodes, self.time, self.block_size, self.fragments] {
            out.extend(number.to_le_bytes());
        }
        let block_log = u16::try_from(self.block_size.ilog2()).unwrap_or_default();
        for number in [self.compressor, block_log, self.flags, self.ids, 4, 0] {
            out.extend(number.to_le_bytes());
        }
        let tables = [self.id_table, self.xattr_table, self.inode_table, self.directory_table, self.fragment_table, self.export_table];
        for number in [self.root, self.bytes].into_iter().chain(tables) {
            out.extend(number.to_le_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn superblocks_round_trip() {
        let superblock = Superblock {
            inodes: 1,
            time: u32::MAX,
            block_size: 1 << 17,
            fragments: 3,
            compressor: 6,
            flags: 0xc0,
            ids: 5,
            root: 1 << 40 | 7,
            bytes: 1 << 50,
            id_table: 11,
            xattr_table: NO_TABLE,
            inode_table: 12,
            directory_table: 13,
            fragment_table: 14,
            export_table: 15,
        };
        let bytes: [u8; SUPERBLOCK] = superblock.to_bytes().try_into().unwrap();
        assert!(is_squashfs(&bytes));
        assert_eq!(Superblock::parse(&bytes).unwrap(), superblock);
        let mut old = bytes;
        old[28] = 3;
        assert!(Superblock::parse(&old).unwrap_err().to_string().contains("version 3.0"));
        old[..4].copy_from_slice(b"sqsh");
        old[28..32].copy_from_slice(&[0, 3, 0, 1]);
        assert!(is_squashfs(&old) && Superblock::parse(&old).unwrap_err().to_string().contains("version 3.1"));
    }
}
