//! The finished image: what the command line adds to a stage's state, its documents, its names.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use crate::error::{Error, Result, quote};
use crate::oci::{Descriptor, DiffId, Digest, Index, Manifest, Platform, Reference, media_type};
use crate::store::{StepRecord, Store};
use crate::transfer::{self, MadeStep};

use super::attest::Attester;
use super::cache::Inline;
use super::key::Key;
use super::squash::squash;
use super::state::{State, StateLayer};
use super::{Built, BuiltImage, Cache, Request, now, timestamp, unnamed};

/// What the image gets besides what the Dockerfile says.
#[derive(Clone, Debug, Default)]
pub struct Additions {
    /// Labels; they win over the Dockerfile's.
    pub labels: BTreeMap<String, String>,
    /// Notes on manifests and on the index.
    pub annotations: Vec<Annotation>,
    /// Which layers become one.
    pub layers: Layers,
}

/// Which layers become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layers {
    /// None: each instruction that changes files has its own.
    #[default]
    Kept,
    /// Those that the Dockerfile adds to its base image.
    SquashNew,
    /// All, the base image's too.
    SquashAll,
}

/// A note, and what it is put on, as docker buildx reads it: `[manifest|index|manifest-descriptor|index-descriptor[PLATFORM],…:]NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    places: Vec<(Place, Option<Platform>)>,
    name: String,
    value: String,
}

/// What can have annotations here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The manifest of each image.
    Manifest,
    /// The index.
    Index,
    /// The index' entry of each image.
    ManifestDescriptor,
    /// The entry of the index in a layout's `index.json`.
    IndexDescriptor,
}

impl FromStr for Annotation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::input(format!("invalid annotation {}", quote(text)))
                .cause(why)
                .hint("write `NAME=VALUE`, or `index:NAME=VALUE` for the index")
        };
        let (left, value) = text.split_once('=').ok_or_else(|| bad("it has no `=`"))?;
        let (places, name) = match left.split_once(':') {
            // A name may hold a colon itself; only known places end with one.
            Some((places, name)) if places.split(',').all(|place| place_of(place).is_some()) => {
                let platform = |text: &str| text.parse::<Platform>().map_err(|e| bad(e.what()));
                let read = |text| match place_of(text) {
                    Some((place, Some(of))) => Ok((place, Some(platform(of)?))),
                    Some((place, None)) => Ok((place, None)),
                    None => Err(bad("unknown place")),
                };
                (places.split(',').map(read).collect::<Result<Vec<_>>>()?, name)
            }
            _ => (vec![(Place::Manifest, None)], left),
        };
        if name.is_empty() {
            return Err(bad("it has no name"));
        }
        Ok(Self { places, name: name.into(), value: value.into() })
    }
}

/// A place and the platform in brackets after it.
fn place_of(text: &str) -> Option<(Place, Option<&str>)> {
    let (name, platform) = match text.split_once('[') {
        Some((name, rest)) => (name, Some(rest.strip_suffix(']')?)),
        None => (text, None),
    };
    let place = match name {
        "manifest" => Place::Manifest,
        "index" => Place::Index,
        "manifest-descriptor" => Place::ManifestDescriptor,
        "index-descriptor" => Place::IndexDescriptor,
        _ => return None,
    };
    Some((place, platform))
}

impl Additions {
    /// The annotations of a place, for one platform where the place has one.
    fn of(&self, place: Place, platform: Option<&Platform>) -> BTreeMap<String, String> {
        let meant = |wanted: &(Place, Option<Platform>)| wanted.0 == place && (wanted.1.is_none() || wanted.1.as_ref() == platform);
        let chosen = self.annotations.iter().filter(|annotation| annotation.places.iter().any(meant));
        chosen.map(|annotation| (annotation.name.clone(), annotation.value.clone())).collect()
    }
}

