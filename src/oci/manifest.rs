//! Manifests and indexes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Descriptor, Platform, media_type};
use crate::error::{Error, Kind, Result};

/// An image manifest: OCI (manifest.md) or Docker v2 schema 2, which share their shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// OCI's may leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The image config.
    pub config: Descriptor,
    /// The layers, bottom first.
    pub layers: Vec<Descriptor>,
    /// Free notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What this version does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Manifest {
    /// A new OCI manifest.
    pub fn oci(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        let media_type = Some(media_type::OCI_MANIFEST.to_owned());
        Self { schema_version: 2, media_type, config, layers, annotations: BTreeMap::new(), other: BTreeMap::new() }
    }

    /// The bytes that are digested and stored: compact JSON, fixed order.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest has only string keys")
    }
}

/// An index: OCI (image-index.md) or a Docker manifest list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// OCI's may leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// One descriptor an image.
    pub manifests: Vec<Descriptor>,
    /// Free notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What this version does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Index {
    /// A new OCI index.
    pub fn oci(manifests: Vec<Descriptor>) -> Self {
        let media_type = Some(media_type::OCI_INDEX.to_owned());
        Self { schema_version: 2, media_type, manifests, annotations: BTreeMap::new(), other: BTreeMap::new() }
    }

    /// The bytes that are digested and stored: compact JSON, fixed order.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an index has only string keys")
    }

    /// The member that serves `wanted` best; the first of equals.
    ///
    /// Attestations (platform `unknown/unknown`) never match. The error lists what there is.
    pub fn select(&self, wanted: &Platform) -> Result<&Descriptor> {
        let mut best: Option<(u32, &Descriptor)> = None;
        for descriptor in &self.manifests {
            let Some(score) = descriptor.platform.as_ref().and_then(|p| p.serves(wanted)) else { continue };
            if best.is_none_or(|(s, _)| score > s) {
                best = Some((score, descriptor));
            }
        }
        if let Some((_, descriptor)) = best {
            return Ok(descriptor);
        }
        // An index with a single image and no platform is what some tools write around one manifest.
        if let [only @ Descriptor { platform: None, .. }] = self.manifests.as_slice() {
            return Ok(only);
        }
        let mut have: Vec<String> =
            self.manifests.iter().filter_map(|d| d.platform.as_ref()).filter(|p| p.os != "unknown").map(ToString::to_string).collect();
        have.sort();
        have.dedup();
        let error = Error::with_kind(Kind::NotFound, format!("no image for platform `{wanted}`"));
        Err(if have.is_empty() {
            error.cause("the index names no platform at all")
        } else {
            error.cause(format!("there are images for {}", have.join(", "))).hint(format!("choose one with `--platform {}`", have[0]))
        })
    }
}

/// What a document of any kind names: a manifest, an index, an artifact, or something of a later version.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Links {
    /// Other documents.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    blobs: Vec<Descriptor>,
}

impl Links {
    /// Reads what a document names.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|e| Error::with_kind(Kind::Corrupt, "not a manifest of any kind").cause(e))
    }

    /// The blobs that belong to it and that a registry may hold, each once.
    pub fn blobs(&self) -> Vec<Descriptor> {
        let mut blobs: Vec<Descriptor> = Vec::new();
        for blob in self.config.iter().chain(&self.layers).chain(&self.blobs) {
            if media_type::is_distributable(&blob.media_type) && blobs.iter().all(|other| other.digest != blob.digest) {
                blobs.push(blob.clone());
            }
        }
        blobs
    }
}

/// What a manifest URL can answer with.
// There is one at a time.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq)]
pub enum ManifestOrIndex {
    /// One image.
    Manifest(Manifest),
    /// Several, by platform.
    Index(Index),
}

