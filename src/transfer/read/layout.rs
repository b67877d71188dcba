//! An OCI layout (image-layout.md): `index.json` names manifests, all else is `blobs/sha256/…`.

use std::io::Read;
use std::path::Path;

use super::files::Files;
use super::{Images, Platforms, ReadImage, ReadRequest};
use crate::error::{Error, Kind, Result, nearest, quote, quote_path};
use crate::event::Sink;
use crate::oci::{Descriptor, Digest, ImageConfig, Index, Manifest, ManifestOrIndex, Platform, media_type};
use crate::store::Store;
use crate::transfer::layers::{self, Blobs, Fetch, Need};
use crate::transfer::pull::{DEEPEST_INDEX, LONGEST_CONFIG, LONGEST_MANIFEST};
use crate::transfer::whole::{self, Documents};

/// The name of an image in an index (annotations.md); containerd writes the full name beside it.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const FULL_NAME: &str = "io.containerd.image.name";

/// One reading.
pub(super) struct Reader<'a> {
    store: &'a Store,
    files: &'a Files,
    path: &'a Path,
    platforms: &'a Platforms,
    need: Need,
}

impl<'a> Reader<'a> {
    pub(super) fn new(images: &'a Images<'_>, platforms: &'a Platforms) -> Self {
        Self { store: images.store, files: &images.files, path: images.path, platforms, need: images.need }
    }

    /// Reads an image.
    pub(super) fn read(&self, request: &ReadRequest<'_>, sink: &dyn Sink) -> Result<ReadImage> {
        let (bytes, index) = self.index()?;
        match self.choose(&index, request)? {
            Some(chosen) => {
                let same = index.manifests.iter().filter(|other| other.digest == chosen.digest);
                self.image(&chosen, same.flat_map(full_names).collect(), sink)
            }
            None => self.members(self.store.put_blob(&bytes)?, &index, Vec::new(), sink),
        }
    }

    /// Reads all images, each once under all its names.
    pub(super) fn read_each(&self, sink: &dyn Sink) -> Result<Vec<ReadImage>> {
        let (bytes, index) = self.index()?;
        if is_one_image(&index) {
            return self.members(self.store.put_blob(&bytes)?, &index, Vec::new(), sink).map(|image| vec![image]);
        }
        let mut images: Vec<(&Descriptor, Vec<String>)> = Vec::new();
        for entry in &index.manifests {
            match images.iter_mut().find(|(other, _)| other.digest == entry.digest) {
                Some((_, names)) => names.extend(full_names(entry)),
                None => images.push((entry, full_names(entry).collect())),
            }
        }
        if images.is_empty() {
            return Err(Error::with_kind(Kind::NotFound, "there is no image in it"));
        }
        images.into_iter().map(|(entry, names)| self.image(entry, names, sink)).collect()
    }

    fn index(&self) -> Result<(Vec<u8>, Index)> {
        let bytes = self.files.read("index.json", LONGEST_MANIFEST)?.ok_or_else(|| {
            let error = Error::with_kind(Kind::Corrupt, "it is not an OCI image layout").cause("there is no `index.json` in it");
            match self.files.open("manifest.json", 0) {
                Ok(Some(_)) => error.hint("it looks like `docker save`'s: use `docker-archive:FILE`"),
                _ => error,
            }
        })?;
        match ManifestOrIndex::parse(&bytes, Some(media_type::OCI_INDEX))? {
            ManifestOrIndex::Index(index) => Ok((bytes, index)),
            ManifestOrIndex::Manifest(_) => Err(Error::with_kind(Kind::Corrupt, "`index.json` is not an index")),
        }
    }

    /// The bytes of what the request means, and their media type where that is told.
    pub(super) fn root(&self, request: &ReadRequest<'_>) -> Result<(Vec<u8>, Option<String>)> {
        let (bytes, index) = self.index()?;
        match self.choose(&index, request)? {
            Some(chosen) => {
                let stated = Some(chosen.media_type.clone()).filter(|stated| !stated.is_empty());
                Ok((self.blob(&chosen, LONGEST_MANIFEST)?, stated))
            }
            None => Ok((bytes, Some(media_type::OCI_INDEX.to_owned()))),
        }
    }

