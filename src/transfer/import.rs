//! An image of one layer from a rootfs: a tarball, a directory, or programs of this machine.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use super::client::Client;
use super::download::{DownloadRequest, download};
use super::host::Closure;
use super::pipeline::{self, Feed, Unpacked};
use super::read::ReadImage;
use crate::error::{Error, IoContext as _, Result, hide_credentials, quote};
use crate::event::{Event, Sink, next_id};
use crate::oci::{Descriptor, DiffId, History, ImageConfig, Manifest, Platform, media_type};
use crate::rootfs::pack::pack_view;
use crate::rootfs::record::Record;
use crate::rootfs::squashfs;
use crate::rootfs::view::{LayerDir, View};
use crate::store::{Draft, Store};

/// Docker's default, for images that don't say.
pub(super) const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Imports a tarball (compression by content), a squashfs image, a directory, or with `-` a tarball from standard input. The image has no name yet.
///
/// The same content gives the same image: it carries no time of import.
pub fn import_file(store: &Store, source: &str, platform: &Platform, sink: &dyn Sink) -> Result<ReadImage> {
    let path = Path::new(source);
    if source == "-" {
        return import(store, source, None, platform, sink, |feed, seen| feed.copy(io::stdin().lock(), seen));
    }
    let file = File::open(path).doing("open", path)?;
    let meta = file.metadata().doing("look at", path)?;
    if meta.is_dir() {
        let layer = LayerDir { fs: path.to_owned(), record: Arc::new(Record::default()) };
        return import(store, source, None, platform, sink, |feed, _| pack_view(&View::new(vec![layer]), feed).map(drop));
    }
    if is_squashfs(&file) {
        return import(store, source, None, platform, sink, |feed, _| squashfs::to_tar(&file, feed).map(drop));
    }
    import(store, source, Some(meta.len()).filter(|_| meta.is_file()), platform, sink, |feed, seen| feed.copy(file, seen))
}

/// Imports a tarball by URL, downloaded once as long as it stays the same. The image has the time the server gives the file.
pub fn import_url(store: &Store, client: &Client, url: &str, platform: &Platform, sink: &dyn Sink) -> Result<ReadImage> {
    let request = DownloadRequest { url, checksum: None, authorization: None };
    let found = download(store, client, &request, sink)?;
    let shown = hide_credentials(url);
    let reader = store.blob_reader(&found.digest)?;
    let image = import(store, &shown, Some(found.size), platform, sink, |feed, seen| feed.copy(reader, seen))?;
    let modified = found.modified.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()).map(|time| time.to_string());
    if modified.is_none() {
        return Ok(image);
    }
    reconfigure(store, &image, |config| {
        config.history.iter_mut().for_each(|entry| entry.created.clone_from(&modified));
        config.created = modified;
        Ok(())
    })
}

/// Imports programs of this machine, with what they need to run; `programs` separated by commas, `search_path` as `PATH`.
pub fn import_host(store: &Store, programs: &str, search_path: &str, sink: &dyn Sink) -> Result<ReadImage> {
    let closure = Closure::collect(programs, search_path)?;
    import(store, &format!("host:{programs}"), None, &Platform::host(), sink, |feed, _| closure.write(feed))
}

