//! `rootling manifest push`.

use std::io::Write as _;
use std::path::PathBuf;

use super::super::build::docker_socket;
use super::super::environment::Environment;
use super::super::pull::RegistryArguments;
use super::super::push::packing;
use super::super::render::{self, Printer, Progress};
use super::{Form, find_list, is_docker};
use crate::error::{Error, Result};
use crate::oci::Reference;
use crate::transfer::{self, Documents, Job, Place, Repack, Shape, Subject};

#[derive(clap::Args)]
pub struct Push {
    /// The list
    #[arg(value_name = "LIST")]
    list: String,
    /// Where to: a name in a registry, docker://REF, oci://REF, oci-archive:FILE[:REF], oci:DIR[:REF] [default: the list's name]
    #[arg(value_name = "DEST")]
    destination: Option<String>,
    /// Send the images too, which is always done
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    all: Option<bool>,
    /// Remove the list when it was sent
    #[arg(long, short, visible_alias = "rm")]
    purge: bool,
    /// Whose documents to send [default: the list's]
    #[arg(long, short, value_enum)]
    format: Option<Form>,
    /// How to compress layers that were made here: gzip, zstd, none
    #[arg(long, value_name = "FORMAT")]
    compression_format: Option<String>,
    /// Level, as the compressor counts
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    compression_level: Option<i32>,
    /// Compress all layers anew
    #[arg(long)]
    force_compression: bool,
    /// Write the digest of what was pushed to a file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Show nothing but the digest
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    registry: RegistryArguments,
}

impl Push {
    pub fn execute(&self, environment: &Environment) -> Result<()> {
        if self.all == Some(false) {
            render::warning("the images are sent, too: registries take no list of images they lack");
        }
        let store = environment.store()?;
        let (record, _, index) = find_list(&store, &self.list)?;
        let documents = match self.format {
            Some(Form::Oci) => Documents::Oci,
            Some(Form::Docker) => Documents::Docker,
            // A list of Docker's with other images than Docker's would be refused by most who read such lists.
            None if is_docker(&index) => Documents::Docker,
            None => Documents::Same,
        };
        let place = match &self.destination {
            Some(text) if Place::is_spelled(text) => match text.parse()? {
                Place::Registry { reference, .. } if self.format.is_some() || text.starts_with("docker:") => {
                    // docker:// says which protocol; an index is not turned into a list for it.
                    Place::Registry { reference, documents }
                }
                place => place,
            },
            Some(text) => Place::Registry { reference: text.parse()?, documents },
            None => Place::Registry { reference: record.reference.clone(), documents },
        };
        let packing = packing(self.compression_format.as_deref(), self.compression_level)?;
        let repack = if self.force_compression { Repack::All } else { Repack::New };
        let shape = Shape { documents, packing, repack, ..Shape::default() };
        let printer = Printer::new(if self.quiet { Progress::Quiet } else { Progress::Auto });
        let names: [Reference; 1] = [record.reference.clone()];
        let (client, docker) = (self.registry.client(environment), docker_socket(environment)?);
        let subject = Subject::list(&store, &record)?;
        let job = Job { store: &store, client: &client, subject: &subject, names: &names, shape: &shape, docker: &docker, sink: &printer };
        let descriptor = transfer::write(&job, &place, &mut std::io::stdout().lock())?;
        if let Some(path) = &self.digestfile {
            let mut file = std::fs::File::create(path).map_err(|e| Error::io("create", path, e))?;
            file.write_all(descriptor.digest.to_string().as_bytes()).map_err(|e| Error::io("write", path, e))?;
        }
        if self.purge {
            store.remove_image(&record.reference)?;
        }
        match self.quiet {
            true => render::result(&descriptor.digest.to_string()),
            false => render::note(&format!("pushed {place} {}", descriptor.digest.short())),
        }
        Ok(())
    }
}
