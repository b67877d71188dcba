//! `rootling import`.

use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::pull::RegistryArguments;
use super::render::{self, Printer, Progress};
use crate::build;
use crate::error::{Error, Result, quote};
use crate::oci::{Platform, Reference};
use crate::store::Store;
use crate::transfer::{self, guess};

#[derive(clap::Args)]
#[command(override_usage = "rootling import [OPTIONS] SOURCE [NAME]\n       rootling import [OPTIONS] --with-spec DIR [NAME]")]
pub struct Arguments {
    /// A rootfs tarball (plain, gzip, xz, zstd, bzip2), a directory, `-` for a tarball on standard input, an http(s) URL of one, or
    /// `host:PROGRAM,PROGRAM,…`
    #[arg(value_name = "SOURCE", required_unless_present = "with_spec")]
    source: Option<String>,
    /// Name for the image; without one it can be found by its ID
    #[arg(value_name = "NAME")]
    name: Option<Reference>,
    /// Make an image of what `export --with-spec` wrote; it has the name it had, if none is given
    #[arg(long, value_name = "DIR", conflicts_with = "platform")]
    with_spec: Option<PathBuf>,
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
    let (source, name) = match (&arguments.with_spec, &arguments.source, &arguments.name) {
        (None, source, name) => (source.as_deref().unwrap_or_default(), name.clone()),
        // What stands first is then the name.
        (Some(_), name, None) => ("", name.as_deref().map(str::parse::<Reference>).transpose()?),
        (Some(_), _, Some(_)) => return Err(Error::input("`--with-spec` takes one name").hint("rootling import --with-spec DIR [NAME]")),
    };
    name.iter().try_for_each(super::tag::check_name)?;
    let printer = Printer::new(if arguments.quiet { Progress::Quiet } else { Progress::Auto });
    let store = environment.store()?;
    let search = environment.variable("PATH").unwrap_or(build::DEFAULT_PATH);
    let platform = arguments.platform.clone().unwrap_or_else(Platform::host);
    refuse_image_archive(&store, source)?;
    let image = match (&arguments.with_spec, source.strip_prefix("host:")) {
        (Some(directory), _) => transfer::import_with_spec(&store, directory, &printer)?,
        (None, Some(programs)) => transfer::import_host(&store, programs, search, &printer)?,
        (None, None) if build::is_web(source) => {
            let client = RegistryArguments::default().client(environment);
            transfer::import_url(&store, &client, source, &platform, &printer)?
        }
        (None, None) => transfer::import_file(&store, source, &platform, &printer)?,
    };
    let image = if arguments.change.is_empty() && arguments.message.is_none() {
        image
    } else {
        transfer::reconfigure(&store, &image, |config| {
            if let (Some(message), Some(entry)) = (&arguments.message, config.history.last_mut()) {
                entry.comment = Some(message.clone());
            }
            build::apply_changes(config, &arguments.change)
        })?
    };
    let name = match (name, image.names.first()) {
        (Some(name), _) => name,
        (None, Some(name)) => {
            let name = name.parse()?;
            super::tag::check_name(&name)?;
            name
        }
        (None, None) => build::unnamed(&image.manifest.digest)?,
    };
    let record = store.put_image(&name, &image.manifest, None)?;
    if arguments.quiet {
        render::result(&record.config.to_string());
    } else {
        render::note(&format!("imported {} {}", name.familiar(), record.config.short()));
    }
    Ok(())
}

/// Whoever imports an archive of images wants the images.
fn refuse_image_archive(store: &Store, source: &str) -> Result<()> {
    if !Path::new(source).is_file() || !guess::is_image_archive(store, Path::new(source)) {
        return Ok(());
    }
    Err(Error::input(format!("{} is an archive of images, not of a root file system", quote(source))).hint(format!(
        "`rootling load -i {source}` takes its images; `rootling convert tar:{source} NAME` makes one image of its files all the same"
    )))
}
