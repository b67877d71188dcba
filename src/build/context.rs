//! The build context: a directory, its ignore file, and the remembered digests of its files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::dockerfile::Ignore;
use crate::error::{Error, IoContext, Result, quote_path};
use crate::oci::Digest;
use crate::rootfs::{Hashes, LayerDir, Node, Record, View};
use crate::store::Store;

use super::sources::Source;

/// An opened context.
pub struct Context {
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
            Some((name, text)) => Ignore::parse(name, text)?,
            None => Ignore::default(),
        };
        let key = Digest::of(directory.as_os_str().as_encoded_bytes());
        let hashes = Hashes::load(&store.context_hashes(&key))?;
        let view = View::new(vec![LayerDir { fs: directory, record: Arc::new(Record::default()) }]);
        Ok(Self { view, ignore, hashes })
    }

    /// The context to copy from.
    pub fn source(&self) -> Source<'_> {
        Source { view: &self.view, ignore: Some(&self.ignore), name: "the build context".into() }
    }

    /// The digest of a file's content, read only if the file changed since it was read last.
    pub fn content(&mut self, node: &Node) -> Result<Digest> {
        let view = &self.view;
        self.hashes.digest(&node.path, node, || view.open(node))
    }

    /// Writes down what was read, for the next build.
    pub fn save(&mut self) -> Result<()> {
        self.hashes.save()
    }
}

/// Where the Dockerfile is: `-f FILE`, else `Dockerfile` in the context.
pub fn dockerfile_path(context: &Path, file: Option<&Path>) -> PathBuf {
    match file {
        Some(file) => file.to_path_buf(),
        None => context.join("Dockerfile"),
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
        match std::fs::read(&path) {
            Ok(bytes) => return Ok(Some((path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned()))),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {}
            Err(e) => return Err(Error::io("read", &path, e)),
        }
    }
    Ok(None)
}
