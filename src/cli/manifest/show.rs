//! `rootling manifest inspect`, `rm` and `exists`.

use serde::Serialize;

use super::super::describe::Elsewhere;
use super::super::environment::Environment;
use super::super::pull::RegistryArguments;
use super::super::render;
use super::{find_list, not_a_list};
use crate::error::{Kind, Result, quote};
use crate::oci::{Index, Manifest, ManifestOrIndex};
use crate::transfer::{Documents, Place};

#[derive(clap::Args)]
pub struct Inspect {
    /// A list here; else a name in a registry, of which nothing is pulled; or docker://REF, oci-archive:FILE, oci:DIR
    #[arg(value_name = "LIST")]
    list: String,
    #[command(flatten)]
    registry: RegistryArguments,
}

#[derive(clap::Args)]
pub struct Rm {
    /// Lists to remove; their images stay if they have names
    #[arg(value_name = "LIST", required = true)]
    lists: Vec<String>,
}

#[derive(clap::Args)]
pub struct Exists {
    /// Name of the list
    #[arg(value_name = "LIST")]
    list: String,
}

impl Inspect {
    pub fn execute(&self, environment: &Environment) -> Result<()> {
        let place = Place::of_source(&self.list)?;
        if place.is_none()
            && let Some(store) = environment.existing_store()?
        {
            match store.find_image(&self.list) {
                Ok(record) => match store.index_of(&record)? {
                    Some((_, index)) => return print(&ManifestOrIndex::Index(index)),
                    None => {
                        render::warning(&format!("{} is an image, not a manifest list", quote(record.reference.familiar())));
                        return print(&ManifestOrIndex::Manifest(store.load_image(&record)?.manifest));
                    }
                },
                Err(error) if error.kind() != Kind::NotFound || self.list.parse::<crate::oci::Reference>().is_err() => return Err(error),
                Err(_) => {}
            }
        }
        let place = match place {
            Some(place) => place,
            None => Place::Registry { reference: self.list.parse()?, documents: Documents::Same },
        };
        print(&Elsewhere::new(place, &self.registry, environment)?.look()?.document()?)
    }
}

/// In podman's and isula-build's form: four spaces, the order of the document.
fn print(document: &ManifestOrIndex) -> Result<()> {
    let mut bytes = Vec::new();
    let mut out = serde_json::Serializer::with_formatter(&mut bytes, serde_json::ser::PrettyFormatter::with_indent(b"    "));
    let written = match document {
        ManifestOrIndex::Index(index) => Index::serialize(index, &mut out),
        ManifestOrIndex::Manifest(manifest) => Manifest::serialize(manifest, &mut out),
    };
    written.expect("plain data");
    render::result(&String::from_utf8_lossy(&bytes));
    Ok(())
}

impl Rm {
    pub fn execute(&self, environment: &Environment) -> Result<()> {
        let store = environment.store()?;
        let mut failed = None;
        for name in &self.lists {
            // The others are removed all the same; the command fails in the end.
            let removed = find_list(&store, name).and_then(|(record, ..)| match record.index {
                Some(_) => store.remove_image(&record.reference).map(|_| record),
                None => Err(not_a_list(&record.reference)),
            });
            match removed {
                Ok(record) => render::result(&format!("removed {}", record.reference.familiar())),
                Err(error) => {
                    if let Some(earlier) = failed.replace(error) {
                        render::error(&earlier);
                    }
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

impl Exists {
    pub fn execute(&self, environment: &Environment) -> Result<()> {
        let store = environment.store()?;
        find_list(&store, &self.list).map(drop)
    }
}
