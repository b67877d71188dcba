//! An image from a registry into the storage directory.

use std::io::Read;

use super::bundle::Subject;
use super::client::Client;
use super::layers::{self, Blobs, Fetch, Need};
use super::read::ReadImage;
use super::signatures::Demands;
use super::whole::{self, Documents};
use crate::error::{Error, Kind, Place, Result, quote};
use crate::event::{Event, Sink};
use crate::oci::{Descriptor, Digest, ImageConfig, Manifest, ManifestOrIndex, Platform, Reference, media_type};
use crate::registry;
use crate::store::{ImageRecord, Store};

/// Manifests and indexes are at most this long.
pub(super) const LONGEST_MANIFEST: u64 = 4 << 20;
/// Configs hold one entry an instruction; the longest seen have some 100 kB.
pub(super) const LONGEST_CONFIG: u64 = 8 << 20;
pub(super) const DEEPEST_INDEX: usize = crate::store::DEEPEST_INDEX;

/// How to pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullOptions {
    /// Which of an index' images.
    pub platform: Platform,
    /// What its layers are wanted for. Without their files an image can't have a name here.
    pub need: Need,
}

/// Brings an image here under its name, whatever the name meant before.
///
/// What is here already is not fetched; an unchanged image costs one request, a pinned one none. On error the name still means
/// what it did, and what has arrived stays for the next attempt.
pub fn pull(store: &Store, client: &Client, reference: &Reference, options: &PullOptions, sink: &dyn Sink) -> Result<ImageRecord> {
    let image = fetch(store, client, reference, options, sink)?;
    store.put_image(reference, &image.manifest, image.index.as_ref())
}

/// Brings an index here with everything it has, whatever the name meant before; where the name stands for a single image, that.
///
/// The name alone then means the image that serves `options`' platform, else the index' first. What holds for [`pull`] holds here too.
pub fn pull_all(store: &Store, client: &Client, reference: &Reference, options: &PullOptions, sink: &dyn Sink) -> Result<ImageRecord> {
    let image = fetch_all(store, client, reference, options, sink)?;
    match &image.index {
        Some(index) => {
            let index = Subject::of_index(store, index)?.index.expect("it is of an index");
            store.put_index(reference, &index, &options.platform)
        }
        None => store.put_image(reference, &image.manifest, None),
    }
}

/// The same as [`pull`] without a name: documents, layers and blobs are here afterwards, leased.
pub(super) fn fetch(store: &Store, client: &Client, reference: &Reference, options: &PullOptions, sink: &dyn Sink) -> Result<ReadImage> {
    let pull =
        Pull { store, client: client.registry()?, reference, demands: Demands::of(client.settings(), reference)?, need: options.need };
    pull.image(pull.named()?, options, sink)
}

/// The same as [`pull_all`] without a name.
pub(super) fn fetch_all(
    store: &Store,
    client: &Client,
    reference: &Reference,
    options: &PullOptions,
    sink: &dyn Sink,
) -> Result<ReadImage> {
    let pull =
        Pull { store, client: client.registry()?, reference, demands: Demands::of(client.settings(), reference)?, need: options.need };
    let (digest, bytes, stated) = pull.named()?;
    let document = ManifestOrIndex::parse(&bytes, stated.as_deref()).map_err(|e| pull.at(digest, e))?;
    let ManifestOrIndex::Index(index) = document else { return pull.image((digest, bytes, stated), options, sink) };
    pull.demands.check(pull.client, &[digest])?;
    store.put_blob(&bytes)?;
    let manifest = whole::fetch(store, &pull, &index, &options.platform, sink)?;
    Ok(ReadImage { manifest, index: Some(digest), names: vec![reference.to_string()] })
}

/// The image a name means for a platform, and the index it is chosen from; both documents are here afterwards, config and layers are not.
pub(super) fn chosen(store: &Store, client: &Client, reference: &Reference, platform: &Platform) -> Result<(Digest, Option<Digest>)> {
    let pull =
        Pull { store, client: client.registry()?, reference, demands: Demands::of(client.settings(), reference)?, need: Need::Files };
    let chosen = pull.manifest(pull.named()?, platform)?;
    Ok((chosen.descriptor.digest, chosen.index))
}

