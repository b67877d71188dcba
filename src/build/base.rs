//! FROM: an image as the state a stage starts with.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Kind, Result, nearest, quote};
use crate::oci::{Platform, Reference, media_type};
use crate::store::{Image, Store};
use crate::transfer::read::Platforms;
use crate::transfer::{self, Need, Place};

use super::engine::Engine;
use super::location::{Location, PlacedImage};
use super::state::{State, StateLayer};
use super::{Bases, Execution};

/// The images of one build, each looked for once.
#[derive(Default)]
pub struct Images {
    /// By name; one name is looked for by one thread at a time, for all platforms.
    found: Mutex<BTreeMap<String, OfOneName>>,
}

type OfOneName = Arc<Mutex<Vec<(Platform, Image)>>>;

impl Images {
    /// Finds an image in storage, or pulls it.
    ///
    /// Errors gain near names: of images here, and of the stages given.
    pub fn find(&self, engine: &Engine<'_>, name: &str, platform: &Platform) -> Result<Image> {
        let of_name = self.found.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default().clone();
        let mut found = of_name.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, image)) = found.iter().find(|(of, _)| of == platform) {
            return Ok(image.clone());
        }
        let image = find(engine, name, platform)?;
        engine.materials.image(name, platform, &image);
        found.push((platform.clone(), image.clone()));
        Ok(image)
    }
}

fn find(engine: &Engine<'_>, name: &str, platform: &Platform) -> Result<Image> {
    match engine.contexts.location(name) {
        Some(Location::Image(image)) => by_name(engine, image, platform),
        Some(Location::Placed(image)) => image.bring(engine, platform),
        _ => match PlacedImage::parse(name)? {
            // Names, plainly said.
            Some(PlacedImage { place: Place::Registry { reference, .. }, .. }) => by_name(engine, &reference.to_string(), platform),
            Some(PlacedImage { place: Place::Storage(name), .. }) => by_name(engine, &name, platform),
            Some(image) => image.bring(engine, platform),
            None => by_name(engine, name, platform),
        },
    }
}

fn by_name(engine: &Engine<'_>, name: &str, platform: &Platform) -> Result<Image> {
    let (store, request) = (engine.store, engine.request);
    if request.bases != Bases::Pull
        && let Some(image) = local(store, name, platform)?
    {
        return Ok(image);
    }
    name.parse::<Reference>()?;
    if request.execution == Execution::Dry {
        return Err(Error::with_kind(Kind::NotFound, format!("{} is not in storage, and a dry run pulls nothing", quote(name))));
    }
    if request.bases == Bases::LocalOnly {
        let error = Error::with_kind(Kind::NotFound, format!("{} for {platform} is not in storage", quote(name)));
        return Err(with_near_names(engine, name, error.cause("`--pull=never` was asked for")));
    }
    let options = transfer::PullOptions { platform: platform.clone(), need: Need::Files };
    let pull = |reference: &Reference| transfer::pull(store, engine.client, reference, &options, engine.sink);
    match transfer::search(name, &engine.client.candidates(name)?, engine.sink, pull) {
        Ok(record) => store.load_image(&record),
        // With --pull a local image is still better than none when it was never in a registry.
        Err(error) if request.bases == Bases::Pull && error.kind() == Kind::NotFound => match local(store, name, platform)? {
            Some(image) => Ok(image),
            None => Err(error),
        },
        Err(error) => Err(with_near_names(engine, name, error)),
    }
}

impl PlacedImage {
    /// Brings the image here.
    fn bring(&self, engine: &Engine<'_>, platform: &Platform) -> Result<Image> {
        if engine.request.execution == Execution::Dry && matches!(self.place, Place::DockerDaemon(_) | Place::Podman(_)) {
            return Err(Error::with_kind(Kind::NotFound, format!("{} is not in storage, and a dry run fetches nothing", self.place)));
        }
        let platforms = Platforms::One(platform.clone());
        let means = transfer::Means { store: engine.store, client: engine.client, sink: engine.sink };
        let source = transfer::Source { place: &self.place, digest: self.digest.as_ref(), platforms: &platforms };
        let brought = transfer::bring(&means, &source)?;
        let manifest = brought.manifest();
        engine.store.unnamed_image(&super::unnamed(&manifest.digest)?, manifest)
    }
}

/// What is in storage under the name, for this platform. An image that doesn't say what it runs on serves everybody.
fn local(store: &Store, name: &str, platform: &Platform) -> Result<Option<Image>> {
    match store.find_image(name) {
        Ok(record) => match record.for_platform(platform) {
            Some(record) => store.load_image(&record).map(Some),
            None => Ok(None),
        },
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn with_near_names(engine: &Engine<'_>, name: &str, error: Error) -> Error {
    let stages = &engine.plan.stages;
    let local: Vec<String> = engine.store.images().unwrap_or_default().iter().map(|record| record.reference.familiar()).collect();
    let short: Vec<&str> = local.iter().map(|name| name.strip_suffix(":latest").unwrap_or(name)).collect();
    match nearest(name, stages.iter().map(|stage| stage.name.as_str()).chain(short)) {
        Some(near) if near != name => error.hint(format!("did you mean {}?", quote(near))),
        // It may have been meant as a stage.
        _ if stages.len() > 1 && !name.contains(['/', ':', '@', '.']) => {
            let names: Vec<&str> = stages.iter().map(|stage| stage.name.as_str()).collect();
            error.hint(format!("no stage is called {}; the stages are {}", quote(name), names.join(", ")))
        }
        _ => error,
    }
}

/// The state of a stage on the image.
pub fn state(image: &Image) -> State {
    let diff_ids = &image.config.rootfs.diff_ids;
    let layers = image.manifest.layers.iter().zip(diff_ids).map(|(descriptor, diff_id)| {
        let mut descriptor = descriptor.clone();
        // The manifest made here is OCI; Docker's layer types have equal twins there.
        descriptor.media_type = match descriptor.media_type.as_str() {
            media_type::DOCKER_LAYER_GZIP => media_type::OCI_LAYER_GZIP.into(),
            media_type::DOCKER_LAYER => media_type::OCI_LAYER.into(),
            _ => descriptor.media_type,
        };
        StateLayer { diff_id: *diff_id, descriptor }
    });
    State::on_image(image.config.clone(), layers.collect())
}
