//! `rootling push`.

use std::io::Write as _;
use std::path::PathBuf;

use super::build::docker_socket;
use super::environment::Environment;
use super::pull::RegistryArguments;
use super::render::{self, Printer, Progress};
use crate::error::{Error, Result, quote};
use crate::oci::{Platform, Reference};
use crate::rootfs::compress::Compression;
use crate::transfer::{self, Documents, Job, Packing, Place, Repack, Shape, Subject};

#[derive(clap::Args)]
pub struct Arguments {
    /// Name or ID of an image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Where to: a name in a registry, docker://REF, oci://REF, oci-archive:FILE[:REF], oci:DIR[:REF], docker-archive:FILE[:REF],
    /// docker-daemon:REF, isulad:REF, tar:FILE, local:DIR, squashfs:FILE [default: the image's name]
    #[arg(value_name = "DEST")]
    destination: Option<String>,
    /// Whose documents to send [default: those the image has]
    #[arg(long, short, value_enum)]
    format: Option<FormatArgument>,
    /// How to compress layers that were made here: gzip, zstd, none
    #[arg(long, value_name = "FORMAT")]
    compression_format: Option<String>,
    /// Level, as the compressor counts
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    compression_level: Option<i32>,
    /// Compress all layers anew
    #[arg(long)]
    force_compression: bool,
    /// Push the images of all platforms under their index, or fail if one is not here [default: so if all are here, else this machine's]
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
    /// Push the image of one platform
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Write the digest of what was pushed to a file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Show nothing but the digest
    #[arg(long, short)]
    quiet: bool,
    /// How to show what happens
    #[arg(long, value_enum, default_value_t = Progress::Auto)]
    progress: Progress,
    #[command(flatten)]
    registry: RegistryArguments,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum FormatArgument {
    Oci,
    #[value(alias = "v2s2")]
    Docker,
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let printer = Printer::new(if arguments.quiet { Progress::Quiet } else { arguments.progress });
    let store = environment.store()?;
    let record = store.find_platform(&arguments.image, arguments.platform.as_ref())?;
    let documents = match arguments.format {
        Some(FormatArgument::Oci) => Documents::Oci,
        Some(FormatArgument::Docker) => Documents::Docker,
        None => Documents::Same,
    };
    let place = match &arguments.destination {
        Some(text) if Place::is_spelled(text) => match (text.parse()?, arguments.format) {
            // The option says it more plainly than the spelling.
            (Place::Registry { reference, .. }, Some(_)) => Place::Registry { reference, documents },
            (place, _) => place,
        },
        Some(text) => Place::Registry { reference: text.parse()?, documents },
        None => Place::Registry { reference: record.reference.clone(), documents },
    };
    if let Place::Registry { reference, .. } = &place
        && crate::build::is_unnamed(reference)
    {
        return Err(Error::input("the image has no name to push it to").hint("say where to: `rootling push IMAGE HOST/NAME:TAG`"));
    }
    let packing = packing(arguments.compression_format.as_deref(), arguments.compression_level)?;
    let repack = if arguments.force_compression { Repack::All } else { Repack::New };
    let shape = Shape { documents, packing, repack, ..Shape::default() };
    let names: Vec<Reference> = Some(record.reference.clone()).into_iter().filter(|name| !crate::build::is_unnamed(name)).collect();
    let client = arguments.registry.client(environment);
    let docker = docker_socket(environment)?;
    let subject = match (&arguments.platform, arguments.all_platforms) {
        (Some(_), _) => Subject::image(&record),
        (None, true) => Subject::all(&store, &record)?,
        (None, false) => Subject::of(&store, &record)?,
    };
    let job = Job { store: &store, client: &client, subject: &subject, names: &names, shape: &shape, docker: &docker, sink: &printer };
    let descriptor = transfer::write(&job, &place, &mut std::io::stdout().lock())?;
    if let Some(path) = &arguments.digestfile {
        let mut file = std::fs::File::create(path).map_err(|e| Error::io("create", path, e))?;
        file.write_all(descriptor.digest.to_string().as_bytes()).map_err(|e| Error::io("write", path, e))?;
    }
    if arguments.quiet {
        render::result(&descriptor.digest.to_string());
    } else {
        render::note(&format!("pushed {place} {}", descriptor.digest.short()));
    }
    Ok(())
}

/// A compression by the names buildx and podman give it.
pub fn packing(word: Option<&str>, level: Option<i32>) -> Result<Packing> {
    let (compression, levels) = match word.unwrap_or("gzip") {
        "gzip" => (Compression::Gzip, 0..=9),
        "zstd" => (Compression::Zstd, 1..=22),
        "none" | "uncompressed" => return Ok(Packing { compression: Compression::None, level: None }),
        other => {
            return Err(Error::input(format!("layers can't be compressed by {}", quote(other))).hint("use gzip, zstd or uncompressed"));
        }
    };
    match level {
        Some(level) if !levels.contains(&level) => Err(Error::input(format!("invalid compression level {level}")).hint(format!(
            "levels from {} to {} are possible",
            levels.start(),
            levels.end()
        ))),
        level => Ok(Packing { compression, level }),
    }
}
