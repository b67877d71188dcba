//! Pulls into a storage directory, from a registry made of a map and of faults.

#[path = "servers/fault.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod fault;

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use fault::{Asked, Reply, Server, http};
use rootling::error::{Kind, Result};
use rootling::event::{Event, Silent, Sink};
use rootling::oci::{Descriptor, DiffId, Digest, ImageConfig, ImagePath, Index, Manifest, Platform, media_type};
use rootling::rootfs::view::View;
use rootling::store::{ImageRecord, Store};
use rootling::transfer::{Client, ClientSettings, Need, PullOptions, pull};

/// An image as a registry holds it.
#[derive(Clone, Default)]
struct Published {
    /// What stands below `/v2/some/image/`: media type and bytes.
    files: HashMap<String, (String, Vec<u8>)>,
}

impl Published {
    fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Descriptor {
        let digest = Digest::of(bytes);
        self.files.insert(format!("blobs/{digest}"), ("application/octet-stream".into(), bytes.to_vec()));
        Descriptor::new(media_type, digest, bytes.len() as u64)
    }

    fn manifest(&mut self, media_type: &str, bytes: Vec<u8>, tag: Option<&str>) -> Descriptor {
        let descriptor = Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64);
        for name in tag.map(str::to_owned).into_iter().chain([descriptor.digest.to_string()]) {
            self.files.insert(format!("manifests/{name}"), (media_type.to_owned(), bytes.clone()));
        }
        descriptor
    }

    /// Layers are (media type, compressed, tar).
    fn image(&mut self, layers: &[(&str, Vec<u8>, Vec<u8>)], tag: Option<&str>) -> Descriptor {
        let mut config = ImageConfig::scratch(&Platform::host());
        config.rootfs.diff_ids = layers.iter().map(|(_, _, tar)| DiffId(Digest::of(tar))).collect();
        let config = self.blob(media_type::OCI_CONFIG, &config.to_bytes());
        let layers = layers.iter().map(|(media_type, bytes, _)| self.blob(media_type, bytes)).collect();
        let bytes = Manifest::oci(config, layers).to_bytes();
        self.manifest(media_type::OCI_MANIFEST, bytes, tag)
    }

    /// The honest answer.
    fn answer(&self, asked: &Asked) -> Reply {
        let mut words = asked.line.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let Some((media_type, bytes)) = path.strip_prefix("/v2/some/image/").and_then(|p| self.files.get(p)) else {
            return Reply::Close(http("404 Not Found", &[], r#"{"errors":[{"code":"UNKNOWN","message":"not here"}]}"#));
        };
        let from = asked.range();
        let headers = [
            format!("Content-Type: {media_type}"),
            format!("Docker-Content-Digest: {}", Digest::of(bytes)),
            format!("Content-Length: {}", bytes.len() - from),
            format!("Content-Range: bytes {from}-{}/{}", bytes.len().max(1) - 1, bytes.len()),
        ];
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let body = if method == "HEAD" { &[][..] } else { &bytes[from..] };
        Reply::Close(http(if from > 0 { "206 Partial Content" } else { "200 OK" }, &headers, body))
    }
}

fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        builder.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gzip_layer(files: &[(&str, &str)]) -> (&'static str, Vec<u8>, Vec<u8>) {
    let tar = tar(files);
    (media_type::OCI_LAYER_GZIP, gzip(&tar), tar)
}

fn serve(published: &Published) -> Server {
    let published = published.clone();
    Server::start(move |asked| published.answer(asked))
}

/// A storage directory that goes away with the test.
struct Storage {
    _dir: tempfile::TempDir,
    store: Store,
}

impl Storage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("storage")).unwrap();
        Self { _dir: dir, store }
    }

    fn pull(&self, server: &Server) -> Result<ImageRecord> {
        self.pull_with(server, &Silent)
    }

    fn pull_with(&self, server: &Server, sink: &dyn Sink) -> Result<ImageRecord> {
        let client = Client::new(ClientSettings::default());
        pull(&self.store, &client, &server.reference(), &PullOptions { platform: Platform::host(), need: Need::Files }, sink)
    }

    fn read(&self, record: &ImageRecord, path: &str) -> Option<String> {
        let view = View::new(self.store.stack(&record.layers).unwrap());
        view.read(&ImagePath::clean(path), 1 << 20).unwrap().map(|bytes| String::from_utf8(bytes).unwrap())
    }
}

