//! Named contexts: what `--build-context` puts in the place of stages and images of a name, opened when a step needs them, each once.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::dockerfile::ignore::Ignore;
use crate::error::{Error, Result, quote};
use crate::event::Outcome;
use crate::oci::Platform;
use crate::rootfs::meta::Mtime;
use crate::rootfs::view::View;
use crate::rootfs::writer::LayerWriter;

use super::context::{Context, ignore_in};
use super::copy::{Destination, Plan, Rules};
use super::engine::Engine;
use super::key::Key;
use super::location::{Fetcher, Location, Opened, context_name};
use super::origin::Origin;
use super::sources::{Shape, Wanted};
use super::state::{Certainty, State};

/// The named contexts of one build.
#[derive(Default)]
pub struct Contexts {
    cells: BTreeMap<String, Cell>,
}

struct Cell {
    location: Location,
    opened: OnceLock<Context>,
    /// Held while it is being opened.
    opening: Mutex<()>,
}

impl Contexts {
    /// Nothing is opened yet.
    pub fn new(locations: &BTreeMap<String, Location>) -> Self {
        let cell = |location: &Location| Cell { location: location.clone(), opened: OnceLock::new(), opening: Mutex::default() };
        Self { cells: locations.iter().map(|(name, location)| (name.clone(), cell(location))).collect() }
    }

    /// Where the context of a name is.
    pub fn location(&self, name: &str) -> Option<&Location> {
        self.cells.get(&context_name(name)).map(|cell| &cell.location)
    }

    /// The files of the context of a name; `None` if there is none or it is an image.
    pub fn tree(&self, fetcher: &Fetcher<'_>, name: &str) -> Result<Option<&Context>> {
        let Some(cell) = self.cells.get(&context_name(name)) else { return Ok(None) };
        if matches!(cell.location, Location::Image(_) | Location::Placed(_)) {
            return Ok(None);
        }
        let opening = cell.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(context) = cell.opened.get() {
            return Ok(Some(context));
        }
        let what = format!("context {}", quote(name));
        let tree = match cell.location.open(fetcher).map_err(|e| e.context(format!("can't open {what}")))? {
            Opened::Tree(tree) => tree,
            Opened::Text(_) => return Err(Error::input(format!("{what} is a file, not a tarball")).hint("`ADD URL` adds a single file")),
        };
        let ignore = ignore_in(fetcher.store, &tree, None)?;
        let context = Context::open(fetcher.store, &tree, ignore.as_ref(), &what)?;
        let context = cell.opened.get_or_init(|| context);
        drop(opening);
        Ok(Some(context))
    }

    /// Keeps what was learnt about directories.
    pub fn save(&self) -> Result<()> {
        self.cells.values().filter_map(|cell| cell.opened.get()).try_for_each(Context::save)
    }
}

impl<'a> Engine<'a> {
    /// The files of a named context; `None` if the name is an image's or a stage's.
    pub(super) fn named_tree(&self, name: &str) -> Result<Option<&'a Context>> {
        let secrets = &self.request.surroundings.secrets;
        let fetcher = Fetcher { store: self.store, client: self.client, sink: self.sink, secrets };
        self.contexts.tree(&fetcher, name)
    }

    /// FROM a context of files: they are all there is, in one layer, owned by root.
    pub(super) fn state_of_tree(&self, context: &Context, platform: &Platform) -> Result<State> {
        let source = context.source();
        let wanted = Wanted { patterns: &["/".to_owned()], excludes: &Ignore::default(), shape: Shape::Flat };
        let mut selection = source.select(&wanted)?;
        let content = self.content(&Origin::of_context(context), &mut selection, &[])?;
        let made = self.cached(None, Key::new(&content, "FROM context").finish(), |engine| {
            let draft = engine.store.draft()?;
            let mut writer = LayerWriter::create(draft.path(), View::new(Vec::new()))?.with_times(engine.request.times);
            let rules = Rules { owner: Some((0, 0)), chmod: None, times: engine.request.times, now: Mtime::default() };
            let below = writer.view().clone();
            let mut plan = Plan::new(&below, source.view, &rules);
            selection.items.iter().try_for_each(|item| plan.item(item, &Destination::new("/", "/")))?;
            plan.write(&mut writer)?;
            writer.finish()?;
            draft.commit_packed().map(Some)
        })?;
        let mut state = State::scratch(platform);
        if made.outcome == Outcome::Planned {
            state.certainty = Certainty::Guessed;
        }
        state.record(Some(made.created), format!("FROM {}", source.name), made.layer);
        Ok(state)
    }
}
