//! What is attached to images: documents in manifests of their own, whose `subject` is the image.
//!
//! They are kept beside the image in storage and leave with it for registries; the image itself does not change by them. Where the image's manifest
//! does change on its way out, as layers are compressed only then, so does the subject: of the manifest, and of the statement in it.
//!
//! Source: OCI image-spec 1.1, manifest.md, "Guidelines for Artifact Usage"; in-toto's Statement v1.

use serde_json::{Value, json};

use super::client::Client;
use super::pull;
use super::signatures::put;
use crate::error::{Error, Kind, Result};
use crate::oci::{Descriptor, Digest, Manifest, ManifestOrIndex, Platform, Reference, media_type};
use crate::registry;
use crate::store::{Referrer, Store};

/// The media type of an in-toto statement.
pub const STATEMENT: &str = "application/vnd.in-toto+json";
/// The annotation by which statements are told apart without reading them, as BuildKit has it.
const PREDICATE: &str = "in-toto.io/predicate-type";

/// image-spec, "Guidance for an Empty Descriptor".
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
const EMPTY: &[u8] = b"{}";

/// Largest document that is read; of a desktop with all languages it has 30 MB.
const LARGEST: u64 = 256 << 20;
/// More than this are not looked at.
const MOST: usize = 50;

/// A document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its media type, which is the artifact's type too.
    pub media_type: String,
    /// The type of its predicate, if it is a statement.
    pub predicate_type: Option<String>,
    /// The document.
    pub bytes: Vec<u8>,
}

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sought<'a> {
    /// A document of this media type,
    pub media_type: &'a str,
    /// or the predicate of a statement whose type begins so.
    pub predicate_type: &'a str,
}

/// The statement that something is so of an image.
pub fn statement(name: &str, subject: &Digest, predicate_type: &str, predicate: &Value) -> Attachment {
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": name, "digest": { "sha256": subject.hex() } }],
        "predicateType": predicate_type,
        "predicate": predicate,
    });
    let bytes = serde_json::to_vec(&statement).expect("plain data");
    Attachment { media_type: STATEMENT.into(), predicate_type: Some(predicate_type.into()), bytes }
}

/// Attaches documents to an image in storage, in the place of those of the same kind.
pub fn attach(store: &Store, subject: &Descriptor, documents: &[Attachment]) -> Result<()> {
    let keep = |document: &Attachment| {
        let (manifest, listing) = document.manifest(subject);
        for bytes in [EMPTY, &document.bytes, &manifest] {
            store.put_blob(bytes)?;
        }
        Ok(Referrer { manifest: listing, blobs: vec![Digest::of(EMPTY), Digest::of(&document.bytes)] })
    };
    let referrers = documents.iter().map(keep).collect::<Result<Vec<_>>>()?;
    if referrers.is_empty() { Ok(()) } else { store.add_referrers(&subject.digest, referrers) }
}

