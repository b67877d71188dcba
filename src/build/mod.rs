//! Dockerfile to image: plan, then for each step resolve, key, look up, do, commit.
//!
//! Deliberately not here: text (that is `dockerfile`), HTTP, mounts, and printing. The engine is one short loop, in `step`.

mod archive;
mod base;
mod chmod;
mod config_step;
mod context;
mod copy;
mod copying;
mod filter;
mod key;
mod passwd;
mod plan;
mod resolve;
mod run;
mod scope;
mod selection;
mod sources;
mod state;
mod step;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::dockerfile;
use crate::error::Result;
use crate::event::Sink;
use crate::oci::{Descriptor, Digest, Manifest, Platform, Reference, media_type};
use crate::rootemu;
use crate::store::{ImageRecord, StepRecord, Store, WorkspaceKind};
use crate::transfer;

pub use context::{ignore_file, read_text};
pub use passwd::{Accounts, Identity};
pub use run::{emulation, file as file_mount};
pub use scope::PREDEFINED as PREDEFINED_ARGUMENTS;
pub use state::DEFAULT_PATH;

use key::Key;
use state::State;

/// Everything a build depends on, as plain data.
pub struct Request {
    /// The Dockerfile's name, for messages.
    pub name: String,
    /// The Dockerfile.
    pub source: Vec<u8>,
    /// The build context; `None` when the Dockerfile came from standard input alone.
    pub context: Option<PathBuf>,
    /// The text of the ignore file and its name.
    pub ignore: Option<(String, String)>,
    /// Names for the image.
    pub tags: Vec<Reference>,
    /// `--target`.
    pub target: Option<String>,
    /// `--build-arg`.
    pub arguments: BTreeMap<String, String>,
    /// The platform to build for.
    pub platform: Platform,
    /// Whether old results answer for steps.
    pub cache: Cache,
    /// Where bases come from.
    pub bases: Bases,
    /// How RUN is root.
    pub emulation: rootemu::Mode,
    /// How RUN gets its tree.
    pub workspace: WorkspaceKind,
    /// Proxy variables of the machine, for RUN.
    pub proxies: BTreeMap<String, String>,
    /// `SOURCE_DATE_EPOCH` in seconds: the time of all that is made.
    pub epoch: Option<i64>,
}

/// Whether old results answer for steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// Yes.
    Use,
    /// No, but new results are remembered.
    Ignore,
}

/// Where bases come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bases {
    /// From storage, else pulled.
    LocalFirst,
    /// Always asked for at the registry.
    Pull,
}

/// A finished build.
pub struct Built {
    /// The image.
    pub image: ImageRecord,
    /// The config's digest: the image ID.
    pub id: Digest,
}

/// Builds.
///
/// Errors: the Dockerfile's (with position), a base that can't be had, a missing source, and [`FailedRun`] by `step`'s error kind; the storage
/// directory then has all layers made so far, and no image.
pub fn build(store: &Store, client: &transfer::Client, request: &Request, sink: &dyn Sink) -> Result<Built> {
    let file = dockerfile::parse(&request.name, &request.source)?;
    let host = Platform::host();
    let options =
        plan::Options { target: request.target.as_deref(), arguments: &request.arguments, platform: &request.platform, host: &host };
    let plan = plan::plan(&file, &options)?;
    if !plan.unused_arguments.is_empty() {
        sink.event(crate::event::Event::Warning(&format!("build arguments that no ARG declares: {}", plan.unused_arguments.join(", "))));
    }
    let mut engine = step::Engine::new(store, client, request, sink, &file, &plan)?;
    let state = engine.execute()?;
    engine.finish()?;
    finish(store, request, &state)
}

/// Writes config, manifest and names.
fn finish(store: &Store, request: &Request, state: &State) -> Result<Built> {
    let created = created(store, request, state)?;
    let config = state.image_config(&created).to_bytes();
    let config_digest = store.put_blob(&config)?;
    let descriptor = Descriptor::new(media_type::OCI_CONFIG, config_digest, config.len() as u64);
    let manifest = Manifest::oci(descriptor, state.layers.iter().map(|layer| layer.descriptor.clone()).collect()).to_bytes();
    let manifest = Descriptor::new(media_type::OCI_MANIFEST, store.put_blob(&manifest)?, manifest.len() as u64);
    let mut images = request.tags.iter().map(|tag| store.put_image(tag, &manifest, None)).collect::<Result<Vec<_>>>()?;
    let image = match images.pop() {
        Some(image) => image,
        None => store.put_image(&unnamed(&manifest.digest)?, &manifest, None)?,
    };
    Ok(Built { image, id: config_digest })
}

/// The name of an image that was given none: it can be found by its ID only.
pub fn unnamed(manifest: &Digest) -> Result<Reference> {
    format!("{UNNAMED}@{manifest}").parse()
}

/// Whether a name was made by [`unnamed`].
pub fn is_unnamed(reference: &Reference) -> bool {
    reference.digest().is_some() && reference.familiar_repository() == UNNAMED
}

const UNNAMED: &str = "localhost/unnamed";

/// When the image was made: the epoch if one is given, else the time remembered for this very config, else now.
///
/// Remembering makes an unchanged rebuild give the same image; a config differs from itself only in its times.
fn created(store: &Store, request: &Request, state: &State) -> Result<String> {
    if let Some(epoch) = request.epoch {
        return timestamp(epoch);
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

/// The present time as configs have it (RFC 3339).
fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// Seconds since 1970 as configs have it.
fn timestamp(seconds: i64) -> Result<String> {
    let time = jiff::Timestamp::from_second(seconds);
    time.map(|time| time.to_string()).map_err(|e| crate::error::Error::input("SOURCE_DATE_EPOCH is out of range").cause(e))
}
