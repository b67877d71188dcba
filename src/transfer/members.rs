//! Images on their way into a manifest list: brought here without a name, each with what the list says of it.

use super::client::Client;
use super::place::Place;
use super::pull::{PullOptions, fetch};
use super::read::{self, Form, ReadImage, ReadRequest};
use crate::error::{Error, Kind, Result};
use crate::event::Sink;
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
pub fn members(store: &Store, client: &Client, place: &Place, which: Which<'_>, sink: &dyn Sink) -> Result<Vec<Descriptor>> {
    let host = Platform::host();
    let platform = if let Which::One(platform) = which { platform } else { &host };
    let (form, path, name) = match place {
        Place::Registry { reference, .. } => return of_registry(store, client, reference, which, sink),
        Place::OciArchive { file, name } => (Form::Archive, file, name.clone()),
        Place::OciLayout { directory, name } => (Form::Layout, directory, name.clone()),
        Place::DockerArchive { file, name } => (Form::DockerArchive, file, name.as_ref().map(ToString::to_string)),
        _ => {
            return Err(Error::with_kind(Kind::Unsupported, format!("can't take an image from `{place}` into a list"))
                .hint("bring it here first, by `rootling import` or `rootling pull`, and give its name"));
        }
    };
    let image = |digest: Option<&Digest>, platform: &Platform| {
        let request = ReadRequest { form, path, name: name.as_deref(), digest, platform };
        read::read(store, &request, sink)
    };
    let first = image(None, platform)?;
    let mut inner = match (which, first.index) {
        (Which::All, Some(digest)) => index(store, &digest)?,
        _ => return Ok(vec![described(store, &first)?]),
    };
    inner.retain(|member| !member.is_attestation());
    for member in &inner {
        image(Some(&member.digest), member.platform.as_ref().unwrap_or(&host))?;
    }
    Ok(inner)
}

fn of_registry(store: &Store, client: &Client, reference: &Reference, which: Which<'_>, sink: &dyn Sink) -> Result<Vec<Descriptor>> {
    if let Which::One(platform) = which {
        let options = PullOptions { platform: platform.clone() };
        return Ok(vec![described(store, &fetch(store, client, reference, &options, sink)?)?]);
    }
    let fetched = client.registry()?.manifest(reference, &media_type::ACCEPTED_MANIFESTS)?;
    let ManifestOrIndex::Index(index) = ManifestOrIndex::parse(&fetched.bytes, fetched.media_type.as_deref())? else {
        return of_registry(store, client, reference, Which::One(&Platform::host()), sink);
    };
    let mut members = Vec::new();
    for member in index.manifests.into_iter().filter(|member| !member.is_attestation()) {
        let pinned: Reference = reference.canonical(member.digest).to_string().parse()?;
        let options = PullOptions { platform: member.platform.clone().unwrap_or_else(Platform::host) };
        fetch(store, client, &pinned, &options, sink)?;
        members.push(member);
    }
    Ok(members)
}

/// What an index says of an image: its platform, by the index it came from or else by its config.
fn described(store: &Store, image: &ReadImage) -> Result<Descriptor> {
    if let Some(digest) = &image.index
        && let Some(member) = index(store, digest)?.into_iter().find(|member| member.digest == image.manifest.digest)
        && member.platform.is_some()
    {
        return Ok(member);
    }
    let name: Reference = "member".parse()?;
    let platform = store.unnamed_image(&name, &image.manifest)?.config.platform();
    Ok(Descriptor { platform: Some(platform), ..image.manifest.clone() })
}

fn index(store: &Store, digest: &Digest) -> Result<Vec<Descriptor>> {
    let bytes = store.read_blob(digest, super::pull::LONGEST_MANIFEST)?;
    Ok(match ManifestOrIndex::parse(&bytes, None)? {
        ManifestOrIndex::Index(index) => index.manifests,
        ManifestOrIndex::Manifest(_) => Vec::new(),
    })
}
