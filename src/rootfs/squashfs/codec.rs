//! Compression of single blocks, each by itself.

use std::io;

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};
use liblzma::stream::{Action, Check, Filters, LzmaOptions, Stream};
use zstd::zstd_safe::CParameter;

use crate::error::{Error, Result};
use crate::rootfs::compress::Compression;

/// The levels mksquashfs has, so that what is written is of about its size.
const GZIP_LEVEL: i32 = 9;
const ZSTD_LEVEL: i32 = 15;
const XZ_LEVEL: i32 = 6;
/// How far zstd looks for something better when nobody has chosen a level: a little less far than level 15 does. On blocks of 128 KiB of Debian's programs that
/// takes 36 % off the time and adds 1.3 % to the size; level 13, which takes 29 % off, adds 3 %.
const ZSTD_SEARCH: [CParameter; 2] = [CParameter::SearchLog(2), CParameter::TargetLength(16)];

/// How an image is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coding {
    method: Compression,
    level: i32,
    search: Search,
}

/// Whether a level is taken as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Search {
    AsTheLevelSays,
    Shortened,
}

impl Default for Coding {
    /// zstd, which reads fast and is small.
    fn default() -> Self {
        Self { method: Compression::Zstd, level: ZSTD_LEVEL, search: Search::Shortened }
    }
}

impl Coding {
    /// Takes a compression and a level as it counts; about mksquashfs' own unless one is given.
    ///
    /// # Errors
    /// For bzip2, which squashfs does not have, and for levels out of range.
    pub fn new(method: Compression, level: Option<i32>) -> Result<Self> {
        let (default, range) = match method {
            Compression::None => (0, i32::MIN..=i32::MAX),
            Compression::Gzip => (GZIP_LEVEL, 1..=9),
            Compression::Zstd => (ZSTD_LEVEL, 1..=22),
            Compression::Xz => (XZ_LEVEL, 0..=9),
            Compression::Bzip2 => {
                return Err(Error::input("squashfs images can't be compressed by bzip2").hint("use zstd, gzip, xz or none"));
            }
        };
        let search = if level.is_none() { Search::Shortened } else { Search::AsTheLevelSays };
        let level = level.unwrap_or(default);
        if !range.contains(&level) {
            let hint = format!("levels from {} to {} are possible", range.start(), range.end());
            return Err(Error::input(format!("invalid compression level {level}")).hint(hint));
        }
        Ok(Self { method, level, search })
    }

    /// The number in the superblock. Without compression it names one that every reader has.
    pub(super) fn number(self) -> u16 {
        match self.method {
            Compression::None | Compression::Gzip | Compression::Bzip2 => 1,
            Compression::Xz => 4,
            Compression::Zstd => 6,
        }
    }

    /// Whether nothing is compressed.
    pub(super) fn is_none(self) -> bool {
        self.method == Compression::None
    }
}

/// A compressor of blocks, with its memory.
pub(super) struct Encoder {
    inner: Coder,
    buffer: Vec<u8>,
}

enum Coder {
    None,
    Gzip(Box<Compress>),
    Zstd(Box<zstd::bulk::Compressor<'static>>),
    /// The preset, and the size of the dictionary.
    Xz(u32, u32),
}

impl Encoder {
    /// An encoder for blocks of at most `block` bytes.
    pub fn new(coding: Coding, block: usize) -> Result<Self> {
        let failed = |e: io::Error| Error::os("can't start compressing", e);
        let inner = match coding.method {
            Compression::None | Compression::Bzip2 => Coder::None,
            Compression::Gzip => {
                let level = flate2::Compression::new(u32::try_from(coding.level).unwrap_or_default());
                Coder::Gzip(Box::new(Compress::new(level, true)))
            }
            Compression::Zstd => {
                let mut coder = zstd::bulk::Compressor::new(coding.level).map_err(failed)?;
                let search = if coding.search == Search::Shortened { &ZSTD_SEARCH[..] } else { &[] };
                search.iter().try_for_each(|&parameter| coder.set_parameter(parameter)).map_err(failed)?;
                Coder::Zstd(Box::new(coder))
            }
            Compression::Xz => {
                // The kernel has no larger dictionary than a block, unless the image says so.
                Coder::Xz(u32::try_from(coding.level).unwrap_or_default(), u32::try_from(block).unwrap_or(u32::MAX))
            }
        };
        // zstd is faster when it need not look whether there is room.
        Ok(Self { inner, buffer: Vec::with_capacity(zstd::zstd_safe::compress_bound(block)) })
    }