/// Whether every annotation has its place; to be asked before the first step.
pub fn check_annotations(request: &Request) -> Result<()> {
    let needs_index = |(place, _): &(Place, Option<Platform>)| *place != Place::Manifest;
    let misplaced = request.additions.annotations.iter().find(|annotation| annotation.places.iter().any(needs_index));
    match misplaced.filter(|_| request.platforms.len() == 1) {
        None => Ok(()),
        Some(annotation) => Err(Error::input(format!("there is no index for the annotation {}", quote(&annotation.name)))
            .cause("a build for one platform makes an image without an index")
            .hint("leave the place out, which means the manifest, or build for several platforms: `--platform linux/amd64,linux/arm64`")),
    }
}

/// Writes configs, manifests, the index and names.
pub fn finish(attester: &Attester<'_>, states: Vec<State>, steps: Vec<MadeStep>) -> Result<Built> {
    let Attester { store, request, .. } = *attester;
    let stacks: BTreeSet<DiffId> = states.iter().flat_map(State::stack).collect();
    let own_steps = within(&steps, &stacks);
    let images = states.into_iter().map(|state| image(store, request, state, &own_steps)).collect::<Result<Vec<_>>>()?;
    let index = match images.as_slice() {
        [_] => None,
        several => {
            let mut index = Index::oci(several.iter().map(|image| member(request, image)).collect());
            index.annotations = request.additions.of(Place::Index, None);
            let bytes = index.to_bytes();
            let descriptor = Descriptor::new(media_type::OCI_INDEX, store.put_blob(&bytes)?, bytes.len() as u64);
            Some(Descriptor { annotations: request.additions.of(Place::IndexDescriptor, None), ..descriptor })
        }
    };
    // Before there is a name, so that no image has one and lacks what belongs to it.
    images.iter().try_for_each(|image| attester.attest(image))?;
    let names = match (request.tags.as_slice(), &index) {
        ([], Some(index)) => vec![unnamed(&index.digest)?],
        ([], None) => vec![unnamed(&images[0].manifest.digest)?],
        (tags, _) => tags.to_vec(),
    };
    for name in &names {
        match &index {
            // The name alone means the image that runs here, if there is one.
            Some(index) => store.put_index(name, index, &Platform::host())?,
            None => store.put_image(name, &images[0].manifest, None)?,
        };
    }
    Ok(Built { images, index, names, steps, own_steps })
}

/// An image as its index names it.
fn member(request: &Request, image: &BuiltImage) -> Descriptor {
    let annotations = request.additions.of(Place::ManifestDescriptor, Some(&image.platform));
    Descriptor { platform: Some(image.platform.clone()), annotations, ..image.manifest.clone() }
}

/// Steps that need no other layers than these.
fn within(steps: &[MadeStep], layers: &BTreeSet<DiffId>) -> Vec<MadeStep> {
    steps.iter().filter(|step| step.layer.is_none_or(|layer| layers.contains(&layer))).cloned().collect()
}

fn image(store: &Store, request: &Request, state: State, steps: &[MadeStep]) -> Result<BuiltImage> {
    let mut state = squashed(store, request, state)?;
    for (name, value) in &request.additions.labels {
        state.config.config.labels.insert(name.clone(), value.clone());
    }
    let created = created(store, request, &state)?;
    let mut config = state.image_config(&created);
    if request.caches.inline == Inline::Yes {
        let own = within(steps, &state.stack().into_iter().collect());
        config.other.insert(transfer::INLINE_FIELD.into(), transfer::inline(&own));
    }
    let platform = config.platform();
    let config = config.to_bytes();
    let id = store.put_blob(&config)?;
    let descriptor = Descriptor::new(media_type::OCI_CONFIG, id, config.len() as u64);
    let mut manifest = Manifest::oci(descriptor, state.layers.iter().map(|layer| layer.descriptor.clone()).collect());
    manifest.annotations = request.additions.of(Place::Manifest, Some(&platform));
    let bytes = manifest.to_bytes();
    let manifest = Descriptor::new(media_type::OCI_MANIFEST, store.put_blob(&bytes)?, bytes.len() as u64);
    Ok(BuiltImage { platform, manifest, id })
}

