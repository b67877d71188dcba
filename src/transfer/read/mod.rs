//! Images in files: OCI layouts, archives of one, and what `docker save` writes.
//!
//! Layers are read where they lie in the archive, each once: bytes -> digest -> decompress -> diff ID -> files. What the file says of itself is
//! believed only after every digest held. Nothing gets a name here.

mod docker;
mod files;
mod layout;

use std::path::Path;

use crate::error::{Result, quote_path};
use crate::event::Sink;
use crate::oci::{Descriptor, Digest, Platform};
use crate::store::Store;
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

/// Which image to read.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest<'a> {
    /// How the images are held.
    pub form: Form,
    /// The file or directory. An archive may be compressed; `-` is no special name.
    pub path: &'a Path,
    /// Its name in there; not needed if there is only one.
    pub name: Option<&'a str>,
    /// Its digest, or that of its index.
    pub digest: Option<&'a Digest>,
    /// Which of an index' images.
    pub platform: &'a Platform,
}

/// An image that was read. Its layers and documents are in the storage directory, leased like all that was looked up.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadImage {
    /// The manifest.
    pub manifest: Descriptor,
    /// The index it was chosen from.
    pub index: Option<Digest>,
    /// The name it has in the file.
    pub name: Option<String>,
}

/// Brings an image from a file here.
///
/// Errors: `NotFound` for an unknown name or platform (with what there is), `Corrupt` for anything that is not what it says.
pub fn read(store: &Store, request: &ReadRequest<'_>, sink: &dyn Sink) -> Result<ReadImage> {
    let place = quote_path(request.path);
    let image = || {
        let files = match request.form {
            Form::Layout => Files::directory(request.path)?,
            Form::Archive | Form::DockerArchive => Files::archive(store, request.path)?,
        };
        match request.form {
            Form::DockerArchive => docker::read(store, &files, request, sink),
            Form::Layout | Form::Archive => layout::read(store, &files, request, sink),
        }
    };
    image().map_err(|e| e.context(format!("can't read an image from {place}")))
}