    /// Compresses a block; `None` if that makes it no smaller.
    pub fn encode(&mut self, block: &[u8]) -> io::Result<Option<&[u8]>> {
        self.buffer.clear();
        let whole = match &mut self.inner {
            Coder::None => false,
            Coder::Gzip(coder) => {
                coder.reset();
                coder.compress_vec(block, &mut self.buffer, FlushCompress::Finish)? == Status::StreamEnd
            }
            Coder::Zstd(coder) => {
                coder.compress_to_buffer(block, &mut self.buffer)?;
                true
            }
            Coder::Xz(preset, dictionary) => {
                let mut filters = Filters::new();
                filters.lzma2(LzmaOptions::new_preset(*preset)?.dict_size(*dictionary));
                let mut stream = Stream::new_stream_encoder(&filters, Check::Crc32)?;
                stream.process_vec(block, &mut self.buffer, Action::Finish)? == liblzma::stream::Status::StreamEnd
            }
        };
        Ok((whole && self.buffer.len() < block.len()).then_some(&self.buffer))
    }
}

/// A decompressor of blocks, with its memory.
pub(super) struct Decoder(Form);

enum Form {
    Gzip(Box<Decompress>),
    Zstd(Box<zstd::bulk::Decompressor<'static>>),
    Xz,
    Lz4,
}

/// What decompressing a block of an xz image may take; its dictionaries are no larger than blocks, 1 MiB at most.
const XZ_MEMORY: u64 = 64 << 20;

impl Decoder {
    /// A decoder by the number in the superblock.
    pub fn new(number: u16) -> Result<Self> {
        let unknown = |name: &str| {
            Error::with_kind(crate::error::Kind::Unsupported, format!("can't read squashfs images compressed by {name}"))
                .hint("unpack it (`unsquashfs -d DIR FILE`) and import the directory, or compress it by zstd, xz or gzip")
        };
        Ok(Self(match number {
            1 => Form::Gzip(Box::new(Decompress::new(true))),
            2 => return Err(unknown("lzma")),
            3 => return Err(unknown("lzo")),
            4 => Form::Xz,
            5 => Form::Lz4,
            6 => Form::Zstd(Box::new(zstd::bulk::Decompressor::new().map_err(|e| Error::os("can't start decompressing", e))?)),
            other => return Err(unknown(&format!("an unknown method (number {other})"))),
        }))
    }

