//! `rootling provenance`.

use std::path::PathBuf;

use super::environment::Environment;
use super::pull::RegistryArguments;
use super::sbom::{self, Found};
use crate::build::PROVENANCE;
use crate::error::Result;
use crate::oci::Platform;
use crate::transfer::{self, Sought};

#[derive(clap::Args)]
pub struct Arguments {
    /// Name or ID of an image; of one that is not in storage what is attached to it in its registry, without pulling it
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Which of a name's images [default: this machine's, else the first]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// File to write to, - for standard output
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    #[command(flatten)]
    registry: RegistryArguments,
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let store = environment.store()?;
    // A statement stands for nothing but its predicate, so that no document has the type itself.
    let sought = Sought { media_type: "", predicate_type: PROVENANCE };
    let (image, platform) = (&arguments.image, arguments.platform.as_ref());
    match sbom::find(&store, image, platform, sought, || arguments.registry.client(environment))? {
        Found::Attached(document) => sbom::write(&arguments.output, &document),
        Found::Nothing(_) => Err(transfer::nothing_attached("provenance", image).hint("`rootling build --provenance` attaches it")),
    }
}
