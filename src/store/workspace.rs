//! Workspaces: the tree of a running step, which becomes a layer or disappears.
//!
//! Two kinds behind one interface. An *overlay* is to be mounted by the sandbox: its upper directory is the layer in the making.
//! A *copy* is a plain tree with the stack applied; its layer is the difference found by comparing. Making a copy costs the
//! size of the image, but its tree serves the next workspace on the layer it gave, so that a row of steps costs one copy.
//! Nothing is mounted here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use super::Store;
use super::layer::{Draft, Layer};
use super::unfinished::Unfinished;
use crate::error::{IoContext, Result};
use crate::oci::{DiffId, ImagePath};
use crate::rootfs::meta::{Kind, Meta, Times};
use crate::rootfs::record::Record;
use crate::rootfs::seal::{SealOptions, seal};
use crate::rootfs::snapshot::Snapshot;
use crate::rootfs::tree::materialize;
use crate::rootfs::view::{LayerDir, View};
use crate::rootfs::writer::{Content, LayerWriter};

/// How a workspace is made; which one works here is probed by the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkspaceKind {
    /// By an overlay mount.
    Overlay,
    /// By copying.
    Copy,
}

/// What a sandbox makes its root of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkspaceRoot {
    /// Directories for an overlay mount with `userxattr`.
    Overlay {
        /// Read-only directories, top first; at least one.
        lowers: Vec<PathBuf>,
        /// Takes what is written.
        upper: PathBuf,
        /// Overlayfs' own.
        work: PathBuf,
        /// An empty directory to mount on.
        merged: PathBuf,
    },
    /// A directory that is the root, writable.
    Directory(PathBuf),
}

/// The tree of a running step. Removed when dropped.
pub struct Workspace {
    store: Store,
    stack: Vec<DiffId>,
    root: WorkspaceRoot,
    state: State,
    directory: Unfinished,
}

/// What only committing needs.
enum State {
    Overlay { draft: Draft, base_root: Option<Meta> },
    Copy { tree: PathBuf, before: Snapshot },
}

/// What the tree can't say by itself.
#[derive(Clone, Debug, Default)]
pub struct CommitOptions {
    /// What root emulation kept of entries that can't say it themselves; `None` if root was not emulated.
    pub left: Option<Record>,
    /// What becomes of modification times.
    pub times: Times,
}

/// A copied tree whose workspace was committed.
pub(super) struct Spare {
    stack: Vec<DiffId>,
    directory: Unfinished,
}

impl Store {
    /// Makes a workspace on a stack, bottom first.
    pub fn workspace(&self, kind: WorkspaceKind, stack: &[DiffId]) -> Result<Workspace> {
        let view = View::new(self.stack(stack)?);
        match kind {
            WorkspaceKind::Overlay => self.overlay(stack, &view),
            WorkspaceKind::Copy => self.copy(stack, &view),
        }
    }

    fn overlay(&self, stack: &[DiffId], view: &View) -> Result<Workspace> {
        let directory = self.unfinished_directory("workspace")?;
        let draft = self.draft()?;
        let path = |name: &str| directory.path().join(name);
        let (upper, work, merged) = (draft.path().join("fs"), path("work"), path("merged"));
        for made in [&upper, &work, &merged, &path("scratch")] {
            std::fs::create_dir(made).doing("create directory", made)?;
        }
        let root = view.lookup(&ImagePath::root())?;
        if let Some(layer) = root.as_ref().and_then(|root| view.layers().get(root.layer)) {
            // The upper's root hides those below.
            copy_attributes(&layer.fs, &upper)?;
        }
        let lowers = lowers(view, directory.path())?;
        let state = State::Overlay { draft, base_root: root.map(|node| node.meta) };
        let root = WorkspaceRoot::Overlay { lowers, upper, work, merged };
        Ok(Workspace { store: self.clone(), stack: stack.to_vec(), root, state, directory })
    }

