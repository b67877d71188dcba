//! A new layer written on top of a base, without mounting anything: COPY, ADD, WORKDIR.
//!
//! A directory that only the base has and that something is put into is *copied up*: it appears in the new layer with the base's
//! owner, mode, xattrs and time. (A mounted overlay would give it a new time; keeping it makes the layer depend on its input only.)
//! Paths are physical: callers resolve symlinks first ([`View::resolve`] on [`LayerWriter::view`]).

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::archive::{Archive, Body, Header};
use super::meta::{Kind, Meta, Mtime, Times};
use super::native::NativeTree;
use super::unpack::{check_target, entry_path, malformed, write_content};
use super::view::{Follow, LayerDir, Node, View};
use crate::error::{Error, Kind as ErrorKind, Result, from_io, quote};
use crate::oci::ImagePath;

/// What an entry is made of.
pub enum Content<'a> {
    /// Nothing: a directory, a device, a FIFO, an empty file.
    None,
    /// The first `meta.size` bytes of a host file; cloned where the file system can.
    File(&'a File),
    /// Bytes at hand.
    Bytes(&'a [u8]),
    /// A stream, to its end.
    Reader(&'a mut dyn Read),
    /// The target of a symlink, kept verbatim.
    Symlink(&'a [u8]),
    /// Another name of this file, which is copied up if only the base has it. `meta` is not used.
    HardLink(&'a ImagePath),
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The layer changes nothing.
    pub empty: bool,
}

/// A layer being written; a dropped one leaves its directory to the caller.
pub struct LayerWriter {
    tree: NativeTree,
    /// The base with the new layer on top.
    view: View,
    base_layers: usize,
    times: Times,
    empty: bool,
}

impl LayerWriter {
    /// Starts a layer in the directory `layer`, whose `fs/` must not exist or be empty.
    pub fn create(layer: &Path, base: View) -> Result<Self> {
        let mut tree = NativeTree::create(layer)?;
        let root = base.lookup(&ImagePath::root())?.map_or_else(|| Meta::new(Kind::Directory, 0o755), |node| node.meta);
        // An overlay mount shows the topmost layer's root directory.
        tree.put_dir(&ImagePath::root(), &root)?;
        tree.record_mut().implicit.insert(ImagePath::root());
        let mut layers = base.layers().to_vec();
        let base_layers = layers.len();
        layers.push(LayerDir { fs: layer.join("fs"), record: tree.record.clone() });
        Ok(Self { tree, view: View::new(layers), base_layers, times: Times::Kept, empty: true })
    }

    /// Sets what becomes of the times of what is written. What is copied up from the base keeps its own.
    #[must_use]
    pub fn with_times(self, times: Times) -> Self {
        Self { times, ..self }
    }

    /// The base with what was written so far on top.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Makes the directories of a path that are missing, each with this metadata (`None`: the present time).
    /// Directories that exist are left as they are.
    pub fn make_dirs(&mut self, path: &ImagePath, mode: u32, uid: u32, gid: u32, mtime: Option<Mtime>) -> Result<()> {
        let meta = Meta { uid, gid, mtime: mtime.unwrap_or_else(now), ..Meta::new(Kind::Directory, mode) };
        let dirs: Vec<_> = path.ancestors().chain((!path.is_root()).then(|| path.clone())).collect();
        for dir in dirs {
            match self.view.lookup(&dir)? {
                Some(node) if node.meta.kind == Kind::Directory => {}
                Some(_) => return Err(not_a_directory(&dir)),
                None => self.put(&dir, &meta, Content::None)?,
            }
        }
        Ok(())
    }

    /// Writes an entry. Its parent must exist. What is there is replaced, a directory by a directory keeps its entries;
    /// one in place of the other is an error: [`Self::remove`] first.
    pub fn put(&mut self, path: &ImagePath, meta: &Meta, content: Content<'_>) -> Result<()> {
        if path.name().is_some_and(|name| name.starts_with(b".wh.")) {
            return Err(Error::with_kind(ErrorKind::Unsupported, format!("can't put {} into a layer", quote(path.to_string())))
                .cause("names that begin with `.wh.` mean deletion there"));
        }
        let there = self.view.lookup(path)?.map(|node| node.meta.kind == Kind::Directory);
        let new_dir = meta.kind == Kind::Directory && !matches!(content, Content::HardLink(_));
        match (there, new_dir) {
            (Some(true), false) => return Err(in_the_way(path, "a directory", "a file")),
            (Some(false), true) => return Err(in_the_way(path, "no directory", "a directory")),
            _ => {}
        }
        self.copy_up_parents(path)?;
        let mtime = self.times.of(meta.mtime);
        let timed = (mtime != meta.mtime).then(|| Meta { mtime, ..meta.clone() });
        let meta = timed.as_ref().unwrap_or(meta);
        let written = match content {
            Content::HardLink(target) => self.hard_link(path, target),
            content => self.change(|tree| write(tree, path, meta, content)),
        };
        if new_dir {
            self.view.forget(path);
        }
        written.map_err(|e| e.context(format!("can't write {}", quote(path.to_string()))))
    }

    /// Removes an entry and all below it; one that is not there is fine.
    pub fn remove(&mut self, path: &ImagePath) -> Result<()> {
        if path.is_root() {
            return Err(Error::input("the image's root directory can't be removed"));
        }
        if self.view.lookup(path)?.is_none() {
            return Ok(());
        }
        self.copy_up_parents(path)?;
        self.change(|tree| tree.clear(path))?;
        self.view.forget(path);
        // What this layer alone had is gone; what shows through now is the base's.
        if self.view.lookup(path)?.is_some() {
            self.change(|tree| tree.whiteout(path))?;
            self.view.forget(path);
        }
        Ok(())
    }

    /// Unpacks an uncompressed archive below the physical directory `dest`, which must exist; gives back the number of entries.
    ///
    /// Entries go through the image's own symlinks to directories, never outside its root; they replace what is there
    /// whatever its type, except that a directory goes into a symlink to one. `.wh.` names are errors: an archive is no layer. `owner` overrides
    /// the entries' own.
    pub fn unpack_onto(&mut self, dest: &ImagePath, tar: impl Read, owner: Option<(u32, u32)>) -> Result<u64> {
        let mut archive = Archive::new(BufReader::with_capacity(256 << 10, tar));
        let mut entries = 0;
        while let Some(mut header) = archive.next_entry()? {
            if let Some((uid, gid)) = owner {
                (header.meta.uid, header.meta.gid) = (uid, gid);
            }
            self.unpack_entry(dest, &header, &mut archive).map_err(|e| archive.naming_entry(e))?;
            entries += 1;
        }
        Ok(entries)
    }

    /// Ends: sets the directories' times and writes the record.
    pub fn finish(self) -> Result<Written> {
        self.tree.finish()?;
        Ok(Written { empty: self.empty })
    }

    fn unpack_entry(&mut self, dest: &ImagePath, header: &Header, archive: &mut Archive<impl io::BufRead>) -> Result<()> {
        let written = entry_path(&header.name)?;
        let Some(name) = written.name() else {
            // An archive of `.` says what its own root was like; the destination was there before.
            return Ok(());
        };
        let parent = self.through(dest, &written.parent().unwrap_or_default())?;
        self.make_dirs(&parent, 0o755, 0, 0, Some(header.meta.mtime))?;
        let path = parent.child(name);
        let there = self.view.lookup(&path)?;
        let is_dir = matches!(header.body, Body::Plain) && header.meta.kind == Kind::Directory;
        if let Some(there) = there {
            let goes_through = is_dir && there.meta.kind == Kind::Symlink && self.leads_to_directory(&path)?;
            if goes_through {
                return Ok(());
            }
            if (there.meta.kind == Kind::Directory) != is_dir {
                self.remove(&path)?;
            }
        }
        match &header.body {
            Body::Symlink(target) => self.put(&path, &header.meta, Content::Symlink(check_target(target)?)),
            Body::HardLink(target) => {
                let written = entry_path(target)?;
                let missing = || malformed(format!("its hard link target {} does not exist", quote(target)));
                let (Some(target_parent), Some(name)) = (written.parent(), written.name()) else { return Err(missing()) };
                let target = self.through(dest, &target_parent)?.child(name);
                if self.view.lookup(&target)?.is_none() {
                    return Err(missing());
                }
                self.put(&path, &header.meta, Content::HardLink(&target))
            }
            Body::Plain if header.meta.kind != Kind::File => self.put(&path, &header.meta, Content::None),
            body => self.put_archived(&path, &header.meta, body, archive),
        }
    }

    fn put_archived(&mut self, path: &ImagePath, meta: &Meta, body: &Body, archive: &mut Archive<impl io::BufRead>) -> Result<()> {
        if matches!(body, Body::Sparse(_)) {
            self.put(path, &Meta { size: 0, ..meta.clone() }, Content::None)?;
            let timed = Meta { mtime: self.times.of(meta.mtime), ..meta.clone() };
            return self.change(|tree| tree.put_file(path, &timed, |_, file| write_content(archive, body, meta.size, file)));
        }
        self.put(path, meta, Content::Reader(&mut ArchiveContent(archive)))
    }

    /// Where a path below `dest` leads, following the symlinks of the image.
    fn through(&self, dest: &ImagePath, below: &ImagePath) -> Result<ImagePath> {
        let whole = below.components().fold(dest.clone(), |path, part| path.child(part));
        self.view.resolve(&whole, Follow::Last)
    }

    fn leads_to_directory(&self, path: &ImagePath) -> Result<bool> {
        let target = self.view.resolve(path, Follow::Last)?;
        Ok(self.view.lookup(&target)?.is_some_and(|node| node.meta.kind == Kind::Directory))
    }

    fn hard_link(&mut self, path: &ImagePath, target: &ImagePath) -> Result<()> {
        let missing =
            || Error::with_kind(ErrorKind::NotFound, format!("the hard link's target {} does not exist", quote(target.to_string())));
        let node = self.view.lookup(target)?.ok_or_else(missing)?;
        if node.layer < self.base_layers {
            self.copy_up_parents(target)?;
            let view = self.view.clone();
            self.change(|tree| copy_up(tree, &view, &node))?;
        }
        if self.change(|tree| tree.link(target, path))? { Ok(()) } else { Err(missing()) }
    }

    /// Makes the directories above `path` in the new layer as they are in the base.
    fn copy_up_parents(&mut self, path: &ImagePath) -> Result<()> {
        let Some(parent) = path.parent() else { return Ok(()) };
        if self.tree.dir(&parent)?.is_some() {
            return Ok(());
        }
        for dir in path.ancestors() {
            if self.tree.dir(&dir)?.is_some() {
                continue;
            }
            match self.view.lookup(&dir)? {
                Some(node) if node.meta.kind == Kind::Directory => self.change(|tree| tree.put_dir(&dir, &node.meta))?,
                Some(_) => return Err(not_a_directory(&dir)),
                None => return Err(Error::with_kind(ErrorKind::NotFound, format!("{} does not exist", quote(dir.to_string())))),
            }
            self.view.forget(&dir);
        }
        Ok(())
    }

    /// Writes to the tree. The view lets go of the record meanwhile, which would be copied for the change otherwise.
    fn change<T>(&mut self, write: impl FnOnce(&mut NativeTree) -> Result<T>) -> Result<T> {
        self.empty = false;
        self.view.set_top_record(Arc::default());
        let written = write(&mut self.tree);
        self.view.set_top_record(self.tree.record.clone());
        written
    }
}

fn write(tree: &mut NativeTree, path: &ImagePath, meta: &Meta, content: Content<'_>) -> Result<()> {
    let failed = |e| from_io(|| "can't write the file".into(), e);
    match (content, meta.kind) {
        (Content::Symlink(target), _) => tree.put_symlink(path, &Meta { kind: Kind::Symlink, ..meta.clone() }, target),
        (Content::None, Kind::Directory) => tree.put_dir(path, meta),
        (Content::None, Kind::File) => tree.put_file(path, meta, |_, _| Ok(())),
        (Content::None, Kind::Symlink) => Err(Error::new("a symbolic link needs a target")),
        (Content::None, _) => tree.put_special(path, meta),
        (Content::File(from), Kind::File) => tree.put_file(path, meta, |copier, to| copier.copy(from, to, meta.size).map_err(failed)),
        (Content::Bytes(bytes), Kind::File) => tree.put_file(path, meta, |_, mut to| to.write_all(bytes).map_err(failed)),
        (Content::Reader(from), Kind::File) => tree.put_file(path, meta, |_, mut to| copy_stream(from, &mut to).map_err(failed)),
        (Content::HardLink(_), _) => Err(Error::new("a hard link is not written")),
        (Content::File(_) | Content::Bytes(_) | Content::Reader(_), _) => Err(Error::new("only a regular file has content")),
    }
}

/// Copies an entry of a view that is no directory.
pub(super) fn copy_up(tree: &mut NativeTree, view: &View, node: &Node) -> Result<()> {
    match node.meta.kind {
        Kind::Symlink => tree.put_symlink(&node.path, &node.meta, &view.read_link(node)?),
        Kind::File => {
            let from = view.open(node)?;
            let failed = |e| from_io(|| format!("can't copy {}", quote(node.path.to_string())), e);
            tree.put_file(&node.path, &node.meta, |copier, to| copier.copy(&from, to, node.meta.size).map_err(failed))
        }
        _ => tree.put_special(&node.path, &node.meta),
    }
}

/// The content of an archive's current entry.
struct ArchiveContent<'a, R>(&'a mut Archive<R>);

impl<R: io::BufRead> Read for ArchiveContent<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let piece = self.0.fill()?;
        let n = piece.len().min(out.len());
        out[..n].copy_from_slice(&piece[..n]);
        self.0.consume(n);
        Ok(n)
    }
}

fn copy_stream(from: &mut dyn Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 128 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(&buffer[..n])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn now() -> Mtime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Mtime { secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
}

fn not_a_directory(path: &ImagePath) -> Error {
    Error::input(format!("{} is not a directory", quote(path.to_string())))
}

fn in_the_way(path: &ImagePath, there: &str, wanted: &str) -> Error {
    Error::input(format!("can't make {} {wanted}: it is {there}", quote(path.to_string())))
}
