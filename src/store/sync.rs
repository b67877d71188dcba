//! What is known to be on the disk.
//!
//! Renames are atomic for every process but not ordered on the disk: after a power cut a layer may stand in its place with
//! empty files in it. Waiting for the disk is no answer: an `fsync` a file would cost more than the build, and one `syncfs`,
//! some milliseconds on an idle machine, took 1.7 s here beside other people's writing. So:
//!
//! * A layer is marked when it is made with the boot during which that was (`layer.json`), and trusted freely during that boot.
//!   One that has the mark of another boot is trusted only after its tar was made again and had the right digest; as it was
//!   read from the disk then, the mark goes.
//! * That can't be done for a layer whose tar came from elsewhere, since ours would have other bytes. Before an image with such
//!   layers gets its name, [`Store::sync`] writes the whole file system once and takes the marks off. A download takes longer.
//! * On a network file system other nodes have other boots and would check every layer, so there it is always done. It is
//!   cheap there: only this node's writes count, and closing a file has written it already.
//! * Blobs need no mark since every read checks their digest; step and image records that came out empty are none.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::sync::{OnceLock, PoisonError};

use super::Store;
use crate::error::{IoContext, Result};
use crate::oci::DiffId;

/// What was made, or used unchecked, since the last sync.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    anything: bool,
    /// Layers that carry a mark.
    marked: BTreeSet<DiffId>,
    /// Those of them whose tar came from elsewhere.
    foreign: BTreeSet<DiffId>,
}

/// Whether a layer's tar can be made again from the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Origin {
    /// We packed it.
    Packed,
    /// It was unpacked from someone's tar.
    Unpacked,
}

impl Store {
    /// Brings everything this store made so far to the disk. Costs nothing if that is nothing, else as much as everybody's
    /// unwritten data on that file system. [`Store::put_image`] does it by itself where it must be.
    pub fn sync(&self) -> Result<()> {
        let unsynced = std::mem::take(&mut *self.unsynced());
        if !unsynced.anything {
            return Ok(());
        }
        if let Err(error) = self.write_out(&unsynced) {
            let mut now = self.unsynced();
            now.anything = true;
            now.marked.extend(unsynced.marked);
            now.foreign.extend(unsynced.foreign);
            return Err(error);
        }
        Ok(())
    }

    /// [`Store::sync`], if these layers could not be checked after a power cut, or other nodes use them.
    pub(super) fn sync_for(&self, layers: &[DiffId]) -> Result<()> {
        let must = {
            let unsynced = self.unsynced();
            unsynced.anything && (layers.iter().any(|layer| unsynced.foreign.contains(layer)) || is_shared(self.path()))
        };
        if must { self.sync() } else { Ok(()) }
    }

    /// Notes that something was made.
    pub(super) fn made_something(&self) {
        self.unsynced().anything = true;
    }

    /// Notes a layer that carries a mark.
    pub(super) fn uses_marked_layer(&self, diff_id: DiffId, origin: Origin) {
        let mut unsynced = self.unsynced();
        unsynced.anything = true;
        unsynced.marked.insert(diff_id);
        if origin == Origin::Unpacked {
            unsynced.foreign.insert(diff_id);
        }
    }

    fn write_out(&self, unsynced: &Unsynced) -> Result<()> {
        let root = self.path();
        let directory = File::open(root).doing("open", root)?;
        rustix::fs::syncfs(&directory).doing("write to disk", root)?;
        unsynced.marked.iter().try_for_each(|diff_id| self.unmark_layer(diff_id))
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

/// Magic numbers (statfs(2), linux/magic.h, and the file systems' own headers) of what several nodes may mount.
const SHARED: [rustix::fs::FsWord; 10] = [
    0x6969,      // NFS
    0x0bd0_0bd0, // Lustre
    0x4750_4653, // GPFS
    0x1983_0326, // BeeGFS
    0x00c3_6400, // Ceph
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB2
    0x0102_1997, // 9P
    0x5346_414f, // AFS
    0x6573_5546, // FUSE: GlusterFS, CVMFS, sshfs and others
];

fn is_shared(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| SHARED.contains(&stat.f_type))
}
