//! The tree of a layer directory while it is written: the one place that turns what an image means into native files.
//!
//! Every path here is physical: each of its directories is really one. Directories are opened one component at a time without
//! following symlinks and a few stay open, so no entry, however hostile its name, is ever made outside the tree, on any kernel.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::meta::{self, Kind, Meta, Mtime, OPAQUE_XATTR, OVERRIDE_XATTR, Override};
use super::record::{Record, Xattrs};
use crate::error::{Error, IoContext, Kind as ErrorKind, Result, quote};
use crate::oci::ImagePath;
use crate::sys::fs::copy::Copier;
use crate::sys::fs::remove::remove_tree;
use crate::sys::fs::xattr::{self, Target};
use crate::sys::fs::{self, FileStat};

/// How many of the innermost directories stay open, and how many levels lie between those further out that do. Even the deepest
/// path then needs a hundred descriptors: layers are unpacked side by side and the usual limit is 1024.
const OPEN_DIRS: usize = 32;
const OPEN_EVERY: usize = 32;

/// The most memory that paths of implicit directories may take. A tar of a few kilobytes can name thousands of directories of
/// thousands of bytes each; no real layer comes near this.
const MAX_IMPLICIT: usize = 64 << 20;

/// A tree being written.
pub(super) struct NativeTree {
    layer: PathBuf,
    root: Arc<OwnedFd>,
    /// The directories from the root to the one used last, whose path is `open_path`.
    open: Vec<Level>,
    open_path: Vec<u8>,
    implicit_bytes: usize,
    /// Grows with what the tree can't say natively; shared with a view while nothing is written.
    pub record: Arc<Record>,
    /// Directories' times, set at the end since every new entry changes them.
    times: BTreeMap<ImagePath, Mtime>,
    umask: Option<u32>,
    is_fuse: bool,
    pub copier: Copier,
}

impl NativeTree {
    /// Makes `layer/fs`, which must not exist or be empty; `layer` must exist or its parent.
    pub fn create(layer: &Path) -> Result<Self> {
        let path = layer.join("fs");
        std::fs::create_dir_all(&path).doing("create", &path)?;
        let root = fs::open_root(&path).doing("open", &path)?;
        if !fs::list_unsorted(fs::open_root(&path).doing("open", &path)?.as_fd()).doing("read", &path)?.is_empty() {
            return Err(Error::new(format!("{} is not empty", crate::error::quote_path(&path))));
        }
        // A shared parent directory may hand down its group, its set-group-ID bit and a default ACL; none belongs in an image.
        let prepare = || {
            let gid = fs::stat_fd(&root)?.gid;
            if gid != rustix::process::getegid().as_raw() {
                fs::take_group(&root)?;
            }
            xattr::remove(Target::Fd(root.as_fd()), b"system.posix_acl_default")?;
            fs::set_mode(&root, 0o755)
        };
        prepare().doing("prepare", &path)?;
        Ok(Self {
            layer: layer.to_owned(),
            is_fuse: fs::is_fuse(&root),
            root: Arc::new(root),
            open: Vec::new(),
            open_path: Vec::new(),
            implicit_bytes: 0,
            record: Arc::default(),
            times: BTreeMap::new(),
            umask: fs::umask(),
            copier: Copier::default(),
        })
    }

    /// The record, to be changed.
    pub fn record_mut(&mut self) -> &mut Record {
        Arc::make_mut(&mut self.record)
    }

    /// Opens a directory; `None` if it or one above it is missing or no directory.
    pub fn dir(&mut self, path: &ImagePath) -> Result<Option<Arc<OwnedFd>>> {
        self.dir_at(path.as_bytes())
    }

