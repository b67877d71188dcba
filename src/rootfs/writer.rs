//! A new layer written on top of a view, without mounting.
use super::meta::{Meta, Mtime};
use super::view::View;
use crate::error::Result;
use crate::oci::ImagePath;
use std::fs::File;
use std::io::Read;
use std::path::Path;
/// Content of an entry.
pub enum Content<'a> {
    /// Nothing: directories, devices, FIFOs, empty files.
    None,
    /// A host file, cloned where possible; `meta.size` bytes of it.
    File(&'a File),
    /// Bytes at hand.
    Bytes(&'a [u8]),
    /// A stream to its end.
    Reader(&'a mut dyn Read),
    /// The target of a symlink.
    Symlink(&'a [u8]),
    /// Another name of this file.
    HardLink(&'a ImagePath),
}
/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Nothing.
    pub empty: bool,
}
/// A layer being written.
pub struct LayerWriter {}
impl LayerWriter {
    /// Starts a layer on top of `base`.
    pub fn create(_layer: &Path, _base: View) -> Result<Self> {
        todo!()
    }
    /// Base and what was written so far.
    pub fn view(&self) -> &View {
        todo!()
    }
    /// Creates the missing directories of a resolved path.
    pub fn make_dirs(&mut self, _path: &ImagePath, _mode: u32, _uid: u32, _gid: u32, _mtime: Option<Mtime>) -> Result<()> {
        todo!()
    }
    /// Writes an entry; its parent must exist.
    pub fn put(&mut self, _path: &ImagePath, _meta: &Meta, _content: Content<'_>) -> Result<()> {
        todo!()
    }
    /// Removes an entry and all below it.
    pub fn remove(&mut self, _path: &ImagePath) -> Result<()> {
        todo!()
    }
    /// Unpacks an uncompressed archive below `dest`; returns the number of entries.
    pub fn unpack_onto(&mut self, _dest: &ImagePath, _tar: impl Read, _owner: Option<(u32, u32)>) -> Result<u64> {
        todo!()
    }
    /// Ends.
    pub fn finish(self) -> Result<Written> {
        todo!()
    }
}
