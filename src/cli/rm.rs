//! `rootling rm`.

use super::environment::Environment;
use super::filter::{matches_anywhere, pattern_anywhere};
use super::render;
use crate::build::is_unnamed;
use crate::dockerfile::glob::Glob;
use crate::error::{Error, Kind, Result, quote};
use crate::oci::Reference;
use crate::store::{ImageRecord, Store};

#[derive(clap::Args)]
pub struct Arguments {
    /// Names, patterns of names such as `app:*`, or IDs of images
    #[arg(value_name = "IMAGE", required_unless_present_any = ["all", "prune"], conflicts_with_all = ["all", "prune"])]
    images: Vec<String>,
    /// Remove all images
    #[arg(long, short)]
    all: bool,
    /// Remove the images that have no name
    #[arg(long, short, conflicts_with = "all")]
    prune: bool,
    /// Don't fail for images that are not there; an ID stands for all the names it has
    #[arg(long, short)]
    force: bool,
}

/// Removes names; what no name needs any more goes with the next `prune`.
pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let store = environment.store()?;
    let mut failed = None;
    // The others are removed all the same; the command fails in the end.
    let mut note = |result: Result<()>| {
        if let Err(error) = result
            && let Some(earlier) = failed.replace(error)
        {
            render::error(&earlier);
        }
    };
    if arguments.all || arguments.prune {
        for record in store.images()?.iter().filter(|record| arguments.all || is_unnamed(&record.reference)) {
            note(untag(&store, &record.reference));
        }
    }
    for name in &arguments.images {
        match remove(&store, name, arguments) {
            Err(error) if arguments.force && error.kind() == Kind::NotFound => {}
            result => note(result),
        }
    }
    failed.map_or(Ok(()), Err)
}

fn untag(store: &Store, reference: &Reference) -> Result<()> {
    if store.remove_image(reference)? {
        render::result(&format!("removed {}", reference.familiar()));
    }
    Ok(())
}

fn remove(store: &Store, name: &str, arguments: &Arguments) -> Result<()> {
    // By its exact name an image goes even if its record is damaged.
    if let Ok(reference) = name.parse::<Reference>()
        && store.remove_image(&reference)?
    {
        render::result(&format!("removed {}", reference.familiar()));
        return Ok(());
    }
    if Glob::is_wildcard(name) {
        let pattern = pattern_anywhere(name)?;
        let mut names: Vec<Reference> = store.images()?.into_iter().map(|record| record.reference).collect();
        names.retain(|reference| matches_anywhere(&pattern, reference));
        if names.is_empty() {
            return Err(Error::with_kind(Kind::NotFound, format!("no image matches {}", quote(name))).hint("`rootling images` lists them"));
        }
        return names.iter().try_for_each(|reference| untag(store, reference));
    }
    let found = store.find_image(name)?;
    let by_digest = name.parse::<Reference>().is_ok_and(|reference| reference.digest().is_some());
    // A list that has the image besides others is not the image.
    let same = |record: &ImageRecord| {
        record.config == found.config && record.index == found.index && (!by_digest || record.reference == found.reference)
    };
    let names: Vec<Reference> = store.images()?.into_iter().filter(same).map(|record| record.reference).collect();
    if names.len() > 1 && !arguments.force {
        let names: Vec<String> = names.iter().map(Reference::familiar).collect();
        return Err(Error::input(format!("{} has several names", quote(name)))
            .cause(names.join(", "))
            .hint("remove it by a name, or with `--force` all its names"));
    }
    names.iter().try_for_each(|reference| untag(store, reference))
}
