//! Images in files: OCI layouts, archives of one, and what `docker save` writes.
//!
//! Layers are read where they lie in the archive, each once: bytes -> digest -> decompress -> diff ID -> files. What the file says of itself is
//! believed only after every digest held. Nothing gets a name here.

mod docker;
mod files;
mod layout;

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result, quote, quote_path};
use crate::event::Sink;
use crate::oci::{Descriptor, Digest, Platform};
use crate::store::Store;
use crate::transfer::Place;
use crate::transfer::layers::Need;
use crate::transfer::pull::LONGEST_CONFIG;
use files::Files;

/// How a file or directory holds images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    /// A directory in the form of image-layout.md (`oci:`, `oci-layout://`).
    Layout,
    /// A tar of one (`oci-archive:`).
    Archive,
    /// What `docker save` writes (`docker-archive:`).
    DockerArchive,
}

/// Which of an index' images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Platforms {
    /// The one that serves this platform best.
    One(Platform),
    /// All, and the index over them.
    All,
}

/// Which image to read.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest<'a> {
    /// Its name in there; not needed if there is only one.
    pub name: Option<&'a str>,
    /// Its digest, or that of its index.
    pub digest: Option<&'a Digest>,
    /// Which of an index' images.
    pub platforms: &'a Platforms,
}

/// An image that was read. Its layers and documents are in the storage directory, leased like all that was looked up.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadImage {
    /// The manifest; of all images the one for this machine, else the first.
    pub manifest: Descriptor,
    /// The index it was chosen from.
    pub index: Option<Digest>,
    /// The names it has in the file.
    pub names: Vec<String>,
}

/// Images in a file or a directory.
pub struct Images<'a> {
    store: &'a Store,
    path: &'a Path,
    files: Files,
    form: Form,
    need: Need,
}

impl<'a> Images<'a> {
    /// Opens a file (which may be compressed; `-` is standard input) or a directory; without a form it is told by the content.
    pub fn open(store: &'a Store, path: &'a Path, form: Option<Form>) -> Result<Self> {
        let opened = || {
            let files = match form {
                Some(Form::Layout) => Files::directory(path)?,
                None if path.is_dir() => Files::directory(path)?,
                _ => Files::archive(store, path)?,
            };
            let form = form.map_or_else(|| detect(&files), Ok)?;
            Ok(Self { store, path, files, form, need: Need::Files })
        };
        opened().map_err(|e: Error| e.context(reading(path)))
    }

    /// What it is, as a place.
    pub(super) fn place(&self) -> Place {
        let (file, name) = (self.path.to_owned(), None);
        match self.form {
            Form::Archive => Place::OciArchive { file, name },
            Form::Layout => Place::OciLayout { directory: file, name },
            Form::DockerArchive => Place::DockerArchive { file, name: None },
        }
    }

    /// For images that are only passed on. What `docker save` writes is unpacked all the same, to know what it is.
    #[must_use]
    pub fn for_need(self, need: Need) -> Self {
        Self { need, ..self }
    }

    /// Opens an archive of `docker save` that comes in several files, each with the IDs of the layers it must hold; `path` stands for them.
    pub(super) fn in_parts(store: &'a Store, path: &'a Path, parts: Vec<(PathBuf, File, Vec<String>)>) -> Result<Self> {
        let part = |(path, file, layers): (PathBuf, File, Vec<String>)| {
            let files = Files::opened(store, file, &path)?;
            for id in layers {
                if files.open(&format!("{id}/layer.tar"), 0)?.is_none() {
                    return Err(Error::with_kind(Kind::Corrupt, format!("layer {} is missing in {}", quote(id), quote_path(&path))));
                }
            }
            Ok(files)
        };
        let files = Files::Parts(parts.into_iter().map(part).collect::<Result<Vec<_>>>()?);
        Ok(Self { store, path, files, form: Form::DockerArchive, need: Need::Files })
    }

    /// How the images are held.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Brings an image here.
    ///
    /// Errors: `NotFound` for an unknown name or platform (with what there is), `Corrupt` for anything that is not what it says.
    pub fn read(&self, request: &ReadRequest<'_>, sink: &dyn Sink) -> Result<ReadImage> {
        let read = match self.form {
            Form::DockerArchive => docker::read(self.store, &self.files, request, sink),
            Form::Layout | Form::Archive => layout::Reader::new(self, request.platforms).read(request, sink),
        };
        read.map_err(|e| e.context(reading(self.path)))
    }

    /// What the request means, as it is kept there; of its layers nothing is read. For the forms that have manifests.
    pub(super) fn root(&self, request: &ReadRequest<'_>) -> Result<(Vec<u8>, Option<String>)> {
        let root = layout::Reader::new(self, request.platforms).root(request);
        root.map_err(|e| e.context(reading(self.path)))
    }

    /// A document there.
    pub(super) fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let bytes = layout::Reader::new(self, &Platforms::All).blob(descriptor, LONGEST_CONFIG);
        bytes.map_err(|e| e.context(reading(self.path)))
    }

    /// Brings all images here that the file holds.
    pub fn read_each(&self, platforms: &Platforms, sink: &dyn Sink) -> Result<Vec<ReadImage>> {
        let read = match self.form {
            Form::DockerArchive => docker::read_each(self.store, &self.files, sink),
            Form::Layout | Form::Archive => layout::Reader::new(self, platforms).read_each(sink),
        };
        read.map_err(|e| e.context(reading(self.path)))
    }
}

fn reading(path: &Path) -> String {
    match path == Path::new("-") {
        true => "can't read an image from standard input".to_owned(),
        false => format!("can't read an image from {}", quote_path(path)),
    }
}

/// Newer `docker save` writes both forms at once; the layout has the manifests.
fn detect(files: &Files) -> Result<Form> {
    if files.open("index.json", 0)?.is_some() && files.open("oci-layout", 0)?.is_some() {
        return Ok(if files.is_directory() { Form::Layout } else { Form::Archive });
    }
    if files.open("manifest.json", 0)?.is_some() {
        return Ok(Form::DockerArchive);
    }
    Err(Error::input("it holds neither an OCI layout nor what `docker save` writes")
        .cause("there is no `index.json` and no `manifest.json` in it")
        .hint("a tarball or a directory with a root file system becomes an image by `rootling import FILE NAME`"))
}
