//! Build steps that travel: what they made, by their cache keys, with the layers, as an image of a media type of our own.
//!
//! `doc/cache.md` describes the form. What a key means is `build`'s business. A cache is somebody else's word for what a step makes: that bytes
//! have their digests is checked, that a step makes them can't be.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bundle::{Bundle, Document};
use super::client::Client;
use super::layers::{self, Blobs, Fetch, Need};
use super::packed::{self, Packing};
use super::{push, write};
use crate::error::{Error, IoContext as _, Kind, Result, quote, quote_path};
use crate::event::Sink;
use crate::oci::{Descriptor, DiffId, Digest, ImageConfig, Index, Manifest, ManifestOrIndex, Platform, Reference, media_type};
use crate::store::Store;

/// The media type of the config of an image that holds steps.
pub const CACHE_CONFIG: &str = "application/vnd.rootling.cache.v1+json";
/// The field of an image's config that holds its own steps.
pub const INLINE_FIELD: &str = "rootling.cache.v1";
/// A hundred bytes a step.
const LONGEST_DOCUMENT: u64 = 32 << 20;
/// The name of a cache in a layout that names none.
pub const DEFAULT_TAG: &str = "latest";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Where steps are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepPlace {
    /// A registry; an image with its own steps will do as well.
    Registry(Reference),
    /// An OCI layout.
    Layout {
        /// The directory.
        directory: PathBuf,
        /// The name in it.
        tag: String,
    },
}

impl std::fmt::Display for StepPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry(reference) => write!(f, "{}", quote(reference.familiar())),
            Self::Layout { directory, .. } => write!(f, "{}", quote_path(directory)),
        }
    }
}

/// What a step made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeStep {
    /// The step's cache key.
    pub key: Digest,
    /// Its layer; none if it changed nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<DiffId>,
    /// When it was made, as configs have it.
    pub created: String,
}

/// The config of an image that holds steps, and what [`INLINE_FIELD`] holds.
#[derive(Serialize, Deserialize)]
struct StepDocument {
    steps: Vec<MadeStep>,
    /// What the manifest's layers unpack to, in its order. An image's own steps have those of the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    diff_ids: Vec<DiffId>,
}

/// The value of [`INLINE_FIELD`].
pub fn inline(steps: &[MadeStep]) -> Value {
    serde_json::to_value(StepDocument { steps: steps.to_vec(), diff_ids: Vec::new() }).expect("plain data")
}

/// Steps from one place; layers are fetched when they are asked for.
#[derive(Debug)]
pub struct StepCache {
    place: StepPlace,
    steps: BTreeMap<Digest, MadeStep>,
    /// By diff ID: how the place has it.
    layers: BTreeMap<DiffId, Descriptor>,
}

impl StepCache {
    /// Reads which steps a place has, for some platforms where it has an index. No layer is read.
    ///
    /// Errors: no such place, not a cache, anything that is not what it says.
    pub fn load(client: &Client, place: &StepPlace, platforms: &[Platform]) -> Result<Self> {
        let mut cache = Self { place: place.clone(), steps: BTreeMap::new(), layers: BTreeMap::new() };
        let source = Source { client, place };
        for manifest in source.manifests(platforms)? {
            cache.add(&source, &manifest)?;
        }
        Ok(cache)
    }

    /// Where it is.
    pub fn place(&self) -> &StepPlace {
        &self.place
    }

    /// What the place says a step made; only if it has the layer, too.
    pub fn step(&self, key: &Digest) -> Option<&MadeStep> {
        self.steps.get(key).filter(|step| step.layer.is_none_or(|layer| self.layers.contains_key(&layer)))
    }

    /// Brings a layer here, if it is not; returns the size of its tar.
    pub fn fetch(&self, store: &Store, client: &Client, diff_id: &DiffId, sink: &dyn Sink) -> Result<u64> {
        let missing = || Error::with_kind(Kind::NotFound, format!("layer {} is not in the cache", quote(diff_id.to_string())));
        if store.layer(diff_id)?.is_none() {
            let descriptor = self.layers.get(diff_id).ok_or_else(missing)?;
            let mut config = ImageConfig::scratch(&Platform::host());
            config.rootfs.diff_ids.push(*diff_id);
            let wanted = layers::wanted(&Manifest::oci(Descriptor::new(CACHE_CONFIG, diff_id.0, 0), vec![descriptor.clone()]), &config)?;
            let source = Source { client, place: &self.place };
            Fetch { store, from: &source, total: 1, need: Need::Files, sink }.all(wanted)?;
        }
        store.layer(diff_id)?.map(|layer| layer.size).ok_or_else(missing)
    }

