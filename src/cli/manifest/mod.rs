//! `rootling manifest`: lists of images for several platforms.

mod change;
mod member;
mod push;
mod show;

use super::environment::Environment;
use super::render;
use crate::error::{Error, Kind, Result, quote};
use crate::oci::{Descriptor, Index, Reference, media_type};
use crate::store::{ImageRecord, Store};

#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make a list, of images or empty
    Create(change::Create),
    /// Add images to a list
    Add(change::Add),
    /// Change what a list says of an image
    Annotate(change::Annotate),
    /// Take an image out of a list
    Remove(change::Remove),
    /// Show a list, or what a registry has under a name
    Inspect(show::Inspect),
    /// Send a list and its images to a registry, an archive or a layout
    Push(push::Push),
    /// Remove lists
    #[command(visible_alias = "delete")]
    Rm(show::Rm),
    /// Say by the exit code whether there is a list of this name
    Exists(show::Exists),
}

/// Whose documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// An OCI image index.
    Oci,
    /// A Docker manifest list.
    #[value(alias = "v2s2")]
    Docker,
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    match &arguments.command {
        Command::Create(create) => create.execute(environment),
        Command::Add(add) => add.execute(environment),
        Command::Annotate(annotate) => annotate.execute(environment),
        Command::Remove(remove) => remove.execute(environment),
        Command::Inspect(inspect) => inspect.execute(environment),
        Command::Push(push) => push.execute(environment),
        Command::Rm(rm) => rm.execute(environment),
        Command::Exists(exists) => exists.execute(environment),
    }
}

/// The list of a name or ID.
fn find_list(store: &Store, name: &str) -> Result<(ImageRecord, Descriptor, Index)> {
    let record = store.find_image(name).map_err(|error| match error.kind() {
        Kind::NotFound => Error::with_kind(Kind::NotFound, format!("there is no manifest list {}", quote(name)))
            .hint(format!("make it with `rootling manifest create {name}`")),
        _ => error,
    })?;
    match store.index_of(&record)? {
        Some((descriptor, index)) => Ok((record, descriptor, index)),
        None => Err(not_a_list(&record.reference)),
    }
}

fn not_a_list(reference: &Reference) -> Error {
    let name = reference.familiar();
    Error::input(format!("{} is an image, not a manifest list", quote(&name)))
        .hint(format!("`rootling manifest create LIST {name}` makes a list of it"))
}

/// What scripts read: the list's ID, which is its digest.
fn print_id(record: &ImageRecord) {
    render::result(&record.index.unwrap_or(record.manifest.digest).to_string());
}

fn is_docker(index: &Index) -> bool {
    index.media_type.as_deref() == Some(media_type::DOCKER_INDEX)
}
