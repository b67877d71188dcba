//! `rootling import`.

use super::environment::Environment;
use super::pull::RegistryArguments;
use super::render::{self, Printer, Progress};
use crate::build;
use crate::error::Result;
use crate::oci::{Platform, Reference};
use crate::transfer;

#[derive(clap::Args)]
pub struct Arguments {
    /// A rootfs tarball (plain, gzip, xz, zstd, bzip2), a directory, `-` for a tarball on standard input, an http(s) URL of one, or
    /// `host:PROGRAM,PROGRAM,…`
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Name for the image
    #[arg(value_name = "NAME")]
    name: Reference,
    /// What the programs in it run on [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Change how the image is run, by an instruction such as `CMD ["sh"]`; may be repeated
    #[arg(long, short, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Comment for the history
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
    /// Show nothing but the image ID
    #[arg(long, short)]
    quiet: bool,
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    super::tag::check_name(&arguments.name)?;
    let printer = Printer::new(if arguments.quiet { Progress::Quiet } else { Progress::Auto });
    let store = environment.store()?;
    let search = environment.variable("PATH").unwrap_or(build::DEFAULT_PATH);
    let platform = arguments.platform.clone().unwrap_or_else(Platform::host);
    let image = match arguments.source.strip_prefix("host:") {
        Some(programs) => transfer::import_host(&store, programs, search, &printer)?,
        None if build::is_web(&arguments.source) => {
            let client = RegistryArguments::default().client(environment);
            transfer::import_url(&store, &client, &arguments.source, &platform, &printer)?
        }
        None => transfer::import_file(&store, &arguments.source, &platform, &printer)?,
    };
    let image = if arguments.change.is_empty() && arguments.message.is_none() {
        image
    } else {
        transfer::reconfigure(&store, &image, |config| {
            if let Some(entry) = config.history.last_mut() {
                entry.comment.clone_from(&arguments.message);
            }
            build::apply_changes(config, &arguments.change)
        })?
    };
    let record = store.put_image(&arguments.name, &image.manifest, None)?;
    if arguments.quiet {
        render::result(&record.config.to_string());
    } else {
        render::note(&format!("imported {} {}", arguments.name.familiar(), record.config.short()));
    }
    Ok(())
}
