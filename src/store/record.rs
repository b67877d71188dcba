//! Small JSON files, each replaced as a whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Store;
use super::unfinished::Unfinished;
use crate::error::{Error, IoContext, Kind, Place, Result};

/// Opens a file for reading; `None` if it does not exist.
///
/// An NFS client may remember for half a minute that a name did not exist. Opening the directory makes it ask again.
pub(super) fn open(path: &Path) -> Result<Option<File>> {
    let absent = |e: &io::Error| matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESTALE));
    match File::open(path) {
        Ok(file) => return Ok(Some(file)),
        Err(e) if !absent(&e) => return Err(Error::io("open", path, e)),
        Err(_) => {}
    }
    if let Some(parent) = path.parent() {
        refresh(parent);
    }
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if absent(&e) => Ok(None),
        Err(e) => Err(Error::io("open", path, e)),
    }
}

/// Makes an NFS client ask the server again for what is in a directory; to be done between taking a lock and looking.
pub(super) fn refresh(directory: &Path) {
    let _ = File::open(directory);
}

/// Reads a file; `None` if it does not exist.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let Some(mut file) = open(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).doing("read", path)?;
    Ok(Some(bytes))
}

/// Reads a record; `None` if it does not exist, an error naming the file if it is garbage. `what` it is, `remedy` as a hint.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path, what: &str, remedy: impl FnOnce() -> String) -> Result<Option<T>> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    let garbage = |why: String| {
        Error::with_kind(Kind::Corrupt, format!("{what} is damaged")).at(Place::Path(path.to_owned())).cause(why).hint(remedy())
    };
    match serde_json::from_slice(&bytes) {
        Ok(value) => Ok(Some(value)),
        Err(_) if bytes.is_empty() => Err(garbage("the file is empty".into())),
        Err(e) => Err(garbage(e.to_string())),
    }
}

impl Store {
    /// Writes a record beside its place; the caller places it.
    pub(super) fn prepare_json(&self, value: &impl Serialize) -> Result<Unfinished> {
        let mut bytes = serde_json::to_vec(value).expect("records have only string keys");
        bytes.push(b'\n');
        let unfinished = self.unfinished("record")?;
        let mut file = OpenOptions::new().write(true).create_new(true).open(unfinished.path()).doing("create", unfinished.path())?;
        io::Write::write_all(&mut file, &bytes).doing("write", unfinished.path())?;
        Ok(unfinished)
    }

    /// Replaces a record.
    pub(super) fn write_json(&self, path: &Path, value: &impl Serialize) -> Result<()> {
        self.prepare_json(value)?.place(path).doing("write", path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        let read = || read_json::<Vec<u32>>(&path, "the list", || "remove it".into());
        assert!(read().unwrap().is_none());
        for (content, expected) in [("", "the list is damaged: the file is empty"), ("[1", "the list is damaged: EOF")] {
            std::fs::write(&path, content).unwrap();
            let error = read().unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
            assert_eq!(error.place(), Some(&Place::Path(path.clone())));
            assert_eq!(error.hints(), ["remove it"]);
        }
    }
}
