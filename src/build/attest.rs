//! What is said about a finished image in documents that are attached to it: what is in it (SPDX), and how it was made (SLSA provenance).
//!
//! The image's own documents are not touched. With a fixed time the documents are the same every time, too.
//!
//! Source: SLSA provenance v1; BuildKit's docs/attestations/slsa-definitions.md, whose build type this is: parameters have its names.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::materials::{Materials, image_address};
use super::{BuiltImage, PREDEFINED_ARGUMENTS, Request, timestamp, unnamed};
use crate::error::{Result, hide_credentials};
use crate::oci::{Digest, Platform};
use crate::rootfs::view::View;
use crate::sbom::{self, Document, Inventory};
use crate::store::Store;
use crate::transfer::{self, Attachment};

/// The type of provenance.
pub const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
const BUILD_TYPE: &str = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";

/// What is said about the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attestations {
    /// What is in it.
    pub contents: Option<Contents>,
    /// How it was made.
    pub provenance: Option<Provenance>,
}

/// A list of what is in an image: there is one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents;

/// How an image was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// How much is said.
    pub detail: Detail,
    /// Who built it, as a URI.
    pub builder: Option<String>,
}

/// How much provenance says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// What it was made of.
    #[default]
    Least,
    /// Also the values of build arguments, the names of secrets and agents, and the Dockerfile.
    Most,
}

/// Makes the documents of one build.
pub struct Attester<'a> {
    /// Where images are.
    pub store: &'a Store,
    /// What was asked for.
    pub request: &'a Request,
    /// What was used.
    pub materials: &'a Materials,
    /// When it began.
    pub started: jiff::Timestamp,
}

impl Attester<'_> {
    /// Attaches to an image what is asked for.
    pub fn attest(&self, image: &BuiltImage) -> Result<()> {
        let Attestations { contents, provenance } = &self.request.attestations;
        let mut documents = Vec::new();
        if let Some(Contents) = contents {
            documents.push(self.contents(image)?);
        }
        if let Some(provenance) = provenance {
            let predicate = self.predicate(provenance, &image.platform)?;
            documents.push(transfer::statement(&self.name(image), &image.manifest.digest, PROVENANCE, &predicate));
        }
        transfer::attach(self.store, &image.manifest, &documents)
    }

    fn contents(&self, image: &BuiltImage) -> Result<Attachment> {
        let found = self.store.unnamed_image(&unnamed(&image.manifest.digest)?, &image.manifest)?;
        let inventory = Inventory::of(&View::new(self.store.stack(&found.record.layers)?))?;
        let name = self.request.tags.first().map_or_else(|| image.id.to_string(), |tag| tag.familiar());
        let created = found.config.created.unwrap_or_default();
        let document =
            Document { name: &name, id: image.id, architecture: &image.platform.architecture, created: &created, inventory: &inventory };
        Ok(Attachment { media_type: sbom::MEDIA_TYPE.into(), predicate_type: None, bytes: document.to_bytes() })
    }

    fn name(&self, image: &BuiltImage) -> String {
        let named = self.request.tags.first().map(|tag| image_address(tag, &image.platform));
        named.unwrap_or_else(|| image.id.to_string())
    }

    fn predicate(&self, provenance: &Provenance, platform: &Platform) -> Result<Value> {
        let request = self.request;
        let most = provenance.detail == Detail::Most;
        let source = json!({
            "path": self.file(),
            "digest": { "sha256": Digest::of(&request.source).hex() },
        });
        let mut asked = json!({ "frontend": "dockerfile.v0", "args": self.arguments(provenance.detail, platform) });
        if most {
            let ids = |names: Vec<&String>| names.into_iter().map(|id| json!({ "id": id, "optional": true })).collect::<Vec<_>>();
            asked["secrets"] = ids(request.surroundings.secrets.keys().collect()).into();
            asked["ssh"] = ids(request.surroundings.agents.keys().collect()).into();
        }
        let materials = self.materials.all().into_iter();
        let materials: Vec<Value> =
            materials.map(|(address, algorithm, digits)| json!({ "uri": address, "digest": { algorithm: digits } })).collect();
        let tool = concat!("pkg:cargo/rootling@", env!("CARGO_PKG_VERSION"));
        let mut predicate = json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": { "configSource": source, "request": asked },
                "internalParameters": { "builderPlatform": Platform::host().to_string() },
                "resolvedDependencies": materials,
            },
            "runDetails": {
                "builder": {
                    "id": provenance.builder.as_deref().unwrap_or(tool),
                    "version": { "rootling": env!("CARGO_PKG_VERSION") },
                },
                "metadata": self.times()?,
            },
        });
        if most {
            let info = json!({ "filename": self.file(), "language": "Dockerfile", "data": STANDARD.encode(&request.source) });
            predicate["runDetails"]["metadata"]["buildkit_metadata"] = json!({ "source": { "infos": [info] } });
        }
        Ok(predicate)
    }

    /// What the Dockerfile is called; where on this machine it lies is nobody's business.
    fn file(&self) -> String {
        let name = hide_credentials(&self.request.name);
        name.rsplit('/').next().unwrap_or_default().to_owned()
    }

    /// BuildKit's `args`. Proxies, which may hold passwords, are none of them.
    fn arguments(&self, detail: Detail, platform: &Platform) -> Value {
        let request = self.request;
        let mut arguments = Map::new();
        arguments.insert("platform".into(), platform.to_string().into());
        if let Some(target) = &request.target {
            arguments.insert("target".into(), target.clone().into());
        }
        if detail == Detail::Most {
            let given = request.arguments.iter().filter(|(name, _)| !PREDEFINED_ARGUMENTS.contains(&name.as_str()));
            arguments.extend(given.map(|(name, value)| (format!("build-arg:{name}"), hide_credentials(value).into())));
            let labels = request.additions.labels.iter();
            arguments.extend(labels.map(|(name, value)| (format!("label:{name}"), value.clone().into())));
        }
        arguments.into()
    }

    /// When it was built; a time that was fixed stands for both ends.
    fn times(&self) -> Result<Value> {
        Ok(match self.request.times.epoch() {
            Some(epoch) => json!({ "startedOn": timestamp(epoch)?, "finishedOn": timestamp(epoch)? }),
            None => json!({ "startedOn": self.started.to_string(), "finishedOn": jiff::Timestamp::now().to_string() }),
        })
    }
}
