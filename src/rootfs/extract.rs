//! A view as plain files in a user's directory: true modes, times, links and what attributes the user may set.
//!
//! Not a layer and not a tree of the storage directory: modes are native, and device nodes are left out unless the user is root. Owners and
//! capabilities that one user can't give are kept beside in attributes, as layers keep them, so that an image made of the directory has
//! them again; symlinks and FIFOs, which hold no attributes, lose theirs. Existing files are replaced, existing directories kept as they are with what else they hold; where a file or link is
//! in the way of a directory, or the other way round, it ends. No symlink in the directory is followed.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::meta::{Kind, Meta, OVERRIDE_XATTR, Override, host_xattr_name, image_xattr_name};
use super::view::{Node, View};
use crate::error::{Error, IoContext, Result, from_io, quote};
use crate::oci::ImagePath;
use crate::sys::fs;
use crate::sys::fs::copy::Copier;
use crate::sys::fs::remove::remove_tree_at;
use crate::sys::fs::xattr::{self, Target};

/// A file's name until it is whole.
const UNFINISHED: &str = ".rootling-unfinished";

/// Whose the directory itself is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Top {
    /// It was made for this, and gets the root directory's attributes. The user may always write to it and remove it.
    New,
    /// It stays as it is.
    Theirs,
}

/// Writes everything a view shows into a directory; returns how many device nodes could not be made.
pub fn extract(view: &View, directory: &Path, top: Top) -> Result<u64> {
    let root = fs::open_root(directory).doing("open", directory)?;
    let root_user = rustix::process::geteuid().is_root();
    let mut extract =
        Extract { view, copier: Copier::default(), first: HashMap::new(), open: Vec::new(), root, as_root: root_user, left_out: 0 };
    view.walk(&ImagePath::root(), &mut |node| {
        extract.node(node).map_err(|e| e.context(format!("can't write {}", quote(node.path.to_string()))))
    })?;
    extract.close_down_to(&[])?;
    if top == Top::New
        && let Some(node) = view.lookup(&ImagePath::root())?
    {
        let finished = extract.finish(extract.root.as_fd(), &node.meta);
        let finished = finished.and_then(|()| fs::set_mode(&extract.root, node.meta.mode | 0o700));
        finished.doing("finish", directory)?;
    }
    Ok(extract.left_out)
}

/// Removes a directory that [`extract`] was filling, read-only directories included.
pub fn remove(directory: &Path) -> Result<()> {
    remove_tree_at(directory).doing("remove", directory)
}

struct Extract<'a> {
    view: &'a View,
    copier: Copier,
    /// Files with several names, by where the first is.
    first: HashMap<(u64, u64), ImagePath>,
    /// The directories from below the root to where we are, and what is done with each when all is in it.
    open: Vec<(ImagePath, OwnedFd, Closing)>,
    root: OwnedFd,
    as_root: bool,
    left_out: u64,
}

/// What is done with a directory when all is in it.
enum Closing {
    /// It is new: it gets owner, mode and times.
    Finish(Box<Meta>),
    /// It was there and could not be written to: it gets back this mode.
    Restore(u32),
    /// It was there.
    Leave,
}

