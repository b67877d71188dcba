//! Inodes and the listings of directories as bytes.

use std::io;

use super::census::{Census, Entry, Inode, What};
use super::contents::{Contents, Stored};
use super::format::{LISTING_EXTRA, METADATA, NAME_MAX, NONE, types};
use super::metadata::{Position, Table};

/// A directory's listing in its table.
#[derive(Clone, Default)]
pub(super) struct Listing {
    position: Position,
    bytes: u32,
    /// For each metadata block that begins within it.
    index: Vec<Index>,
}

/// The first entry after a metadata block begins.
#[derive(Clone)]
struct Index {
    /// Bytes of the listing before it.
    bytes: u32,
    /// Where the metadata block begins.
    block: u64,
    name: Box<[u8]>,
}

/// The tables of inodes and directories being written.
pub(super) struct Inodes<'a, 'b> {
    census: &'b Census,
    contents: &'b Contents,
    inodes: Table<'a>,
    directories: Table<'a>,
    /// Where each inode is.
    pub positions: Vec<Position>,
}

impl<'a, 'b> Inodes<'a, 'b> {
    pub fn new(census: &'b Census, contents: &'b Contents, inodes: Table<'a>, directories: Table<'a>) -> Self {
        Self { census, contents, inodes, directories, positions: vec![Position::default(); census.inodes.len()] }
    }

    /// Writes all of both, and gives them back.
    ///
    /// A listing says where the inodes in it are, and a directory's inode where its listing is. So directories come from the last to the first,
    /// each with its children's inodes and then its listing; those are together then, as are the numbers in a listing. What has names in several
    /// directories comes before all of them.
    pub fn write(mut self) -> io::Result<(Vec<u8>, Vec<u8>, Vec<Position>)> {
        let mut listings: Vec<Option<Listing>> = Vec::new();
        listings.resize_with(self.census.inodes.len(), || None);
        for (number, inode) in (0..).zip(&self.census.inodes) {
            if is_linked(inode) {
                self.inode(number, inode, None)?;
            }
        }
        for (directory, inode) in self.census.inodes.iter().enumerate().rev() {
            let What::Directory(entries) = &inode.what else { continue };
            for entry in entries {
                let child = &self.census.inodes[entry.inode as usize];
                if !is_linked(child) {
                    self.inode(entry.inode, child, listings[entry.inode as usize].take().as_ref())?;
                }
            }
            listings[directory] = Some(self.listing(entries)?);
        }
        let root = listings.first_mut().and_then(Option::take);
        if let Some(inode) = self.census.inodes.first() {
            self.inode(0, inode, root.as_ref())?;
        }
        Ok((self.inodes.finish()?.0, self.directories.finish()?.0, self.positions))
    }

    fn inode(&mut self, number: u32, inode: &Inode, listing: Option<&Listing>) -> io::Result<()> {
        self.positions[number as usize] = self.inodes.position();
        let mut out = Record { bytes: Vec::with_capacity(64) };
        match &inode.what {
            // The root's parent is a number beyond all.
            What::Directory(_) => {
                let parent = if number == 0 { self.census.inodes.len() as u64 + 1 } else { u64::from(inode.parent) + 1 };
                out.directory(number, inode, listing.unwrap_or(&Listing::default()), low(parent));
            }
            What::File(size) => out.file(number, inode, *size, self.contents.of(number).unwrap_or(&Stored::default())),
            What::Symlink(target) => {
                out.head(types::SYMLINK, number, inode);
                out.numbers([inode.links, low(target.len() as u64)]);
                out.bytes.extend(target);
                out.set(inode);
            }
            What::Device(kind, device) => {
                out.head(*kind, number, inode);
                out.numbers([inode.links, *device]);
                out.set(inode);
            }
            What::Other(kind) => {
                out.head(*kind, number, inode);
                out.numbers([inode.links]);
                out.set(inode);
            }
        }
        self.inodes.write(&out.bytes)
    }

