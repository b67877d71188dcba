//! Writing an image to a place outside the storage directory.
//!
//! Same image, same bytes. A file appears when it is whole; a directory that was not there likewise.

mod archive;
pub(super) mod docker_archive;
mod layout;
mod program;
mod storage;
mod tree;

pub(super) use archive::Archive;
pub(super) use layout::archive_without_layers;
pub(super) use program::said;
pub(super) use tree::check_outside;

use std::io::Write;
use std::path::Path;

use super::bundle::{Bundle, Documents, Repack, Shape, Subject};
use super::client::Client;
use super::packed::Packing;
use super::place::Place;
use super::{draft, export, push};
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Sink, next_id};
use crate::oci::{Descriptor, Reference};
use crate::rootfs::compress::{Compression, compressor};
use crate::rootfs::squashfs::{self, Coding};
use crate::rootfs::view::View;
use crate::store::Store;

/// What is to be written, and with what.
pub struct Job<'a> {
    /// Where it is.
    pub store: &'a Store,
    /// For registries.
    pub client: &'a Client,
    /// What. Only archives, layouts and engines take more than one.
    pub images: &'a [Outgoing<'a>],
    /// In which form.
    pub shape: &'a Shape,
    /// Told what happens.
    pub sink: &'a dyn Sink,
}

/// One image, or several under their index, on the way out.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// What.
    pub subject: &'a Subject,
    /// Names for it, where the place does not say one.
    pub names: &'a [Reference],
}

/// An image in the form in which it leaves, with its names.
struct Named<'b, 'a> {
    bundle: &'b Bundle<'a>,
    names: &'b [Reference],
}

/// Writes images to a place; `stream` is what the file `-` means. Returns the descriptor of the first that was written.
pub fn write(job: &Job<'_>, place: &Place, stream: &mut dyn Write) -> Result<Descriptor> {
    if let Place::Registry { reference, documents } = place {
        let documents = if *documents == Documents::Same { job.shape.documents } else { *documents };
        let shape = Shape { documents, ..job.shape.clone() };
        return push::push(job.store, job.client, job.only(place)?.subject, reference, &shape, job.sink);
    }
    let id = next_id();
    let shape = shape_for(place, job.shape);
    let prepare = |image: &Outgoing<'_>| Bundle::prepare(job.store, image.subject, &shape, job.sink);
    let bundles = job.images.iter().map(prepare).collect::<Result<Vec<_>>>()?;
    let first = bundles.first().ok_or_else(|| Error::input("there is no image to write"))?;
    job.sink.event(Event::TransferStarted { id, what: &format!("writing {place}"), total: None });
    match place {
        Place::OciArchive { .. } | Place::OciLayout { .. } | Place::DockerArchive { .. } | Place::DockerDaemon(_) => {
            job.several(place, &bundles, stream, &|done| job.sink.event(Event::TransferAdvanced { id, done }))?;
        }
        _ => {
            let names = job.only(place)?.names;
            job.one(id, place, &Named { bundle: first, names }, stream)?;
        }
    }
    job.sink.event(Event::TransferFinished { id, note: "done" });
    Ok(first.root().descriptor.clone())
}