    fn dir_at(&mut self, path: &[u8]) -> Result<Option<Arc<OwnedFd>>> {
        if path.is_empty() {
            return Ok(Some(self.root.clone()));
        }
        self.leave_to(path);
        let mut at = self.open.iter().rposition(|level| level.dir.is_some()).map_or(0, |level| level + 1);
        let mut dir = at.checked_sub(1).and_then(|level| self.open[level].dir.clone()).unwrap_or_else(|| self.root.clone());
        loop {
            let start = at.checked_sub(1).map_or(0, |level| self.open[level].end + 1);
            if start > path.len() {
                return Ok(Some(dir));
            }
            let end = path[start..].iter().position(|&b| b == b'/').map_or(path.len(), |slash| start + slash);
            dir = match fs::open_dir(&*dir, &path[start..end]) {
                Ok(dir) => Arc::new(dir),
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) => return Ok(None),
                Err(e) => return Err(trouble("open", path, e)),
            };
            self.enter(at, &path[..end], dir.clone());
            at += 1;
        }
    }

    /// Closes the directories that are not above or at `path`.
    fn leave_to(&mut self, path: &[u8]) {
        let same = self.open_path.iter().zip(path).take_while(|(a, b)| a == b).count();
        while let Some(level) = self.open.last() {
            let holds = level.end <= same && (path.len() == level.end || path[level.end] == b'/');
            if holds {
                break;
            }
            self.open.pop();
        }
        self.open_path.truncate(self.open.last().map_or(0, |level| level.end));
    }

    /// Notes the directory opened at a level.
    fn enter(&mut self, at: usize, path: &[u8], dir: Arc<OwnedFd>) {
        let level = Level { end: path.len(), dir: Some(dir) };
        match self.open.get_mut(at) {
            Some(known) => *known = level,
            None => {
                self.open_path.extend_from_slice(&path[self.open_path.len()..]);
                self.open.push(level);
            }
        }
        if let Some(outer) = at.checked_sub(OPEN_DIRS).filter(|outer| outer % OPEN_EVERY != 0) {
            self.open[outer].dir = None;
        }
    }

    /// The directory that holds `path`, and its name there.
    fn site<'p>(&mut self, path: &'p ImagePath) -> Result<(Arc<OwnedFd>, &'p [u8])> {
        let bytes = path.as_bytes();
        let slash = bytes.iter().rposition(|&b| b == b'/');
        let (parent, name) = slash.map_or((&[][..], bytes), |at| (&bytes[..at], &bytes[at + 1..]));
        if name.is_empty() {
            return Err(Error::with_kind(ErrorKind::Corrupt, "the root directory can only be a directory"));
        }
        let dir = self.dir_at(parent)?;
        Ok((dir.ok_or_else(|| Error::with_kind(ErrorKind::NotFound, format!("{} is no directory", quote(parent))))?, name))
    }

    /// Stats an entry.
    pub fn stat(&mut self, path: &ImagePath) -> Result<Option<FileStat>> {
        if path.is_root() {
            return fs::stat_fd(&*self.root).map(Some).map_err(|e| trouble("read", b"/", e));
        }
        let bytes = path.as_bytes();
        let slash = bytes.iter().rposition(|&b| b == b'/');
        let (parent, name) = slash.map_or((&[][..], bytes), |at| (&bytes[..at], &bytes[at + 1..]));
        let Some(dir) = self.dir_at(parent)? else { return Ok(None) };
        fs::stat_if_any(&*dir, name).map_err(|e| trouble("read", bytes, e))
    }

    /// Reads a symlink.
    pub fn read_link(&mut self, path: &ImagePath) -> Result<Vec<u8>> {
        let (dir, name) = self.site(path)?;
        fs::read_link(&*dir, name).map_err(|e| trouble("read", path.as_bytes(), e))
    }

    /// Makes a directory, or gives one that is there new metadata. Taking the place of anything else it hides what lower
    /// layers have below it, as if the two had been applied one after the other.
    pub fn put_dir(&mut self, path: &ImagePath, meta: &Meta) -> Result<()> {
        let fresh = !path.is_root() && self.make_dir(path)?;
        let dir = self.dir(path)?.ok_or_else(|| Error::new(format!("can't open {}", quote(path.as_bytes()))))?;
        let stale =
            if fresh { Vec::new() } else { xattr::list(Target::Fd(dir.as_fd())).map_err(|e| trouble("read", path.as_bytes(), e))? };
        for name in stale {
            if name == OVERRIDE_XATTR.as_bytes() || meta::image_xattr_name(&name).is_some_and(|name| name != b"security.capability") {
                xattr::remove(Target::Fd(dir.as_fd()), &name).map_err(|e| trouble("change", path.as_bytes(), e))?;
            }
        }
        self.record_mut().unsay(path);
        self.record_mut().implicit.remove(path);
        self.set_xattrs(Target::Fd(dir.as_fd()), path, meta)?;
        fs::set_mode(&*dir, meta.native_mode()).map_err(|e| trouble("set the mode of", path.as_bytes(), e))?;
        self.times.insert(path.clone(), meta.mtime);
        Ok(())
    }

    /// Makes a directory; false if there is one.
    fn make_dir(&mut self, path: &ImagePath) -> Result<bool> {
        let (dir, name) = self.site(path)?;
        match fs::make_dir(&*dir, name, 0o700) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| true).map_err(|e| trouble("create", path.as_bytes(), e)),
        }
        if self.stat(path)?.is_some_and(|stat| stat.is_dir()) {
            return Ok(false);
        }
        self.clear(path)?;
        fs::make_dir(&*dir, name, 0o700).map_err(|e| trouble("create", path.as_bytes(), e))?;
        self.mark_opaque(path)?;
        Ok(true)
    }

    /// Makes a directory that the image has no entry for; its metadata won't hide that of lower layers.
    pub fn put_implicit_dir(&mut self, path: &ImagePath) -> Result<()> {
        let replaced = self.stat(path)?.is_some();
        self.put_dir(path, &Meta::new(Kind::Directory, 0o755))?;
        if !replaced {
            self.implicit_bytes += path.as_bytes().len();
            if self.implicit_bytes > MAX_IMPLICIT {
                return Err(Error::with_kind(ErrorKind::Corrupt, "too many directories without an entry of their own"));
            }
            self.record_mut().implicit.insert(path.clone());
        }
        Ok(())
    }

    /// Marks the root directory as one that the image has no entry for, until [`Self::put_dir`] gives it one.
    pub fn put_implicit_root(&mut self) -> Result<()> {
        let root = ImagePath::root();
        self.put_dir(&root, &Meta::new(Kind::Directory, 0o755))?;
        self.record_mut().implicit.insert(root);
        Ok(())
    }

    /// Makes a file, replacing what is there; `write` gets it empty and fills it.
    pub fn put_file(&mut self, path: &ImagePath, meta: &Meta, write: impl FnOnce(&Copier, &File) -> Result<()>) -> Result<()> {
        let file = self.make(path, |dir, name| fs::create_file(dir, name, meta.native_mode() & 0o777))?;
        write(&self.copier, &file)?;
        self.finish_file(&file, path, meta)
    }

    fn finish_file(&mut self, file: &File, path: &ImagePath, meta: &Meta) -> Result<()> {
        let unkept = finish_file(file, path, meta, self.umask)?;
        self.keep(path, unkept);
        Ok(())
    }

    /// What the process' umask takes from the modes of new files.
    pub fn umask(&self) -> Option<u32> {
        self.umask
    }

    /// The root directory.
    pub fn root(&self) -> &Arc<OwnedFd> {
        &self.root
    }

    /// Takes note of what the file system did not take.
    pub fn keep(&mut self, path: &ImagePath, unkept: Unkept) {
        if let Some(over) = unkept.over {
            self.record_mut().overrides.insert(path.clone(), over);
        }
        for (name, value) in unkept.xattrs {
            self.record_mut().keep_xattr(path, &name, &value);
        }
    }

    /// Makes a symlink, replacing what is there.
    pub fn put_symlink(&mut self, path: &ImagePath, meta: &Meta, target: &[u8]) -> Result<()> {
        self.make(path, |dir, name| fs::make_symlink(target, dir, name))?;
        self.finish_other(path, meta)
    }

    /// Makes a FIFO or a device, replacing what is there.
    pub fn put_special(&mut self, path: &ImagePath, meta: &Meta) -> Result<()> {
        match meta.kind {
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } => self.put_file(path, meta, |_, _| Ok(())),
            Kind::Fifo => {
                self.make(path, |dir, name| fs::make_fifo(dir, name, meta.mode & 0o777))?;
                let (dir, name) = self.site(path)?;
                fs::set_mode_at(&*dir, name, meta.mode).map_err(|e| trouble("set the mode of", path.as_bytes(), e))?;
                self.finish_other(path, meta)
            }
            _ => Err(Error::with_kind(ErrorKind::Unsupported, format!("{} can't be in a layer: it is a socket", quote(path.as_bytes())))),
        }
    }

    /// What can't hold xattrs has its override in the record, and theirs.
    fn finish_other(&mut self, path: &ImagePath, meta: &Meta) -> Result<()> {
        self.keep(path, Unkept { over: meta.needed_override(), xattrs: meta.xattrs.clone() });
        let (dir, name) = self.site(path)?;
        fs::set_mtime_at(&*dir, name, time(meta.mtime)).map_err(|e| trouble("set the time of", path.as_bytes(), e))
    }

    /// Gives the file at `target` another name, replacing what is there. `false` if there is no such file.
    pub fn link(&mut self, target: &ImagePath, path: &ImagePath) -> Result<bool> {
        let Some(stat) = self.stat(target)?.filter(|stat| !stat.is_dir() && !stat.is_whiteout()) else { return Ok(false) };
        if self.stat(path)?.is_some_and(|there| (there.dev, there.ino) == (stat.dev, stat.ino)) {
            return Ok(true);
        }
        let (from, from_name) = self.site(target)?;
        self.make(path, |dir, name| fs::make_link(&*from, from_name, dir, name))?;
        if self.is_fuse {
            fs::refresh(&*from, from_name);
        }
        if self.record.speaks_of(target) {
            self.record_mut().copy(target, path);
        }
        Ok(true)
    }

    /// Hides what lower layers have at `path`. What this layer has there stays, a directory without lower content.
    pub fn whiteout(&mut self, path: &ImagePath) -> Result<()> {
        let (dir, name) = self.site(path)?;
        match fs::make_whiteout(&*dir, name) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map_err(|e| whiteout_trouble(path, e)),
        }
        if self.stat(path)?.is_some_and(|stat| stat.is_dir()) {
            self.mark_opaque(path)?;
            self.record_mut().implicit.remove(path);
        }
        Ok(())
    }

    /// Hides what lower layers have below the directory `path`.
    pub fn mark_opaque(&mut self, path: &ImagePath) -> Result<()> {
        let dir = self.dir(path)?.ok_or_else(|| Error::new(format!("{} is no directory", quote(path.as_bytes()))))?;
        match xattr::set(Target::Fd(dir.as_fd()), OPAQUE_XATTR.as_bytes(), b"y") {
            Err(e) if xattr::is_unsupported(&e) => drop(self.record_mut().opaque.insert(path.clone())),
            set => set.map_err(|e| trouble("mark", path.as_bytes(), e))?,
        }
        Ok(())
    }

    /// Removes what is at `path`, if anything, with all below it.
    pub fn clear(&mut self, path: &ImagePath) -> Result<()> {
        let (dir, name) = self.site(path)?;
        let Some(stat) = fs::stat_if_any(&*dir, name).map_err(|e| trouble("read", path.as_bytes(), e))? else { return Ok(()) };
        if stat.is_dir() {
            self.open.clear();
            self.open_path.clear();
            let below: Vec<_> = self.times.range(path..).map(|(p, _)| p).take_while(|p| p.starts_with(path)).cloned().collect();
            for path in below {
                self.times.remove(&path);
            }
        }
        self.record_mut().forget(path);
        remove_tree(dir.as_fd(), name).map_err(|e| trouble("remove", path.as_bytes(), e))
    }

    /// Creates an entry; if something is in the way, removes that first.
    fn make<T>(&mut self, path: &ImagePath, create: impl Fn(&OwnedFd, &[u8]) -> io::Result<T>) -> Result<T> {
        let (dir, name) = self.site(path)?;
        match create(&dir, name) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map_err(|e| trouble("create", path.as_bytes(), e)),
        }
        self.clear(path)?;
        create(&dir, name).map_err(|e| trouble("create", path.as_bytes(), e))
    }

    fn set_xattrs(&mut self, target: Target<'_>, path: &ImagePath, meta: &Meta) -> Result<()> {
        let unkept = set_xattrs(target, path, meta)?;
        self.keep(path, unkept);
        Ok(())
    }

    /// Sets the directories' times and writes the record.
    pub fn finish(mut self) -> Result<Finished> {
        for (path, mtime) in std::mem::take(&mut self.times) {
            if let Some(dir) = self.dir(&path)? {
                fs::set_mtime(&*dir, time(mtime)).map_err(|e| trouble("set the time of", path.as_bytes(), e))?;
            }
        }
        self.record.save(&self.layer)?;
        Ok(Finished { record: self.record })
    }
}

