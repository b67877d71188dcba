//! `type=bind`: a file or directory of the build context, a stage or an image, without copying it where overlays can be mounted.
//!
//! What the ignore file excludes is hidden by whiteouts in a layer above the context. Writes, where allowed, go to a directory that the step's end
//! removes, so they reach neither the context nor anybody's layers.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::dockerfile::ast;
use crate::error::{Error, IoContext, Result, quote};
use crate::oci::{Digest, ImagePath};
use crate::rootfs::meta::{Kind, Meta, Mtime, Times};
use crate::rootfs::record::Record;
use crate::rootfs::view::View;
use crate::rootfs::writer::{Content, LayerWriter};
use crate::sandbox::{Access, MountKind};
use crate::store::{WorkspaceKind, lowers};

use super::super::cache::Inputs;
use super::super::copy::{Destination, Plan, Rules};
use super::super::engine::Engine;
use super::super::key::Key;
use super::super::origin::{Origin, OriginKind};
use super::super::plan::Stage;
use super::super::selection::Selection;

/// Something to be mounted, found.
pub struct Tree<'a> {
    origin: Origin<'a>,
    /// The one item that was selected.
    selection: Selection,
    /// As the Dockerfile says it.
    source: String,
    content: Digest,
}

impl<'a> Tree<'a> {
    /// Finds what a mount's `from` and `source` name, and adds its content to the key.
    pub fn find(engine: &'a Engine<'_>, stage: &Stage<'_>, mount: &ast::Mount, key: &mut Key) -> Result<Self> {
        let (tree, content) = Self::read(engine, stage, mount)?;
        key.field(content.bytes());
        Ok(tree)
    }

    /// The same, with the content's digest.
    pub fn read(engine: &'a Engine<'_>, stage: &Stage<'_>, mount: &ast::Mount) -> Result<(Self, Digest)> {
        let origin = engine.origin(stage, mount.from.as_deref().filter(|from| !from.is_empty()))?;
        let source = mount.source.clone().unwrap_or_default();
        let mut selection = Selection { items: vec![origin.source().select_one(&source)?] };
        let content = engine.content(&origin, &mut selection, &["--mount".into(), source.clone()])?;
        Ok((Self { origin, selection, source, content }, content))
    }

    /// Whether a context still holds what was found. Images and stages can't change.
    pub fn inputs(&self, engine: &Engine<'_>) -> Inputs {
        if self.origin.context().is_none() {
            return Inputs::AsKeyed;
        }
        let again = self.origin.source().select_one(&self.source).and_then(|item| {
            let mut selection = Selection { items: vec![item] };
            engine.content(&self.origin, &mut selection, &["--mount".into(), self.source.clone()])
        });
        if again.is_ok_and(|digest| digest == self.content) { Inputs::AsKeyed } else { Inputs::Changed }
    }

    /// What to mount, and what is to be known of what can't say so itself, by paths below the mount. `points` are where other mounts go, by such paths:
    /// they can't be made in what is read-only.
    pub fn provide(&self, engine: &Engine<'_>, access: Access, points: &[MountPoint], scratch: &Path) -> Result<(MountKind, Record)> {
        let hidden = self.hidden()?;
        let points = self.missing(points, access)?;
        let overlay = engine.request.workspace == WorkspaceKind::Overlay;
        let kind = match &self.origin.kind {
            // Nothing is hidden and nothing is written: the directory itself will do.
            OriginKind::Context(_) if hidden.is_empty() && points.is_empty() && access == Access::ReadOnly => {
                self.stack(context_directory(&self.origin.view), None)
            }
            _ if !overlay && (access == Access::ReadWrite || !hidden.is_empty() || !points.is_empty()) => self.copied(&points, scratch)?,
            OriginKind::Layers(stack) if !overlay => MountKind::Bind { source: engine.store.tree(stack)?.join(self.path().as_relative()) },
            _ => {
                make(scratch)?;
                let mut below = match &self.origin.kind {
                    OriginKind::Context(_) => context_directory(&self.origin.view),
                    OriginKind::Layers(_) => lowers(&self.origin.view, scratch)?,
                };
                below.splice(..0, self.mask(&hidden, &points, scratch)?);
                let changes = (access == Access::ReadWrite).then(|| scratch.join("changes"));
                changes.as_deref().map_or(Ok(()), make)?;
                self.stack(below, changes)
            }
        };
        Ok((kind, self.origin.view.recorded(self.path())?))
    }

    /// Copies it to a new layer on nothing; a file under its own name.
    pub fn copy_to(&self, layer: &Path) -> Result<()> {
        self.copy_with(&[], layer)
    }