    /// What the request means; `None` for one image whose index is `index.json` itself.
    fn choose(&self, index: &Index, request: &ReadRequest<'_>) -> Result<Option<Descriptor>> {
        if let Some(digest) = request.digest {
            if let Some(found) = index.manifests.iter().find(|descriptor| descriptor.digest == *digest) {
                return Ok(Some(found.clone()));
            }
            // A member of an index in it, perhaps; what it is, it says itself.
            let size = self.files.open(&blob_name(digest), 0)?.map(|(_, size)| size);
            let size =
                size.ok_or_else(|| Error::with_kind(Kind::NotFound, format!("there is no image {} in it", quote(digest.to_string()))))?;
            return Ok(Some(Descriptor::new("", *digest, size)));
        }
        if let Some(name) = request.name {
            let found = index.manifests.iter().find(|descriptor| names(descriptor).any(|there| there == name));
            return found.cloned().map(Some).ok_or_else(|| unknown(name, index.manifests.iter().flat_map(names)));
        }
        match index.manifests.as_slice() {
            [] => Err(Error::with_kind(Kind::NotFound, "there is no image in it")),
            [only] => Ok(Some(only.clone())),
            _ if is_one_image(index) => Ok(None),
            // One image under several names is no matter of choice.
            [first, rest @ ..] if rest.iter().all(|other| other.digest == first.digest) => Ok(Some(first.clone())),
            several => Err(ambiguous(several.iter().flat_map(names))),
        }
    }

    /// Reads what a descriptor stands for.
    fn image(&self, chosen: &Descriptor, names: Vec<String>, sink: &dyn Sink) -> Result<ReadImage> {
        match self.parsed(chosen)? {
            ManifestOrIndex::Manifest(manifest) => {
                let descriptor = self.layers(chosen, &manifest, sink)?;
                Ok(ReadImage { manifest: descriptor, index: None, names })
            }
            ManifestOrIndex::Index(index) => self.members(chosen.digest, &index, names, sink),
        }
    }

    /// Reads the images of an index that are wanted.
    fn members(&self, digest: Digest, index: &Index, names: Vec<String>, sink: &dyn Sink) -> Result<ReadImage> {
        let manifest = match self.platforms {
            Platforms::One(platform) => self.nested(index.select(platform)?, platform, DEEPEST_INDEX, sink)?,
            Platforms::All => whole::fetch(self.store, self, index, &Platform::host(), sink)?,
        };
        Ok(ReadImage { manifest, index: Some(digest), names })
    }

    /// Reads a member of an index, which may be another index.
    fn nested(&self, member: &Descriptor, platform: &Platform, deeper: usize, sink: &dyn Sink) -> Result<Descriptor> {
        match self.parsed(member)? {
            ManifestOrIndex::Manifest(manifest) => self.layers(member, &manifest, sink),
            ManifestOrIndex::Index(_) if deeper == 0 => Err(Error::with_kind(Kind::Corrupt, "indexes within indexes")),
            ManifestOrIndex::Index(index) => self.nested(index.select(platform)?, platform, deeper - 1, sink),
        }
    }

    fn parsed(&self, descriptor: &Descriptor) -> Result<ManifestOrIndex> {
        let bytes = self.blob(descriptor, LONGEST_MANIFEST)?;
        ManifestOrIndex::parse(&bytes, Some(descriptor.media_type.as_str()).filter(|stated| !stated.is_empty()))
    }

    /// Reads an image's config and layers; gives the manifest's descriptor as it says itself.
    fn layers(&self, descriptor: &Descriptor, manifest: &Manifest, sink: &dyn Sink) -> Result<Descriptor> {
        let stated = Some(descriptor.media_type.as_str()).filter(|stated| !stated.is_empty());
        let media_type = manifest.media_type.as_deref().or(stated).unwrap_or(media_type::OCI_MANIFEST);
        let config = self.config(manifest)?;
        let wanted = layers::wanted(manifest, &config)?;
        Fetch { store: self.store, from: self, total: manifest.layers.len(), need: self.need, sink }.all(wanted)?;
        Ok(Descriptor::new(media_type, descriptor.digest, descriptor.size))
    }

