//! What is known to be on the disk.
//!
//! Renames are atomic for every process but not ordered on the disk: after a power cut a layer may stand in its place with
//! empty files in it. One `fsync` a file would cost more than the build. Instead a layer is marked when it is made with the
//! boot during which that was (`layer.json`), and trusted freely during that boot. [`Store::sync`] writes the whole file
//! system once and takes the marks off. A layer that still has the mark of another boot is trusted only after its tar was
//! made again and had the right digest. Blobs need no mark since every read checks their digest; a step or image record that
//! came out empty is read as damaged.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::{OnceLock, PoisonError};

use super::Store;
use crate::error::{IoContext, Result};
use crate::oci::DiffId;

/// What was made, or used unchecked, since the last sync.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    anything: bool,
    /// Layers that carry a mark.
    layers: BTreeSet<DiffId>,
}

impl Store {
    /// Brings everything this store made so far to the disk. Costs nothing if that is nothing.
    ///
    /// [`Store::put_image`] does it by itself.
    pub fn sync(&self) -> Result<()> {
        let unsynced = std::mem::take(&mut *self.unsynced());
        if !unsynced.anything {
            return Ok(());
        }
        if let Err(error) = self.write_out(&unsynced) {
            let mut now = self.unsynced();
            now.anything = true;
            now.layers.extend(unsynced.layers);
            return Err(error);
        }
        Ok(())
    }

    fn write_out(&self, unsynced: &Unsynced) -> Result<()> {
        let root = self.path();
        let directory = File::open(root).doing("open", root)?;
        rustix::fs::syncfs(&directory).doing("write to disk", root)?;
        unsynced.layers.iter().try_for_each(|diff_id| self.unmark_layer(diff_id))
    }

    /// Notes that something was made.
    pub(super) fn made_something(&self) {
        self.unsynced().anything = true;
    }

    /// Notes a layer that carries a mark.
    pub(super) fn uses_marked_layer(&self, diff_id: DiffId) {
        let mut unsynced = self.unsynced();
        unsynced.anything = true;
        unsynced.layers.insert(diff_id);
    }

    fn unsynced(&self) -> std::sync::MutexGuard<'_, Unsynced> {
        self.inner.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names the time since the kernel was started.
pub(super) fn this_boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        // Without /proc no boot can be told from another; then none is trusted, which is slow but right.
        if id.trim().is_empty() { format!("unknown-{}", std::process::id()) } else { id.trim().to_owned() }
    })
}
