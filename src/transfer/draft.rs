//! Files outside the storage directory: each appears when it is whole, or not at all.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use crate::error::{Error, IoContext as _, Result, quote_path};
use crate::rootfs::extract;

/// Writes a file; what was there before is replaced when the new one is whole.
pub(super) fn write(output: &Path, fill: impl FnOnce(&File) -> Result<()>) -> Result<()> {
    let failed = |e: Error| e.context(format!("can't write {}", quote_path(output)));
    // What is not a regular file (a pipe, /dev/stdout, /dev/null) can't be replaced by one.
    if output.metadata().is_ok_and(|meta| !meta.is_file()) {
        let file = OpenOptions::new().write(true).open(output).doing("open", output)?;
        return fill(&file).map_err(failed);
    }
    let draft = Draft::create(output)?;
    fill(&draft.file).map_err(failed)?;
    draft.commit(output)
}

/// Writes a small file.
pub(super) fn write_bytes(output: &Path, bytes: &[u8]) -> Result<()> {
    write(output, |mut file| file.write_all(bytes).doing("write", output))
}

/// A name beside a path for what is not finished yet: `.NAME.HOST.PID`. What killed processes of this machine left there is removed.
pub(super) fn beside(output: &Path) -> Result<PathBuf> {
    let name = output.file_name().ok_or_else(|| Error::input(format!("{} names no file", quote_path(output))))?;
    let host = rustix::system::uname().nodename().to_string_lossy().replace('/', "_");
    let mut start = std::ffi::OsString::from(".");
    start.push(name);
    start.push(format!(".{host}."));
    let directory = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let found = entry.file_name();
        let process = found.as_encoded_bytes().strip_prefix(start.as_encoded_bytes()).and_then(|pid| std::str::from_utf8(pid).ok());
        if process.and_then(|pid| pid.parse::<u32>().ok()).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            // A failure is the next writer's matter.
            let _ = extract::remove(&entry.path()).or_else(|_| std::fs::remove_file(entry.path()).doing("remove", &entry.path()));
        }
    }
    start.push(std::process::id().to_string());
    Ok(output.with_file_name(start))
}

/// A directory beside its place on its way there; dropped, it is gone.
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn beside(place: &Path) -> Result<Self> {
        let path = beside(place)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).doing("create directory", parent)?;
        }
        std::fs::create_dir(&path).doing("create directory", &path)?;
        Ok(Self(path))
    }

    /// Where it is until then.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Gives it its place, where there may be an empty directory and nothing else.
    pub(super) fn place(self, to: &Path) -> Result<()> {
        std::fs::rename(&self.0, to).doing("create directory", to)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = crate::rootfs::extract::remove(&self.0);
    }
}

/// A file on its way to its place; dropped, it is gone. Where the file system can, it has no name before it is whole, so that not even
/// SIGKILL leaves anything.
struct Draft {
    file: File,
    path: PathBuf,
    name: Name,
}

/// Whether `path` exists yet.
#[derive(PartialEq, Eq)]
enum Name {
    None,
    Given,
    Placed,
}

impl Draft {
    fn create(output: &Path) -> Result<Self> {
        let path = beside(output)?;
        let directory = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let unnamed = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        if let Ok(file) = rustix::fs::open(directory, unnamed, Mode::from_raw_mode(0o666)) {
            return Ok(Self { file: File::from(file), path, name: Name::None });
        }
        let file = OpenOptions::new().write(true).create_new(true).open(&path).doing("create", output)?;
        Ok(Self { file, path, name: Name::Given })
    }

    fn commit(mut self, output: &Path) -> Result<()> {
        if self.name == Name::None {
            let file = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            rustix::fs::linkat(CWD, file, CWD, &self.path, AtFlags::SYMLINK_FOLLOW).doing("write", output)?;
            self.name = Name::Given;
        }
        std::fs::rename(&self.path, output).doing("write", output)?;
        self.name = Name::Placed;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.name == Name::Given {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
