//! OCI image layouts (image-spec 1.1, image-layout.md): as a tar, and as a directory that may hold other images.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use super::archive::Archive;
use crate::error::{Error, IoContext as _, Kind, Place, Result};
use crate::oci::{Descriptor, Index, Reference, media_type};
use crate::transfer::bundle::Bundle;
use crate::transfer::draft;

/// What a layout's `oci-layout` says.
const VERSION: &str = "{\"imageLayoutVersion\":\"1.0.0\"}";
/// The name within a layout (image-spec, annotations.md).
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The whole name, as containerd, BuildKit and podman write and read it.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// How images of a layout are told apart.
pub(super) struct Label(Vec<BTreeMap<String, String>>);

impl Label {
    /// A name given with the layout is taken as it is (skopeo); else the image has its own names, the tag alone as the layout's (BuildKit).
    pub(super) fn new(name: Option<&str>, names: &[Reference]) -> Self {
        let entry = |full: Option<String>, short: Option<&str>| {
            let full = full.map(|name| (IMAGE_NAME.to_owned(), name));
            full.into_iter().chain(short.map(|name| (REF_NAME.to_owned(), name.to_owned()))).collect()
        };
        Self(match (name, names) {
            (Some(name), _) => vec![entry(name.contains(['/', ':']).then(|| full_name(name)).flatten(), Some(name))],
            (None, []) => vec![BTreeMap::new()],
            (None, names) => names.iter().map(|name| entry(Some(name.to_string()), name.tag())).collect(),
        })
    }
}

fn full_name(name: &str) -> Option<String> {
    name.parse::<Reference>().ok().map(|name| name.to_string())
}

