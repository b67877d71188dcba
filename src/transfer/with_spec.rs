//! An image as two things side by side: its configuration as an archive without layers, and its files as one root file system.
//!
//! ```text
//! DIR/empty.tar     config, manifest and name; an OCI archive and a `docker save` archive in one, of no layers
//! DIR/rootfs/       the files, each as a layer directory keeps it (`rootfs`): owners, devices and capabilities in attributes
//! DIR/record        what those attributes can't say; absent where there is nothing (`rootfs::record`)
//! DIR/rootfs.tar…   in the place of the last two, if wanted: one flattened tarball
//! ```
//!
//! This is the form isula-build's export task asks for ("an empty.tar that holds only the image spec, plus one flattened rootfs").
//! What is imported from it and exported again gives the same bytes.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::bundle::{Bundle, Document};
use super::digested::Digested;
use super::draft;
use super::pipeline;
use super::read::{Images, Platforms, ReadImage, ReadRequest};
use super::write::{archive_without_layers, check_outside};
use crate::error::{Error, IoContext as _, Kind, Result, from_io, quote, quote_path};
use crate::event::{Event, Sink, next_id};
use crate::oci::{Descriptor, DiffId, ImageConfig, Manifest, ManifestOrIndex, Platform, Reference, media_type};
use crate::rootfs::compress::{Compression, compressor};
use crate::rootfs::pack::{pack_lowest, pack_view};
use crate::rootfs::view::{LayerDir, View};
use crate::store::{Image, Store};

const SPEC: &str = "empty.tar";
const FILES: &str = "rootfs";
const RECORD: &str = "record";
const TARBALL: &str = "rootfs.tar";

/// Notes on the manifest in `empty.tar`: the digest of the files' tar, and which entry of the history they stand for.
const NOTE_FILES: &str = "org.rootling.rootfs";
const NOTE_HISTORY: &str = "org.rootling.rootfs.history";

/// Largest manifest or config that is read.
const LARGEST_DOCUMENT: u64 = 16 << 20;

/// How the files lie beside the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Files {
    /// As files.
    #[default]
    Unpacked,
    /// As a tarball.
    Tarball(Compression),
}

/// Writes an image's configuration and files into a directory, which appears when it is whole. An empty one may be there already.
///
/// Errors: the directory holds something; it lies in the storage directory.
pub fn export_with_spec(store: &Store, image: &Image, name: Option<&Reference>, files: Files, to: &Path, sink: &dyn Sink) -> Result<()> {
    check_outside(store.path(), to)?;
    check_empty(to)?;
    let draft = draft::Directory::beside(to)?;
    let id = next_id();
    sink.event(Event::TransferStarted { id, what: &format!("writing {}", quote_path(to)), total: Some(image.record.size) });
    let tree = Tree::of(store.stack(&image.config.rootfs.diff_ids)?);
    let digest = match files {
        Files::Unpacked => unpacked(&tree, draft.path())?,
        Files::Tarball(compression) => tarball(&tree, compression, draft.path())?,
    };
    let (manifest, config) = without_layers(image, &digest);
    let names: Vec<Reference> = name.cloned().into_iter().collect();
    let bundle = Bundle::artifact(store, manifest, config, Vec::new());
    draft::write(&draft.path().join(SPEC), |mut out| archive_without_layers(&bundle, &names, &mut out))?;
    draft.place(to)?;
    sink.event(Event::TransferFinished { id, note: "done" });
    Ok(())
}

/// Makes an image of what [`export_with_spec`] wrote. It has no name here yet.
///
/// Files that were changed since then are taken as they are, with a warning.
pub fn import_with_spec(store: &Store, from: &Path, sink: &dyn Sink) -> Result<ReadImage> {
    let image = || {
        let (names, manifest, config) = read_spec(store, &from.join(SPEC), sink)?;
        let layer = read_files(store, from, sink)?;
        let exported = manifest.annotations.get(NOTE_FILES);
        if exported.is_some_and(|digest| *digest != layer.diff_id.to_string()) {
            sink.event(Event::Warning(&format!(
                "the files in {} are not those that were exported; owners, devices and capabilities are in extended attributes and in \
                 `record`, so copy them by `cp -a` or `rsync -aHX`",
                quote_path(from)
            )));
        }
        let (manifest, config) = with_layer(manifest, config, &Descriptor::new(media_type::OCI_LAYER, layer.diff_id.0, layer.size));
        store.put_blob(&config.bytes)?;
        store.put_blob(&manifest.bytes)?;
        Ok(ReadImage { manifest: manifest.descriptor, index: None, names })
    };
    image().map_err(|e: Error| e.context(format!("can't import {}", quote_path(from))))
}

