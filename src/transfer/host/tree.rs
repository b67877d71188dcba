//! The files an image takes from this machine, and the tar they make.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, IoContext as _, Result, from_io, quote_path};
use crate::oci::ImagePath;

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

/// Files by their place in the image; all belong to root.
#[derive(Default)]
pub(super) struct Tree {
    entries: BTreeMap<ImagePath, Entry>,
}

enum Entry {
    Directory { mode: u32 },
    File { source: PathBuf, mode: u32, mtime: u64 },
    Bytes(&'static str),
    Symlink(Vec<u8>),
}

impl Tree {
    /// A directory, unless there is one.
    pub(super) fn directory(&mut self, path: &str, mode: u32) {
        self.entries.entry(ImagePath::clean(path)).or_insert(Entry::Directory { mode });
    }

    /// A file made here.
    pub(super) fn bytes(&mut self, path: &str, text: &'static str) {
        self.entries.insert(ImagePath::clean(path), Entry::Bytes(text));
    }

    /// A link made here, unless the name is taken.
    pub(super) fn symlink(&mut self, path: &Path, target: &Path) {
        let target = target.as_os_str().as_bytes().to_vec();
        self.entries.entry(ImagePath::clean(path.as_os_str().as_bytes())).or_insert(Entry::Symlink(target));
    }

    /// Takes a file of this machine with every directory and symbolic link on the way, so that it is found under the same
    /// name; returns where it really is. `None` if it is there already.
    pub(super) fn take(&mut self, path: &Path) -> Result<(PathBuf, Taken)> {
        let mut links = 0;
        let mut rest: Vec<PathBuf> = components(path);
        let mut real = PathBuf::from("/");
        while let Some(part) = rest.pop() {
            if part == Path::new("..") {
                real.pop();
                continue;
            }
            let next = real.join(&part);
            let key = ImagePath::clean(next.as_os_str().as_bytes());
            let meta = std::fs::symlink_metadata(&next).doing("look at", &next)?;
            if meta.is_symlink() {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Error::new(format!("too many symbolic links on the way to {}", quote_path(path))));
                }
                let target = std::fs::read_link(&next).doing("read", &next)?;
                self.entries.insert(key, Entry::Symlink(target.as_os_str().as_bytes().to_vec()));
                if target.is_absolute() {
                    real = PathBuf::from("/");
                }
                rest.extend(components(&target));
            } else if meta.is_dir() {
                self.entries.entry(key).or_insert(Entry::Directory { mode: meta.mode() & 0o1777 });
                real = next;
            } else if !meta.is_file() {
                return Err(Error::input(format!("{} is not a regular file", quote_path(&next))));
            } else if rest.is_empty() {
                let mtime = u64::try_from(meta.mtime()).unwrap_or(0);
                let new = self.entries.insert(key, Entry::File { source: next.clone(), mode: mode(&meta), mtime }).is_none();
                return Ok((next, if new { Taken::Now } else { Taken::Before }));
            } else {
                return Err(Error::input(format!("{} is not a directory", quote_path(&next))));
            }
        }
        Err(Error::input(format!("{} is a directory", quote_path(path))).hint("name its programs one by one"))
    }

    /// Writes the tar: in order, owned by root.
    pub(super) fn write(&self, out: impl Write) -> Result<()> {
        let mut tar = tar::Builder::new(out);
        let failed = || "can't write the layer".to_owned();
        for (path, entry) in &self.entries {
            let mut header = tar::Header::new_gnu();
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(0);
            let name = path.as_relative();
            match entry {
                Entry::Directory { mode } => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(*mode);
                    tar.append_data(&mut header, name, std::io::empty())
                }
                Entry::Bytes(text) => {
                    header.set_mode(0o644);
                    header.set_size(text.len() as u64);
                    tar.append_data(&mut header, name, text.as_bytes())
                }
                Entry::Symlink(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_mode(0o777);
                    tar.append_link(&mut header, name, Path::new(std::ffi::OsStr::from_bytes(target)))
                }
                Entry::File { source, mode, mtime } => {
                    let file = File::open(source).doing("open", source)?;
                    let size = file.metadata().doing("look at", source)?.len();
                    header.set_mode(*mode);
                    header.set_mtime(*mtime);
                    header.set_size(size);
                    // A file that shrinks meanwhile would shift all that follows: `take` catches growth, the reader the rest.
                    tar.append_data(&mut header, name, file.take(size))
                }
            }
            .map_err(|e| from_io(failed, e))?;
        }
        tar.into_inner().and_then(|mut out| out.flush()).map_err(|e| from_io(failed, e))
    }

    #[cfg(test)]
    pub(super) fn names(&self) -> Vec<String> {
        self.entries.keys().map(ToString::to_string).collect()
    }
}

/// Whether a file is new in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Its needs are not known yet.
    Now,
    /// It has been looked at.
    Before,
}

/// Reversed, so that the next one is popped; `..` is kept, it means something after a link.
fn components(path: &Path) -> Vec<PathBuf> {
    let parts = path.components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir));
    let mut parts: Vec<PathBuf> = parts.map(|c| PathBuf::from(c.as_os_str())).collect();
    parts.reverse();
    parts
}

/// The file's mode, without set-id bits that would lend another identity than here: everything belongs to root in the image.
fn mode(meta: &std::fs::Metadata) -> u32 {
    let mut mode = meta.permissions().mode() & 0o7777;
    if meta.uid() != 0 {
        mode &= !0o4000;
    }
    if meta.gid() != 0 {
        mode &= !0o2000;
    }
    mode
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_links_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("usr/bin")).unwrap();
        std::fs::write(base.join("usr/bin/real"), "x").unwrap();
        std::os::unix::fs::symlink("usr/bin", base.join("bin")).unwrap();
        std::os::unix::fs::symlink("../../bin/real", base.join("usr/bin/alias")).unwrap();
        std::os::unix::fs::symlink("loop", base.join("loop")).unwrap();

        let mut tree = Tree::default();
        let (real, taken) = tree.take(&base.join("bin/alias")).unwrap();
        assert_eq!((real.as_path(), taken), (base.join("usr/bin/real").as_path(), Taken::Now));
        assert_eq!(tree.take(&base.join("usr/bin/real")).unwrap().1, Taken::Before);
        let names = tree.names();
        for name in ["bin", "usr/bin/alias", "usr/bin/real", "usr/bin"] {
            assert!(names.contains(&base.join(name).display().to_string()), "{name} in {names:?}");
        }
        for name in ["loop", "usr", "usr/bin/real/x", "missing"] {
            assert!(tree.take(&base.join(name)).is_err(), "{name}");
        }
    }
}
