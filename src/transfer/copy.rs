//! Any place to any place.
//!
//! What does not come from the storage directory comes there first, without a name, and leaves from there: every layer passes the same
//! checks whatever its way, and what is here already is not fetched.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::bundle::{Documents, Repack, Shape, Subject};
use super::client::Client;
use super::layers::Need;
use super::place::Place;
use super::read::{Form, Images, Platforms, ReadImage, ReadRequest};
use super::signatures::permit;
use super::write::{self, Job, Outgoing};
use super::{import, pull};
use crate::error::{Error, Kind, Result, quote};
use crate::event::Sink;
use crate::oci::{Descriptor, Digest, Platform, Reference};
use crate::registry::Engine;
use crate::store::{ImageRecord, Store};

/// What moving images needs besides the two places.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    /// The storage directory.
    pub store: &'a Store,
    /// For registries.
    pub client: &'a Client,
    /// Told what happens.
    pub sink: &'a dyn Sink,
}

/// An image that was brought here. Without a name it stays as long as the store is open, and then until something is pruned.
#[derive(Clone, Debug)]
pub struct Brought {
    /// What can leave.
    pub subject: Subject,
    /// The names it came with.
    pub names: Vec<Reference>,
    /// Names it came with that are none.
    pub refused: Vec<String>,
    image: ReadImage,
    preferred: Platform,
}

impl Brought {
    /// The manifest; of several images the one for this machine, or the one that was asked for.
    pub fn manifest(&self) -> &Descriptor {
        &self.image.manifest
    }

    /// The index it was chosen from.
    pub(super) fn index(&self) -> Option<&Digest> {
        self.image.index.as_ref()
    }

    /// Names it in the storage directory.
    pub fn put(&self, store: &Store, name: &Reference) -> Result<ImageRecord> {
        match &self.subject.index {
            Some(index) => store.put_index(name, index, &self.preferred),
            None => store.put_image(name, &self.image.manifest, self.image.index.as_ref()),
        }
    }
}

/// What was copied.
#[derive(Clone, Debug)]
pub struct Copied {
    /// What was written.
    pub descriptor: Descriptor,
    /// The names the image came with.
    pub names: Vec<Reference>,
}

/// Copies an image. `stream` is what the file `-` means as a destination.
///
/// A place that takes a name and is given none gets the image's own.
pub fn copy(means: &Means<'_>, from: &Source<'_>, to: &Place, shape: &Shape, stream: &mut dyn Write) -> Result<Copied> {
    let brought = bring_for(means, from, need(to, shape))?;
    // As it came it keeps the index it was chosen from.
    if let Place::Storage(name) = to
        && *shape == Shape::default()
    {
        let record = brought.put(means.store, &name.parse()?)?;
        return Ok(Copied { descriptor: record.manifest, names: brought.names });
    }
    let images = [Outgoing { subject: &brought.subject, names: &brought.names }];
    let job = Job { store: means.store, client: means.client, images: &images, shape, sink: means.sink };
    let descriptor = write::write(&job, to, stream)?;
    Ok(Copied { descriptor, names: brought.names })
}

/// Where an image is to come from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The place.
    pub place: &'a Place,
    /// The image's digest, or that of its index, where a layout has several.
    pub digest: Option<&'a Digest>,
    /// Which of its images.
    pub platforms: &'a Platforms,
}

/// Brings an image here from wherever it is, without naming it.
///
/// Errors: those of the place; `Unsupported` for places that only take images.
pub fn bring(means: &Means<'_>, source: &Source<'_>) -> Result<Brought> {
    bring_for(means, source, Need::Files)
}

/// What a copy needs of the layers: registries and layouts take them as they are.
fn need(to: &Place, shape: &Shape) -> Need {
    let same = shape.documents == Documents::Same && shape.repack == Repack::New;
    match to {
        Place::Registry { documents: Documents::Same, .. } | Place::OciArchive { .. } | Place::OciLayout { .. } if same => Need::Blobs,
        _ => Need::Files,
    }
}