/// A directory on the path used last: where its own path ends, and the directory itself unless it lies too far out.
struct Level {
    end: usize,
    dir: Option<Arc<OwnedFd>>,
}

/// What is known of a tree when it is done.
pub(super) struct Finished {
    pub record: Arc<Record>,
}

/// What the file system did not take of an entry's attributes.
#[derive(Debug, Default)]
pub(super) struct Unkept {
    /// It holds no user xattrs, so the record must hold this.
    pub over: Option<Override>,
    /// And these.
    pub xattrs: Xattrs,
}

/// Gives a file that is written its attributes. May be called from any thread.
pub(super) fn finish_file(file: &File, path: &ImagePath, meta: &Meta, umask: Option<u32>) -> Result<Unkept> {
    let unkept = set_xattrs(Target::Fd(file.as_fd()), path, meta)?;
    let mode = meta.native_mode();
    // Creating has set the mode already unless the umask took something; set-user-ID doesn't survive writing.
    if mode & 0o7000 != 0 || umask.is_none_or(|umask| mode & umask != 0) {
        fs::set_mode(file, mode).map_err(|e| trouble("set the mode of", path.as_bytes(), e))?;
    }
    fs::set_mtime(file, time(meta.mtime)).map_err(|e| trouble("set the time of", path.as_bytes(), e))?;
    Ok(unkept)
}

