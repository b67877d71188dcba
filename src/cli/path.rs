//! `rootling path`.

use super::environment::Environment;
use super::render;
use crate::error::Result;
use crate::oci::Platform;

#[derive(clap::Args)]
pub struct Arguments {
    /// Name or ID of an image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Which of a name's images [default: this machine's, else the first]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
}

/// Prints a plain directory with the image's root file system, made when it is asked for the first time.
pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let store = environment.store()?;
    let image = store.load_image(&store.find_platform(&arguments.image, arguments.platform.as_ref())?)?;
    let tree = store.tree(&image.config.rootfs.diff_ids)?;
    render::result(&tree.display().to_string());
    Ok(())
}