/// Writes a layout as a tar, as BuildKit orders it; blobs that images share are in it once.
pub(super) fn archive(images: &[(&Bundle<'_>, Label)], out: &mut dyn Write) -> Result<()> {
    let mut archive = Archive::new(out);
    members(images, &mut archive)?;
    archive.finish()
}

/// Writes an image without layers as a tar of a layout that `docker load` reads too.
pub(in crate::transfer) fn archive_without_layers(bundle: &Bundle<'_>, names: &[Reference], out: &mut dyn Write) -> Result<()> {
    let mut archive = Archive::new(out);
    members(&[(bundle, Label::new(None, names))], &mut archive)?;
    let image = bundle.single("image without layers")?;
    let config = format!("blobs/sha256/{}", image.config.descriptor.digest.hex());
    let tags: Vec<String> = names.iter().filter(|name| name.tag().is_some()).map(Reference::familiar).collect();
    let entry = serde_json::json!([{ "Config": config, "RepoTags": tags, "Layers": [] }]);
    archive.bytes("manifest.json", &serde_json::to_vec(&entry).expect("plain data"))?;
    archive.finish()
}

fn members(images: &[(&Bundle<'_>, Label)], archive: &mut Archive<'_>) -> Result<()> {
    let mut parts: Vec<_> = images.iter().flat_map(|(bundle, _)| bundle.parts().into_iter().map(move |part| (bundle, part))).collect();
    parts.sort_by_key(|(_, part)| part.descriptor().digest);
    parts.dedup_by_key(|(_, part)| part.descriptor().digest);
    archive.directory("blobs/")?;
    archive.directory("blobs/sha256/")?;
    for (bundle, part) in &parts {
        let descriptor = part.descriptor();
        let name = format!("blobs/sha256/{}", descriptor.digest.hex());
        archive.stream(&name, descriptor.size, |out| bundle.write_part(part, out))?;
    }
    archive.bytes("index.json", &to_bytes(&listing(images.iter().flat_map(|(bundle, label)| entries(bundle, label)).collect())))?;
    archive.bytes("oci-layout", VERSION.as_bytes())
}

/// Adds an image to a layout directory, which is made where there is none. Blobs come first, so that `index.json`, replaced as a whole, is
/// true at any moment.
pub(super) fn directory(bundle: &Bundle<'_>, label: &Label, directory: &Path) -> Result<()> {
    let blobs = directory.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).doing("create", &blobs)?;
    for part in &bundle.parts() {
        let descriptor = part.descriptor();
        let path = blobs.join(descriptor.digest.hex());
        if path.metadata().is_ok_and(|meta| meta.len() == descriptor.size) {
            continue;
        }
        draft::write(&path, |file| {
            let mut out = std::io::BufWriter::with_capacity(256 << 10, file);
            bundle.write_part(part, &mut out)?;
            out.flush().doing("write", &path)
        })?;
    }
    let marker = directory.join("oci-layout");
    if !marker.exists() {
        draft::write_bytes(&marker, VERSION.as_bytes())?;
    }
    // Two that write at once must not lose each other's entry. Where the file system has no locks they may; better than not writing.
    let lock = File::open(directory).doing("open", directory)?;
    let _ = lock.lock();
    let path = directory.join("index.json");
    let mut index = present(&path)?;
    for entry in entries(bundle, label) {
        index.manifests.retain(|other| !same_name(other, &entry));
        index.manifests.push(entry);
    }
    draft::write_bytes(&path, &to_bytes(&index))
}

/// An entry gives way to one of the same name, an unnamed one to itself.
fn same_name(old: &Descriptor, new: &Descriptor) -> bool {
    let name = |entry: &Descriptor| [IMAGE_NAME, REF_NAME].map(|key| entry.annotations.get(key).cloned());
    match name(new) {
        [None, None] => name(old) == [None, None] && old.digest == new.digest,
        [None, short] => name(old)[1] == short,
        [full, short] => name(old) == [full, short.clone()] || name(old) == [None, short],
    }
}

fn present(path: &Path) -> Result<Index> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
            Error::with_kind(Kind::Corrupt, "the layout's index can't be understood").at(Place::Path(path.to_owned())).cause(e)
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(listing(Vec::new())),
        Err(e) => Err(Error::io("read", path, e)),
    }
}

fn entries(bundle: &Bundle<'_>, label: &Label) -> Vec<Descriptor> {
    let root = &bundle.root().descriptor;
    let names = label.0.iter();
    names
        .map(|name| {
            let annotations = name.clone().into_iter().chain(bundle.root_annotations.clone()).collect();
            Descriptor { annotations, ..root.clone() }
        })
        .collect()
}

fn listing(manifests: Vec<Descriptor>) -> Index {
    let media_type = Some(media_type::OCI_INDEX.to_owned());
    Index { schema_version: 2, media_type, manifests, annotations: BTreeMap::new(), other: BTreeMap::new() }
}

fn to_bytes(index: &Index) -> Vec<u8> {
    serde_json::to_vec(index).expect("an index has only string keys")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    #[test]
    fn names_replace_their_own() {
        let descriptor = |full: Option<&str>, short: Option<&str>, digest: &str| {
            let mut descriptor = Descriptor::new(media_type::OCI_MANIFEST, Digest::of(digest), 1);
            descriptor.annotations.extend(full.map(|name| (IMAGE_NAME.to_owned(), name.to_owned())));
            descriptor.annotations.extend(short.map(|name| (REF_NAME.to_owned(), name.to_owned())));
            descriptor
        };
        for (old, new, same) in [
            ((Some("a:1"), Some("1")), (Some("a:1"), Some("1")), true),
            ((Some("a:1"), Some("1")), (Some("b:1"), Some("1")), false),
            ((None, Some("1")), (Some("b:1"), Some("1")), true),
            ((None, Some("1")), (None, Some("2")), false),
            ((None, None), (None, Some("2")), false),
            ((None, None), (None, None), false),
        ] {
            assert_eq!(same_name(&descriptor(old.0, old.1, "old"), &descriptor(new.0, new.1, "new")), same, "{old:?} {new:?}");
        }
    }

    #[test]
    fn labels() {
        let names = ["app:1".parse().unwrap()];
        for (name, names, full, short) in [
            (Some("latest"), &names[..], None, Some("latest")),
            (Some("a/b:2"), &names, Some("docker.io/a/b:2"), Some("a/b:2")),
            (None, &names, Some("docker.io/library/app:1"), Some("1")),
            (None, &[], None, None),
        ] {
            let Label(entries) = Label::new(name, names);
            assert_eq!((entries[0].get(IMAGE_NAME).map(String::as_str), entries[0].get(REF_NAME).map(String::as_str)), (full, short));
        }
    }
}