/// A document that is attached to an image in storage.
pub fn attached(store: &Store, subject: &Digest, sought: Sought<'_>) -> Result<Option<Vec<u8>>> {
    for document in kept(store, subject)? {
        if let Some(found) = document.found(sought) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// A document that is attached to an image in a registry, whose layers stay there; or that is in its index, as BuildKit puts it there.
pub fn attached_remotely(
    store: &Store,
    client: &Client,
    reference: &Reference,
    platform: &Platform,
    sought: Sought<'_>,
) -> Result<Option<Vec<u8>>> {
    let (image, index) = pull::chosen(store, client, reference, platform)?;
    let registry = client.registry()?;
    let mut candidates = registry.referrers(reference, &image)?;
    if let Some(index) = index {
        candidates.extend(registry.referrers(reference, &index)?);
        candidates.extend(within(store, &index, &image)?);
    }
    for candidate in candidates.iter().take(MOST) {
        if let Some(found) = fetch(registry, reference, candidate, sought)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Sends what is attached to a local image after it, as attached to what it became.
pub(super) fn push(store: &Store, client: &registry::Client, reference: &Reference, local: &Digest, pushed: &Descriptor) -> Result<()> {
    for document in kept(store, local)? {
        let document = document.about(local, &pushed.digest);
        let (manifest, listing) = document.manifest(pushed);
        put(client, reference, EMPTY)?;
        put(client, reference, &document.bytes)?;
        client.put_referrer(reference, &pushed.digest, &listing, &manifest)?;
    }
    Ok(())
}

/// The documents attached to an image in storage. What a power cut took is not there.
fn kept(store: &Store, subject: &Digest) -> Result<Vec<Attachment>> {
    let mut documents = Vec::new();
    for referrer in store.referrers(subject)? {
        let Ok(bytes) = store.read_blob(&referrer.manifest.digest, pull::LONGEST_MANIFEST) else { continue };
        let Ok(ManifestOrIndex::Manifest(manifest)) = ManifestOrIndex::parse(&bytes, Some(media_type::OCI_MANIFEST)) else { continue };
        for layer in manifest.layers {
            if let Ok(bytes) = store.read_blob(&layer.digest, LARGEST) {
                documents.push(Attachment {
                    predicate_type: layer.annotations.get(PREDICATE).cloned(),
                    media_type: layer.media_type,
                    bytes,
                });
            }
        }
    }
    Ok(documents)
}

/// Attestations that BuildKit puts into an index, of one image in it.
fn within(store: &Store, index: &Digest, image: &Digest) -> Result<Vec<Descriptor>> {
    let bytes = store.read_blob(index, pull::LONGEST_MANIFEST)?;
    let ManifestOrIndex::Index(index) = ManifestOrIndex::parse(&bytes, None)? else { return Ok(Vec::new()) };
    let says = |member: &Descriptor, key: &str, value: &str| member.annotations.get(key).is_some_and(|there| there == value);
    let ours = |member: &Descriptor| {
        says(member, "vnd.docker.reference.type", "attestation-manifest") && says(member, "vnd.docker.reference.digest", &image.to_string())
    };
    Ok(index.manifests.into_iter().filter(ours).collect())
}

fn fetch(client: &registry::Client, reference: &Reference, candidate: &Descriptor, sought: Sought<'_>) -> Result<Option<Vec<u8>>> {
    // What says to be something else is not asked for.
    let artifact = candidate.other.get("artifactType").and_then(Value::as_str).unwrap_or_default();
    let open = ["application/vnd.oci.", "application/vnd.docker."].iter().any(|start| artifact.starts_with(start));
    if !artifact.is_empty() && artifact != sought.media_type && artifact != STATEMENT && !open {
        return Ok(None);
    }
    let pinned: Reference = reference.canonical(candidate.digest).to_string().parse()?;
    let fetched = match client.manifest(&pinned, &media_type::ACCEPTED_MANIFESTS) {
        // A list may name what is gone.
        Err(error) if error.kind() == Kind::NotFound => return Ok(None),
        other => other?,
    };
    let ManifestOrIndex::Manifest(manifest) = ManifestOrIndex::parse(&fetched.bytes, fetched.media_type.as_deref())? else {
        return Ok(None);
    };
    let wanted = |layer: &&Descriptor| {
        let predicate = layer.annotations.get(PREDICATE);
        layer.media_type == sought.media_type
            || layer.media_type == STATEMENT && predicate.is_none_or(|predicate| predicate.starts_with(sought.predicate_type))
    };
    for layer in manifest.layers.iter().filter(wanted) {
        let bytes = client.blob_bytes(reference, layer, LARGEST)?;
        let document = Attachment { media_type: layer.media_type.clone(), predicate_type: None, bytes };
        if let Some(found) = document.found(sought) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

impl Attachment {
    /// The manifest, and how it stands in a list of referrers.
    fn manifest(&self, subject: &Descriptor) -> (Vec<u8>, Descriptor) {
        let annotations = self.predicate_type.iter().map(|predicate| (PREDICATE.to_owned(), predicate.clone())).collect();
        let mut layer = Descriptor::new(&self.media_type, Digest::of(&self.bytes), self.bytes.len() as u64);
        layer.annotations = annotations;
        let config = Descriptor::new(EMPTY_TYPE, Digest::of(EMPTY), EMPTY.len() as u64);
        let mut manifest = Manifest::oci(config, vec![layer.clone()]);
        let bare = Descriptor::new(&subject.media_type, subject.digest, subject.size);
        manifest.other.insert("artifactType".into(), self.media_type.clone().into());
        manifest.other.insert("subject".into(), serde_json::to_value(bare).unwrap_or_default());
        manifest.annotations.clone_from(&layer.annotations);
        let bytes = manifest.to_bytes();
        let mut listing = Descriptor::new(media_type::OCI_MANIFEST, Digest::of(&bytes), bytes.len() as u64);
        listing.annotations = layer.annotations;
        listing.other.insert("artifactType".into(), self.media_type.clone().into());
        (bytes, listing)
    }

    /// The same about what the image became.
    fn about(mut self, old: &Digest, new: &Digest) -> Self {
        if old == new || self.media_type != STATEMENT {
            return self;
        }
        let Ok(mut statement) = serde_json::from_slice::<Value>(&self.bytes) else { return self };
        for subject in statement["subject"].as_array_mut().into_iter().flatten() {
            if subject["digest"]["sha256"] == old.hex() {
                subject["digest"]["sha256"] = new.hex().into();
            }
        }
        self.bytes = serde_json::to_vec(&statement).expect("it was JSON");
        self
    }

    /// The document, or what the statement says, if it is what is sought.
    fn found(&self, sought: Sought<'_>) -> Option<Vec<u8>> {
        if self.media_type == sought.media_type {
            return Some(self.bytes.clone());
        }
        let statement: Value = serde_json::from_slice(&self.bytes).ok().filter(|_| self.media_type == STATEMENT)?;
        statement["predicateType"].as_str().filter(|kind| kind.starts_with(sought.predicate_type))?;
        let mut bytes = serde_json::to_vec_pretty(statement.get("predicate")?).ok()?;
        bytes.push(b'\n');
        Some(bytes)
    }
}

/// The error when nothing is attached.
pub fn nothing_attached(what: &str, name: &str) -> Error {
    Error::with_kind(Kind::NotFound, format!("{} has no {what}", crate::error::quote(name)))
        .cause("nothing of the kind is attached to it, neither as a referrer nor in its index")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_follow_their_image() {
        let (old, new) = (Digest::of("old"), Digest::of("new"));
        let document = statement("app", &old, "https://slsa.dev/provenance/v1", &json!({ "a": 1 }));
        let followed = document.clone().about(&old, &new);
        let value: Value = serde_json::from_slice(&followed.bytes).unwrap();
        assert_eq!(value["subject"][0]["digest"]["sha256"], new.hex());
        assert_eq!(document.clone().about(&old, &old), document);
        let sought = Sought { media_type: "x", predicate_type: "https://slsa.dev/provenance/" };
        assert_eq!(followed.found(sought).unwrap(), b"{\n  \"a\": 1\n}\n");
        assert!(followed.found(Sought { media_type: "x", predicate_type: "https://spdx.dev/Document" }).is_none());
        let subject = Descriptor::new(media_type::OCI_MANIFEST, new, 7);
        let (bytes, listing) = followed.manifest(&subject);
        let manifest: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((manifest["artifactType"].as_str(), listing.digest), (Some(STATEMENT), Digest::of(&bytes)));
        assert_eq!(manifest["subject"], json!({ "mediaType": media_type::OCI_MANIFEST, "digest": new, "size": 7 }));
    }
}
