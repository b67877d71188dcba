//! `rootling sbom`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::pull::RegistryArguments;
use super::render;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::oci::{Platform, Reference};
use crate::rootfs::view::View;
use crate::sbom::{Document, Inventory, MEDIA_TYPE};
use crate::store::{ImageRecord, Store};
use crate::transfer::{self, Client, Sought};

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
    /// The document's form
    #[arg(long, value_enum, default_value_t = Form::SpdxJson)]
    format: Form,
    #[command(flatten)]
    registry: RegistryArguments,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// SPDX 2.3
    #[value(alias = "spdx")]
    SpdxJson,
}

/// What such a document is called where it is attached.
const SOUGHT: Sought<'static> = Sought { media_type: MEDIA_TYPE, predicate_type: "https://spdx.dev/Document" };

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let Form::SpdxJson = arguments.format;
    let store = environment.store()?;
    let (image, platform) = (&arguments.image, arguments.platform.as_ref());
    let document = match find(&store, image, platform, SOUGHT, || arguments.registry.client(environment))? {
        Found::Attached(document) => document,
        Found::Nothing(Some(record)) => made(&store, &record, environment)?,
        Found::Nothing(None) => {
            return Err(transfer::nothing_attached("list of what is in it", image)
                .hint("pull the image: `rootling sbom` then makes the list itself"));
        }
    };
    write(&arguments.output, &document)
}

/// What was found of a document.
pub enum Found {
    /// The document.
    Attached(Vec<u8>),
    /// None is attached; the image, if it is in storage.
    Nothing(Option<Box<ImageRecord>>),
}

/// Looks for a document that is attached to an image: to that in storage, else to that in its registry.
pub fn find(store: &Store, image: &str, platform: Option<&Platform>, sought: Sought<'_>, client: impl FnOnce() -> Client) -> Result<Found> {
    let remote = image.strip_prefix("docker://").or(image.strip_prefix("oci://"));
    if remote.is_none() {
        match store.find_platform(image, platform) {
            Ok(record) => {
                let attached = transfer::attached(store, &record.manifest.digest, sought)?;
                return Ok(attached.map_or(Found::Nothing(Some(Box::new(record))), Found::Attached));
            }
            Err(error) if error.kind() == Kind::NotFound && image.parse::<Reference>().is_ok() => {}
            Err(error) => return Err(error),
        }
    }
    let reference: Reference = remote.unwrap_or(image).parse()?;
    let platform = platform.cloned().unwrap_or_else(Platform::host);
    let attached = transfer::attached_remotely(store, &client().for_registry(reference.registry()), &reference, &platform, sought)?;
    Ok(attached.map_or(Found::Nothing(None), Found::Attached))
}

/// The document of what is in an image.
fn made(store: &Store, record: &ImageRecord, environment: &Environment) -> Result<Vec<u8>> {
    let config = store.load_image(record)?.config;
    let inventory = Inventory::of(&View::new(store.stack(&record.layers)?))?;
    inventory.notes.iter().for_each(|note| render::warning(note));
    let epoch = environment.variable("SOURCE_DATE_EPOCH").map(str::parse::<i64>);
    let epoch = epoch.transpose().map_err(|e| Error::input("`$SOURCE_DATE_EPOCH` is no number of seconds").cause(e))?;
    let epoch = epoch.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()).map(|time| time.to_string());
    let created = epoch.or(config.created.clone()).unwrap_or_default();
    let name = record.reference.familiar();
    let document =
        Document { name: &name, id: record.config, architecture: &config.architecture, created: &created, inventory: &inventory };
    Ok(document.to_bytes())
}

/// Writes a document to a file, or `-`.
pub fn write(output: &Path, bytes: &[u8]) -> Result<()> {
    if output == Path::new("-") {
        return std::io::stdout().lock().write_all(bytes).map_err(|e| Error::os("can't write the document", e));
    }
    std::fs::write(output, bytes).doing("write", output)
}
