//! Compression of layers and archives: recognised by content when read, reproducible when written.
//!
//! gzip is written as one member of independently compressed blocks (each with the 32 KiB before it as dictionary), so that all cores
//! work on it and the bytes don't depend on how many there are.

use std::io::{self, BufReader, Read, Write};
use std::num::NonZero;
use std::thread;

use super::gzip::ParallelGzip;
use crate::error::{Error, Result, from_io};

/// Files are read through a buffer of this size before decompression.
const BUFFER: usize = 128 << 10;
/// As small as what Docker, podman and skopeo make, in less time: a Debian image takes 63.3 MB and 1.9 s here, 63.4 MB and 2.4 s there, and with
/// level 6, gzip's own default, 61.6 MB and 2.8 s (doc/decisions/0026-proofs-of-copies.md).
const GZIP_LEVEL: i32 = 3;
const ZSTD_LEVEL: i32 = 3;
const XZ_LEVEL: i32 = 6;
const BZIP2_LEVEL: i32 = 9;

/// A compression format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Plain bytes.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
    /// The .xz format.
    Xz,
    /// bzip2.
    Bzip2,
}

impl Compression {
    /// Recognises a format by a stream's first bytes, of which 6 are enough; what is none of them counts as plain.
    pub fn detect(first: &[u8]) -> Self {
        // A zstd stream may start with a skippable frame, as zstd:chunked layers do.
        let skippable = |bytes: &[u8]| bytes.len() >= 4 && bytes[0] & 0xf0 == 0x50 && bytes[1..4] == [0x2a, 0x4d, 0x18];
        match first {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            bytes if skippable(bytes) => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            _ => Self::None,
        }
    }
}

/// Decompresses a stream of whatever format its content shows; members and frames that follow each other are one stream.
pub fn decompress<'a>(reader: impl Read + Send + 'a) -> Result<Box<dyn Read + Send + 'a>> {
    let failed = |e| from_io(|| "can't read the archive".into(), e);
    let mut reader = reader;
    let mut first = Vec::with_capacity(6);
    reader.by_ref().take(6).read_to_end(&mut first).map_err(failed)?;
    let format = Compression::detect(&first);
    let whole = io::Cursor::new(first).chain(BufReader::with_capacity(BUFFER, reader));
    Ok(match format {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(whole).map_err(failed)?),
        Compression::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(whole)),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(whole)),
    })
}

/// A stream being compressed. [`Compressor::finish`] ends it; dropped before, what was written is no whole stream.
pub struct Compressor<W: Write>(Inner<W>);

enum Inner<W: Write> {
    Plain(W),
    Gzip(Box<ParallelGzip<W>>),
    Zstd(Box<zstd::Encoder<'static, W>>),
    Xz(Box<liblzma::write::XzEncoder<W>>),
    Bzip2(Box<bzip2::write::BzEncoder<W>>),
}

/// Starts compressing to `out`, at the format's usual level unless one is given.
pub fn compressor<W: Write>(out: W, format: Compression, level: Option<i32>) -> Result<Compressor<W>> {
    let level_in = |range: std::ops::RangeInclusive<i32>, default: i32| match level {
        Some(level) if !range.contains(&level) => Err(Error::input(format!("invalid compression level {level}")).hint(format!(
            "levels from {} to {} are possible",
            range.start(),
            range.end()
        ))),
        level => Ok(level.unwrap_or(default)),
    };
    let failed = |e| Error::os("can't start compressing", e);
    let unsigned = |level: i32| u32::try_from(level).unwrap_or_default();
    Ok(Compressor(match format {
        Compression::None => Inner::Plain(out),
        Compression::Gzip => Inner::Gzip(Box::new(ParallelGzip::new(out, unsigned(level_in(0..=9, GZIP_LEVEL)?), threads()))),
        Compression::Zstd => {
            let mut encoder = zstd::Encoder::new(out, level_in(1..=22, ZSTD_LEVEL)?).map_err(failed)?;
            encoder.include_checksum(true).map_err(failed)?;
            // From one worker on the bytes don't depend on how many there are; without any they differ.
            encoder.multithread(u32::try_from(threads()).unwrap_or(1)).map_err(failed)?;
            Inner::Zstd(Box::new(encoder))
        }
        Compression::Xz => Inner::Xz(Box::new(liblzma::write::XzEncoder::new(out, unsigned(level_in(0..=9, XZ_LEVEL)?)))),
        Compression::Bzip2 => {
            let level = bzip2::Compression::new(unsigned(level_in(1..=9, BZIP2_LEVEL)?));
            Inner::Bzip2(Box::new(bzip2::write::BzEncoder::new(out, level)))
        }
    }))
}

fn threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).min(16)
}

