//! `rootling manifest push`.

use std::io::Write as _;
use std::path::PathBuf;

use super::super::environment::Environment;
use super::super::pull::RegistryArguments;
use super::super::push::ShapeArguments;
use super::super::render::{self, Printer, Progress};
use super::{find_list, is_docker};
use crate::error::{Error, Result};
use crate::oci::Reference;
use crate::transfer::{self, Documents, Job, Outgoing, Place, Subject};

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
    #[command(flatten)]
    shape: ShapeArguments,
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
        let mut place = match &self.destination {
            Some(text) if Place::is_spelled(text) => text.parse()?,
            Some(text) => Place::Registry { reference: text.parse()?, documents: Documents::Same },
            None => Place::Registry { reference: record.reference.clone(), documents: Documents::Same },
        };
        let mut shape = self.shape.shape(&place)?;
        let asked = shape.documents != Documents::Same;
        // A list of Docker's with other images than Docker's would be refused by most who read such lists.
        if !asked && is_docker(&index) {
            shape.documents = Documents::Docker;
        }
        if let Place::Registry { documents, .. } = &mut place
            && (asked || *documents != Documents::Oci)
        {
            // docker:// says which protocol; an index is not turned into a list for it.
            *documents = shape.documents;
        }
        let printer = Printer::new(if self.quiet { Progress::Quiet } else { Progress::Auto });
        let names: [Reference; 1] = [record.reference.clone()];
        let client = self.registry.client(environment).for_places(&[&place]);
        let subject = Subject::all(&store, &record)?;
        let images = [Outgoing { subject: &subject, names: &names }];
        let job = Job { store: &store, client: &client, images: &images, shape: &shape, sink: &printer };
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
