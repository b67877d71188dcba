//! COPY and ADD: where everything of a selection comes to lie, as BuildKit places it.
//!
//! Placing looks at the image but writes nothing: the outcome is a list that `rootfs::assemble` makes a layer of. Only where an archive is
//! unpacked in between is it written entry by entry.

use std::collections::{HashMap, HashSet};

use crate::error::{Error, Result, quote};
use crate::oci::ImagePath;
use crate::rootfs::assemble::{Body, Digested, Piece, check_length};
use crate::rootfs::meta::{Kind, Meta, Mtime, Times};
use crate::rootfs::view::{Follow, Met, View};
use crate::rootfs::writer::{Content, LayerWriter};

use super::chmod::Chmod;
use super::selection::{Entry, Item, Role};

/// Whether tar archives are unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archives {
    /// COPY.
    Copy,
    /// ADD.
    Unpack,
}

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    path: ImagePath,
    directory: bool,
}

impl Destination {
    /// Resolves what the instruction says against the working directory.
    pub fn new(written: &str, working_dir: &str) -> Self {
        let directory = written.ends_with('/') || matches!(written.rsplit('/').next(), Some("." | ".." | ""));
        Self { path: ImagePath::clean(working_dir).resolve(written), directory }
    }

    /// Whether it is written as a directory.
    pub fn is_directory(&self) -> bool {
        self.directory
    }

    /// The absolute path, with the slash that says it is a directory.
    pub fn key(&self) -> String {
        format!("{}{}", self.path, if self.directory { "/" } else { "" })
    }
}

/// What is changed about everything that is copied.
pub struct Rules {
    /// `--chown`, or root for what comes from the context; `None` keeps owners.
    pub owner: Option<(u32, u32)>,
    /// `--chmod`.
    pub chmod: Option<Chmod>,
    /// What becomes of times.
    pub times: Times,
    /// The time of directories that exist only because something is copied into them.
    pub now: Mtime,
}

impl Rules {
    /// Makes of a source's metadata that of its copy.
    pub fn apply(&self, meta: &mut Meta) {
        if let Some((uid, gid)) = self.owner {
            (meta.uid, meta.gid) = (uid, gid);
        }
        if let Some(chmod) = &self.chmod
            && meta.kind != Kind::Symlink
        {
            meta.mode = chmod.apply(meta.mode, meta.kind == Kind::Directory);
        }
        meta.mtime = self.times.of(meta.mtime);
    }

    fn applied(&self, meta: &Meta) -> Meta {
        let mut meta = meta.clone();
        self.apply(&mut meta);
        meta
    }
}

/// The mode of directories that exist only because something is copied into them.
const PARENT_MODE: u32 = 0o755;

/// What a new layer is to hold, found out step by step.
pub struct Plan<'a> {
    /// The image that the layer comes to lie on.
    base: &'a View,
    /// The tree that is copied from.
    source: &'a View,
    rules: &'a Rules,
    places: Vec<Place<'a>>,
    /// Numbers of the present places.
    index: HashMap<ImagePath, usize>,
    /// Directories that the base is known not to have.
    absent: HashSet<ImagePath>,
    /// The directory something was put into last.
    ready: Option<ImagePath>,
    /// Matches placed so far: hard links are kept within one.
    matches: usize,
}

struct Place<'a> {
    path: ImagePath,
    meta: Meta,
    what: What<'a>,
    /// What has taken its place is another.
    gone: bool,
}