impl Extract<'_> {
    fn node(&mut self, node: &Node) -> Result<()> {
        let (Some(parent), Some(name)) = (node.path.parent(), node.path.name()) else {
            // The directory itself is the user's own.
            return Ok(());
        };
        self.close_down_to(parent.as_bytes())?;
        let name = name.to_vec();
        let failed = |e: io::Error| from_io(|| "the file system refuses".into(), e);
        if node.meta.kind == Kind::Directory {
            let (fd, closing) = enter(self.here(), &name, &node.meta)?;
            self.open.push((node.path.clone(), fd, closing));
            return Ok(());
        }
        if let Some(first) = node.link.and_then(|link| self.first.get(&link)).cloned() {
            return self.link(&first, &name).map_err(failed);
        }
        if self.make(node, &name)?
            && let Some(link) = node.link
        {
            self.first.insert(link, node.path.clone());
        }
        Ok(())
    }

    /// Makes anything but a directory; false if that is not possible for this user.
    fn make(&mut self, node: &Node, name: &[u8]) -> Result<bool> {
        let failed = |e: io::Error| from_io(|| "the file system refuses".into(), e);
        clear(self.here(), UNFINISHED.as_bytes()).map_err(failed)?;
        match node.meta.kind {
            Kind::File => {
                let file = fs::create_file(self.here(), UNFINISHED, 0o600).map_err(failed)?;
                if node.meta.size > 0 {
                    let from: File = self.view.open(node)?;
                    self.copier.copy(&from, &file, node.meta.size).map_err(failed)?;
                }
                self.finish(file.as_fd(), &node.meta).map_err(failed)?;
            }
            Kind::Symlink => {
                let target = self.view.read_link(node)?;
                fs::make_symlink(&target, self.here(), UNFINISHED).map_err(failed)?;
                self.own_at(&node.meta).map_err(failed)?;
                fs::set_mtime_at(self.here(), UNFINISHED, mtime(&node.meta)).map_err(failed)?;
            }
            Kind::Fifo => {
                fs::make_fifo(self.here(), UNFINISHED, 0o600).map_err(failed)?;
                self.own_at(&node.meta).map_err(failed)?;
                fs::set_mode_at(self.here(), UNFINISHED, node.meta.mode).map_err(failed)?;
                fs::set_mtime_at(self.here(), UNFINISHED, mtime(&node.meta)).map_err(failed)?;
            }
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } => {
                self.left_out += 1;
                return Ok(false);
            }
            Kind::Socket | Kind::Directory => return Ok(false),
        }
        self.place(name).map_err(failed)?;
        Ok(true)
    }

    fn place(&self, name: &[u8]) -> io::Result<()> {
        let here = self.here();
        match rustix::fs::renameat(here, UNFINISHED, here, name) {
            Err(error) => {
                let _ = fs::unlink(here, UNFINISHED);
                Err(error.into())
            }
            Ok(()) => Ok(()),
        }
    }

    fn link(&self, first: &ImagePath, name: &[u8]) -> io::Result<()> {
        clear(self.here(), name)?;
        let mut parent: Option<OwnedFd> = None;
        let mut components: Vec<&[u8]> = first.as_bytes().split(|byte| *byte == b'/').collect();
        let last = components.pop().unwrap_or_default();
        for component in components {
            let next = fs::open_dir(parent.as_ref().map_or(self.root.as_fd(), |fd| fd.as_fd()), component)?;
            parent = Some(next);
        }
        fs::make_link(parent.as_ref().map_or(self.root.as_fd(), |fd| fd.as_fd()), last, self.here(), name)
    }

    /// The directory we are in.
    fn here(&self) -> BorrowedFd<'_> {
        self.open.last().map_or(self.root.as_fd(), |(_, fd, _)| fd.as_fd())
    }

    /// Leaves directories until the one at a path is the innermost.
    fn close_down_to(&mut self, path: &[u8]) -> Result<()> {
        while self.open.last().is_some_and(|(open, _, _)| open.as_bytes() != path) {
            let Some((path, fd, closing)) = self.open.pop() else { break };
            let closed = match closing {
                Closing::Finish(meta) => self.finish(fd.as_fd(), &meta),
                Closing::Restore(mode) => fs::set_mode(&fd, mode),
                Closing::Leave => Ok(()),
            };
            closed.map_err(|e| from_io(|| format!("can't finish {}", quote(path.to_string())), e))?;
        }
        Ok(())
    }

    /// Owner first, since it takes set-user-ID away; times last, since all else changes them.
    fn finish(&self, fd: BorrowedFd<'_>, meta: &Meta) -> io::Result<()> {
        if self.as_root {
            let (uid, gid) = (rustix::fs::Uid::from_raw(meta.uid), rustix::fs::Gid::from_raw(meta.gid));
            rustix::fs::fchown(fd, Some(uid), Some(gid)).or_else(unmapped)?;
        }
        // Some file systems have no attributes at all.
        let set = |name: &[u8], value: &[u8]| match xattr::set(Target::Fd(fd), name, value) {
            Err(e) if xattr::is_unsupported(&e) => Ok(true),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::EACCES)) => Ok(false),
            outcome => outcome.map(|()| true),
        };
        for (name, value) in &meta.xattrs {
            // Capabilities and the like are root's. Access lists are not, but a directory may have some of its own, so theirs are not an image's.
            let ours = set(name, value)? && image_xattr_name(name).is_some();
            if !ours && let Some(kept) = host_xattr_name(name) {
                set(&kept, value)?;
            }
        }
        if let Some(over) = meta.needed_override().filter(|over| !self.as_root || !owns(fd, over)) {
            set(OVERRIDE_XATTR.as_bytes(), over.to_string().as_bytes())?;
        }
        fs::set_mode(fd, meta.mode)?;
        fs::set_mtime(fd, mtime(meta))
    }

    fn own_at(&self, meta: &Meta) -> io::Result<()> {
        if !self.as_root {
            return Ok(());
        }
        let (uid, gid) = (rustix::fs::Uid::from_raw(meta.uid), rustix::fs::Gid::from_raw(meta.gid));
        Ok(rustix::fs::chownat(self.here(), UNFINISHED, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW).or_else(unmapped)?)
    }
}

/// Root of a user namespace can give files to those it knows only.
fn unmapped(errno: rustix::io::Errno) -> rustix::io::Result<()> {
    if errno == rustix::io::Errno::INVAL { Ok(()) } else { Err(errno) }
}

/// Whether a file has the owner it should have.
fn owns(fd: BorrowedFd<'_>, wanted: &Override) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| (stat.st_uid, stat.st_gid) == (wanted.uid, wanted.gid))
}

fn mtime(meta: &Meta) -> (i64, u32) {
    (meta.mtime.secs, meta.mtime.nanos)
}

/// Opens a directory, made where there is none.
///
/// Errors: something else has the name; it is not ours to remove.
fn enter(dir: BorrowedFd<'_>, name: &[u8], meta: &Meta) -> Result<(OwnedFd, Closing)> {
    let failed = |e: io::Error| from_io(|| "the file system refuses".into(), e);
    let closing = match fs::stat_if_any(dir, name).map_err(failed)? {
        // Of an earlier export, perhaps read-only.
        Some(stat) if stat.is_dir() && stat.permissions() & 0o700 != 0o700 => {
            fs::set_mode_at(dir, name, stat.permissions() | 0o700).map_err(failed)?;
            Closing::Restore(stat.permissions())
        }
        Some(stat) if stat.is_dir() => Closing::Leave,
        Some(_) => {
            return Err(Error::input(format!("{} is in the way", quote(name)))
                .cause("the image has a directory of that name")
                .hint("write to a directory of its own, or remove what is in the way"));
        }
        None => {
            fs::make_dir(dir, name, 0o700).map_err(failed)?;
            Closing::Finish(Box::new(meta.clone()))
        }
    };
    Ok((fs::open_dir(dir, name).map_err(failed)?, closing))
}

/// Removes what stands in the way, unless it is a directory.
fn clear(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match fs::unlink(dir, name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}