/// Requests without what differs between runs, sorted: `HEAD manifests/tag`.
fn requests(server: &Server) -> Vec<String> {
    let short = |line: &String| {
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let path = path.strip_prefix("/v2/some/image/").unwrap_or(path);
        format!("{method} {}", path.split("sha256:").next().unwrap())
    };
    let mut requests: Vec<String> = server.requests().iter().map(short).collect();
    requests.sort();
    requests
}

#[test]
fn all_kinds_of_layers() {
    let plain = tar(&[("plain", "1"), ("both", "plain")]);
    let zstd = tar(&[("zstd", "2"), ("both", "zstd")]);
    let layers = [
        (media_type::OCI_LAYER, plain.clone(), plain),
        (media_type::OCI_LAYER_ZSTD, zstd::encode_all(&zstd[..], 1).unwrap(), zstd),
        gzip_layer(&[("gzip", "3")]),
        // The same again, and one with nothing in it.
        gzip_layer(&[("gzip", "3")]),
        gzip_layer(&[]),
        // The compression is told by content.
        (media_type::OCI_LAYER_GZIP, tar(&[("lie", "4")]), tar(&[("lie", "4")])),
    ];
    let mut published = Published::default();
    let manifest = published.image(&layers, Some("tag"));
    let (storage, server) = (Storage::new(), serve(&published));

    let record = storage.pull(&server).unwrap();
    assert_eq!(record.manifest.digest, manifest.digest);
    for (path, expected) in [("plain", "1"), ("zstd", "2"), ("gzip", "3"), ("lie", "4"), ("both", "zstd")] {
        assert_eq!(storage.read(&record, path).as_deref(), Some(expected), "{path}");
    }
    for (_, bytes, tar) in &layers {
        assert_eq!(storage.store.read_blob(&Digest::of(bytes), 1 << 20).unwrap(), *bytes, "kept as served");
        let blobs = storage.store.layer_blobs(&DiffId(Digest::of(tar))).unwrap();
        assert!(blobs.iter().any(|blob| blob.digest == Digest::of(bytes)), "{blobs:?}");
    }
    assert_eq!(requests(&server), [["GET blobs/"; 6].as_slice(), &["GET manifests/tag"]].concat());

    assert_eq!(storage.pull(&server).unwrap(), record);
    assert_eq!(requests(&server)[7..], ["HEAD manifests/tag"], "an unchanged tag costs one request");
}

#[test]
fn only_what_is_new_is_fetched() {
    let (base, old, new) = (gzip_layer(&[("base", "b")]), gzip_layer(&[("top", "old")]), gzip_layer(&[("top", "new")]));
    let mut first = Published::default();
    first.image(&[base.clone(), old], Some("tag"));
    let mut second = Published::default();
    second.image(&[base, new], Some("tag"));
    let (then, now) = (first.clone(), second);
    let changed = Arc::new(AtomicUsize::new(0));
    let switch = changed.clone();
    let server = Server::start(move |asked| if switch.load(Ordering::Relaxed) == 0 { then.answer(asked) } else { now.answer(asked) });

    let storage = Storage::new();
    storage.pull(&server).unwrap();
    changed.store(1, Ordering::Relaxed);
    let before = server.requests().len();
    let record = storage.pull(&server).unwrap();
    assert_eq!(storage.read(&record, "top").as_deref(), Some("new"));
    let mut more = server.requests()[before..].to_vec();
    more.sort();
    assert_eq!(more.len(), 4, "HEAD, manifest, config, one layer: {more:?}");
}

