//! Inodes and directories being read.

use super::attributes::{self, CLASSES};
use super::format::{LISTING_EXTRA, METADATA, NAME_MAX, NO_TABLE, NONE, types};
use super::source::{Cursor, Source, corrupt};
use crate::error::{Error, Result};
use crate::rootfs::meta::{Kind, Meta, Mtime};
use crate::rootfs::record::Xattrs;

/// The longest target of a symlink that is believed; the kernel takes 4095 bytes.
const TARGET_MAX: u32 = 65_535;
/// linux/limits.h (XATTR_SIZE_MAX), and what all attributes of one inode may have.
const VALUE_MAX: u32 = 65_536;
const SET_MAX: usize = 4 << 20;

/// An inode.
pub(super) struct Inode {
    pub meta: Meta,
    pub links: u32,
    pub body: Body,
}

/// What else is known of it.
pub(super) enum Body {
    /// A directory's listing.
    Directory(Listing),
    /// A file's content.
    File(Extent),
    /// A symlink's target.
    Symlink(Vec<u8>),
    /// Nothing.
    None,
}

/// Where a file's content is.
pub(super) struct Extent {
    /// Where the first block begins.
    pub start: u64,
    /// The fragment that has its end, and the offset there.
    pub fragment: Option<(u32, u32)>,
    /// The sizes of its blocks.
    pub sizes: Cursor,
}

/// A directory's entries yet to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listing {
    cursor: Cursor,
    /// Bytes left.
    pub left: u32,
    /// Entries left below the header last read, and the metadata block of their inodes.
    below: u32,
    block: u32,
}

impl Listing {
    fn take(&mut self, bytes: u32) -> Result<()> {
        let left = self.left.checked_sub(bytes);
        self.left = left.ok_or_else(|| corrupt("a directory ends within an entry", self.cursor.place()))?;
        Ok(())
    }
}

