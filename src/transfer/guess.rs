//! What a path or a word means as a place, where nobody says it: by content, else by name, as ch-convert tells.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::Path;

use super::export::is_squashfs_name;
use super::place::Place;
use super::read::{Form, Images};
use crate::error::{Error, IoContext as _, Kind, Result, quote};
use crate::oci::Reference;
use crate::rootfs::compress::decompress;
use crate::rootfs::listing::first_member;
use crate::rootfs::squashfs::is_squashfs;
use crate::store::Store;

/// The place an image is to come from: a place's spelling, a path, else a name or ID in the storage directory.
pub fn source(store: &Store, text: &str) -> Result<Place> {
    if let Some(place) = Place::of_source(text)? {
        return Ok(place);
    }
    let path = Path::new(text);
    // A name in storage wins over a file that is not plainly meant as one.
    if !text.contains('/') && store.find_image(text).is_ok() {
        return Ok(Place::Storage(text.to_owned()));
    }
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(match path.join("oci-layout").is_file() && path.join("index.json").is_file() {
            true => Place::OciLayout { directory: path.to_owned(), name: None },
            false => Place::Directory(path.to_owned()),
        }),
        Ok(_) => file(store, path),
        _ if is_path(text) => Err(Error::with_kind(Kind::NotFound, format!("there is no file or directory {}", quote(text)))),
        _ => Ok(Place::Storage(text.to_owned())),
    }
}

/// The place an image is to go to: a place's spelling, a path by its suffix, else a name for the storage directory.
pub fn destination(text: &str) -> Result<Place> {
    if Place::is_spelled(text) {
        return text.parse();
    }
    let lower = text.to_lowercase();
    let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| lower.ends_with(suffix));
    if is_squashfs_name(Path::new(text)) {
        return Ok(Place::Squashfs(text.into()));
    }
    if ends(&[".tar", ".tgz", ".txz", ".tzst", ".tbz", ".tbz2", ".tar.gz", ".tar.xz", ".tar.zst", ".tar.bz2"]) || text == "-" {
        return Ok(Place::Tarball(text.into()));
    }
    if is_path(text) || text.ends_with('/') {
        return Ok(Place::Directory(text.into()));
    }
    let name: Reference = text.parse().map_err(|e: Error| {
        e.hint("a destination is a name for the storage directory, a file (`x.tar.gz`, `x.sqfs`), a directory (`./x`), or a place such as `oci-archive:x.tar`")
    })?;
    Ok(Place::Storage(name.familiar()))
}

fn is_path(text: &str) -> bool {
    ["/", "./", "../"].iter().any(|start| text.starts_with(start)) || text == "." || text == ".."
}

/// What a file holds, told by its beginning.
fn file(store: &Store, path: &Path) -> Result<Place> {
    let mut start = Vec::new();
    File::open(path).doing("open", path)?.take(4).read_to_end(&mut start).doing("read", path)?;
    if is_squashfs(&start) {
        return Ok(Place::Squashfs(path.to_owned()));
    }
    if !begins_as_image(path) {
        return Ok(Place::Tarball(path.to_owned()));
    }
    // It may still be a root file system whose first directory is called `blobs`.
    Ok(match Images::open(store, path, None).map(|images| images.form()) {
        Ok(Form::DockerArchive) => Place::DockerArchive { file: path.to_owned(), name: None },
        Ok(_) => Place::OciArchive { file: path.to_owned(), name: None },
        Err(_) => Place::Tarball(path.to_owned()),
    })
}

/// Whether a file is an archive of images, told by its beginning and its table of contents.
pub fn is_image_archive(store: &Store, path: &Path) -> bool {
    begins_as_image(path) && Images::open(store, path, None).is_ok()
}

/// Whether the first member of an archive can belong to an image archive; looking at all of a large root file system would take long.
fn begins_as_image(path: &Path) -> bool {
    let first = || {
        let archive = BufReader::new(decompress(File::open(path).ok()?).ok()?);
        let name = first_member(archive).ok()??;
        name.components().next().map(|first| String::from_utf8_lossy(first).into_owned())
    };
    first().is_some_and(|first| {
        let known = ["blobs", "oci-layout", "index.json", "manifest.json", "repositories"];
        let stem = first.split('.').next().unwrap_or_default();
        known.contains(&first.as_str()) || stem.len() == 64 && stem.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        for (text, expected) in [
            ("app:1", Place::Storage("app:1".into())),
            ("h:5000/app", Place::Storage("h:5000/app:latest".into())),
            ("x.sqfs", Place::Squashfs("x.sqfs".into())),
            ("/d/X.SquashFS", Place::Squashfs("/d/X.SquashFS".into())),
            ("x.tar.gz", Place::Tarball("x.tar.gz".into())),
            ("-", Place::Tarball("-".into())),
            ("./x", Place::Directory("./x".into())),
            ("x/", Place::Directory("x/".into())),
            ("oci-archive:x.tar", Place::OciArchive { file: "x.tar".into(), name: None }),
        ] {
            assert_eq!(destination(text).unwrap(), expected, "{text}");
        }
        assert!(destination("No Name").is_err());
    }
}
