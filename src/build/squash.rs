//! Several layers made one: `--squash`.

use std::collections::HashMap;

use crate::error::Result;
use crate::oci::{DiffId, ImagePath};
use crate::rootfs::meta::{Kind, Times};
use crate::rootfs::view::{Node, View};
use crate::rootfs::writer::{Content, LayerWriter};
use crate::store::{Layer, Store};

/// Makes one layer that does on `base` what the layers of `new` do one after the other (bottom first); `None` if that is nothing.
///
/// Reads what the new layers hold, and of the base only the directories they touch.
pub fn squash(store: &Store, base: &[DiffId], new: &[DiffId], times: Times) -> Result<Option<Layer>> {
    let below = View::new(store.stack(base)?);
    let whole = View::new(store.stack(&[base, new].concat())?);
    let draft = store.draft()?;
    let writer = LayerWriter::create(draft.path(), below.clone())?.with_times(times);
    let mut squasher = Squasher { below, added: View::new(store.stack(new)?), whole, writer, links: HashMap::new() };
    squasher.root()?;
    squasher.directory(&ImagePath::root())?;
    let written = squasher.writer.finish()?;
    if written.empty { Ok(None) } else { draft.commit_packed().map(Some) }
}

struct Squasher {
    below: View,
    /// The new layers by themselves: a directory is in it if any of them touches it.
    added: View,
    whole: View,
    writer: LayerWriter,
    /// Hard links: identity to the first name.
    links: HashMap<(u64, u64), ImagePath>,
}

impl Squasher {
    /// The root directory belongs to the layer only if its owner or mode changed, or if there was none.
    fn root(&mut self) -> Result<()> {
        let root = ImagePath::root();
        let Some(now) = self.whole.lookup(&root)? else { return Ok(()) };
        let before = if self.below.layers().is_empty() { None } else { self.below.lookup(&root)? };
        if before.is_some_and(|before| before.meta.same_but_for_times(&now.meta)) {
            return Ok(());
        }
        self.writer.put(&root, &now.meta, Content::None)
    }

    fn directory(&mut self, path: &ImagePath) -> Result<()> {
        let is_directory = self.below.lookup(path)?.is_some_and(|node| node.meta.kind == Kind::Directory);
        if is_directory {
            for gone in self.below.read_dir(path)? {
                if self.whole.lookup(&gone.path)?.is_none() {
                    self.writer.remove(&gone.path)?;
                }
            }
        }
        for touched in self.added.read_dir(path)? {
            // What a later layer removed again is in no view; metadata that a layer only implies is the base's.
            if let Some(node) = self.whole.lookup(&touched.path)? {
                self.entry(&node)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, node: &Node) -> Result<()> {
        let directory = node.meta.kind == Kind::Directory;
        if self.below.lookup(&node.path)?.is_some_and(|below| (below.meta.kind == Kind::Directory) != directory) {
            self.writer.remove(&node.path)?;
        }
        if let Some(link) = node.link {
            if let Some(first) = self.links.get(&link) {
                return self.writer.put(&node.path, &node.meta, Content::HardLink(first));
            }
            self.links.insert(link, node.path.clone());
        }
        match node.meta.kind {
            Kind::File => self.writer.put(&node.path, &node.meta, Content::File(&self.whole.open(node)?)),
            Kind::Symlink => self.writer.put(&node.path, &node.meta, Content::Symlink(&self.whole.read_link(node)?)),
            Kind::Directory => {
                self.writer.put(&node.path, &node.meta, Content::None)?;
                self.directory(&node.path)
            }
            _ => self.writer.put(&node.path, &node.meta, Content::None),
        }
    }
}
