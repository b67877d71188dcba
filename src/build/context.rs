//! The build context: a directory or a layer, its ignore file, and the remembered digests of its files.

use std::borrow::Cow;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::dockerfile::ignore::Ignore;
use crate::error::{Error, IoContext, Result, quote_path};
use crate::oci::Digest;
use crate::rootfs::hash::Hashes;
use crate::rootfs::record::Record;
use crate::rootfs::scan::Source as Stat;
use crate::rootfs::view::{LayerDir, View};
use crate::store::Store;

use super::location::Tree;
use super::selection::{Entry, Selection};
use super::sources::Source;

/// An opened context. May be used by many threads.
pub struct Context {
    directory: PathBuf,
    /// The directory again, if it is the user's own and no layer.
    host: Option<PathBuf>,
    view: View,
    ignore: Ignore,
    hashes: Hashes,
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
        let hashes = Hashes::load(&store.hashes())?;
        let host = matches!(tree, Tree::Directory(_)).then(|| layer.fs.clone());
        Ok(Self { directory: layer.fs.clone(), host, view: View::new(vec![layer]), ignore, hashes, name: name.to_owned() })
    }

    /// The context to copy from.
    pub fn source(&self) -> Source<'_> {
        Source { view: &self.view, host: self.host.as_deref(), ignore: Some(&self.ignore), name: self.name.clone() }
    }

    /// What its files are remembered by.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Fills in the digests of files that have not changed since they were read last.
    pub fn recall(&self, selection: &mut Selection) {
        selection.learn(|entry| self.hashes.recall(&self.directory, &*self.listed(entry).ok()?));
    }

    /// Fills in all digests, reading what must be read, on several threads.
    pub fn hash(&self, selection: &mut Selection) -> Result<()> {
        let files = selection.unknown().into_iter().map(|entry| self.listed(entry)).collect::<Result<Vec<_>>>()?;
        let files: Vec<&Stat> = files.iter().map(|file| &**file).collect();
        let mut digests = self.hashes.hash_files(&self.directory, &files)?.into_iter();
        selection.learn(|_| digests.next());
        Ok(())
    }

    /// Remembers the digest of a file that was listed and read.
    pub fn remember(&self, listed: &Stat, now: &Stat, digest: Digest) {
        self.hashes.remember(&self.directory, listed, now, digest);
    }

    /// Writes down what was read, for the next build.
    pub fn save(&self) -> Result<()> {
        self.hashes.save()
    }

    /// How a file was listed; those of a layer are looked at again.
    fn listed<'e>(&self, entry: &'e Entry) -> Result<Cow<'e, Stat>> {
        match &entry.listed {
            Some(listed) => Ok(Cow::Borrowed(listed)),
            None => Stat::of(&self.directory, &entry.node.path).map(Cow::Owned),
        }
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
