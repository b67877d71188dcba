//! An image being read: its superblock checked, its metadata blocks found, decompressed and kept for a while.
//!
//! Nothing in an image is believed. What is allocated is bounded by what the format allows for one thing, and what is read lies where the
//! superblock says that such things lie.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use super::codec::Decoder;
use super::format::{METADATA, METADATA_RAW, NO_TABLE, SUPERBLOCK, Superblock, is_squashfs};
use crate::error::{Error, Kind, Result, from_io};

/// How many metadata blocks are kept decompressed: those of one directory's inodes, of its listing and of those above.
const KEPT: usize = 512;

/// An open image.
pub(super) struct Source<'a> {
    file: &'a File,
    pub superblock: Superblock,
    decoder: Decoder,
    metadata: HashMap<u64, Block>,
    /// Owners and groups by their numbers.
    pub ids: Vec<u32>,
}

/// A metadata block, and where the next one begins.
type Block = (Rc<[u8]>, u64);

/// A place in a table, and where the table ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    block: u64,
    offset: usize,
    end: u64,
}

impl Cursor {
    /// The place that a reference names in the table that begins at `table`.
    pub fn new(table: u64, reference: u64, end: u64) -> Self {
        Self { block: table.saturating_add(reference >> 16), offset: (reference & 0xffff) as usize, end }
    }

    /// Where its block begins in the file, for messages.
    pub fn place(&self) -> u64 {
        self.block
    }
}

/// What is wrong, and where in the file.
pub(super) fn corrupt(what: &str, at: u64) -> Error {
    Error::with_kind(Kind::Corrupt, "the squashfs image is damaged").cause(format!("{what}, at byte {at}"))
}

impl<'a> Source<'a> {
    /// Reads and checks the superblock.
    pub fn open(file: &'a File) -> Result<Self> {
        let failed = |e| from_io(|| "can't read the squashfs image".into(), e);
        let size = file.metadata().map_err(failed)?.len();
        let mut head = [0; SUPERBLOCK];
        if size < SUPERBLOCK as u64 {
            return Err(corrupt(&format!("it has no more than {size} bytes"), size));
        }
        file.read_exact_at(&mut head, 0).map_err(failed)?;
        if !is_squashfs(&head) {
            return Err(Error::with_kind(Kind::Corrupt, "it is no squashfs image"));
        }
        let superblock = Superblock::parse(&head)?;
        if superblock.bytes > size {
            return Err(corrupt(&format!("it ends before its {} bytes", superblock.bytes), size));
        }
        superblock.check()?;
        let mut source =
            Self { file, superblock, decoder: Decoder::new(superblock.compressor)?, metadata: HashMap::new(), ids: Vec::new() };
        source.ids = (0..superblock.ids)
            .map(|number| source.listed(superblock.id_table, number.into()).map(u32::from_le_bytes))
            .collect::<Result<_>>()?;
        Ok(source)
    }

    /// Reads bytes of the file that must lie in the image.
    pub fn read_at(&self, at: u64, count: usize) -> Result<Vec<u8>> {
        if at < SUPERBLOCK as u64 || at.checked_add(count as u64).is_none_or(|end| end > self.superblock.bytes) {
            return Err(corrupt(&format!("something of {count} bytes lies outside of it"), at));
        }
        let mut bytes = vec![0; count];
        self.file.read_exact_at(&mut bytes, at).map_err(|e| from_io(|| "can't read the squashfs image".into(), e))?;
        Ok(bytes)
    }

    /// Reads a data block into `out`; it has no more than the image's block size.
    pub fn block(&mut self, at: u64, packed: usize, raw: Raw, out: &mut Vec<u8>) -> Result<()> {
        let bytes = self.read_at(at, packed)?;
        if raw == Raw::Yes {
            *out = bytes;
            return Ok(());
        }
        let limit = self.superblock.block_size as usize;
        self.decoder.decode(&bytes, limit, out).map_err(|e| corrupt(&format!("a block can't be decompressed ({e})"), at))
    }

