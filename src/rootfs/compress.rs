//! Compression of layers and archives.
use crate::error::Result;
use std::io::{Read, Write};
/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Plain.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// The .xz format.
    Xz,
    /// bzip2.
    Bzip2,
}
impl Compression {
    /// Recognises by the first bytes (6 are enough).
    pub fn detect(_first: &[u8]) -> Self {
        todo!()
    }
}
/// Decompresses by content.
pub fn decompress<'a>(_reader: impl Read + Send + 'a) -> Result<Box<dyn Read + Send + 'a>> {
    todo!()
}
/// Compresses.
pub struct Compressor<W: Write> {
    _out: W,
}
/// Starts compressing.
pub fn compressor<W: Write>(_out: W, _format: Compression, _level: Option<i32>) -> Result<Compressor<W>> {
    todo!()
}
impl<W: Write> Compressor<W> {
    /// Ends.
    pub fn finish(self) -> Result<W> {
        todo!()
    }
}
impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        todo!()
    }
    fn flush(&mut self) -> std::io::Result<()> {
        todo!()
    }
}
