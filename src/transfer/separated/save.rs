//! Writing separated images.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufWriter;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;

use super::{Entries, Entry, MANIFEST, check_file_name, read_json};
use crate::error::{Error, IoContext as _, Result, from_io, quote, quote_path};
use crate::event::{Event, Sink, next_id};
use crate::oci::{Digest, Reference};
use crate::rootfs::compress::{Compression, compressor};
use crate::store::{ImageRecord, Store};
use crate::transfer::bundle::{Bundle, Documents, Ready, Repack, Shape, Subject};
use crate::transfer::digested::Digested;
use crate::transfer::draft;
use crate::transfer::packed::Packing;
use crate::transfer::write::{Archive, check_outside, docker_archive};

/// What is to be saved.
pub struct SaveRequest<'a> {
    /// The images, each under a name.
    pub apps: &'a [ImageRecord],
    /// The image below all of them: one layer.
    pub base: &'a ImageRecord,
    /// An image between, on the base.
    pub lib: Option<&'a ImageRecord>,
    /// Other names for tarballs.
    pub renames: &'a Renames,
    /// The directory, which must not exist.
    pub directory: &'a Path,
}

/// Names of tarballs and those they get instead.
#[derive(Default)]
pub struct Renames(BTreeMap<String, String>);

#[derive(Deserialize)]
struct Rename {
    name: String,
    rename: String,
}

impl Renames {
    /// Reads `[{"name":"app_1_app_image.tar.gz","rename":"app.tar.gz"},…]`.
    pub fn read(path: &Path) -> Result<Self> {
        let renames: Vec<Rename> = read_json(path).map_err(|e: Error| e.context("can't read the names of the tarballs"))?;
        renames.iter().try_for_each(|entry| check_file_name(&entry.rename))?;
        Ok(Self(renames.into_iter().map(|entry| (entry.name, entry.rename)).collect()))
    }
}

/// Saves images as tarballs, with what they share in tarballs of their own. The directory appears when it is whole.
///
/// Errors: an image is not built on the base and lib, or is not more than these; two tarballs would have one name.
pub fn save_separated(store: &Store, request: &SaveRequest<'_>, sink: &dyn Sink) -> Result<()> {
    let directory = request.directory;
    check_outside(store.path(), directory)?;
    if directory.symlink_metadata().is_ok() {
        return Err(Error::input(format!("{} is there already", quote_path(directory))).hint("name a directory that does not exist yet"));
    }
    request.apps.iter().try_for_each(|app| check_stack(request, app))?;
    let draft = draft::Directory::beside(directory)?;
    let mut saver = Saver {
        store,
        request,
        sink,
        directory: draft.path(),
        names: BTreeSet::new(),
        renamed: BTreeSet::new(),
        shared: None,
        entries: BTreeMap::new(),
    };
    saver.all()?;
    for name in request.renames.0.keys().filter(|name| !saver.renamed.contains(*name)) {
        sink.event(Event::Warning(&format!("no tarball is called {}, so none was renamed", quote(name))));
    }
    let entries = serde_json::to_vec(&saver.entries).expect("an entry has only string keys");
    draft::write_bytes(&draft.path().join(MANIFEST), &entries)?;
    draft.place(directory)
}

/// The app stands on the lib, which stands on the base.
fn check_stack(request: &SaveRequest<'_>, app: &ImageRecord) -> Result<()> {
    let name = |image: &ImageRecord| quote(image.reference.familiar());
    let base = request.base;
    if base.layers.len() != 1 {
        return Err(Error::input(format!("{} can't be a base", name(base)))
            .cause(format!("it has {} layers; a base has one", base.layers.len()))
            .hint("`rootling import` and `rootling build --squash-all` make images of one layer"));
    }
    let stands = |upper: &ImageRecord, lower: &ImageRecord, what: &str| {
        let hint = "build it with `FROM` that image, in this storage directory or from the same registry";
        match (upper.layers.starts_with(&lower.layers), upper.layers.len() > lower.layers.len()) {
            (true, true) => Ok(()),
            (true, false) => Err(Error::input(format!("{} has no layer of its own above {what} {}", name(upper), name(lower)))),
            (false, _) => Err(Error::input(format!("{} is not built on {what} {}", name(upper), name(lower)))
                .cause("its lower layers are others")
                .hint(hint)),
        }
    };
    match request.lib {
        Some(lib) => stands(lib, base, "the base").and_then(|()| stands(app, lib, "the lib image")),
        None => stands(app, base, "the base"),
    }
}

/// A tarball and its checksum.
#[derive(Clone, Default)]
struct Tarball {
    name: String,
    hash: String,
}

struct Saver<'a> {
    store: &'a Store,
    request: &'a SaveRequest<'a>,
    sink: &'a dyn Sink,
    directory: &'a Path,
    /// The tarballs' names.
    names: BTreeSet<String>,
    /// Names that were given instead of others.
    renamed: BTreeSet<String>,
    /// The tarballs of base and lib, once they are written.
    shared: Option<(Tarball, Option<Tarball>)>,
    entries: Entries,
}