    fn copy(&self, stack: &[DiffId], view: &View) -> Result<Workspace> {
        let (directory, tree) = match self.take_spare(stack) {
            Some(directory) => {
                let tree = directory.path().join("tree");
                (directory, tree)
            }
            None => {
                let directory = self.unfinished_directory("workspace")?;
                let (tree, scratch) = (directory.path().join("tree"), directory.path().join("scratch"));
                for made in [&tree, &scratch] {
                    std::fs::create_dir(made).doing("create directory", made)?;
                }
                materialize(view, &tree)?;
                (directory, tree)
            }
        };
        let state = State::Copy { before: Snapshot::take(&tree)?, tree: tree.clone() };
        let root = WorkspaceRoot::Directory(tree.join("fs"));
        Ok(Workspace { store: self.clone(), stack: stack.to_vec(), root, state, directory })
    }

    fn take_spare(&self, stack: &[DiffId]) -> Option<Unfinished> {
        let mut spares = self.inner.spares.lock().unwrap_or_else(PoisonError::into_inner);
        let at = spares.iter().position(|spare| spare.stack == stack)?;
        Some(spares.swap_remove(at).directory)
    }
}

impl Workspace {
    /// What the sandbox makes the root of.
    pub fn root(&self) -> &WorkspaceRoot {
        &self.root
    }

    /// An existing directory for skeletons and run files; never part of the layer, gone with the workspace.
    pub fn scratch(&self) -> PathBuf {
        self.directory.path().join("scratch")
    }

    /// The layers below, bottom first.
    pub fn stack(&self) -> &[DiffId] {
        &self.stack
    }

    /// Makes a layer of what was changed; `None` if nothing was. Nothing may be running in it or mounted from it any more.
    pub fn commit(self, options: &CommitOptions) -> Result<Option<Layer>> {
        let Self { store, mut stack, state, directory, .. } = self;
        let mut options = SealOptions { left: options.left.clone(), times: options.times, base_root: None };
        match state {
            State::Overlay { draft, base_root } => {
                options.base_root = base_root;
                let sealed = seal(draft.path(), &options)?;
                if sealed.empty { Ok(None) } else { draft.commit_packed().map(Some) }
            }
            State::Copy { tree, before } => {
                // The whole tree is sealed, but only what was changed gets another time.
                let times = std::mem::take(&mut options.times);
                if options.left.is_none() {
                    options.left = Some(before.still_recorded(&tree)?);
                }
                seal(&tree, &options)?;
                let draft = store.draft()?;
                let layer = if before.diff(&tree, draft.path())?.empty {
                    None
                } else {
                    if times != Times::Kept {
                        seal(draft.path(), &SealOptions { times, ..SealOptions::default() })?;
                    }
                    Some(draft.commit_packed()?)
                };
                stack.extend(layer.iter().map(|layer| layer.diff_id));
                store.keep_spare(Spare { stack, directory });
                Ok(layer)
            }
        }
    }
}

impl Store {
    fn keep_spare(&self, spare: Spare) {
        let scratch = spare.directory.path().join("scratch");
        if super::remove::remove_tree(&scratch).and_then(|_| std::fs::create_dir(&scratch).doing("create directory", &scratch)).is_ok() {
            self.inner.spares.lock().unwrap_or_else(PoisonError::into_inner).push(spare);
        }
    }
}

/// The directories of which an overlay mount shows a stack as it is, top first; at least one. Makes what is missing for that in `beside`.
pub fn lowers(view: &View, beside: &Path) -> Result<Vec<PathBuf>> {
    let mended = mend(view, &beside.join("mended"))?;
    let mut lowers: Vec<PathBuf> = mended.into_iter().chain(view.layers().iter().rev().map(|layer| layer.fs.clone())).collect();
    if lowers.is_empty() {
        // An overlay needs a lower; the empty stack has an empty one.
        let empty = beside.join("empty");
        std::fs::create_dir(&empty).doing("create directory", &empty)?;
        lowers.push(empty);
    }
    Ok(lowers)
}

