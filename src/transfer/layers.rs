//! The layers of a pull: all at the same time, as far as threads and patience of registries reach.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

use super::parallel;
use super::pipeline::{self, Feed, Most};
use crate::error::{Error, Kind, Result, quote};
use crate::event::{Event, Sink, next_id};
use crate::oci::{Descriptor, DiffId, ImageConfig, Manifest, media_type};
use crate::store::{Store, Work};

/// Layers on their way at the same time: enough to fill a line, few enough for registries that count connections.
const AT_ONCE: usize = 8;

/// One layer to have.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    descriptor: Descriptor,
    diff_id: DiffId,
    /// Bottom is 1; the first of equal ones.
    number: usize,
}

/// Pairs the manifest's layers with the config's diff IDs; equal ones once, the largest first.
pub(super) fn wanted(manifest: &Manifest, config: &ImageConfig) -> Result<Vec<Wanted>> {
    let corrupt = |why: String| Error::with_kind(Kind::Corrupt, "the image's manifest and config contradict each other").cause(why);
    let diff_ids = &config.rootfs.diff_ids;
    if manifest.layers.len() != diff_ids.len() {
        return Err(corrupt(format!("{} layers, {} diff IDs", manifest.layers.len(), diff_ids.len())));
    }
    let mut unique: BTreeMap<_, Wanted> = BTreeMap::new();
    for (index, (descriptor, diff_id)) in manifest.layers.iter().zip(diff_ids).enumerate() {
        check_type(index + 1, descriptor)?;
        let wanted = Wanted { descriptor: descriptor.clone(), diff_id: *diff_id, number: index + 1 };
        let first = unique.entry(descriptor.digest).or_insert(wanted);
        if first.diff_id != *diff_id || first.descriptor.size != descriptor.size {
            return Err(corrupt(format!("layers {} and {} are the same blob and differ", first.number, index + 1)));
        }
    }
    let mut wanted: Vec<Wanted> = unique.into_values().collect();
    largest_first(&mut wanted);
    Ok(wanted)
}

/// What takes longest starts first; the rest fills the gaps.
pub(super) fn largest_first(wanted: &mut [Wanted]) {
    wanted.sort_by_key(|w| (std::cmp::Reverse(w.descriptor.size), w.number));
}

impl Wanted {
    /// Whether both are the same bytes and the same tar.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.descriptor.digest, self.descriptor.size, self.diff_id) == (other.descriptor.digest, other.descriptor.size, other.diff_id)
    }

    /// Counts on from so many layers of other images.
    pub(super) fn renumber(&mut self, before: usize) {
        self.number += before;
    }
}

fn check_type(number: usize, descriptor: &Descriptor) -> Result<()> {
    let known = media_type::is_layer(&descriptor.media_type);
    let encrypted = descriptor.media_type.ends_with("+encrypted");
    if known && !encrypted {
        return Ok(());
    }
    let what = format!("layer {number} has media type {}", quote(&descriptor.media_type));
    Err(Error::with_kind(Kind::Unsupported, what).cause(match encrypted {
        true => "encrypted layers can't be read",
        false => "this is no layer of a container image; some registries also hold charts, models and signatures",
    }))
}

/// Where blobs come from.
pub(super) trait Blobs: Sync {
    /// The image, for messages.
    fn image(&self) -> String;

    /// A blob from an offset on, and who sends it. Digest and size are checked by who reads it.
    fn open(&self, descriptor: &Descriptor, offset: u64) -> Result<(Box<dyn Read + '_>, String)>;
}

/// What layers are wanted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Need {
    /// Their files: to build on, to run, to be packed in another form.
    #[default]
    Files,
    /// Only to be passed on as they came; nothing is unpacked.
    Blobs,
}

/// Where layers come from and go to.
pub(super) struct Fetch<'a> {
    pub(super) store: &'a Store,
    pub(super) from: &'a dyn Blobs,
    pub(super) total: usize,
    pub(super) need: Need,
    pub(super) sink: &'a dyn Sink,
}

