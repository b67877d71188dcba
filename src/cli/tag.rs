//! `rootling tag`.

use super::environment::Environment;
use crate::error::{Error, Result, quote};
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

/// A name given to an image here: a digest would promise what another image has, and `scratch` is the empty one.
pub fn check_name(name: &Reference) -> Result<()> {
    if name.digest().is_some() {
        return Err(Error::input(format!("can't name an image {}", quote(name.familiar())))
            .cause("a digest belongs to one image for ever")
            .hint("use a tag"));
    }
    if name.familiar_repository() == "scratch" {
        return Err(Error::input("can't name an image `scratch`").cause("that name stands for the empty image"));
    }
    Ok(())
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    arguments.names.iter().try_for_each(check_name)?;
    let store = environment.store()?;
    let image = store.find_image(&arguments.image)?;
    for name in &arguments.names {
        store.name_again(&image, name)?;
    }
    Ok(())
}
