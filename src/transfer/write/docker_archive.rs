//! What `docker save` writes and `docker load`, podman, skopeo and iSulad read: layers as plain tars, `manifest.json`, and the older
//! `repositories` with a directory a layer.
//!
//! Source: moby, image/tarexport, and "Docker Image Specification v1.2.0".

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use serde::Serialize;
use serde_json::{Value, json};

use super::Named;
use super::archive::Archive;
use crate::error::Result;
use crate::oci::{ChainId, DiffId, Digest, Reference};
use crate::transfer::bundle::{Bundle, Part, Ready};

/// One image in `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Writes the images of several bundles, each with its names, into one archive; what they share is in it once.
pub(super) fn write(images: &[Named<'_, '_>], out: &mut dyn Write) -> Result<()> {
    let mut archive = Archive::new(out);
    let mut written = Written::default();
    let mut entries: Vec<Entry> = Vec::new();
    let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for Named { bundle, names } in images {
        let image = bundle.single("docker archive")?;
        let (layers, top) = layers(bundle, image, &mut archive, &mut written)?;
        let config = format!("{}.json", image.config.descriptor.digest.hex());
        let tags = names.iter().filter(|name| name.tag().is_some());
        let repo_tags: Vec<String> = tags.clone().map(Reference::familiar).collect();
        // One image may be asked for under several names.
        match entries.iter_mut().find(|entry| entry.config == config) {
            Some(entry) => {
                let new: Vec<String> = repo_tags.into_iter().filter(|tag| !entry.repo_tags.contains(tag)).collect();
                entry.repo_tags.extend(new);
            }
            None => {
                archive.bytes(&config, &image.config.bytes)?;
                entries.push(Entry { config, repo_tags, layers });
            }
        }
        for name in tags {
            let (Some(top), Some(tag)) = (&top, name.tag()) else { continue };
            repositories.entry(name.familiar_repository()).or_default().insert(tag.to_owned(), top.clone());
        }
    }
    archive.bytes("manifest.json", &serde_json::to_vec(&entries).expect("plain data"))?;
    if !repositories.is_empty() {
        archive.bytes("repositories", &serde_json::to_vec(&repositories).expect("plain data"))?;
    }
    archive.finish()
}

/// What is in the archive already.
#[derive(Default)]
struct Written {
    /// Layers, with the path of each.
    tars: BTreeMap<Digest, String>,
    /// Directories of the older form.
    ids: BTreeSet<String>,
}

/// Writes the layers; returns their paths and the ID of the topmost.
fn layers(bundle: &Bundle<'_>, image: &Ready, archive: &mut Archive<'_>, written: &mut Written) -> Result<(Vec<String>, Option<String>)> {
    let mut paths: Vec<String> = Vec::new();
    let ids = ids(image);
    for (position, (descriptor, _)) in image.layers.iter().enumerate() {
        let path = format!("{}/layer.tar", ids[position]);
        let fresh = written.ids.insert(ids[position].clone());
        if fresh {
            version_one(image, &ids, position, archive)?;
        }
        match written.tars.get(&descriptor.digest) {
            Some(first) if fresh => {
                archive.symlink(&path, &format!("../{first}"))?;
                paths.push(first.clone());
            }
            Some(first) => paths.push(first.clone()),
            None => {
                tar(bundle, image, &ids, position, archive)?;
                written.tars.insert(descriptor.digest, path.clone());
                paths.push(path);
            }
        }
    }
    Ok((paths, ids.last().cloned()))
}

/// The IDs of an image's layers, bottom first: the older form names layers by what they stand on as well, and the topmost by how the image
/// is run.
pub(in crate::transfer) fn ids(image: &Ready) -> Vec<String> {
    let stack: Vec<DiffId> = image.layers.iter().map(|(_, diff_id)| *diff_id).collect();
    let id = |position: usize| {
        let chain = ChainId::of(&stack[..=position]).map_or_else(String::new, |chain| chain.0.hex());
        let last = position + 1 == stack.len();
        if last { Digest::of(format!("{chain} {}", image.config.descriptor.digest)).hex() } else { chain }
    };
    (0..stack.len()).map(id).collect()
}

/// Begins the directory of a layer: all but its tar.
pub(in crate::transfer) fn version_one(image: &Ready, ids: &[String], position: usize, archive: &mut Archive<'_>) -> Result<()> {
    let id = &ids[position];
    let parent = position.checked_sub(1).map(|below| ids[below].as_str());
    archive.directory(&format!("{id}/"))?;
    archive.bytes(&format!("{id}/VERSION"), b"1.0")?;
    let json = ancient(image, id, parent, position + 1 == ids.len());
    archive.bytes(&format!("{id}/json"), &serde_json::to_vec(&json).expect("plain data"))
}

/// Writes a layer's tar.
pub(in crate::transfer) fn tar(
    bundle: &Bundle<'_>,
    image: &Ready,
    ids: &[String],
    position: usize,
    archive: &mut Archive<'_>,
) -> Result<()> {
    let (descriptor, diff_id) = &image.layers[position];
    let path = format!("{}/layer.tar", ids[position]);
    archive.stream(&path, descriptor.size, |out| bundle.write_part(&Part::Layer(descriptor, *diff_id), out))
}

/// A layer's `json` of version 1; only the last says how to run the image.
fn ancient(image: &Ready, id: &str, parent: Option<&str>, last: bool) -> Value {
    let mut value = json!({ "id": id, "created": "1970-01-01T00:00:00Z", "os": "linux" });
    if let Some(parent) = parent {
        value["parent"] = parent.into();
    }
    if last {
        value["architecture"] = image.parsed.architecture.clone().into();
        value["config"] = serde_json::to_value(&image.parsed.config).unwrap_or_default();
        if let Some(created) = &image.parsed.created {
            value["created"] = created.clone().into();
        }
    }
    value
}