#[test]
fn an_index_gives_the_platforms_image() {
    let mut published = Published::default();
    let mut mine = published.image(&[gzip_layer(&[("mine", "1")])], None);
    mine.platform = Some(Platform::host());
    let mut other = published.image(&[gzip_layer(&[("other", "1")])], None);
    other.platform = Some(Platform::linux("s390x", None));
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.into()),
        manifests: vec![other.clone(), mine.clone()],
        annotations: Default::default(),
        other: Default::default(),
    };
    published.manifest(media_type::OCI_INDEX, serde_json::to_vec(&index).unwrap(), Some("tag"));
    let (storage, server) = (Storage::new(), serve(&published));
    let record = storage.pull(&server).unwrap();
    assert_eq!(record.manifest.digest, mine.digest);
    let before = server.requests().len();
    assert_eq!(storage.pull(&server).unwrap(), record);
    assert_eq!(requests(&server).len() - before, 1);

    let options = PullOptions { platform: Platform::linux("riscv64", None), need: Need::Files };
    let client = Client::new(ClientSettings::default());
    let error = pull(&storage.store, &client, &server.reference(), &options, &Silent).unwrap_err();
    assert!(error.to_string().contains("no image for platform `linux/riscv64`"), "{error}");
    assert_eq!(storage.store.image(&server.reference()).unwrap(), Some(record), "the name still means what it did");
}

/// What a server does to the honest answer.
type Spoil = fn(&Published, &Asked) -> Reply;

fn body(published: &Published, asked: &Asked, change: fn(&mut Vec<u8>)) -> Reply {
    match (published.answer(asked), asked.line.contains("/blobs/")) {
        (Reply::Close(mut bytes), true) => {
            change(&mut bytes);
            Reply::Close(bytes)
        }
        (reply, _) => reply,
    }
}

