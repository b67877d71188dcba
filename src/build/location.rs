//! Where a tree to build from is, as people write it, and how it comes here.
//!
//! The main context is opened before there is a plan, since the Dockerfile is in it; named contexts when a step needs them. Archives and
//! repositories become layers in the storage directory: there is nothing else to look after, and what did not change is not unpacked again.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, IoContext, Result, from_io, hide_credentials, quote, quote_path};
use crate::event::Sink;
use crate::oci::{DiffId, Digest, ImagePath, Reference};
use crate::rootfs::view::View;
use crate::store::{StepRecord, Store};
use crate::transfer::git::{self, GitAddress, GitRequest, Metadata, Writer};
use crate::transfer::{self, Client, DownloadRequest, Place};

use super::context::LARGEST_TEXT;
use super::remote::is_web;
use super::surroundings::Secret;
use super::{archive, credentials, read_text};

/// Where a context is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A tarball of this machine.
    Archive(PathBuf),
    /// A tarball, or a Dockerfile, by URL.
    Url(String),
    /// A commit of a repository.
    Repository(GitAddress),
    /// An image by name, from storage or a registry.
    Image(String),
    /// An image in a file, a directory, or with a program of this machine.
    Placed(PlacedImage),
}

/// An image that is not meant by a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedImage {
    /// Where.
    pub place: Place,
    /// Its digest, where a layout has several.
    pub digest: Option<Digest>,
}

/// A tree that is at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A layer in the storage directory.
    Layer(DiffId),
}

/// What a location turned out to hold.
#[derive(Debug)]
pub enum Opened {
    /// Files.
    Tree(Tree),
    /// A Dockerfile alone.
    Text(Vec<u8>),
}

/// What fetching needs.
#[derive(Clone, Copy)]
pub struct Fetcher<'a> {
    /// Where everything is kept.
    pub store: &'a Store,
    /// How others are asked.
    pub client: &'a Client,
    /// Who hears of it.
    pub sink: &'a dyn Sink,
    /// Among them credentials.
    pub secrets: &'a BTreeMap<String, Secret>,
}

impl Fetcher<'_> {
    fn download(&self, url: &str) -> Result<Digest> {
        let authorization = credentials::for_url(self.secrets, url)?;
        let request = DownloadRequest { url, checksum: None, authorization: authorization.as_deref() };
        transfer::download(self.store, self.client, &request, self.sink).map(|found| found.digest)
    }

    /// A Dockerfile by URL.
    pub fn text(&self, url: &str) -> Result<Vec<u8>> {
        self.store.read_blob(&self.download(url)?, LARGEST_TEXT)
    }
}

impl Location {
    /// The main context: a directory wins over anything else of its name (buildx).
    pub fn of_context(text: &str) -> Result<Self> {
        let path = Path::new(text);
        if path.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        if let Some(remote) = Self::remote(text)? {
            return Ok(remote);
        }
        if path.is_file() {
            return Ok(Self::Archive(path.to_owned()));
        }
        let error = Error::input(format!("the build context {} is not a directory", quote_path(path)));
        Err(error
            .hint("the last argument is what to build from: a directory, a tarball, a URL, or a repository; name the Dockerfile with `-f`"))
    }

    /// A named context, as `--build-context NAME=…` gives it.
    pub fn of_named(text: &str) -> Result<Self> {
        if let Some(image) = text.strip_prefix("docker-image://") {
            image.parse::<Reference>()?;
            return Ok(Self::Image(image.to_owned()));
        }
        if text.starts_with("target:") {
            return Err(Error::input("`target:` contexts belong to bake files").hint("a stage of this Dockerfile can be named as it is"));
        }
        match PlacedImage::parse(text)? {
            Some(image) => Ok(Self::Placed(image)),
            None => Self::of_context(text),
        }
    }

