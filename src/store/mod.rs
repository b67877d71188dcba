//! The storage directory: layers, blobs, image records, build steps, and the trees made of them.
//!
//! Deliberately not here: what an image is (`rootfs`), where one comes from (`transfer`), what a step is (`build`), mounts
//! (`sandbox`). The tree is shown in `layout`, which owns every name in it.
//!
//! # What holds
//!
//! * Everything is made in `tmp/` and appears by one rename. Blobs and layers are named by digest and never change; two that
//!   race to make one both succeed. Records (images, steps) are small files replaced as a whole.
//! * A killed process leaves only entries in `tmp/`, which the next [`Store::open`] sweeps (`owner`), and unneeded things,
//!   which [`Store::prune`] takes.
//! * Whatever a store has handed out stays until the store is dropped, whoever prunes meanwhile (`lease`).
//! * After a power cut nothing half-written is taken for whole: blobs are read through their digest, and layers say whether
//!   they are known to be on the disk (`sync`). Building waits for the disk nowhere, pulling once.
//! * An unreadable record spoils only itself.

mod blob;
mod cache_mount;
mod format;
mod gc;
mod image;
mod index;
mod layer;
mod layout;
mod lease;
mod list;
mod lock;
mod owner;
mod record;
mod referrers;
mod remove;
mod step;
mod sync;
mod tree;
mod unfinished;
mod usage;
mod verify;
mod workspace;

#[cfg(test)]
mod stress;
#[cfg(test)]
mod testing;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

pub use blob::{BlobReader, BlobWriter};
pub use cache_mount::{CacheMount, CacheMountEntry, CacheMountRecord, Sharing};
pub use format::VERSION;
pub use gc::{Action, Keep, PruneOptions, PruneReport, Tally};
pub use image::{Image, ImageRecord, Member};
pub use index::{DEEPEST_INDEX, Extra, MOST_DOCUMENTS};
pub use layer::{Draft, Layer};
pub use list::Named;
pub use lock::{Lock, Work};
pub use referrers::Referrer;
pub use step::{StepEntry, StepRecord};
pub use unfinished::Scratch;
pub use usage::DiskUse;
pub use verify::{Inventory, LayerState, Replaced};
pub use workspace::{CommitOptions, Workspace, WorkspaceKind, WorkspaceRoot, lowers};

use crate::error::Result;
use crate::event::{Silent, Sink};
use crate::oci::{DiffId, ShortNames};
use layout::Layout;
use lease::Live;
use owner::Owner;

/// An open storage directory. Cheap to clone; clones share their leases.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    layout: Layout,
    live: Live,
    owner: Owner,
    sink: Arc<dyn Sink>,
    /// Layers already looked up; they are leased, so they stay.
    layers: Mutex<HashMap<DiffId, Layer>>,
    unsynced: Mutex<sync::Unsynced>,
    /// What names without a registry may mean, where more than docker's is searched.
    short_names: OnceLock<ShortNames>,
    /// Copied trees whose workspace is done, for the next one on top.
    spares: Mutex<Vec<workspace::Spare>>,
}

impl Store {
    /// Opens a storage directory for any use; makes it where there is nothing.
    ///
    /// Sweeps what dead processes left unfinished. Errors: not empty and not ours, another user's, of a newer format.
    pub fn open(dir: &Path) -> Result<Self> {
        Self::open_with(dir, Arc::new(Silent))
    }

    /// [`Store::open`], with a sink for warnings (a long wait for a lock, an unreadable record).
    pub fn open_with(dir: &Path, sink: Arc<dyn Sink>) -> Result<Self> {
        let layout = Layout::new(std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()));
        if format::look(&layout)? == format::Found::Nothing {
            format::create(&layout)?;
        }
        let swept = owner::sweep(&layout, None).or_else(|error| match error.kind() {
            // `create` of another process, or of one that was killed, has not come to `tmp` yet.
            crate::error::Kind::NotFound => format::create(&layout).map(|()| owner::Swept::default()),
            _ => Err(error),
        })?;
        for path in format::complete(&layout)? {
            let text = format!("{} was missing and is made again, empty", crate::error::quote_path(&path));
            sink.event(crate::event::Event::Warning(&text));
        }
        if swept.entries > 0 {
            sink.event(crate::event::Event::Note(&format!("removed {} unfinished things of processes that died", swept.entries)));
        }
        Ok(Self::with(layout, sink))
    }

    /// Opens a storage directory for reading, if there is one. Makes and sweeps nothing; works where nothing can be written.
    pub fn open_existing(dir: &Path) -> Result<Option<Self>> {
        Self::open_existing_with(dir, Arc::new(Silent))
    }

    /// [`Store::open_existing`], with a sink for warnings.
    pub fn open_existing_with(dir: &Path, sink: Arc<dyn Sink>) -> Result<Option<Self>> {
        let layout = Layout::new(std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()));
        Ok((format::look(&layout)? == format::Found::Storage).then(|| Self::with(layout, sink)))
    }

    /// From now on finds images also by the short names they could have been pulled by.
    pub fn know_short_names(&self, names: ShortNames) {
        let _ = self.inner.short_names.set(names);
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.inner.layout.root()
    }

    /// The file in which digests of build context files are remembered (`rootfs::hash`).
    pub fn hashes(&self) -> PathBuf {
        self.inner.layout.hashes()
    }

    fn with(layout: Layout, sink: Arc<dyn Sink>) -> Self {
        let live = Live::open(&layout.live());
        let inner = Inner {
            layout,
            live,
            owner: Owner::default(),
            sink,
            layers: Mutex::default(),
            unsynced: Mutex::default(),
            short_names: OnceLock::new(),
            spares: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    fn sink(&self) -> &dyn Sink {
        &*self.inner.sink
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.path()).finish()
    }
}
