//! Everything an index has: images with their layers unpacked, the rest as it came.

use std::collections::BTreeSet;

use super::layers::{self, Blobs, Fetch, Need, Wanted};
use crate::error::{Error, Kind, Result};
use crate::event::Sink;
use crate::oci::{Descriptor, Digest, ImageConfig, Index, Links, Manifest, ManifestOrIndex, Platform};
use crate::store::{DEEPEST_INDEX, MOST_DOCUMENTS, Store};

/// Where images come from.
pub(super) trait Documents: Blobs {
    /// A manifest or index: size and digest checked, stored.
    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>>;

    /// An image's config, likewise.
    fn config(&self, manifest: &Manifest) -> Result<ImageConfig>;

    /// What its layers are wanted for.
    fn need(&self) -> Need;
}

/// Fetches all members of an index, which is stored already, with everything under them. Small documents come first: when one of them is
/// missing or wrong, no layer has been fetched in vain. Returns the image that serves `preferred`, else the first.
pub(super) fn fetch(store: &Store, from: &dyn Documents, index: &Index, preferred: &Platform, sink: &dyn Sink) -> Result<Descriptor> {
    let mut walk = Walk { from, seen: BTreeSet::new(), layers: Vec::new(), total: 0, blobs: Vec::new() };
    let mut images = Vec::new();
    for member in &index.manifests {
        if walk.member(member)? == Is::Image {
            images.push(member.clone());
        }
    }
    let best = index.select(preferred).ok().filter(|chosen| images.contains(chosen)).or(images.first());
    let best = best.ok_or_else(|| Error::with_kind(Kind::NotFound, "there is no image in its index"))?.clone();
    let Walk { mut layers, total, blobs, .. } = walk;
    layers::largest_first(&mut layers);
    let fetch = Fetch { store, from, total, need: from.need(), sink };
    fetch.all(layers)?;
    fetch.keep(blobs)?;
    Ok(best)
}

/// What a member turned out to be.
#[derive(PartialEq)]
enum Is {
    Image,
    Other,
}

struct Walk<'a> {
    from: &'a dyn Documents,
    /// Documents.
    seen: BTreeSet<Digest>,
    layers: Vec<Wanted>,
    /// Layers of all images.
    total: usize,
    blobs: Vec<Descriptor>,
}

impl Walk<'_> {
    fn member(&mut self, member: &Descriptor) -> Result<Is> {
        let bytes = self.from.document(member)?;
        let document = ManifestOrIndex::parse(&bytes, Some(&member.media_type));
        let Some(manifest) = document.as_ref().ok().and_then(|document| document.image_of(member)) else {
            return self.other(member, DEEPEST_INDEX).map(|()| Is::Other);
        };
        self.count(member)?;
        let config = self.from.config(manifest)?;
        let mut wanted = layers::wanted(manifest, &config)?;
        wanted.retain(|new| !self.layers.iter().any(|old| old.is_same(new)));
        wanted.iter_mut().for_each(|layer| layer.renumber(self.total));
        self.total += manifest.layers.len();
        self.layers.extend(wanted);
        Ok(Is::Image)
    }

    /// Something that is no image to unpack.
    fn other(&mut self, member: &Descriptor, deeper: usize) -> Result<()> {
        if self.seen.contains(&member.digest) {
            return Ok(());
        }
        self.count(member)?;
        let links = Links::parse(&self.from.document(member)?)?;
        if deeper == 0 && !links.manifests.is_empty() {
            return Err(Error::with_kind(Kind::Corrupt, "the index is not a sane one").cause("indexes within indexes"));
        }
        for member in &links.manifests {
            self.other(member, deeper - 1)?;
        }
        let new = links.blobs().into_iter().filter(|blob| self.blobs.iter().all(|known| known.digest != blob.digest));
        let new: Vec<Descriptor> = new.collect();
        self.blobs.extend(new);
        Ok(())
    }

    fn count(&mut self, member: &Descriptor) -> Result<()> {
        self.seen.insert(member.digest);
        if self.seen.len() <= MOST_DOCUMENTS {
            return Ok(());
        }
        let why = format!("it names more than {MOST_DOCUMENTS} documents");
        Err(Error::with_kind(Kind::Corrupt, "the index is not a sane one").cause(why))
    }
}
