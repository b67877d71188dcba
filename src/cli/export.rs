//! `rootling export`.

use std::path::PathBuf;

use super::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::oci::Platform;
use crate::rootfs::compress::Compression;
use crate::rootfs::view::View;
use crate::transfer;

#[derive(clap::Args)]
pub struct Arguments {
    /// Name or ID of an image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Which of a name's images [default: this machine's, else the first]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// File to write, `-` for standard output
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Compression [default: by the file's suffix, else none]
    #[arg(long, value_enum)]
    compression: Option<CompressionArgument>,
    /// Level, as the compressor counts
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
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
    transfer::export(&view, &arguments.output, compression, arguments.level)
}
