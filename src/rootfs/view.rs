//! A stack of layers as one read-only tree, in user space, without mounting.
//!
//! Merges as overlayfs does: the topmost layer that has a name decides, directories of several layers are one unless a whiteout, an
//! opaque directory or something that is no directory lies between. Unlike overlayfs, a directory takes its metadata from
//! the topmost layer where it is not implicit. Layers must not change, except through a [`super::writer::LayerWriter`] on top.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::entry;
use super::meta::{Kind, Meta};
use super::record::Record;
pub use super::unpack::Met;
use super::unpack::follow;
use crate::error::{Error, IoContext, Kind as ErrorKind, Result, quote};
use crate::oci::ImagePath;
use crate::sys::fs::xattr::{self, Target};
use crate::sys::fs::{self, FileStat, FileType};

/// A layer directory with its record.
#[derive(Clone, Debug)]
pub struct LayerDir {
    /// The tree.
    pub fs: PathBuf,
    /// What the tree can't say.
    pub record: Arc<Record>,
}

impl LayerDir {
    /// Takes the layer directory that holds `fs/` and perhaps `record`.
    pub fn open(layer: &Path) -> Result<Self> {
        Ok(Self { fs: layer.join("fs"), record: Arc::new(Record::load(layer)?) })
    }
}

/// An entry of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it is, physically.
    pub path: ImagePath,
    /// The layer that its content and metadata come from; 0 is the bottom.
    pub layer: usize,
    /// Metadata.
    pub meta: Meta,
    /// Device and inode if it has other names; two nodes with the same are one file.
    pub link: Option<(u64, u64)>,
}

/// What to do with a symlink at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Follow it too.
    Last,
    /// Follow only those before it.
    Parents,
}

/// A stack of layers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct View {
    layers: Vec<LayerDir>,
    roots: Vec<Arc<OnceLock<OwnedFd>>>,
    /// For directories met so far: the layers that have a part in them, topmost first; none if there is no such directory.
    merged: Arc<Mutex<BTreeMap<ImagePath, Arc<[usize]>>>>,
}

/// The first of a name's appearances in the layers, topmost first.
struct Hit {
    layer: usize,
    stat: FileStat,
}

impl View {
    /// Stacks layers, bottom first.
    pub fn new(layers: Vec<LayerDir>) -> Self {
        let roots = layers.iter().map(|_| Arc::default()).collect();
        Self { layers, roots, merged: Arc::default() }
    }

    /// The layers, bottom first.
    pub fn layers(&self) -> &[LayerDir] {
        &self.layers
    }

    /// What is at a path. Follows nothing: below a symlink there is nothing.
    pub fn lookup(&self, path: &ImagePath) -> Result<Option<Node>> {
        let Some(parent) = path.parent() else { return self.root_node().map(Some) };
        let parent_layers = self.merged(&parent)?;
        let Some(hit) = self.find(path, &parent_layers)? else { return Ok(None) };
        if hit.stat.is_dir() {
            return self.dir_node(path).map(Some);
        }
        self.node(path, &hit).map(Some)
    }

    /// Follows symlinks as inside the root, `..` never leaving it. What is missing stays as written.
    pub fn resolve(&self, path: &ImagePath, follow_last: Follow) -> Result<ImagePath> {
        self.resolve_under(path, follow_last, &|_| Ok(None))
    }

    /// The same with something laid over the tree: what `over` knows of a path counts instead.
    pub fn resolve_under(
        &self,
        path: &ImagePath,
        follow_last: Follow,
        over: &dyn Fn(&ImagePath) -> Result<Option<Met>>,
    ) -> Result<ImagePath> {
        let look = |path: &ImagePath| {
            if let Some(met) = over(path)? {
                return Ok(met);
            }
            let parent = self.merged(&path.parent().unwrap_or_default())?;
            Ok(match self.find(path, &parent)? {
                None => Met::Nothing,
                Some(hit) if hit.stat.is_dir() => Met::Directory,
                Some(hit) if hit.stat.file_type() == FileType::Symlink => Met::Symlink(self.link_target(path, hit.layer)?),
                Some(_) => Met::Nothing,
            })
        };
        match (follow_last, path.parent(), path.name()) {
            (Follow::Parents, Some(parent), Some(name)) => Ok(follow(&parent, look)?.child(name)),
            _ => follow(path, look),
        }
    }

