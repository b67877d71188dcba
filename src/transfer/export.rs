//! An image's files as one tarball.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use crate::error::{Error, IoContext as _, Result, from_io, quote_path};
use crate::rootfs::compress::{Compression, compressor};
use crate::rootfs::pack::pack_view;
use crate::rootfs::view::View;

/// Writes a flattened tarball to a stream.
pub fn export_to(view: &View, out: impl Write, compression: Compression, level: Option<i32>) -> Result<()> {
    write(view, out, compression, level).map(drop)
}

/// Writes a flattened tarball to a file, which appears when it is complete, or not at all.
pub fn export(view: &View, output: &Path, compression: Compression, level: Option<i32>) -> Result<()> {
    // What is not a regular file (a pipe, /dev/stdout, /dev/null) can't be replaced by one.
    if output.metadata().is_ok_and(|meta| !meta.is_file()) {
        let file = OpenOptions::new().write(true).open(output).doing("open", output)?;
        return write(view, file, compression, level).map(drop);
    }
    let draft = Draft::create(output)?;
    write(view, &draft.file, compression, level).map_err(|e| e.context(format!("can't write {}", quote_path(output))))?;
    draft.commit(output)
}

/// The compression a file's suffix promises.
pub fn compression_of(path: &Path) -> Compression {
    match path.extension().and_then(|e| e.to_str()).map(str::to_lowercase).as_deref() {
        Some("gz" | "tgz") => Compression::Gzip,
        Some("zst" | "zstd" | "tzst") => Compression::Zstd,
        Some("xz" | "txz") => Compression::Xz,
        Some("bz2" | "tbz" | "tbz2") => Compression::Bzip2,
        _ => Compression::None,
    }
}

fn write<W: Write>(view: &View, out: W, compression: Compression, level: Option<i32>) -> Result<W> {
    let failed = || "can't write the tarball".to_owned();
    let mut compressed = compressor(BufWriter::with_capacity(256 << 10, out), compression, level)?;
    pack_view(view, &mut compressed)?;
    let out = compressed.finish()?;
    out.into_inner().map_err(|e| from_io(failed, e.into_error()))
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
        let name = output.file_name().ok_or_else(|| Error::input(format!("{} names no file", quote_path(output))))?;
        let mut draft = std::ffi::OsString::from(".");
        draft.push(name);
        draft.push(format!(".{}", std::process::id()));
        let path = output.with_file_name(draft);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes() {
        for (name, expected) in [
            ("a.tar", Compression::None),
            ("a", Compression::None),
            ("-", Compression::None),
            ("a.tar.gz", Compression::Gzip),
            ("a.TGZ", Compression::Gzip),
            ("a.tar.zst", Compression::Zstd),
            ("a.txz", Compression::Xz),
            ("a.tar.bz2", Compression::Bzip2),
        ] {
            assert_eq!(compression_of(Path::new(name)), expected, "{name}");
        }
    }
}