fn import(
    store: &Store,
    source: &str,
    total: Option<u64>,
    platform: &Platform,
    sink: &dyn Sink,
    produce: impl FnOnce(&mut Feed, &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> + Send,
) -> Result<ReadImage> {
    let (draft, _) = unpack(store, source, total, sink, produce).map_err(|e| e.context(format!("can't import {}", quote(source))))?;
    // Named by the tar that its files give, not by the one that came: that one is not kept, and the layer may have to leave one day.
    let layer = draft.commit_packed()?;
    let mut config = ImageConfig::scratch(platform);
    config.config.env.push(format!("PATH={SEARCH_PATH}"));
    config.rootfs.diff_ids.push(layer.diff_id);
    // The source's own time, so that importing it again gives the same image.
    let modified = std::fs::metadata(source).and_then(|found| found.modified()).unwrap_or_else(|_| std::time::SystemTime::now());
    config.created = jiff::Timestamp::try_from(modified).ok().map(|time| time.to_string());
    let created_by = Some(format!("rootling import {source}"));
    config.history.push(History { created: config.created.clone(), created_by, ..History::default() });
    let bytes = config.to_bytes();
    let descriptor = Descriptor::new(media_type::OCI_CONFIG, store.put_blob(&bytes)?, bytes.len() as u64);
    let layer = Descriptor::new(media_type::OCI_LAYER, layer.diff_id.0, layer.size);
    let manifest = Manifest::oci(descriptor, vec![layer]).to_bytes();
    let manifest = Descriptor::new(media_type::OCI_MANIFEST, store.put_blob(&manifest)?, manifest.len() as u64);
    Ok(ReadImage { manifest, index: None, names: Vec::new() })
}

/// The same image with another config, which its layers must fit. What was made of the old one stays.
pub fn reconfigure(store: &Store, image: &ReadImage, change: impl FnOnce(&mut ImageConfig) -> Result<()>) -> Result<ReadImage> {
    let (mut manifest, mut config) = store.documents(&image.manifest)?;
    change(&mut config)?;
    let bytes = config.to_bytes();
    manifest.config = Descriptor::new(&manifest.config.media_type, store.put_blob(&bytes)?, bytes.len() as u64);
    let bytes = manifest.to_bytes();
    let manifest = Descriptor::new(&image.manifest.media_type, store.put_blob(&bytes)?, bytes.len() as u64);
    Ok(ReadImage { manifest, index: None, names: image.names.clone() })
}

/// Unpacks a tarball (compression by content) as a layer, without making an image of it.
pub fn import_layer(store: &Store, source: &str, tarball: impl io::Read + Send, sink: &dyn Sink) -> Result<DiffId> {
    let unpacked = unpack(store, source, None, sink, |feed, seen| feed.copy(tarball, seen));
    let (draft, unpacked) = unpacked.map_err(|e| e.context(format!("can't unpack {}", quote(source))))?;
    draft.commit(unpacked.diff_id, unpacked.size).map(|layer| layer.diff_id)
}

/// Unpacks a squashfs image as a layer, without making an image of it.
pub fn import_squashfs(store: &Store, source: &str, file: &File, sink: &dyn Sink) -> Result<DiffId> {
    let unpacked = unpack(store, source, None, sink, |feed, _| squashfs::to_tar(file, feed).map(drop));
    let (draft, unpacked) = unpacked.map_err(|e| e.context(format!("can't unpack {}", quote(source))))?;
    draft.commit(unpacked.diff_id, unpacked.size).map(|layer| layer.diff_id)
}

/// Whether a file is a squashfs image, by its first bytes.
pub fn is_squashfs(file: &File) -> bool {
    let mut first = [0; 4];
    file.read_exact_at(&mut first, 0).is_ok() && squashfs::is_squashfs(&first)
}

fn unpack(
    store: &Store,
    source: &str,
    total: Option<u64>,
    sink: &dyn Sink,
    produce: impl FnOnce(&mut Feed, &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> + Send,
) -> Result<(Draft, Unpacked)> {
    let id = next_id();
    sink.event(Event::TransferStarted { id, what: source, total });
    let draft = store.draft()?;
    let mut done = 0;
    let mut seen = |piece: &[u8]| {
        done += piece.len() as u64;
        sink.event(Event::TransferAdvanced { id, done });
        Ok(())
    };
    let unpacked = pipeline::take_apart(Some(draft.path()), |feed| produce(feed, &mut seen))?;
    if unpacked.size == 0 {
        return Err(Error::input("it is empty"));
    }
    sink.event(Event::TransferFinished { id, note: "" });
    Ok((draft, unpacked))
}
