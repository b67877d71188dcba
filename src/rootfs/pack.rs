//! Packing: a layer directory, or the whole of a view, as a tar; the same tree gives the same bytes.
//!
//! Parents first, whiteouts before their siblings as the image-spec wants, the rest sorted by name. Hard links within a layer are kept,
//! the first name in order carrying the content. Sockets, which no tar can hold, are left out.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::thread;

use super::chunks::{ChunkWriter, pipe};
use super::entry;
use super::meta::{Kind, Meta};
use super::record::Record;
use super::tar_writer::{Body, TarWriter};
use super::view::{LayerDir, View};
use crate::error::{Error, IoContext, Kind as ErrorKind, Result, from_io, quote};
use crate::oci::ImagePath;
use crate::sys::fs::walk::{Step, Walk};
use crate::sys::fs::xattr::Target;
use crate::sys::fs::{self, DirEntry, FileType};

/// What was packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Size of the tar.
    pub bytes: u64,
    /// Its entries.
    pub entries: u64,
}

/// Packs a layer as the image-spec wants it: whiteouts as `.wh.` entries, none for implicit directories.
///
/// Files are read on another thread while `out` is written on the calling one.
pub fn pack_layer(layer: &LayerDir, out: impl Write) -> Result<Packed> {
    piped(out, |tar| LayerPacker { layer, tar, first_names: HashMap::new(), deletions: Deletions::Told }.run())
}

/// Packs a layer that stands on nothing as a tree: the same, but where there is nothing to delete, no deletions are told.
pub fn pack_lowest(layer: &LayerDir, out: impl Write) -> Result<Packed> {
    piped(out, |tar| LayerPacker { layer, tar, first_names: HashMap::new(), deletions: Deletions::LeftOut }.run())
}

/// Packs what a view shows as one tree without whiteouts.
pub fn pack_view(view: &View, out: impl Write) -> Result<Packed> {
    piped(out, |mut tar| {
        let mut first_names: HashMap<(u64, u64), ImagePath> = HashMap::new();
        view.walk(&ImagePath::root(), &mut |node| {
            if let Some(first) = node.link.and_then(|link| first_names.get(&link)) {
                return header(&mut tar, &node.path, &node.meta, &Body::HardLink(first.as_bytes()));
            }
            if let Some(link) = node.link {
                first_names.insert(link, node.path.clone());
            }
            match node.meta.kind {
                Kind::Socket => Ok(()),
                Kind::Symlink => header(&mut tar, &node.path, &node.meta, &Body::Symlink(&view.read_link(node)?)),
                Kind::File if node.meta.size > 0 => {
                    let file = view.open(node)?;
                    header(&mut tar, &node.path, &node.meta, &Body::Plain)?;
                    tar.content(&file, node.meta.size).map_err(|e| trouble("pack", &node.path, e))
                }
                _ => header(&mut tar, &node.path, &node.meta, &Body::Plain),
            }
        })?;
        finish(tar)
    })
}

/// Runs a packer on a thread of its own and writes what it makes.
pub(super) fn piped(mut out: impl Write, packer: impl FnOnce(TarWriter) -> Result<Packed> + Send) -> Result<Packed> {
    thread::scope(|scope| {
        let (writer, mut reader): (ChunkWriter, _) = pipe();
        let worker = scope.spawn(move || packer(TarWriter::new(writer)));
        let copied = reader.copy_to(&mut out);
        drop(reader);
        let packed = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // When writing failed, the packer only knows that nobody listens any more.
        copied.map_err(|e| from_io(|| "can't write the archive".into(), e))?;
        packed
    })
}

pub(super) fn header(tar: &mut TarWriter, path: &ImagePath, meta: &Meta, body: &Body<'_>) -> Result<()> {
    tar.header(&tar_name(path, meta.kind), meta, body).map_err(|e| trouble("pack", path, e))
}

pub(super) fn finish(tar: TarWriter) -> Result<Packed> {
    let (bytes, entries) = tar.finish().map_err(|e| from_io(|| "can't write the archive".into(), e))?;
    Ok(Packed { bytes, entries })
}

/// `etc/passwd`, `etc/`, and `./` for the root, as Docker writes them.
fn tar_name(path: &ImagePath, kind: Kind) -> Vec<u8> {
    match (path.is_root(), kind) {
        (true, _) => b"./".to_vec(),
        (false, Kind::Directory) => [path.as_bytes(), b"/"].concat(),
        (false, _) => path.as_bytes().to_vec(),
    }
}

struct LayerPacker<'a> {
    layer: &'a LayerDir,
    tar: TarWriter,
    first_names: HashMap<(u64, u64), ImagePath>,
    deletions: Deletions,
}

#[derive(PartialEq, Eq)]
enum Deletions {
    Told,
    LeftOut,
}