    /// Writes a directory's listing: headers, each followed by entries whose inodes are in one metadata block and have near numbers.
    fn listing(&mut self, entries: &[Entry]) -> io::Result<Listing> {
        let (position, first) = (self.directories.position(), self.directories.number());
        let block_of = |bytes: usize| (usize::from(position.offset) + bytes) / METADATA;
        let mut listing = Vec::new();
        let mut marks: Vec<(u32, usize, Box<[u8]>)> = Vec::new();
        let mut rest = entries;
        while let Some(head) = rest.first() {
            let start = self.positions[head.inode as usize].block;
            let begun = listing.len();
            if block_of(begun) > marks.last().map_or(0, |mark| mark.1) {
                marks.push((low(begun as u64), block_of(begun), head.name.clone()));
            }
            listing.extend([0; 4]);
            listing.extend(low(start).to_le_bytes());
            listing.extend((head.inode + 1).to_le_bytes());
            let mut count = 0_u32;
            while let Some(entry) = rest.first() {
                let at = self.positions[entry.inode as usize];
                let Ok(distance) = i16::try_from(i64::from(entry.inode) - i64::from(head.inode)) else { break };
                // A new header where a metadata block begins, for the index.
                if at.block != start || count as usize == NAME_MAX || count > 0 && block_of(listing.len()) > block_of(begun) {
                    break;
                }
                listing.extend(at.offset.to_le_bytes());
                listing.extend(distance.to_le_bytes());
                listing.extend(basic_type(&self.census.inodes[entry.inode as usize]).to_le_bytes());
                listing.extend(u16::try_from(entry.name.len() - 1).unwrap_or_default().to_le_bytes());
                listing.extend(&entry.name);
                count += 1;
                rest = &rest[1..];
            }
            listing[begun..begun + 4].copy_from_slice(&(count - 1).to_le_bytes());
        }
        self.directories.write(&listing)?;
        let index = marks.into_iter().map(|(bytes, block, name)| Index { bytes, block: self.directories.start(first + block), name });
        Ok(Listing { position, bytes: low(listing.len() as u64), index: index.collect() })
    }
}

/// Whether it may be in several directories.
fn is_linked(inode: &Inode) -> bool {
    inode.links > 1 && !matches!(inode.what, What::Directory(_))
}

fn basic_type(inode: &Inode) -> u16 {
    match inode.what {
        What::Directory(_) => types::DIRECTORY,
        What::File(_) => types::FILE,
        What::Symlink(_) => types::SYMLINK,
        What::Device(kind, _) | What::Other(kind) => kind,
    }
}

/// The lower half of a number that is known to fit.
fn low(number: u64) -> u32 {
    number as u32
}

/// An inode's bytes.
struct Record {
    bytes: Vec<u8>,
}

impl Record {
    /// What all inodes begin with, for the extended form if the inode has attributes.
    fn head(&mut self, kind: u16, number: u32, inode: &Inode) {
        let kind = if inode.set.is_some() { kind + types::EXTENDED } else { kind };
        self.head_of(kind, number, inode);
    }

    fn head_of(&mut self, kind: u16, number: u32, inode: &Inode) {
        for part in [kind, inode.mode, inode.uid, inode.gid] {
            self.bytes.extend(part.to_le_bytes());
        }
        self.numbers([inode.mtime, number + 1]);
    }

    fn numbers<const N: usize>(&mut self, numbers: [u32; N]) {
        self.bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    }

    /// The attributes' number at the end of extended forms.
    fn set(&mut self, inode: &Inode) {
        if let Some(set) = inode.set {
            self.numbers([set]);
        }
    }

    fn directory(&mut self, number: u32, inode: &Inode, listing: &Listing, parent: u32) {
        let size = listing.bytes + LISTING_EXTRA;
        let block = low(listing.position.block);
        if let (Ok(small), None, true) = (u16::try_from(size), inode.set, listing.index.is_empty()) {
            self.head_of(types::DIRECTORY, number, inode);
            self.numbers([block, inode.links]);
            self.bytes.extend(small.to_le_bytes());
            self.bytes.extend(listing.position.offset.to_le_bytes());
            return self.numbers([parent]);
        }
        // As many as can be counted: they only make finding a name faster.
        let index = &listing.index[..listing.index.len().min(usize::from(u16::MAX))];
        self.head_of(types::DIRECTORY + types::EXTENDED, number, inode);
        self.numbers([inode.links, size, block, parent]);
        self.bytes.extend(u16::try_from(index.len()).unwrap_or_default().to_le_bytes());
        self.bytes.extend(listing.position.offset.to_le_bytes());
        self.numbers([inode.set.unwrap_or(NONE)]);
        for Index { bytes, block, name } in index {
            self.numbers([*bytes, low(*block), low(name.len() as u64 - 1)]);
            self.bytes.extend(name);
        }
    }

    fn file(&mut self, number: u32, inode: &Inode, size: u64, stored: &Stored) {
        let (fragment, offset) = stored.fragment.unwrap_or((NONE, 0));
        let small = u32::try_from(size).ok().zip(u32::try_from(stored.start).ok());
        match small {
            Some((size, start)) if inode.links == 1 && inode.set.is_none() && stored.sparse == 0 => {
                self.head_of(types::FILE, number, inode);
                self.numbers([start, fragment, offset, size]);
            }
            _ => {
                self.head_of(types::FILE + types::EXTENDED, number, inode);
                for number in [stored.start, size, stored.sparse] {
                    self.bytes.extend(number.to_le_bytes());
                }
                self.numbers([inode.links, fragment, offset, inode.set.unwrap_or(NONE)]);
            }
        }
        self.bytes.extend(stored.sizes.iter().flat_map(|size| size.to_le_bytes()));
    }
}