    /// The entries of a physical directory, sorted by name; none if there is no such directory.
    pub fn read_dir(&self, path: &ImagePath) -> Result<Vec<Node>> {
        let layers = self.merged(path)?;
        let mut names: BTreeMap<Box<[u8]>, Option<Node>> = BTreeMap::new();
        for &layer in layers.iter() {
            let dir = self.open_dir(path, layer)?;
            for found in fs::list_unsorted(dir.as_fd()).map_err(|e| trouble("list", path, e))? {
                if names.contains_key(&found.name) {
                    continue;
                }
                let child = path.child(&found.name);
                let stat = fs::stat_at(&dir, &*found.name).map_err(|e| trouble("read", &child, e))?;
                let node = if stat.is_whiteout() {
                    None
                } else if stat.is_dir() && self.layers[layer].record.implicit.contains(&child) {
                    Some(self.dir_node(&child)?)
                } else {
                    Some(self.node_at(Target::At(dir.as_fd(), &found.name), &child, &Hit { layer, stat })?)
                };
                names.insert(found.name, node);
            }
        }
        Ok(names.into_values().flatten().collect())
    }

    /// Opens a file's content.
    pub fn open(&self, node: &Node) -> Result<File> {
        self.open_in(node.layer, &node.path)
    }

    /// The same for a file that is known to be the one seen at a physical path.
    pub(super) fn open_in(&self, layer: usize, path: &ImagePath) -> Result<File> {
        fs::open_file(self.root(layer)?, path.as_relative()).map_err(|e| trouble("open", path, e))
    }

    /// A symlink's target.
    pub fn read_link(&self, node: &Node) -> Result<Vec<u8>> {
        self.link_target(&node.path, node.layer)
    }

    /// A file's content, symlinks followed; `None` if there is no such file. More than `limit` bytes are an error.
    pub fn read(&self, path: &ImagePath, limit: u64) -> Result<Option<Vec<u8>>> {
        let path = self.resolve(path, Follow::Last)?;
        let Some(node) = self.lookup(&path)?.filter(|node| node.meta.kind == Kind::File) else { return Ok(None) };
        if node.meta.size > limit {
            return Err(Error::with_kind(ErrorKind::Corrupt, format!("{} is larger than expected", quote(path.as_bytes())))
                .cause(format!("it has {} bytes, {limit} are allowed", node.meta.size)));
        }
        let mut bytes = Vec::new();
        self.open(&node)?.take(limit).read_to_end(&mut bytes).map_err(|e| trouble("read", &path, e))?;
        Ok(Some(bytes))
    }

    /// Visits `from` and everything below it, parents first, sorted by name; nothing if there is nothing.
    pub fn walk(&self, from: &ImagePath, visit: &mut dyn FnMut(&Node) -> Result<()>) -> Result<()> {
        let Some(start) = self.lookup(from)? else { return Ok(()) };
        let mut todo = vec![vec![start].into_iter()];
        while let Some(nodes) = todo.last_mut() {
            let Some(node) = nodes.next() else {
                todo.pop();
                continue;
            };
            visit(&node)?;
            if node.meta.kind == Kind::Directory {
                todo.push(self.read_dir(&node.path)?.into_iter());
            }
        }
        Ok(())
    }

    /// What the layers' records say of what is seen at a path and below it, by paths below it.
    pub fn recorded(&self, from: &ImagePath) -> Result<Record> {
        let mut recorded = Record::default();
        for (index, layer) in self.layers.iter().enumerate() {
            for path in layer.record.entries() {
                // It counts only where that layer's entry is the one seen.
                if let Some(below) = path.strip_prefix(from)
                    && self.lookup(path)?.is_some_and(|node| node.layer == index)
                {
                    recorded.adopt(&below, &layer.record, path);
                }
            }
        }
        Ok(recorded)
    }

    /// Forgets what was found out about a path and all below it, since a layer changed there.
    pub(super) fn forget(&self, path: &ImagePath) {
        let mut cache = self.cache();
        let below: Vec<_> = cache.range(path..).map(|(known, _)| known).take_while(|known| known.starts_with(path)).cloned().collect();
        for known in below {
            cache.remove(&known);
        }
    }

    /// Gives the topmost layer another record, which whoever writes that layer has changed.
    pub(super) fn set_top_record(&mut self, record: Arc<Record>) {
        if let Some(layer) = self.layers.last_mut() {
            layer.record = record;
        }
    }