fn check_empty(directory: &Path) -> Result<()> {
    let hint = "choose a directory that does not exist yet, or empty this one";
    match std::fs::read_dir(directory) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Error::input(format!("{} is not empty", quote_path(directory))).hint(hint)),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
            Err(Error::input(format!("{} is not a directory", quote_path(directory))).hint(hint))
        }
        Err(e) => Err(Error::io("read", directory, e)),
    }
}

/// The files of an image.
enum Tree {
    /// Those of its only layer, which gives the same layer again, and so the image its ID.
    Layer(LayerDir),
    /// Those of all its layers.
    View(View),
}

impl Tree {
    fn of(mut layers: Vec<LayerDir>) -> Self {
        match layers.pop() {
            Some(only) if layers.is_empty() => Self::Layer(only),
            last => Self::View(View::new(layers.into_iter().chain(last).collect())),
        }
    }

    fn pack(&self, out: impl Write) -> Result<()> {
        match self {
            Self::Layer(layer) => pack_lowest(layer, out).map(drop),
            Self::View(view) => pack_view(view, out).map(drop),
        }
    }
}

/// Writes the files as files; gives the digest of their tar.
fn unpacked(tree: &Tree, directory: &Path) -> Result<DiffId> {
    let unpacked = pipeline::take_apart(Some(directory), |feed| tree.pack(feed))?;
    let (from, to) = (directory.join("fs"), directory.join(FILES));
    std::fs::rename(&from, &to).doing("create directory", &to)?;
    Ok(unpacked.diff_id)
}

/// Writes the files as a tarball; gives the digest of the tar.
fn tarball(tree: &Tree, compression: Compression, directory: &Path) -> Result<DiffId> {
    let suffix = match compression {
        Compression::None => "",
        Compression::Gzip => ".gz",
        Compression::Zstd => ".zst",
        Compression::Xz => ".xz",
        Compression::Bzip2 => ".bz2",
    };
    let path = directory.join(format!("{TARBALL}{suffix}"));
    let file = File::options().write(true).create_new(true).open(&path).doing("create", &path)?;
    let mut out = Digested::new(compressor(io::BufWriter::with_capacity(256 << 10, file), compression, None)?);
    tree.pack(&mut out)?;
    let (out, digest) = out.finish();
    out.finish()?.into_inner().map_err(|e| from_io(|| "can't write the tarball".into(), e.into_error()))?;
    Ok(DiffId(digest))
}

/// The documents of an image whose layers are gone. A history must have as many entries that made a layer as there are layers
/// (config.md, "history"): now none, and a note says which entry the files will stand for again.
fn without_layers(image: &Image, files: &DiffId) -> (Document, Document) {
    let mut config = image.config.clone();
    config.rootfs.diff_ids.clear();
    let stands_for = config.history.iter().rposition(|entry| !entry.empty_layer).or(config.history.len().checked_sub(1));
    config.history.iter_mut().for_each(|entry| entry.empty_layer = true);
    let config = Document::new(media_type::OCI_CONFIG, config.to_bytes());
    let mut manifest = Manifest::oci(config.descriptor.clone(), Vec::new());
    manifest.annotations = image.manifest.annotations.clone();
    manifest.annotations.insert(NOTE_FILES.into(), files.to_string());
    manifest.annotations.extend(stands_for.map(|at| (NOTE_HISTORY.to_owned(), at.to_string())));
    (Document::new(media_type::OCI_MANIFEST, manifest.to_bytes()), config)
}

/// The documents of the image that has the files as its layer.
fn with_layer(spec: Manifest, mut config: ImageConfig, layer: &Descriptor) -> (Document, Document) {
    config.rootfs.diff_ids = vec![DiffId(layer.digest)];
    let stands_for = spec.annotations.get(NOTE_HISTORY).and_then(|at| at.parse().ok()).filter(|at: &usize| *at < config.history.len());
    if let Some(at) = stands_for.or(config.history.len().checked_sub(1)) {
        config.history[at].empty_layer = false;
    }
    let config = Document::new(media_type::OCI_CONFIG, config.to_bytes());
    let mut manifest = Manifest::oci(config.descriptor.clone(), vec![layer.clone()]);
    manifest.annotations = spec.annotations.into_iter().filter(|(name, _)| name != NOTE_FILES && name != NOTE_HISTORY).collect();
    (Document::new(media_type::OCI_MANIFEST, manifest.to_bytes()), config)
}

