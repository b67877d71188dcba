//! Layers: each unpacked once, named by its diff ID, never changed.
//!
//! `layer.json` is written into the draft last, so a layer directory without a readable one is damaged. What else it says:
//!
//! ```text
//! {"diff_id": "sha256:…", "size": 10240, "origin": "packed", "boot": "…"}
//! ```
//!
//! `size` is that of the uncompressed tar. `origin` says who made that. `boot` is there until the layer is known to be on the disk
//! (see `sync`).

use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use serde::{Deserialize, Serialize};

use super::Store;
use super::lease::Kind as Lease;
use super::record;
use super::sync::{Origin, this_boot};
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
pub(super) struct LayerFile {
    pub(super) diff_id: DiffId,
    size: u64,
    origin: Origin,
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
        let file = LayerFile::load(&dir.join(LAYER_FILE))?.filter(|file| file.diff_id == *diff_id);
        match file {
            Some(LayerFile { boot: None, .. }) => Ok(file),
            Some(LayerFile { boot: Some(ref boot), origin, .. }) if boot == this_boot() => {
                self.uses_marked_layer(*diff_id, origin);
                Ok(file)
            }
            Some(LayerFile { origin: Origin::Unpacked, .. }) => Ok(None),
            None if record::open(dir)?.is_none() => Ok(None),
            // Of before a power cut, perhaps, or damaged: only its content can tell.
            _ => self.check_layer(diff_id, dir),
        }
    }

    /// Makes the tar again; if it is the right one, the layer needs no mark any more.
    fn check_layer(&self, diff_id: &DiffId, dir: &Path) -> Result<Option<LayerFile>> {
        match pack(dir) {
            Ok((packed, size)) if packed == *diff_id => {
                let file = LayerFile { diff_id: packed, size, origin: Origin::Packed, boot: None };
                // On a storage that can't be written it is checked every time.
                let _ = self.write_json(&dir.join(LAYER_FILE), &file);
                Ok(Some(file))
            }
            _ => Ok(None),
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

pub(super) const LAYER_FILE: &str = "layer.json";

impl Draft {
    /// The directory to be filled: `fs/` and, where needed, `record`.
    pub fn path(&self) -> &Path {
        self.unfinished.path()
    }

    /// Gives it its place, where nothing may stand.
    pub(super) fn place(&mut self, to: &Path) -> Result<()> {
        self.unfinished.place(to).doing("create layer", to)
    }

    /// Makes it a layer, whose diff ID and tar size the caller knows from having read the tar.
    ///
    /// If the layer is there by now, made by someone else, that one is returned and this one dropped.
    pub fn commit(self, diff_id: DiffId, size: u64) -> Result<Layer> {
        self.put(LayerFile { diff_id, size, origin: Origin::Unpacked, boot: Some(this_boot().to_owned()) })
    }

    /// Makes it a layer, its diff ID being the digest of its tar.
    pub fn commit_packed(self) -> Result<Layer> {
        let (diff_id, size) = pack(self.path())?;
        self.put(LayerFile { diff_id, size, origin: Origin::Packed, boot: Some(this_boot().to_owned()) })
    }

    /// Makes it a layer whose tar was digested while it was made, which gave the same as packing it does.
    pub fn commit_digested(self, diff_id: DiffId, size: u64) -> Result<Layer> {
        self.put(LayerFile { diff_id, size, origin: Origin::Packed, boot: Some(this_boot().to_owned()) })
    }

    fn put(mut self, file: LayerFile) -> Result<Layer> {
        let (diff_id, origin) = (file.diff_id, file.origin);
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
        store.uses_marked_layer(diff_id, origin);
        store.remember(file, place)
    }
}

impl LayerFile {
    /// That of a layer from someone's tar which is on the disk.
    pub(super) fn unpacked(diff_id: DiffId, size: u64) -> Vec<u8> {
        let file = Self { diff_id, size, origin: Origin::Unpacked, boot: None };
        serde_json::to_vec(&file).expect("a layer file has only string keys")
    }

    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// `None` if there is none, or none that can be read.
    pub(super) fn load(path: &Path) -> Result<Option<Self>> {
        Ok(record::read(path)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }
}

/// Digest and size of the tar a layer directory makes.
pub(super) fn pack(dir: &Path) -> Result<(DiffId, u64)> {
    let mut hasher = Hasher::new();
    let packed = pack_layer(&LayerDir::open(dir)?, &mut hasher)?;
    Ok((DiffId(hasher.finish()), packed.bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{Store, testing};
    use super::*;

    /// What another process would see.
    fn seen(store: &Store, layer: &Layer) -> Option<Layer> {
        Store::open(store.path()).unwrap().layer(&layer.diff_id).unwrap()
    }

    #[test]
    fn the_loser_of_a_race_gets_the_winners() {
        let (_dir, store) = testing::store();
        let winner = testing::layer(&store, "a");
        let other = Store::open(store.path()).unwrap();
        let loser = testing::layer(&other, "a");
        assert_eq!((winner.diff_id, winner.dir, winner.size), (loser.diff_id, loser.dir, loser.size));
        assert!(testing::names(&store, "tmp").is_empty());
    }

    #[test]
    fn a_dropped_draft_is_gone() {
        let (_dir, store) = testing::store();
        let draft = store.draft().unwrap();
        fs::create_dir(draft.path().join("fs")).unwrap();
        drop(draft);
        assert!(testing::names(&store, "tmp").is_empty() && testing::names(&store, "layers").is_empty());
    }

    #[test]
    fn damaged_layers_are_absent_and_replaced() {
        let (_dir, store) = testing::store();
        type Damage = fn(&Path);
        // The last two stand for a power cut before the sync: the mark is another boot's.
        let mark = |dir: &Path, boot: &str| {
            let path = dir.join(LAYER_FILE);
            let file = LayerFile { boot: Some(boot.into()), ..LayerFile::load(&path).unwrap().unwrap() };
            fs::write(path, serde_json::to_vec(&file).unwrap()).unwrap();
        };
        let cases: [(Damage, bool, bool); 4] = [
            (|dir| fs::remove_dir_all(dir.join("fs")).unwrap(), true, false),
            (|dir| fs::write(dir.join("fs/a"), "").unwrap(), false, false),
            (|dir| fs::write(dir.join(LAYER_FILE), "").unwrap(), false, true),
            (|_| {}, true, true),
        ];
        for (damage, foreign_mark, there) in cases {
            let layer = testing::layer(&Store::open(store.path()).unwrap(), "a");
            if foreign_mark {
                mark(&layer.dir, "another boot");
            } else {
                fs::write(layer.dir.join(LAYER_FILE), "{").unwrap();
            }
            damage(&layer.dir);
            assert_eq!(seen(&store, &layer).is_some(), there);
            let again = testing::layer(&Store::open(store.path()).unwrap(), "a");
            assert_eq!(fs::read_to_string(again.dir.join("fs/a")).unwrap(), "a");
            assert!(seen(&store, &again).is_some() && testing::names(&store, "tmp").is_empty());
        }
    }

    #[test]
    fn an_unpacked_layer_of_another_boot_is_not_trusted() {
        let (_dir, store) = testing::store();
        let packed = testing::layer(&store, "a");
        for (boot, there) in [(None, true), (Some(this_boot()), true), (Some("another boot"), false)] {
            let file = LayerFile { diff_id: packed.diff_id, size: 1, origin: Origin::Unpacked, boot: boot.map(str::to_owned) };
            fs::write(packed.dir.join(LAYER_FILE), serde_json::to_vec(&file).unwrap()).unwrap();
            assert_eq!(seen(&store, &packed).is_some(), there, "{boot:?}");
        }
    }

    #[test]
    fn naming_an_image_takes_the_marks_of_unpacked_layers() {
        let (_dir, store) = testing::store();
        let built = testing::layer(&store, "built");
        let draft = store.draft().unwrap();
        fs::create_dir(draft.path().join("fs")).unwrap();
        let pulled = draft.commit(DiffId(crate::oci::Digest::of("someone's tar")), 13).unwrap();
        let marked = |layer: &Layer| LayerFile::load(&layer.dir.join(LAYER_FILE)).unwrap().unwrap().boot.is_some();
        testing::image(&store, "built", &[&built]);
        assert!(marked(&built) && marked(&pulled));
        testing::image(&store, "pulled", &[&pulled]);
        assert!(!marked(&pulled));
    }

    #[test]
    fn the_mark_goes_with_the_sync() {
        let (_dir, store) = testing::store();
        let layer = testing::layer(&store, "a");
        let boot = || LayerFile::load(&layer.dir.join(LAYER_FILE)).unwrap().unwrap().boot;
        assert_eq!(boot().as_deref(), Some(this_boot()));
        // Who only uses it vouches for it as well.
        let user = Store::open(store.path()).unwrap();
        user.layer(&layer.diff_id).unwrap().unwrap();
        user.sync().unwrap();
        assert_eq!(boot(), None);
    }

    #[test]
    fn compressed_forms_are_remembered_while_they_are_here() {
        let (_dir, store) = testing::store();
        let layer = testing::layer(&store, "a");
        let blob = Descriptor::new("x", store.put_blob(b"packed").unwrap(), 6);
        let absent = Descriptor::new("x", crate::oci::Digest::of("absent"), 6);
        for descriptor in [&blob, &absent, &blob] {
            store.remember_layer_blob(&layer.diff_id, descriptor).unwrap();
        }
        assert_eq!(store.layer_blobs(&layer.diff_id).unwrap(), [blob]);
    }

    #[test]
    fn a_missing_layer_is_named() {
        let (_dir, store) = testing::store();
        let layer = testing::layer(&store, "a");
        let absent = DiffId(crate::oci::Digest::of("absent"));
        let error = store.stack(&[layer.diff_id, absent]).unwrap_err();
        assert!(error.kind() == Kind::NotFound && error.what().contains(&absent.to_string()), "{error}");
    }
}
