//! Reading separated images: the tarballs of an app are read as one archive of `docker save`, where they lie.

use std::fs::File;
use std::io::{self, Seek as _};
use std::path::{Path, PathBuf};

use super::{Entries, Entry, MANIFEST, check_file_name, open, read_json};
use crate::error::{Error, IoContext as _, Kind, Result, nearest, quote, quote_path};
use crate::event::Sink;
use crate::oci::{Hasher, Platform, Reference};
use crate::store::Store;
use crate::transfer::read::{Images, Platforms, ReadImage, ReadRequest};

/// What is to be loaded.
pub struct LoadRequest<'a> {
    /// The directory.
    pub directory: &'a Path,
    /// The app.
    pub name: &'a Reference,
    /// The base tarball, if not the one in the directory.
    pub base: Option<&'a Path>,
    /// The lib tarball, if not the one in the directory.
    pub lib: Option<&'a Path>,
    /// Whether tarballs must be those that were saved.
    pub checksums: Checksums,
}

/// What becomes of the tarballs' checksums. Layers and configs have digests of their own, which are checked in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// They are compared.
    Checked,
    /// They are not looked at.
    Ignored,
}

/// Brings an app here that [`super::save_separated`] or isula-build saved. It has no name here yet.
///
/// Errors: `NotFound` for an unknown app; `Corrupt` for tarballs that are not those that were saved, or lack a layer.
pub fn load_separated(store: &Store, request: &LoadRequest<'_>, sink: &dyn Sink) -> Result<ReadImage> {
    let name = request.name.familiar();
    let load = || {
        let entries: Entries = read_json(&request.directory.join(MANIFEST))?;
        let entry = find(&entries, request.name)?;
        let parts = Parts::open(request, entry)?;
        if request.checksums == Checksums::Checked {
            parts.check()?;
        }
        let paths = parts.0.into_iter().map(|part| (part.path, part.file, part.layers)).collect::<Vec<_>>();
        let images = Images::in_parts(store, request.directory, paths)?;
        images.read(&ReadRequest { name: None, digest: None, platforms: &Platforms::One(Platform::host()) }, sink)
    };
    let mut image = load().map_err(|e: Error| e.context(format!("can't load {} from {}", quote(&name), quote_path(request.directory))))?;
    if !image.names.iter().any(|other| other.parse::<Reference>().is_ok_and(|other| other == *request.name)) {
        image.names.insert(0, name);
    }
    Ok(image)
}

fn find<'e>(entries: &'e Entries, name: &Reference) -> Result<&'e Entry> {
    let found = entries.iter().find(|(key, _)| key.parse::<Reference>().is_ok_and(|key| key == *name));
    found.map(|(_, entry)| entry).ok_or_else(|| {
        let wanted = name.familiar();
        let error = Error::with_kind(Kind::NotFound, format!("there is no image {} in it", quote(&wanted)));
        match nearest(&wanted, entries.keys().map(String::as_str)) {
            Some(near) => error.hint(format!("did you mean {}?", quote(near))),
            None => error.hint(format!("there are: {}", entries.keys().cloned().collect::<Vec<_>>().join(", "))),
        }
    })
}

/// A tarball.
struct Part {
    what: &'static str,
    path: PathBuf,
    file: File,
    hash: String,
    /// The IDs of the layers it must hold.
    layers: Vec<String>,
}

/// The app, then what it stands on: a document is looked for in the app first.
struct Parts(Vec<Part>);

impl Parts {
    fn open(request: &LoadRequest<'_>, entry: &Entry) -> Result<Self> {
        let part = |what: &'static str, name: &str, given: Option<&Path>, hash: &str, layers: Vec<String>| {
            let (path, file) = match given {
                Some(path) => (path.to_owned(), File::open(path).doing("open", path)?),
                None => {
                    check_file_name(name).map_err(|e| e.context(format!("the manifest names no {what} tarball")))?;
                    let path = request.directory.join(name);
                    let file = open(&path).map_err(|e| e.context(format!("can't read the {what} tarball")))?;
                    (path, file)
                }
            };
            if !file.metadata().doing("look at", &path)?.is_file() {
                return Err(Error::input(format!("{} is not a regular file", quote_path(&path))));
            }
            Ok(Part { what, path, file, hash: hash.to_owned(), layers })
        };
        let mut parts = vec![part("app", &entry.app, None, &entry.app_hash, entry.app_layers.clone())?];
        // isula-build can't load what it saved without a lib image: it takes the directory for one.
        match (entry.lib.is_empty(), request.lib) {
            (true, Some(_)) => return Err(Error::input("it was saved without a lib image").hint("leave `--lib` out")),
            (true, None) => {}
            (false, given) => {
                parts.push(part("lib", &entry.lib, given, &entry.lib_hash, entry.lib_layers.clone().unwrap_or_default())?);
            }
        }
        parts.push(part("base", &entry.base, request.base, &entry.base_hash, vec![entry.base_layer.clone()])?);
        Ok(Self(parts))
    }

    fn check(&self) -> Result<()> {
        for part in &self.0 {
            let mut hasher = Hasher::new();
            let mut file = &part.file;
            io::copy(&mut file, &mut hasher).doing("read", &part.path)?;
            file.rewind().doing("read", &part.path)?;
            let found = hasher.finish().hex();
            if !found.eq_ignore_ascii_case(&part.hash) {
                let what = format!("{} is not the {} tarball that was saved", quote_path(&part.path), part.what);
                return Err(Error::with_kind(Kind::Corrupt, what)
                    .cause(format!("its checksum is {found}, the manifest says {}", quote(&part.hash)))
                    .hint("`--no-check` looks only at the digests of the layers in it"));
            }
        }
        Ok(())
    }
}
