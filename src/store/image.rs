//! Images: names for manifests, and what a listing shows of them.
//!
//! A record repeats what the image's manifest and config say where listing and garbage collection need it, so that these
//! read one small file an image. An image has one record under each of its names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::index::Extra;
use super::lease::Kind as Lease;
use super::{Store, record};
use crate::error::{Error, IoContext, Kind, Place, Result, nearest, quote};
use crate::event::Event;
use crate::oci::{Descriptor, DiffId, Digest, ImageConfig, Manifest, ManifestOrIndex, Platform, Reference};

/// Largest manifest or config that is read: registries accept manifests up to 4 MiB, configs are of that order.
pub(super) const LARGEST_DOCUMENT: u64 = 16 << 20;

/// What is known of an image under one name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The name.
    #[serde(with = "as_text")]
    pub reference: Reference,
    /// Its manifest: media type, digest and size.
    pub manifest: Descriptor,
    /// The index the manifest was chosen from, if the name stood for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Digest>,
    /// The image's ID: digest of its config.
    pub config: Digest,
    /// What it runs on.
    pub platform: Platform,
    /// Its layers, bottom first.
    pub layers: Vec<DiffId>,
    /// Blobs the manifest names as layers. Those of an image built here need not exist: they can be packed from `layers`.
    pub blobs: Vec<Digest>,
    /// Sum of the layers' uncompressed tars, in bytes.
    pub size: u64,
    /// When the image was made, as its config says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// When this record was written, in seconds since 1970.
    pub stored: u64,
    /// The index' images for other platforms, as far as they are here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Member>,
    /// What the index has besides images, if it is here with everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extras: Vec<Extra>,
}

/// What is known of an image of an index besides the one the name alone means; fields as in [`ImageRecord`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Its manifest.
    pub manifest: Descriptor,
    /// The image's ID.
    pub config: Digest,
    /// What it runs on.
    pub platform: Platform,
    /// Its layers, bottom first.
    pub layers: Vec<DiffId>,
    /// Blobs the manifest names as layers.
    pub blobs: Vec<Digest>,
    /// Sum of the layers' uncompressed tars, in bytes.
    pub size: u64,
    /// When the image was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
}

/// An image with its documents.
#[derive(Clone, Debug)]
pub struct Image {
    /// Name and summary.
    pub record: ImageRecord,
    /// The manifest.
    pub manifest: Manifest,
    /// The config.
    pub config: ImageConfig,
}

impl Store {
    /// All images, sorted by name. Damaged records are left out and warned of.
    pub fn images(&self) -> Result<Vec<ImageRecord>> {
        let mut images = Vec::new();
        for (_, record) in self.image_records()? {
            match record {
                Ok(record) => images.push(record),
                Err(error) => self.warn_of(&error),
            }
        }
        images.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(images)
    }

    /// The files of all image records, each with its record or what is wrong with it.
    pub fn image_records(&self) -> Result<Vec<(PathBuf, Result<ImageRecord>)>> {
        let dir = self.layout().images();
        let mut records = Vec::new();
        for entry in std::fs::read_dir(&dir).doing("read directory", &dir)? {
            let path = entry.doing("read directory", &dir)?.path();
            if path.extension().is_some_and(|e| e == "json")
                && let Some(bytes) = record::read(&path).transpose()
            {
                let record = bytes.and_then(|bytes| parse(&path, &bytes));
                records.push((path, record));
            }
        }
        Ok(records)
    }

    /// The image of exactly this name.
    pub fn image(&self, reference: &Reference) -> Result<Option<ImageRecord>> {
        let path = self.layout().image(reference);
        // To be pulled or built again it is enough to know that it is not here; listings and checks tell of the damage.
        let Some(bytes) = record::read(&path)?.filter(|bytes| !is_blank(bytes)) else { return Ok(None) };
        let record = parse(&path, &bytes)?;
        if record.reference != *reference {
            return Err(damaged(&path, &format!("it is the record of `{}`", record.reference)));
        }
        Ok(Some(record))
    }

