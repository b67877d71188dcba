//! An image as a tar, from which it is unpacked as any layer is.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;

use super::entries::{Body, Extent, Inode, Listing};
use super::format::BLOCK_RAW;
use super::source::{Raw, Source, corrupt};
use crate::error::{Error, Kind as ErrorKind, Result, quote};
use crate::oci::ImagePath;
use crate::rootfs::assemble::MAX_PATH;
use crate::rootfs::meta::Kind;
use crate::rootfs::pack::{Packed, finish, header, piped, trouble};
use crate::rootfs::tar_writer::{Body as TarBody, TarWriter};

/// How many fragments are kept decompressed; what mksquashfs puts near each other is not always in order.
const KEPT: usize = 8;

/// Writes all of a squashfs image as a tar: parents first, in the image's order, hard links kept, without sockets, which no tar can hold.
///
/// Compressed by gzip, xz, zstd or lz4, or not at all. Takes any input: what can't be an image ends in an error that says where, without reading
/// in circles, and without more memory than a few blocks.
pub fn to_tar(image: &File, out: impl Write) -> Result<Packed> {
    piped(out, |tar| {
        let source = Source::open(image)?;
        let mut walk = Walk { tar, fragments: Vec::new(), first_names: HashMap::new(), seen: HashSet::new(), listed: 0, source };
        walk.run()?;
        finish(walk.tar)
    })
}

/// The owners and groups that occur in an image.
pub fn owners(image: &File) -> Result<Vec<u32>> {
    Source::open(image).map(|source| source.ids)
}

