//! One layer tar to one layer directory.
use crate::error::Result;
use std::io::Read;
use std::path::Path;
/// Options.
#[derive(Clone, Debug, Default)]
pub struct UnpackOptions {}
/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Entries.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Whiteouts.
    pub whiteouts: u64,
    /// Implicit directories.
    pub implicit: u64,
    /// Xattrs the file system refused.
    pub lost_xattrs: u64,
}
/// Unpacks an uncompressed layer tar; reads `tar` to its end.
pub fn unpack(_tar: impl Read, _layer: &Path, _options: &UnpackOptions) -> Result<Unpacked> {
    todo!()
}
