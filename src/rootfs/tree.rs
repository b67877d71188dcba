//! A plain tree: all layers of a view applied to one directory, for programs that want a root file system without mounting.
//!
//! Files are cloned where the file system can and copied elsewhere, never linked to the layers: whoever writes into the tree can't
//! reach another image's files. Hard links within the image are kept. There are no whiteouts; metadata is kept as in a layer.

use std::collections::HashMap;
use std::path::Path;

use super::meta::Kind;
use super::native::NativeTree;
use super::view::View;
use super::writer::copy_up;
use crate::error::Result;
use crate::oci::ImagePath;

/// Makes `layer`, which gets `fs/` and, where needed, `record`, a copy of the whole view.
pub fn materialize(view: &View, layer: &Path) -> Result<()> {
    let mut tree = NativeTree::create(layer)?;
    let mut first_names: HashMap<(u64, u64), ImagePath> = HashMap::new();
    view.walk(&ImagePath::root(), &mut |node| {
        if node.meta.kind == Kind::Directory {
            return tree.put_dir(&node.path, &node.meta);
        }
        if node.meta.kind == Kind::Socket {
            return Ok(());
        }
        if let Some(link) = node.link {
            if let Some(first) = first_names.get(&link) {
                return tree.link(first, &node.path).map(drop);
            }
            first_names.insert(link, node.path.clone());
        }
        copy_up(&mut tree, view, node)
    })?;
    tree.finish().map(drop)
}
