//! An image from the storage directory into a registry: only what the registry lacks.

use std::collections::BTreeMap;
use std::io::{Read, Seek as _, SeekFrom};
use std::sync::atomic::{AtomicBool, Ordering};

use super::attachments;
use super::bundle::{Bundle, Document, Part, Shape, Subject};
use super::client::Client;
use super::packed;
use super::parallel;
use crate::error::{Error, Kind, Result, quote};
use crate::event::{Event, Sink, next_id};
use crate::oci::{Descriptor, DiffId, Digest, Reference};
use crate::registry::{self, Put, Upload};
use crate::store::{Member, Store};

/// Blobs on their way at the same time: docker's number; some registries count connections.
const AT_ONCE: usize = 5;

/// Sends an image, or several under their index, and gives it the reference's name there.
///
/// Blobs go first, then manifests, the name last: whoever pulls meanwhile gets the old image or the new one, whole. An image the
/// registry has under this name costs one request.
pub fn push(
    store: &Store,
    client: &Client,
    subject: &Subject,
    reference: &Reference,
    shape: &Shape,
    sink: &dyn Sink,
) -> Result<Descriptor> {
    let bundle = Bundle::prepare(store, subject, shape, sink)?;
    let root = bundle.root();
    if let Some(digest) = reference.digest().filter(|digest| **digest != root.descriptor.digest) {
        return Err(Error::input(format!("can't push as {}", quote(reference.familiar())))
            .cause(format!("the image that would be pushed has digest `{}`, not `{digest}`", root.descriptor.digest))
            .hint("push to a tag"));
    }
    send(&bundle, client, reference, sink)?;
    for image in &bundle.images {
        attachments::push(store, client.registry()?, reference, &image.stored, &image.manifest.descriptor)?;
    }
    Ok(root.descriptor.clone())
}

/// Sends a bundle and gives it the reference's name.
pub(super) fn send(bundle: &Bundle<'_>, client: &Client, reference: &Reference, sink: &dyn Sink) -> Result<()> {
    let root = bundle.root();
    let push = Push { bundle, client: client.registry()?, reference, sink };
    // Who may write and not read learns by writing whether that is so.
    let known = push.client.pushed_digest(reference).or_else(|e| if e.kind() == Kind::Denied { Ok(None) } else { Err(e) })?;
    if known == Some(root.descriptor.digest) {
        return Ok(());
    }
    push.blobs()?;
    match push.documents(root) {
        // Some blob has got lost, perhaps; what is refused otherwise is refused again.
        Err(e) if matches!(e.kind(), Kind::Other | Kind::NotFound) && push.blobs()? == Sent::Some => push.documents(root)?,
        outcome => outcome?,
    }
    // A success alone proves nothing. Another may have changed the name meanwhile, and who may write and not read can't ask.
    if let Ok(None) = push.client.pushed_digest(reference) {
        return Err(Error::with_kind(Kind::Network, format!("can't push {}", quote(reference.familiar())))
            .cause("the registry said that it has the manifest, and has not")
            .hint("tell the registry's operators"));
    }
    Ok(())
}

/// Whether anything had to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Nothing,
    Some,
}

struct Push<'a> {
    bundle: &'a Bundle<'a>,
    client: &'a registry::Client,
    reference: &'a Reference,
    sink: &'a dyn Sink,
}

