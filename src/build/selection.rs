//! The files that a COPY or ADD takes, and the digest of them that enters the cache key.

use crate::error::{Error, Result};
use crate::oci::Digest;
use crate::rootfs::meta::Kind;
use crate::rootfs::scan;
use crate::rootfs::view::{Node, View};

use super::filter::below;
use super::key::Key;

/// All that the patterns of one instruction selected, in a fixed order.
#[derive(Default)]
pub struct Selection {
    /// One a match.
    pub items: Vec<Item>,
}

/// One matched file or directory.
pub struct Item {
    /// The name it was matched by; what it is called in the destination directory.
    pub name: Vec<u8>,
    /// The file or directory itself, links followed.
    pub own: Entry,
    /// For a directory: all below it, parents first.
    pub entries: Vec<Entry>,
}

/// A file, directory or other entry of a source.
pub struct Entry {
    /// What it is. Of a file of the context its extended attributes are not known yet.
    pub node: Node,
    /// How a file of the context was listed.
    pub listed: Option<scan::Source>,
    /// Why it is taken.
    pub role: Role,
    /// Of a file's content, if that is known.
    pub digest: Option<Digest>,
}

/// Why something is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// For itself.
    Own,
    /// A directory that leads to something.
    Way,
}

impl Entry {
    /// An entry of an image's tree.
    pub fn of_image(node: Node, role: Role) -> Self {
        Self { node, listed: None, role, digest: None }
    }

    fn is_unknown(&self) -> bool {
        self.node.meta.kind == Kind::File && self.digest.is_none()
    }
}

impl Item {
    /// The path of an entry below the matched directory.
    pub fn below<'e>(&self, entry: &'e Entry) -> &'e [u8] {
        below(&self.own.node.path, &entry.node.path)
    }
}

impl Selection {
    /// Everything, matches and what is below them.
    pub fn all(&self) -> impl Iterator<Item = &Entry> {
        self.items.iter().flat_map(|item| std::iter::once(&item.own).chain(&item.entries))
    }

    /// Files whose content is not known.
    pub fn unknown(&self) -> Vec<&Entry> {
        self.all().filter(|entry| entry.is_unknown()).collect()
    }

    /// Fills in digests where `know` has one.
    pub fn learn(&mut self, mut know: impl FnMut(&Entry) -> Option<Digest>) {
        for item in &mut self.items {
            for entry in std::iter::once(&mut item.own).chain(&mut item.entries) {
                if entry.is_unknown() {
                    entry.digest = know(entry);
                }
            }
        }
    }

    /// Digests names, types, modes, owners, links, extended attributes and contents, all of which must be known; not times.
    pub fn digest(&self, view: &View) -> Result<Digest> {
        let mut key = Key::new(&Digest::of("selection"), "files 2");
        let mut fields = Vec::new();
        for item in &self.items {
            key.field(&item.name);
            add(&mut fields, view, &item.own)?;
            key.field(&fields);
            for entry in &item.entries {
                key.field(item.below(entry));
                add(&mut fields, view, entry)?;
                key.field(&fields);
            }
            key.number(item.entries.len() as u64);
        }
        Ok(key.finish())
    }
}

/// All that counts of an entry besides its name; each field has one length or says it.
fn add(fields: &mut Vec<u8>, view: &View, entry: &Entry) -> Result<()> {
    let meta = &entry.node.meta;
    fields.clear();
    let (kind, major, minor) = match meta.kind {
        Kind::File => (b'f', 0, 0),
        Kind::Directory => (b'd', 0, 0),
        Kind::Symlink => (b'l', 0, 0),
        Kind::CharDevice { major, minor } => (b'c', major, minor),
        Kind::BlockDevice { major, minor } => (b'b', major, minor),
        Kind::Fifo => (b'p', 0, 0),
        Kind::Socket => (b's', 0, 0),
    };
    fields.extend([kind, u8::from(entry.role == Role::Way)]);
    for number in [major, minor, meta.mode, meta.uid, meta.gid] {
        fields.extend(number.to_le_bytes());
    }
    let mut field = |bytes: &[u8]| {
        fields.extend((bytes.len() as u64).to_le_bytes());
        fields.extend(bytes);
    };
    match meta.kind {
        Kind::File => field(entry.digest.ok_or_else(|| Error::new("a file's content is not known"))?.bytes()),
        Kind::Symlink => field(&view.read_link(&entry.node)?),
        _ => {}
    }
    for (name, value) in &meta.xattrs {
        field(name);
        field(value);
    }
    Ok(())
}
