//! An image as it leaves: manifests, configs and layers in the form asked for, or several images under their index.
//!
//! What need not change does not: a pulled image leaves with the bytes it came with.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use super::packed::{self, Packing};
use crate::error::{Error, Kind, Result, quote};
use crate::event::Sink;
use crate::oci::{Descriptor, DiffId, Digest, ImageConfig, Index, ManifestOrIndex, Platform, media_type};
use crate::rootfs::compress::Compression;
use crate::store::{ImageRecord, Store};

/// On a member of an index: the image it says something of (BuildKit, docs/attestations/attestation-storage.md).
const SPEAKS_OF: &str = "vnd.docker.reference.digest";
/// Largest manifest, index or config that is read.
const LARGEST_DOCUMENT: u64 = 16 << 20;

/// What is to leave.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    /// One manifest an image, all of them in storage.
    pub manifests: Vec<Descriptor>,
    /// The index over them, where there is one.
    pub index: Option<Descriptor>,
}

impl Subject {
    /// The one image that a name alone means, or that was chosen by platform.
    pub fn image(record: &ImageRecord) -> Self {
        Self { manifests: vec![record.manifest.clone()], index: None }
    }

    /// An index that is here, with all its images.
    pub(super) fn of_index(store: &Store, digest: &Digest) -> Result<Self> {
        let bytes = store.read_blob(digest, LARGEST_DOCUMENT)?;
        let ManifestOrIndex::Index(index) = ManifestOrIndex::parse(&bytes, None)? else {
            return Err(Error::with_kind(Kind::Corrupt, format!("`{digest}` is no index")));
        };
        let media_type = index.media_type.clone().unwrap_or_else(|| media_type::OCI_INDEX.into());
        Ok(Self { manifests: index.manifests, index: Some(Descriptor::new(&media_type, *digest, bytes.len() as u64)) })
    }

    /// What a name stands for: its index if all that has is here, else the image for this machine.
    pub fn of(store: &Store, record: &ImageRecord) -> Result<Self> {
        Ok(match indexed(store, record)? {
            Some((all, missing)) if missing.is_empty() => all,
            _ => Self::image(record),
        })
    }

    /// All that a name stands for. `NotFound` names what of its index is not here.
    pub fn all(store: &Store, record: &ImageRecord) -> Result<Self> {
        match indexed(store, record)? {
            None => Ok(Self::image(record)),
            Some((all, missing)) if missing.is_empty() => Ok(all),
            Some((_, missing)) => {
                let name = record.reference.familiar();
                Err(Error::with_kind(Kind::NotFound, format!("not all of {} is here", quote(&name)))
                    .cause(format!("its index also has {}", missing.join(", ")))
                    .hint(format!("`rootling pull --all-platforms {name}` fetches them; `--platform` sends one")))
            }
        }
    }
}

/// The index of a name, and those of its members that are not here.
fn indexed(store: &Store, record: &ImageRecord) -> Result<Option<(Subject, Vec<String>)>> {
    let Some(digest) = record.index else { return Ok(None) };
    if store.has_blob(&digest)?.is_none() {
        return Ok(None);
    }
    let bytes = store.read_blob(&digest, LARGEST_DOCUMENT)?;
    let ManifestOrIndex::Index(index) = ManifestOrIndex::parse(&bytes, None)? else { return Ok(None) };
    let images = record.members().into_iter().map(|member| member.manifest.digest);
    let here: BTreeSet<Digest> = images.chain(record.extras.iter().map(|extra| extra.manifest.digest)).collect();
    let named = |member: &Descriptor| match &member.platform {
        Some(platform) if platform.os != "unknown" => platform.to_string(),
        _ => member.digest.short().to_string(),
    };
    let missing = index.manifests.iter().filter(|member| !here.contains(&member.digest)).map(named).collect();
    let media_type = index.media_type.clone().unwrap_or_else(|| media_type::OCI_INDEX.into());
    let index_itself = Descriptor::new(&media_type, digest, bytes.len() as u64);
    Ok(Some((Subject { manifests: index.manifests, index: Some(index_itself) }, missing)))
}

/// The form in which images leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Whose documents.
    pub documents: Documents,
    /// How layers are compressed.
    pub packing: Packing,
    /// Which layers.
    pub repack: Repack,
    /// What is noted on the documents.
    pub annotations: Annotations,
    /// How an archive as a whole is compressed; not given, as its suffix says. How a squashfs image is; not given, by zstd.
    pub file: Option<Packing>,
}

