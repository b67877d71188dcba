//! `rootling save`.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::pull::RegistryArguments;
use super::render::{self, Printer, Progress};
use super::separated::SaveArguments;
use crate::error::{Error, Result};
use crate::oci::{Platform, Reference};
use crate::rootfs::compress::Compression;
use crate::store::Store;
use crate::transfer::read::Platforms;
use crate::transfer::{self, Brought, Job, Means, Outgoing, Packing, Place, Repack, Shape, Source, Subject};

#[derive(clap::Args)]
pub struct Arguments {
    /// Names or IDs of images
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// File or directory to write, `-` for standard output
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Form of the archive
    #[arg(long, short, value_enum, default_value_t = FormatArgument::DockerArchive)]
    format: FormatArgument,
    /// Compression: gzip, zstd, none; of layers in OCI formats, of the whole file in docker's [default: gzip for layers; for docker's by the
    /// file's suffix, else none]
    #[arg(long, value_name = "FORMAT", visible_alias = "compression")]
    compression_format: Option<String>,
    /// Level, as the compressor counts
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    compression_level: Option<i32>,
    /// Compress all layers anew, also those that came compressed
    #[arg(long)]
    force_compression: bool,
    /// Layers as plain tars
    #[arg(long, conflicts_with = "compression_format")]
    uncompressed: bool,
    /// Which of a name's images [default: docker's format holds this machine's, OCI's all that are here]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Accepted for podman's sake: archives hold any number of images
    #[arg(long, short, hide = true)]
    multi_image_archive: bool,
    /// Show nothing but errors
    #[arg(long, short)]
    quiet: bool,
    /// How to show what happens
    #[arg(long, value_enum, default_value_t = Progress::Auto)]
    progress: Progress,
    #[command(flatten)]
    separated: SaveArguments,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FormatArgument {
    /// What `docker save` writes and everybody reads
    #[value(alias = "docker")]
    DockerArchive,
    /// A tar of an OCI layout
    #[value(alias = "oci")]
    OciArchive,
    /// An OCI layout as a directory
    OciDir,
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let printer = Printer::new(if arguments.quiet { Progress::Quiet } else { arguments.progress });
    if let Some(()) = arguments.separated.save(&arguments.images, environment, &printer)? {
        return Ok(());
    }
    let stream = arguments.output == Path::new("-");
    let place = match arguments.format {
        FormatArgument::DockerArchive => Place::DockerArchive { file: arguments.output.clone(), name: None },
        FormatArgument::OciArchive => Place::OciArchive { file: arguments.output.clone(), name: None },
        FormatArgument::OciDir if stream => {
            return Err(Error::input("a directory can't go to standard output").hint("name it with `--output`"));
        }
        FormatArgument::OciDir => Place::OciLayout { directory: arguments.output.clone(), name: None },
    };
    if stream && std::io::stdout().is_terminal() {
        return Err(Error::input("not writing an archive to a terminal").hint("redirect it, or name a file with `--output`"));
    }
    let shape = arguments.shape()?;
    let store = environment.store()?;
    let client = RegistryArguments::default().client(environment);
    let means = Means { store: &store, client: &client, sink: &printer };
    let brought = arguments.images.iter().map(|image| arguments.bring(&means, image)).collect::<Result<Vec<_>>>()?;
    let images: Vec<Outgoing> = brought.iter().map(|image| Outgoing { subject: &image.subject, names: &image.names }).collect();
    let job = Job { store: &store, client: &client, images: &images, shape: &shape, sink: &printer };
    transfer::write(&job, &place, &mut std::io::stdout().lock())?;
    if !arguments.quiet && !stream {
        render::note(&format!("saved {} to {}", arguments.images.join(", "), arguments.output.display()));
    }
    Ok(())
}

impl Arguments {
    fn bring(&self, means: &Means<'_>, image: &str) -> Result<Brought> {
        let place = Place::Storage(image.to_owned());
        let platforms = match &self.platform {
            Some(platform) => Platforms::One(platform.clone()),
            None if self.format != FormatArgument::DockerArchive && self.is_whole(means.store, image)? => Platforms::All,
            None => Platforms::One(transfer::usual_platform(means.store, &place)?),
        };
        let mut brought = transfer::bring(means, &Source { place: &place, digest: None, platforms: &platforms })?;
        // Who asks for an ID has not asked for a name (docker, isula-build).
        brought.names.retain(|name| image.parse::<Reference>().is_ok_and(|asked| asked == *name) && !crate::build::is_unnamed(name));
        Ok(brought)
    }

    /// Whether the name stands for an index of which everything is here.
    fn is_whole(&self, store: &Store, image: &str) -> Result<bool> {
        Ok(Subject::of(store, &store.find_image(image)?)?.index.is_some())
    }

    fn shape(&self) -> Result<Shape> {
        let packing = match &self.compression_format {
            None if self.uncompressed => Some(Packing { compression: Compression::None, level: None }),
            None if self.compression_level.is_none() => None,
            word => Some(super::push::packing(word.as_deref(), self.compression_level)?),
        };
        let repack = if self.force_compression || self.uncompressed { Repack::All } else { Repack::New };
        Ok(match self.format {
            FormatArgument::DockerArchive => Shape { file: packing, ..Shape::default() },
            _ => Shape { packing: packing.unwrap_or_default(), repack, ..Shape::default() },
        })
    }
}