impl ManifestOrIndex {
    /// The image that a member of an index is, if it is one to unpack.
    ///
    /// It is not where the index says `unknown/unknown` (BuildKit's attestations, whose config looks like an image's), where the config is
    /// of another kind (charts, models, signatures), or where a layer can't be had or read (Windows bases, encrypted ones).
    pub fn image_of(&self, member: &Descriptor) -> Option<&Manifest> {
        let Self::Manifest(manifest) = self else { return None };
        let unknown = member.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
        let config = matches!(manifest.config.media_type.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG);
        let readable = |layer: &Descriptor| {
            let kind = layer.media_type.as_str();
            media_type::is_layer(kind) && media_type::is_distributable(kind) && !kind.ends_with("+encrypted")
        };
        (!unknown && config && manifest.layers.iter().all(readable)).then_some(manifest)
    }

    /// Reads either. `content_type` (the HTTP header, or a descriptor's media type) is only trusted where the JSON does not say.
    ///
    /// Errors: not JSON, schema 1, neither form, or a document that is both at once (CVE-2021-41190).
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self> {
        let bad = |why: String| Error::with_kind(Kind::Corrupt, "not an image manifest").cause(why);
        let value: Value = serde_json::from_slice(bytes).map_err(|e| bad(format!("invalid JSON: {e}")))?;
        if value["schemaVersion"] == 1 {
            return Err(Error::with_kind(Kind::Unsupported, "image manifest of schema version 1")
                .cause("Docker's schema 1 was withdrawn in 2019 and has no digests to check")
                .hint("push the image again with a current tool"));
        }
        let (has_layers, has_manifests) = (value.get("layers").is_some(), value.get("manifests").is_some());
        if has_layers && has_manifests {
            return Err(bad("it claims to be both a manifest and an index".into()));
        }
        let stated = value.get("mediaType").and_then(Value::as_str).or(content_type);
        if stated.is_some_and(|t| media_type::is_index(t) != has_manifests && (media_type::is_index(t) || t.contains("manifest"))) {
            return Err(bad(format!("its content does not fit its media type {}", crate::error::quote(stated.unwrap_or_default()))));
        }
        let shape = |e: serde_json::Error| bad(e.to_string());
        if has_manifests {
            serde_json::from_slice(bytes).map(Self::Index).map_err(shape)
        } else {
            serde_json::from_slice(bytes).map(Self::Manifest).map_err(shape)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Digest;
    use super::*;

    #[test]
    fn parses_and_writes_the_same() {
        let d = Digest::of("x");
        let manifest =
            Manifest::oci(Descriptor::new(media_type::OCI_CONFIG, d, 1), vec![Descriptor::new(media_type::OCI_LAYER_GZIP, d, 2)]);
        assert_eq!(ManifestOrIndex::parse(&manifest.to_bytes(), None).unwrap(), ManifestOrIndex::Manifest(manifest));
    }

    #[test]
    fn tells_images_from_what_stands_beside_them() {
        let d = Digest::of("x");
        let linux = Some(Platform::linux("arm64", None));
        let unknown = Some(Platform::new("unknown", "unknown", None));
        for (platform, config, layer, expected) in [
            (linux.clone(), media_type::OCI_CONFIG, media_type::OCI_LAYER_ZSTD, true),
            (None, media_type::DOCKER_CONFIG, media_type::DOCKER_LAYER_GZIP, true),
            (unknown, media_type::OCI_CONFIG, "application/vnd.in-toto+json", false),
            (linux.clone(), media_type::OCI_CONFIG, "application/vnd.in-toto+json", false),
            (linux.clone(), "application/vnd.oci.empty.v1+json", media_type::OCI_LAYER, false),
            (linux.clone(), media_type::DOCKER_CONFIG, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", false),
            (linux, media_type::OCI_CONFIG, "application/vnd.oci.image.layer.v1.tar+encrypted", false),
        ] {
            let manifest = Manifest::oci(Descriptor::new(config, d, 1), vec![Descriptor::new(layer, d, 2)]);
            let member = Descriptor { platform, ..Descriptor::new(media_type::OCI_MANIFEST, d, 1) };
            assert_eq!(ManifestOrIndex::Manifest(manifest).image_of(&member).is_some(), expected, "{config} {layer}");
        }
    }

    #[test]
    fn refuses_confusion() {
        for text in ["", "[]", "{}", r#"{"schemaVersion":1}"#, r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#] {
            assert!(ManifestOrIndex::parse(text.as_bytes(), None).is_err(), "{text}");
        }
    }
}
