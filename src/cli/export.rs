//! `rootling export`.

use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::render::{self, Printer, Progress};
use crate::error::{Error, Kind, Result, quote_path};
use crate::oci::Platform;
use crate::rootfs::compress::Compression;
use crate::rootfs::squashfs::Coding;
use crate::rootfs::view::View;
use crate::transfer::{self, Files};

#[derive(clap::Args)]
pub struct Arguments {
    /// Name or ID of an image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Which of a name's images [default: this machine's, else the first]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// File to write, `-` for standard output; a squashfs image if it ends in `.sqfs` or `.squashfs`, else a tarball
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Write instead a directory with the configuration, as an image archive without layers (`empty.tar`), beside the files (`rootfs`);
    /// `import --with-spec` makes the image of it again
    #[arg(long, value_name = "DIR", conflicts_with = "output")]
    with_spec: Option<PathBuf>,
    /// How the files are written with `--with-spec`: as files, whose owners and devices are in extended attributes, or as a tarball
    #[arg(long, value_enum, value_name = "FORM", requires = "with_spec", default_value_t)]
    rootfs: FilesArgument,
    /// Compression [default: by the file's suffix, else none; zstd for a squashfs image]
    #[arg(long, value_enum, alias = "compression-format")]
    compression: Option<CompressionArgument>,
    /// Level, as the compressor counts
    #[arg(long, value_name = "N", allow_negative_numbers = true, alias = "compression-level")]
    level: Option<i32>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum CompressionArgument {
    None,
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum FilesArgument {
    #[default]
    Dir,
    Tar,
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    use std::io::IsTerminal as _;
    let compression = match arguments.compression {
        Some(CompressionArgument::None) => Compression::None,
        Some(CompressionArgument::Gzip) => Compression::Gzip,
        Some(CompressionArgument::Zstd) => Compression::Zstd,
        Some(CompressionArgument::Xz) => Compression::Xz,
        Some(CompressionArgument::Bzip2) => Compression::Bzip2,
        None => transfer::compression_of(&arguments.output),
    };
    if let Some(directory) = &arguments.with_spec {
        return with_spec(arguments, directory, compression, environment);
    }
    let stdout = arguments.output.as_os_str() == "-";
    if stdout && std::io::stdout().is_terminal() {
        return Err(Error::input("not writing a tarball to a terminal").hint("redirect it, or name a file with `--output`"));
    }
    let store = environment.store()?;
    let image = store.load_image(&store.find_platform(&arguments.image, arguments.platform.as_ref())?)?;
    let view = View::new(store.stack(&image.config.rootfs.diff_ids)?);
    if stdout {
        return match transfer::export_to(&view, std::io::stdout().lock(), compression, arguments.level) {
            // `| head` has seen enough.
            Err(error) if error.kind() == Kind::Interrupted => Ok(()),
            result => result,
        };
    }
    if transfer::is_squashfs_name(&arguments.output) {
        let compression = arguments.compression.map_or(Compression::Zstd, |_| compression);
        return transfer::export_squashfs(&view, &arguments.output, Coding::new(compression, arguments.level)?);
    }
    transfer::export(&view, &arguments.output, compression, arguments.level)
}

fn with_spec(arguments: &Arguments, directory: &Path, compression: Compression, environment: &Environment) -> Result<()> {
    let files = match (arguments.rootfs, arguments.compression, arguments.level) {
        (FilesArgument::Tar, _, None) => Files::Tarball(compression),
        (FilesArgument::Dir, None, None) => Files::Unpacked,
        _ => {
            return Err(
                Error::input("`--with-spec` compresses only a tarball, at the usual level").hint("add `--rootfs tar`, without `--level`")
            );
        }
    };
    let store = environment.store()?;
    let record = store.find_platform(&arguments.image, arguments.platform.as_ref())?;
    let name = Some(&record.reference).filter(|name| name.tag().is_some() && !crate::build::is_unnamed(name));
    let printer = Printer::new(Progress::Auto);
    let image = store.load_image(&record)?;
    transfer::export_with_spec(&store, &image, name, files, directory, &printer)?;
    render::note(&format!("exported {} to {}", arguments.image, quote_path(directory)));
    Ok(())
}