    /// The image meant by what a user wrote: a name, a name with digest, an ID, or a beginning of an ID.
    ///
    /// A name wins over an ID. `NotFound` suggests the nearest name; a beginning of several IDs is an error listing them.
    pub fn find_image(&self, text: &str) -> Result<ImageRecord> {
        // `sha256:…` would parse as repository `sha256` with a tag.
        let id = text.strip_prefix("sha256:").unwrap_or(text);
        let reference = if id.len() < text.len() { None } else { text.parse::<Reference>().ok() };
        if let Some(reference) = &reference
            && let Some(record) = self.image(reference)?
        {
            return Ok(record);
        }
        if let (Some(_), Some(names)) = (&reference, self.inner.short_names.get()) {
            for meant in names.local(text) {
                if let Some(record) = self.image(&meant)? {
                    return Ok(record);
                }
            }
        }
        let images = self.images()?;
        if let Some((reference, digest)) = reference.as_ref().and_then(|r| Some((r, r.digest()?)))
            && let Some(record) = images.iter().find(|i| same_repository(&i.reference, reference) && i.stands_for(digest))
        {
            return Ok(record.clone());
        }
        let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if (1..=64).contains(&id.len()) && id.bytes().all(lower_hex) {
            // What a build for several platforms prints is the index.
            let of_index = |image: &ImageRecord| image.index.is_some_and(|index| index.hex().starts_with(id));
            let mut found: Vec<&ImageRecord> = images.iter().filter(|i| i.config.hex().starts_with(id) || of_index(i)).collect();
            found.sort_by_key(|i| i.config);
            found.dedup_by_key(|i| i.config);
            match found[..] {
                [] => {}
                [only] => return Ok(only.clone()),
                [..] => return Err(ambiguous(text, &found)),
            }
        }
        Err(not_found(text, reference.as_ref(), &images))
    }

    /// [`Store::find_image`], and of the images of that name the one for a platform, if one is asked for.
    pub fn find_platform(&self, text: &str, platform: Option<&Platform>) -> Result<ImageRecord> {
        let record = self.find_image(text)?;
        record.expect_image()?;
        let Some(platform) = platform else { return Ok(record) };
        record.for_platform(platform).ok_or_else(|| {
            let have: Vec<String> = record.members().iter().map(|member| member.platform.to_string()).collect();
            let name = record.reference.familiar();
            Error::with_kind(Kind::NotFound, format!("{} has no image for platform `{platform}` here", quote(&name)))
                .cause(format!("there are images for {}", have.join(", ")))
                .hint(format!("`rootling pull --platform {platform} {name}` fetches it, if the registry has it"))
        })
    }

    /// Reads an image's manifest and config.
    pub fn load_image(&self, record: &ImageRecord) -> Result<Image> {
        record.expect_image()?;
        let (manifest, config) = self.documents(&record.manifest)?;
        Ok(Image { record: record.clone(), manifest, config })
    }

    /// An image whose manifest, config and layers are here, without naming it; nothing is written.
    pub fn unnamed_image(&self, reference: &Reference, manifest: &Descriptor) -> Result<Image> {
        let member = self.member(manifest)?;
        self.load_image(&ImageRecord::new(reference.clone(), member, None))
    }

    /// Names an image whose manifest, config and layers are here; whatever had the name before loses it.
    ///
    /// `index`: the index the manifest was chosen from; its images for other platforms that the name had stay. What can't be checked after a
    /// power cut is brought to the disk first (see `sync`), then the record appears; when this fails, what had the name still has it.
    /// Does nothing if the name says so already.
    pub fn put_image(&self, reference: &Reference, manifest: &Descriptor, index: Option<&Digest>) -> Result<ImageRecord> {
        let chosen = self.member(manifest)?;
        let (mut others, mut extras) = (Vec::new(), Vec::new());
        if let Some(index) = index {
            self.has_blob(index)?;
            // A damaged record is replaced like any other.
            if let Ok(Some(old)) = self.image(reference)
                && old.index.as_ref() == Some(index)
            {
                others = old.members();
                others.retain(|member| member.manifest.digest != chosen.manifest.digest);
                others.retain(|member| self.member(&member.manifest).is_ok());
                extras = old.extras;
                let here = |digest: &Digest| self.has_blob(digest).is_ok_and(|size| size.is_some());
                extras.retain(|extra| extra.blobs.iter().chain([&extra.manifest.digest]).all(here));
            }
        }
        self.put_record(ImageRecord::new(reference.clone(), chosen, index.copied()).with(others, extras))
    }

