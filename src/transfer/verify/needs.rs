//! What names need: documents, blobs and layers, and who would miss them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Outcome, Part};
use crate::error::{Error, Kind, Result, quote};
use crate::oci::{Descriptor, DiffId, Digest, ImageConfig, Manifest, ManifestOrIndex, Reference};
use crate::store::{ImageRecord, Inventory, Member, Store};
use crate::transfer::pull::{LONGEST_CONFIG, LONGEST_MANIFEST};

/// A blob that is needed.
#[derive(Clone, Debug)]
pub(super) struct Need {
    /// Size and media type where they are known.
    pub(super) descriptor: Option<Descriptor>,
    pub(super) role: Role,
    pub(super) names: BTreeSet<Reference>,
}

/// What a blob is to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A manifest or index: registries have these under another address.
    Manifest,
    /// A config, or a blob of what is no image.
    Content,
    /// A layer, which is there unpacked as well.
    Layer,
    /// Something attached to an image, which is whole without it.
    Attached,
}

/// All that names need.
#[derive(Debug, Default)]
pub(super) struct Needs {
    pub(super) blobs: BTreeMap<Digest, Need>,
    pub(super) layers: BTreeMap<DiffId, BTreeSet<Reference>>,
    /// Blobs that hold a layer, by what manifests and the cache say.
    pub(super) sources: BTreeMap<DiffId, Vec<Descriptor>>,
    /// Stacks of layers by chain ID.
    pub(super) stacks: BTreeMap<Digest, (Vec<DiffId>, BTreeSet<Reference>)>,
    /// Manifests attached to images, with the digests of those.
    pub(super) attached: Vec<(Digest, Descriptor)>,
    /// What is wrong with records.
    pub(super) findings: Vec<Finding>,
    /// Blobs that are a layer's tar as it is, and are or were here.
    plain: BTreeSet<Digest>,
    /// Records that could be read.
    pub(super) records: Vec<ImageRecord>,
}

impl Needs {
    pub(super) fn of(store: &Store, inventory: &Inventory) -> Result<Self> {
        let mut needs = Self { plain: plain(inventory), ..Self::default() };
        for (path, record) in &inventory.images {
            let finding = |name: String, what: String, names: Vec<Reference>| Finding {
                part: Part::Record,
                name,
                path: path.clone(),
                what,
                details: Vec::new(),
                images: names,
                outcome: Outcome::Found,
            };
            let stem = || path.file_stem().unwrap_or_default().to_string_lossy().replace('%', "/").replace('+', ":");
            match record {
                Err(error) => {
                    let why = error.causes().first().cloned().unwrap_or_else(|| error.to_string());
                    needs.findings.push(finding(stem(), format!("it can't be read: {why}"), Vec::new()));
                }
                Ok(record) if store.record_path(&record.reference) != *path => {
                    let what = format!("it is the record of {}", quote(record.reference.familiar()));
                    needs.findings.push(finding(stem(), what, Vec::new()));
                }
                Ok(record) => {
                    if let Some(what) = needs.record(store, record) {
                        needs.findings.push(finding(record.reference.familiar(), what, vec![record.reference.clone()]));
                    }
                    needs.records.push(record.clone());
                }
            }
        }
        needs.attachments(store, inventory);
        for (diff_id, memory) in &inventory.memories {
            for blob in memory.iter().flatten() {
                needs.source(*diff_id, blob);
            }
        }
        Ok(needs)
    }

    /// Notes what a record needs; tells in what it contradicts its documents, as far as these can be read.
    fn record(&mut self, store: &Store, record: &ImageRecord) -> Option<String> {
        let name = &record.reference;
        if let Some(index) = record.index {
            self.need(index, None, Role::Manifest, name);
        }
        for extra in &record.extras {
            self.need(extra.manifest.digest, Some(&extra.manifest), Role::Manifest, name);
            extra.blobs.iter().for_each(|blob| self.need(*blob, None, Role::Content, name));
        }
        let mut wrong = None;
        for member in record.members() {
            self.need(member.manifest.digest, Some(&member.manifest), Role::Manifest, name);
            if !record.has_image() {
                continue;
            }
            let documents = documents(store, &member);
            wrong = wrong.or(documents.as_ref().ok().and_then(|(manifest, config)| contradiction(&member, manifest, config)));
            let (config, layers, diff_ids) = match &documents {
                Ok((manifest, config)) => (manifest.config.clone(), manifest.layers.clone(), config.rootfs.diff_ids.clone()),
                Err(_) => (Descriptor::new("", member.config, 0), Vec::new(), member.layers.clone()),
            };
            let described = Some(&config).filter(|config| config.size > 0);
            self.need(config.digest, described, Role::Content, name);
            for (blob, diff_id) in layers.iter().zip(&diff_ids) {
                // A layer made here is named by its tar, which no registry has.
                if blob.digest != diff_id.0 || self.plain.contains(&blob.digest) {
                    self.need(blob.digest, Some(blob), Role::Layer, name);
                    self.source(*diff_id, blob);
                }
            }
            for diff_id in &diff_ids {
                self.layers.entry(*diff_id).or_default().insert(name.clone());
            }
            if let Some(chain) = crate::oci::ChainId::of(&diff_ids) {
                self.stacks.entry(chain.0).or_insert_with(|| (diff_ids, BTreeSet::new())).1.insert(name.clone());
            }
        }
        wrong
    }

