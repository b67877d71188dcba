//! An image from a registry into the storage directory.

use super::client::Client;
use super::layers::{self, Fetch, Repository};
use super::read::ReadImage;
use super::signatures::Demands;
use crate::error::{Error, Kind, Result, quote};
use crate::event::{Event, Sink};
use crate::oci::{Descriptor, Digest, ImageConfig, Manifest, ManifestOrIndex, Platform, Reference, media_type};
use crate::registry;
use crate::store::{ImageRecord, Store};

/// Manifests and indexes are at most this long.
pub(super) const LONGEST_MANIFEST: u64 = 4 << 20;
/// Configs hold one entry an instruction; the longest seen have some 100 kB.
pub(super) const LONGEST_CONFIG: u64 = 8 << 20;
/// An index in an index is allowed, a chain of them is an attack.
pub(super) const DEEPEST_INDEX: usize = 3;

/// How to pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullOptions {
    /// Which of an index' images.
    pub platform: Platform,
}

/// Brings an image here under its name, whatever the name meant before.
///
/// What is here already is not fetched; an unchanged image costs one request, a pinned one none. On error the name still means
/// what it did, and what has arrived stays for the next attempt.
pub fn pull(store: &Store, client: &Client, reference: &Reference, options: &PullOptions, sink: &dyn Sink) -> Result<ImageRecord> {
    let image = fetch(store, client, reference, options, sink)?;
    store.put_image(reference, &image.manifest, image.index.as_ref())
}

/// The same without a name: documents, layers and blobs are here afterwards, leased.
pub(super) fn fetch(store: &Store, client: &Client, reference: &Reference, options: &PullOptions, sink: &dyn Sink) -> Result<ReadImage> {
    let demands = Demands::of(client.settings(), reference)?;
    let pull = Pull { store, client: client.registry()?, reference };
    let Chosen { descriptor, manifest, index } = pull.manifest(&options.platform)?;
    demands.check(pull.client, &[Some(descriptor.digest), index].into_iter().flatten().collect::<Vec<_>>())?;
    let config = pull.config(&manifest)?;
    let platform = config.platform();
    if platform.serves(&options.platform).is_none() && !platform.architecture.is_empty() {
        let text = format!("{} is for platform {platform}, not {}", quote(reference.familiar()), options.platform);
        sink.event(Event::Warning(&text));
    }
    let wanted = layers::wanted(&manifest, &config)?;
    let from = Repository { client: pull.client, reference };
    let fetch = Fetch { store, from: &from, total: manifest.layers.len(), sink };
    fetch.all(wanted)?;
    Ok(ReadImage { manifest: descriptor, index, names: vec![reference.to_string()] })
}

/// The image a name means for a platform, and the index it is chosen from; both documents are here afterwards, config and layers are not.
pub(super) fn chosen(store: &Store, client: &Client, reference: &Reference, platform: &Platform) -> Result<(Digest, Option<Digest>)> {
    let chosen = Pull { store, client: client.registry()?, reference }.manifest(platform)?;
    Ok((chosen.descriptor.digest, chosen.index))
}

/// An image's config from a registry; its layers stay there.
pub fn config(store: &Store, client: &Client, reference: &Reference, platform: &Platform) -> Result<ImageConfig> {
    let pull = Pull { store, client: client.registry()?, reference };
    pull.config(&pull.manifest(platform)?.manifest)
}

/// The platform's manifest, stored.
struct Chosen {
    descriptor: Descriptor,
    manifest: Manifest,
    /// What the name stands for, if that is not the manifest itself.
    index: Option<Digest>,
}

struct Pull<'a> {
    store: &'a Store,
    client: &'a registry::Client,
    reference: &'a Reference,
}

