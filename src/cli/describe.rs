//! What there is to know of an image, in the words of `inspect` here and in those of docker, podman and skopeo.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::environment::Environment;
use super::pull::RegistryArguments;
use crate::build::is_unnamed;
use crate::error::Result;
use crate::oci::{Descriptor, Digest, ImageConfig, Manifest, Reference};
use crate::store::{ImageRecord, Store};
use crate::transfer::look::{self, Looked};
use crate::transfer::{Client, Place};

/// An image with what is known of it from its place.
pub struct Described<'a> {
    pub manifest: &'a Descriptor,
    pub document: &'a Manifest,
    pub config: &'a ImageConfig,
    /// The index it came from.
    pub index: Option<Digest>,
    /// Its names here, or the one it was asked for by.
    pub names: &'a [Reference],
    /// What its name stands for: the manifest here, as podman has it, the index elsewhere, as skopeo has it.
    pub digest: Digest,
    /// The tags of its repository, where it is elsewhere.
    pub tags: Option<Vec<String>>,
    /// Bytes of its layers' tars, where they are known.
    pub size: Option<u64>,
}

impl Described<'_> {
    /// All of it. The lower-case fields are ours; the others are docker's, podman's and skopeo's.
    pub fn json(&self) -> Value {
        let config = self.config;
        let sent: u64 = self.document.layers.iter().map(|layer| layer.size).sum();
        let mut value = json!({
            "id": self.document.config.digest,
            "digest": self.manifest.digest,
            "names": self.names.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "created": config.created,
            "author": config.author,
            "platform": config.platform().to_string(),
            "architecture": config.architecture,
            "os": config.os,
            "size": self.size,
            "config": config.config,
            "rootfs": config.rootfs,
            "history": config.history,
            "manifest": self.document,
        });
        let tags: Vec<String> = match &self.tags {
            Some(tags) => tags.clone(),
            None => self.names.iter().filter(|name| name.tag().is_some() && !is_unnamed(name)).map(Reference::familiar).collect(),
        };
        let digests = self.names.iter().filter(|name| !is_unnamed(name));
        let both: Vec<Digest> = self.index.into_iter().chain([self.manifest.digest]).collect();
        let pinned = |name: &Reference| both.iter().map(|digest| format!("{}@{digest}", name.familiar_repository())).collect::<Vec<_>>();
        let mut digests: Vec<String> = digests.flat_map(pinned).collect();
        digests.sort();
        digests.dedup();
        let docker = json!({
            "Id": self.document.config.digest,
            "Name": self.names.first().map(|name| format!("{}/{}", name.registry(), name.repository())),
            "Digest": self.digest,
            "RepoTags": tags,
            "RepoDigests": digests,
            "Created": config.created,
            "Author": config.author.as_deref().unwrap_or_default(),
            "DockerVersion": config.other.get("docker_version").and_then(Value::as_str).unwrap_or_default(),
            "Comment": config.history.last().and_then(|last| last.comment.as_deref()).unwrap_or_default(),
            "Architecture": config.architecture,
            "Variant": config.variant.as_deref().unwrap_or_default(),
            "Os": config.os,
            "Size": self.size.unwrap_or(sent),
            "Labels": config.config.labels,
            "Env": config.config.env,
            "Config": config.config,
            "RootFS": { "Type": config.rootfs.kind, "Layers": config.rootfs.diff_ids },
            "Layers": self.document.layers.iter().map(|layer| layer.digest).collect::<Vec<_>>(),
            "LayersData": self.document.layers.iter().map(layer).collect::<Vec<_>>(),
            "ManifestType": self.manifest.media_type,
            "History": config.history,
            "Annotations": self.document.annotations,
        });
        if let (Value::Object(value), Value::Object(docker)) = (&mut value, docker) {
            value.extend(docker);
        }
        value
    }
}

/// An image elsewhere: its place, and what reaches it.
pub struct Elsewhere {
    client: Client,
    place: Place,
    store: Option<Store>,
}

impl Elsewhere {
    /// Nothing is asked yet.
    pub fn new(place: Place, registry: &RegistryArguments, environment: &Environment) -> Result<Self> {
        // A registry's documents need no place to be kept.
        let store = if matches!(place, Place::Registry { .. }) { None } else { Some(environment.store()?) };
        Ok(Self { client: registry.client(environment).for_places(&[&place]), place, store })
    }

    /// Its name, if the place says one.
    pub fn name(&self) -> Option<Reference> {
        self.place.reference()
    }

    /// Asks.
    pub fn look(&self) -> Result<Looked<'_>> {
        look::at(&self.client, &self.place, self.store.as_ref())
    }
}

/// As skopeo shows layers.
fn layer(layer: &Descriptor) -> Value {
    json!({ "MIMEType": layer.media_type, "Digest": layer.digest, "Size": layer.size, "Annotations": none_if_empty(&layer.annotations) })
}

fn none_if_empty(annotations: &BTreeMap<String, String>) -> Option<&BTreeMap<String, String>> {
    (!annotations.is_empty()).then_some(annotations)
}

/// The names of the images that have this manifest.
pub fn names(store: &Store, record: &ImageRecord) -> Result<Vec<Reference>> {
    let same = |other: &ImageRecord| other.members().iter().any(|member| member.manifest.digest == record.manifest.digest);
    let mut names: Vec<Reference> = store.images()?.into_iter().filter(same).map(|record| record.reference).collect();
    // The name it was asked for by comes first.
    names.sort_by_key(|name| *name != record.reference);
    Ok(names)
}
