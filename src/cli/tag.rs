//! `rootling tag`.

use super::environment::Environment;
use crate::error::Result;
use crate::oci::Reference;

#[derive(clap::Args)]
pub struct Arguments {
    /// Name or ID of an image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Further names for it
    #[arg(value_name = "NAME", required = true)]
    names: Vec<Reference>,
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let store = environment.store()?;
    let image = store.find_image(&arguments.image)?;
    for name in &arguments.names {
        store.put_image(name, &image.manifest, image.index.as_ref())?;
    }
    Ok(())
}