    fn remote(text: &str) -> Result<Option<Self>> {
        if let Some(address) = GitAddress::parse(text, Writer::User)? {
            return Ok(Some(Self::Repository(address)));
        }
        Ok(is_web(text).then(|| Self::Url(text.to_owned())))
    }

    /// Brings the files here. Images have no files of their own: see [`super::contexts`].
    pub fn open(&self, fetcher: &Fetcher<'_>) -> Result<Opened> {
        let Fetcher { store, client, sink, .. } = *fetcher;
        match self {
            Self::Directory(path) => Ok(Opened::Tree(Tree::Directory(path.clone()))),
            Self::Archive(path) => {
                let open = || std::fs::File::open(path).doing("open", path);
                if !archive::is_tar(open()?)? {
                    return Err(Error::input(format!("the build context {} is neither a directory nor a tarball", quote_path(path))));
                }
                transfer::import_layer(store, &path.display().to_string(), open()?, sink).map(|layer| Opened::Tree(Tree::Layer(layer)))
            }
            Self::Url(url) => {
                let digest = fetcher.download(url)?;
                open_blob(fetcher, &digest, &hide_credentials(url))
            }
            Self::Repository(address) => {
                let authorization = credentials::for_repository(fetcher.secrets, address)?;
                let request = GitRequest { address, metadata: Metadata::Drop, authorization: authorization.as_deref() };
                git::checkout(store, client, &request, sink).map(|found| Opened::Tree(Tree::Layer(found.layer)))
            }
            Self::Image(name) => Err(Error::input(format!("{} is an image, not a tree of files", quote(name)))),
            Self::Placed(image) => Err(Error::input(format!("{} is an image, not a tree of files", quote(image.place.to_string())))),
        }
    }
}

/// A tarball or a Dockerfile that was downloaded; unpacked once.
fn open_blob(fetcher: &Fetcher<'_>, digest: &Digest, name: &str) -> Result<Opened> {
    let store = fetcher.store;
    if !archive::is_tar(store.blob_reader(digest)?)? {
        return store.read_blob(digest, LARGEST_TEXT).map(Opened::Text);
    }
    let key = Digest::of(format!("unpacked\0{digest}"));
    if let Some(step) = store.step_get(&key)?
        && let [layer] = step.layers[..]
    {
        return Ok(Opened::Tree(Tree::Layer(layer)));
    }
    let layer = transfer::import_layer(store, name, store.blob_reader(digest)?, fetcher.sink)?;
    store.step_put(&key, &StepRecord { layers: vec![layer], blobs: Vec::new(), value: serde_json::Value::Null })?;
    Ok(Opened::Tree(Tree::Layer(layer)))
}

/// A stream that is a tarball, compressed or not, or a Dockerfile: told by its beginning, as docker does.
pub fn open_stream(fetcher: &Fetcher<'_>, mut stream: impl Read + Send) -> Result<Opened> {
    let mut start = Vec::new();
    (&mut stream).take(BEGINNING).read_to_end(&mut start).map_err(|e| Error::os("can't read standard input", e))?;
    // What of a compressed header is cut off here is not needed to tell.
    let archive = archive::is_tar(start.as_slice())?;
    let mut whole = io::Cursor::new(start).chain(stream);
    if archive {
        return transfer::import_layer(fetcher.store, "standard input", whole, fetcher.sink).map(|layer| Opened::Tree(Tree::Layer(layer)));
    }
    let mut text = Vec::new();
    (&mut whole).take(LARGEST_TEXT + 1).read_to_end(&mut text).map_err(|e| from_io(|| "can't read standard input".into(), e))?;
    if text.len() as u64 > LARGEST_TEXT {
        return Err(Error::input(format!("the Dockerfile on standard input is larger than {} MiB", LARGEST_TEXT >> 20)));
    }
    Ok(Opened::Text(text))
}

/// Enough for the first block of an archive behind any compression: a block of bzip2 is up to 900 kB.
const BEGINNING: u64 = 2 << 20;

