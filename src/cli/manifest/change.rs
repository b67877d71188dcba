//! `rootling manifest create`, `add`, `annotate` and `remove`.

use super::super::environment::Environment;
use super::super::pull::RegistryArguments;
use super::super::render::{self, Progress};
use super::super::tag::check_name;
use super::member::{self, Finder, Notes, annotation};
use super::{Form, find_list, not_a_list, print_id};
use crate::error::{Error, Kind, Result, quote};
use crate::oci::{Descriptor, Index, Platform, Reference, media_type};
use crate::store::{Named, Store};

#[derive(clap::Args)]
pub struct Create {
    /// Name of the list
    #[arg(value_name = "LIST")]
    list: Reference,
    /// Images for it: names, digests or IDs here; what is not here is pulled; docker://REF, oci-archive:FILE, oci:DIR, docker-archive:FILE
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    /// Change the list if there is one already
    #[arg(long, short)]
    amend: bool,
    /// Take all images of an IMAGE that is a list itself
    #[arg(long)]
    all: bool,
    /// Whose documents
    #[arg(long, short, value_enum, default_value_t = Form::Oci)]
    format: Form,
    /// A note on the list; repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = annotation)]
    annotation: Vec<(String, String)>,
    #[command(flatten)]
    registry: RegistryArguments,
}

#[derive(clap::Args)]
pub struct Add {
    /// The list
    #[arg(value_name = "LIST")]
    list: String,
    /// Images: names, digests or IDs here; what is not here is pulled; docker://REF, oci-archive:FILE, oci:DIR, docker-archive:FILE
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Take all images of an IMAGE that is a list itself
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    notes: Notes,
    #[command(flatten)]
    registry: RegistryArguments,
}

#[derive(clap::Args)]
pub struct Annotate {
    /// The list
    #[arg(value_name = "LIST")]
    list: String,
    /// Which member: a digest, an ID, a name here, or a beginning of a digest or ID
    #[arg(value_name = "IMAGE", required_unless_present = "index")]
    image: Option<String>,
    /// Put the annotations on the list itself
    #[arg(long)]
    index: bool,
    #[command(flatten)]
    notes: Notes,
    /// A note on the list itself; repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = annotation)]
    index_annotation: Vec<(String, String)>,
}

#[derive(clap::Args)]
pub struct Remove {
    /// The list
    #[arg(value_name = "LIST")]
    list: String,
    /// Which members: digests, IDs or names here
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

impl Create {
    pub fn execute(&self, environment: &Environment) -> Result<()> {
        check_name(&self.list)?;
        let store = environment.store()?;
        let name = self.list.familiar();
        if store.image(&self.list)?.is_some() && !self.amend {
            return Err(exists(&name));
        }
        let finder = finder(&store, environment, &self.registry, self.all);
        let members = found(&finder, &self.images, None)?;
        let record = store.change_list(&self.list, &Platform::host(), |now| {
            let mut index = match now {
                Named::Nothing => Index::oci(Vec::new()),
                Named::List(index) if self.amend => index,
                Named::Image if self.amend => return Err(not_a_list(&self.list)),
                Named::List(_) | Named::Image => return Err(exists(&name)),
            };
            if self.format == Form::Docker {
                index.media_type = Some(media_type::DOCKER_INDEX.into());
            }
            member::put(&mut index, members);
            member::note(&mut index, &self.annotation);
            Ok(index)
        })?;
        print_id(&record);
        Ok(())
    }
}

fn exists(name: &str) -> Error {
    Error::input(format!("there is an image or list {} already", quote(name)))
        .hint(format!("`rootling manifest create --amend {name} …` changes a list, `rootling rm {name}` removes it"))
}

impl Add {
    pub fn execute(&self, environment: &Environment) -> Result<()> {
        let store = environment.store()?;
        let finder = finder(&store, environment, &self.registry, self.all);
        // Before anything is pulled for a list that is not there.
        find_list(&store, &self.list)?;
        let members = found(&finder, &self.images, Some(&self.notes))?;
        change(&store, &self.list, |index| {
            member::put(index, members);
            Ok(())
        })
    }
}

impl Annotate {
    pub fn execute(&self, environment: &Environment) -> Result<()> {
        let store = environment.store()?;
        let mut absent: Option<String> = None;
        change(&store, &self.list, |index| {
            member::note(index, &self.index_annotation);
            let Some(image) = &self.image else { return Ok(()) };
            let mut named = member::named(&store, index, image)?;
            if named.is_empty() {
                // As isula-build has it: who annotates an image wants it in the list.
                let record = store.find_image(image).map_err(|_| no_member(&self.list, image, index))?;
                record.expect_image()?;
                let member = Descriptor { platform: Some(record.platform.clone()), ..record.manifest.clone() };
                named = vec![member.digest];
                member::put(index, vec![member]);
                absent = Some(record.reference.familiar());
            }
            if named.len() > 1 {
                let digests: Vec<String> = named.iter().map(ToString::to_string).collect();
                return Err(Error::input(format!("{} stands for several images of the list", quote(image)))
                    .cause(digests.join(", "))
                    .hint("name one by its digest"));
            }
            let of_image = index.manifests.iter_mut().find(|member| named.contains(&member.digest));
            of_image.map_or(Ok(()), |member| self.notes.put(member))
        })?;
        if let Some(name) = absent {
            render::note(&format!("{name} was not in the list; it was added"));
        }
        Ok(())
    }
}

impl Remove {
    pub fn execute(&self, environment: &Environment) -> Result<()> {
        let store = environment.store()?;
        change(&store, &self.list, |index| {
            for image in &self.images {
                let named = member::named(&store, index, image)?;
                if named.is_empty() {
                    return Err(no_member(&self.list, image, index));
                }
                index.manifests.retain(|member| !named.contains(&member.digest));
            }
            Ok(())
        })
    }
}

fn finder<'a>(store: &'a Store, environment: &'a Environment, registry: &'a RegistryArguments, all: bool) -> Finder<'a> {
    Finder { store, environment, registry, progress: Progress::Auto, all }
}

fn found(finder: &Finder<'_>, images: &[String], notes: Option<&Notes>) -> Result<Vec<Descriptor>> {
    let mut members = Vec::new();
    for image in images {
        for mut member in finder.members(image, notes)? {
            notes.map_or(Ok(()), |notes| notes.put(&mut member))?;
            members.push(member);
        }
    }
    Ok(members)
}

/// Changes a list that is there, and prints its new ID.
fn change(store: &Store, list: &str, change: impl FnOnce(&mut Index) -> Result<()>) -> Result<()> {
    let (record, ..) = find_list(store, list)?;
    let record = store.change_list(&record.reference, &Platform::host(), |now| match now {
        Named::List(mut index) => change(&mut index).map(|()| index),
        Named::Image => Err(not_a_list(&record.reference)),
        Named::Nothing => Err(Error::with_kind(Kind::NotFound, format!("the manifest list {} was removed meanwhile", quote(list)))),
    })?;
    print_id(&record);
    Ok(())
}

fn no_member(list: &str, image: &str, index: &Index) -> Error {
    let error = Error::with_kind(Kind::NotFound, format!("{} is not in the list {}", quote(image), quote(list)));
    let members: Vec<String> = index
        .manifests
        .iter()
        .map(|member| format!("{} {}", member.digest.short(), member.platform.as_ref().map(ToString::to_string).unwrap_or_default()))
        .collect();
    match members.is_empty() {
        true => error.cause("the list is empty"),
        false => error.cause(format!("it has {}", members.join(", "))),
    }
}
