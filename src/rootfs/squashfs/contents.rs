//! The content of files: blocks, the ends of files in fragments, equal files once, holes not at all.

use std::collections::HashMap;
use std::fs::File;
use std::io;

use super::blocks::{Blocks, Output, Placed, with_workers};
use super::census::{Census, What};
use super::codec::Coding;
use super::format::NONE;
use crate::error::{Error, Result, from_io, quote};
use crate::oci::{Digest, Hasher};
use crate::rootfs::view::View;
use crate::sys::fs;

/// Bytes of a block: mksquashfs' own. Larger ones compress better, but reading one byte costs a block.
pub(super) const BLOCK: usize = 128 << 10;

/// Where a file's content is.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    /// Where its blocks begin.
    pub start: u64,
    /// Their sizes; 0 for one of zeros, which is not stored.
    pub sizes: Vec<u32>,
    /// The fragment and the offset there of a content smaller than a block.
    pub fragment: Option<(u32, u32)>,
    /// Bytes that are not stored since they are zeros.
    pub sparse: u64,
}

/// Where all content is.
pub(super) struct Contents {
    /// Of files, by inode; files that have the same share the first's.
    stored: HashMap<u32, Stored>,
    same: HashMap<u32, u32>,
    pub fragments: Vec<Placed>,
}

impl Contents {
    /// Where a file's content is.
    pub fn of(&self, inode: u32) -> Option<&Stored> {
        self.stored.get(self.same.get(&inode).unwrap_or(&inode))
    }
}

/// What a block is for.
enum Purpose {
    /// The nth of an inode.
    Block(u32, usize),
    Fragment(u32),
}

/// Writes the content of all files.
pub(super) fn write(view: &View, census: &Census, coding: Coding, output: &mut Output<'_>, seen: &mut dyn FnMut(u64)) -> Result<Contents> {
    let mut sizes: HashMap<u64, u32> = HashMap::new();
    for inode in &census.inodes {
        if let What::File(size @ 1..) = inode.what {
            *sizes.entry(size).or_default() += 1;
        }
    }
    with_workers(output, (coding, BLOCK), |blocks| {
        let contents = Contents { stored: HashMap::new(), same: HashMap::new(), fragments: Vec::new() };
        let mut writer = Writer { blocks, contents, known: HashMap::new(), fragment: Vec::new() };
        for (number, inode) in (0..).zip(&census.inodes) {
            let What::File(size @ 1..) = inode.what else { continue };
            let path = census.path(number);
            let file = view.open_in(inode.layer, &path)?;
            let twins = if sizes.get(&size).is_some_and(|&count| count > 1) { Twins::Possible } else { Twins::None };
            writer.file(number, &file, size, twins).map_err(|e| match e {
                Trouble::Read(e) => from_io(|| format!("can't put {} into the image", quote(path.to_string())), e),
                Trouble::Other(e) => e,
            })?;
            seen(writer.blocks.output.at);
        }
        writer.finish()
    })
}

/// Whether another file may have the same content: one of the same size.
#[derive(Clone, Copy, PartialEq)]
enum Twins {
    None,
    Possible,
}

/// What went wrong: only the one has to do with the file.
enum Trouble {
    Read(io::Error),
    Other(Error),
}

impl From<io::Error> for Trouble {
    fn from(e: io::Error) -> Self {
        Self::Read(e)
    }
}

impl From<Error> for Trouble {
    fn from(e: Error) -> Self {
        Self::Other(e)
    }
}

struct Writer<'a, 'b> {
    blocks: Blocks<'a, 'b, Purpose>,
    contents: Contents,
    /// Contents of files that are not the only ones of their size.
    known: HashMap<(u64, Digest), u32>,
    /// What the next fragment holds so far.
    fragment: Vec<u8>,
}

impl Writer<'_, '_> {
    /// Stores a file's content.
    fn file(&mut self, inode: u32, file: &File, size: u64, twins: Twins) -> Result<(), Trouble> {
        if size < BLOCK as u64 {
            return self.small(inode, file, size as usize, twins);
        }
        if twins == Twins::Possible {
            // A whole reading more for the few files that have one of their size, and cheap beside compressing.
            let digest = self.digest(file, size)?;
            if self.is_known(inode, size, digest) {
                return Ok(());
            }
        }
        self.blocks_of(inode, file, size)
    }

    /// A file smaller than a block goes into the fragment.
    fn small(&mut self, inode: u32, file: &File, size: usize, twins: Twins) -> Result<(), Trouble> {
        if self.fragment.len() + size > BLOCK {
            self.end_fragment()?;
        }
        let offset = self.fragment.len();
        if self.fragment.capacity() == 0 {
            self.fragment = self.blocks.buffer();
        }
        fill(file, &mut self.fragment, size)?;
        if twins == Twins::Possible {
            let digest = Digest::of(&self.fragment[offset..]);
            if self.is_known(inode, size as u64, digest) {
                self.fragment.truncate(offset);
                return Ok(());
            }
        }
        let number = number(self.contents.fragments.len())?;
        let stored = Stored { fragment: Some((number, number_of(offset))), ..Stored::default() };
        self.contents.stored.insert(inode, stored);
        Ok(())
    }