/// A directory to lie above all layers of a mount, holding directories only, where the mount would show wrong metadata.
///
/// Overlayfs shows a merged directory with the metadata of the uppermost layer that has it. If that layer's tar had no entry for it
/// (an implicit directory), the metadata must be that of a layer further down. `None` where all is right already, as usual.
fn mend(view: &View, layer: &Path) -> Result<Option<PathBuf>> {
    let implicit: BTreeSet<&ImagePath> = view.layers().iter().skip(1).flat_map(|layer| &layer.record.implicit).collect();
    let mut wrong: Vec<(ImagePath, Meta)> = Vec::new();
    for path in implicit {
        // The root is set in the upper directory.
        let Some(node) = view.lookup(path)?.filter(|node| node.meta.kind == Kind::Directory && !path.is_root()) else { continue };
        if shown(view.layers(), node.layer, path)?.is_some_and(|meta| !meta.same_but_for_times(&node.meta)) {
            wrong.push((node.path, node.meta));
        }
    }
    if wrong.is_empty() {
        return Ok(None);
    }
    std::fs::create_dir(layer).doing("create directory", layer)?;
    let mut writer = LayerWriter::create(layer, view.clone())?;
    for (path, meta) in &wrong {
        writer.put(path, meta, Content::None)?;
    }
    writer.finish()?;
    Ok(Some(layer.join("fs")))
}

/// The metadata a mount shows of a directory whose right metadata is in layer `right`; `None` if that very one's.
fn shown(layers: &[LayerDir], right: usize, path: &ImagePath) -> Result<Option<Meta>> {
    for layer in layers[right + 1..].iter().rev() {
        if let Some(node) = View::new(vec![layer.clone()]).lookup(path)? {
            return Ok(Some(node.meta));
        }
    }
    Ok(None)
}

