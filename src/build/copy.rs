//! COPY and ADD: from a selection into a new layer, as BuildKit copies.

use std::collections::HashMap;
use std::io::Read;

use crate::error::{Error, Result, quote};
use crate::oci::ImagePath;
use crate::rootfs::compress::{Compression, decompress};
use crate::rootfs::meta::{Kind, Meta};
use crate::rootfs::view::{Follow, Node, View};
use crate::rootfs::writer::{Content, LayerWriter};

use super::chmod::Chmod;
use super::sources::{Item, Selection};

/// What to do with the selection.
pub struct Request<'a> {
    /// The tree the selection is of.
    pub view: &'a View,
    /// What to copy.
    pub selection: &'a Selection,
    /// Absolute, as written: a slash at the end says that it is a directory.
    pub destination: &'a Destination,
    /// `--chown`, or root for what comes from the context; `None` keeps owners.
    pub owner: Option<(u32, u32)>,
    /// `--chown` alone: without it archive members keep their owners.
    pub archive_owner: Option<(u32, u32)>,
    /// `--chmod`.
    pub chmod: Option<&'a Chmod>,
    /// ADD: archives are unpacked.
    pub archives: Archives,
}

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

    /// Where a file of this name goes; makes the directories above.
    pub fn place(&self, writer: &mut LayerWriter, name: &[u8], (uid, gid): (u32, u32)) -> Result<ImagePath> {
        let followed = writer.view().resolve(&self.path, Follow::Last)?;
        let directory = self.directory || writer.view().lookup(&followed)?.is_some_and(|node| node.meta.kind == Kind::Directory);
        let target = if directory { followed.child(name) } else { writer.view().resolve(&self.path, Follow::Parents)? };
        if let Some(parent) = target.parent() {
            writer.make_dirs(&parent, PARENT_MODE, uid, gid, None)?;
        }
        Ok(target)
    }

    /// The absolute path.
    pub fn path(&self) -> &ImagePath {
        &self.path
    }

    /// The absolute path, with the slash that says it is a directory.
    pub fn key(&self) -> String {
        format!("{}{}", self.path, if self.directory { "/" } else { "" })
    }
}

/// The mode of directories that exist only because something is copied into them.
pub(super) const PARENT_MODE: u32 = 0o755;

/// Copies into the layer.
pub fn copy(writer: &mut LayerWriter, request: &Request<'_>) -> Result<()> {
    let mut copier = Copier { writer, request, links: HashMap::new() };
    let single = request.selection.items.len() == 1;
    for item in &request.selection.items {
        if request.archives == Archives::Unpack && item.node.meta.kind == Kind::File && copier.unpack(item)? {
            continue;
        }
        // Links are kept within what one match copies (BuildKit).
        copier.links.clear();
        copier.item(item, single)?;
    }
    Ok(())
}

struct Copier<'a, 'w> {
    writer: &'w mut LayerWriter,
    request: &'a Request<'a>,
    /// Hard links among what is copied: identity in the source to the first copy.
    links: HashMap<(u64, u64), ImagePath>,
}

impl Copier<'_, '_> {
    fn item(&mut self, item: &Item, single: bool) -> Result<()> {
        let target = self.destination()?;
        let existing = self.writer.view().lookup(&target)?;
        let exists_as_directory = existing.as_ref().is_some_and(|node| node.meta.kind == Kind::Directory);
        let as_directory = self.request.destination.directory || exists_as_directory;
        if item.node.meta.kind != Kind::Directory {
            if !as_directory && !single {
                return Err(
                    Error::input("several files match, but the destination is not a directory").hint("end the destination with `/`")
                );
            }
            if as_directory {
                self.make_dirs(&target)?;
                return self.put(&target.child(&item.name), &item.node);
            }
            if let Some(parent) = target.parent() {
                self.make_dirs(&parent)?;
            }
            return self.put(&target, &item.node);
        }
        if existing.is_some() && !exists_as_directory {
            return Err(Error::input(format!("can't copy a directory onto the file {}", quote(target.to_string()))));
        }
        // The destination itself never looks like the source: only what is in a directory is copied.
        self.make_dirs(&target)?;
        // Directories may have to be entered through links of the image: COPY rootfs/ / with lib/ where /lib -> usr/lib.
        let mut moved: HashMap<ImagePath, ImagePath> = HashMap::new();
        for (path, node) in &item.entries {
            let parent = path.parent().unwrap_or_default();
            let base = if parent.is_root() {
                target.clone()
            } else {
                moved.get(&parent).cloned().unwrap_or_else(|| target.resolve(parent.as_bytes()))
            };
            let mut place = base.child(path.name().unwrap_or_default());
            if node.meta.kind == Kind::Directory {
                let linked = self.writer.view().lookup(&place)?.is_some_and(|there| there.meta.kind == Kind::Symlink);
                if linked {
                    place = self.writer.view().resolve(&place, Follow::Last)?;
                }
                moved.insert(path.clone(), place.clone());
                // What a link of the image leads to was not named; it keeps its owner and mode.
                if linked && self.writer.view().lookup(&place)?.is_some_and(|there| there.meta.kind == Kind::Directory) {
                    continue;
                }
            }
            self.put(&place, node)?;
        }
        Ok(())
    }

