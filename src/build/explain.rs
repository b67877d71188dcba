//! Why a step was executed: what it depends on, by name, compared with what it depended on when it was executed last.
//!
//! Kept beside the step cache for each step that is executed: names in clear, values as digests. Cache keys are not made of these: an
//! explanation may miss something, a key may not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dockerfile::ast::Instruction;
use crate::error::{Result, hide_credentials, quote};
use crate::event::{Event, Outcome};
use crate::oci::{DiffId, Digest};
use crate::store::StepRecord;

use super::Cache;
use super::engine::Engine;
use super::key::Key;
use super::plan::{Stage, find_stage};
use super::resolve::{Action, Copy, Resolver};
use super::sources::Wanted;
use super::state::State;

/// Whether executed steps are explained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Explain {
    /// No.
    #[default]
    No,
    /// In a line each.
    Yes,
}

/// More changes than this are counted.
const MOST_CHANGES: usize = 4;
/// More files than this are told apart by their topmost directory only.
const MOST_FILES: usize = 2000;

/// What a step depends on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Inputs {
    /// The instruction.
    text: String,
    /// Digests of values, by what people call them.
    named: BTreeMap<String, Digest>,
    /// The layers it stands on, bottom first.
    layers: Vec<DiffId>,
    /// How many of them are the base image's.
    base: usize,
}

/// A step before it is done.
pub(super) struct Before {
    inputs: Inputs,
    copy: Option<Copy>,
}

impl Engine<'_> {
    /// Notes what an instruction depends on; `None` if it is not executed at all.
    pub(super) fn before(&self, stage: &Stage<'_>, state: &State, instruction: &Instruction) -> Option<Before> {
        let resolver = Resolver { file: self.file, state, arguments: &self.request.arguments, globals: &self.plan.globals };
        let action = resolver.resolve(instruction).ok()?;
        let text = hide_credentials(&instruction.original);
        let mut inputs = Inputs { text, layers: state.stack(), base: state.inherited, named: BTreeMap::new() };
        let mentioned = |name: &str| ["$", "${"].iter().any(|sign| instruction.original.contains(&format!("{sign}{name}")));
        let all = matches!(action, Action::Run(_));
        for (name, value) in state.scope.variables().filter(|(name, _)| all || mentioned(name)) {
            inputs.name(format!("variable {}", quote(name)), value);
        }
        inputs.name("the user".into(), &state.config.config.user);
        let mut sources: Vec<&str> = Vec::new();
        match &action {
            Action::Config(_) => return None,
            Action::Workdir(_) => {}
            Action::Run(command) => {
                inputs.name("the working directory".into(), &state.config.config.working_dir);
                inputs.name("the platform".into(), state.config.platform().to_string());
                inputs.name("the way RUN is root".into(), format!("{:?}", self.request.emulation));
                inputs.name("the here-document".into(), command.script.as_ref().map_or("", |script| &script.text));
                sources.extend(command.mounts.iter().filter_map(|mount| mount.from.as_deref()));
            }
            Action::Copy(copy) => {
                for (name, text) in &copy.inline {
                    inputs.name(format!("here-document {}", quote(name)), text);
                }
                sources.extend(copy.from.as_deref());
            }
        }
        for from in sources {
            if let Some(index) = find_stage(&self.plan.stages, from).filter(|index| *index < stage.index) {
                inputs.name(format!("stage {}", quote(from)), self.state(index).ok()?.chain().bytes());
            }
        }
        let copy = if let Action::Copy(copy) = action { Some(copy) } else { None };
        Some(Before { inputs, copy })
    }

    /// Says why a step was executed, or would be, and keeps what it depended on.
    pub(super) fn after(&self, before: Option<Before>, stage: &Stage<'_>, number: usize, outcome: Outcome) -> Result<()> {
        let Some(Before { mut inputs, copy }) = before else { return Ok(()) };
        if !matches!(outcome, Outcome::Done | Outcome::Failed | Outcome::Planned) {
            return Ok(());
        }
        if let Some(copy) = copy.filter(|copy| copy.from.is_none() && !copy.sources.is_empty()) {
            inputs.named.extend(by_directory(self.context_files(&copy).unwrap_or_default()));
        }
        let mut place = Key::new(&Digest::of("explain"), "place");
        place.field(&self.request.name).field(self.name(stage)).number(number as u64);
        let mut text = Key::new(&Digest::of("explain"), "text");
        text.field(&inputs.text);
        let (place, text) = (place.finish(), text.finish());
        if self.request.explain == Explain::Yes {
            let why = match self.cache {
                Cache::Ignore => "old results are not to be used".to_owned(),
                Cache::Use => self.why(&inputs, &place, &text)?,
            };
            self.sink.event(Event::Note(format!("{} {number}: {why}", self.name(stage)).trim_start()));
        }
        if outcome == Outcome::Done {
            let value = serde_json::to_value(&inputs).expect("plain data");
            for key in [place, text] {
                self.store.step_put(&key, &StepRecord { layers: Vec::new(), blobs: Vec::new(), value: value.clone() })?;
            }
        }
        Ok(())
    }

    /// The instruction at the same place counts, unless it is another one and this one was met elsewhere.
    fn why(&self, inputs: &Inputs, place: &Digest, text: &Digest) -> Result<String> {
        let there = self.recalled(place)?;
        let earlier = match there {
            Some(there) if there.text == inputs.text => Some(there),
            there => self.recalled(text)?.or(there),
        };
        Ok(earlier.map_or_else(|| "never built here".into(), |earlier| changes(&earlier, inputs)))
    }

    fn recalled(&self, key: &Digest) -> Result<Option<Inputs>> {
        Ok(self.store.step_get(key)?.and_then(|record| serde_json::from_value(record.value).ok()))
    }

    /// The files of the context that a COPY takes.
    fn context_files(&self, copy: &Copy) -> Result<Vec<(String, Digest)>> {
        let Some(context) = self.context else { return Ok(Vec::new()) };
        let wanted = Wanted { patterns: &copy.sources, excludes: &copy.excludes, shape: copy.shape };
        let mut selection = context.source().select(&wanted)?;
        context.recall(&mut selection);
        context.hash(&mut selection)?;
        let mut files = Vec::new();
        for entry in selection.all() {
            let meta = &entry.node.meta;
            let mut digest = Key::new(&Digest::of(""), "file");
            digest.field(format!("{:?} {:o}", meta.kind, meta.mode));
            if let Some(content) = entry.digest {
                digest.field(content.bytes());
            }
            files.push((entry.node.path.as_relative().display().to_string(), digest.finish()));
        }
        Ok(files)
    }
}