impl LayerPacker<'_> {
    fn run(mut self) -> Result<Packed> {
        let fs_path = &self.layer.fs;
        let root = fs::open_root(fs_path).doing("open", fs_path)?;
        self.directory(Target::Fd(root.as_fd()), &fs::stat_fd(&root).doing("read", fs_path)?, &ImagePath::root())?;
        let mut walk = Walk::new(root).doing("read", fs_path)?;
        self.whiteouts(&mut walk, &ImagePath::root())?;
        while let Some(step) = walk.step().doing("read", fs_path)? {
            match step {
                Step::Leave => walk.ascend().doing("read", fs_path)?,
                Step::Entry(entry) => {
                    let path = ImagePath::clean(walk.path());
                    self.entry(&mut walk, &entry, &path)?;
                }
            }
        }
        finish(self.tar)
    }

    fn entry(&mut self, walk: &mut Walk, entry: &DirEntry, path: &ImagePath) -> Result<()> {
        if entry.name.starts_with(b".wh.") {
            return Err(Error::with_kind(ErrorKind::Unsupported, format!("can't put {} into a layer", quote(path.to_string())))
                .cause("names that begin with `.wh.` mean deletion there"));
        }
        match entry.file_type() {
            FileType::Directory => {
                let read = |e| trouble("read", path, e);
                walk.descend(entry).map_err(read)?;
                let stat = fs::stat_fd(walk.dir()).map_err(read)?;
                self.directory(Target::Fd(walk.dir()), &stat, path)?;
                self.whiteouts(walk, path)
            }
            FileType::RegularFile => self.file(walk, entry, path),
            _ => self.other(walk, entry, path),
        }
    }

    fn directory(&mut self, target: Target<'_>, stat: &fs::FileStat, path: &ImagePath) -> Result<()> {
        let found = entry::read(target, stat, self.record(), path)?;
        if !self.record().implicit.contains(path) {
            header(&mut self.tar, path, &found.meta, &Body::Plain)?;
        }
        if found.opaque { self.whiteout(path, b".wh..opq") } else { Ok(()) }
    }

    /// Writes the whiteouts of the directory just entered.
    fn whiteouts(&mut self, walk: &mut Walk, path: &ImagePath) -> Result<()> {
        let devices: Vec<_> = walk.siblings().filter(|e| e.file_type() == FileType::CharacterDevice).map(|e| e.name.clone()).collect();
        for name in devices {
            if fs::stat_at(walk.dir(), &*name).map_err(|e| trouble("read", path, e))?.is_whiteout() {
                self.whiteout(path, &name)?;
            }
        }
        Ok(())
    }

    fn whiteout(&mut self, dir: &ImagePath, hidden: &[u8]) -> Result<()> {
        if self.deletions == Deletions::LeftOut {
            return Ok(());
        }
        let path = dir.child([b".wh.", hidden].concat());
        header(&mut self.tar, &path, &Meta::new(Kind::File, 0), &Body::Plain)
    }

    fn file(&mut self, walk: &Walk, entry: &DirEntry, path: &ImagePath) -> Result<()> {
        let read = |e| trouble("read", path, e);
        let file = fs::open_file(walk.dir(), &*entry.name).map_err(read)?;
        let stat = fs::stat_fd(&file).map_err(read)?;
        let found = entry::read(Target::Fd(file.as_fd()), &stat, self.record(), path)?;
        if self.link(&stat, path, &found.meta)? {
            return Ok(());
        }
        header(&mut self.tar, path, &found.meta, &Body::Plain)?;
        if found.meta.kind != Kind::File {
            return Ok(());
        }
        self.tar.content(&file, found.meta.size).map_err(|e| trouble("pack", path, e))
    }

    fn other(&mut self, walk: &mut Walk, entry: &DirEntry, path: &ImagePath) -> Result<()> {
        let read = |e| trouble("read", path, e);
        let stat = fs::stat_at(walk.dir(), &*entry.name).map_err(read)?;
        match stat.file_type() {
            // File systems that don't tell types in their listings.
            FileType::Directory | FileType::RegularFile if entry.file_type() == FileType::Unknown => {
                self.entry(walk, &entry.with_type(stat.file_type()), path)
            }
            FileType::Socket => Ok(()),
            FileType::CharacterDevice if stat.is_whiteout() => match entry.file_type() {
                FileType::Unknown => self.whiteout(&path.parent().unwrap_or_default(), &entry.name),
                _ => Ok(()),
            },
            file_type => {
                let found = entry::read(Target::At(walk.dir(), &entry.name), &stat, self.record(), path)?;
                if self.link(&stat, path, &found.meta)? {
                    return Ok(());
                }
                if file_type == FileType::Symlink {
                    let target = fs::read_link(walk.dir(), &*entry.name).map_err(read)?;
                    return header(&mut self.tar, path, &found.meta, &Body::Symlink(&target));
                }
                header(&mut self.tar, path, &found.meta, &Body::Plain)
            }
        }
    }

    /// Writes an entry as another name of one written before; false if it is the first.
    fn link(&mut self, stat: &fs::FileStat, path: &ImagePath, meta: &Meta) -> Result<bool> {
        if stat.nlink < 2 {
            return Ok(false);
        }
        if let Some(first) = self.first_names.get(&(stat.dev, stat.ino)) {
            return header(&mut self.tar, path, meta, &Body::HardLink(first.as_bytes())).map(|()| true);
        }
        self.first_names.insert((stat.dev, stat.ino), path.clone());
        Ok(false)
    }

    fn record(&self) -> &Record {
        &self.layer.record
    }
}

pub(super) fn trouble(verb: &str, path: &ImagePath, cause: io::Error) -> Error {
    from_io(|| format!("can't {verb} {}", quote(path.to_string())), cause)
}
