//! What `docker save` writes and `docker load`, podman, skopeo and iSulad read: layers as plain tars, `manifest.json`, and the older
//! `repositories` with a directory a layer.
//!
//! Source: moby, image/tarexport, and "Docker Image Specification v1.2.0".

use std::collections::BTreeMap;
use std::io::Write;

use serde::Serialize;
use serde_json::{Value, json};

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

/// Writes the archive.
pub(super) fn write(bundle: &Bundle<'_>, names: &[Reference], out: &mut dyn Write) -> Result<()> {
    let image = bundle.single("docker archive")?;
    let mut archive = Archive::new(out);
    let (paths, top) = layers(bundle, image, &mut archive)?;
    let config = format!("{}.json", image.config.descriptor.digest.hex());
    archive.bytes(&config, &image.config.bytes)?;
    let repo_tags: Vec<String> = names.iter().filter(|name| name.tag().is_some()).map(Reference::familiar).collect();
    archive.bytes("manifest.json", &serde_json::to_vec(&[Entry { config, repo_tags, layers: paths }]).expect("plain data"))?;
    if let Some(top) = top.filter(|_| !names.is_empty()) {
        archive.bytes("repositories", &serde_json::to_vec(&repositories(names, &top)).expect("plain data"))?;
    }
    archive.finish()
}

/// Writes the layers; returns their paths and the ID of the topmost.
fn layers(bundle: &Bundle<'_>, image: &Ready, archive: &mut Archive<'_>) -> Result<(Vec<String>, Option<String>)> {
    let mut paths: Vec<String> = Vec::new();
    let mut written: BTreeMap<Digest, String> = BTreeMap::new();
    let mut parent: Option<String> = None;
    let stack: Vec<DiffId> = image.layers.iter().map(|(_, diff_id)| *diff_id).collect();
    for (position, (descriptor, diff_id)) in image.layers.iter().enumerate() {
        // The older form names layers by what they stand on as well.
        let id = ChainId::of(&stack[..=position]).map_or_else(String::new, |chain| chain.0.hex());
        let path = format!("{id}/layer.tar");
        archive.directory(&format!("{id}/"))?;
        archive.bytes(&format!("{id}/VERSION"), b"1.0")?;
        let last = position + 1 == stack.len();
        archive.bytes(&format!("{id}/json"), &serde_json::to_vec(&ancient(image, &id, parent.as_deref(), last)).expect("plain data"))?;
        match written.get(&descriptor.digest) {
            Some(first) => {
                archive.symlink(&path, &format!("../{first}"))?;
                paths.push(first.clone());
            }
            None => {
                archive.stream(&path, descriptor.size, |out| bundle.write_part(&Part::Layer(descriptor, *diff_id), out))?;
                written.insert(descriptor.digest, path.clone());
                paths.push(path);
            }
        }
        parent = Some(id);
    }
    Ok((paths, parent))
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

fn repositories(names: &[Reference], top: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for name in names {
        if let Some(tag) = name.tag() {
            repositories.entry(name.familiar_repository()).or_default().insert(tag.to_owned(), top.to_owned());
        }
    }
    repositories
}
