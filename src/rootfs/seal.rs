//! Sealing: what a build step left in an overlay's upper directory, or in a plain tree, becomes a proper layer. One walk.
//!
//! - modes that would lock the user out of their own storage are widened natively, the true one goes into an override;
//! - xattrs by which overlayfs keeps its own books are removed, all but the opaque mark;
//! - sockets are removed: no layer can hold them;
//! - what whoever emulated root remembers of entries that can't say it themselves goes into the record.
//!
//! Sealing again changes nothing.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::entry;
use super::meta::{Kind, Meta, Mtime, OPAQUE_XATTR, OVERRIDE_XATTR, Override, Times};
use super::record::Record;
use crate::error::{Error, IoContext, Kind as ErrorKind, Result, from_io, quote};
use crate::oci::ImagePath;
use crate::sys::fs::walk::{Step, Walk};
use crate::sys::fs::xattr::{self, Target};
use crate::sys::fs::{self, FileStat, FileType};

/// What the tree can't tell.
#[derive(Clone, Debug, Default)]
pub struct SealOptions {
    /// Overrides and extended attributes of all that can't hold them (symlinks and FIFOs; everything on a file system without user xattrs), to
    /// take the place of what the record had of them. What is said of paths that are not there is ignored. `None` if nobody remembers:
    /// then the record stands.
    pub left: Option<Record>,
    /// The root directory's metadata when the step began. If it has not changed but for its time, the layer says nothing of the root.
    pub base_root: Option<Meta>,
    /// What becomes of modification times.
    pub times: Times,
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sealed {
    /// The layer changes nothing.
    pub empty: bool,
    /// Entries, whiteouts included, the root not.
    pub entries: u64,
    /// Sockets removed.
    pub sockets: u64,
}

/// Seals the layer directory `layer`: its `fs/`, which nobody uses any more, and its `record`.
pub fn seal(layer: &Path, options: &SealOptions) -> Result<Sealed> {
    let mut record = Record::load(layer)?;
    if options.left.is_some() {
        record.overrides.clear();
        record.xattrs.clear();
    }
    let path = layer.join("fs");
    let root = fs::open_root(&path).doing("open", &path)?;
    let mut sealer = Sealer { options, record: &mut record, sealed: Sealed::default() };
    let stat = fs::stat_fd(&root).doing("read", &path)?;
    sealer.take_over(&stat, &ImagePath::root());
    sealer.inode(Target::Fd(root.as_fd()), &stat, &ImagePath::root())?;
    sealer.root(&root)?;
    let mut walk = Walk::new(root).doing("read", &path)?;
    while let Some(step) = walk.step().doing("read", &path)? {
        match step {
            Step::Entry(entry) => {
                let path = ImagePath::clean(walk.path());
                sealer
                    .entry(&mut walk, &entry, &path)
                    .map_err(|e| e.context(format!("can't make a layer of {}", quote(path.to_string()))))?;
            }
            Step::Leave => walk.ascend().doing("read", &path)?,
        }
    }
    let mut sealed = sealer.sealed;
    sealed.empty = sealed.entries == 0 && record.implicit.contains(&ImagePath::root());
    record.save(layer)?;
    Ok(sealed)
}

struct Sealer<'a> {
    options: &'a SealOptions,
    record: &'a mut Record,
    sealed: Sealed,
}

