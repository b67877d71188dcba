//! Where a COPY or a mount reads from: a build context, or the layers of a stage or image.

use crate::error::{Error, Result, quote};
use crate::oci::{ChainId, DiffId, Digest, Hasher};
use crate::rootfs::view::{Node, View};
use crate::store::StepRecord;

use super::context::Context;
use super::engine::Engine;
use super::key::Key;
use super::plan::{Stage, find_stage};
use super::sources::{Selection, Source};

/// A tree to read from.
pub struct Origin<'a> {
    /// The tree.
    pub view: View,
    /// What it is made of.
    pub kind: OriginKind<'a>,
    name: String,
}

/// What a tree is made of.
pub enum OriginKind<'a> {
    /// A context, as far as its ignore file lets it be seen.
    Context(&'a Context),
    /// Layers, bottom first.
    Layers(Vec<DiffId>),
}

impl<'a> Engine<'a> {
    /// What `--from` or `from=` names, seen from a stage; `None` is the build context.
    pub(super) fn origin(&self, stage: &Stage<'_>, from: Option<&str>) -> Result<Origin<'a>> {
        let Some(from) = from else {
            let no_context = || Error::input("there is no build context").hint("give a directory: `rootling build -f - DIR`");
            let context = self.context.ok_or_else(no_context)?;
            return Ok(Origin { view: context.source().view.clone(), kind: OriginKind::Context(context), name: String::new() });
        };
        if let Some(context) = self.named_tree(from)? {
            return Ok(Origin { view: context.source().view.clone(), kind: OriginKind::Context(context), name: String::new() });
        }
        // A context that is an image takes the place of a stage too.
        let stage_index = find_stage(&self.plan.stages, from).filter(|_| self.contexts.location(from).is_none());
        let stack = match stage_index {
            Some(index) if index < stage.index => self.state(index)?.stack(),
            // A trigger of a base image can't know what there is.
            Some(_) => return Err(Error::input(format!("stage {} is not built before this one", quote(from)))),
            None if from == "scratch" => Vec::new(),
            None => self.image(from, &stage.platform)?.config.rootfs.diff_ids,
        };
        Ok(Origin { view: View::new(self.store.stack(&stack)?), kind: OriginKind::Layers(stack), name: quote(from) })
    }

    /// The digest of what was selected by these patterns.
    pub(super) fn content(&self, origin: &Origin<'_>, selection: &Selection, patterns: &[String]) -> Result<Digest> {
        match &origin.kind {
            OriginKind::Context(context) => selection.digest(&origin.view, &mut |node| context.content(node)),
            OriginKind::Layers(stack) => self.content_of_layers(stack, &origin.view, selection, patterns),
        }
    }

    /// Remembered by the layers and the patterns: they can't change.
    fn content_of_layers(&self, stack: &[DiffId], view: &View, selection: &Selection, patterns: &[String]) -> Result<Digest> {
        let chain = ChainId::of(stack).map_or_else(|| Digest::of("scratch"), |chain| chain.0);
        let mut key = Key::new(&chain, "content");
        key.list(patterns);
        let key = key.finish();
        if let Some(record) = self.store.step_get(&key)?
            && let Some(digest) = record.value.as_str().and_then(|text| text.parse().ok())
        {
            return Ok(digest);
        }
        let digest = selection.digest(view, &mut |node| digest_file(view, node))?;
        self.store.step_put(&key, &StepRecord { layers: stack.to_vec(), blobs: Vec::new(), value: digest.to_string().into() })?;
        Ok(digest)
    }
}

impl Origin<'_> {
    /// The tree with its ignore file and its name.
    pub fn source(&self) -> Source<'_> {
        match &self.kind {
            OriginKind::Context(context) => context.source(),
            OriginKind::Layers(_) => Source { view: &self.view, ignore: None, name: self.name.clone() },
        }
    }
}

fn digest_file(view: &View, node: &Node) -> Result<Digest> {
    let mut hasher = Hasher::new();
    let path = node.path.as_relative();
    std::io::copy(&mut view.open(node)?, &mut hasher).map_err(|e| Error::io("read", path, e))?;
    Ok(hasher.finish())
}