    /// The destination with the image's links followed; a link to something that is no directory is replaced, not followed.
    fn destination(&self) -> Result<ImagePath> {
        let path = &self.request.destination.path;
        let followed = self.writer.view().resolve(path, Follow::Last)?;
        if self.request.destination.directory || self.writer.view().lookup(&followed)?.is_some_and(|node| node.meta.kind == Kind::Directory)
        {
            return Ok(followed);
        }
        self.writer.view().resolve(path, Follow::Parents)
    }

    fn make_dirs(&mut self, path: &ImagePath) -> Result<()> {
        let (uid, gid) = self.request.owner.unwrap_or((0, 0));
        self.writer.make_dirs(path, PARENT_MODE, uid, gid, None)
    }

    fn put(&mut self, target: &ImagePath, node: &Node) -> Result<()> {
        let directory = node.meta.kind == Kind::Directory;
        if let Some(there) = self.writer.view().lookup(target)? {
            match (there.meta.kind == Kind::Directory, directory) {
                (true, false) => return Err(Error::input(format!("can't replace the directory {} by a file", quote(target.to_string())))),
                (false, true) => return Err(Error::input(format!("can't copy a directory onto the file {}", quote(target.to_string())))),
                _ => {}
            }
        }
        if let Some(link) = node.link {
            if let Some(first) = self.links.get(&link) {
                return self.writer.put(target, &node.meta, Content::HardLink(first));
            }
            self.links.insert(link, target.clone());
        }
        let meta = self.meta(node);
        let view = self.request.view;
        match node.meta.kind {
            Kind::File => self.writer.put(target, &meta, Content::File(&view.open(node)?)),
            Kind::Symlink => self.writer.put(target, &meta, Content::Symlink(&view.read_link(node)?)),
            // Nobody listens behind a copied socket.
            Kind::Socket => Ok(()),
            _ => self.writer.put(target, &meta, Content::None),
        }
    }

    fn meta(&self, node: &Node) -> Meta {
        let mut meta = node.meta.clone();
        if let Some((uid, gid)) = self.request.owner {
            (meta.uid, meta.gid) = (uid, gid);
        }
        if let Some(chmod) = self.request.chmod
            && meta.kind != Kind::Symlink
        {
            meta.mode = chmod.apply(meta.mode, meta.kind == Kind::Directory);
        }
        meta
    }

    /// Unpacks the file if it is a tar archive, compressed or not; told by content.
    fn unpack(&mut self, item: &Item) -> Result<bool> {
        if !is_tar(self.request.view.open(&item.node)?)? {
            return Ok(false);
        }
        let target = self.writer.view().resolve(&self.request.destination.path, Follow::Last)?;
        self.make_dirs(&target)?;
        let tar = decompress(self.request.view.open(&item.node)?)?;
        let name = quote(item.node.path.to_string());
        self.writer.unpack_onto(&target, tar, self.request.archive_owner).map_err(|e| e.context(format!("can't unpack {name}")))?;
        Ok(true)
    }
}

/// Whether a file is a tar archive behind any compression that ADD knows.
pub(super) fn is_tar(file: impl Read + Send) -> Result<bool> {
    let mut file = file;
    let mut start = [0; 512];
    let length = read_full(&mut file, &mut start);
    if Compression::detect(&start[..length]) == Compression::None {
        return Ok(looks_like_tar(&start[..length]));
    }
    let rest = std::io::Cursor::new(start[..length].to_vec()).chain(file);
    let Ok(mut inner) = decompress(rest) else { return Ok(false) };
    let mut header = [0; 512];
    let length = read_full(&mut inner, &mut header);
    Ok(looks_like_tar(&header[..length]))
}

/// Reads until full, end or error; what can't be read is no archive.
fn read_full(reader: &mut dyn Read, buffer: &mut [u8]) -> usize {
    let mut length = 0;
    while length < buffer.len() {
        match reader.read(&mut buffer[length..]) {
            Ok(0) | Err(_) => break,
            Ok(n) => length += n,
        }
    }
    length
}

/// A tar header proves itself by its checksum (POSIX ustar); old V7 archives have no magic.
fn looks_like_tar(block: &[u8]) -> bool {
    let Ok(block) = <&[u8; 512]>::try_from(block) else { return false };
    let field = std::str::from_utf8(&block[148..156]).unwrap_or_default().trim_matches(['\0', ' ']);
    let sum: u32 = block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
    u32::from_str_radix(field, 8).is_ok_and(|stored| stored == sum && block[0] != 0)
}