    /// A small blob, checked and stored.
    pub(super) fn blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>> {
        let corrupt = |why: String| Error::with_kind(Kind::Corrupt, format!("blob {} is damaged", descriptor.digest)).cause(why);
        let bytes = self.files.read(&blob_name(&descriptor.digest), limit)?.ok_or_else(|| missing(&descriptor.digest))?;
        if bytes.len() as u64 != descriptor.size {
            return Err(corrupt(format!("it has {} bytes instead of {}", bytes.len(), descriptor.size)));
        }
        let found = self.store.put_blob(&bytes)?;
        if found == descriptor.digest { Ok(bytes) } else { Err(corrupt(format!("its digest is {found}"))) }
    }
}

impl Documents for Reader<'_> {
    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        self.blob(descriptor, LONGEST_MANIFEST)
    }

    fn config(&self, manifest: &Manifest) -> Result<ImageConfig> {
        let config = self.blob(&manifest.config, LONGEST_CONFIG)?;
        serde_json::from_slice(&config)
            .map_err(|e| Error::with_kind(Kind::Corrupt, format!("invalid config {}", manifest.config.digest)).cause(e))
    }

    fn need(&self) -> Need {
        self.need
    }
}

impl Blobs for Reader<'_> {
    fn image(&self) -> String {
        self.path.display().to_string()
    }

    fn open(&self, descriptor: &Descriptor, offset: u64) -> Result<(Box<dyn Read + '_>, String)> {
        let (piece, size) = self.files.open(&blob_name(&descriptor.digest), offset)?.ok_or_else(|| missing(&descriptor.digest))?;
        if size != descriptor.size {
            return Err(Error::with_kind(Kind::Corrupt, format!("blob {} is damaged", descriptor.digest))
                .cause(format!("it has {size} bytes instead of {}", descriptor.size)));
        }
        Ok((Box::new(piece), quote_path(self.path)))
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn missing(digest: &Digest) -> Error {
    Error::with_kind(Kind::Corrupt, format!("blob {digest} is missing"))
}

fn names(descriptor: &Descriptor) -> impl Iterator<Item = &str> {
    [REF_NAME, FULL_NAME].into_iter().filter_map(|key| descriptor.annotations.get(key).map(String::as_str))
}

/// The name an image has outside the layout: the full one, else that of the layout.
fn full_names(descriptor: &Descriptor) -> impl Iterator<Item = String> + use<> {
    descriptor.annotations.get(FULL_NAME).or(descriptor.annotations.get(REF_NAME)).cloned().into_iter()
}

/// One image for several platforms, without an index of its own.
fn is_one_image(index: &Index) -> bool {
    let several = &index.manifests;
    several.len() > 1 && several.iter().all(|entry| entry.platform.is_some()) && several.iter().flat_map(names).count() == 0
}

/// No image has the name.
pub(super) fn unknown<'a>(name: &str, there: impl Iterator<Item = &'a str>) -> Error {
    let there: Vec<&str> = there.collect();
    let error = Error::with_kind(Kind::NotFound, format!("there is no image {} in it", quote(name)));
    match nearest(name, there.iter().copied()) {
        Some(near) => error.hint(format!("did you mean {}?", quote(near))),
        None if there.is_empty() => error.hint("the images in it have no names: leave the name out"),
        None => error.hint(format!("there are {}", there.join(", "))),
    }
}

/// Several images and no name.
pub(super) fn ambiguous<'a>(there: impl Iterator<Item = &'a str>) -> Error {
    let there: Vec<&str> = there.collect();
    let error = Error::input("there are several images in it");
    match there.first() {
        Some(first) => error.cause(format!("their names are {}", there.join(", "))).hint(format!("add a name: `…:{first}`")),
        None => error,
    }
}
