//! Images on their way into a manifest list: brought here without a name, each with what the list says of it.

use super::copy::{Means, Source, bring};
use super::place::Place;
use super::pull::{PullOptions, fetch};
use super::read::Platforms;
use crate::error::Result;
use crate::oci::{Descriptor, Digest, ManifestOrIndex, Platform, Reference, media_type};
use crate::store::Store;

/// Which images of what a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which<'a> {
    /// The one for a platform.
    One(&'a Platform),
    /// All. Attestations are no images.
    All,
}

/// Brings images of a place here, leased. Each descriptor says its platform, and what the index they came from said besides.
pub fn members(means: &Means<'_>, place: &Place, which: Which<'_>) -> Result<Vec<Descriptor>> {
    let store = means.store;
    let platforms = match which {
        Which::One(platform) => Platforms::One(platform.clone()),
        Which::All => Platforms::All,
    };
    if let (Place::Registry { reference, .. }, Which::All) = (place, which) {
        return all_of_registry(means, reference);
    }
    let brought = bring(means, &Source { place, digest: None, platforms: &platforms })?;
    if let (Which::All, Some(index)) = (which, &brought.subject.index) {
        let mut members = index_of(store, &index.digest)?;
        members.retain(|member| !member.is_attestation());
        return Ok(members);
    }
    Ok(vec![described(store, brought.manifest(), brought.index())?])
}

fn all_of_registry(means: &Means<'_>, reference: &Reference) -> Result<Vec<Descriptor>> {
    let Means { store, client, sink } = *means;
    let fetched = client.registry()?.manifest(reference, &media_type::ACCEPTED_MANIFESTS)?;
    let ManifestOrIndex::Index(index) = ManifestOrIndex::parse(&fetched.bytes, fetched.media_type.as_deref())? else {
        let image = fetch(store, client, reference, &PullOptions { platform: Platform::host() }, sink)?;
        return Ok(vec![described(store, &image.manifest, None)?]);
    };
    let mut members = index.manifests;
    members.retain(|member| !member.is_attestation());
    for member in &members {
        let pinned: Reference = reference.canonical(member.digest).to_string().parse()?;
        let options = PullOptions { platform: member.platform.clone().unwrap_or_else(Platform::host) };
        fetch(store, client, &pinned, &options, sink)?;
    }
    Ok(members)
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