/// Whose manifests, indexes and media types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Documents {
    /// Those the image has.
    #[default]
    Same,
    /// The image-spec's.
    Oci,
    /// Docker's version 2, schema 2.
    Docker,
}

/// Which layers are compressed anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repack {
    /// Those that were made here; others stay as they came.
    #[default]
    New,
    /// All.
    All,
}

/// Notes for the documents that leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// On each manifest.
    pub manifest: BTreeMap<String, String>,
    /// On each manifest's descriptor in the index.
    pub manifest_descriptor: BTreeMap<String, String>,
    /// On the index.
    pub index: BTreeMap<String, String>,
    /// On the descriptor of what is exported, in a layout's `index.json`.
    pub root_descriptor: BTreeMap<String, String>,
}

/// Everything that is to be written or sent; blobs are still in storage.
pub(super) struct Bundle<'a> {
    store: &'a Store,
    pub(super) images: Vec<Ready>,
    /// What the index has besides, in an order in which each stands behind what it names.
    pub(super) extras: Vec<Companion>,
    pub(super) index: Option<Document>,
    pub(super) root_annotations: BTreeMap<String, String>,
}

/// A document with its descriptor.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) descriptor: Descriptor,
    pub(super) bytes: Vec<u8>,
}

/// What an index has besides images; it leaves as it came.
pub(super) struct Companion {
    pub(super) document: Document,
    /// Those that registries hold.
    blobs: Vec<Descriptor>,
}

/// One image of a bundle.
pub(super) struct Ready {
    /// Its manifest in storage.
    pub(super) stored: Digest,
    pub(super) manifest: Document,
    pub(super) config: Document,
    pub(super) parsed: ImageConfig,
    pub(super) platform: Platform,
    /// As the manifest names them, each with what it unpacks to.
    pub(super) layers: Vec<(Descriptor, DiffId)>,
}

/// A blob of a bundle.
pub(super) enum Part<'b> {
    Document(&'b Document),
    Layer(&'b Descriptor, DiffId),
    /// A blob that is here, whatever it is.
    Blob(&'b Descriptor),
}

impl<'a> Bundle<'a> {
    /// Brings images into a shape. Compresses layers where that has not happened yet.
    pub(super) fn prepare(store: &'a Store, subject: &Subject, shape: &Shape, sink: &dyn Sink) -> Result<Self> {
        let (mut images, mut before, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for manifest in &subject.manifests {
            if subject.index.is_some() && !store.is_image(manifest)? {
                others.push(manifest);
                continue;
            }
            images.push(ready(store, manifest, shape, sink)?);
            before.push(manifest);
        }
        if images.is_empty() && subject.index.is_none() {
            return Err(Error::new("there is no image to write"));
        }
        // What speaks of an image that changed speaks of nothing any more.
        let changed = images.iter().zip(&before).filter(|(image, before)| image.manifest.descriptor.digest != before.digest);
        let changed: BTreeSet<String> = changed.map(|(_, before)| before.digest.to_string()).collect();
        others.retain(|other| other.annotations.get(SPEAKS_OF).is_none_or(|digest| !changed.contains(digest)));
        let extras = companions(store, &others)?;
        let index = subject.index.as_ref().map(|index| over(store, index, &images, &before, &others, shape)).transpose()?;
        let mut root_annotations = subject.index.as_ref().map(|index| index.annotations.clone()).unwrap_or_default();
        root_annotations.extend(shape.annotations.root_descriptor.clone());
        Ok(Self { store, images, extras, index, root_annotations })
    }

    /// Something that is no image but is kept like one.
    pub(super) fn artifact(store: &'a Store, manifest: Document, config: Document, layers: Vec<(Descriptor, DiffId)>) -> Self {
        let platform = Platform::host();
        let stored = manifest.descriptor.digest;
        let ready = Ready { stored, manifest, config, parsed: ImageConfig::scratch(&platform), platform, layers };
        Self { store, images: vec![ready], extras: Vec::new(), index: None, root_annotations: BTreeMap::new() }
    }

    /// What a name for all of it stands for.
    pub(super) fn root(&self) -> &Document {
        self.index.as_ref().unwrap_or_else(|| &self.images[0].manifest)
    }

    /// The image, if it is one.
    pub(super) fn single(&self, form: &str) -> Result<&Ready> {
        match (&self.images[..], &self.index) {
            ([only], _) => Ok(only),
            _ => Err(Error::with_kind(Kind::Unsupported, format!("a {form} holds one platform; this image has {}", self.images.len()))
                .hint("build one platform, or write an OCI archive or layout: `type=oci`")),
        }
    }

    /// Every blob once: configs and layers in the order of the images, other blobs, then manifests, then the index.
    pub(super) fn parts(&self) -> Vec<Part<'_>> {
        let mut seen = BTreeSet::new();
        let mut parts = Vec::new();
        for image in &self.images {
            for (descriptor, diff_id) in &image.layers {
                if seen.insert(descriptor.digest) {
                    parts.push(Part::Layer(descriptor, *diff_id));
                }
            }
            if seen.insert(image.config.descriptor.digest) {
                parts.push(Part::Document(&image.config));
            }
        }
        for blob in self.extras.iter().flat_map(|extra| &extra.blobs) {
            if seen.insert(blob.digest) {
                parts.push(Part::Blob(blob));
            }
        }
        for document in self.documents() {
            if seen.insert(document.descriptor.digest) {
                parts.push(Part::Document(document));
            }
        }
        parts
    }

    /// Manifests and indexes, each behind what it names.
    pub(super) fn documents(&self) -> impl Iterator<Item = &Document> {
        self.images.iter().map(|image| &image.manifest).chain(self.extras.iter().map(|extra| &extra.document)).chain(&self.index)
    }

    /// Writes a part's bytes.
    pub(super) fn write_part(&self, part: &Part<'_>, out: &mut dyn Write) -> Result<()> {
        match part {
            Part::Document(document) => {
                out.write_all(&document.bytes).map_err(|e| crate::error::from_io(|| "can't write a document".into(), e))
            }
            Part::Blob(descriptor) => packed::copy(&mut self.store.blob_reader(&descriptor.digest)?, out).map(drop),
            Part::Layer(descriptor, diff_id) => match self.store.has_blob(&descriptor.digest)? {
                Some(_) => packed::copy(&mut self.store.blob_reader(&descriptor.digest)?, out).map(drop),
                None => packed::tar_to(self.store, diff_id, out),
            },
        }
    }

    pub(super) fn store(&self) -> &'a Store {
        self.store
    }
}

impl Document {
    pub(super) fn new(media_type: &str, bytes: Vec<u8>) -> Self {
        Self { descriptor: Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64), bytes }
    }
}

