//! A view as a squashfs image. The same view gives the same bytes, on any machine and at any time.
//!
//! Nothing but names and metadata is held in memory; content goes from the layers through the compressors into the file.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::blocks::{Output, trouble};
use super::census::Census;
use super::codec::{Coding, Encoder};
use super::contents::{self, BLOCK, Contents};
use super::format::{NO_TABLE, SUPERBLOCK, Superblock, flags};
use super::inodes::Inodes;
use super::metadata::{Listed, Table};
use crate::error::{Error, Result};
use crate::rootfs::view::View;

/// Loop devices have blocks of at most this size.
const PADDING: u64 = 4096;

/// Writes what a view shows into an empty file. `seen` is told how many bytes it has meanwhile.
///
/// Kept are owners, modes, times (whole seconds, from 1970 to 2106), device numbers, extended attributes and hard links. The image's own
/// time is that of its newest file.
///
/// # Errors
/// Besides those of reading and writing: more than 65,535 different owners, more than four billion files.
pub fn write(view: &View, coding: Coding, file: &File, seen: &mut dyn FnMut(u64)) -> Result<()> {
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return Err(Error::input("a squashfs image can't be written into a pipe or a device").hint("write it to a file"));
    }
    let census = Census::take(view)?;
    let mut output = Output::new(file);
    output.write(&[0; SUPERBLOCK])?;
    let contents = contents::write(view, &census, coding, &mut output, seen)?;
    let mut superblock = Superblock {
        inodes: u32::try_from(census.inodes.len()).unwrap_or(u32::MAX),
        time: census.newest,
        block_size: BLOCK as u32,
        fragments: u32::try_from(contents.fragments.len()).unwrap_or(u32::MAX),
        compressor: coding.number(),
        flags: flags::DUPLICATES | flags::EXPORTABLE,
        ids: u16::try_from(census.ids.len()).unwrap_or(u16::MAX),
        ..Superblock::default()
    };
    if coding.is_none() {
        superblock.flags |= flags::RAW_INODES | flags::RAW_DATA | flags::RAW_FRAGMENTS | flags::RAW_XATTRS | flags::RAW_IDS;
    }
    tables(&census, &contents, coding, &mut output, &mut superblock)?;
    superblock.bytes = output.at;
    let padding = output.at.next_multiple_of(PADDING) - output.at;
    output.write(&[0; PADDING as usize][..usize::try_from(padding).unwrap_or_default()])?;
    output.flush()?;
    file.write_all_at(&superblock.to_bytes(), 0).map_err(trouble)
}

/// Writes the tables, and where they are into the superblock.
fn tables(census: &Census, contents: &Contents, coding: Coding, output: &mut Output<'_>, superblock: &mut Superblock) -> Result<()> {
    let mut encoder = Encoder::new(coding, BLOCK)?;
    let mut second = Encoder::new(coding, BLOCK)?;
    let writer = Inodes::new(census, contents, Table::new(&mut encoder), Table::new(&mut second));
    let (inodes, directories, positions) = writer.write().map_err(trouble)?;
    superblock.root = positions.first().map_or(0, |root| root.reference());
    superblock.inode_table = output.at;
    output.write(&inodes)?;
    superblock.directory_table = output.at;
    output.write(&directories)?;

    let mut listed = |entries: &[u8], output: &mut Output<'_>| {
        let table = Listed::new(&mut encoder, entries, output.at, &[]).map_err(trouble)?;
        output.write(&table.bytes).map(|()| table.list)
    };
    superblock.fragment_table = NO_TABLE;
    if !contents.fragments.is_empty() {
        let entry = |fragment: &super::blocks::Placed| {
            let mut entry = [0; 16];
            entry[..8].copy_from_slice(&fragment.start.to_le_bytes());
            entry[8..12].copy_from_slice(&fragment.size.to_le_bytes());
            entry
        };
        let entries: Vec<u8> = contents.fragments.iter().flat_map(entry).collect();
        superblock.fragment_table = listed(&entries, output)?;
    }
    let entries: Vec<u8> = positions.iter().flat_map(|position| position.reference().to_le_bytes()).collect();
    superblock.export_table = listed(&entries, output)?;
    let entries: Vec<u8> = census.ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    superblock.id_table = listed(&entries, output)?;
    if census.sets.is_empty() {
        superblock.flags |= flags::NO_XATTRS;
        superblock.xattr_table = NO_TABLE;
        return Ok(());
    }
    let table = census.sets.table(&mut encoder, output.at).map_err(trouble)?;
    superblock.xattr_table = table.list;
    output.write(&table.bytes)
}
