//! Writing an image to a place outside the storage directory.
//!
//! Same image, same bytes. A file appears when it is whole; a directory that was not there likewise.

mod archive;
mod docker_archive;
mod layout;
mod program;
mod tree;

use std::io::Write;
use std::path::Path;

use super::bundle::{Bundle, Shape, Subject};
use super::client::Client;
use super::place::Place;
use super::{draft, export, push};
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Sink, next_id};
use crate::oci::{Descriptor, Reference};
use crate::rootfs::squashfs;
use crate::rootfs::view::View;
use crate::store::Store;

/// What is to be written, and with what.
pub struct Job<'a> {
    /// Where it is.
    pub store: &'a Store,
    /// For registries.
    pub client: &'a Client,
    /// What.
    pub subject: &'a Subject,
    /// Names for it, where the place does not say one.
    pub names: &'a [Reference],
    /// In which form.
    pub shape: &'a Shape,
    /// The socket of Docker's engine.
    pub docker: &'a Path,
    /// Told what happens.
    pub sink: &'a dyn Sink,
}

/// Writes an image to a place; `stream` is what the file `-` means. Returns the descriptor of what was written.
pub fn write(job: &Job<'_>, place: &Place, stream: &mut dyn Write) -> Result<Descriptor> {
    if let Place::Registry { reference, documents } = place {
        let shape = Shape { documents: *documents, ..job.shape.clone() };
        return push::push(job.store, job.client, job.subject, reference, &shape, job.sink);
    }
    let id = next_id();
    let bundle = Bundle::prepare(job.store, job.subject, &shape_for(place, job.shape), job.sink)?;
    job.sink.event(Event::TransferStarted { id, what: &format!("writing {place}"), total: None });
    match place {
        Place::OciArchive { file, name } => {
            to_file(file, stream, |out| layout::archive(&bundle, &layout::Label::new(name.as_deref(), job.names), out))?;
        }
        Place::OciLayout { directory, name } => {
            layout::directory(&bundle, &layout::Label::new(name.as_deref(), job.names), directory)?;
        }
        Place::DockerArchive { file, name } => {
            let names = name.as_ref().map_or(job.names, std::slice::from_ref);
            to_file(file, stream, |out| docker_archive::write(&bundle, names, out))?;
        }
        Place::DockerDaemon(name) => {
            let names = name.as_ref().map_or(job.names, std::slice::from_ref);
            program::docker(&bundle, names, job.docker, &|done| job.sink.event(Event::TransferAdvanced { id, done }))?;
        }
        Place::Isulad(name) => program::isula(&bundle, name)?,
        Place::Tarball(file) => {
            let view = view(&bundle, "tarball of a root file system")?;
            let compression = export::compression_of(file);
            to_file(file, stream, |out| export::export_to(&view, out, compression, None))?;
        }
        Place::Directory(directory) => tree::write(&bundle, directory, job.sink)?,
        Place::Squashfs(file) => {
            let view = view(&bundle, "squashfs image")?;
            let mut seen = |done| job.sink.event(Event::TransferAdvanced { id, done });
            draft::write(file, |out| squashfs::write(&view, job.shape.squashfs, out, &mut seen))?;
        }
        Place::Registry { .. } => unreachable!("pushed above"),
    }
    job.sink.event(Event::TransferFinished { id, note: "done" });
    Ok(bundle.root().descriptor.clone())
}

/// Adds a bundle to a layout under a name.
pub(super) fn layout(bundle: &Bundle<'_>, name: &str, directory: &Path) -> Result<()> {
    layout::directory(bundle, &layout::Label::new(Some(name), &[]), directory)
}

/// Docker's own places want Docker's documents, and nobody reads the layers of a flattened tree.
fn shape_for(place: &Place, shape: &Shape) -> Shape {
    use super::bundle::{Documents, Repack};
    use super::packed::Packing;
    use crate::rootfs::compress::Compression;
    let plain = Packing { compression: Compression::None, level: None };
    match place {
        Place::DockerArchive { .. } | Place::DockerDaemon(_) | Place::Isulad(_) => {
            Shape { documents: Documents::Docker, packing: plain, repack: Repack::All, ..Shape::default() }
        }
        Place::Tarball(_) | Place::Directory(_) | Place::Squashfs(_) => Shape { packing: plain, ..Shape::default() },
        _ => shape.clone(),
    }
}

fn to_file(file: &Path, stream: &mut dyn Write, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let buffered = |out: &mut dyn Write| {
        let mut out = std::io::BufWriter::with_capacity(256 << 10, out);
        fill(&mut out)?;
        out.flush().map_err(|e| crate::error::from_io(|| "can't write the archive".into(), e))
    };
    if file.as_os_str() == "-" {
        return match buffered(stream) {
            // `| head` has seen enough.
            Err(error) if error.kind() == Kind::Interrupted => Ok(()),
            result => result,
        };
    }
    draft::write(file, |mut out| buffered(&mut out))
}

/// The files of a bundle's only image.
fn view(bundle: &Bundle<'_>, form: &str) -> Result<View> {
    let image = bundle.single(form)?;
    Ok(View::new(bundle.store().stack(&image.parsed.rootfs.diff_ids)?))
}

/// A program of the machine that is not there.
fn no_program(what: &str, program: &str, hint: &str) -> Error {
    Error::with_kind(Kind::Unsupported, what).cause(format!("there is no program `{program}` on this machine")).hint(hint)
}