impl Saver<'_> {
    fn all(&mut self) -> Result<()> {
        // One image may have several names: it is saved once.
        let apps: BTreeMap<String, &ImageRecord> = self.request.apps.iter().map(|app| (app.reference.familiar(), app)).collect();
        let mut saved: BTreeMap<Digest, String> = BTreeMap::new();
        for (key, app) in &apps {
            if let Some(first) = saved.get(&app.config) {
                self.entries.insert(key.clone(), self.entries[first].clone());
                continue;
            }
            let names: Vec<&Reference> = apps.values().filter(|other| other.config == app.config).map(|other| &other.reference).collect();
            let entry = self.app(app, &names)?;
            saved.insert(app.config, key.clone());
            self.entries.insert(key.clone(), entry);
        }
        Ok(())
    }

    fn app(&mut self, app: &ImageRecord, names: &[&Reference]) -> Result<Entry> {
        let plain = Packing { compression: Compression::None, level: None };
        let shape = Shape { documents: Documents::Docker, packing: plain, repack: Repack::All, ..Shape::default() };
        let subject = Subject { manifests: vec![app.manifest.clone()], index: None };
        let bundle = Bundle::prepare(self.store, &subject, &shape, self.sink)?;
        let image = bundle.single("separated image")?;
        let ids = docker_archive::ids(image);
        let (base, lib) = (1, self.request.lib.map_or(1, |lib| lib.layers.len()));
        let (base_tarball, lib_tarball) = match self.shared.clone() {
            Some(shared) => shared,
            None => {
                let base_tarball = self.tarball(app, "base", |archive| layers(&bundle, image, &ids, 0..base, archive))?;
                let write = |archive: &mut Archive<'_>| layers(&bundle, image, &ids, base..lib, archive);
                let lib_tarball = self.request.lib.map(|_| self.tarball(app, "lib", write)).transpose()?;
                self.shared.insert((base_tarball, lib_tarball)).clone()
            }
        };
        let app_tarball = self.tarball(app, "app", |archive| {
            layers(&bundle, image, &ids, lib..ids.len(), archive)?;
            documents(image, &ids, names, archive)
        })?;
        let lib_tarball = lib_tarball.unwrap_or_default();
        Ok(Entry {
            app: app_tarball.name,
            app_hash: app_tarball.hash,
            app_layers: ids[lib..].to_vec(),
            lib: lib_tarball.name,
            lib_hash: lib_tarball.hash,
            lib_image_name: self.request.lib.map(|lib| lib.reference.familiar()).unwrap_or_default(),
            lib_layers: self.request.lib.map(|_| ids[base..lib].to_vec()),
            base: base_tarball.name,
            base_hash: base_tarball.hash,
            base_image_name: self.request.base.reference.familiar(),
            base_layer: ids[0].clone(),
        })
    }

    /// Writes a tarball, named after an app.
    fn tarball(&mut self, app: &ImageRecord, part: &str, fill: impl FnOnce(&mut Archive<'_>) -> Result<()>) -> Result<Tarball> {
        let name = self.name(&format!("{}_{part}_image.tar.gz", stem(&app.reference)))?;
        let id = next_id();
        self.sink.event(Event::TransferStarted { id, what: &format!("writing {name}"), total: None });
        let path = self.directory.join(&name);
        let file = File::options().write(true).create_new(true).open(&path).doing("create", &path)?;
        let out = Digested::new(BufWriter::with_capacity(256 << 10, file));
        let mut out = compressor(out, Compression::Gzip, None)?;
        let mut archive = Archive::new(&mut out);
        fill(&mut archive)?;
        archive.finish()?;
        let (file, digest) = out.finish()?.finish();
        file.into_inner().map_err(|e| from_io(|| format!("can't write {}", quote_path(&path)), e.into_error()))?;
        self.sink.event(Event::TransferFinished { id, note: "done" });
        Ok(Tarball { name, hash: digest.hex() })
    }

    fn name(&mut self, name: &str) -> Result<String> {
        let given = self.request.renames.0.get(name);
        self.renamed.extend(given.map(|_| name.to_owned()));
        let chosen = given.map_or(name, String::as_str).to_owned();
        if !self.names.insert(chosen.clone()) {
            return Err(Error::input(format!("two tarballs would be called {}", quote(chosen)))
                .cause("tarballs are named after the last part of an image's name, and after `--rename`")
                .hint("save these images into different directories, or under other names"));
        }
        Ok(chosen)
    }
}

/// `registry.example/team/app:1` is `app_1`.
fn stem(name: &Reference) -> String {
    let last = name.repository().rsplit('/').next().unwrap_or_default();
    format!("{last}_{}", name.tag().unwrap_or_default())
}

fn layers(bundle: &Bundle<'_>, image: &Ready, ids: &[String], which: Range<usize>, archive: &mut Archive<'_>) -> Result<()> {
    // Unlike in a whole archive a layer that occurs twice is written twice: its other place may be in another tarball.
    which.into_iter().try_for_each(|position| {
        docker_archive::version_one(image, ids, position, archive)?;
        docker_archive::tar(bundle, image, ids, position, archive)
    })
}

/// What makes an image of the layers.
fn documents(image: &Ready, ids: &[String], names: &[&Reference], archive: &mut Archive<'_>) -> Result<()> {
    let config = format!("{}.json", image.config.descriptor.digest.hex());
    archive.bytes(&config, &image.config.bytes)?;
    let tags: Vec<String> = names.iter().map(|name| name.familiar()).collect();
    let paths: Vec<String> = ids.iter().map(|id| format!("{id}/layer.tar")).collect();
    let manifest = serde_json::json!([{ "Config": config, "RepoTags": tags, "Layers": paths }]);
    archive.bytes("manifest.json", &serde_json::to_vec(&manifest).expect("plain data"))?;
    let mut repositories: BTreeMap<String, BTreeMap<&str, &String>> = BTreeMap::new();
    for name in names {
        if let (Some(tag), Some(top)) = (name.tag(), ids.last()) {
            repositories.entry(name.familiar_repository()).or_default().insert(tag, top);
        }
    }
    archive.bytes("repositories", &serde_json::to_vec(&repositories).expect("plain data"))
}