    /// Writes a record, unless the name says so already.
    pub(super) fn put_record(&self, record: ImageRecord) -> Result<ImageRecord> {
        let stored = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let record = ImageRecord { stored, ..record };
        if let Ok(Some(old)) = self.image(&record.reference)
            && old == (ImageRecord { stored: old.stored, ..record.clone() })
        {
            return Ok(old);
        }
        let path = self.layout().image(&record.reference);
        let mut unfinished = self.prepare_json(&record)?;
        self.made_something();
        let layers = record.others.iter().flat_map(|member| &member.layers).chain(&record.layers).copied().collect::<BTreeSet<_>>();
        self.sync_for(&layers.into_iter().collect::<Vec<_>>())?;
        unfinished.place(&path).doing("write", &path)?;
        Ok(record)
    }

    /// An image whose manifest, config and layers are here, leased.
    pub(super) fn member(&self, manifest: &Descriptor) -> Result<Member> {
        let (document, config) = self.documents(manifest)?;
        for layer in &document.layers {
            self.inner.live.lease(Lease::Blob, &layer.digest)?;
        }
        let layers = self.stack_layers(&config.rootfs.diff_ids)?;
        Ok(Member {
            manifest: Descriptor::new(&manifest.media_type, manifest.digest, manifest.size),
            config: document.config.digest,
            // An index may know better than the config.
            platform: manifest.platform.clone().unwrap_or_else(|| config.platform()),
            layers: config.rootfs.diff_ids.clone(),
            blobs: document.layers.iter().map(|layer| layer.digest).collect(),
            size: layers.iter().map(|layer| layer.size).sum(),
            created: config.created,
        })
    }

    /// Takes a name away; `false` if nothing had it. What the image was made of stays until [`Store::prune`].
    ///
    /// Works on a damaged record too.
    pub fn remove_image(&self, reference: &Reference) -> Result<bool> {
        let path = self.layout().image(reference);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            other => other.doing("remove", &path).map(|()| true),
        }
    }

    /// An image's manifest and config.
    pub fn documents(&self, manifest: &Descriptor) -> Result<(Manifest, ImageConfig)> {
        let bytes = self.read_blob(&manifest.digest, LARGEST_DOCUMENT)?;
        let document = match ManifestOrIndex::parse(&bytes, Some(&manifest.media_type))? {
            ManifestOrIndex::Manifest(document) => document,
            ManifestOrIndex::Index(_) => {
                return Err(Error::with_kind(Kind::Corrupt, format!("`{}` is an index, not an image manifest", manifest.digest)));
            }
        };
        let bytes = self.read_blob(&document.config.digest, LARGEST_DOCUMENT)?;
        let config = serde_json::from_slice(&bytes).map_err(|e| {
            Error::with_kind(Kind::Corrupt, format!("image config `{}` can't be understood", document.config.digest)).cause(e)
        })?;
        Ok((document, config))
    }

    fn warn_of(&self, error: &Error) {
        let place = match error.place() {
            Some(Place::Path(path)) => format!(" ({})", quote(path.as_os_str().as_encoded_bytes())),
            _ => String::new(),
        };
        let hint = error.hints().first().map(|hint| format!("; {hint}")).unwrap_or_default();
        self.sink().event(Event::Warning(&format!("{error}{place}{hint}")));
    }
}

impl ImageRecord {
    /// One image; not yet written.
    pub(super) fn new(reference: Reference, chosen: Member, index: Option<Digest>) -> Self {
        let Member { manifest, config, platform, layers, blobs, size, created } = chosen;
        let (others, extras) = (Vec::new(), Vec::new());
        Self { reference, manifest, index, config, platform, layers, blobs, size, created, stored: 0, others, extras }
    }

    /// The same with what else the index has.
    pub(super) fn with(self, others: Vec<Member>, extras: Vec<Extra>) -> Self {
        Self { others, extras, ..self }
    }

    /// All images the name stands for, the one it means alone first.
    pub fn members(&self) -> Vec<Member> {
        let Self { manifest, config, platform, layers, blobs, size, created, .. } = self.clone();
        let mut members = vec![Member { manifest, config, platform, layers, blobs, size, created }];
        members.extend(self.others.iter().cloned());
        members
    }

