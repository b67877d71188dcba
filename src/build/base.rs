//! FROM: an image as the state a stage starts with.

use crate::error::{Error, Kind, Result, nearest, quote};
use crate::event::Sink;
use crate::oci::{Platform, Reference, media_type};
use crate::store::{Image, Store};
use crate::transfer;

use super::state::{State, StateLayer};
use super::{Bases, Request};

/// Finds the image in storage, or pulls it.
///
/// Errors gain near names: of images here, and of the stages given.
pub fn find(
    store: &Store,
    client: &transfer::Client,
    request: &Request,
    name: &str,
    platform: &Platform,
    stages: &[String],
    sink: &dyn Sink,
) -> Result<Image> {
    if request.bases == Bases::LocalFirst
        && let Some(image) = local(store, name)?
        && (image.config.platform().serves(platform).is_some() || image.config.architecture.is_empty())
    {
        return Ok(image);
    }
    let reference: Reference = name.parse()?;
    let options = transfer::PullOptions { platform: platform.clone() };
    match transfer::pull(store, client, &reference, &options, sink) {
        Ok(record) => store.load_image(&record),
        // With --pull a local image is still better than none when it was never in a registry.
        Err(error) if request.bases == Bases::Pull && error.kind() == Kind::NotFound => match local(store, name)? {
            Some(image) => Ok(image),
            None => Err(error),
        },
        Err(error) => Err(with_near_names(store, name, stages, error)),
    }
}

fn local(store: &Store, name: &str) -> Result<Option<Image>> {
    match store.find_image(name) {
        Ok(record) => store.load_image(&record).map(Some),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn with_near_names(store: &Store, name: &str, stages: &[String], error: Error) -> Error {
    let local: Vec<String> = store.images().unwrap_or_default().iter().map(|record| record.reference.familiar()).collect();
    let short: Vec<&str> = local.iter().map(|name| name.strip_suffix(":latest").unwrap_or(name)).collect();
    match nearest(name, stages.iter().map(String::as_str).chain(short)) {
        Some(near) if near != name => error.hint(format!("did you mean {}?", quote(near))),
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