impl Push<'_> {
    /// Manifests and indexes, the one that gets the name last.
    fn documents(&self, root: &Document) -> Result<()> {
        for document in self.bundle.documents().filter(|document| document.descriptor.digest != root.descriptor.digest) {
            let pinned: Reference = self.reference.canonical(document.descriptor.digest).to_string().parse()?;
            self.client.put_manifest(&pinned, &document.descriptor.media_type, &document.bytes)?;
        }
        self.client.put_manifest(self.reference, &root.descriptor.media_type, &root.bytes)
    }

    /// Layers and configs; the largest start first.
    fn blobs(&self) -> Result<Sent> {
        let documents: Vec<Digest> = self.bundle.documents().map(|document| document.descriptor.digest).collect();
        let mut parts = self.bundle.parts();
        parts.retain(|part| !documents.contains(&part.descriptor().digest));
        parts.sort_by_key(|part| std::cmp::Reverse(part.descriptor().size));
        let sources = self.sources()?;
        let sent = AtomicBool::new(false);
        parallel::each(parts, AT_ONCE, |part, stop| {
            if self.blob(&part, &sources, stop)? != Put::There {
                sent.store(true, Ordering::Relaxed);
            }
            Ok(())
        })?;
        Ok(if sent.into_inner() { Sent::Some } else { Sent::Nothing })
    }

    /// For each blob the repositories of this registry that images here came from, or went to.
    fn sources(&self) -> Result<BTreeMap<Digest, Vec<String>>> {
        let mut sources: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        // What was made here and pushed is known by its tar; that the form is the same is a guess that costs nothing.
        let layers = self.bundle.images.iter().flat_map(|image| &image.layers);
        let forms: BTreeMap<DiffId, Digest> = layers.map(|(descriptor, diff_id)| (*diff_id, descriptor.digest)).collect();
        for record in self.bundle.store().images()? {
            let name = &record.reference;
            if name.registry() != self.reference.registry() || name.repository() == self.reference.repository() {
                continue;
            }
            let members = record.members();
            let packed = |member: &Member| member.layers.iter().filter_map(|layer| forms.get(layer)).collect::<Vec<_>>();
            let packed: Vec<&Digest> = members.iter().flat_map(packed).collect();
            let blobs = members.iter().flat_map(|member| member.blobs.iter().chain([&member.config])).chain(packed);
            for digest in blobs.chain(record.extras.iter().flat_map(|extra| &extra.blobs)) {
                sources.entry(*digest).or_default().push(name.repository().to_owned());
            }
        }
        Ok(sources)
    }

    fn blob(&self, part: &Part<'_>, sources: &BTreeMap<Digest, Vec<String>>, stop: &AtomicBool) -> Result<Put> {
        let descriptor = part.descriptor();
        let kind = match part {
            Part::Document(_) => "config",
            Part::Layer(..) => "layer",
            Part::Blob(_) => "blob",
        };
        let (id, what) = (next_id(), format!("{kind} {}", descriptor.digest.short()));
        self.sink.event(Event::TransferStarted { id, what: &what, total: Some(descriptor.size) });
        let seen = |done| {
            self.sink.event(Event::TransferAdvanced { id, done });
            match stop.load(Ordering::Relaxed) {
                true => Err(Error::with_kind(Kind::Interrupted, "another layer could not be sent")),
                false => Ok(()),
            }
        };
        let from = sources.get(&descriptor.digest).map_or(&[][..], Vec::as_slice);
        let open = |offset| self.open(part, offset);
        let upload = Upload { digest: descriptor.digest, size: descriptor.size, open: &open, seen: &seen, from };
        let put = self.client.put_blob(self.reference, &upload)?;
        let note = match put {
            Put::There => "already there",
            Put::Mounted => "mounted",
            Put::Sent => "done",
        };
        self.sink.event(Event::TransferFinished { id, note });
        Ok(put)
    }

    /// Opens a blob from an offset on. What comes before is read too, since a blob proves itself by all of its bytes.
    fn open(&self, part: &Part<'_>, offset: u64) -> Result<Box<dyn Read + Send>> {
        let mut reader: Box<dyn Read + Send> = match part {
            Part::Document(document) => {
                let mut bytes = std::io::Cursor::new(document.bytes.clone());
                let _ = bytes.seek(SeekFrom::Start(offset));
                return Ok(Box::new(bytes));
            }
            Part::Blob(descriptor) => Box::new(self.bundle.store().blob_reader(&descriptor.digest)?),
            Part::Layer(descriptor, diff_id) => {
                let store = self.bundle.store();
                if store.has_blob(&descriptor.digest)?.is_none() {
                    let mut writer = store.blob_writer()?;
                    packed::tar_to(store, diff_id, &mut writer)?;
                    writer.commit(&descriptor.digest, Some(descriptor.size))?;
                }
                Box::new(store.blob_reader(&descriptor.digest)?)
            }
        };
        std::io::copy(&mut reader.by_ref().take(offset), &mut std::io::sink())
            .map_err(|e| crate::error::from_io(|| "can't read the layer".into(), e))?;
        Ok(reader)
    }
}