impl Fetch<'_> {
    /// Fetches what is not here, and unpacks it if that is needed. The first error stops the others; layers already complete stay.
    pub(super) fn all(&self, wanted: Vec<Wanted>) -> Result<()> {
        if self.need == Need::Blobs {
            return self.keep(wanted.into_iter().map(|wanted| wanted.descriptor).collect());
        }
        parallel::each(wanted, AT_ONCE, |wanted, stop| self.one(&wanted, stop))
    }

    /// Fetches blobs as they are.
    pub(super) fn keep(&self, blobs: Vec<Descriptor>) -> Result<()> {
        parallel::each(blobs, AT_ONCE, |blob, stop| {
            if self.store.has_blob(&blob.digest)? == Some(blob.size) {
                return Ok(());
            }
            let (id, what) = (next_id(), format!("blob {}", blob.digest.short()));
            self.sink.event(Event::TransferStarted { id, what: &what, total: Some(blob.size) });
            let _lock = self.store.lock(Work::Blob(&blob.digest))?;
            let download = || self.download(&blob, id, stop, &mut Feed::nowhere());
            let again = |e: &Error| e.kind() == Kind::Corrupt && !stop.load(Ordering::Relaxed);
            let outcome = download().or_else(|e| if again(&e) { download() } else { Err(e) });
            outcome.map_err(|e| e.context(format!("can't pull {what} of {}", quote(self.from.image()))))?;
            self.sink.event(Event::TransferFinished { id, note: "done" });
            Ok(())
        })
    }

    fn one(&self, wanted: &Wanted, stop: &AtomicBool) -> Result<()> {
        let id = next_id();
        let what = format!("layer {}/{} {}", wanted.number, self.total, wanted.descriptor.digest.short());
        self.sink.event(Event::TransferStarted { id, what: &what, total: Some(wanted.descriptor.size) });
        let note = self.have(wanted, id, stop).map_err(|e| e.context(format!("can't pull {what} of {}", quote(self.from.image()))))?;
        self.sink.event(Event::TransferFinished { id, note });
        Ok(())
    }

    fn have(&self, wanted: &Wanted, id: u64, stop: &AtomicBool) -> Result<&'static str> {
        if self.here(wanted)? == (true, true) {
            return Ok("already here");
        }
        // Another process that pulls the same image may be at it: wait, and find it done.
        let _lock = self.store.lock(Work::Blob(&wanted.descriptor.digest))?;
        match self.attempt(wanted, id, stop) {
            // What was damaged on its way, or on the disk, gets a second chance.
            Err(e) if e.kind() == Kind::Corrupt && !stop.load(Ordering::Relaxed) => self.attempt(wanted, id, stop),
            outcome => outcome,
        }
    }

    /// Whether layer and blob are here.
    fn here(&self, wanted: &Wanted) -> Result<(bool, bool)> {
        let blob = self.store.has_blob(&wanted.descriptor.digest)? == Some(wanted.descriptor.size);
        Ok((self.store.layer(&wanted.diff_id)?.is_some(), blob))
    }

    fn attempt(&self, wanted: &Wanted, id: u64, stop: &AtomicBool) -> Result<&'static str> {
        let (have_layer, have_blob) = self.here(wanted)?;
        if have_layer && have_blob {
            return Ok("already here");
        }
        let draft = if have_layer { None } else { Some(self.store.draft()?) };
        let unpacked =
            pipeline::take_apart_at_most(
                Most::Of(wanted.descriptor.size),
                draft.as_ref().map(|draft| draft.path()),
                |feed| match have_blob {
                    true => self.read_blob(wanted, id, stop, feed),
                    false => self.download(&wanted.descriptor, id, stop, feed),
                },
            )?;
        pipeline::expect(unpacked, &wanted.diff_id.0)?;
        if let Some(draft) = draft {
            draft.commit(wanted.diff_id, unpacked.size)?;
        }
        self.store.remember_layer_blob(&wanted.diff_id, &wanted.descriptor)?;
        Ok(if have_blob { "unpacked" } else { "done" })
    }

    fn read_blob(&self, wanted: &Wanted, id: u64, stop: &AtomicBool, feed: &mut Feed) -> Result<()> {
        let digest = &wanted.descriptor.digest;
        let outcome = feed.copy(self.store.blob_reader(digest)?, self.progress(id, 0, stop));
        if outcome.as_ref().is_err_and(|e| e.kind() == Kind::Corrupt) {
            self.store.discard_blob(digest)?;
        }
        outcome
    }

    /// Goes on where an earlier attempt, even of a process that was killed, ended.
    fn download(&self, blob: &Descriptor, id: u64, stop: &AtomicBool, feed: &mut Feed) -> Result<()> {
        let mut writer = self.store.partial(&blob.digest)?;
        if writer.written() > blob.size {
            writer.restart()?;
        }
        let resumed = writer.written();
        if resumed > 0 {
            feed.copy(writer.reader()?, |_| Ok(()))?;
        }
        let (stream, host) = self.from.open(blob, resumed)?;
        let mut progress = self.progress(id, resumed, stop);
        feed.copy(stream, |piece| {
            std::io::Write::write_all(&mut writer, piece).map_err(|e| crate::error::from_io(|| "can't write the blob".into(), e))?;
            progress(piece)
        })?;
        writer.commit(&blob.digest, Some(blob.size)).map_err(|e| match e.kind() {
            Kind::Corrupt => e.cause(format!("they came from {}", quote(host))),
            _ => e,
        })
    }

    /// Says how far it is, and ends it when another layer has failed.
    fn progress<'s>(&'s self, id: u64, start: u64, stop: &'s AtomicBool) -> impl FnMut(&[u8]) -> Result<()> + use<'s> {
        let mut done = start;
        move |piece| {
            done += piece.len() as u64;
            self.sink.event(Event::TransferAdvanced { id, done });
            match stop.load(Ordering::Relaxed) {
                true => Err(Error::with_kind(Kind::Interrupted, "another layer could not be fetched")),
                false => Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Digest, Platform};

    fn image(layers: &[(&str, &str, u64)], diff_ids: &[&str]) -> Result<Vec<Wanted>> {
        let layers = layers.iter().map(|(media_type, name, size)| Descriptor::new(media_type, Digest::of(name), *size)).collect();
        let manifest = Manifest::oci(Descriptor::new(media_type::OCI_CONFIG, Digest::of("c"), 1), layers);
        let mut config = ImageConfig::scratch(&Platform::host());
        config.rootfs.diff_ids = diff_ids.iter().map(|name| DiffId(Digest::of(name))).collect();
        wanted(&manifest, &config)
    }

    #[test]
    fn pairs_layers() {
        let gzip = media_type::OCI_LAYER_GZIP;
        let wanted = image(&[(gzip, "a", 1), (gzip, "b", 9), (gzip, "a", 1)], &["A", "B", "A"]).unwrap();
        assert_eq!(wanted.iter().map(|w| w.number).collect::<Vec<_>>(), [2, 1]);
        for (layers, diff_ids, expected) in [
            (&[(gzip, "a", 1)][..], &[][..], "1 layers, 0 diff IDs"),
            (&[(gzip, "a", 1), (gzip, "a", 1)], &["A", "B"], "layers 1 and 2 are the same blob"),
            (&[(gzip, "a", 1), (gzip, "a", 2)], &["A", "A"], "layers 1 and 2 are the same blob"),
            (&[("application/json", "a", 1)], &["A"], "layer 1 has media type `application/json`"),
            (&[("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "a", 1)], &["A"], "encrypted"),
        ] {
            let error = image(layers, diff_ids).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