impl Tree {
    /// A small file in it; `None` if there is none of this name.
    pub fn read(&self, store: &Store, name: &str) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Directory(directory) => {
                let path = directory.join(name);
                if path.exists() { read_text(&path).map(Some) } else { Ok(None) }
            }
            Self::Layer(layer) => View::new(store.stack(&[*layer])?).read(&ImagePath::clean(name), LARGEST_TEXT),
        }
    }
}

impl PlacedImage {
    /// Reads `oci-layout://DIR[:TAG][@DIGEST]` (buildx) and places as commands take them (see [`Place`]); `None` for an image's name.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        let Some(rest) = text.strip_prefix("oci-layout://") else {
            return Ok(Place::of_source(text)?.map(|place| Self { place, digest: None }));
        };
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (rest, None),
        };
        let (path, name) = match rest.rsplit_once(':') {
            Some((path, name)) if !name.contains('/') => (path, Some(name)),
            _ => (rest, None),
        };
        if path.is_empty() {
            return Err(Error::input(format!("{} names no file", quote(text))));
        }
        let name = name.filter(|name| !name.is_empty()).map(str::to_owned);
        Ok(Some(Self { place: Place::OciLayout { directory: path.into(), name }, digest }))
    }
}

/// Reads `NAME=LOCATION`s; of two with one name the later counts.
pub fn named_contexts(given: &[String]) -> Result<BTreeMap<String, Location>> {
    let mut contexts = BTreeMap::new();
    for text in given {
        let invalid = |e: Error| e.context(format!("invalid `--build-context {}`", hide_credentials(text)));
        let parts = text.split_once('=').filter(|(name, location)| !name.is_empty() && !location.is_empty());
        let (name, location) = parts.ok_or_else(|| invalid(Error::input("it must be NAME=LOCATION")))?;
        contexts.insert(context_name(name), Location::of_named(location).map_err(invalid)?);
    }
    Ok(contexts)
}

/// What a name is compared by: `alpine`, `Alpine:latest` and `docker.io/library/alpine` mean one context (BuildKit).
pub fn context_name(name: &str) -> String {
    let lower = name.to_lowercase();
    let familiar = lower.parse::<Reference>().map(|reference| reference.familiar());
    familiar.map(|name| name.strip_suffix(":latest").map(str::to_owned).unwrap_or(name)).unwrap_or(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_image_files() {
        let digest = Digest::of("x");
        let layout = |directory: &str, name: Option<&str>| Place::OciLayout { directory: directory.into(), name: name.map(str::to_owned) };
        for (text, expected) in [
            ("oci-layout:///d/x", Some(layout("/d/x", None))),
            ("oci-layout://./x:v1", Some(layout("./x", Some("v1")))),
            ("oci:x:a/b:1", Some(layout("x", Some("a/b:1")))),
            ("oci-archive:x.tar", Some(Place::OciArchive { file: "x.tar".into(), name: None })),
            ("docker:dind", None),
            ("debian:12", None),
            ("debian", None),
        ] {
            assert_eq!(PlacedImage::parse(text).unwrap().map(|image| image.place), expected, "{text}");
        }
        let pinned = PlacedImage::parse(&format!("oci-layout://x:v1@{digest}")).unwrap().unwrap();
        assert_eq!((pinned.digest, pinned.place), (Some(digest), layout("x", Some("v1"))));
        assert!(PlacedImage::parse("oci:").is_err() && PlacedImage::parse("oci-layout://x@nonsense").is_err());
    }

    #[test]
    fn compares_names_as_buildkit_does() {
        for (name, expected) in [
            ("alpine", "alpine"),
            ("alpine:latest", "alpine"),
            ("docker.io/library/alpine", "alpine"),
            ("Alpine:3", "alpine:3"),
            ("h:5000/a", "h:5000/a"),
            ("builder", "builder"),
            ("not a reference", "not a reference"),
        ] {
            assert_eq!(context_name(name), expected, "{name}");
        }
    }
}
