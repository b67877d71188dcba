//! Dockerfile to image: plan, then for each step resolve, key, look up, do, commit.
//!
//! Deliberately not here: text (that is `dockerfile`), HTTP, mounts, and printing. `engine` runs stages, `step` is its short loop.

mod archive;
mod attest;
mod base;
mod cache;
mod changes;
pub mod check;
mod chmod;
mod config_step;
mod context;
mod contexts;
mod copy;
mod copying;
mod credentials;
mod engine;
mod explain;
mod fakeroot;
mod filter;
mod image;
mod key;
mod location;
mod materials;
mod mounts;
mod origin;
mod passwd;
mod plan;
mod remote;
mod resolve;
mod run;
mod schedule;
mod scope;
mod selection;
mod sources;
mod squash;
mod state;
mod step;
mod stop;
mod surroundings;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::dockerfile;
use crate::error::Result;
use crate::event::Sink;
use crate::oci::{Descriptor, Digest, Platform, Reference};
use crate::rootemu;
use crate::rootfs::meta::Times;
use crate::store::{Store, WorkspaceKind};
use crate::transfer::{self, MadeStep};

pub use attest::{Attestations, Contents, Detail, PROVENANCE, Provenance};
pub use cache::{Caches, Inline};
pub use changes::apply_changes;
pub use context::{ignore_file, ignore_in, read_text};
pub use explain::Explain;
pub use fakeroot::{choose as choose_fakeroot, lacks_program};
pub use image::{Additions, Annotation, Layers};
pub use location::{Fetcher, Location, Opened, PlacedImage, Tree, context_name, named_contexts, open_stream};
pub use passwd::{Accounts, Identity};
pub use remote::is_web;
pub use run::{emulation, file as file_mount};
pub use scope::PREDEFINED as PREDEFINED_ARGUMENTS;
pub use state::DEFAULT_PATH;
pub use surroundings::{Agent, Resolution, Secret, Surroundings};

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
    /// The ignore file's name and text.
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
    /// Caches besides the storage directory's own.
    pub caches: Caches,
    /// Whether it is said why steps were executed.
    pub explain: Explain,
    /// Where bases come from.
    pub bases: Bases,
    /// How RUN is root.
    pub emulation: rootemu::Mode,
    /// What fakeroot mode knows of distributions; the first that matches counts.
    pub fakeroot: Vec<Arc<rootemu::fakeroot::Config>>,
    /// How RUN gets its tree.
    pub workspace: WorkspaceKind,
    /// What RUN sees of the machine.
    pub surroundings: Surroundings,
    /// Proxy variables of the machine, for RUN.
    pub proxies: BTreeMap<String, String>,
    /// What the image gets besides what the Dockerfile says.
    pub additions: Additions,
    /// What is said about the image in documents that are attached to it.
    pub attestations: Attestations,
    /// What becomes of a stage whose command failed.
    pub failed: Failed,
    /// Whether anything is done.
    pub execution: Execution,
    /// Directories of this machine's programs (`PATH`): emulators of other architectures.
    pub programs: Vec<PathBuf>,
    /// What becomes of the times of files in new layers; a time set here is that of the image and its history too.
    pub times: Times,
}

/// Whether old results answer for steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// Yes.
    Use,
    /// No, but new results are remembered.
    Ignore,
}

/// Whether a build does anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Execution {
    /// All that is needed.
    Full,
    /// Nothing: it is found out which steps are remembered.
    Dry,
}

/// What becomes of a stage whose command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// Nothing is left of it.
    Drop,
    /// It is an image, for its user to look around.
    Keep,
}

/// Where bases come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bases {
    /// From storage, else pulled.
    LocalFirst,
    /// Always asked for at the registry.
    Pull,
    /// From storage; nothing is pulled.
    LocalOnly,
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
    /// The steps gone through, whoever answered for them.
    pub steps: Vec<MadeStep>,
    /// Those of them whose layers are in the images.
    pub own_steps: Vec<MadeStep>,
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
    image::check_annotations(request)?;
    let file = dockerfile::parse(&request.name, &request.source)?;
    let started = jiff::Timestamp::now();
    let outcome = engine::execute(engine::Means { store, client, request, sink }, &file)?;
    let attester = attest::Attester { store, request, materials: &outcome.materials, started };
    image::finish(&attester, outcome.states, outcome.steps)
}

/// Goes through all steps without executing or pulling anything; the events say which would be executed.
///
/// Errors: as [`build`]'s, as far as they can be foreseen.
pub fn rehearse(store: &Store, client: &transfer::Client, request: &Request, sink: &dyn Sink) -> Result<()> {
    let file = dockerfile::parse(&request.name, &request.source)?;
    engine::execute(engine::Means { store, client, request, sink }, &file).map(drop)
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

/// The present time as configs have it (RFC 3339).
fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// Seconds since 1970 as configs have it.
fn timestamp(seconds: i64) -> Result<String> {
    let time = jiff::Timestamp::from_second(seconds);
    time.map(|time| time.to_string()).map_err(|e| crate::error::Error::input("the time of the build is out of range").cause(e))
}