impl Part<'_> {
    pub(super) fn descriptor(&self) -> &Descriptor {
        match self {
            Self::Document(document) => &document.descriptor,
            Self::Layer(descriptor, _) | Self::Blob(descriptor) => descriptor,
        }
    }
}

/// What stands beside the images of an index, with what that names.
fn companions(store: &Store, members: &[&Descriptor]) -> Result<Vec<Companion>> {
    let (mut companions, mut seen) = (Vec::new(), BTreeSet::new());
    for member in members {
        for (extra, blobs) in store.extras(member)? {
            if seen.insert(extra.manifest.digest) {
                let bytes = store.read_blob(&extra.manifest.digest, LARGEST_DOCUMENT)?;
                companions.push(Companion { document: Document { descriptor: extra.manifest, bytes }, blobs });
            }
        }
    }
    Ok(companions)
}

fn ready(store: &Store, descriptor: &Descriptor, shape: &Shape, sink: &dyn Sink) -> Result<Ready> {
    let bytes = store.read_blob(&descriptor.digest, LARGEST_DOCUMENT)?;
    let ManifestOrIndex::Manifest(manifest) = ManifestOrIndex::parse(&bytes, Some(&descriptor.media_type))? else {
        return Err(Error::with_kind(Kind::Corrupt, format!("`{}` is an index, not an image manifest", descriptor.digest)));
    };
    let config = store.read_blob(&manifest.config.digest, LARGEST_DOCUMENT)?;
    let parsed: ImageConfig = serde_json::from_slice(&config)
        .map_err(|e| Error::with_kind(Kind::Corrupt, format!("image config `{}` can't be understood", manifest.config.digest)).cause(e))?;
    let docker = match shape.documents {
        Documents::Oci => false,
        Documents::Docker => true,
        Documents::Same => manifest.media_type.as_deref().unwrap_or(&descriptor.media_type) == media_type::DOCKER_MANIFEST,
    };
    let diff_ids = parsed.rootfs.diff_ids.clone();
    let mut changed = manifest.clone();
    for (layer, diff_id) in changed.layers.iter_mut().zip(&diff_ids) {
        *layer = shaped(store, layer, diff_id, shape, docker, sink)?;
    }
    changed.annotations.extend(shape.annotations.manifest.clone());
    let (manifest_type, config_type) = match docker {
        true => (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG),
        false => (media_type::OCI_MANIFEST, media_type::OCI_CONFIG),
    };
    // Some tools mix the two forms; what is to stay the same stays mixed.
    if shape.documents != Documents::Same {
        changed.config.media_type = config_type.into();
        if changed.media_type.is_some() || docker {
            changed.media_type = Some(manifest_type.into());
        }
    }
    let bytes = if changed == manifest { bytes } else { changed.to_bytes() };
    let platform = descriptor.platform.clone().unwrap_or_else(|| parsed.platform());
    Ok(Ready {
        stored: descriptor.digest,
        manifest: Document::new(manifest_type, bytes),
        config: Document { descriptor: changed.config, bytes: config },
        parsed,
        platform,
        layers: changed.layers.into_iter().zip(diff_ids).collect(),
    })
}

