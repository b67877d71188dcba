//! `rootling sbom`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::render;
use crate::error::{Error, IoContext as _, Result};
use crate::oci::Platform;
use crate::rootfs::view::View;
use crate::sbom::{Document, Inventory};
use crate::store::{ImageRecord, Store};

#[derive(clap::Args)]
pub struct Arguments {
    /// Name or ID of an image
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
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// SPDX 2.3
    #[value(alias = "spdx")]
    SpdxJson,
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let Form::SpdxJson = arguments.format;
    let store = environment.store()?;
    let record = store.find_platform(&arguments.image, arguments.platform.as_ref())?;
    write(&arguments.output, &made(&store, &record, environment)?)
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

fn write(output: &Path, bytes: &[u8]) -> Result<()> {
    if output == Path::new("-") {
        return std::io::stdout().lock().write_all(bytes).map_err(|e| Error::os("can't write the document", e));
    }
    std::fs::write(output, bytes).doing("write", output)
}
