//! The build context: a directory, its ignore file, and the remembered digests of its files.

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

use super::selection::Selection;
use super::sources::Source;

/// An opened context. May be used by many threads.
pub struct Context {
    directory: PathBuf,
    view: View,
    ignore: Ignore,
    hashes: Hashes,
}

impl Context {
    /// Opens a directory. Nothing in it is read before a step needs it.
    pub fn open(store: &Store, directory: &Path, ignore: Option<&(String, String)>) -> Result<Self> {
        let directory = std::fs::canonicalize(directory).doing("open the build context", directory)?;
        if !directory.is_dir() {
            return Err(Error::input(format!("the build context {} is not a directory", quote_path(&directory))));
        }
        let ignore = match ignore {
            Some((name, text)) => Ignore::parse(name, text.as_bytes())?,
            None => Ignore::default(),
        };
        let hashes = Hashes::load(&store.hashes())?;
        let view = View::new(vec![LayerDir { fs: directory.clone(), record: Arc::new(Record::default()) }]);
        Ok(Self { directory, view, ignore, hashes })
    }

    /// The context to copy from.
    pub fn source(&self) -> Source<'_> {
        Source { view: &self.view, host: Some(&self.directory), ignore: Some(&self.ignore), name: "the build context".into() }
    }

    /// What its files are remembered by.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Fills in the digests of files that have not changed since they were read last.
    pub fn recall(&self, selection: &mut Selection) {
        selection.learn(|entry| self.hashes.recall(&self.directory, entry.listed.as_ref()?));
    }

    /// Fills in all digests, reading what must be read, on several threads.
    pub fn hash(&self, selection: &mut Selection) -> Result<()> {
        let files: Vec<&Stat> = selection.unknown().into_iter().filter_map(|entry| entry.listed.as_ref()).collect();
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

/// No text that a person wrote is larger.
const LARGEST_TEXT: u64 = 64 << 20;

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
