//! An image's files as one tarball.

use std::io::{BufWriter, Write};
use std::path::Path;

use super::draft;
use crate::error::{Result, from_io};
use crate::rootfs::compress::{Compression, compressor};
use crate::rootfs::pack::pack_view;
use crate::rootfs::squashfs::{self, Coding};
use crate::rootfs::view::View;

/// Writes a flattened tarball to a stream.
pub fn export_to(view: &View, out: impl Write, compression: Compression, level: Option<i32>) -> Result<()> {
    write(view, out, compression, level).map(drop)
}

/// Writes a flattened tarball to a file, which appears when it is complete, or not at all.
pub fn export(view: &View, output: &Path, compression: Compression, level: Option<i32>) -> Result<()> {
    draft::write(output, |out| write(view, out, compression, level).map(drop))
}

/// Writes a squashfs image, which appears when it is complete, or not at all.
pub fn export_squashfs(view: &View, output: &Path, coding: Coding) -> Result<()> {
    draft::write(output, |out| squashfs::write(view, coding, out, &mut |_| ()))
}

/// Whether a file's suffix promises a squashfs image, as ch-convert knows them.
pub fn is_squashfs_name(path: &Path) -> bool {
    let suffix = path.extension().and_then(|e| e.to_str()).map(str::to_lowercase);
    matches!(suffix.as_deref(), Some("sqfs" | "squash" | "squashfs" | "squishy"))
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
        for (name, expected) in [("a.sqfs", true), ("d/a.SquashFS", true), ("a.tar", false), ("sqfs", false), (".sqfs", false)] {
            assert_eq!(is_squashfs_name(Path::new(name)), expected, "{name}");
        }
    }
}