/// An image's config from a registry; its layers stay there.
pub fn config(store: &Store, client: &Client, reference: &Reference, platform: &Platform) -> Result<ImageConfig> {
    let pull =
        Pull { store, client: client.registry()?, reference, demands: Demands::of(client.settings(), reference)?, need: Need::Files };
    pull.config(&pull.manifest(pull.named()?, platform)?.manifest)
}

/// The platform's manifest, stored.
struct Chosen {
    descriptor: Descriptor,
    manifest: Manifest,
    /// What the name stands for, if that is not the manifest itself.
    index: Option<Digest>,
}

/// Digest and bytes of a document, and what its server calls it.
type Named = (Digest, Vec<u8>, Option<String>);

struct Pull<'a> {
    store: &'a Store,
    client: &'a registry::Client,
    reference: &'a Reference,
    demands: Demands,
    need: Need,
}

impl Pull<'_> {
    /// What was named, or its image for a platform, with all its layers.
    fn image(&self, named: Named, options: &PullOptions, sink: &dyn Sink) -> Result<ReadImage> {
        let Chosen { descriptor, manifest, index } = self.manifest(named, &options.platform)?;
        self.demands.check(self.client, &[Some(descriptor.digest), index].into_iter().flatten().collect::<Vec<_>>())?;
        let config = self.config(&manifest)?;
        let platform = config.platform();
        if platform.serves(&options.platform).is_none() && !platform.architecture.is_empty() {
            let text = format!("{} is for platform {platform}, not {}", quote(self.reference.familiar()), options.platform);
            sink.event(Event::Warning(&text));
        }
        let wanted = layers::wanted(&manifest, &config)?;
        Fetch { store: self.store, from: self, total: manifest.layers.len(), need: self.need, sink }.all(wanted)?;
        Ok(ReadImage { manifest: descriptor, index, names: vec![self.reference.to_string()] })
    }

    fn manifest(&self, named: Named, platform: &Platform) -> Result<Chosen> {
        let (mut digest, mut bytes, mut media_type) = named;
        let mut first_index = None;
        for _ in 0..=DEEPEST_INDEX {
            let index = match ManifestOrIndex::parse(&bytes, media_type.as_deref()).map_err(|e| self.at(digest, e))? {
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
    fn named(&self) -> Result<Named> {
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
        let bytes = match self.stored(&member.digest)? {
            Some(bytes) => bytes,
            None => {
                let pinned: Reference = self.reference.canonical(member.digest).to_string().parse()?;
                // What is neither image nor index is served under its own type alone.
                let accepted = [&[member.media_type.as_str()][..], &media_type::ACCEPTED_MANIFESTS].concat();
                self.client.manifest(&pinned, &accepted)?.bytes
            }
        };
        if bytes.len() as u64 != member.size {
            let (said, has) = (member.size, bytes.len());
            return Err(self.corrupt(format!("the index says {said} bytes, manifest {} has {has}", member.digest)));
        }
        Ok((bytes, stated))
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

    fn at(&self, digest: Digest, error: Error) -> Error {
        error.at(Place::Name(self.reference.canonical(digest).to_string()))
    }

    fn corrupt(&self, why: String) -> Error {
        Error::with_kind(Kind::Corrupt, format!("can't pull {}", quote(self.reference.familiar()))).cause(why)
    }
}

impl Blobs for Pull<'_> {
    fn image(&self) -> String {
        self.reference.familiar()
    }

    fn open(&self, descriptor: &Descriptor, offset: u64) -> Result<(Box<dyn Read + '_>, String)> {
        let stream = self.client.blob(self.reference, descriptor, offset)?;
        let host = stream.host().to_owned();
        Ok((Box::new(stream), host))
    }
}

impl Documents for Pull<'_> {
    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let (bytes, _) = self.member(descriptor)?;
        self.store.put_blob(&bytes)?;
        Ok(bytes)
    }

    fn config(&self, manifest: &Manifest) -> Result<ImageConfig> {
        Pull::config(self, manifest)
    }

    fn need(&self) -> Need {
        self.need
    }
}
