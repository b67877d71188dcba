//! `rootling import`.

use super::environment::Environment;
use super::render::{self, Printer, Progress};
use crate::error::Result;
use crate::oci::{Platform, Reference};
use crate::transfer;

#[derive(clap::Args)]
pub struct Arguments {
    /// A rootfs tarball (plain, gzip, xz, zstd, bzip2), a directory, `-` for a tarball on standard input, or `host:PROGRAM,PROGRAM,…`
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Name for the image
    #[arg(value_name = "NAME")]
    name: Reference,
    /// What the programs in it run on [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Show nothing but the image ID
    #[arg(long, short)]
    quiet: bool,
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    super::tag::check_name(&arguments.name)?;
    let printer = Printer::new(if arguments.quiet { Progress::Quiet } else { Progress::Auto });
    let store = environment.store()?;
    let search = environment.variable("PATH").unwrap_or(crate::build::DEFAULT_PATH);
    let image = match arguments.source.strip_prefix("host:") {
        Some(programs) => transfer::import_host(&store, programs, search, &printer)?,
        None => {
            let platform = arguments.platform.clone().unwrap_or_else(Platform::host);
            transfer::import_file(&store, &arguments.source, &platform, &printer)?
        }
    };
    let record = store.put_image(&arguments.name, &image.manifest, None)?;
    if arguments.quiet {
        render::result(&record.config.to_string());
    } else {
        render::note(&format!("imported {} {}", arguments.name.familiar(), record.config.short()));
    }
    Ok(())
}