    fn root(&self, layer: usize) -> Result<BorrowedFd<'_>> {
        let cell = &self.roots[layer];
        if cell.get().is_none() {
            let fs = &self.layers[layer].fs;
            // Another thread may have been faster; then this descriptor is closed again.
            let _ = cell.set(fs::open_root(fs).doing("open", fs)?);
        }
        Ok(cell.get().ok_or_else(|| Error::new("a layer's root is not open"))?.as_fd())
    }

    /// Opens a directory of one layer.
    pub(super) fn open_dir(&self, path: &ImagePath, layer: usize) -> Result<OwnedFd> {
        fs::open_dir_below(self.root(layer)?, path.as_bytes()).map_err(|e| trouble("open", path, e))
    }

    fn link_target(&self, path: &ImagePath, layer: usize) -> Result<Vec<u8>> {
        fs::read_link(self.root(layer)?, path.as_relative()).map_err(|e| trouble("read", path, e))
    }

    fn cache(&self) -> MutexGuard<'_, BTreeMap<ImagePath, Arc<[usize]>>> {
        self.merged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The layers that have a part in a directory, topmost first.
    fn merged(&self, path: &ImagePath) -> Result<Arc<[usize]>> {
        if let Some(layers) = self.cache().get(path) {
            return Ok(layers.clone());
        }
        // By a loop, since hostile paths have thousands of components.
        let mut layers = self.merge(&ImagePath::root(), &(0..self.layers.len()).rev().collect::<Vec<_>>())?;
        for dir in path.ancestors().chain((!path.is_root()).then(|| path.clone())) {
            layers = self.merge(&dir, &layers)?;
        }
        Ok(layers)
    }

    /// Those of the parent directory's layers that have a part in a directory.
    fn merge(&self, path: &ImagePath, candidates: &[usize]) -> Result<Arc<[usize]>> {
        if let Some(layers) = self.cache().get(path) {
            return Ok(layers.clone());
        }
        let mut layers = Vec::new();
        for (at, &layer) in candidates.iter().enumerate() {
            let Some(stat) = fs::stat_if_any(self.root(layer)?, path.as_relative()).map_err(|e| trouble("read", path, e))? else {
                continue;
            };
            if !stat.is_dir() {
                break;
            }
            layers.push(layer);
            if at + 1 < candidates.len() && self.is_opaque(path, layer)? {
                break;
            }
        }
        let layers: Arc<[usize]> = layers.into();
        self.cache().insert(path.clone(), layers.clone());
        Ok(layers)
    }

    fn is_opaque(&self, path: &ImagePath, layer: usize) -> Result<bool> {
        if self.layers[layer].record.opaque.contains(path) {
            return Ok(true);
        }
        let target = Target::At(self.root(layer)?, path.as_relative().as_os_str().as_encoded_bytes());
        let value = xattr::get(target, super::meta::OPAQUE_XATTR.as_bytes()).map_err(|e| trouble("read", path, e))?;
        Ok(value.as_deref() == Some(b"y"))
    }

    /// Looks a name up in the layers that have a part in its directory.
    fn find(&self, path: &ImagePath, parent_layers: &[usize]) -> Result<Option<Hit>> {
        for &layer in parent_layers {
            let found = fs::stat_if_any(self.root(layer)?, path.as_relative()).map_err(|e| trouble("read", path, e))?;
            if let Some(stat) = found {
                return Ok((!stat.is_whiteout()).then_some(Hit { layer, stat }));
            }
        }
        Ok(None)
    }

    fn root_node(&self) -> Result<Node> {
        if self.layers.is_empty() {
            return Ok(Node { path: ImagePath::root(), layer: 0, meta: Meta::new(Kind::Directory, 0o755), link: None });
        }
        self.dir_node(&ImagePath::root())
    }

    /// A directory's node, with the metadata of the topmost layer that has an entry for it; if none has, the lowest's made-up ones.
    fn dir_node(&self, path: &ImagePath) -> Result<Node> {
        let layers = self.merged(path)?;
        let explicit = layers.iter().find(|&&layer| !self.layers[layer].record.implicit.contains(path));
        let Some(&layer) = explicit.or(layers.last()) else {
            return Err(Error::with_kind(ErrorKind::NotFound, format!("{} is no directory", quote(path.as_bytes()))));
        };
        let stat = fs::stat_at(self.root(layer)?, path.as_relative()).map_err(|e| trouble("read", path, e))?;
        self.node(path, &Hit { layer, stat })
    }

    fn node(&self, path: &ImagePath, hit: &Hit) -> Result<Node> {
        let target = Target::At(self.root(hit.layer)?, path.as_relative().as_os_str().as_encoded_bytes());
        self.node_at(target, path, hit)
    }

    fn node_at(&self, target: Target<'_>, path: &ImagePath, hit: &Hit) -> Result<Node> {
        let found = entry::read(target, &hit.stat, &self.layers[hit.layer].record, path)?;
        let link = (hit.stat.nlink > 1 && !hit.stat.is_dir()).then_some((hit.stat.dev, hit.stat.ino));
        Ok(Node { path: path.clone(), layer: hit.layer, meta: found.meta, link })
    }
}

fn trouble(verb: &str, path: &ImagePath, cause: std::io::Error) -> Error {
    Error::os(format!("can't {verb} {}", quote(path.to_string())), cause)
}
