//! Trees: plain root file systems with all layers of a stack applied, for programs that can't mount a stack.
//!
//! A tree shares no file with the layers: who writes into it reaches no other image. The exception is a stack of one layer that
//! has no whiteouts: the layer itself is the tree, and `trees/<chain ID>` a symbolic link that remembers so.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::layer::Layer;
use super::lease::Kind as Lease;
use super::lock::Work;
use super::{Store, record};
use crate::error::{Error, IoContext, Result};
use crate::oci::{ChainId, DiffId, Digest};
use crate::rootfs::tree::materialize;
use crate::rootfs::view::{LayerDir, View};

impl Store {
    /// The root directory of a tree with these layers (bottom first) applied; made if there is none yet.
    pub fn tree(&self, stack: &[DiffId]) -> Result<PathBuf> {
        let layers = self.stack_layers(stack)?;
        let chain = chain_of(stack);
        self.inner.live.lease(Lease::Tree, &chain.0)?;
        record::refresh(&self.layout().trees());
        let tree = self.layout().tree(&chain);
        let root = tree.join("fs");
        if record::open(&root)?.is_some() {
            return Ok(root);
        }
        let _lock = self.lock(Work::Tree(&chain))?;
        if record::open(&root)?.is_some() {
            return Ok(root);
        }
        match layers.as_slice() {
            [only] if is_plain(&only.layer_dir.fs)? => self.link_tree(only, &tree)?,
            _ => self.make_tree(&layers, &tree)?,
        }
        Ok(root)
    }

    fn link_tree(&self, layer: &Layer, tree: &Path) -> Result<()> {
        let mut link = self.unfinished("link")?;
        let target = Path::new("../layers").join(layer.diff_id.0.hex());
        std::os::unix::fs::symlink(target, link.path()).doing("create", link.path())?;
        link.place(tree).doing("create", tree)
    }

    fn make_tree(&self, layers: &[Layer], tree: &Path) -> Result<()> {
        let mut unfinished = self.unfinished_directory("tree")?;
        let layers: Vec<LayerDir> = layers.iter().map(|layer| layer.layer_dir.clone()).collect();
        materialize(&View::new(layers), unfinished.path())?;
        // Trees carry no mark as layers do (see `sync`): they are on the disk before they have their name.
        self.made_something();
        self.sync()?;
        match unfinished.place(tree) {
            // Someone who does not share our locks was first.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EEXIST | libc::ENOTEMPTY)) => Ok(()),
            Err(e) => Err(Error::io("create tree", tree, e)),
            Ok(()) => Ok(()),
        }
    }
}

/// The chain ID, the empty stack having one too: the digest of nothing.
pub(super) fn chain_of(stack: &[DiffId]) -> ChainId {
    ChainId::of(stack).unwrap_or_else(|| ChainId(Digest::of("")))
}

/// Whether a layer has no whiteout, so that alone it is a tree. Reads directories only.
fn is_plain(root: &Path) -> Result<bool> {
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).doing("read directory", &directory)? {
            let entry = entry.doing("read directory", &directory)?;
            let kind = entry.file_type().doing("read directory", &directory)?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_char_device() && entry.metadata().doing("stat", &entry.path())?.rdev() == 0 {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::testing::{self, layer, names};

    #[test]
    fn one_plain_layer_is_its_own_tree() {
        let (_dir, store) = testing::store();
        let a = layer(&store, "a");
        for _ in 0..2 {
            let tree = store.tree(&[a.diff_id]).unwrap();
            assert_eq!(fs::canonicalize(&tree).unwrap(), fs::canonicalize(&a.layer_dir.fs).unwrap());
        }
        assert!(names(&store, "tmp").is_empty());
    }

    #[test]
    fn a_tree_shares_no_file_with_its_layers() {
        let (_dir, store) = testing::store();
        let (a, b) = (layer(&store, "a"), layer(&store, "b"));
        let tree = store.tree(&[a.diff_id, b.diff_id]).unwrap();
        assert_eq!(fs::read_to_string(tree.join("a")).unwrap(), "a");
        fs::write(tree.join("a"), "changed").unwrap();
        assert_eq!(fs::read_to_string(a.layer_dir.fs.join("a")).unwrap(), "a");
        assert_eq!(store.tree(&[a.diff_id, b.diff_id]).unwrap(), tree);
        assert!(names(&store, "tmp").is_empty() && names(&store, "locks") == ["live"]);
    }

    #[test]
    fn nothing_has_an_empty_tree() {
        let (_dir, store) = testing::store();
        assert_eq!(fs::read_dir(store.tree(&[]).unwrap()).unwrap().count(), 0);
    }

    #[test]
    fn a_lone_layer_with_whiteouts_is_no_tree() {
        let (_dir, store) = testing::store();
        let draft = store.draft().unwrap();
        fs::create_dir_all(draft.path().join("fs/etc")).unwrap();
        let gone = draft.path().join("fs/etc/gone");
        rustix::fs::mknodat(rustix::fs::CWD, &gone, rustix::fs::FileType::CharacterDevice, 0o600.into(), 0).unwrap();
        let layer = draft.commit_packed().unwrap();
        let tree = store.tree(&[layer.diff_id]).unwrap();
        assert!(tree.join("etc").is_dir() && !tree.join("etc/gone").exists());
    }
}