    fn add(&mut self, source: &Source<'_>, manifest: &Manifest) -> Result<()> {
        let bytes = source.blob(&manifest.config)?;
        let corrupt = |e: serde_json::Error| Error::with_kind(Kind::Corrupt, "it is no cache of build steps").cause(e);
        let document = match manifest.config.media_type.as_str() {
            CACHE_CONFIG => serde_json::from_slice::<StepDocument>(&bytes).map_err(corrupt)?,
            media_type::OCI_CONFIG | media_type::DOCKER_CONFIG => {
                let config: ImageConfig = serde_json::from_slice(&bytes).map_err(corrupt)?;
                // An image without steps of its own is an empty cache, as for BuildKit.
                let Some(steps) = config.other.get(INLINE_FIELD) else { return Ok(()) };
                let document: StepDocument = serde_json::from_value(steps.clone()).map_err(corrupt)?;
                StepDocument { diff_ids: config.rootfs.diff_ids, ..document }
            }
            other => {
                return Err(Error::with_kind(Kind::Unsupported, "it is no cache of build steps")
                    .cause(format!("its config has media type {}", quote(other))));
            }
        };
        if document.diff_ids.len() != manifest.layers.len() {
            let why = format!("{} layers, {} diff IDs", manifest.layers.len(), document.diff_ids.len());
            return Err(Error::with_kind(Kind::Corrupt, "its manifest and config contradict each other").cause(why));
        }
        self.layers.extend(document.diff_ids.into_iter().zip(manifest.layers.iter().cloned()));
        self.steps.extend(document.steps.into_iter().map(|step| (step.key, step)));
        Ok(())
    }
}

/// A place being read.
struct Source<'a> {
    client: &'a Client,
    place: &'a StepPlace,
}

impl Source<'_> {
    fn manifests(&self, platforms: &[Platform]) -> Result<Vec<Manifest>> {
        let (bytes, media_type) = match self.place {
            StepPlace::Registry(reference) => {
                let fetched = self.client.registry()?.manifest(reference, &media_type::ACCEPTED_MANIFESTS)?;
                (fetched.bytes, fetched.media_type)
            }
            StepPlace::Layout { directory, tag } => {
                let entry = named(directory, tag)?;
                (self.blob(&entry)?, Some(entry.media_type))
            }
        };
        let index = match ManifestOrIndex::parse(&bytes, media_type.as_deref())? {
            ManifestOrIndex::Manifest(manifest) => return Ok(vec![manifest]),
            ManifestOrIndex::Index(index) => index,
        };
        let mut manifests = Vec::new();
        let mut seen = BTreeSet::new();
        for member in platforms.iter().filter_map(|platform| index.select(platform).ok()) {
            if seen.insert(member.digest)
                && let ManifestOrIndex::Manifest(manifest) = ManifestOrIndex::parse(&self.manifest(member)?, Some(&member.media_type))?
            {
                manifests.push(manifest);
            }
        }
        Ok(manifests)
    }

    /// A member of an index.
    fn manifest(&self, member: &Descriptor) -> Result<Vec<u8>> {
        match self.place {
            StepPlace::Registry(reference) => {
                let pinned: Reference = reference.canonical(member.digest).to_string().parse()?;
                Ok(self.client.registry()?.manifest(&pinned, &media_type::ACCEPTED_MANIFESTS)?.bytes)
            }
            StepPlace::Layout { .. } => self.blob(member),
        }
    }

    /// A small blob, checked.
    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        match self.place {
            StepPlace::Registry(reference) => self.client.registry()?.blob_bytes(reference, descriptor, LONGEST_DOCUMENT),
            StepPlace::Layout { directory, .. } => {
                let path = blob_path(directory, &descriptor.digest);
                let mut bytes = Vec::new();
                let file = open_regular(&path)?;
                file.take(LONGEST_DOCUMENT).read_to_end(&mut bytes).doing("read", &path)?;
                if Digest::of(&bytes) != descriptor.digest {
                    return Err(Error::with_kind(Kind::Corrupt, format!("{} is damaged", quote_path(&path)))
                        .cause(format!("its digest is {}", Digest::of(&bytes))));
                }
                Ok(bytes)
            }
        }
    }
}