    fn blocks_of(&mut self, inode: u32, file: &File, size: u64) -> Result<(), Trouble> {
        let count = size.div_ceil(BLOCK as u64) as usize;
        self.contents.stored.insert(inode, Stored { sizes: vec![0; count], ..Stored::default() });
        let mut at = 0;
        while at < size {
            // Holes are not even read.
            let data = fs::next_data(file, at)?.unwrap_or(size).min(size);
            let hole = (data - at) / BLOCK as u64 * BLOCK as u64;
            let hole = if data == size { size - at } else { hole };
            if hole > 0 {
                self.hole(inode, hole);
                at += hole;
                continue;
            }
            let length = (size - at).min(BLOCK as u64) as usize;
            let mut block = self.blocks.buffer();
            fs::seek_to(file, at)?;
            fill(file, &mut block, length)?;
            if is_zero(&block) {
                self.hole(inode, length as u64);
                self.blocks.put_back(block);
            } else {
                let nth = (at / BLOCK as u64) as usize;
                self.submit(Purpose::Block(inode, nth), block)?;
            }
            at += length as u64;
        }
        Ok(())
    }

    fn hole(&mut self, inode: u32, bytes: u64) {
        if let Some(stored) = self.contents.stored.get_mut(&inode) {
            stored.sparse += bytes;
        }
    }

    fn digest(&mut self, file: &File, size: u64) -> io::Result<Digest> {
        let mut hasher = Hasher::new();
        let mut piece = self.blocks.buffer();
        let mut left = size;
        while left > 0 {
            piece.clear();
            let length = left.min(BLOCK as u64) as usize;
            fill(file, &mut piece, length)?;
            hasher.update(&piece);
            left -= length as u64;
        }
        self.blocks.put_back(piece);
        Ok(hasher.finish())
    }

    /// Whether the content is stored already; remembers it if not.
    fn is_known(&mut self, inode: u32, size: u64, digest: Digest) -> bool {
        match self.known.get(&(size, digest)) {
            Some(&first) => drop(self.contents.same.insert(inode, first)),
            None => {
                self.known.insert((size, digest), inode);
                return false;
            }
        }
        true
    }

    fn end_fragment(&mut self) -> Result<()> {
        if self.fragment.is_empty() {
            return Ok(());
        }
        let number = number(self.contents.fragments.len())?;
        // Its place is filled in when it is written.
        self.contents.fragments.push(Placed { start: 0, size: 0 });
        let fragment = std::mem::take(&mut self.fragment);
        self.submit(Purpose::Fragment(number), fragment)
    }

    fn submit(&mut self, purpose: Purpose, block: Vec<u8>) -> Result<()> {
        let contents = &mut self.contents;
        self.blocks.submit(purpose, block, &mut |purpose, placed| contents.place(&purpose, placed))
    }

    fn finish(mut self) -> Result<Contents> {
        self.end_fragment()?;
        let Self { blocks, mut contents, .. } = self;
        blocks.finish(&mut |purpose, placed| contents.place(&purpose, placed))?;
        Ok(contents)
    }
}

impl Contents {
    fn place(&mut self, purpose: &Purpose, placed: Placed) {
        match *purpose {
            Purpose::Fragment(number) => self.fragments[number as usize] = placed,
            Purpose::Block(inode, nth) => {
                if let Some(stored) = self.stored.get_mut(&inode) {
                    // Blocks of one file come in order and follow each other, so that the first one's place is enough. None is at 0.
                    if stored.start == 0 {
                        stored.start = placed.start;
                    }
                    stored.sizes[nth] = placed.size;
                }
            }
        }
    }
}

/// Reads exactly so many bytes more.
fn fill(file: &File, into: &mut Vec<u8>, count: usize) -> io::Result<()> {
    let end = into.len() + count;
    into.reserve(count);
    while into.len() < end {
        let left = end - into.len();
        if fs::read_append(file, into, left)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was read"));
        }
    }
    Ok(())
}

fn is_zero(block: &[u8]) -> bool {
    let (chunks, rest) = block.as_chunks::<64>();
    chunks.iter().all(|chunk| *chunk == [0; 64]) && rest.iter().all(|&byte| byte == 0)
}

fn number(count: usize) -> Result<u32> {
    u32::try_from(count).ok().filter(|&number| number < NONE).ok_or_else(|| Error::new("the image has too many fragments for squashfs"))
}

/// An offset in a block.
fn number_of(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or_default()
}
