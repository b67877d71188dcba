//! Layers made, read and attacked on a real file system.

mod assemble;
mod hash;
mod hostile;
mod pack;
mod seal;
mod snapshot;
mod squashfs;
mod unpack;
mod view;
mod writer;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::meta::Meta;
use super::pack::{pack_layer, pack_view};
use super::unpack::{UnpackOptions, Unpacked, unpack};
use super::view::{LayerDir, Node, View};
use crate::error::Result;
use crate::oci::ImagePath;

/// A directory that a layer is made in, with something beside it that nobody may touch.
pub(super) struct Place {
    dir: TempDir,
}

impl Place {
    pub fn new() -> Self {
        // Not on /tmp, which is often a tmpfs without user xattrs.
        let dir = tempfile::Builder::new().prefix("rootling-test-").tempdir_in("/var/tmp").unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/victim"), "intact").unwrap();
        Self { dir }
    }

    pub fn layer(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    /// Nothing but the named layers is there and what is beside them is as it was.
    pub fn assert_outside_untouched(&self) {
        let outside: Vec<_> = fs::read_dir(self.outside()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(outside, ["victim"]);
        assert_eq!(fs::read_to_string(self.outside().join("victim")).unwrap(), "intact");
        let metadata = fs::metadata(self.outside().join("victim")).unwrap();
        assert_eq!((metadata.nlink(), metadata.mode() & 0o7777), (1, 0o644));
    }

    pub fn unpack(&self, name: &str, tar: &[u8]) -> Result<Unpacked> {
        unpack(tar, &self.layer(name), &UnpackOptions::default())
    }

    pub fn unpacked(&self, name: &str, tar: &[u8]) -> LayerDir {
        self.unpack(name, tar).unwrap();
        LayerDir::open(&self.layer(name)).unwrap()
    }

    pub fn view(&self, names: &[&str]) -> View {
        View::new(names.iter().map(|name| LayerDir::open(&self.layer(name)).unwrap()).collect())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            crate::sys::fs::remove::remove_tree_at(&entry.unwrap().path()).unwrap();
        }
    }
}

/// A tar made entry by entry, with full control over what is wrong with it.
#[derive(Default)]
pub(super) struct Tar {
    bytes: Vec<u8>,
}

/// What an entry in a [`Tar`] says; the rest is 0.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub kind: u8,
    pub name: &'a [u8],
    pub link: &'a [u8],
    pub mode: u32,
    pub owner: (u64, u64),
    pub mtime: u64,
    pub device: (u32, u32),
    pub content: &'a [u8],
    pub pax: &'a [(&'a str, &'a [u8])],
}

pub(super) const FILE: Entry<'static> =
    Entry { kind: b'0', name: b"", link: b"", mode: 0o644, owner: (0, 0), mtime: 1_000_000_000, device: (0, 0), content: b"", pax: &[] };
pub(super) const DIR: Entry<'static> = Entry { kind: b'5', mode: 0o755, ..FILE };

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn add(mut self, entry: &Entry<'_>) -> Self {
        if !entry.pax.is_empty() {
            let mut records = Vec::new();
            for (key, value) in entry.pax {
                let rest = key.len() + value.len() + 3;
                let len = (1..).find(|len: &usize| rest + len.to_string().len() == *len).unwrap();
                records.extend_from_slice(format!("{len} {key}=").as_bytes());
                records.extend_from_slice(value);
                records.push(b'\n');
            }
            self = self.add(&Entry { kind: b'x', name: b"pax", content: &records, ..FILE });
        }
        let mut header = tar::Header::new_ustar();
        let put = |header: &mut tar::Header, at: usize, bytes: &[u8]| {
            let bytes = &bytes[..bytes.len().min(100)];
            header.as_mut_bytes()[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(&mut header, 0, entry.name);
        put(&mut header, 157, entry.link);
        header.set_entry_type(tar::EntryType::new(entry.kind));
        header.set_mode(entry.mode);
        header.set_uid(entry.owner.0);
        header.set_gid(entry.owner.1);
        header.set_size(entry.content.len() as u64);
        header.set_mtime(entry.mtime);
        header.set_device_major(entry.device.0).unwrap();
        header.set_device_minor(entry.device.1).unwrap();
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(entry.content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, content: &str) -> Self {
        self.add(&Entry { name: name.as_bytes(), content: content.as_bytes(), ..FILE })
    }

    pub fn dir(self, name: &str) -> Self {
        self.add(&Entry { name: name.as_bytes(), ..DIR })
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.add(&Entry { kind: b'2', name: name.as_bytes(), link: target.as_bytes(), mode: 0o777, ..FILE })
    }

    pub fn link(self, name: &str, target: &str) -> Self {
        self.add(&Entry { kind: b'1', name: name.as_bytes(), link: target.as_bytes(), ..FILE })
    }

    pub fn end(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }

    /// Without the end mark.
    pub fn unfinished(self) -> Vec<u8> {
        self.bytes
    }
}

pub(super) fn path(text: &str) -> ImagePath {
    ImagePath::clean(text)
}

pub(super) fn packed(layer: &LayerDir) -> Vec<u8> {
    let mut out = Vec::new();
    let packed = pack_layer(layer, &mut out).unwrap();
    assert_eq!(packed.bytes, out.len() as u64);
    out
}

pub(super) fn exported(view: &View) -> Vec<u8> {
    let mut out = Vec::new();
    pack_view(view, &mut out).unwrap();
    out
}

pub(super) fn meta(view: &View, name: &str) -> Meta {
    node(view, name).meta
}

pub(super) fn node(view: &View, name: &str) -> Node {
    view.lookup(&path(name)).unwrap().unwrap_or_else(|| panic!("{name} is missing"))
}

/// Every path with its type, mode, owner and content, as a view shows it; short enough to compare at a glance.
pub(super) fn listing(view: &View) -> Vec<String> {
    use super::meta::Kind;
    let mut lines = Vec::new();
    view.walk(&ImagePath::root(), &mut |node| {
        let meta = &node.meta;
        let what = match meta.kind {
            Kind::File => format!("= {}", String::from_utf8_lossy(&view.read(&node.path, 1 << 20)?.unwrap())),
            Kind::Symlink => format!("-> {}", String::from_utf8_lossy(&view.read_link(node)?)),
            Kind::Directory => "/".into(),
            kind => format!("{kind:?}"),
        };
        lines.push(format!("{} {:o} {}:{} {what}", node.path, meta.mode, meta.uid, meta.gid));
        Ok(())
    })
    .unwrap();
    lines
}

/// Native paths below a layer's `fs`, whiteouts marked.
pub(super) fn native(fs: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut todo = vec![fs.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let metadata = fs::symlink_metadata(entry.path()).unwrap();
            let name = entry.path().strip_prefix(fs).unwrap().to_string_lossy().into_owned();
            lines.push(if metadata.file_type().is_char_device() { format!("{name} (whiteout)") } else { name });
            if metadata.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    lines.sort();
    lines
}

/// Names of a tar's entries in order, as the `tar` crate reads them.
pub(super) fn tar_names(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    archive.entries().unwrap().map(|e| String::from_utf8_lossy(&e.unwrap().path_bytes()).into_owned()).collect()
}