#[test]
fn faults_leave_the_storage_good() {
    let cases: &[(&str, Spoil, Kind, &[&str])] = &[
        ("a flipped bit", |p, a| body(p, a, |b| *b.last_mut().unwrap() ^= 1), Kind::Corrupt, &["127.0.0.1:"]),
        (
            "a missing layer",
            |p, a| if a.line.contains("blobs") { Reply::Close(http("404 Not Found", &[], "")) } else { p.answer(a) },
            Kind::NotFound,
            &["404"],
        ),
        ("no such tag", |_, _| Reply::Close(http("404 Not Found", &[], "")), Kind::NotFound, &["can't fetch the manifest of `127.0.0.1:"]),
        ("a page", |_, _| Reply::Close(http("200 OK", &[], "<html>hello</html>")), Kind::Corrupt, &["not an image manifest"]),
        ("schema 1", |_, _| Reply::Close(http("200 OK", &[], r#"{"schemaVersion":1}"#)), Kind::Unsupported, &["schema version 1"]),
    ];
    for (name, spoil, kind, expected) in cases {
        let mut published = Published::default();
        published.image(&[gzip_layer(&[("a", "1")]), gzip_layer(&[("b", "2")])], Some("tag"));
        let honest = serve(&published);
        let spoil = *spoil;
        let server = Server::start(move |asked| spoil(&published, asked));
        let storage = Storage::new();
        let error = storage.pull(&server).unwrap_err();
        assert_eq!(error.kind(), *kind, "{name}: {error}");
        expected.iter().for_each(|part| assert!(error.to_string().contains(part), "{name}: `{part}` is not in: {error}"));
        assert!(storage.store.images().unwrap().is_empty(), "{name}");
        storage.pull(&honest).unwrap_or_else(|e| panic!("{name}: afterwards: {e}"));
    }
}

#[test]
fn images_that_contradict_themselves() {
    let layer = || gzip_layer(&[("a", "1")]);
    type Make = Box<dyn Fn(&mut Published)>;
    let cases: Vec<(Make, &[&str])> = vec![
        (
            Box::new(move |p| {
                let (media_type, bytes, _) = layer();
                p.image(&[(media_type, bytes, tar(&[("a", "other")]))], Some("tag"));
            }),
            &["layer 1/1", "the layer's content is not what the image's config says"],
        ),
        (
            Box::new(move |p| {
                let (media_type, bytes, tar) = layer();
                p.image(&[(media_type, bytes[..bytes.len() - 9].to_vec(), tar)], Some("tag"));
            }),
            &["layer 1/1", "decompress"],
        ),
        (
            Box::new(move |p| {
                let tar = gzip_layer(&[("a", &"x".repeat(1000))]).2[..700].to_vec();
                p.image(&[(media_type::OCI_LAYER_GZIP, gzip(&tar), tar)], Some("tag"));
            }),
            &["layer 1/1"],
        ),
        (
            Box::new(move |p| {
                let config = p.blob("application/vnd.cncf.helm.config.v1+json", b"{}");
                let bytes = Manifest::oci(config, vec![]).to_bytes();
                p.manifest(media_type::OCI_MANIFEST, bytes, Some("tag"));
            }),
            &["is not a container image", "helm"],
        ),
    ];
    for (make, expected) in cases {
        let mut published = Published::default();
        make(&mut published);
        let (storage, server) = (Storage::new(), serve(&published));
        let error = storage.pull(&server).unwrap_err();
        expected.iter().for_each(|part| assert!(error.to_string().contains(part), "`{part}` is not in: {error}"));
        assert!(storage.store.images().unwrap().is_empty());
    }
}

#[test]
fn one_bad_transfer_is_forgiven() {
    let mut published = Published::default();
    published.image(&[gzip_layer(&[("a", "1")])], Some("tag"));
    let spoiled = Mutex::new(HashMap::<String, usize>::new());
    let server = Server::start(move |asked| {
        let times = { *spoiled.lock().unwrap().entry(asked.line.clone()).and_modify(|n| *n += 1).or_insert(1) };
        if times == 1 { body(&published, asked, |b| *b.last_mut().unwrap() ^= 1) } else { published.answer(asked) }
    });
    let storage = Storage::new();
    let record = storage.pull(&server).unwrap();
    assert_eq!(storage.read(&record, "a").as_deref(), Some("1"));
}

#[test]
fn an_interrupted_pull_goes_on_where_it_was() {
    // Does not compress, so that half of it is a good deal.
    let noise: String = (0..200_000_u64).map(|i| char::from(b'!' + (i.wrapping_mul(6_364_136_223_846_793_005) >> 57) as u8 % 90)).collect();
    let (media_type, bytes, tar) = gzip_layer(&[("noise", &noise)]);
    let half = bytes.len() / 2;
    let mut published = Published::default();
    published.image(&[(media_type, bytes.clone(), tar)], Some("tag"));
    let layer = format!("blobs/{}", Digest::of(&bytes));
    let honest = serve(&published);
    let broken = Server::start(move |asked| match (asked.line.contains(&layer), asked.range()) {
        (true, 0) => Reply::Close(http("200 OK", &[&format!("Content-Length: {}", bytes.len())], &bytes[..half])),
        (true, _) => Reply::Close(http("403 Forbidden", &[], "")),
        _ => published.answer(asked),
    });
    let storage = Storage::new();
    assert_eq!(storage.pull(&broken).unwrap_err().kind(), Kind::Denied);
    let seen = Seen::default();
    let record = storage.pull_with(&honest, &seen).unwrap();
    assert_eq!(storage.read(&record, "noise").as_deref(), Some(noise.as_str()));
    let first = seen.0.lock().unwrap().iter().copied().find(|done| *done > 0);
    assert!(first.is_some_and(|done| done > half as u64), "{first:?} of {half}");
}

/// Remembers how far transfers were.
#[derive(Default)]
struct Seen(Mutex<Vec<u64>>);

impl Sink for Seen {
    fn event(&self, event: Event<'_>) {
        if let Event::TransferAdvanced { done, .. } = event {
            self.0.lock().unwrap().push(done);
        }
    }
}
