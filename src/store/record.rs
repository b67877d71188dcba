//! Small JSON files, each replaced as a whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

use serde::Serialize;

use super::Store;
use super::unfinished::Unfinished;
use crate::error::{Error, IoContext, Result};

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
