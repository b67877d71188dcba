//! A pointer to a blob.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Digest, Platform};

/// A descriptor (image-spec, descriptor.md). Unknown fields are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is; see [`super::media_type`].
    pub media_type: String,
    /// Digest of the blob's bytes.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
    /// For members of an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What this version does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Descriptor {
    /// A descriptor without platform and annotations.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.into(), digest, size, platform: None, annotations: BTreeMap::new(), other: BTreeMap::new() }
    }

    /// Whether an index has it beside its images to say something of them (BuildKit, docs/attestations/attestation-storage.md).
    pub fn is_attestation(&self) -> bool {
        self.platform.as_ref().is_some_and(|platform| platform.os == "unknown" && platform.architecture == "unknown")
    }
}