impl Inputs {
    fn name(&mut self, name: String, value: impl AsRef<[u8]>) {
        self.named.insert(name, Digest::of(value));
    }
}

/// Files by name; very many by their topmost directory.
fn by_directory(files: Vec<(String, Digest)>) -> BTreeMap<String, Digest> {
    if files.len() <= MOST_FILES {
        return files.into_iter().map(|(path, digest)| (format!("file {}", quote(path)), digest)).collect();
    }
    let mut tops: BTreeMap<String, Key> = BTreeMap::new();
    for (path, digest) in files {
        let top = path.split('/').next().unwrap_or_default().to_owned();
        let key = tops.entry(top).or_insert_with(|| Key::new(&Digest::of(""), "files"));
        key.field(&path).field(digest.bytes());
    }
    tops.into_iter().map(|(top, key)| (format!("something below {}", quote(top)), key.finish())).collect()
}

/// What differs, the most telling first.
fn changes(old: &Inputs, new: &Inputs) -> String {
    let mut changes = Vec::new();
    if old.text != new.text {
        changes.push("the instruction changed".to_owned());
    }
    if let Some(at) = (0..new.layers.len().max(old.layers.len())).find(|at| new.layers.get(*at) != old.layers.get(*at)) {
        changes.push(match (at < new.base.max(old.base), new.layers.get(at)) {
            (true, Some(layer)) => format!("the base changed: layer {}", layer.0.short()),
            (true, None) => "the base changed: it has fewer layers".to_owned(),
            (false, _) => "a step before it gave something else".to_owned(),
        });
    }
    for (name, digest) in &new.named {
        match old.named.get(name) {
            Some(before) if before == digest => {}
            Some(_) => changes.push(format!("{name} changed")),
            None => changes.push(format!("{name} is new")),
        }
    }
    changes.extend(old.named.keys().filter(|name| !new.named.contains_key(*name)).map(|name| format!("{name} is gone")));
    let more = changes.len().saturating_sub(MOST_CHANGES);
    changes.truncate(MOST_CHANGES);
    match (changes.is_empty(), more) {
        (true, _) => "its old result is no longer here, or an option or a mount changed".into(),
        (false, 0) => changes.join(", "),
        (false, more) => format!("{}, and {more} more", changes.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(text: &str, named: &[(&str, &str)], layers: &[&str], base: usize) -> Inputs {
        Inputs {
            text: text.into(),
            named: named.iter().map(|(name, value)| ((*name).to_owned(), Digest::of(value))).collect(),
            layers: layers.iter().map(|layer| DiffId(Digest::of(layer))).collect(),
            base,
        }
    }

    #[test]
    fn names_what_changed() {
        let old = inputs("RUN a", &[("variable `V`", "1"), ("variable `W`", "1")], &["b", "s"], 1);
        for (new, expected) in [
            (old.clone(), "its old result is no longer here, or an option or a mount changed"),
            (inputs("RUN b", &[("variable `V`", "1"), ("variable `W`", "1")], &["b", "s"], 1), "the instruction changed"),
            (
                inputs("RUN a", &[("variable `V`", "2"), ("variable `X`", "1")], &["b", "s"], 1),
                "variable `V` changed, variable `X` is new, variable `W` is gone",
            ),
            (inputs("RUN a", &[("variable `V`", "1"), ("variable `W`", "1")], &["b", "t"], 1), "a step before it gave something else"),
        ] {
            assert_eq!(changes(&old, &new), expected);
        }
        let other_base = inputs("RUN a", &[("variable `V`", "1"), ("variable `W`", "1")], &["c", "s"], 1);
        assert!(changes(&old, &other_base).starts_with("the base changed: layer "));
    }

    #[test]
    fn many_files_are_told_apart_by_directory() {
        let files = |count: usize| (0..count).map(|n| (format!("d{}/f{n}", n % 2), Digest::of("")));
        assert_eq!(by_directory(files(3).collect()).len(), 3);
        assert_eq!(by_directory(files(MOST_FILES + 1).collect()).len(), 2);
    }
}