    /// Decompresses a block into `out`, whose content is replaced; more than `limit` bytes are an error.
    pub fn decode(&mut self, packed: &[u8], limit: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "it ends too early or is too long");
        out.clear();
        out.reserve_exact(limit);
        let whole = match &mut self.0 {
            Form::Gzip(coder) => {
                coder.reset(true);
                coder.decompress_vec(packed, out, FlushDecompress::Finish)? == Status::StreamEnd
            }
            Form::Zstd(coder) => {
                coder.decompress_to_buffer(packed, out)?;
                true
            }
            Form::Xz => {
                let mut stream = Stream::new_stream_decoder(XZ_MEMORY, 0)?;
                stream.process_vec(packed, out, Action::Finish)? == liblzma::stream::Status::StreamEnd
            }
            Form::Lz4 => lz4(packed, limit, out).is_some(),
        };
        if whole && out.len() <= limit { Ok(()) } else { Err(broken()) }
    }
}

/// An LZ4 block (lz4_Block_format.md): literals and copies in turn.
fn lz4(packed: &[u8], limit: usize, out: &mut Vec<u8>) -> Option<()> {
    let mut rest = packed;
    loop {
        let (&token, after) = rest.split_first()?;
        rest = after;
        let literals = lz4_length(usize::from(token >> 4), &mut rest)?;
        let (copied, after) = rest.split_at_checked(literals)?;
        if out.len() + literals > limit {
            return None;
        }
        out.extend_from_slice(copied);
        rest = after;
        if rest.is_empty() {
            return Some(());
        }
        let (offset, after) = rest.split_first_chunk::<2>()?;
        rest = after;
        let offset = usize::from(u16::from_le_bytes(*offset));
        let length = lz4_length(usize::from(token & 15), &mut rest)? + 4;
        let start = out.len().checked_sub(offset).filter(|_| offset > 0)?;
        if out.len() + length > limit {
            return None;
        }
        // The copy may reach into itself: that repeats it.
        for at in start..start + length {
            out.push(out[at]);
        }
    }
}

fn lz4_length(start: usize, rest: &mut &[u8]) -> Option<usize> {
    let mut length = start;
    let mut last = if start == 15 { 255 } else { 0 };
    while last == 255 {
        let (&more, after) = rest.split_first()?;
        *rest = after;
        length += usize::from(more);
        last = more;
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i / 5 % 251) as u8).collect()
    }

    #[test]
    fn blocks_round_trip() {
        for method in [Compression::Gzip, Compression::Zstd, Compression::Xz] {
            let coding = Coding::new(method, None).unwrap();
            let mut encoder = Encoder::new(coding, 1 << 17).unwrap();
            let mut decoder = Decoder::new(coding.number()).unwrap();
            for len in [100, 8192, 1 << 17] {
                let block = sample(len);
                let packed = encoder.encode(&block).unwrap().unwrap().to_vec();
                let mut out = Vec::new();
                decoder.decode(&packed, len, &mut out).unwrap();
                assert!(out == block, "{method:?} {len}");
                assert!(decoder.decode(&packed, len - 1, &mut out).is_err(), "{method:?} {len}: longer than allowed");
                assert!(decoder.decode(&packed[..packed.len() - 1], len, &mut out).is_err(), "{method:?} {len}: cut");
            }
            assert!(encoder.encode(b"x").unwrap().is_none(), "{method:?}: no smaller");
        }
    }

    #[test]
    fn lz4_blocks_are_read() {
        let mut decoder = Decoder::new(5).unwrap();
        let mut out = Vec::new();
        for (packed, limit, expected) in [
            (&b"\x30abc"[..], 9, Some(&b"abc"[..])),
            (b"\x31abc\x03\x00\x30xyz", 20, Some(b"abcabcabxyz")),
            (b"\x1fa\x01\x00\x02\x00", 22, Some(b"aaaaaaaaaaaaaaaaaaaaaa")),
            (b"\x31abc\x03\x00\x30xyz", 10, None),
            (b"\x31abc\x04\x00\x30xyz", 20, None),
            (b"\x31abc\x00\x00\x30xyz", 20, None),
            (b"\x30ab", 9, None),
            (b"\xf0", 9, None),
        ] {
            let outcome = decoder.decode(packed, limit, &mut out);
            assert_eq!(outcome.ok().map(|()| out.as_slice()), expected, "{packed:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_said() {
        for (method, level, expected) in
            [(Compression::Bzip2, None, "bzip2"), (Compression::Gzip, Some(10), "level 10"), (Compression::Zstd, Some(0), "level 0")]
        {
            let error = Coding::new(method, level).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        for (number, expected) in [(2, "lzma"), (3, "lzo"), (9, "number 9")] {
            let error = Decoder::new(number).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