impl Sealer<'_> {
    fn root(&mut self, root: &impl AsFd) -> Result<()> {
        let Some(base) = &self.options.base_root else { return Ok(()) };
        let stat = fs::stat_fd(root).map_err(|e| Error::os("can't read the root directory", e))?;
        let now = entry::read(Target::Fd(root.as_fd()), &stat, self.record, &ImagePath::root())?.meta;
        if now.same_but_for_times(base) {
            self.record.implicit.insert(ImagePath::root());
        } else {
            self.record.implicit.remove(&ImagePath::root());
        }
        Ok(())
    }

    fn entry(&mut self, walk: &mut Walk, entry: &fs::DirEntry, path: &ImagePath) -> Result<()> {
        let stat = fs::stat_at(walk.dir(), &*entry.name).map_err(failed("read"))?;
        if stat.file_type() == FileType::Socket {
            // The directory keeps its time: what happens here is none of the step's doing.
            let dir = fs::stat_fd(walk.dir()).map_err(failed("read"))?;
            fs::unlink(walk.dir(), &*entry.name).map_err(failed("remove"))?;
            fs::set_mtime(walk.dir(), dir.mtime).map_err(failed("set the time"))?;
            self.sealed.sockets += 1;
            return Ok(());
        }
        self.sealed.entries += 1;
        self.take_over(&stat, path);
        match stat.file_type() {
            FileType::Directory => {
                self.inode(Target::At(walk.dir(), &entry.name), &stat, path)?;
                walk.descend(entry).map_err(failed("open"))
            }
            FileType::RegularFile => self.inode(Target::At(walk.dir(), &entry.name), &stat, path),
            FileType::Symlink | FileType::Fifo => self.time(Target::At(walk.dir(), &entry.name), &stat),
            _ => Ok(()),
        }
    }

    /// Writes down what is remembered of an entry.
    fn take_over(&mut self, stat: &FileStat, path: &ImagePath) {
        let Some(left) = self.options.left.as_ref().filter(|left| left.speaks_of(path)) else { return };
        self.record.adopt(path, left, path);
        let Some(over) = self.record.overrides.get_mut(path) else { return };
        let file_type = stat.file_type();
        if file_type != FileType::RegularFile {
            over.device = None;
        }
        let plain = match file_type {
            FileType::Symlink => true,
            FileType::Fifo => over.mode == stat.permissions(),
            _ => false,
        };
        if plain && (over.uid, over.gid) == (0, 0) {
            self.record.overrides.remove(path);
        }
    }

    /// Puts the mode, the xattrs and the time of a file or directory in order.
    fn inode(&mut self, target: Target<'_>, stat: &FileStat, path: &ImagePath) -> Result<()> {
        let needed = if stat.is_dir() { Kind::Directory } else { Kind::File }.needed_bits();
        let lacking = stat.mode & needed != needed;
        if lacking {
            // First of all: setting a user xattr takes the permission to write.
            set_mode(target, stat.permissions() | needed).map_err(failed("change the mode"))?;
        }
        let over = self.xattrs(target).map_err(|e| match e.kind() {
            ErrorKind::Unsupported => e,
            _ => e.context("can't put its extended attributes in order"),
        })?;
        let recorded = self.record.overrides.get(path).copied();
        if lacking && over.is_none() && recorded.is_none() {
            let over = Override { uid: 0, gid: 0, mode: stat.permissions(), device: None };
            match xattr::set(target, OVERRIDE_XATTR.as_bytes(), over.to_string().as_bytes()) {
                Err(e) if xattr::is_unsupported(&e) => drop(self.record.overrides.insert(path.clone(), over)),
                set => set.map_err(failed("record the mode"))?,
            }
        }
        self.time(target, stat)
    }

    /// Removes overlayfs' xattrs and an override that is none; gives back a valid one.
    fn xattrs(&self, target: Target<'_>) -> Result<Option<Override>> {
        let changing = |e| Error::os("can't change an extended attribute", e);
        let mut over = None;
        for name in xattr::list(target).map_err(changing)? {
            if name == OVERRIDE_XATTR.as_bytes() {
                let value = xattr::get(target, &name).map_err(changing)?;
                over = value.and_then(|value| entry::parse_override(&value).ok());
                // Not written by the emulation but by the step itself; it means nothing.
                if over.is_none() {
                    xattr::remove(target, &name).map_err(changing)?;
                }
            } else if name == b"user.overlay.redirect" || name == b"user.overlay.metacopy" {
                return Err(Error::with_kind(ErrorKind::Unsupported, "the overlay was mounted with redirects, which a layer can't have")
                    .cause(format!("a file has the extended attribute {}", quote(&name))));
            } else if name.starts_with(b"user.overlay.") && name != OPAQUE_XATTR.as_bytes() {
                xattr::remove(target, &name).map_err(changing)?;
            }
        }
        Ok(over)
    }

    fn time(&self, target: Target<'_>, stat: &FileStat) -> Result<()> {
        let (secs, nanos) = stat.mtime;
        let time = self.options.times.of(Mtime { secs, nanos });
        if (time.secs, time.nanos) == stat.mtime {
            return Ok(());
        }
        set_mtime(target, (time.secs, time.nanos)).map_err(failed("set the time"))
    }
}

fn set_mode(target: Target<'_>, mode: u32) -> io::Result<()> {
    match target {
        Target::Fd(fd) => fs::set_mode(fd, mode),
        Target::At(dir, name) => fs::set_mode_at(dir, name, mode),
    }
}

fn set_mtime(target: Target<'_>, mtime: (i64, u32)) -> io::Result<()> {
    match target {
        Target::Fd(fd) => fs::set_mtime(fd, mtime),
        Target::At(dir, name) => fs::set_mtime_at(dir, name, mtime),
    }
}

fn failed(verb: &'static str) -> impl Fn(io::Error) -> Error {
    move |e| from_io(|| format!("can't {verb}"), e)
}