enum What<'a> {
    /// A directory, device or FIFO.
    Plain,
    Symlink(Vec<u8>),
    Bytes(&'a [u8]),
    /// With the number of its match.
    File(&'a Entry, usize),
}

impl<'a> Plan<'a> {
    /// Starts with nothing.
    pub fn new(base: &'a View, source: &'a View, rules: &'a Rules) -> Self {
        Self { base, source, rules, places: Vec::new(), index: HashMap::new(), absent: HashSet::new(), ready: None, matches: 0 }
    }

    /// Whether the layer changes nothing.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Places one match.
    pub fn item(&mut self, item: &'a Item, destination: &Destination) -> Result<()> {
        self.matches += 1;
        // BuildKit follows a link at the end even to what is not there.
        let target = self.resolve(&destination.path)?;
        let existing = self.at(&target)?;
        let exists_as_directory = existing.as_ref().is_some_and(|meta| meta.kind == Kind::Directory);
        if item.own.node.meta.kind != Kind::Directory {
            if destination.directory || exists_as_directory {
                self.make_dirs(&target)?;
                return self.put(target.child(&item.name), &item.own);
            }
            self.make_dirs(&target.parent().unwrap_or_default())?;
            return self.put(target, &item.own);
        }
        if existing.is_some() && !exists_as_directory {
            return Err(Error::input(format!("can't copy a directory onto the file {}", quote(target.to_string()))));
        }
        // The destination itself never looks like the source: only what is in a directory is copied.
        self.make_dirs(&target)?;
        self.below(item, &target)
    }

    /// Makes the destination a directory.
    pub fn directory(&mut self, destination: &Destination) -> Result<ImagePath> {
        let target = self.resolve(&destination.path)?;
        self.make_dirs(&target)?;
        Ok(target)
    }

    /// Places what is in a matched directory.
    fn below(&mut self, item: &'a Item, target: &ImagePath) -> Result<()> {
        // Directories may have to be entered through links of the image: COPY rootfs/ / with lib/ where /lib -> usr/lib.
        let mut moved: HashMap<&[u8], ImagePath> = HashMap::new();
        let mut last: (&[u8], ImagePath) = (b"", target.clone());
        for entry in &item.entries {
            let below = item.below(entry);
            let cut = below.iter().rposition(|&b| b == b'/');
            let (parent, name) = cut.map_or((&below[..0], below), |at| (&below[..at], &below[at + 1..]));
            if last.0 != parent {
                // An excluded directory is not among the entries.
                let place = moved.get(parent).cloned();
                last = (parent, place.unwrap_or_else(|| target.resolve(parent)));
            }
            let mut place = last.1.child(name);
            if entry.node.meta.kind == Kind::Directory {
                let linked = self.at(&place)?.is_some_and(|there| there.kind == Kind::Symlink);
                if linked {
                    place = self.resolve(&place)?;
                }
                moved.insert(below, place.clone());
                // What a link of the image leads to was not named; it keeps its owner and mode.
                if linked && self.at(&place)?.is_some_and(|there| there.kind == Kind::Directory) {
                    continue;
                }
            }
            self.put(place, entry)?;
        }
        Ok(())
    }

    /// Where a file of this name goes; makes the directories above.
    pub fn file(&mut self, name: &[u8], destination: &Destination) -> Result<ImagePath> {
        let target = self.resolve(&destination.path)?;
        let directory = destination.directory || self.at(&target)?.is_some_and(|there| there.kind == Kind::Directory);
        let target = if directory { target.child(name) } else { target };
        self.make_dirs(&target.parent().unwrap_or_default())?;
        Ok(target)
    }

    /// Places a file that is given in the Dockerfile.
    pub fn bytes(&mut self, name: &[u8], bytes: &'a [u8], destination: &Destination) -> Result<()> {
        let target = self.file(name, destination)?;
        let owner = self.rules.owner.unwrap_or_default();
        let plain = Meta { uid: owner.0, gid: owner.1, mtime: self.rules.now, ..Meta::new(Kind::File, 0o644) };
        self.set(target, self.rules.applied(&plain), What::Bytes(bytes))
    }

    /// Makes the directories of a path that are missing. Directories that exist are left as they are.
    pub fn make_dirs(&mut self, path: &ImagePath) -> Result<()> {
        let (uid, gid) = self.rules.owner.unwrap_or((0, 0));
        for dir in path.ancestors().chain((!path.is_root()).then(|| path.clone())).collect::<Vec<_>>() {
            match self.at(&dir)? {
                Some(meta) if meta.kind == Kind::Directory => {}
                Some(_) => return Err(Error::input(format!("{} is not a directory", quote(dir.to_string())))),
                None => {
                    let mtime = self.rules.times.of(self.rules.now);
                    self.set(dir, Meta { uid, gid, mtime, ..Meta::new(Kind::Directory, PARENT_MODE) }, What::Plain)?;
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, target: ImagePath, entry: &'a Entry) -> Result<()> {
        let node = &entry.node;
        let mut meta = self.rules.applied(&node.meta);
        let what = match node.meta.kind {
            Kind::File => What::File(entry, self.matches),
            Kind::Symlink => What::Symlink(self.source.read_link(node)?),
            // Nobody listens behind a copied socket.
            Kind::Socket => return Ok(()),
            _ => What::Plain,
        };
        if entry.role == Role::Way
            && let Some(there) = self.at(&target)?.filter(|there| there.kind == Kind::Directory)
        {
            // BuildKit gives it the mode of the source and leaves all else.
            meta = Meta { mode: meta.mode, ..there };
        }
        self.set(target, meta, what)
    }

    fn set(&mut self, path: ImagePath, meta: Meta, what: What<'a>) -> Result<()> {
        if path.name().is_some_and(|name| name.starts_with(b".wh.")) {
            return Err(Error::with_kind(crate::error::Kind::Unsupported, format!("can't put {} into a layer", quote(path.to_string())))
                .cause("names that begin with `.wh.` mean deletion there"));
        }
        if path.is_root() {
            return Err(Error::input("can't replace the root directory by a file"));
        }
        check_length(&path)?;
        self.ready_parents(&path)?;
        if let Some(&number) = self.index.get(&path) {
            let place = &mut self.places[number];
            if place.meta.kind == Kind::Directory && meta.kind != Kind::Directory {
                self.remove_below(&path);
            }
            let place = &mut self.places[number];
            (place.meta, place.what) = (meta, what);
            return Ok(());
        }
        if meta.kind != Kind::Directory {
            self.ready = self.ready.take().filter(|ready| !ready.starts_with(&path));
        }
        self.index.insert(path.clone(), self.places.len());
        self.places.push(Place { path, meta, what, gone: false });
        Ok(())
    }

    /// Forgets what was put below a directory in whose place comes something else.
    fn remove_below(&mut self, path: &ImagePath) {
        for place in self.places.iter_mut().filter(|place| place.path != *path && place.path.starts_with(path)) {
            place.gone = true;
            self.index.remove(&place.path);
        }
        self.ready = None;
    }

    /// Takes the directories above a path into the layer as they are in the base: a layer names them.
    fn ready_parents(&mut self, path: &ImagePath) -> Result<()> {
        let parent = path.parent().unwrap_or_default();
        if parent.is_root() || self.ready.as_ref() == Some(&parent) {
            return Ok(());
        }
        // Whatever is in the layer has its parents there.
        let mut missing = Vec::new();
        let mut above = Some(parent.clone());
        while let Some(dir) = above.filter(|dir| !dir.is_root() && !self.index.contains_key(dir)) {
            above = dir.parent();
            missing.push(dir);
        }
        for dir in missing.into_iter().rev() {
            let there = self.at(&dir)?.filter(|there| there.kind == Kind::Directory);
            let meta = there.ok_or_else(|| Error::input(format!("{} is not a directory", quote(dir.to_string()))))?;
            self.index.insert(dir.clone(), self.places.len());
            self.places.push(Place { path: dir, meta, what: What::Plain, gone: false });
        }
        self.ready = Some(parent);
        Ok(())
    }

    /// What is at a path, in what was placed so far on top of the base.
    fn at(&mut self, path: &ImagePath) -> Result<Option<Meta>> {
        if let Some(&number) = self.index.get(path) {
            return Ok(Some(self.places[number].meta.clone()));
        }
        let Some(parent) = path.parent() else { return Ok(self.base.lookup(path)?.map(|node| node.meta)) };
        let placed = self.index.get(&parent).map(|&number| self.places[number].meta.kind);
        if self.absent.contains(&parent) || placed.is_some_and(|kind| kind != Kind::Directory) {
            self.absent.insert(path.clone());
            return Ok(None);
        }
        let found = self.base.lookup(path)?.map(|node| node.meta);
        if found.as_ref().is_none_or(|meta| meta.kind != Kind::Directory) {
            self.absent.insert(path.clone());
        }
        Ok(found)
    }

    /// Follows the links of a path, those placed so far and those of the base.
    fn resolve(&self, path: &ImagePath) -> Result<ImagePath> {
        self.base.resolve_under(path, Follow::Last, &|path| {
            let Some(&number) = self.index.get(path) else { return Ok(None) };
            Ok(Some(match &self.places[number] {
                Place { what: What::Symlink(target), .. } => Met::Symlink(target.clone()),
                Place { meta, .. } if meta.kind == Kind::Directory => Met::Directory,
                _ => Met::Nothing,
            }))
        })
    }

    /// The list for `rootfs::assemble`, and for each the entry that is copied.
    pub fn pieces(self) -> (Vec<Piece<'a>>, Vec<Option<&'a Entry>>) {
        let mut places = self.places;
        places.retain(|place| !place.gone);
        // Nearly sorted already, which is when sorting costs least.
        places.sort_by(|a, b| a.path.cmp(&b.path));
        let mut first: HashMap<(usize, (u64, u64)), ImagePath> = HashMap::new();
        let mut entries = Vec::with_capacity(places.len());
        let mut piece = |place: Place<'a>| {
            let (body, entry) = match place.what {
                What::Plain => (Body::Plain, None),
                What::Symlink(target) => (Body::Symlink(target), None),
                What::Bytes(bytes) => (Body::Bytes(bytes), None),
                What::File(entry, matched) => {
                    let known = entry.node.link.and_then(|link| first.get(&(matched, link)).cloned());
                    if let (Some(link), None) = (entry.node.link, &known) {
                        first.insert((matched, link), place.path.clone());
                    }
                    let digested = if entry.digest.is_some() { Digested::Before } else { Digested::Now };
                    (known.map_or(Body::File(&entry.node, digested), Body::HardLink), Some(entry))
                }
            };
            entries.push(entry);
            Piece { path: place.path, meta: place.meta, body }
        };
        let pieces = places.into_iter().map(&mut piece).collect();
        (pieces, entries)
    }

    /// Writes what was placed entry by entry into a layer that may hold something already.
    pub fn write(self, writer: &mut LayerWriter) -> Result<()> {
        let (source, rules) = (self.source, self.rules);
        let (pieces, _) = self.pieces();
        for piece in &pieces {
            let there = writer.view().lookup(&piece.path)?.map(|node| node.meta.kind == Kind::Directory);
            let directory = piece.meta.kind == Kind::Directory;
            if there.is_some_and(|there| there != directory) {
                writer.remove(&piece.path)?;
            }
            match &piece.body {
                Body::Plain => writer.put(&piece.path, &piece.meta, Content::None)?,
                Body::Symlink(target) => writer.put(&piece.path, &piece.meta, Content::Symlink(target))?,
                Body::Bytes(bytes) => writer.put(&piece.path, &piece.meta, Content::Bytes(bytes))?,
                Body::HardLink(target) => writer.put(&piece.path, &piece.meta, Content::HardLink(target))?,
                Body::File(node, _) => {
                    // With its extended attributes, which a listing of the context leaves out.
                    let node =
                        source.lookup(&node.path)?.ok_or_else(|| Error::input(format!("{} vanished", quote(node.path.to_string()))))?;
                    writer.put(&piece.path, &rules.applied(&node.meta), Content::File(&source.open(&node)?))?;
                }
            }
        }
        Ok(())
    }
}
