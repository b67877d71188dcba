//! `rootling rm`.

use super::environment::Environment;
use super::render;
use crate::error::{Kind, Result};
use crate::oci::Reference;
use crate::store::{ImageRecord, Store};

#[derive(clap::Args)]
pub struct Arguments {
    /// Names or IDs of images; an ID stands for all its names
    #[arg(value_name = "IMAGE", required_unless_present = "all", conflicts_with = "all")]
    images: Vec<String>,
    /// Remove all images
    #[arg(long, short)]
    all: bool,
    /// Don't fail for images that are not there
    #[arg(long, short)]
    force: bool,
}

/// Removes names; what no name needs any more goes with the next `prune`.
pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let store = environment.store()?;
    if arguments.all {
        for record in store.images()? {
            store.remove_image(&record.reference)?;
        }
        return Ok(());
    }
    let mut failed = None;
    for name in &arguments.images {
        // The others are removed all the same; the command fails in the end.
        match remove(&store, name) {
            Err(error) if arguments.force && error.kind() == Kind::NotFound => {}
            Err(error) => {
                if let Some(earlier) = failed.replace(error) {
                    render::error(&earlier);
                }
            }
            Ok(()) => {}
        }
    }
    failed.map_or(Ok(()), Err)
}

fn remove(store: &Store, name: &str) -> Result<()> {
    // By its exact name an image goes even if its record is damaged.
    if let Ok(reference) = name.parse::<Reference>()
        && store.remove_image(&reference)?
    {
        render::result(&format!("removed {}", reference.familiar()));
        return Ok(());
    }
    let found = store.find_image(name)?;
    let same = |record: &ImageRecord| record.config == found.config;
    for record in store.images()?.into_iter().filter(same) {
        store.remove_image(&record.reference)?;
        render::result(&format!("removed {}", record.reference.familiar()));
    }
    Ok(())
}
