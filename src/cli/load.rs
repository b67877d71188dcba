//! `rootling load`.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::pull::RegistryArguments;
use super::render::{self, Printer, Progress};
use super::separated::LoadArguments;
use crate::build;
use crate::error::{Error, Result, quote};
use crate::oci::{Platform, Reference};
use crate::store::ImageRecord;
use crate::transfer::read::Platforms;
use crate::transfer::{self, Means};

#[derive(clap::Args)]
pub struct Arguments {
    /// Archive of `save`, docker, podman or skopeo, compressed or not, or an OCI layout's directory [default: standard input]
    #[arg(long, short, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The same without the option
    #[arg(value_name = "FILE", conflicts_with = "input")]
    file: Option<PathBuf>,
    /// Name for the image, instead of the names it has in the archive
    #[arg(long, short, value_name = "NAME")]
    tag: Vec<Reference>,
    /// Which of an index' images [default: all that are in the archive]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Show nothing but image IDs
    #[arg(long, short)]
    quiet: bool,
    /// How to show what happens
    #[arg(long, value_enum, default_value_t = Progress::Auto)]
    progress: Progress,
    #[command(flatten)]
    separated: LoadArguments,
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    arguments.tag.iter().try_for_each(super::tag::check_name)?;
    let path = match arguments.input.as_deref().or(arguments.file.as_deref()) {
        Some(path) if path != Path::new("-") => path,
        _ if std::io::stdin().is_terminal() => {
            return Err(Error::input("not reading an archive from a terminal").hint("name it: `rootling load -i FILE`"));
        }
        _ => Path::new("-"),
    };
    let printer = Printer::new(if arguments.quiet { Progress::Quiet } else { arguments.progress });
    let store = environment.store()?;
    let client = RegistryArguments::default().client(environment);
    if let Some(record) = arguments.separated.load(path, &store, &client, &printer)? {
        said(arguments, &record);
        return Ok(());
    }
    let means = Means { store: &store, client: &client, sink: &printer };
    let platforms = arguments.platform.clone().map_or(Platforms::All, Platforms::One);
    let images = transfer::bring_each(&means, path, &platforms)?;
    if !arguments.tag.is_empty() && images.len() > 1 {
        return Err(Error::input(format!("there are {} images in the archive, which can't all have one name", images.len()))
            .hint("leave `--tag` out, and use `rootling tag` afterwards"));
    }
    for image in images {
        let mut names = if arguments.tag.is_empty() { image.names.clone() } else { arguments.tag.clone() };
        // A name with a digest is no name to give.
        names.retain(|name| name.digest().is_none());
        for refused in &image.refused {
            render::warning(&format!("left out the name {}, which no image can have here", quote(refused)));
        }
        if names.is_empty() {
            names.push(build::unnamed(&image.manifest().digest)?);
        }
        for name in names {
            let record = image.put(&store, &name)?;
            said(arguments, &record);
        }
    }
    Ok(())
}

fn said(arguments: &Arguments, record: &ImageRecord) {
    match (arguments.quiet, build::is_unnamed(&record.reference)) {
        (true, _) => render::result(&record.config.to_string()),
        (false, true) => render::note(&format!("loaded {} without a name", record.config.short())),
        (false, false) => render::note(&format!("loaded {} {}", record.reference.familiar(), record.config.short())),
    }
}
