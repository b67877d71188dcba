//! Layers in the form in which they leave: packed and compressed when somebody needs it, and only once.
//!
//! Packing is deterministic, so a layer made here has the same compressed form wherever it is made. For the same reason a foreign
//! compressed form of the same files is not taken in its place: which ones are known differs between storage directories.

use std::io::{self, Read, Write};

use crate::error::{Error, Kind, Result, from_io, quote};
use crate::event::{Event, Sink, next_id};
use crate::oci::{Descriptor, DiffId, Hasher, media_type};
use crate::rootfs::compress::{Compression, compressor, decompress};
use crate::rootfs::pack::pack_layer;
use crate::store::{Store, Work};

/// Marks forms made here; its value says how.
const FORM: &str = "org.rootling.form";
/// Pieces in which bytes are handed on.
const PIECE: usize = 256 << 10;

/// How to compress a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// What registries take: none, gzip or zstd.
    pub compression: Compression,
    /// As the compressor counts; its usual one if not given.
    pub level: Option<i32>,
}

impl Default for Packing {
    fn default() -> Self {
        Self { compression: Compression::Gzip, level: None }
    }
}

impl Packing {
    /// The OCI media type of such a layer.
    fn media_type(self) -> Result<&'static str> {
        match self.compression {
            Compression::None => Ok(media_type::OCI_LAYER),
            Compression::Gzip => Ok(media_type::OCI_LAYER_GZIP),
            Compression::Zstd => Ok(media_type::OCI_LAYER_ZSTD),
            other => Err(Error::input(format!("layers can't be compressed by {other:?}")).hint("use gzip, zstd, or none")),
        }
    }

    fn name(self) -> String {
        let level = self.level.map_or_else(|| "usual".to_owned(), |level| level.to_string());
        format!("{:?}-{level}", self.compression).to_lowercase()
    }
}

/// A layer's descriptor in a form, its blob made if it has to be. An uncompressed form gets no blob: see [`tar_to`].
pub(super) fn packed(store: &Store, diff_id: &DiffId, packing: Packing, sink: &dyn Sink) -> Result<Descriptor> {
    let media_type = packing.media_type()?;
    if packing.compression == Compression::None {
        return Ok(Descriptor::new(media_type, diff_id.0, size(store, diff_id)?));
    }
    let form = packing.name();
    if let Some(known) = known(store, diff_id, &form)? {
        return Ok(known);
    }
    // Whoever else needs it waits for this one.
    let _lock = store.lock(Work::Blob(&diff_id.0))?;
    if let Some(known) = known(store, diff_id, &form)? {
        return Ok(known);
    }
    let id = next_id();
    sink.event(Event::TransferStarted { id, what: &format!("compressing {}", diff_id.0.short()), total: Some(size(store, diff_id)?) });
    let out = compressor(store.blob_writer()?, packing.compression, packing.level)?;
    let mut out = Counted { out, done: 0, id, sink };
    tar_to(store, diff_id, &mut out)?;
    let (digest, size) = out.out.finish()?.finish()?;
    sink.event(Event::TransferFinished { id, note: "done" });
    let descriptor = Descriptor::new(media_type, digest, size);
    let mut marked = descriptor.clone();
    marked.annotations.insert(FORM.into(), form);
    store.remember_layer_blob(diff_id, &marked)?;
    Ok(descriptor)
}

/// Writes a layer's tar, whose digest is the diff ID.
pub(super) fn tar_to(store: &Store, diff_id: &DiffId, out: &mut dyn Write) -> Result<()> {
    let layer = store.layer(diff_id)?.ok_or_else(|| missing(diff_id))?;
    let mut checked = Checked { out, hasher: Hasher::new() };
    // A tar made elsewhere can't be made again from its files, so a blob that holds it comes first.
    match store.layer_blobs(diff_id)?.first() {
        Some(blob) => {
            copy(&mut *decompress(store.blob_reader(&blob.digest)?)?, &mut checked)?;
        }
        None => drop(pack_layer(&layer.layer_dir, &mut checked)?),
    }
    let found = checked.hasher.finish();
    if found == diff_id.0 {
        return Ok(());
    }
    Err(Error::with_kind(Kind::Corrupt, format!("layer {} can't be written as it was", quote(diff_id.to_string())))
        .cause(format!("its files give a tar of digest {found}"))
        .hint("the blob it came in is no longer here: pull or import the image again"))
}

/// Copies everything a reader has.
pub(super) fn copy(from: &mut dyn Read, to: &mut dyn Write) -> Result<u64> {
    let mut piece = vec![0; PIECE];
    let mut done = 0;
    loop {
        let count = match from.read(&mut piece) {
            Ok(0) => return Ok(done),
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(from_io(|| "can't read the layer".into(), e)),
        };
        to.write_all(&piece[..count]).map_err(|e| from_io(|| "can't write the layer".into(), e))?;
        done += count as u64;
    }
}

fn known(store: &Store, diff_id: &DiffId, form: &str) -> Result<Option<Descriptor>> {
    let blobs = store.layer_blobs(diff_id)?;
    let known = blobs.into_iter().find(|blob| blob.annotations.get(FORM).is_some_and(|made| made == form));
    Ok(known.map(|blob| Descriptor::new(&blob.media_type, blob.digest, blob.size)))
}

fn size(store: &Store, diff_id: &DiffId) -> Result<u64> {
    store.layer(diff_id)?.map(|layer| layer.size).ok_or_else(|| missing(diff_id))
}

fn missing(diff_id: &DiffId) -> Error {
    Error::with_kind(Kind::NotFound, format!("layer `{diff_id}` is not in the storage directory")).hint("pull or build the image again")
}

struct Checked<'a> {
    out: &'a mut dyn Write,
    hasher: Hasher,
}

impl Write for Checked<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Says how far it is.
struct Counted<'a, W> {
    out: W,
    done: u64,
    id: u64,
    sink: &'a dyn Sink,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        let before = self.done >> 20;
        self.done += written as u64;
        if self.done >> 20 != before {
            self.sink.event(Event::TransferAdvanced { id: self.id, done: self.done });
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