impl<W: Write> Compressor<W> {
    /// Ends the stream and gives back what it was written to.
    pub fn finish(self) -> Result<W> {
        match self.0 {
            Inner::Plain(out) => Ok(out),
            Inner::Gzip(gzip) => gzip.finish(),
            Inner::Zstd(encoder) => encoder.finish(),
            Inner::Xz(encoder) => encoder.finish(),
            Inner::Bzip2(encoder) => encoder.finish(),
        }
        .map_err(|e| from_io(|| "can't compress".into(), e))
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(out) => out.write(bytes),
            Inner::Gzip(gzip) => gzip.write(bytes),
            Inner::Zstd(encoder) => encoder.write(bytes),
            Inner::Xz(encoder) => encoder.write(bytes),
            Inner::Bzip2(encoder) => encoder.write(bytes),
        }
    }

    /// Passes on what is complete; does not cut the compressed stream, which would change its bytes.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Inner::Plain(out) => out.flush(),
            Inner::Gzip(_) | Inner::Zstd(_) | Inner::Xz(_) | Inner::Bzip2(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Compression; 5] = [Compression::None, Compression::Gzip, Compression::Zstd, Compression::Xz, Compression::Bzip2];

    fn sample(len: u32) -> Vec<u8> {
        (0..len).flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 20).to_le_bytes()).take(len as usize).collect()
    }

    fn compress(data: &[u8], format: Compression) -> Vec<u8> {
        let mut out = compressor(Vec::new(), format, None).unwrap();
        data.chunks(100_003).for_each(|part| out.write_all(part).unwrap());
        out.finish().unwrap()
    }

    fn expand(data: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompress(data).unwrap().read_to_end(&mut out).map(|_| out)
    }

    #[test]
    fn every_format_round_trips_and_is_recognised() {
        for format in ALL {
            for len in [0, 1, 100_000, 1 << 20, (3 << 20) + 17] {
                let data = sample(len);
                let packed = compress(&data, format);
                assert!(len == 0 || Compression::detect(&packed) == format || format == Compression::None);
                assert!(expand(&packed).unwrap() == data, "{format:?} {len}");
                assert!(packed == compress(&data, format), "{format:?} gives the same bytes again");
            }
        }
    }

    #[test]
    fn members_in_a_row_are_one_stream() {
        for format in ALL {
            let both = [compress(b"first ", format), compress(b"second", format)].concat();
            assert_eq!(expand(&both).unwrap(), b"first second", "{format:?}");
        }
    }

    #[test]
    fn cut_streams_are_errors() {
        let data = sample(500_000);
        for format in ALL.into_iter().filter(|format| *format != Compression::None) {
            let packed = compress(&data, format);
            assert!(expand(&packed[..packed.len() / 2]).is_err(), "{format:?}");
        }
    }

    #[test]
    fn levels_are_checked() {
        assert!(compressor(Vec::new(), Compression::Gzip, Some(10)).is_err());
        assert!(compressor(Vec::new(), Compression::Zstd, Some(0)).is_err());
    }
}