impl Blobs for Source<'_> {
    fn image(&self) -> String {
        match self.place {
            StepPlace::Registry(reference) => reference.familiar(),
            StepPlace::Layout { directory, .. } => directory.display().to_string(),
        }
    }

    fn open(&self, descriptor: &Descriptor, offset: u64) -> Result<(Box<dyn Read + '_>, String)> {
        match self.place {
            StepPlace::Registry(reference) => {
                let stream = self.client.registry()?.blob(reference, descriptor, offset)?;
                let host = stream.host().to_owned();
                Ok((Box::new(stream), host))
            }
            StepPlace::Layout { directory, .. } => {
                let path = blob_path(directory, &descriptor.digest);
                let mut file = open_regular(&path)?;
                std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(offset)).doing("read", &path)?;
                // One byte more than announced is enough to see that it is too long.
                let rest = (descriptor.size + 1).saturating_sub(offset);
                Ok((Box::new(file.take(rest)), path.display().to_string()))
            }
        }
    }
}

/// Opens a file that is what it seems: no link, and nothing that never ends.
fn open_regular(path: &Path) -> Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).doing("open", path)?;
    if !file.metadata().doing("look at", path)?.is_file() {
        return Err(Error::with_kind(Kind::Corrupt, format!("{} is not a regular file", quote_path(path))));
    }
    Ok(file)
}

fn blob_path(directory: &Path, digest: &Digest) -> PathBuf {
    directory.join("blobs/sha256").join(digest.hex())
}

/// A layout's entry of a name.
fn named(directory: &Path, tag: &str) -> Result<Descriptor> {
    let path = directory.join("index.json");
    let mut bytes = Vec::new();
    open_regular(&path)?.take(LONGEST_DOCUMENT).read_to_end(&mut bytes).doing("read", &path)?;
    let index: Index = serde_json::from_slice(&bytes)
        .map_err(|e| Error::with_kind(Kind::Corrupt, format!("{} can't be understood", quote_path(&path))).cause(e))?;
    let found = index.manifests.into_iter().find(|entry| entry.annotations.get(REF_NAME).is_some_and(|name| name == tag));
    found.ok_or_else(|| Error::with_kind(Kind::NotFound, format!("there is no {} in {}", quote(tag), quote_path(directory))))
}

/// Writes steps with their layers to a place. Layers that are no longer here are left out, with their steps.
pub fn save_steps(
    store: &Store,
    client: &Client,
    steps: &[MadeStep],
    place: &StepPlace,
    packing: Packing,
    sink: &dyn Sink,
) -> Result<Descriptor> {
    let mut layers: BTreeMap<DiffId, Descriptor> = BTreeMap::new();
    let mut kept: BTreeMap<Digest, MadeStep> = BTreeMap::new();
    for step in steps {
        if let Some(diff_id) = &step.layer {
            if store.layer(diff_id)?.is_none() {
                continue;
            }
            if !layers.contains_key(diff_id) {
                layers.insert(*diff_id, packed::packed(store, diff_id, packing, sink)?);
            }
        }
        kept.insert(step.key, step.clone());
    }
    let (diff_ids, descriptors): (Vec<_>, Vec<_>) = layers.into_iter().unzip();
    let config = StepDocument { steps: kept.into_values().collect(), diff_ids: diff_ids.clone() };
    let config = Document::new(CACHE_CONFIG, serde_json::to_vec(&config).expect("plain data"));
    let manifest = Manifest::oci(config.descriptor.clone(), descriptors.clone());
    let manifest = Document::new(media_type::OCI_MANIFEST, manifest.to_bytes());
    let bundle = Bundle::artifact(store, manifest, config, descriptors.into_iter().zip(diff_ids).collect());
    match place {
        StepPlace::Registry(reference) => push::send(&bundle, client, reference, sink)?,
        StepPlace::Layout { directory, tag } => write::layout(&bundle, tag, directory)?,
    }
    Ok(bundle.root().descriptor.clone())
}