/// Gives one directory another's native mode, user xattrs and times.
fn copy_attributes(from: &Path, to: &Path) -> Result<()> {
    let metadata = std::fs::metadata(from).doing("stat", from)?;
    for name in xattr::list(from).into_iter().flatten() {
        let bytes = name.as_encoded_bytes();
        if bytes.starts_with(b"user.")
            && !bytes.starts_with(b"user.overlay.")
            && let Some(value) = xattr::get(from, &name).doing("read attributes of", from)?
        {
            xattr::set(to, &name, &value).doing("set attributes of", to)?;
        }
    }
    std::fs::set_permissions(to, metadata.permissions()).doing("set permissions of", to)?;
    let modified = metadata.modified().doing("stat", from)?;
    let directory = std::fs::File::open(to).doing("open", to)?;
    directory.set_modified(modified).doing("set times of", to)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::testing::{self, layer, names};
    use super::*;

    const KINDS: [WorkspaceKind; 2] = [WorkspaceKind::Overlay, WorkspaceKind::Copy];

    /// Where a step would write; for an overlay that is where a mount would put it.
    fn writable(workspace: &Workspace) -> PathBuf {
        match workspace.root() {
            WorkspaceRoot::Overlay { upper, .. } => upper.clone(),
            WorkspaceRoot::Directory(root) => root.clone(),
        }
    }

    fn whiteout(path: &Path) {
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::CharacterDevice, 0o600.into(), 0).unwrap();
    }

    fn listing(store: &Store, stack: &[DiffId]) -> Vec<String> {
        let view = View::new(store.stack(stack).unwrap());
        view.read_dir(&ImagePath::root()).unwrap().iter().map(|node| node.path.to_string()).collect()
    }

    #[test]
    fn overlay_directories_are_top_first_and_go_with_it() {
        let (_dir, store) = testing::store();
        let (a, b) = (layer(&store, "a"), layer(&store, "b"));
        fs::set_permissions(&b.layer_dir.fs, fs::Permissions::from_mode(0o711)).unwrap();
        let workspace = store.workspace(WorkspaceKind::Overlay, &[a.diff_id, b.diff_id]).unwrap();
        let WorkspaceRoot::Overlay { lowers, upper, work, merged } = workspace.root().clone() else { panic!() };
        assert_eq!(lowers, [b.layer_dir.fs, a.layer_dir.fs]);
        assert_eq!(fs::metadata(&upper).unwrap().permissions().mode() & 0o777, 0o711, "the root below shows through");
        assert!(work.is_dir() && merged.is_dir() && workspace.scratch().is_dir());
        // As overlayfs and a step leave them.
        for name in [work.join("work"), upper.join("locked")] {
            fs::create_dir_all(name.join("inner")).unwrap();
            fs::set_permissions(&name, fs::Permissions::from_mode(0o000)).unwrap();
        }
        drop(workspace);
        assert!(names(&store, "tmp").is_empty());
    }

    #[test]
    fn a_change_becomes_a_layer() {
        for kind in KINDS {
            let (_dir, store) = testing::store();
            let (a, b) = (layer(&store, "a"), layer(&store, "b"));
            let stack = [a.diff_id, b.diff_id];
            let workspace = store.workspace(kind, &stack).unwrap();
            fs::write(writable(&workspace).join("new"), "new").unwrap();
            fs::write(workspace.scratch().join("never"), "").unwrap();
            match kind {
                WorkspaceKind::Overlay => whiteout(&writable(&workspace).join("a")),
                WorkspaceKind::Copy => fs::remove_file(writable(&workspace).join("a")).unwrap(),
            }
            let new = workspace.commit(&CommitOptions::default()).unwrap().expect("a layer");
            assert_eq!(listing(&store, &[stack[0], stack[1], new.diff_id]), ["/b", "/new"], "{kind:?}");
            assert_eq!(listing(&store, &stack), ["/a", "/b"], "layers never change");
        }
    }

    #[test]
    fn no_change_is_no_layer() {
        for kind in KINDS {
            let (_dir, store) = testing::store();
            let a = layer(&store, "a");
            let workspace = store.workspace(kind, &[a.diff_id]).unwrap();
            assert!(workspace.commit(&CommitOptions::default()).unwrap().is_none(), "{kind:?}");
            assert_eq!(names(&store, "layers").len(), 1);
        }
    }

    #[test]
    fn a_copy_serves_the_next_step() {
        let (_dir, store) = testing::store();
        let mut stack = vec![layer(&store, "a").diff_id];
        for step in ["b", "c", "d"] {
            let workspace = store.workspace(WorkspaceKind::Copy, &stack).unwrap();
            fs::write(writable(&workspace).join(step), step).unwrap();
            stack.push(workspace.commit(&CommitOptions::default()).unwrap().unwrap().diff_id);
            let spares = store.inner.spares.lock().unwrap();
            assert_eq!(spares.len(), 1);
            assert_eq!(spares[0].stack, stack);
        }
        assert_eq!(listing(&store, &stack), ["/a", "/b", "/c", "/d"]);
        assert_eq!(names(&store, "layers").len(), 4);
    }

    #[test]
    fn implicit_directories_show_the_metadata_below() {
        let (_dir, store) = testing::store();
        let directory = |mode: u32, implicit: bool| {
            let draft = store.draft().unwrap();
            let path = draft.path().join("fs/var/tmp");
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join(format!("{mode:o}")), "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let implicit = implicit.then(|| ImagePath::clean("/var/tmp")).into_iter().collect();
            Record { implicit, ..Record::default() }.save(draft.path()).unwrap();
            draft.commit_packed().unwrap().diff_id
        };
        let (right, implied, same) = (directory(0o1777, false), directory(0o755, true), directory(0o1777, true));
        for (stack, mended) in [(vec![right, implied], true), (vec![right, same], false), (vec![implied], false), (vec![right], false)] {
            let workspace = store.workspace(WorkspaceKind::Overlay, &stack).unwrap();
            let WorkspaceRoot::Overlay { lowers, .. } = workspace.root() else { panic!() };
            assert_eq!(lowers.len(), stack.len() + usize::from(mended), "{stack:?}");
            let mode = fs::metadata(lowers[0].join("var/tmp")).unwrap().permissions().mode() & 0o7777;
            assert_eq!(mode, if stack == [implied] { 0o755 } else { 0o1777 });
        }
    }
}
