//! Looking at an image where it is: its documents and no layer.

use super::client::Client;
use super::place::Place;
use super::pull::{DEEPEST_INDEX, LONGEST_CONFIG};
use super::read::{Form, Images, Platforms, ReadRequest};
use crate::error::{Error, Kind, Result, quote};
use crate::oci::{Descriptor, Digest, ImageConfig, Manifest, ManifestOrIndex, Platform, Reference, media_type};
use crate::registry;
use crate::store::Store;

/// What a name stands for in another place.
pub struct Looked<'a> {
    source: Box<dyn Source + 'a>,
    /// The manifest or index.
    pub bytes: Vec<u8>,
    /// What the place says they are.
    pub media_type: Option<String>,
    /// Their digest.
    pub digest: Digest,
}

/// One image of it.
#[derive(Clone, Debug)]
pub struct LookedImage {
    /// Its manifest's descriptor.
    pub descriptor: Descriptor,
    /// Its manifest, as it is kept there.
    pub manifest_bytes: Vec<u8>,
    /// The same, read.
    pub manifest: Manifest,
    /// Its config, as it is kept there.
    pub config_bytes: Vec<u8>,
    /// The same, read.
    pub config: ImageConfig,
}

/// Where documents are.
trait Source {
    /// A manifest.
    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>>;
    /// Another document; digest and size hold.
    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>>;
    /// The tags beside it.
    fn tags(&self) -> Result<Vec<String>>;
}

/// Looks at a place. `store`, which all but registries need, keeps small documents until something is pruned.
///
/// Errors: `Unsupported` for a place whose images have no documents of their own.
pub fn at<'a>(client: &'a Client, place: &'a Place, store: Option<&'a Store>) -> Result<Looked<'a>> {
    let (form, path, name) = match (place, store) {
        (Place::Registry { reference, .. }, _) => {
            let client = client.registry()?;
            let fetched = client.manifest(reference, &media_type::ACCEPTED_MANIFESTS)?;
            let source = Box::new(Repository { client, reference });
            return Ok(Looked { source, bytes: fetched.bytes, media_type: fetched.media_type, digest: fetched.digest });
        }
        (Place::OciArchive { file, name }, Some(_)) => (Form::Archive, file, name.as_deref()),
        (Place::OciLayout { directory, name }, Some(_)) => (Form::Layout, directory, name.as_deref()),
        _ => {
            return Err(Error::with_kind(Kind::Unsupported, format!("can't look at `{place}` from outside"))
                .cause("an image there has no manifest before it is read as a whole")
                .hint("bring it here first, by `rootling load` or `rootling convert`"));
        }
    };
    let images = Images::open(store.expect("checked above"), path, Some(form))?;
    let (bytes, media_type) = images.root(&ReadRequest { name, digest: None, platforms: &Platforms::All })?;
    let digest = Digest::of(&bytes);
    Ok(Looked { source: Box::new(images), bytes, media_type, digest })
}

impl Looked<'_> {
    /// The manifest or index, read.
    pub fn document(&self) -> Result<ManifestOrIndex> {
        ManifestOrIndex::parse(&self.bytes, self.media_type.as_deref())
    }

    /// The tags of the repository; none where there are no repositories.
    pub fn tags(&self) -> Result<Vec<String>> {
        self.source.tags()
    }

    /// The image for a platform, by default this machine's, or the only one.
    pub fn image(&self, platform: Option<&Platform>) -> Result<LookedImage> {
        let host = Platform::host();
        let (mut bytes, mut stated, mut digest) = (self.bytes.clone(), self.media_type.clone(), self.digest);
        for _ in 0..=DEEPEST_INDEX {
            match ManifestOrIndex::parse(&bytes, stated.as_deref())? {
                ManifestOrIndex::Manifest(manifest) => return self.with_config(bytes, manifest, stated, digest, platform),
                ManifestOrIndex::Index(index) => {
                    let images: Vec<&Descriptor> = index.manifests.iter().filter(|member| !member.is_attestation()).collect();
                    let member = match (index.select(platform.unwrap_or(&host)), &images[..]) {
                        (Ok(member), _) => member,
                        // Nobody asked for this machine's.
                        (Err(_), [only]) if platform.is_none() => *only,
                        (Err(error), _) => return Err(error),
                    };
                    bytes = self.source.manifest(member)?;
                    (stated, digest) = (Some(member.media_type.clone()), member.digest);
                }
            }
        }
        Err(Error::with_kind(Kind::Corrupt, "indexes within indexes"))
    }

    fn with_config(
        &self,
        manifest_bytes: Vec<u8>,
        manifest: Manifest,
        stated: Option<String>,
        digest: Digest,
        platform: Option<&Platform>,
    ) -> Result<LookedImage> {
        if !matches!(manifest.config.media_type.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG) {
            return Err(Error::with_kind(Kind::Unsupported, "it is not a container image")
                .cause(format!("its config has media type {}", quote(&manifest.config.media_type)))
                .hint("`--raw` shows its manifest"));
        }
        let config_bytes = self.source.blob(&manifest.config)?;
        let config: ImageConfig = serde_json::from_slice(&config_bytes)
            .map_err(|e| Error::with_kind(Kind::Corrupt, format!("invalid config {}", manifest.config.digest)).cause(e))?;
        if let Some(wanted) = platform
            && !config.architecture.is_empty()
            && config.platform().serves(wanted).is_none()
        {
            return Err(Error::with_kind(Kind::NotFound, format!("no image for platform `{wanted}`"))
                .cause(format!("there is one image, for {}", config.platform())));
        }
        let media_type = manifest.media_type.clone().or(stated).unwrap_or_else(|| media_type::OCI_MANIFEST.into());
        let descriptor = Descriptor::new(&media_type, digest, manifest_bytes.len() as u64);
        Ok(LookedImage { descriptor, manifest_bytes, manifest, config_bytes, config })
    }
}

struct Repository<'a> {
    client: &'a registry::Client,
    reference: &'a Reference,
}

impl Source for Repository<'_> {
    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let pinned: Reference = self.reference.canonical(descriptor.digest).to_string().parse()?;
        Ok(self.client.manifest(&pinned, &media_type::ACCEPTED_MANIFESTS)?.bytes)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        self.client.blob_bytes(self.reference, descriptor, LONGEST_CONFIG)
    }

    fn tags(&self) -> Result<Vec<String>> {
        self.client.tags(self.reference)
    }
}

impl Source for Images<'_> {
    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        self.document(descriptor)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        self.document(descriptor)
    }

    fn tags(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}