    fn copy_with(&self, points: &[MountPoint], layer: &Path) -> Result<()> {
        let mut writer = LayerWriter::create(layer, View::new(Vec::new()))?;
        let node = &self.selection.items[0].own.node;
        if node.meta.kind == Kind::Directory {
            writer.put(&ImagePath::root(), &node.meta, Content::None)?;
        }
        let rules = Rules { owner: None, chmod: None, times: Times::Kept, now: Mtime::default() };
        let below = writer.view().clone();
        let mut plan = Plan::new(&below, &self.origin.view, &rules);
        self.selection.items.iter().try_for_each(|item| plan.item(item, &Destination::new("/", "/")))?;
        plan.write(&mut writer)?;
        for point in points {
            point.make(&mut writer, &point.path.strip_prefix(self.path()).unwrap_or_default())?;
        }
        writer.finish().map(drop)
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.selection.items[0].own.node.meta.kind == Kind::Directory
    }

    /// Nothing if it is a directory, else an error that says who needs one.
    pub fn check_directory(&self, who: &str) -> Result<()> {
        if self.is_directory() {
            return Ok(());
        }
        Err(Error::input(format!("{who} needs a directory")).cause(format!("{} is a file", quote(self.path().to_string()))))
    }

    fn path(&self) -> &ImagePath {
        &self.selection.items[0].own.node.path
    }

    fn stack(&self, lowers: Vec<PathBuf>, changes: Option<PathBuf>) -> MountKind {
        MountKind::Stack { lowers, path: self.path().clone(), changes }
    }

    /// What is excluded next to what is not: the roots of all that must not be seen.
    fn hidden(&self) -> Result<Vec<ImagePath>> {
        let mut hidden = Vec::new();
        if self.origin.source().ignore.is_none() {
            return Ok(hidden);
        }
        for item in &self.selection.items {
            let seen: HashSet<&ImagePath> = item.entries.iter().map(|entry| &entry.node.path).collect();
            let directories = std::iter::once(&item.own).chain(&item.entries).filter(|entry| entry.node.meta.kind == Kind::Directory);
            for directory in directories.map(|entry| &entry.node.path) {
                hidden.extend(self.origin.view.read_dir(directory)?.into_iter().map(|node| node.path).filter(|path| !seen.contains(path)));
            }
        }
        Ok(hidden)
    }

    /// Mount points that must be made before it is mounted, by paths in the tree.
    fn missing(&self, points: &[MountPoint], access: Access) -> Result<Vec<MountPoint>> {
        let mut missing = Vec::new();
        for point in points.iter().filter(|_| access == Access::ReadOnly) {
            let path = self.path().resolve(point.path.as_bytes());
            let seen = self.selection.items[0].entries.iter().any(|entry| entry.node.path == path);
            if !seen {
                missing.push(MountPoint { path, kind: point.kind });
            }
        }
        Ok(missing)
    }

    /// A layer that hides these paths and has these mount points; `None` if there are none.
    fn mask(&self, hidden: &[ImagePath], points: &[MountPoint], scratch: &Path) -> Result<Option<PathBuf>> {
        if hidden.is_empty() && points.is_empty() {
            return Ok(None);
        }
        let layer = scratch.join("mask");
        make(&layer)?;
        let mut writer = LayerWriter::create(&layer, self.origin.view.clone())?;
        hidden.iter().try_for_each(|path| writer.remove(path))?;
        points.iter().try_for_each(|point| point.make(&mut writer, &point.path))?;
        writer.finish()?;
        Ok(Some(layer.join("fs")))
    }

    /// Where no overlay can be mounted.
    fn copied(&self, points: &[MountPoint], scratch: &Path) -> Result<MountKind> {
        make(scratch)?;
        self.copy_with(points, scratch)?;
        let item = &self.selection.items[0];
        let root = scratch.join("fs");
        let file = || root.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&item.name));
        Ok(MountKind::Bind { source: if item.own.node.meta.kind == Kind::Directory { root.clone() } else { file() } })
    }
}

/// Where another mount goes.
pub struct MountPoint {
    /// Its place.
    pub path: ImagePath,
    /// A file or a directory.
    pub kind: Kind,
}

impl MountPoint {
    fn make(&self, writer: &mut LayerWriter, path: &ImagePath) -> Result<()> {
        let directories = if self.kind == Kind::Directory { path.clone() } else { path.parent().unwrap_or_default() };
        writer.make_dirs(&directories, 0o755, 0, 0, None)?;
        if self.kind == Kind::Directory {
            return Ok(());
        }
        writer.put(path, &Meta::new(Kind::File, 0o644), Content::None)
    }
}

fn context_directory(view: &View) -> Vec<PathBuf> {
    view.layers().iter().rev().map(|layer| layer.fs.clone()).collect()
}

fn make(directory: &Path) -> Result<()> {
    std::fs::create_dir(directory).doing("create directory", directory)
}