fn bring_for(means: &Means<'_>, source: &Source<'_>, need: Need) -> Result<Brought> {
    let Means { store, sink, .. } = *means;
    let held = |form, path: &Path, name: Option<&str>| {
        let request = ReadRequest { name, digest: source.digest, platforms: source.platforms };
        Images::open(store, path, Some(form))?.for_need(need).read(&request, sink)
    };
    permit(means.client, source.place)?;
    let image = match source.place {
        Place::Storage(name) => return stored(store, name, source.platforms),
        Place::Registry { reference, .. } => {
            let options = pull::PullOptions { platform: preferred(source.platforms), need };
            let fetch = if *source.platforms == Platforms::All { pull::fetch_all } else { pull::fetch };
            fetch(store, means.client, reference, &options, sink)?
        }
        Place::OciArchive { file, name } => held(Form::Archive, file, name.as_deref())?,
        Place::OciLayout { directory, name } => held(Form::Layout, directory, name.as_deref())?,
        Place::DockerArchive { file, name } => held(Form::DockerArchive, file, name.as_ref().map(as_written).as_deref())?,
        Place::DockerDaemon(Some(name)) => {
            through_archive(means, |file| Engine::at(&means.client.settings().docker_socket).save(name, file))?
        }
        Place::Podman(name) => through_archive(means, |file| podman(name, file))?,
        Place::Tarball(path) | Place::Directory(path) | Place::Squashfs(path) => {
            import::import_file(store, &path.display().to_string(), &preferred(source.platforms), sink)?
        }
        Place::Host(programs) => {
            import::import_host(store, programs, means.client.settings().git.search_path.as_deref().unwrap_or(import::SEARCH_PATH), sink)?
        }
        Place::DockerDaemon(None) => return Err(Error::input("which of the engine's images?").hint("name it: `docker-daemon:NAME`")),
        Place::Isulad(name) => {
            return Err(Error::with_kind(Kind::Unsupported, format!("can't copy {} from iSulad", quote(name.familiar())))
                .cause("iSulad takes images in and gives none out")
                .hint("copy it from where iSulad had it"));
        }
    };
    brought(store, image, source.platforms)
}

/// Brings all images here that an archive or a layout holds, told by its content.
pub fn bring_each(means: &Means<'_>, path: &Path, platforms: &Platforms) -> Result<Vec<Brought>> {
    let images = Images::open(means.store, path, None)?;
    permit(means.client, &images.place())?;
    let images = images.read_each(platforms, means.sink)?;
    images.into_iter().map(|image| brought(means.store, image, platforms)).collect()
}

fn brought(store: &Store, image: ReadImage, platforms: &Platforms) -> Result<Brought> {
    let subject = match (platforms, &image.index) {
        (Platforms::All, Some(index)) => Subject::of_index(store, index)?,
        _ => Subject { manifests: vec![image.manifest.clone()], index: None },
    };
    let names = image.names.iter().filter_map(|name| name.parse().ok()).collect();
    let refused = image.names.iter().filter(|name| name.parse::<Reference>().is_err()).cloned().collect();
    Ok(Brought { subject, names, refused, image, preferred: preferred(platforms) })
}

fn stored(store: &Store, name: &str, platforms: &Platforms) -> Result<Brought> {
    let (record, subject) = match platforms {
        Platforms::All => {
            let record = store.find_image(name)?;
            let subject = Subject::all(store, &record)?;
            (record, subject)
        }
        Platforms::One(platform) => {
            let record = store.find_platform(name, Some(platform))?;
            let subject = Subject { manifests: vec![record.manifest.clone()], index: None };
            (record, subject)
        }
    };
    let image = ReadImage { manifest: record.manifest.clone(), index: record.index, names: Vec::new() };
    Ok(Brought { subject, names: vec![record.reference], refused: Vec::new(), image, preferred: preferred(platforms) })
}

/// The platform that is meant when nobody names one: this machine's; of a name here that has no image for it, the one it means alone.
pub fn usual_platform(store: &Store, place: &Place) -> Result<Platform> {
    let host = Platform::host();
    let Place::Storage(name) = place else { return Ok(host) };
    let record = store.find_image(name)?;
    Ok(if record.for_platform(&host).is_some() { host } else { record.platform })
}

/// A name as short as people write it.
fn as_written(name: &Reference) -> String {
    let familiar = name.familiar();
    familiar.strip_suffix(":latest").map(str::to_owned).unwrap_or(familiar)
}

fn preferred(platforms: &Platforms) -> Platform {
    match platforms {
        Platforms::One(platform) => platform.clone(),
        Platforms::All => Platform::host(),
    }
}

/// Reads what a program gives as `docker save` writes it.
fn through_archive(means: &Means<'_>, fill: impl FnOnce(&mut std::fs::File) -> Result<()>) -> Result<ReadImage> {
    // Its table of contents is at its end.
    let scratch = means.store.scratch()?;
    let path = scratch.path().join("saved.tar");
    let mut file = std::fs::File::create(&path).map_err(|e| Error::io("create", &path, e))?;
    fill(&mut file)?;
    drop(file);
    let request = ReadRequest { name: None, digest: None, platforms: &Platforms::All };
    Images::open(means.store, &path, Some(Form::DockerArchive))?.read(&request, means.sink)
}

fn podman(name: &Reference, file: &std::fs::File) -> Result<()> {
    let what = || format!("can't save {} from podman's storage", quote(name.familiar()));
    let out = file.try_clone().map_err(|e| Error::os(what(), e))?;
    let mut command = Command::new("podman");
    command.args(["save", "--quiet", "--format", "docker-archive"]).arg(name.familiar()).stdin(Stdio::null()).stdout(out);
    match command.stderr(Stdio::piped()).output() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(write::no_program(&what(), "podman", "install podman")),
        Err(e) => Err(Error::os(what(), e)),
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Error::new(what()).cause(write::said(&output.stderr))),
    }
}
