//! A stack of layers as one read-only tree, without mounting.
use super::meta::Meta;
use super::record::Record;
use crate::error::Result;
use crate::oci::ImagePath;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
/// A layer directory with its record.
#[derive(Clone, Debug)]
pub struct LayerDir {
    /// The tree.
    pub fs: PathBuf,
    /// What it can't say.
    pub record: Arc<Record>,
}
impl LayerDir {
    /// Opens.
    pub fn open(_layer: &Path) -> Result<Self> {
        todo!()
    }
}
/// A stack.
#[derive(Clone, Debug)]
pub struct View {}
/// An entry of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where.
    pub path: ImagePath,
    /// Index of the layer it comes from, bottom is 0.
    pub layer: usize,
    /// Metadata.
    pub meta: Meta,
    /// Identity when it has other names.
    pub link: Option<(u64, u64)>,
}
/// What to do with a symlink at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Follow it.
    Last,
    /// Follow those before it only.
    Parents,
}
impl View {
    /// Stacks layers, bottom first.
    pub fn new(_layers: Vec<LayerDir>) -> Self {
        todo!()
    }
    /// The layers, bottom first.
    pub fn layers(&self) -> &[LayerDir] {
        todo!()
    }
    /// Physical path, follows nothing.
    pub fn lookup(&self, _path: &ImagePath) -> Result<Option<Node>> {
        todo!()
    }
    /// Follows symlinks inside the root; missing components stay as written.
    pub fn resolve(&self, _path: &ImagePath, _follow: Follow) -> Result<ImagePath> {
        todo!()
    }
    /// Sorted by name; empty if there is no such directory.
    pub fn read_dir(&self, _path: &ImagePath) -> Result<Vec<Node>> {
        todo!()
    }
    /// Opens a file's content.
    pub fn open(&self, _node: &Node) -> Result<File> {
        todo!()
    }
    /// A symlink's target.
    pub fn read_link(&self, _node: &Node) -> Result<Vec<u8>> {
        todo!()
    }
    /// A small file's content, links followed; `None` if there is no such file.
    pub fn read(&self, _path: &ImagePath, _limit: u64) -> Result<Option<Vec<u8>>> {
        todo!()
    }
    /// Parents first, sorted.
    pub fn walk(&self, _from: &ImagePath, _visit: &mut dyn FnMut(&Node) -> Result<()>) -> Result<()> {
        todo!()
    }
}