    fn attachments(&mut self, store: &Store, inventory: &Inventory) {
        for (subject, list) in &inventory.referrers {
            let names = self.users(subject);
            match list {
                None => self.findings.push(Finding {
                    part: Part::Referrers,
                    name: subject.to_string(),
                    path: store.referrers_path(subject),
                    what: "it can't be read".into(),
                    details: Vec::new(),
                    images: names,
                    outcome: Outcome::Found,
                }),
                Some(list) => {
                    for (referrer, name) in list.iter().flat_map(|referrer| names.iter().map(move |name| (referrer, name))) {
                        self.need(referrer.manifest.digest, Some(&referrer.manifest), Role::Attached, name);
                        referrer.blobs.iter().for_each(|blob| self.need(*blob, None, Role::Attached, name));
                        self.attached.push((*subject, referrer.manifest.clone()));
                    }
                }
            }
        }
    }

    fn need(&mut self, digest: Digest, descriptor: Option<&Descriptor>, role: Role, name: &Reference) {
        let need = self.blobs.entry(digest).or_insert_with(|| Need { descriptor: None, role, names: BTreeSet::new() });
        need.names.insert(name.clone());
        need.descriptor = need.descriptor.take().or_else(|| descriptor.cloned());
    }

    fn source(&mut self, diff_id: DiffId, blob: &Descriptor) {
        let sources = self.sources.entry(diff_id).or_default();
        if !sources.iter().any(|known| known.digest == blob.digest) {
            sources.push(blob.clone());
        }
    }

    /// Who needs a blob.
    pub(super) fn users(&self, digest: &Digest) -> Vec<Reference> {
        self.blobs.get(digest).into_iter().flat_map(|need| need.names.iter().cloned()).collect()
    }

    /// Who needs a layer.
    pub(super) fn users_of_layer(&self, diff_id: &DiffId) -> Vec<Reference> {
        self.layers.get(diff_id).into_iter().flatten().cloned().collect()
    }
}

fn plain(inventory: &Inventory) -> BTreeSet<Digest> {
    let remembered = inventory.memories.iter().filter_map(|(diff_id, memory)| {
        let plain = memory.iter().flatten().any(|blob| blob.digest == diff_id.0);
        plain.then_some(diff_id.0)
    });
    inventory.blobs.iter().map(|(digest, _)| *digest).chain(remembered).collect()
}

fn documents(store: &Store, member: &Member) -> Result<(Manifest, ImageConfig)> {
    let bytes = store.read_blob(&member.manifest.digest, LONGEST_MANIFEST)?;
    let ManifestOrIndex::Manifest(manifest) = ManifestOrIndex::parse(&bytes, Some(&member.manifest.media_type))? else {
        return Err(Error::with_kind(Kind::Corrupt, "not a manifest"));
    };
    let config = store.read_blob(&manifest.config.digest, LONGEST_CONFIG)?;
    let config = serde_json::from_slice(&config).map_err(|e| Error::with_kind(Kind::Corrupt, "not a config").cause(e))?;
    Ok((manifest, config))
}

fn contradiction(member: &Member, manifest: &Manifest, config: &ImageConfig) -> Option<String> {
    let blobs: Vec<Digest> = manifest.layers.iter().map(|layer| layer.digest).collect();
    let field = match () {
        () if member.config != manifest.config.digest => "config",
        () if member.blobs != blobs => "blobs",
        () if member.layers != config.rootfs.diff_ids => "layers",
        () if member.created != config.created => "time",
        () => return None,
    };
    Some(format!("it contradicts the manifest `{}` about its {field}", member.manifest.digest))
}
