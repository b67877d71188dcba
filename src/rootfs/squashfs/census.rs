//! Everything a view shows, counted and numbered before the first byte is written. Content stays where it is.

use std::collections::HashMap;

use super::attributes::Sets;
use super::format::NAME_MAX;
use crate::error::{Error, Kind as ErrorKind, Result, quote};
use crate::oci::ImagePath;
use crate::rootfs::meta::{Kind, Meta};
use crate::rootfs::view::{Node, View};

/// All inodes, by their place in the list; the root is the first. The children of a directory follow each other, after it.
pub(super) struct Census {
    pub inodes: Vec<Inode>,
    /// Owners and groups by their numbers.
    pub ids: Vec<u32>,
    pub sets: Sets,
    /// The newest modification time.
    pub newest: u32,
}

/// An inode.
pub(super) struct Inode {
    pub what: What,
    pub mode: u16,
    pub uid: u16,
    pub gid: u16,
    pub mtime: u32,
    /// The number of its set of extended attributes.
    pub set: Option<u32>,
    /// How many names it has; for a directory, how many it would have elsewhere.
    pub links: u32,
    /// The layer that has its content.
    pub layer: usize,
    /// The directory of its first name, and which of the entries there it is.
    pub parent: u32,
    pub nth: u32,
}

/// What an inode is.
pub(super) enum What {
    Directory(Vec<Entry>),
    /// A file of so many bytes.
    File(u64),
    Symlink(Vec<u8>),
    /// Of this type, with this device number.
    Device(u16, u32),
    /// Of this type.
    Other(u16),
}

/// A name in a directory.
pub(super) struct Entry {
    pub name: Box<[u8]>,
    pub inode: u32,
}

impl Census {
    /// Takes it. Costs what a walk costs, and memory for names and metadata.
    pub fn take(view: &View) -> Result<Self> {
        let root = view.lookup(&ImagePath::root())?.ok_or_else(|| Error::new("the image has no root directory"))?;
        let mut taker = Taker {
            census: Self { inodes: Vec::new(), ids: Vec::new(), sets: Sets::default(), newest: 0 },
            numbers: HashMap::new(),
            linked: HashMap::new(),
        };
        taker.add(view, root, (0, 0))?;
        // Depth first, so that what is near in the tree is near in the image.
        let mut todo = vec![(0, ImagePath::root())];
        while let Some((directory, path)) = todo.pop() {
            let first = todo.len();
            taker.directory(view, directory, &path, &mut todo)?;
            todo[first..].reverse();
        }
        Ok(taker.census)
    }

    /// The path of an inode's first name.
    pub fn path(&self, inode: u32) -> ImagePath {
        let mut names = Vec::new();
        let mut at = inode;
        while at != 0 {
            let Inode { parent, nth, .. } = self.inodes[at as usize];
            if let What::Directory(entries) = &self.inodes[parent as usize].what {
                names.push(&entries[nth as usize].name);
            }
            at = parent;
        }
        ImagePath::clean(names.iter().rev().map(|name| &***name).collect::<Vec<_>>().join(&b'/'))
    }
}

struct Taker {
    census: Census,
    numbers: HashMap<u32, u16>,
    /// Inodes that may get other names, by where they are.
    linked: HashMap<(u64, u64), u32>,
}

impl Taker {
    fn directory(&mut self, view: &View, directory: u32, path: &ImagePath, todo: &mut Vec<(u32, ImagePath)>) -> Result<()> {
        let mut entries = Vec::new();
        for (nth, node) in (0..).zip(view.read_dir(path)?) {
            let name: Box<[u8]> = node.path.name().unwrap_or_default().into();
            if name.len() > NAME_MAX {
                return Err(Error::with_kind(ErrorKind::Unsupported, format!("{} is too long a name for squashfs", quote(&name))));
            }
            if let Some(&inode) = node.link.and_then(|link| self.linked.get(&link)) {
                self.census.inodes[inode as usize].links += 1;
                entries.push(Entry { name, inode });
                continue;
            }
            let (link, below) = (node.link, (node.meta.kind == Kind::Directory).then(|| node.path.clone()));
            let inode = self.add(view, node, (directory, nth))?;
            if let Some(link) = link {
                self.linked.insert(link, inode);
            }
            if let Some(below) = below {
                self.census.inodes[directory as usize].links += 1;
                todo.push((inode, below));
            }
            entries.push(Entry { name, inode });
        }
        self.census.inodes[directory as usize].what = What::Directory(entries);
        Ok(())
    }

    fn add(&mut self, view: &View, node: Node, (parent, nth): (u32, u32)) -> Result<u32> {
        let what = match node.meta.kind {
            Kind::Directory => What::Directory(Vec::new()),
            Kind::File => What::File(node.meta.size),
            Kind::Symlink => What::Symlink(view.read_link(&node)?),
            Kind::BlockDevice { major, minor } => What::Device(super::format::types::BLOCK_DEVICE, device(major, minor)),
            Kind::CharDevice { major, minor } => What::Device(super::format::types::CHAR_DEVICE, device(major, minor)),
            Kind::Fifo => What::Other(super::format::types::FIFO),
            Kind::Socket => What::Other(super::format::types::SOCKET),
        };
        let links = if node.meta.kind == Kind::Directory { 2 } else { 1 };
        let Meta { mode, uid, gid, mtime, xattrs, .. } = node.meta;
        let mtime = u32::try_from(mtime.secs.max(0)).unwrap_or(u32::MAX);
        self.census.newest = self.census.newest.max(mtime);
        let inode = Inode {
            what,
            mode: (mode & 0o7777) as u16,
            uid: self.id(uid)?,
            gid: self.id(gid)?,
            mtime,
            set: self.census.sets.number(xattrs),
            links,
            layer: node.layer,
            parent,
            nth,
        };
        let number = u32::try_from(self.census.inodes.len()).ok().filter(|&number| number < u32::MAX - 1);
        let number = number.ok_or_else(|| Error::with_kind(ErrorKind::Unsupported, "the image has too many files for squashfs"))?;
        self.census.inodes.push(inode);
        Ok(number)
    }

    fn id(&mut self, id: u32) -> Result<u16> {
        if let Some(&number) = self.numbers.get(&id) {
            return Ok(number);
        }
        let number = u16::try_from(self.census.ids.len()).ok().filter(|&number| number < u16::MAX).ok_or_else(|| {
            Error::with_kind(ErrorKind::Unsupported, "the image has too many owners for squashfs")
                .cause("65535 different ones are possible")
        })?;
        self.census.ids.push(id);
        self.numbers.insert(id, number);
        Ok(number)
    }
}

/// A device number as the kernel writes it to disk (new_encode_dev).
fn device(major: u32, minor: u32) -> u32 {
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}