impl Pull<'_> {
    fn manifest(&self, platform: &Platform) -> Result<Chosen> {
        let (mut digest, mut bytes, mut media_type) = self.named()?;
        let mut first_index = None;
        for _ in 0..=DEEPEST_INDEX {
            let at = |e: Error| e.at(crate::error::Place::Name(self.reference.canonical(digest).to_string()));
            let index = match ManifestOrIndex::parse(&bytes, media_type.as_deref()).map_err(at)? {
                ManifestOrIndex::Manifest(manifest) => {
                    self.store.put_blob(&bytes)?;
                    let media_type = manifest.media_type.clone().or(media_type).unwrap_or_else(|| media_type::OCI_MANIFEST.into());
                    let descriptor = Descriptor::new(&media_type, digest, bytes.len() as u64);
                    return Ok(Chosen { descriptor, manifest, index: first_index });
                }
                ManifestOrIndex::Index(index) => index,
            };
            // Kept so that the next pull of an unchanged tag needs no second request.
            self.store.put_blob(&bytes)?;
            first_index.get_or_insert(digest);
            let member = index.select(platform).map_err(|e| e.context(format!("can't pull {}", quote(self.reference.familiar()))))?;
            (bytes, media_type) = self.member(member)?;
            digest = member.digest;
        }
        Err(self.corrupt("indexes within indexes".into()))
    }

    /// What the reference names, from here if the registry says that it is the same.
    fn named(&self) -> Result<(Digest, Vec<u8>, Option<String>)> {
        let known = match self.reference.digest() {
            Some(digest) => Some(*digest),
            // Asking for the digest alone is free where fetching counts (Docker Hub), but a request too many for a new image.
            // Not all registries answer; then the fetch below says what is wrong.
            None if self.store.image(self.reference)?.is_some() => self.client.digest(self.reference).ok().flatten(),
            None => None,
        };
        if let Some(digest) = known
            && let Some(bytes) = self.stored(&digest)?
        {
            return Ok((digest, bytes, None));
        }
        let fetched = self.client.manifest(self.reference, &media_type::ACCEPTED_MANIFESTS)?;
        Ok((fetched.digest, fetched.bytes, fetched.media_type))
    }

    /// A member of an index.
    fn member(&self, member: &Descriptor) -> Result<(Vec<u8>, Option<String>)> {
        let stated = Some(member.media_type.clone());
        if let Some(bytes) = self.stored(&member.digest)? {
            return Ok((bytes, stated));
        }
        let pinned: Reference = self.reference.canonical(member.digest).to_string().parse()?;
        let fetched = self.client.manifest(&pinned, &media_type::ACCEPTED_MANIFESTS)?;
        if fetched.bytes.len() as u64 != member.size {
            return Err(self.corrupt(format!(
                "the index says {} bytes, manifest {} has {}",
                member.size,
                member.digest,
                fetched.bytes.len()
            )));
        }
        Ok((fetched.bytes, stated))
    }

    fn config(&self, manifest: &Manifest) -> Result<ImageConfig> {
        let descriptor = &manifest.config;
        if !matches!(descriptor.media_type.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG) {
            return Err(Error::with_kind(Kind::Unsupported, format!("{} is not a container image", quote(self.reference.familiar())))
                .cause(format!("its config has media type {}", quote(&descriptor.media_type))));
        }
        let bytes = match self.stored(&descriptor.digest)? {
            Some(bytes) => bytes,
            None => {
                let bytes = self.client.blob_bytes(self.reference, descriptor, LONGEST_CONFIG)?;
                self.store.put_blob(&bytes)?;
                bytes
            }
        };
        serde_json::from_slice(&bytes).map_err(|e| self.corrupt(format!("invalid config {}: {e}", descriptor.digest)))
    }

    /// A small blob that is here and whole.
    fn stored(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        if self.store.has_blob(digest)?.is_none() {
            return Ok(None);
        }
        match self.store.read_blob(digest, LONGEST_MANIFEST.max(LONGEST_CONFIG)) {
            Ok(bytes) => Ok(Some(bytes)),
            // After a power cut: fetched again, it is replaced.
            Err(e) if e.kind() == Kind::Corrupt => {
                self.store.discard_blob(digest)?;
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    fn corrupt(&self, why: String) -> Error {
        Error::with_kind(Kind::Corrupt, format!("can't pull {}", quote(self.reference.familiar()))).cause(why)
    }
}