impl Source<'_> {
    /// The inode that a reference names.
    pub fn inode(&mut self, reference: u64) -> Result<Inode> {
        let table = self.superblock.inode_table;
        let mut cursor = Cursor::new(table, reference, self.superblock.directory_table);
        let place = cursor.place();
        let head: [u8; 16] = self.array(&mut cursor)?;
        let short = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let kind = short(0);
        let (basic, extended) = if kind > types::EXTENDED { (kind - types::EXTENDED, true) } else { (kind, false) };
        let mtime = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        let (uid, gid) = (self.id(short(4), place)?, self.id(short(6), place)?);
        let mut inode = Inode { meta: Meta::new(Kind::File, u32::from(short(2)) & 0o7777), links: 1, body: Body::None };
        (inode.meta.uid, inode.meta.gid, inode.meta.mtime) = (uid, gid, Mtime::from_secs(mtime.into()));
        let set = match (basic, extended) {
            (types::DIRECTORY, _) => self.directory(&mut inode, &mut cursor, extended)?,
            (types::FILE, false) => self.file(&mut inode, &mut cursor)?,
            (types::FILE, true) => self.large_file(&mut inode, &mut cursor)?,
            (types::SYMLINK..=types::SOCKET, _) => {
                inode.links = self.word(&mut cursor)?;
                self.other(&mut inode, &mut cursor, basic)?;
                if extended { self.word(&mut cursor)? } else { NONE }
            }
            _ => return Err(corrupt(&format!("there is no inode of type {kind}"), place)),
        };
        inode.meta.xattrs = self.set(set)?;
        Ok(inode)
    }

    fn directory(&mut self, inode: &mut Inode, cursor: &mut Cursor, extended: bool) -> Result<u32> {
        let (block, offset, size, set) = if extended {
            let [_, size, block, _] = self.words(cursor)?;
            let [_, _, low, high] = self.array(cursor)?;
            (block, u16::from_le_bytes([low, high]), size, self.word(cursor)?)
        } else {
            let [block, _] = self.words(cursor)?;
            let [a, b, c, d] = self.array(cursor)?;
            let _: [u8; 4] = self.array(cursor)?;
            (block, u16::from_le_bytes([c, d]), u32::from(u16::from_le_bytes([a, b])), NONE)
        };
        inode.meta.kind = Kind::Directory;
        let reference = u64::from(block) << 16 | u64::from(offset);
        let cursor = Cursor::new(self.superblock.directory_table, reference, self.superblock.directories_end());
        inode.body = Body::Directory(Listing { cursor, left: size.saturating_sub(LISTING_EXTRA), below: 0, block: 0 });
        Ok(set)
    }

    fn file(&mut self, inode: &mut Inode, cursor: &mut Cursor) -> Result<u32> {
        let [start, fragment, offset, size] = self.words(cursor)?;
        inode.meta.size = size.into();
        let fragment = (fragment != NONE).then_some((fragment, offset));
        inode.body = Body::File(Extent { start: start.into(), fragment, sizes: *cursor });
        Ok(NONE)
    }

    fn large_file(&mut self, inode: &mut Inode, cursor: &mut Cursor) -> Result<u32> {
        let start = u64::from_le_bytes(self.array(cursor)?);
        inode.meta.size = u64::from_le_bytes(self.array(cursor)?);
        let _: [u8; 8] = self.array(cursor)?;
        let [links, fragment, offset, set] = self.words(cursor)?;
        inode.links = links;
        let fragment = (fragment != NONE).then_some((fragment, offset));
        inode.body = Body::File(Extent { start, fragment, sizes: *cursor });
        Ok(set)
    }

    fn other(&mut self, inode: &mut Inode, cursor: &mut Cursor, kind: u16) -> Result<()> {
        inode.meta.kind = match kind {
            types::FIFO => Kind::Fifo,
            types::SOCKET => Kind::Socket,
            types::SYMLINK => {
                let length = self.word(cursor)?;
                if length > TARGET_MAX {
                    return Err(corrupt(&format!("a symbolic link's target has {length} bytes"), cursor.place()));
                }
                let mut target = Vec::new();
                self.read(cursor, length as usize, &mut target)?;
                inode.meta.size = length.into();
                inode.body = Body::Symlink(target);
                Kind::Symlink
            }
            kind => {
                // As the kernel reads it (new_decode_dev).
                let device = self.word(cursor)?;
                let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00);
                if kind == types::BLOCK_DEVICE { Kind::BlockDevice { major, minor } } else { Kind::CharDevice { major, minor } }
            }
        };
        Ok(())
    }

    /// The next entry of a directory, and the reference of its inode.
    pub fn entry(&mut self, listing: &mut Listing) -> Result<Option<(Vec<u8>, u64)>> {
        let place = listing.cursor.place();
        if listing.below == 0 {
            if listing.left == 0 {
                return Ok(None);
            }
            listing.take(12)?;
            let [count, block, _] = self.words(&mut listing.cursor)?;
            if count as usize >= NAME_MAX {
                return Err(corrupt(&format!("a directory's header counts {count} entries"), place));
            }
            (listing.below, listing.block) = (count + 1, block);
            return self.entry(listing);
        }
        listing.take(8)?;
        let [a, b, _, _, _, _, c, d]: [u8; 8] = self.array(&mut listing.cursor)?;
        let length = usize::from(u16::from_le_bytes([c, d])) + 1;
        if length > NAME_MAX {
            return Err(corrupt(&format!("a name has {length} bytes"), place));
        }
        listing.take(length as u32)?;
        let mut name = Vec::with_capacity(length);
        self.read(&mut listing.cursor, length, &mut name)?;
        if name == b"." || name == b".." || name.iter().any(|&byte| byte == 0 || byte == b'/') {
            return Err(corrupt(&format!("a file can't be named {}", crate::error::quote(&name)), place));
        }
        listing.below -= 1;
        Ok(Some((name, u64::from(listing.block) << 16 | u64::from(u16::from_le_bytes([a, b])))))
    }

    /// The most bytes that the listings of all directories together can have.
    pub fn listings_limit(&self) -> u64 {
        // A metadata block takes 3 bytes at least.
        let table = self.superblock.directories_end() - self.superblock.directory_table;
        (table / 3 + 1).saturating_mul(METADATA as u64)
    }

    fn id(&self, number: u16, place: u64) -> Result<u32> {
        let id = self.ids.get(usize::from(number)).copied();
        id.ok_or_else(|| corrupt(&format!("there is no owner of number {number}"), place))
    }

    /// A set of extended attributes.
    fn set(&mut self, number: u32) -> Result<Xattrs> {
        let list = self.superblock.xattr_table;
        if number == NONE || list == NO_TABLE {
            return Ok(Xattrs::new());
        }
        let head = self.read_at(list, 16)?;
        let (pairs, count) = head.split_at(8);
        let pairs = u64::from_le_bytes(pairs.try_into().unwrap_or_default());
        let count = u32::from_le_bytes([count[0], count[1], count[2], count[3]]);
        if number >= count {
            return Err(corrupt(&format!("there are no extended attributes of number {number}"), list));
        }
        let entry: [u8; 16] = self.listed(list + 16, number)?;
        let (reference, rest) = entry.split_at(8);
        let reference = u64::from_le_bytes(reference.try_into().unwrap_or_default());
        let mut cursor = Cursor::new(pairs, reference, list);
        let (mut set, mut bytes) = (Xattrs::new(), 0);
        for _ in 0..u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]) {
            let (name, value) = self.pair(&mut cursor, pairs)?;
            bytes += value.len() + NAME_MAX;
            if bytes > SET_MAX {
                return Err(corrupt("a file has too many extended attributes", cursor.place()));
            }
            if let Some(name) = name {
                set.insert(name, value);
            }
        }
        Ok(set)
    }

    /// A name, if it has a class that is known, and its value.
    fn pair(&mut self, cursor: &mut Cursor, pairs: u64) -> Result<(Option<Vec<u8>>, Vec<u8>)> {
        /// In a name's class: the value is elsewhere, where another file has the same.
        const ELSEWHERE: u16 = 0x100;
        let [a, b, c, d] = self.array(cursor)?;
        let (class, length) = (u16::from_le_bytes([a, b]), usize::from(u16::from_le_bytes([c, d])));
        if length > NAME_MAX {
            return Err(corrupt(&format!("an extended attribute's name has {length} bytes"), cursor.place()));
        }
        let mut name = Vec::new();
        self.read(cursor, length, &mut name)?;
        let value = if class & ELSEWHERE == 0 {
            self.value(cursor)?
        } else {
            let _ = self.word(cursor)?;
            let reference = u64::from_le_bytes(self.array(cursor)?);
            self.value(&mut Cursor::new(pairs, reference, self.superblock.xattr_table))?
        };
        let class = class & !ELSEWHERE;
        let known = usize::from(class) < CLASSES.len() && !name.is_empty() && !name.contains(&0);
        Ok((if known { attributes::image_name(class, &name) } else { None }, value))
    }

    fn value(&mut self, cursor: &mut Cursor) -> Result<Vec<u8>> {
        let length = self.word(cursor)?;
        if length > VALUE_MAX {
            return Err(corrupt(&format!("an extended attribute has {length} bytes"), cursor.place()));
        }
        let mut value = Vec::new();
        self.read(cursor, length as usize, &mut value)?;
        Ok(value)
    }

    /// Reads on in a table.
    pub fn word(&mut self, cursor: &mut Cursor) -> Result<u32> {
        self.array(cursor).map(u32::from_le_bytes)
    }

    fn words<const N: usize>(&mut self, cursor: &mut Cursor) -> Result<[u32; N], Error> {
        let mut words = [0; N];
        for word in &mut words {
            *word = self.word(cursor)?;
        }
        Ok(words)
    }
}
