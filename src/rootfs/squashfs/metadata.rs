//! Tables being written: metadata blocks, and the lists of where they are.

use std::io;

use super::codec::Encoder;
use super::format::{METADATA, METADATA_RAW};

/// Where something is in a table: the start of its metadata block, counted from the table's, and its offset in the block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub block: u64,
    pub offset: u16,
}

impl Position {
    /// Both as the number that inodes are named by.
    pub fn reference(self) -> u64 {
        self.block << 16 | u64::from(self.offset)
    }
}

/// A table of metadata blocks in memory.
pub(super) struct Table<'a> {
    encoder: &'a mut Encoder,
    /// What is not a whole block yet; never one.
    pending: Vec<u8>,
    blocks: Vec<u8>,
    /// Where each block begins, the unfinished one too.
    starts: Vec<u64>,
}

impl<'a> Table<'a> {
    pub fn new(encoder: &'a mut Encoder) -> Self {
        Self { encoder, pending: Vec::with_capacity(METADATA), blocks: Vec::new(), starts: vec![0] }
    }

    /// Where the next byte goes.
    pub fn position(&self) -> Position {
        let offset = u16::try_from(self.pending.len()).unwrap_or_default();
        Position { block: self.blocks.len() as u64, offset }
    }

    /// The number of the block that the next byte goes to.
    pub fn number(&self) -> usize {
        self.starts.len() - 1
    }

    /// Where a block begins.
    pub fn start(&self, number: usize) -> u64 {
        self.starts[number]
    }

    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(METADATA - self.pending.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() == METADATA {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// The whole table, and where its blocks begin.
    pub fn finish(mut self) -> io::Result<(Vec<u8>, Vec<u64>)> {
        if !self.pending.is_empty() {
            self.flush()?;
        }
        self.starts.pop();
        Ok((self.blocks, self.starts))
    }

    fn flush(&mut self) -> io::Result<()> {
        let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap_or_default();
        match self.encoder.encode(&self.pending)? {
            Some(packed) => {
                self.blocks.extend(length(packed).to_le_bytes());
                self.blocks.extend_from_slice(packed);
            }
            None => {
                self.blocks.extend((length(&self.pending) | METADATA_RAW).to_le_bytes());
                self.blocks.extend_from_slice(&self.pending);
            }
        }
        self.pending.clear();
        self.starts.push(self.blocks.len() as u64);
        Ok(())
    }
}

/// A table that is found through a list of its blocks' places, which follows it.
pub(super) struct Listed {
    /// The blocks, then the list.
    pub bytes: Vec<u8>,
    /// Where the list begins.
    pub list: u64,
}

impl Listed {
    /// Makes such a table, which is going to begin at `at`, with `header` in front of its list.
    pub fn new(encoder: &mut Encoder, entries: &[u8], at: u64, header: &[u8]) -> io::Result<Self> {
        let mut table = Table::new(encoder);
        table.write(entries)?;
        let (mut bytes, starts) = table.finish()?;
        let list = at + bytes.len() as u64;
        bytes.extend_from_slice(header);
        bytes.extend(starts.iter().flat_map(|start| (at + start).to_le_bytes()));
        Ok(Self { bytes, list })
    }
}
