//! Dockerfile to image: plan, then for each step resolve, key, look up, do, commit.
//!
//! Deliberately not here: text (that is `dockerfile`), HTTP, mounts, and printing. `engine` runs stages, `step` is its short loop.

mod base;
mod cache;
mod chmod;
mod config_step;
mod context;
mod contexts;
mod copy;
mod engine;
mod key;
mod location;
mod passwd;
mod plan;
mod remote;
mod resolve;
mod run;
mod schedule;
mod scope;
mod sources;
mod state;
mod step;
mod stop;

use std::collections::BTreeMap;

use crate::dockerfile;
use crate::error::Result;
use crate::event::Sink;
use crate::oci::{Descriptor, Digest, Index, Manifest, Platform, Reference, media_type};
use crate::rootemu;
use crate::store::{StepRecord, Store, WorkspaceKind};
use crate::transfer;

pub use context::{ignore_file, ignore_in, read_text};
pub use location::{Fetcher, ImageFile, Location, Opened, Tree, named_contexts, open_stream};
pub use passwd::{Accounts, Identity};
pub use remote::is_web;
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
    /// The build context; `None` when the Dockerfile came alone.
    pub context: Option<Tree>,
    /// Trees and images in the place of stages and images of these names (see [`named_contexts`]).
    pub contexts: BTreeMap<String, Location>,
    /// The text of the ignore file and its name.
    pub ignore: Option<(String, String)>,
    /// Names for the image.
    pub tags: Vec<Reference>,
    /// `--target`.
    pub target: Option<String>,
    /// `--build-arg`.
    pub arguments: BTreeMap<String, String>,
    /// The platforms to build for; at least one, each once. With several the image is an index.
    pub platforms: Vec<Platform>,
    /// How many stages may be under way at a time.
    pub width: usize,
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
#[derive(Clone, Debug)]
pub struct Built {
    /// One image a platform, in the request's order.
    pub images: Vec<BuiltImage>,
    /// The index of them, if several platforms were asked for.
    pub index: Option<Descriptor>,
    /// The names they have in storage; at least one.
    pub names: Vec<Reference>,
}

/// One platform's image.
#[derive(Clone, Debug)]
pub struct BuiltImage {
    /// What it runs on.
    pub platform: Platform,
    /// Its manifest.
    pub manifest: Descriptor,
    /// The config's digest: the image ID.
    pub id: Digest,
}

impl Built {
    /// What stands for the whole: the image's ID, or the digest of the index.
    pub fn id(&self) -> Digest {
        self.index.as_ref().map_or_else(|| self.images[0].id, |index| index.digest)
    }
}

/// Builds.
///
/// Errors: the Dockerfile's (with position), a base that can't be had, a missing source, and a failed RUN, with the command's exit code; the
/// storage directory then has all layers made so far, and no image.
pub fn build(store: &Store, client: &transfer::Client, request: &Request, sink: &dyn Sink) -> Result<Built> {
    let file = dockerfile::parse(&request.name, &request.source)?;
    let states = engine::execute(engine::Means { store, client, request, sink }, &file)?;
    finish(store, request, &states)
}

/// Writes configs, manifests and names.
fn finish(store: &Store, request: &Request, states: &[State]) -> Result<Built> {
    let images = states.iter().map(|state| image(store, request, state)).collect::<Result<Vec<_>>>()?;
    let index = match images.as_slice() {
        [_] => None,
        several => {
            let index = Index::oci(several.iter().map(BuiltImage::descriptor).collect()).to_bytes();
            Some(Descriptor::new(media_type::OCI_INDEX, store.put_blob(&index)?, index.len() as u64))
        }
    };
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
    Ok(Built { images, index, names })
}

fn image(store: &Store, request: &Request, state: &State) -> Result<BuiltImage> {
    let created = created(store, request, state)?;
    let config = state.image_config(&created);
    let platform = config.platform();
    let config = config.to_bytes();
    let id = store.put_blob(&config)?;
    let descriptor = Descriptor::new(media_type::OCI_CONFIG, id, config.len() as u64);
    let manifest = Manifest::oci(descriptor, state.layers.iter().map(|layer| layer.descriptor.clone()).collect()).to_bytes();
    let manifest = Descriptor::new(media_type::OCI_MANIFEST, store.put_blob(&manifest)?, manifest.len() as u64);
    Ok(BuiltImage { platform, manifest, id })
}

impl BuiltImage {
    /// As an index names it.
    fn descriptor(&self) -> Descriptor {
        Descriptor { platform: Some(self.platform.clone()), ..self.manifest.clone() }
    }
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
