//! What `docker save` writes: `manifest.json` names configs and layers; the layers' digests are the config's diff IDs.

use serde::Deserialize;

use super::files::Files;
use super::layout::{ambiguous, unknown};
use super::{ReadImage, ReadRequest};
use crate::error::{Error, Kind, Result, quote};
use crate::event::{Event, Sink, next_id};
use crate::oci::{Descriptor, DiffId, ImageConfig, Manifest, Reference, media_type};
use crate::rootfs::compress::Compression;
use crate::store::Store;
use crate::transfer::pipeline;
use crate::transfer::pull::{LONGEST_CONFIG, LONGEST_MANIFEST};

/// One image (docker, image/tarexport).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

impl Item {
    fn tags(&self) -> impl Iterator<Item = &str> {
        self.repo_tags.iter().flatten().map(String::as_str)
    }

    /// As docker compares names: `debian` is `docker.io/library/debian:latest`.
    fn has(&self, name: &str) -> bool {
        let wanted = name.parse::<Reference>().ok();
        self.tags().any(|tag| tag == name || wanted.is_some() && tag.parse::<Reference>().ok() == wanted)
    }
}

/// Reads an image.
pub(super) fn read(store: &Store, files: &Files, request: &ReadRequest<'_>, sink: &dyn Sink) -> Result<ReadImage> {
    let items = items(files)?;
    let item = match (request.name, items.as_slice()) {
        (Some(name), all) => all.iter().find(|item| item.has(name)).ok_or_else(|| unknown(name, all.iter().flat_map(Item::tags)))?,
        (None, [only]) => only,
        (None, all) => return Err(ambiguous(all.iter().flat_map(Item::tags))),
    };
    image(store, files, item, sink)
}

/// Reads all images. What each names is looked at before the first is read (isula-build).
pub(super) fn read_each(store: &Store, files: &Files, sink: &dyn Sink) -> Result<Vec<ReadImage>> {
    let items = items(files)?;
    items.iter().try_for_each(|item| config(files, item).map(drop))?;
    items.iter().map(|item| image(store, files, item, sink)).collect()
}

fn corrupt(what: &str, why: String) -> Error {
    Error::with_kind(Kind::Corrupt, what).cause(why)
}

/// What the archive holds; at least one.
fn items(files: &Files) -> Result<Vec<Item>> {
    let items = files.read("manifest.json", LONGEST_MANIFEST)?.ok_or_else(|| {
        let error = corrupt("it is not an archive of `docker save`", "there is no `manifest.json` in it".into());
        match files.open("index.json", 0) {
            Ok(Some(_)) => error.hint("it looks like an OCI archive: use `oci-archive:FILE`"),
            _ => error,
        }
    })?;
    let items: Vec<Item> = serde_json::from_slice(&items).map_err(|e| corrupt("invalid `manifest.json`", e.to_string()))?;
    if items.is_empty() { Err(Error::with_kind(Kind::NotFound, "there is no image in it")) } else { Ok(items) }
}

/// An image's config, in bytes and understood, which must fit the layers.
fn config(files: &Files, item: &Item) -> Result<(Vec<u8>, ImageConfig)> {
    let missing = |name: &str| corrupt("the archive is not whole", format!("{} is missing", quote(name)));
    let bytes = files.read(&item.config, LONGEST_CONFIG)?.ok_or_else(|| missing(&item.config))?;
    let config: ImageConfig = serde_json::from_slice(&bytes).map_err(|e| corrupt("invalid image config", e.to_string()))?;
    if config.rootfs.diff_ids.len() != item.layers.len() {
        let why = format!("{} layers, {} diff IDs", item.layers.len(), config.rootfs.diff_ids.len());
        return Err(corrupt("the archive's manifest and config contradict each other", why));
    }
    match item.layers.iter().find(|name| !matches!(files.open(name, 0), Ok(Some(_)))) {
        Some(name) => Err(missing(name)),
        None => Ok((bytes, config)),
    }
}

fn image(store: &Store, files: &Files, item: &Item, sink: &dyn Sink) -> Result<ReadImage> {
    let (bytes, config) = config(files, item)?;
    let diff_ids = &config.rootfs.diff_ids;
    let mut layers = Vec::new();
    for (number, (name, diff_id)) in item.layers.iter().zip(diff_ids).enumerate() {
        let what = format!("layer {}/{} {}", number + 1, diff_ids.len(), diff_id.0.short());
        let size = layer(store, files, name, diff_id, &what, sink).map_err(|e| e.context(format!("can't read {what}")))?;
        layers.push(Descriptor::new(media_type::OCI_LAYER, diff_id.0, size));
    }
    let descriptor = Descriptor::new(media_type::OCI_CONFIG, store.put_blob(&bytes)?, bytes.len() as u64);
    let manifest = Manifest::oci(descriptor, layers).to_bytes();
    let manifest = Descriptor::new(media_type::OCI_MANIFEST, store.put_blob(&manifest)?, manifest.len() as u64);
    Ok(ReadImage { manifest, index: None, names: item.tags().map(str::to_owned).collect() })
}

/// Unpacks a layer that is not here; gives the size of its tar.
fn layer(store: &Store, files: &Files, name: &str, diff_id: &DiffId, what: &str, sink: &dyn Sink) -> Result<u64> {
    if let Some(layer) = store.layer(diff_id)? {
        return Ok(layer.size);
    }
    let missing = || Error::with_kind(Kind::Corrupt, format!("{} is missing in the archive", quote(name)));
    let (piece, size) = files.open(name, 0)?.ok_or_else(missing)?;
    let id = next_id();
    sink.event(Event::TransferStarted { id, what, total: Some(size) });
    let draft = store.draft()?;
    let (mut done, mut form) = (0, None);
    // A layer that can't be made again bit for bit from its files is kept as it came.
    let mut blob = store.blob_writer()?;
    let unpacked = pipeline::take_apart(Some(draft.path()), |feed| {
        feed.copy(piece, |bytes| {
            std::io::Write::write_all(&mut blob, bytes).map_err(|e| crate::error::from_io(|| "can't write the blob".into(), e))?;
            form.get_or_insert_with(|| Compression::detect(bytes));
            done += bytes.len() as u64;
            sink.event(Event::TransferAdvanced { id, done });
            Ok(())
        })
    })?;
    pipeline::expect(unpacked, &diff_id.0)?;
    let layer = draft.commit(*diff_id, unpacked.size)?;
    let (digest, size) = blob.finish()?;
    let form = match form {
        Some(Compression::Gzip) => Some(media_type::OCI_LAYER_GZIP),
        Some(Compression::Zstd) => Some(media_type::OCI_LAYER_ZSTD),
        Some(Compression::None) => Some(media_type::OCI_LAYER),
        _ => None,
    };
    if let Some(form) = form {
        store.remember_layer_blob(diff_id, &Descriptor::new(form, digest, size))?;
    }
    sink.event(Event::TransferFinished { id, note: "done" });
    Ok(layer.size)
}
