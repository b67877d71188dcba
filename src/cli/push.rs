//! `rootling push`.

use std::io::Write as _;
use std::path::PathBuf;

use super::environment::Environment;
use super::key;
use super::pull::RegistryArguments;
use super::render::{self, Printer, Progress};
use crate::error::{Error, Result, quote};
use crate::oci::{Platform, Reference};
use crate::rootfs::compress::Compression;
use crate::rootfs::squashfs::Coding;
use crate::transfer::{self, Documents, Job, Outgoing, Packing, Place, Repack, Shape, Subject};
use crate::trust::PrivateKey;

#[derive(clap::Args)]
pub struct Arguments {
    /// Name or ID of an image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Where to: a name in a registry, docker://REF, oci://REF, oci-archive:FILE[:REF], oci:DIR[:REF], docker-archive:FILE[:REF],
    /// docker-daemon:REF, podman:REF, isulad:REF, tar:FILE, local:DIR, squashfs:FILE [default: the image's name]
    #[arg(value_name = "DEST")]
    destination: Option<String>,
    /// Push the images of all platforms under their index, or fail if one is not here [default: so if all are here, else this machine's]
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
    /// Push the image of one platform
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten)]
    shape: ShapeArguments,
    /// Sign what was pushed by this private key, as cosign does; a password comes from $COSIGN_PASSWORD or the terminal
    #[arg(long, value_name = "KEYFILE", alias = "sign-by-sigstore-private-key")]
    sign: Option<PathBuf>,
    /// File with the key's password
    #[arg(long, value_name = "FILE", requires = "sign")]
    sign_passphrase_file: Option<PathBuf>,
    /// Send at most so much of a blob at once, such as `8M`, for registries behind a proxy with a limit [default: all of it, and less
    /// where that is refused]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    chunk_size: Option<u64>,
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

/// The form in which an image leaves.
#[derive(clap::Args)]
pub struct ShapeArguments {
    /// Whose documents to send [default: those the image has]
    #[arg(long, short, value_enum)]
    format: Option<FormatArgument>,
    /// How to compress layers that were made here: gzip, zstd, none; for a squashfs image zstd, gzip, xz, none
    #[arg(long, value_name = "FORMAT")]
    compression_format: Option<String>,
    /// Level, as the compressor counts
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    compression_level: Option<i32>,
    /// Compress all layers anew
    #[arg(long)]
    force_compression: bool,
}

impl ShapeArguments {
    /// The form, in which an image goes to a place.
    pub fn shape(&self, place: &Place) -> Result<Shape> {
        let (word, level) = (self.compression_format.as_deref(), self.compression_level);
        if matches!(place, Place::Squashfs(_)) {
            return Ok(Shape { file: Some(squashfs_packing(word, level)?), ..Shape::default() });
        }
        let packing = packing(word, level)?;
        let repack = if self.force_compression { Repack::All } else { Repack::New };
        Ok(Shape { documents: self.documents(), packing, repack, ..Shape::default() })
    }

    fn documents(&self) -> Documents {
        match self.format {
            Some(FormatArgument::Oci) => Documents::Oci,
            Some(FormatArgument::Docker) => Documents::Docker,
            None => Documents::Same,
        }
    }
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
    let documents = arguments.shape.documents();
    let place = match &arguments.destination {
        Some(text) if Place::is_spelled(text) => match (text.parse()?, arguments.shape.format) {
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
    let signer = signer(arguments, &place, environment)?;
    let shape = arguments.shape.shape(&place)?;
    let names: Vec<Reference> = Some(record.reference.clone()).into_iter().filter(|name| !crate::build::is_unnamed(name)).collect();
    let client = arguments.registry.client(environment).for_places(&[&place]).with_chunk_size(arguments.chunk_size);
    let subject = match (&arguments.platform, arguments.all_platforms) {
        (Some(_), _) => Subject::image(&record),
        (None, true) => Subject::all(&store, &record)?,
        (None, false) => Subject::of(&store, &record)?,
    };
    let images = [Outgoing { subject: &subject, names: &names }];
    let job = Job { store: &store, client: &client, images: &images, shape: &shape, sink: &printer };
    let descriptor = transfer::write(&job, &place, &mut std::io::stdout().lock())?;
    if let (Some(key), Place::Registry { reference, .. }) = (&signer, &place) {
        transfer::sign(&client, reference, &descriptor, key)?;
    }
    if let Some(path) = &arguments.digestfile {
        let mut file = std::fs::File::create(path).map_err(|e| Error::io("create", path, e))?;
        file.write_all(descriptor.digest.to_string().as_bytes()).map_err(|e| Error::io("write", path, e))?;
    }
    if arguments.quiet {
        render::result(&descriptor.digest.to_string());
    } else {
        let signed = if signer.is_some() { " and signed it" } else { "" };
        render::note(&match &place {
            Place::Registry { reference, .. } => format!("pushed {place}{signed} as {}", reference.canonical(descriptor.digest)),
            _ => format!("pushed {place}"),
        });
    }
    Ok(())
}

/// The key to sign with; read before anything is sent.
fn signer(arguments: &Arguments, place: &Place, environment: &Environment) -> Result<Option<PrivateKey>> {
    let Some(file) = &arguments.sign else { return Ok(None) };
    if !matches!(place, Place::Registry { .. }) {
        return Err(Error::input(format!("can't sign what goes to {}", quote(place.to_string())))
            .cause("signatures are kept in registries")
            .hint("push to a registry, or leave out `--sign`"));
    }
    key::read(file, arguments.sign_passphrase_file.as_deref(), environment).map(Some)
}

/// A number of bytes with a unit of 1024, as docker writes them.
fn size(text: &str) -> std::result::Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let split = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let shift = match lower[split..].trim_end_matches(['b', 'i']) {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return Err("write a number and K, M or G".into()),
    };
    let bytes = lower[..split].parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| "write a number and K, M or G".into())
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

/// The same for a squashfs image, which has zstd unless told otherwise.
pub fn squashfs_packing(word: Option<&str>, level: Option<i32>) -> Result<Packing> {
    let compression = match word.unwrap_or("zstd") {
        "zstd" => Compression::Zstd,
        "gzip" => Compression::Gzip,
        "xz" => Compression::Xz,
        "none" | "uncompressed" => Compression::None,
        other => {
            return Err(Error::input(format!("squashfs images can't be compressed by {}", quote(other))).hint("use zstd, gzip, xz or none"));
        }
    };
    Coding::new(compression, level)?;
    Ok(Packing { compression, level })
}