/// The state with the layers that are to be one made one. The history keeps its lines; one more names the new layer, as docker has it.
fn squashed(store: &Store, request: &Request, mut state: State) -> Result<State> {
    let first = match request.additions.layers {
        Layers::Kept => return Ok(state),
        Layers::SquashNew => state.inherited,
        Layers::SquashAll => 0,
    };
    let stack = state.stack();
    if stack.len() - first < 2 {
        return Ok(state);
    }
    let mut key = Key::new(&state.chain(), "squash");
    key.number(first as u64).field(format!("{:?}", request.times));
    let key = key.finish();
    let known = store.step_get(&key)?.and_then(|record| serde_json::from_value(record.value).ok());
    let layer = match known {
        Some(layer) if request.cache == Cache::Use => layer,
        _ => {
            let layer = squash(store, &stack[..first], &stack[first..], request.times)?.map(|layer| (layer.diff_id, layer.size));
            let layers = layer.iter().map(|(diff_id, _)| *diff_id).collect();
            store.step_put(&key, &StepRecord { layers, blobs: Vec::new(), value: serde_json::json!(layer) })?;
            layer
        }
    };
    state.squash(first, layer.map(StateLayer::made));
    Ok(state)
}

/// When the image was made: the epoch if one is given, else when its youngest step was, else the time remembered for this very
/// config, else now.
///
/// An unchanged rebuild gives the same image, also on another machine that has the steps from a cache; a config differs from itself only in its
/// times.
fn created(store: &Store, request: &Request, state: &State) -> Result<String> {
    if let Some(epoch) = request.times.epoch() {
        return timestamp(epoch);
    }
    if let Some(time) = state.latest_step() {
        return Ok(time);
    }
    let mut key = Key::new(&state.chain(), "created");
    key.field(state.undated_config().to_bytes());
    let key = key.finish();
    if request.cache == Cache::Use
        && let Some(record) = store.step_get(&key)?
        && let Some(created) = record.value.as_str()
    {
        return Ok(created.to_owned());
    }
    let now = now();
    store.step_put(&key, &StepRecord { layers: state.stack(), blobs: Vec::new(), value: now.clone().into() })?;
    Ok(now)
}

/// Names a stage as it was when a command failed in it, so that its user can look around; gives back the name.
///
/// The variables that ARG set are in its environment, as the command saw them.
pub fn keep_failed(store: &Store, state: &State, layer: Option<StateLayer>) -> Result<Reference> {
    let mut state = state.clone();
    state.record(None, "RUN failed here".into(), layer);
    for (name, value) in state.scope.clone().variables() {
        state.config.config.set_env(name, value);
    }
    state.config.config.entrypoint = None;
    state.config.config.cmd = Some(state.shell().into_iter().take(1).collect());
    let config = state.image_config(&now()).to_bytes();
    let descriptor = Descriptor::new(media_type::OCI_CONFIG, store.put_blob(&config)?, config.len() as u64);
    let manifest = Manifest::oci(descriptor, state.layers.iter().map(|layer| layer.descriptor.clone()).collect()).to_bytes();
    let digest: Digest = store.put_blob(&manifest)?;
    let name: Reference = format!("localhost/failed:{}", digest.short()).parse()?;
    store.put_image(&name, &Descriptor::new(media_type::OCI_MANIFEST, digest, manifest.len() as u64), None)?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations() {
        let manifest =
            |name: &str, value: &str| Annotation { places: vec![(Place::Manifest, None)], name: name.into(), value: value.into() };
        for (text, expected) in
            [("a=b", manifest("a", "b")), ("org.x:y=a=b", manifest("org.x:y", "a=b")), ("manifest:k=", manifest("k", ""))]
        {
            assert_eq!(text.parse::<Annotation>().unwrap(), expected, "{text}");
        }
        let several: Annotation = "index,manifest[linux/arm64]:k=v".parse().unwrap();
        let arm64 = "linux/arm64".parse().unwrap();
        assert_eq!(several.places, [(Place::Index, None), (Place::Manifest, Some(arm64))]);
        for text in ["", "a", "=b", "index:=b", "manifest[x/y/z/w]:a=b"] {
            assert!(text.parse::<Annotation>().is_err(), "{text}");
        }
    }
}
