//! The options of `save` and `load` for images that share their lower layers (isula-build's separated images).

use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::render::{self, Printer};
use crate::error::{Error, Result, quote, quote_path};
use crate::oci::Reference;
use crate::store::{ImageRecord, Store};
use crate::transfer::{self, Checksums, Client, LoadRequest, Place, Renames, SaveRequest};

#[derive(clap::Args)]
#[command(next_help_heading = "Images on a common base, in tarballs of which the common ones are there once")]
pub struct SaveArguments {
    /// The image of one layer below all of them
    #[arg(long, short, value_name = "IMAGE", conflicts_with_all = ["output", "format", "compression_format", "compression_level", "force_compression", "uncompressed", "platform"])]
    base: Option<String>,
    /// An image between: built on the base, and the images on it
    #[arg(long, short, value_name = "IMAGE", requires = "base")]
    lib: Option<String>,
    /// File with other names for the tarballs: [{"name":"app_1_app_image.tar.gz","rename":"app.tar.gz"}]
    #[arg(long, short, value_name = "FILE", requires = "base")]
    rename: Option<PathBuf>,
    /// Directory to write, which must not exist [default: Images]
    #[arg(long, short, value_name = "DIR", requires = "base")]
    dest: Option<PathBuf>,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Images on a common base, saved with `save --base`")]
pub struct LoadArguments {
    /// Directory that `save --base` or isula-build wrote; `--input` is then the name of the image
    #[arg(long, short, value_name = "DIR", requires = "input", conflicts_with_all = ["tag", "platform"])]
    dir: Option<PathBuf>,
    /// Base tarball [default: the one in the directory]
    #[arg(long, short, value_name = "FILE", requires = "dir")]
    base: Option<PathBuf>,
    /// Lib tarball [default: the one in the directory]
    #[arg(long, short, value_name = "FILE", requires = "dir")]
    lib: Option<PathBuf>,
    /// Take tarballs that are not those that were saved; the digests of what is in them are checked all the same
    #[arg(long, requires = "dir")]
    no_check: bool,
}

impl SaveArguments {
    /// Saves images on a common base, if that was asked for.
    pub fn save(&self, images: &[String], environment: &Environment, printer: &Printer) -> Result<Option<()>> {
        let Some(base) = &self.base else { return Ok(None) };
        let renames = self.rename.as_deref().map(Renames::read).transpose()?.unwrap_or_default();
        let directory = self.dest.as_deref().unwrap_or(Path::new("Images"));
        let store = environment.store()?;
        let apps = images.iter().map(|image| named(&store, image)).collect::<Result<Vec<_>>>()?;
        let (base, lib) = (named(&store, base)?, self.lib.as_deref().map(|lib| named(&store, lib)).transpose()?);
        let request = SaveRequest { apps: &apps, base: &base, lib: lib.as_ref(), renames: &renames, directory };
        transfer::save_separated(&store, &request, printer)?;
        render::note(&format!("saved {} to {}", images.join(", "), quote_path(directory)));
        Ok(Some(()))
    }
}

impl LoadArguments {
    /// Loads an image on a base, if that was asked for; gives its names and the image.
    pub fn load(&self, input: &Path, store: &Store, client: &Client, printer: &Printer) -> Result<Option<ImageRecord>> {
        let Some(directory) = &self.dir else { return Ok(None) };
        // They are archives of `docker save`, in parts.
        transfer::permit(client, &Place::DockerArchive { file: directory.clone(), name: None })?;
        let name: Reference = input.to_string_lossy().parse()?;
        super::tag::check_name(&name)?;
        let checksums = if self.no_check { Checksums::Ignored } else { Checksums::Checked };
        let request = LoadRequest { directory, name: &name, base: self.base.as_deref(), lib: self.lib.as_deref(), checksums };
        let image = transfer::load_separated(store, &request, printer)?;
        let names =
            image.names.iter().filter_map(|name| name.parse::<Reference>().ok()).filter(|name| super::tag::check_name(name).is_ok());
        for other in names.filter(|other| *other != name) {
            store.put_image(&other, &image.manifest, None)?;
        }
        store.put_image(&name, &image.manifest, None).map(Some)
    }
}

/// An image by its name: the tarballs are named after it.
fn named(store: &Store, text: &str) -> Result<ImageRecord> {
    let record = store.find_image(text)?;
    match text.parse::<Reference>() {
        Ok(name) if name == record.reference && name.tag().is_some() => Ok(record),
        _ => Err(Error::input(format!("{} is an ID, not a name", quote(text)))
            .cause("the tarballs are named after the images")
            .hint(format!("its name is {}", quote(record.reference.familiar())))),
    }
}