impl Job<'_> {
    /// The only image, for places that hold no more.
    fn only(&self, place: &Place) -> Result<&Outgoing<'_>> {
        match self.images {
            [only] => Ok(only),
            several => Err(Error::input(format!("{place} holds one image, not {}", several.len()))
                .hint("archives and layouts hold several: `docker-archive:FILE`, `oci-archive:FILE`, `oci:DIRECTORY`")),
        }
    }

    /// Places that hold any number of images.
    fn several(&self, place: &Place, bundles: &[Bundle<'_>], stream: &mut dyn Write, seen: &(dyn Fn(u64) + Sync)) -> Result<()> {
        let labelled = |name: &Option<String>| -> Vec<_> {
            let images = bundles.iter().zip(self.images);
            images.map(|(bundle, image)| (bundle, layout::Label::new(name.as_deref(), image.names))).collect()
        };
        match place {
            Place::OciArchive { file, name } => to_file(file, self.shape.file, stream, |out| layout::archive(&labelled(name), out)),
            Place::OciLayout { directory, name } => {
                labelled(name).iter().try_for_each(|(bundle, label)| layout::directory(bundle, label, directory))
            }
            Place::DockerArchive { file, name } => {
                to_file(file, self.shape.file, stream, |out| docker_archive::write(&self.named(bundles, name.as_ref()), out))
            }
            Place::DockerDaemon(name) => program::docker(&self.named(bundles, name.as_ref()), &self.client.settings().docker_socket, seen),
            _ => Err(Error::input(format!("{place} holds one image"))),
        }
    }

    /// The images with their names; a name that goes with the place is the name of one.
    fn named<'b, 'a>(&'b self, bundles: &'b [Bundle<'a>], name: Option<&'b Reference>) -> Vec<Named<'b, 'a>> {
        let name = name.filter(|_| bundles.len() == 1);
        let images = bundles.iter().zip(self.images);
        images.map(|(bundle, image)| Named { bundle, names: name.map_or(image.names, std::slice::from_ref) }).collect()
    }

    /// Places that hold one image.
    fn one(&self, id: u64, place: &Place, image: &Named<'_, '_>, stream: &mut dyn Write) -> Result<()> {
        match place {
            Place::Isulad(name) => program::isula(image.bundle, name),
            Place::Podman(name) => program::podman(image.bundle, name),
            Place::Storage(name) => storage::write(image.bundle, &name.parse()?),
            Place::Tarball(file) => {
                let view = view(image.bundle, "tarball of a root file system")?;
                to_file(file, self.shape.file, stream, |out| export::export_to(&view, out, Compression::None, None))
            }
            Place::Directory(directory) => tree::write(image.bundle, directory, self.sink),
            Place::Squashfs(file) => {
                let coding = self.shape.file.map_or(Ok(Coding::default()), |packing| Coding::new(packing.compression, packing.level))?;
                let view = view(image.bundle, "squashfs image")?;
                let mut seen = |done| self.sink.event(Event::TransferAdvanced { id, done });
                draft::write(file, |out| squashfs::write(&view, coding, out, &mut seen))
            }
            _ => Err(Error::input(format!("{place} is no place that can be written")).hint("it can only be copied from")),
        }
    }
}

/// Adds a bundle to a layout under a name.
pub(super) fn layout(bundle: &Bundle<'_>, name: &str, directory: &Path) -> Result<()> {
    layout::directory(bundle, &layout::Label::new(Some(name), &[]), directory)
}

/// Docker's own places want Docker's documents, and nobody reads the layers of a flattened tree.
fn shape_for(place: &Place, shape: &Shape) -> Shape {
    let plain = Packing { compression: Compression::None, level: None };
    match place {
        Place::DockerArchive { .. } | Place::DockerDaemon(_) | Place::Isulad(_) | Place::Podman(_) => {
            Shape { documents: Documents::Docker, packing: plain, repack: Repack::All, ..Shape::default() }
        }
        Place::Tarball(_) | Place::Directory(_) | Place::Squashfs(_) => Shape { packing: plain, ..Shape::default() },
        _ => shape.clone(),
    }
}

/// Fills a file, compressed as is wanted, else as its suffix promises.
fn to_file(file: &Path, packing: Option<Packing>, stream: &mut dyn Write, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let packing = packing.unwrap_or_else(|| Packing { compression: export::compression_of(file), level: None });
    let buffered = |out: &mut dyn Write| {
        let mut out = compressor(std::io::BufWriter::with_capacity(256 << 10, out), packing.compression, packing.level)?;
        fill(&mut out)?;
        out.finish()?.flush().map_err(|e| crate::error::from_io(|| "can't write the archive".into(), e))
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
pub(super) fn no_program(what: &str, program: &str, hint: &str) -> Error {
    Error::with_kind(Kind::Unsupported, what).cause(format!("there is no program `{program}` on this machine")).hint(hint)
}
