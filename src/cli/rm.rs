//! `rootling rm`.

use super::environment::Environment;
use super::render;
use crate::error::{Error, Result};

#[derive(clap::Args)]
pub struct Arguments {
    /// Names or IDs of images
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
            store.remove_image(&record)?;
        }
        return Ok(());
    }
    let mut missing = None;
    for name in &arguments.images {
        let records = match store.records_for(name) {
            Ok(records) => records,
            Err(_) if arguments.force => continue,
            // The others are removed all the same; the command fails in the end.
            Err(error) => {
                if let Some(earlier) = missing.replace(error) {
                    render::error(&earlier);
                }
                continue;
            }
        };
        for record in records {
            store.remove_image(&record)?;
        }
    }
    missing.map_or(Ok(()), |error: Error| Err(error))
}
