//! An OCI layout (image-layout.md): `index.json` names manifests, all else is `blobs/sha256/…`.

use std::io::Read;

use super::files::Files;
use super::{ReadImage, ReadRequest};
use crate::error::{Error, Kind, Result, nearest, quote, quote_path};
use crate::event::Sink;
use crate::oci::{Descriptor, Digest, ImageConfig, Index, Manifest, ManifestOrIndex, media_type};
use crate::store::Store;
use crate::transfer::layers::{self, Blobs, Fetch};
use crate::transfer::pull::{DEEPEST_INDEX, LONGEST_CONFIG, LONGEST_MANIFEST};

/// The name of an image in an index (annotations.md); containerd writes the full name beside it.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const FULL_NAME: &str = "io.containerd.image.name";

/// Reads an image.
pub(super) fn read(store: &Store, files: &Files, request: &ReadRequest<'_>, sink: &dyn Sink) -> Result<ReadImage> {
    let index = files.read("index.json", LONGEST_MANIFEST)?.ok_or_else(|| {
        let error = Error::with_kind(Kind::Corrupt, "it is not an OCI image layout").cause("there is no `index.json` in it");
        match files.open("manifest.json", 0) {
            Ok(Some(_)) => error.hint("it looks like `docker save`'s: use `docker-archive:FILE`"),
            _ => error,
        }
    })?;
    let index = match ManifestOrIndex::parse(&index, Some(media_type::OCI_INDEX))? {
        ManifestOrIndex::Index(index) => index,
        ManifestOrIndex::Manifest(_) => return Err(Error::with_kind(Kind::Corrupt, "`index.json` is not an index")),
    };
    let reader = Reader { store, files, request };
    let chosen = reader.choose(&index)?;
    let name = chosen.annotations.get(FULL_NAME).or(chosen.annotations.get(REF_NAME)).cloned();
    let (descriptor, manifest, index) = reader.manifest(chosen)?;
    let config = reader.blob(&manifest.config, LONGEST_CONFIG)?;
    let config: ImageConfig = serde_json::from_slice(&config)
        .map_err(|e| Error::with_kind(Kind::Corrupt, format!("invalid config {}", manifest.config.digest)).cause(e))?;
    let wanted = layers::wanted(&manifest, &config)?;
    Fetch { store, from: &reader, total: manifest.layers.len(), sink }.all(wanted)?;
    Ok(ReadImage { manifest: descriptor, index, name })
}

struct Reader<'a> {
    store: &'a Store,
    files: &'a Files,
    request: &'a ReadRequest<'a>,
}

impl Reader<'_> {
    /// What the request means.
    fn choose(&self, index: &Index) -> Result<Descriptor> {
        if let Some(digest) = self.request.digest {
            if let Some(found) = index.manifests.iter().find(|descriptor| descriptor.digest == *digest) {
                return Ok(found.clone());
            }
            // A member of an index in it, perhaps; what it is, it says itself.
            let size = self.files.open(&blob_name(digest), 0)?.map(|(_, size)| size);
            let size =
                size.ok_or_else(|| Error::with_kind(Kind::NotFound, format!("there is no image {} in it", quote(digest.to_string()))))?;
            return Ok(Descriptor::new("", *digest, size));
        }
        if let Some(name) = self.request.name {
            let named = |descriptor: &&Descriptor| names(descriptor).any(|there| there == name);
            return index.manifests.iter().find(named).cloned().ok_or_else(|| unknown(name, index.manifests.iter().flat_map(names)));
        }
        match index.manifests.as_slice() {
            [] => Err(Error::with_kind(Kind::NotFound, "there is no image in it")),
            [only] => Ok(only.clone()),
            // One image for several platforms, without an index of its own.
            several if several.iter().all(|descriptor| descriptor.platform.is_some()) && several.iter().flat_map(names).count() == 0 => {
                index.select(self.request.platform).cloned()
            }
            several => Err(ambiguous(several.iter().flat_map(names))),
        }
    }

    /// The platform's manifest, stored, and the index it was chosen from.
    fn manifest(&self, chosen: Descriptor) -> Result<(Descriptor, Manifest, Option<Digest>)> {
        let mut descriptor = chosen;
        let mut first_index = None;
        for _ in 0..=DEEPEST_INDEX {
            let bytes = self.blob(&descriptor, LONGEST_MANIFEST)?;
            let stated = Some(descriptor.media_type.as_str()).filter(|stated| !stated.is_empty());
            match ManifestOrIndex::parse(&bytes, stated)? {
                ManifestOrIndex::Manifest(manifest) => {
                    let media_type = manifest.media_type.as_deref().or(stated).unwrap_or(media_type::OCI_MANIFEST);
                    return Ok((Descriptor::new(media_type, descriptor.digest, descriptor.size), manifest, first_index));
                }
                ManifestOrIndex::Index(index) => {
                    first_index.get_or_insert(descriptor.digest);
                    descriptor = index.select(self.request.platform)?.clone();
                }
            }
        }
        Err(Error::with_kind(Kind::Corrupt, "indexes within indexes"))
    }

    /// A small blob, checked and stored.
    fn blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>> {
        let corrupt = |why: String| Error::with_kind(Kind::Corrupt, format!("blob {} is damaged", descriptor.digest)).cause(why);
        let bytes = self.files.read(&blob_name(&descriptor.digest), limit)?.ok_or_else(|| missing(&descriptor.digest))?;
        if bytes.len() as u64 != descriptor.size {
            return Err(corrupt(format!("it has {} bytes instead of {}", bytes.len(), descriptor.size)));
        }
        let found = self.store.put_blob(&bytes)?;
        if found == descriptor.digest { Ok(bytes) } else { Err(corrupt(format!("its digest is {found}"))) }
    }
}

impl Blobs for Reader<'_> {
    fn image(&self) -> String {
        self.request.path.display().to_string()
    }

    fn open(&self, descriptor: &Descriptor, offset: u64) -> Result<(Box<dyn Read + '_>, String)> {
        let (piece, size) = self.files.open(&blob_name(&descriptor.digest), offset)?.ok_or_else(|| missing(&descriptor.digest))?;
        if size != descriptor.size {
            return Err(Error::with_kind(Kind::Corrupt, format!("blob {} is damaged", descriptor.digest))
                .cause(format!("it has {size} bytes instead of {}", descriptor.size)));
        }
        Ok((Box::new(piece), quote_path(self.request.path)))
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
