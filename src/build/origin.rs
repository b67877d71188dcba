//! Where a COPY or a mount reads from: a build context, or the layers of a stage or image.

use crate::error::{Error, Result, quote};
use crate::oci::{ChainId, DiffId, Digest, Hasher};
use crate::rootfs::hash::in_parallel;
use crate::rootfs::view::{Node, View};
use crate::store::StepRecord;

use super::context::Context;
use super::engine::Engine;
use super::key::Key;
use super::plan::{Stage, find_stage};
use super::selection::Selection;
use super::sources::Source;

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

    /// The digest of what was selected; `what` says what that was.
    pub(super) fn content(&self, origin: &Origin<'_>, selection: &mut Selection, what: &[String]) -> Result<Digest> {
        if let Some(content) = self.known_content(origin, what)? {
            return Ok(content);
        }
        if let OriginKind::Context(context) = &origin.kind {
            context.recall(selection);
        }
        self.hash(origin, selection)?;
        let content = selection.digest(&origin.view)?;
        self.remember_content(origin, what, content)?;
        Ok(content)
    }

    /// Fills in the digests of files that are missing.
    pub(super) fn hash(&self, origin: &Origin<'_>, selection: &mut Selection) -> Result<()> {
        if let OriginKind::Context(context) = &origin.kind {
            return context.hash(selection);
        }
        let files = selection.unknown();
        let mut digests = in_parallel(files.len(), GROUP, |at| digest_file(&origin.view, &files[at].node))?.into_iter();
        selection.learn(|_| digests.next());
        Ok(())
    }

    /// What is remembered by layers and by what is selected from them: neither can change.
    pub(super) fn known_content(&self, origin: &Origin<'_>, what: &[String]) -> Result<Option<Digest>> {
        let OriginKind::Layers(stack) = &origin.kind else { return Ok(None) };
        let record = self.store.step_get(&content_key(stack, what))?;
        Ok(record.and_then(|record| record.value.as_str().and_then(|text| text.parse().ok())))
    }

    pub(super) fn remember_content(&self, origin: &Origin<'_>, what: &[String], content: Digest) -> Result<()> {
        let OriginKind::Layers(stack) = &origin.kind else { return Ok(()) };
        let record = StepRecord { layers: stack.clone(), blobs: Vec::new(), value: content.to_string().into() };
        self.store.step_put(&content_key(stack, what), &record)
    }
}

/// Files are handed to threads in groups.
const GROUP: usize = 8;

fn content_key(stack: &[DiffId], what: &[String]) -> Digest {
    let chain = ChainId::of(stack).map_or_else(|| Digest::of("scratch"), |chain| chain.0);
    let mut key = Key::new(&chain, "content 2");
    key.list(what);
    key.finish()
}

impl<'a> Origin<'a> {
    /// Nothing, for an instruction that copies nothing from anywhere.
    pub fn nowhere() -> Self {
        Self { view: View::new(Vec::new()), kind: OriginKind::Layers(Vec::new()), name: String::new() }
    }

    /// The files of a context.
    pub fn of_context(context: &'a Context) -> Self {
        Self { view: context.source().view.clone(), kind: OriginKind::Context(context), name: String::new() }
    }

    /// The context, if it is one.
    pub fn context(&self) -> Option<&'a Context> {
        match &self.kind {
            OriginKind::Context(context) => Some(context),
            OriginKind::Layers(_) => None,
        }
    }

    /// The tree with its ignore file and its name.
    pub fn source(&self) -> Source<'_> {
        match &self.kind {
            OriginKind::Context(context) => context.source(),
            OriginKind::Layers(_) => Source { view: &self.view, host: None, ignore: None, name: self.name.clone() },
        }
    }
}

fn digest_file(view: &View, node: &Node) -> Result<Digest> {
    let mut hasher = Hasher::new();
    let path = node.path.as_relative();
    std::io::copy(&mut view.open(node)?, &mut hasher).map_err(|e| Error::io("read", path, e))?;
    Ok(hasher.finish())
}