/// A layer as it leaves.
fn shaped(store: &Store, layer: &Descriptor, diff_id: &DiffId, shape: &Shape, docker: bool, sink: &dyn Sink) -> Result<Descriptor> {
    let here = store.has_blob(&layer.digest)? == Some(layer.size);
    let compression = match layer.media_type.as_str() {
        media_type::OCI_LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => Some(Compression::Gzip),
        media_type::OCI_LAYER_ZSTD => Some(Compression::Zstd),
        media_type::OCI_LAYER | media_type::DOCKER_LAYER => Some(Compression::None),
        _ => None,
    };
    // A layer made here is named by its tar, of which there is no blob.
    let keep = here && (shape.repack == Repack::New || compression == Some(shape.packing.compression));
    // Docker's documents have no name for zstd.
    let mut packing = shape.packing;
    if docker && packing.compression == Compression::Zstd {
        packing = Packing::default();
    }
    if keep && shape.documents == Documents::Same {
        return Ok(layer.clone());
    }
    let mut shaped = match keep && !(docker && compression == Some(Compression::Zstd)) {
        true => layer.clone(),
        false => Descriptor { annotations: layer.annotations.clone(), ..packed::packed(store, diff_id, packing, sink)? },
    };
    shaped.media_type = match (docker, shaped.media_type.as_str()) {
        (true, media_type::OCI_LAYER_GZIP) => media_type::DOCKER_LAYER_GZIP.into(),
        (true, media_type::OCI_LAYER) => media_type::DOCKER_LAYER.into(),
        (false, media_type::DOCKER_LAYER_GZIP) => media_type::OCI_LAYER_GZIP.into(),
        (false, media_type::DOCKER_LAYER) => media_type::OCI_LAYER.into(),
        _ => shaped.media_type,
    };
    Ok(shaped)
}

/// The index over images that may have changed.
fn over(
    store: &Store,
    descriptor: &Descriptor,
    images: &[Ready],
    before: &[&Descriptor],
    others: &[&Descriptor],
    shape: &Shape,
) -> Result<Document> {
    let bytes = store.read_blob(&descriptor.digest, LARGEST_DOCUMENT)?;
    let ManifestOrIndex::Index(index) = ManifestOrIndex::parse(&bytes, Some(&descriptor.media_type))? else {
        return Err(Error::with_kind(Kind::Corrupt, format!("`{}` is no index", descriptor.digest)));
    };
    let docker = match shape.documents {
        Documents::Oci => false,
        Documents::Docker => true,
        Documents::Same => index.media_type.as_deref().unwrap_or(&descriptor.media_type) == media_type::DOCKER_INDEX,
    };
    let media_type = if docker { media_type::DOCKER_INDEX } else { media_type::OCI_INDEX };
    let mut changed: Index = index.clone();
    if changed.media_type.is_some() || docker {
        changed.media_type = Some(media_type.into());
    }
    changed.annotations.extend(shape.annotations.index.clone());
    // What is not here (platforms not built) can't leave.
    changed.manifests.retain(|member| before.iter().chain(others).any(|leaves| leaves.digest == member.digest));
    for (image, before) in images.iter().zip(before) {
        for member in changed.manifests.iter_mut().filter(|member| member.digest == before.digest) {
            let Descriptor { media_type, digest, size, .. } = image.manifest.descriptor.clone();
            (member.media_type, member.digest, member.size) = (media_type, digest, size);
            member.annotations.extend(shape.annotations.manifest_descriptor.clone());
        }
    }
    let bytes = if changed == index { bytes } else { serde_json::to_vec(&changed).expect("an index has only string keys") };
    Ok(Document::new(media_type, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_subject_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("s")).unwrap();
        let subject = Subject { manifests: Vec::new(), index: None };
        assert!(Bundle::prepare(&store, &subject, &Shape::default(), &crate::event::Silent).is_err());
    }
}