/// Reads the archive without layers, ours or one that only `docker load` would read.
fn read_spec(store: &Store, path: &Path, sink: &dyn Sink) -> Result<(Vec<String>, Manifest, ImageConfig)> {
    plain(path)?;
    let request = ReadRequest { name: None, digest: None, platforms: &Platforms::One(Platform::host()) };
    let image = Images::open(store, path, None)?.read(&request, sink)?;
    let bytes = store.read_blob(&image.manifest.digest, LARGEST_DOCUMENT)?;
    let ManifestOrIndex::Manifest(manifest) = ManifestOrIndex::parse(&bytes, Some(&image.manifest.media_type))? else {
        return Err(Error::with_kind(Kind::Corrupt, format!("{} holds an index, not an image", quote_path(path))));
    };
    if !manifest.layers.is_empty() {
        return Err(Error::input(format!("the image in {} has layers", quote_path(path)))
            .cause("an image beside its files has none")
            .hint("`rootling load` reads whole archives"));
    }
    let config = store.read_blob(&manifest.config.digest, LARGEST_DOCUMENT)?;
    let config = serde_json::from_slice(&config)
        .map_err(|e| Error::with_kind(Kind::Corrupt, format!("the config in {} can't be understood", quote_path(path))).cause(e))?;
    Ok((image.names, manifest, config))
}

/// Makes a layer of the files, which come as files or as a tarball.
fn read_files(store: &Store, from: &Path, sink: &dyn Sink) -> Result<crate::store::Layer> {
    let id = next_id();
    sink.event(Event::TransferStarted { id, what: &from.display().to_string(), total: None });
    let mut done = 0;
    let mut seen = |piece: &[u8]| {
        done += piece.len() as u64;
        sink.event(Event::TransferAdvanced { id, done });
        Ok(())
    };
    let draft = store.draft()?;
    let path = find_files(from)?;
    if path.ends_with(FILES) {
        let record = from.join(RECORD);
        if record.symlink_metadata().is_ok() {
            plain(&record)?;
        }
        let mut layer = LayerDir::open(from)?;
        layer.fs = path;
        let tree = Tree::Layer(layer);
        pipeline::take_apart(Some(draft.path()), |feed| tree.pack(feed))?;
    } else {
        plain(&path)?;
        let file = File::open(&path).doing("open", &path)?;
        let unpacked = pipeline::take_apart(Some(draft.path()), |feed| feed.copy(file, &mut seen))?;
        if unpacked.size == 0 {
            return Err(Error::input(format!("{} is empty", quote_path(&path))));
        }
    }
    let layer = draft.commit_packed()?;
    sink.event(Event::TransferFinished { id, note: "" });
    Ok(layer)
}

fn find_files(from: &Path) -> Result<PathBuf> {
    let directory = from.join(FILES);
    // A link would make an image of what lies elsewhere.
    if directory.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        return Ok(directory);
    }
    let tarballs = ["", ".gz", ".zst", ".xz", ".bz2"].map(|suffix| from.join(format!("{TARBALL}{suffix}")));
    tarballs.into_iter().find(|path| path.exists()).ok_or_else(|| {
        Error::with_kind(Kind::NotFound, format!("there are no files beside {}", quote(SPEC)))
            .cause(format!("{} has neither a directory `{FILES}` nor a tarball `{TARBALL}`", quote_path(from)))
            .hint("`rootling export --with-spec DIR IMAGE` writes all of it")
    })
}

/// Nothing but a regular file, which no link stands for.
fn plain(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(Error::input(format!("{} is not a regular file", quote_path(path)))),
        Err(e) if e.kind() == io::ErrorKind::NotFound && path.ends_with(SPEC) => {
            Err(Error::with_kind(Kind::NotFound, format!("there is no {}", quote_path(path)))
                .hint("`--with-spec` takes the directory that `rootling export --with-spec DIR IMAGE` wrote"))
        }
        Err(e) => Err(Error::io("look at", path, e)),
    }
}
