//! Layers: each unpacked once, named by its diff ID, never changed.
//!
//! `layer.json` is written into the draft last, so a layer directory without a readable one is damaged. What else it says:
//!
//! ```text
//! {"diff_id": "sha256:…", "size": 10240, "boot": "…"}
//! ```
//!
//! `size` is that of the uncompressed tar. `boot` is there until the layer is known to be on the disk (see `sync`).

use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use serde::{Deserialize, Serialize};

use super::Store;
use super::lease::Kind as Lease;
use super::record;
use super::sync::this_boot;
use super::unfinished::Unfinished;
use crate::error::{Error, IoContext, Kind, Result};
use crate::oci::{Descriptor, DiffId, Hasher};
use crate::rootfs::pack::pack_layer;
use crate::rootfs::view::LayerDir;

/// A layer that is here, whole, and stays as long as the store it came from.
#[derive(Clone, Debug)]
pub struct Layer {
    /// What it is.
    pub diff_id: DiffId,
    /// Its directory, `layers/<hex>`.
    pub dir: PathBuf,
    /// Its tree and record, for views and packing.
    pub layer_dir: LayerDir,
    /// Size of its uncompressed tar in bytes.
    pub size: u64,
}

/// A layer being made: a directory in `tmp/`, removed when dropped.
#[derive(Debug)]
pub struct Draft {
    store: Store,
    unfinished: Unfinished,
}

#[derive(Debug, Serialize, Deserialize)]
struct LayerFile {
    diff_id: DiffId,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
}

impl Store {
    /// Looks a layer up. One that is damaged counts as absent; making it again replaces it.
    pub fn layer(&self, diff_id: &DiffId) -> Result<Option<Layer>> {
        if let Some(layer) = self.known_layers().get(diff_id) {
            return Ok(Some(layer.clone()));
        }
        self.inner.live.lease(Lease::Layer, &diff_id.0)?;
        record::refresh(&self.layout().layers());
        let dir = self.layout().layer(diff_id);
        let Some(file) = self.trusted(diff_id, &dir)? else { return Ok(None) };
        self.remember(file, dir).map(Some)
    }

    /// The layers of a stack, bottom first. `NotFound` names the first that is missing.
    pub fn stack(&self, stack: &[DiffId]) -> Result<Vec<LayerDir>> {
        Ok(self.stack_layers(stack)?.into_iter().map(|layer| layer.layer_dir).collect())
    }

    /// Starts a layer. [`Draft::path`] is the layer directory to be filled.
    pub fn draft(&self) -> Result<Draft> {
        Ok(Draft { store: self.clone(), unfinished: self.unfinished_directory("draft")? })
    }

    /// The blobs that are here and hold this layer compressed (or plain), as remembered by [`Store::remember_layer_blob`].
    pub fn layer_blobs(&self, diff_id: &DiffId) -> Result<Vec<Descriptor>> {
        let mut blobs = self.remembered_blobs(diff_id)?;
        let mut error = None;
        blobs.retain(|blob| match self.has_blob(&blob.digest) {
            Ok(size) => size == Some(blob.size),
            Err(e) => {
                error = Some(e);
                false
            }
        });
        error.map_or(Ok(blobs), Err)
    }

    /// Remembers that a blob holds a layer, so that it need not be packed and compressed again.
    pub fn remember_layer_blob(&self, diff_id: &DiffId, blob: &Descriptor) -> Result<()> {
        // Two processes at once may lose one of two entries, which costs one a compression later.
        let mut blobs = self.remembered_blobs(diff_id)?;
        if blobs.contains(blob) {
            return Ok(());
        }
        blobs.retain(|known| known.digest != blob.digest);
        blobs.push(blob.clone());
        self.write_json(&self.layout().layer_blobs_of(diff_id), &blobs)
    }

    pub(super) fn stack_layers(&self, stack: &[DiffId]) -> Result<Vec<Layer>> {
        stack
            .iter()
            .map(|diff_id| {
                self.layer(diff_id)?.ok_or_else(|| {
                    Error::with_kind(Kind::NotFound, format!("layer `{diff_id}` is not in the storage directory"))
                        .hint("pull or build the image again")
                })
            })
            .collect()
    }