struct Walk<'a> {
    source: Source<'a>,
    tar: TarWriter,
    /// Fragments, the one used last at the end.
    fragments: Vec<(u32, Vec<u8>)>,
    /// First names of what has several, by where its inode is.
    first_names: HashMap<u64, ImagePath>,
    /// Directories met, likewise: each has one place.
    seen: HashSet<u64>,
    /// Bytes of listings so far.
    listed: u64,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<()> {
        let mut todo: Vec<(ImagePath, Listing)> = Vec::new();
        let root = self.source.superblock.root;
        if let Some(listing) = self.visit(&ImagePath::root(), root)? {
            todo.push((ImagePath::root(), listing));
        } else {
            return Err(corrupt("its root is no directory", self.source.superblock.inode_table));
        }
        while let Some((directory, listing)) = todo.last_mut() {
            let Some((name, reference)) = self.source.entry(listing)? else {
                todo.pop();
                continue;
            };
            let path = directory.child(&name);
            if path.as_bytes().len() > MAX_PATH {
                return Err(corrupt("a path is longer than the kernel takes", self.source.superblock.directory_table));
            }
            if name.starts_with(b".wh.") {
                return Err(Error::with_kind(ErrorKind::Unsupported, format!("can't put {} into a layer", quote(path.to_string())))
                    .cause("names that begin with `.wh.` mean deletion there"));
            }
            let visited = self.visit(&path, reference);
            if let Some(listing) = visited.map_err(|e| e.context(format!("can't read {}", quote(path.to_string()))))? {
                todo.push((path, listing));
            }
        }
        Ok(())
    }

    /// Writes an entry; gives the listing of a directory.
    fn visit(&mut self, path: &ImagePath, reference: u64) -> Result<Option<Listing>> {
        if let Some(first) = self.first_names.get(&reference) {
            let Inode { meta, .. } = self.source.inode(reference)?;
            return header(&mut self.tar, path, &meta, &TarBody::HardLink(first.as_bytes())).map(|()| None);
        }
        let Inode { meta, links, body } = self.source.inode(reference)?;
        if links > 1 && !matches!(meta.kind, Kind::Directory | Kind::Socket) {
            self.first_names.insert(reference, path.clone());
        }
        match body {
            Body::Directory(listing) => {
                self.listed += u64::from(listing.left);
                if !self.seen.insert(reference) || self.listed > self.source.listings_limit() {
                    return Err(corrupt("a directory is in several places", self.source.superblock.inode_table));
                }
                header(&mut self.tar, path, &meta, &TarBody::Plain)?;
                return Ok(Some(listing));
            }
            Body::Symlink(target) => header(&mut self.tar, path, &meta, &TarBody::Symlink(&target))?,
            Body::File(extent) => {
                header(&mut self.tar, path, &meta, &TarBody::Plain)?;
                self.content(path, meta.size, extent)?;
            }
            Body::None if meta.kind == Kind::Socket => {}
            Body::None => header(&mut self.tar, path, &meta, &TarBody::Plain)?,
        }
        Ok(None)
    }

    fn content(&mut self, path: &ImagePath, size: u64, extent: Extent) -> Result<()> {
        let pack = |e| trouble("pack", path, e);
        let block = u64::from(self.source.superblock.block_size);
        let blocks = if extent.fragment.is_some() { size / block } else { size.div_ceil(block) };
        let tail = usize::try_from(size - (blocks * block).min(size)).unwrap_or_default();
        if let (Some(place), 0) = (extent.fragment, blocks) {
            let content = self.fragment(place, tail)?;
            return self.tar.content_bytes(&content).map_err(pack);
        }
        let (mut at, mut sizes, mut left) = (extent.start, extent.sizes, size);
        let mut buffer = Vec::new();
        for _ in 0..blocks {
            let length = left.min(block) as usize;
            let word = self.source.word(&mut sizes)?;
            at = at.saturating_add(self.block(at, word, length, &mut buffer)?);
            left -= length as u64;
            buffer = self.tar.content_piece(buffer).map_err(pack)?.unwrap_or_default();
        }
        if let Some(place) = extent.fragment.filter(|_| tail > 0) {
            let content = self.fragment(place, tail)?;
            self.tar.content_piece(content).map_err(pack)?;
        }
        self.tar.content_end(size).map_err(pack)
    }

    /// Reads a block of a file; gives how many bytes it takes in the image. A size of nothing stands for zeros.
    fn block(&mut self, at: u64, word: u32, length: usize, out: &mut Vec<u8>) -> Result<u64> {
        if word == 0 {
            out.clear();
            out.resize(length, 0);
            return Ok(0);
        }
        let packed = self.packed(word, at)?;
        self.source.block(at, packed, raw(word), out)?;
        if out.len() != length {
            return Err(corrupt(&format!("a block has {} bytes instead of {length}", out.len()), at));
        }
        Ok(packed as u64)
    }

    /// A part of a fragment.
    fn fragment(&mut self, (number, offset): (u32, u32), length: usize) -> Result<Vec<u8>> {
        let place = match self.fragments.iter().position(|(kept, _)| *kept == number) {
            Some(place) => place,
            None => self.load_fragment(number)?,
        };
        let kept = self.fragments.remove(place);
        let start = offset as usize;
        let part = kept.1.get(start..start.saturating_add(length)).map(<[u8]>::to_vec);
        self.fragments.push(kept);
        part.ok_or_else(|| corrupt(&format!("a file ends outside of fragment {number}"), self.source.superblock.fragment_table))
    }

    fn load_fragment(&mut self, number: u32) -> Result<usize> {
        let table = self.source.superblock.fragment_table;
        if number >= self.source.superblock.fragments {
            return Err(corrupt(&format!("there is no fragment {number}"), table));
        }
        let entry: [u8; 16] = self.source.listed(table, number)?;
        let (start, rest) = entry.split_at(8);
        let start = u64::from_le_bytes(start.try_into().unwrap_or_default());
        let word = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]);
        let mut out = if self.fragments.len() < KEPT { Vec::new() } else { self.fragments.remove(0).1 };
        let packed = self.packed(word, start)?;
        self.source.block(start, packed, raw(word), &mut out)?;
        self.fragments.push((number, out));
        Ok(self.fragments.len() - 1)
    }

    /// How many bytes a block takes in the image.
    fn packed(&self, word: u32, at: u64) -> Result<usize> {
        let packed = word & !BLOCK_RAW;
        if packed > self.source.superblock.block_size {
            return Err(corrupt(&format!("a block can't have {packed} bytes"), at));
        }
        Ok(packed as usize)
    }
}

fn raw(word: u32) -> Raw {
    if word & BLOCK_RAW == 0 { Raw::No } else { Raw::Yes }
}
