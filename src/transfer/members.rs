//! Images on their way into a manifest list: brought here without a name, each with what the list says of it.

use super::copy::{Means, Source, bring};
use super::place::Place;
use super::read::Platforms;
use crate::error::Result;
use crate::oci::{Descriptor, Digest, ManifestOrIndex, Platform, Reference};
use crate::store::Store;

/// Which images of what a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which<'a> {
    /// The one for a platform.
    One(&'a Platform),
    /// All, and what an index has beside them, such as attestations.
    All,
}

/// Brings images of a place here, leased. Each descriptor says its platform, and what the index they came from said besides.
pub fn members(means: &Means<'_>, place: &Place, which: Which<'_>) -> Result<Vec<Descriptor>> {
    let store = means.store;
    let platforms = match which {
        Which::One(platform) => Platforms::One(platform.clone()),
        Which::All => Platforms::All,
    };
    let brought = bring(means, &Source { place, digest: None, platforms: &platforms })?;
    if let (Which::All, Some(index)) = (which, &brought.subject.index) {
        return index_of(store, &index.digest);
    }
    Ok(vec![described(store, brought.manifest(), brought.index())?])
}

/// What an index says of an image: its platform, by the index it came from or else by its config.
fn described(store: &Store, manifest: &Descriptor, index: Option<&Digest>) -> Result<Descriptor> {
    if let Some(digest) = index
        && let Some(member) = index_of(store, digest)?.into_iter().find(|member| member.digest == manifest.digest)
        && member.platform.is_some()
    {
        return Ok(member);
    }
    let name: Reference = "member".parse()?;
    let platform = store.unnamed_image(&name, manifest)?.config.platform();
    Ok(Descriptor { platform: Some(platform), ..manifest.clone() })
}

fn index_of(store: &Store, digest: &Digest) -> Result<Vec<Descriptor>> {
    let bytes = store.read_blob(digest, super::pull::LONGEST_MANIFEST)?;
    Ok(match ManifestOrIndex::parse(&bytes, None)? {
        ManifestOrIndex::Index(index) => index.manifests,
        ManifestOrIndex::Manifest(_) => Vec::new(),
    })
}