    /// Takes the mark off a layer that is on the disk now.
    pub(super) fn unmark_layer(&self, diff_id: &DiffId) -> Result<()> {
        let path = self.layout().layer(diff_id).join(LAYER_FILE);
        // It is leased; only an outsider can have removed it.
        match LayerFile::load(&path)? {
            Some(file) => self.write_json(&path, &LayerFile { boot: None, ..file }),
            None => Ok(()),
        }
    }

    fn remembered_blobs(&self, diff_id: &DiffId) -> Result<Vec<Descriptor>> {
        // Damaged memory is no memory.
        let blobs = record::read(&self.layout().layer_blobs_of(diff_id))?;
        Ok(blobs.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
    }

    /// What a layer directory says about itself, if that can be believed.
    fn trusted(&self, diff_id: &DiffId, dir: &Path) -> Result<Option<LayerFile>> {
        let path = dir.join(LAYER_FILE);
        let boot = match LayerFile::load(&path)? {
            Some(file) if file.diff_id == *diff_id && file.boot.is_none() => return Ok(Some(file)),
            Some(file) if file.diff_id == *diff_id => file.boot,
            _ if record::open(dir)?.is_none() => return Ok(None),
            _ => None,
        };
        let size = match boot {
            Some(boot) if boot == this_boot() => None,
            // Made before a power cut, perhaps: only its content can tell.
            _ => match pack(dir) {
                Ok((packed, size)) if packed == *diff_id => Some(size),
                _ => return Ok(None),
            },
        };
        self.uses_marked_layer(*diff_id);
        match size {
            None => LayerFile::load(&path),
            Some(size) => {
                let file = LayerFile { diff_id: *diff_id, size, boot: Some(this_boot().to_owned()) };
                self.write_json(&path, &file)?;
                Ok(Some(file))
            }
        }
    }

    fn remember(&self, file: LayerFile, dir: PathBuf) -> Result<Layer> {
        let layer = Layer { diff_id: file.diff_id, layer_dir: LayerDir::open(&dir)?, dir, size: file.size };
        self.known_layers().insert(layer.diff_id, layer.clone());
        Ok(layer)
    }

    fn known_layers(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<DiffId, Layer>> {
        self.inner.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const LAYER_FILE: &str = "layer.json";

impl Draft {
    /// The directory to be filled: `fs/` and, where needed, `record`.
    pub fn path(&self) -> &Path {
        self.unfinished.path()
    }

    /// Makes it a layer, whose diff ID and tar size the caller knows from having read the tar.
    ///
    /// If the layer is there by now, made by someone else, that one is returned and this one dropped.
    pub fn commit(mut self, diff_id: DiffId, size: u64) -> Result<Layer> {
        let file = LayerFile { diff_id, size, boot: Some(this_boot().to_owned()) };
        let bytes = serde_json::to_vec(&file).expect("a layer file has only string keys");
        let path = self.path().join(LAYER_FILE);
        std::fs::write(&path, bytes).doing("write", &path)?;

        let store = self.store.clone();
        store.inner.live.lease(Lease::Layer, &diff_id.0)?;
        let place = store.layout().layer(&diff_id);
        while let Err(error) = self.unfinished.place(&place) {
            if !matches!(error.raw_os_error(), Some(libc::EEXIST | libc::ENOTEMPTY)) {
                return Err(Error::io("create layer", &place, error));
            }
            if let Some(layer) = store.layer(&diff_id)? {
                return Ok(layer);
            }
            // What stands there is damaged: out of the way, to be removed at once. Another may do the same.
            let damaged = store.unfinished("damaged")?;
            match std::fs::rename(&place, damaged.path()) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("replace damaged layer", &place, e)),
                _ => drop(damaged),
            }
        }
        store.uses_marked_layer(diff_id);
        store.remember(file, place)
    }

    /// Makes it a layer, its diff ID being the digest of its tar.
    pub fn commit_packed(self) -> Result<Layer> {
        let (diff_id, size) = pack(self.path())?;
        self.commit(diff_id, size)
    }
}

impl LayerFile {
    /// `None` if there is none, or none that can be read.
    fn load(path: &Path) -> Result<Option<Self>> {
        Ok(record::read(path)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }
}

/// Digest and size of the tar a layer directory makes.
fn pack(dir: &Path) -> Result<(DiffId, u64)> {
    let mut hasher = Hasher::new();
    let packed = pack_layer(&LayerDir::open(dir)?, &mut hasher)?;
    Ok((DiffId(hasher.finish()), packed.bytes))
}
