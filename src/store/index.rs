//! Indexes: one name for the images of several platforms, and for what stands beside these.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Store;
use super::image::{ImageRecord, LARGEST_DOCUMENT, Member};
use crate::error::{Error, Kind, Result};
use crate::oci::{Descriptor, Digest, Index, Links, ManifestOrIndex, Platform, Reference};

/// An index in an index is allowed, a chain of them is an attack.
pub const DEEPEST_INDEX: usize = 3;
/// More documents than this under one name are an attack; the largest index seen has some 40.
pub const MOST_DOCUMENTS: usize = 1000;

/// What an index has besides images to unpack (an attestation, a signature, another index), kept byte for byte so that the index can
/// go on as it came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Extra {
    /// Its document.
    pub manifest: Descriptor,
    /// The blobs that it names and that registries hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<Digest>,
}

impl Store {
    /// Names an index that is here with everything it has. The name alone means the image that serves `preferred`, else the first.
    ///
    /// What holds for [`Store::put_image`] holds here too. Errors: `NotFound` if something is missing, `Corrupt` for indexes nested too deep
    /// or with too many documents.
    pub fn put_index(&self, reference: &Reference, index: &Descriptor, preferred: &Platform) -> Result<ImageRecord> {
        let bytes = self.read_blob(&index.digest, LARGEST_DOCUMENT)?;
        let ManifestOrIndex::Index(document) = ManifestOrIndex::parse(&bytes, Some(&index.media_type))? else {
            return Err(Error::with_kind(Kind::Corrupt, format!("`{}` is an image manifest, not an index", index.digest)));
        };
        let (mut members, mut extras) = (Vec::new(), Extras::new(self));
        for manifest in &document.manifests {
            match self.is_image(manifest)? {
                true => members.push(self.member(manifest)?),
                false => extras.add(manifest, DEEPEST_INDEX)?,
            }
        }
        if members.is_empty() {
            return Err(Error::input(format!("the index `{}` has no images", index.digest)));
        }
        let chosen = chosen(&document, &members, preferred);
        let chosen = members.remove(chosen);
        let extras = extras.found.into_iter().map(|(extra, _)| extra).collect();
        self.put_record(ImageRecord::new(reference.clone(), chosen, Some(index.digest)).with(members, extras))
    }

    /// Gives what has a name a further one, with all that is here of its index.
    pub fn name_again(&self, record: &ImageRecord, reference: &Reference) -> Result<ImageRecord> {
        // Leased now, and found or not.
        for member in record.members().iter().filter(|_| record.has_image()) {
            self.member(&member.manifest)?;
        }
        for digest in record.index.iter().chain(record.extras.iter().flat_map(|extra| extra.blobs.iter().chain([&extra.manifest.digest]))) {
            self.has_blob(digest)?;
        }
        self.put_record(ImageRecord { reference: reference.clone(), ..record.clone() })
    }

    /// Whether a member of an index is an image to unpack; its document must be here.
    pub fn is_image(&self, member: &Descriptor) -> Result<bool> {
        let bytes = self.read_blob(&member.digest, LARGEST_DOCUMENT)?;
        // What is no manifest of a known kind is kept as it is.
        Ok(ManifestOrIndex::parse(&bytes, Some(&member.media_type)).is_ok_and(|document| document.image_of(member).is_some()))
    }

    /// What a member of an index that is no image consists of, with the blobs' descriptors: what a document names comes before it.
    pub fn extras(&self, member: &Descriptor) -> Result<Vec<(Extra, Vec<Descriptor>)>> {
        let mut extras = Extras::new(self);
        extras.add(member, DEEPEST_INDEX)?;
        Ok(extras.found)
    }
}

/// The image that serves a platform best, else the first.
pub(super) fn chosen(index: &Index, members: &[Member], preferred: &Platform) -> usize {
    let best = index.select(preferred).ok().map(|chosen| chosen.digest);
    members.iter().position(|member| Some(member.manifest.digest) == best).unwrap_or(0)
}

/// A walk through what is no image.
pub(super) struct Extras<'a> {
    store: &'a Store,
    seen: BTreeSet<Digest>,
    pub(super) found: Vec<(Extra, Vec<Descriptor>)>,
}

impl<'a> Extras<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store, seen: BTreeSet::new(), found: Vec::new() }
    }

    pub(super) fn add(&mut self, manifest: &Descriptor, deeper: usize) -> Result<()> {
        if !self.seen.insert(manifest.digest) {
            return Ok(());
        }
        let too_much = |why: &str| Err(Error::with_kind(Kind::Corrupt, "the index is not a sane one").cause(why));
        if self.seen.len() > MOST_DOCUMENTS {
            return too_much(&format!("it names more than {MOST_DOCUMENTS} documents"));
        }
        let links = Links::parse(&self.store.read_blob(&manifest.digest, LARGEST_DOCUMENT)?)?;
        if deeper == 0 && !links.manifests.is_empty() {
            return too_much("indexes within indexes");
        }
        for member in &links.manifests {
            self.add(member, deeper - 1)?;
        }
        let blobs = links.blobs();
        for blob in &blobs {
            if self.store.has_blob(&blob.digest)? != Some(blob.size) {
                return Err(Error::with_kind(Kind::NotFound, format!("blob `{}` is not in the storage directory", blob.digest))
                    .hint("pull the image again with `--all-platforms`"));
            }
        }
        let digests = blobs.iter().map(|blob| blob.digest).collect();
        self.found.push((Extra { manifest: manifest.clone(), blobs: digests }, blobs));
        Ok(())
    }
}