    /// Reads on in a table.
    pub fn read(&mut self, cursor: &mut Cursor, count: usize, out: &mut Vec<u8>) -> Result<()> {
        let mut left = count;
        while left > 0 {
            let (block, next) = self.metadata_block(cursor.block, cursor.end)?;
            let Some(rest) = block.get(cursor.offset..).filter(|_| !block.is_empty()) else {
                return Err(corrupt("something begins behind the end of its metadata block", cursor.block));
            };
            let now = rest.len().min(left);
            out.extend_from_slice(&rest[..now]);
            cursor.offset += now;
            left -= now;
            if cursor.offset == block.len() {
                *cursor = Cursor { block: next, offset: 0, end: cursor.end };
            }
        }
        Ok(())
    }

    /// Reads a number of bytes known to the compiler.
    pub fn array<const N: usize>(&mut self, cursor: &mut Cursor) -> Result<[u8; N]> {
        let mut bytes = Vec::with_capacity(N);
        self.read(cursor, N, &mut bytes)?;
        bytes.try_into().map_err(|_| corrupt("a table is too short", cursor.block))
    }

    /// Reads an entry of a table that is found through a list of its blocks' places.
    pub fn listed<const N: usize>(&mut self, list: u64, number: u32) -> Result<[u8; N]> {
        let byte = u64::from(number) * N as u64;
        let pointer = self.read_at(list.saturating_add(byte / METADATA as u64 * 8), 8)?;
        let block = u64::from_le_bytes(pointer.try_into().unwrap_or_default());
        let mut cursor = Cursor { block, offset: (byte % METADATA as u64) as usize, end: list };
        self.array(&mut cursor)
    }

    fn metadata_block(&mut self, at: u64, end: u64) -> Result<Block> {
        if let Some(block) = self.metadata.get(&at).filter(|_| at < end) {
            return Ok(block.clone());
        }
        if at.saturating_add(2) > end {
            return Err(corrupt("a table ends too early", at));
        }
        let head = self.read_at(at, 2)?;
        let head = u16::from_le_bytes([head[0], head[1]]);
        let packed = usize::from(head & !METADATA_RAW);
        let next = at + 2 + packed as u64;
        if packed == 0 || packed > METADATA || next > end {
            return Err(corrupt(&format!("a metadata block can't have {packed} bytes"), at));
        }
        let bytes = self.read_at(at + 2, packed)?;
        let block = if head & METADATA_RAW != 0 {
            bytes
        } else {
            let mut out = Vec::new();
            self.decoder
                .decode(&bytes, METADATA, &mut out)
                .map_err(|e| corrupt(&format!("a metadata block can't be decompressed ({e})"), at))?;
            out
        };
        if self.metadata.len() >= KEPT {
            self.metadata.clear();
        }
        let block: Block = (block.into(), next);
        self.metadata.insert(at, block.clone());
        Ok(block)
    }
}

/// Whether a block is stored as it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Raw {
    Yes,
    No,
}

impl Superblock {
    /// Whether its parts can be true together.
    fn check(&self) -> Result<()> {
        let sizes = 4 << 10..=1 << 20;
        if !self.block_size.is_power_of_two() || !sizes.contains(&self.block_size) {
            return Err(corrupt(&format!("blocks can't have {} bytes", self.block_size), 12));
        }
        let tables = [
            ("inodes", self.inode_table),
            ("directories", self.directory_table),
            ("fragments", self.fragment_table),
            ("owners", self.id_table),
            ("extended attributes", self.xattr_table),
        ];
        for (name, at) in tables {
            let optional = name == "extended attributes" || name == "fragments" && self.fragments == 0;
            if at >= self.bytes && !(optional && at == NO_TABLE) && !(name == "fragments" && self.fragments == 0) {
                return Err(corrupt(&format!("the table of {name} lies outside of the image"), at));
            }
        }
        if self.inode_table >= self.directory_table {
            return Err(corrupt("the table of inodes begins behind that of directories", self.inode_table));
        }
        Ok(())
    }

    /// Where the table of directories ends at the latest.
    pub fn directories_end(&self) -> u64 {
        let followers = [self.fragment_table, self.export_table, self.id_table, self.xattr_table];
        followers.into_iter().filter(|&at| at > self.directory_table).fold(self.bytes, u64::min)
    }
}
