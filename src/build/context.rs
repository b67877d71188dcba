//! The build context: a directory or a layer, its ignore file, and the remembered digests of its files.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::dockerfile::ignore::Ignore;
use crate::error::{Error, IoContext, Result, quote_path};
use crate::oci::Digest;
use crate::rootfs::hash::Hashes;
use crate::rootfs::record::Record;
use crate::rootfs::scan::Source as Stat;
use crate::rootfs::view::{LayerDir, Node, View};
use crate::store::Store;

use super::location::Tree;
use super::sources::Source;

/// An opened context.
pub struct Context {
    directory: PathBuf,
    view: View,
    ignore: Ignore,
    hashes: Mutex<Hashes>,
    name: String,
}

impl Context {
    /// Opens a tree, called `name` in messages. Nothing in it is read before a step needs it.
    pub fn open(store: &Store, tree: &Tree, ignore: Option<&(String, String)>, name: &str) -> Result<Self> {
        let layer = match tree {
            Tree::Directory(directory) => {
                let fs = std::fs::canonicalize(directory).doing(&format!("open {name}"), directory)?;
                if !fs.is_dir() {
                    return Err(Error::input(format!("{name} {} is not a directory", quote_path(&fs))));
                }
                LayerDir { fs, record: Arc::new(Record::default()) }
            }
            Tree::Layer(layer) => store.stack(&[*layer])?.remove(0),
        };
        let ignore = match ignore {
            Some((name, text)) => Ignore::parse(name, text.as_bytes())?,
            None => Ignore::default(),
        };
        let hashes = Mutex::new(Hashes::load(&store.hashes())?);
        Ok(Self { directory: layer.fs.clone(), view: View::new(vec![layer]), ignore, hashes, name: name.to_owned() })
    }

    /// The context to copy from.
    pub fn source(&self) -> Source<'_> {
        Source { view: &self.view, ignore: Some(&self.ignore), name: self.name.clone() }
    }

    /// The digest of a file's content, read only if the file changed since it was read last.
    pub fn content(&self, node: &Node) -> Result<Digest> {
        let path = self.directory.join(node.path.as_relative());
        let found = std::fs::symlink_metadata(&path).doing("read", &path)?;
        let time = |seconds: i64, nanoseconds: i64| (seconds, u32::try_from(nanoseconds).unwrap_or_default());
        let stat = Stat {
            path: node.path.clone(),
            kind: node.meta.kind,
            mode: node.meta.mode,
            size: found.size(),
            mtime: time(found.mtime(), found.mtime_nsec()),
            ctime: time(found.ctime(), found.ctime_nsec()),
            dev: found.dev(),
            ino: found.ino(),
            nlink: found.nlink(),
        };
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner).hash_file(&self.directory, &stat)
    }

    /// Writes down what was read, for the next build.
    pub fn save(&self) -> Result<()> {
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner).save()
    }
}

/// The ignore file: `NAME.dockerignore` beside the Dockerfile, else `.dockerignore` in the context (as BuildKit).
pub fn ignore_file(context: &Path, dockerfile: Option<&Path>) -> Result<Option<(String, String)>> {
    let beside = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for path in beside.into_iter().chain([context.join(".dockerignore")]) {
        match std::fs::metadata(&path) {
            Ok(found) if !found.is_file() => return Err(Error::input(format!("{} is not a regular file", quote_path(&path)))),
            Ok(_) => {
                let bytes = read_text(&path)?;
                return Ok(Some((path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned())));
            }
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {}
            Err(e) => return Err(Error::io("read", &path, e)),
        }
    }
    Ok(None)
}

/// [`ignore_file`] for a tree that holds the Dockerfile too.
pub fn ignore_in(store: &Store, tree: &Tree, dockerfile: Option<&str>) -> Result<Option<(String, String)>> {
    if let Tree::Directory(directory) = tree {
        return ignore_file(directory, dockerfile.map(|name| directory.join(name)).as_deref());
    }
    for name in dockerfile.map(|name| format!("{name}.dockerignore")).into_iter().chain([".dockerignore".to_owned()]) {
        if let Some(bytes) = tree.read(store, &name)? {
            return Ok(Some((name, String::from_utf8_lossy(&bytes).into_owned())));
        }
    }
    Ok(None)
}

/// No text that a person wrote is larger.
pub(super) const LARGEST_TEXT: u64 = 64 << 20;

/// Reads a Dockerfile or an ignore file; one that does not end is an error.
pub fn read_text(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).doing("read", path)?;
    file.take(LARGEST_TEXT + 1).read_to_end(&mut bytes).doing("read", path)?;
    if bytes.len() as u64 > LARGEST_TEXT {
        return Err(Error::input(format!("{} is larger than {} MiB", quote_path(path), LARGEST_TEXT >> 20)));
    }
    Ok(bytes)
}