fn set_xattrs(target: Target<'_>, path: &ImagePath, meta: &Meta) -> Result<Unkept> {
    let mut unkept = Unkept::default();
    if let Some(over) = meta.needed_override() {
        match xattr::set(target, OVERRIDE_XATTR.as_bytes(), over.to_string().as_bytes()) {
            Err(e) if xattr::is_unsupported(&e) => unkept.over = Some(over),
            set => set.map_err(|e| trouble("record the owner of", path.as_bytes(), e))?,
        }
    }
    for (name, value) in &meta.xattrs {
        let Some(host_name) = meta::host_xattr_name(name) else { continue };
        match xattr::set(target, &host_name, value) {
            // Some take attributes of up to 64 KiB, ext4 and Btrfs less.
            Err(e) if xattr::is_unsupported(&e) || xattr::is_too_large(&e) => drop(unkept.xattrs.insert(name.clone(), value.clone())),
            set => set.map_err(|e| trouble(&format!("store the extended attribute {} of", quote(name)), path.as_bytes(), e))?,
        }
    }
    Ok(unkept)
}

fn time(mtime: Mtime) -> (i64, u32) {
    (mtime.secs, mtime.nanos)
}

/// An error about a path of the image, without the storage directory's long name in front.
fn trouble(verb: &str, path: &[u8], cause: io::Error) -> Error {
    Error::os(format!("can't {verb} {}", quote(path)), cause)
}

fn whiteout_trouble(path: &ImagePath, cause: io::Error) -> Error {
    let denied = cause.raw_os_error() == Some(libc::EPERM);
    let error = Error::os(format!("can't mark {} as deleted", quote(path.as_bytes())), cause);
    if denied { error.hint("this needs Linux 5.8 or later and a file system that has device nodes") } else { error }
}