    /// The same name for another platform; `None` if there is no image for it here. An image that doesn't say what it runs on
    /// serves everybody.
    pub fn for_platform(&self, wanted: &Platform) -> Option<Self> {
        let mut members = self.members();
        let serves = |member: &Member| if member.platform.architecture.is_empty() { Some(0) } else { member.platform.serves(wanted) };
        // The first of equals.
        let best =
            members.iter().enumerate().rev().filter_map(|(at, member)| Some((serves(member)?, at))).max_by_key(|(score, _)| *score)?.1;
        let chosen = members.remove(best);
        let other = Self::new(self.reference.clone(), chosen, self.index).with(members, self.extras.clone());
        Some(Self { stored: self.stored, ..other })
    }

    /// Whether a digest in a reference means this image: its manifest's, or that of the index it came from.
    pub fn stands_for(&self, digest: &Digest) -> bool {
        self.manifest.digest == *digest || self.index.as_ref() == Some(digest)
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<ImageRecord> {
    if is_blank(bytes) {
        return Err(damaged(path, "it is empty, as after a power cut"));
    }
    serde_json::from_slice(bytes).map_err(|e| damaged(path, &e.to_string()))
}

/// What a power cut leaves of a file whose content had not come to the disk. Records appear by a rename, so nobody sees one being written.
fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn damaged(path: &Path, why: &str) -> Error {
    Error::with_kind(Kind::Corrupt, "an image record is damaged").at(Place::Path(path.to_owned())).cause(why).hint(remedy(path))
}

fn remedy(path: &Path) -> String {
    format!("remove {} and pull or build that image again; other images are not affected", quote(path.as_os_str().as_encoded_bytes()))
}

fn same_repository(a: &Reference, b: &Reference) -> bool {
    (a.registry(), a.repository()) == (b.registry(), b.repository())
}

fn ambiguous(text: &str, found: &[&ImageRecord]) -> Error {
    let list: Vec<String> = found.iter().map(|i| format!("{} ({})", i.config.short(), i.reference.familiar())).collect();
    Error::input(format!("{} is the beginning of {} image IDs", quote(text), found.len())).cause(list.join(", ")).hint("write more of it")
}

fn not_found(text: &str, reference: Option<&Reference>, images: &[ImageRecord]) -> Error {
    let error = Error::with_kind(Kind::NotFound, format!("no image {} in the storage directory", quote(text)));
    let names: Vec<String> = images.iter().map(|i| i.reference.familiar()).collect();
    let written = reference.map_or_else(|| text.to_owned(), Reference::familiar);
    match nearest(&written, names.iter().map(String::as_str)) {
        Some(name) => error.hint(format!("did you mean {}?", quote(name))),
        None => error.hint("`rootling images` lists what there is, `rootling pull` fetches more"),
    }
}

/// References in records, as text.
mod as_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::oci::Reference;

    pub fn serialize<S: Serializer>(reference: &Reference, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(reference)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Reference, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::{Arc, Mutex};

    use super::super::testing::{self, image, layer};
    use super::*;
    use crate::event::Sink;

    #[derive(Default)]
    struct Warnings(Mutex<Vec<String>>);

    impl Sink for Warnings {
        fn event(&self, event: Event<'_>) {
            if let Event::Warning(text) = event {
                self.0.lock().unwrap().push(text.to_owned());
            }
        }
    }

    #[test]
    fn finds_what_a_user_means() {
        let (_dir, store) = testing::store();
        let app = image(&store, "app", &[&layer(&store, "a")]);
        let other = image(&store, "localhost:5000/team/app:1.0", &[]);
        let tagged = store.put_image(&"copy:v2".parse().unwrap(), &app.manifest, None).unwrap();
        let (id, other_id) = (app.config.hex(), other.config.to_string());
        for (text, expected) in [
            ("app", Ok(&app)),
            ("docker.io/library/app:latest", Ok(&app)),
            ("copy:v2", Ok(&tagged)),
            ("localhost:5000/team/app:1.0", Ok(&other)),
            (&format!("app@{}", app.manifest.digest), Ok(&app)),
            (&format!("copy@{}", app.manifest.digest), Ok(&tagged)),
            (&other_id, Ok(&other)),
            (&other_id["sha256:".len()..][..20], Ok(&other)),
            (&format!("app@{}", Digest::of("x")), Err("no image")),
            ("ap", Err("no image")),
            ("app:1", Err("no image")),
            ("", Err("no image")),
            ("../../etc/passwd", Err("no image")),
        ] {
            match (store.find_image(text), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(&found, expected, "{text}"),
                (Err(e), Err(expected)) => assert!(e.what().contains(expected) && !e.hints().is_empty(), "{text}: {e}"),
                (result, _) => panic!("{text}: {result:?}"),
            }
        }
        // One image under two names is no ambiguity.
        assert_eq!(store.find_image(&id[..32]).unwrap().config, app.config);
        assert_eq!(store.find_image("sha256:").unwrap_err().kind(), Kind::NotFound);
        assert_eq!(store.find_image("ap:latest").unwrap_err().hints(), ["did you mean `app:latest`?"]);
    }

    #[test]
    fn a_name_for_an_image_that_lacks_something_is_refused() {
        let (_dir, store) = testing::store();
        let base = layer(&store, "a");
        let app = image(&store, "app", &[&base]);
        fs::remove_dir_all(&base.dir).unwrap();
        let fresh = Store::open(store.path()).unwrap();
        let name: Reference = "copy".parse().unwrap();
        assert_eq!(fresh.put_image(&name, &app.manifest, None).unwrap_err().kind(), Kind::NotFound);
        assert_eq!(fresh.image(&name).unwrap(), None);
        assert!(testing::names(&store, "tmp").is_empty());
    }

    #[test]
    fn naming_again_writes_nothing() {
        use std::os::unix::fs::MetadataExt as _;
        let (_dir, store) = testing::store();
        let app = image(&store, "app", &[&layer(&store, "a")]);
        let inode = || fs::metadata(store.layout().image(&app.reference)).unwrap().ino();
        let before = inode();
        let again = Store::open(store.path()).unwrap();
        assert_eq!(again.put_image(&app.reference, &app.manifest, None).unwrap(), app);
        assert_eq!(inode(), before);
        let other = image(&store, "other", &[]);
        again.put_image(&app.reference, &other.manifest, None).unwrap();
        assert_eq!(store.image(&app.reference).unwrap().unwrap().config, other.config);
    }

    #[test]
    fn a_damaged_record_spoils_only_itself() {
        let (_dir, store) = testing::store();
        let warnings = Arc::new(Warnings::default());
        let store = Store::open_with(store.path(), warnings.clone()).unwrap();
        let good = image(&store, "good", &[]);
        let bad: Reference = "bad".parse().unwrap();
        let path = store.layout().image(&bad);
        let of_another = serde_json::to_string(&good).unwrap();
        assert!(store.image(&bad).unwrap().is_none());
        fs::write(&path, "").unwrap();
        assert!(store.image(&bad).unwrap().is_none(), "it never came to the disk");
        for garbage in ["{", "[1]", "{\"reference\":\"B\"}", &of_another] {
            fs::write(&path, garbage).unwrap();
            let error = store.image(&bad).unwrap_err();
            assert!(error.kind() == Kind::Corrupt && error.place() == Some(&Place::Path(path.clone())), "{error:?}");
            assert!(error.hints()[0].starts_with("remove `"), "{error:?}");
            assert_eq!(store.find_image("good").unwrap(), good);
        }
        for damage in ["{", "", "\0\0\0"] {
            fs::write(&path, damage).unwrap();
            warnings.0.lock().unwrap().clear();
            assert_eq!(store.images().unwrap(), std::slice::from_ref(&good));
            assert!(warnings.0.lock().unwrap().iter().any(|w| w.contains("bad+latest.json")), "{damage:?}: {:?}", warnings.0);
        }
        // Both remedies work.
        assert!(store.remove_image(&bad).unwrap() && !store.remove_image(&bad).unwrap());
        fs::write(&path, "{").unwrap();
        assert_eq!(store.put_image(&bad, &good.manifest, None).unwrap().config, good.config);
    }

    #[test]
    fn reads_where_nothing_can_be_written() {
        let (_dir, store) = testing::store();
        let app = image(&store, "app", &[&layer(&store, "a")]);
        let reader = Store::open_existing(store.path()).unwrap().unwrap();
        assert_eq!(reader.images().unwrap(), std::slice::from_ref(&app));
        assert_eq!(reader.load_image(&app).unwrap().config.author.as_deref(), Some("app"));
        assert!(reader.layer(&app.layers[0]).unwrap().is_some());
    }
}
