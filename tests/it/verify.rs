//! Damage of every kind is found, named and mended; what can't be mended goes, and nothing else.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Instant;

use serde_json::Value;

use crate::login::answer_once;
use crate::registry::{Registry, push_sample};
use crate::rig::{Rig, assert_ordinary_user, fixture, needs};

/// A pulled image with layers of gzip, zstd and plain; `built` on top of it, with a tree; the registry.
struct Bench {
    rig: Rig,
    registry: Registry,
    reference: String,
}

impl Bench {
    fn new() -> Option<Bench> {
        assert_ordinary_user();
        needs("docker-registry")?;
        needs("skopeo")?;
        fixture("fixtures/base.tar")?;
        let registry = Registry::start();
        let reference = push_sample(&registry, "sample", 3);
        let rig = Rig::new();
        rig.ok(["pull", &reference]);
        rig.build("built", &format!("FROM {reference}\nRUN echo own >/own && chown 33:44 /own\n"));
        rig.ok(["path", "built"]);
        Some(Bench { rig, registry, reference })
    }

    /// The file of a layer by its path in there.
    fn file(&self, path: &str) -> PathBuf {
        let layers = fs::read_dir(self.rig.storage().join("layers")).unwrap();
        layers.map(|layer| layer.unwrap().path().join("fs").join(path)).find(|file| file.exists()).expect("the file is in a layer")
    }

    /// The directory of the layer that has a file.
    fn layer(&self, path: &str) -> PathBuf {
        let file = self.file(path);
        file.ancestors().find(|above| above.parent().is_some_and(|parent| parent.ends_with("layers"))).unwrap().to_owned()
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.rig.storage().join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())
    }

    fn inspect(&self, template: &str) -> String {
        self.rig.ok(["inspect", "--format", template, &self.reference]).trim().to_owned()
    }

    fn record(&self, name: &str) -> PathBuf {
        let records = fs::read_dir(self.rig.storage().join("images")).unwrap().map(|record| record.unwrap().path());
        records.into_iter().find(|record| record.to_string_lossy().contains(name)).unwrap()
    }
}

/// The report, and whether the command was content.
fn verify(rig: &Rig, arguments: &[&str]) -> (Value, bool) {
    let mut words = vec!["verify", "--format", "json", "--retry", "0"];
    words.extend(arguments);
    let ran = rig.run(words);
    assert!(ran.code == Some(0) || ran.code == Some(1), "{ran}");
    (serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran}")), ran.code == Some(0))
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    rewrite(path, &bytes);
}

/// Writes a file and gives it back the time it had: the disk, not a person, did it.
fn rewrite(path: &Path, bytes: &[u8]) {
    let time = fs::metadata(path).unwrap().modified().unwrap();
    fs::write(path, bytes).unwrap();
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

fn quiet(directory: &Path, change: impl FnOnce()) {
    let time = fs::metadata(directory).unwrap().modified().unwrap();
    change();
    fs::File::open(directory).unwrap().set_modified(time).unwrap();
}

fn assert_good(bench: &Bench) {
    let (report, good) = verify(&bench.rig, &[]);
    assert!(good && report["findings"].as_array().unwrap().is_empty() && report["unproven"].as_array().unwrap().is_empty(), "{report:#}");
    let script = "cat /own /layer0/name /layer1/name /layer2/name";
    assert_eq!(bench.rig.ok(["run", "built", "--", "sh", "-c", script]), "own\nlayer 0\nlayer 1\nlayer 2\n");
}

#[test]
fn what_is_whole_is_proven() {
    let Some(bench) = Bench::new() else { return };
    assert_good(&bench);
    let (report, _) = verify(&bench.rig, &[]);
    let checked = &report["checked"];
    assert_eq!((&checked["images"], &checked["layers"], &checked["trees"]), (&2.into(), &5.into(), &1.into()), "{report:#}");
    assert_eq!(checked["blobs"], 8);
    let text = bench.rig.ok(["verify", "built"]);
    assert!(text.contains("all is well"), "{text}");
    // Nothing can be said of a foreign layer without its blob.
    let layer = bench.inspect("{{index .Layers 1}}");
    fs::remove_file(bench.blob(&layer)).unwrap();
    let (report, good) = verify(&bench.rig, &[]);
    assert!(good && report["unproven"].as_array().unwrap().len() == 1, "{report:#}");
    assert_eq!(verify(&Rig::new(), &[]).0["good"], true);
}

type Damage = fn(&Bench);

/// A kind of damage; the kind of thing that is told, a piece of what is said of it, and what repairing comes to.
const DAMAGES: &[(&str, Damage, &str, &str, &str)] = &[
    ("a bit of a layer's blob", |b| flip(&b.blob(&b.inspect("{{index .Layers 2}}"))), "blob", "don't have its digest", "mended"),
    (
        "a blob cut short",
        |b| {
            let blob = b.blob(&b.inspect("{{index .Layers 0}}"));
            let bytes = fs::read(&blob).unwrap();
            fs::write(&blob, &bytes[..1000]).unwrap();
        },
        "blob",
        "1000 bytes instead of",
        "mended",
    ),
    ("a bit of a manifest", |b| flip(&b.blob(&b.inspect("{{.digest}}"))), "blob", "don't have its digest", "mended"),
    ("no config", |b| fs::remove_file(b.blob(&b.inspect("{{.Id}}"))).unwrap(), "blob", "it is missing", "mended"),
    ("a bit of a file", |b| flip(&b.file("layer1/7")), "layer", "/layer1/7: its content", "mended"),
    (
        "a file that is gone",
        |b| quiet(&b.layer("layer1/7").join("fs/layer1"), || fs::remove_file(b.file("layer1/7")).unwrap()),
        "layer",
        "/layer1/7: it is missing",
        "mended",
    ),
    (
        "a file too many",
        |b| fs::write(b.layer("layer1/7").join("fs/layer1/extra"), "x").unwrap(),
        "layer",
        "/layer1/extra: nothing should be there",
        "mended",
    ),
    (
        "another mode",
        |b| fs::set_permissions(b.file("layer2/7"), fs::Permissions::from_mode(0o700)).unwrap(),
        "layer",
        "/layer2/7: its mode is 0700 instead of 0644",
        "mended",
    ),
    (
        "another owner",
        |b| {
            let set = ["-n", "user.containers.override_stat", "-v", "33:44:0644"];
            assert!(Command::new("setfattr").args(set).arg(b.file("layer2/7")).status().unwrap().success());
        },
        "layer",
        "/layer2/7: its owner is 33:44 instead of 0:0",
        "mended",
    ),
    (
        "files exchanged",
        |b| {
            let (one, two) = (b.file("layer0/1"), b.file("layer0/2"));
            let (first, second) = (fs::read(&one).unwrap(), fs::read(&two).unwrap());
            rewrite(&one, &second);
            rewrite(&two, &first);
        },
        "layer",
        "/layer0/2: its content",
        "mended",
    ),
    ("a layer that is gone", |b| fs::remove_dir_all(b.layer("layer0/1")).unwrap(), "layer", "it is missing", "mended"),
    ("a layer without its word", |b| fs::write(b.layer("layer0/1").join("layer.json"), "{").unwrap(), "layer", "layer.json", "mended"),
    (
        "a record that lies",
        |b| {
            let record = b.record("sample");
            let text = fs::read_to_string(&record).unwrap();
            let mut value: Value = serde_json::from_str(&text).unwrap();
            value["layers"].as_array_mut().unwrap().pop();
            fs::write(record, value.to_string()).unwrap();
        },
        "image record",
        "contradicts the manifest",
        "mended",
    ),
    (
        "a step's record cut short",
        |b| {
            for step in fs::read_dir(b.rig.storage().join("cache/steps")).unwrap() {
                fs::write(step.unwrap().path(), "{").unwrap();
            }
        },
        "step",
        "can't be read",
        "dropped",
    ),
    (
        "a memory cut short",
        |b| {
            let layer = b.layer("layer0/1");
            fs::write(b.rig.storage().join("cache/blobs").join(layer.file_name().unwrap()), "[").unwrap();
        },
        "memory of blobs",
        "can't be read",
        "dropped",
    ),
    (
        "a file of a tree",
        |b| {
            let trees = fs::read_dir(b.rig.storage().join("trees")).unwrap().map(|tree| tree.unwrap().path());
            flip(&trees.into_iter().find(|tree| !tree.is_symlink()).unwrap().join("fs/layer0/name"));
        },
        "tree",
        "not what its layers are",
        "dropped",
    ),
];

#[test]
fn damage_is_named_and_mended() {
    let Some(bench) = Bench::new() else { return };
    for (name, damage, kind, what, outcome) in DAMAGES {
        damage(&bench);
        let (report, good) = verify(&bench.rig, &[]);
        let findings = report["findings"].as_array().unwrap();
        let found = findings.iter().find(|finding| finding["kind"] == *kind);
        let found = found.unwrap_or_else(|| panic!("{name}: {report:#}"));
        let said = format!("{} {}", found["what"], found["details"]);
        assert!(!good && said.contains(what) && found["outcome"] == "found", "{name}: {report:#}");
        if *kind == "layer" || *kind == "blob" {
            assert!(found["images"].to_string().contains("sample"), "{name}: {report:#}");
        }
        let (report, good) = verify(&bench.rig, &["--repair"]);
        let kinds = report["findings"].as_array().unwrap().iter().filter(|finding| finding["kind"] == *kind);
        assert!(good && kinds.clone().count() > 0 && kinds.into_iter().all(|finding| finding["outcome"] == *outcome), "{name}: {report:#}");
        assert_good(&bench);
        bench.rig.ok(["path", "built"]);
    }
}

#[test]
fn what_cant_be_mended_goes_alone() {
    let Some(bench) = Bench::new() else { return };
    let rig = &bench.rig;
    // A layer that was built here, and never sent.
    flip(&bench.file("own"));
    rig.ok(["tag", "built", "another"]);
    let (report, good) = verify(rig, &["--repair", "built"]);
    assert!(!good && report["findings"][0]["outcome"] == "lost", "{report:#}");
    assert!(report["findings"][0]["how"].as_str().unwrap().contains("another:latest"), "who shares it goes, too: {report:#}");
    assert!(report["findings"][0]["how"].as_str().unwrap().contains("built:latest"), "{report:#}");
    assert!(rig.fails(["run", "built", "--", "true"]).contains("built"));
    rig.ok(["run", &bench.reference, "--", "cat", "/layer2/name"]);
    let (_, good) = verify(rig, &[]);
    assert!(good);
    // The step is not taken for done.
    rig.build("built", &format!("FROM {}\nRUN echo own >/own && chown 33:44 /own\n", bench.reference));
    assert_good(&bench);
    // An unreadable record: the name goes, the rest stays.
    let record = bench.record("built");
    let bytes = fs::read(&record).unwrap();
    // The second is what a power cut leaves.
    for damaged in [&bytes[..bytes.len() / 2], &[]] {
        fs::write(&record, damaged).unwrap();
        assert!(rig.run(["images"]).stderr.contains("an image record is damaged"));
        assert!(!verify(rig, &[]).1);
        let (report, good) = verify(rig, &["--repair"]);
        assert!(!good && report["findings"][0]["kind"] == "image record" && report["findings"][0]["outcome"] == "lost", "{report:#}");
    }
    rig.ok(["run", &bench.reference, "--", "true"]);
    // The registry is gone: a blob of a layer that is whole is no loss of the image.
    let reference = bench.reference.clone();
    let Bench { rig, registry, .. } = bench;
    drop(registry);
    let layer = rig.ok(["inspect", "--format", "{{index .Layers 1}}", &reference]);
    let blob = rig.storage().join("blobs/sha256").join(&layer.trim()["sha256:".len()..]);
    flip(&blob);
    let (report, good) = verify(&rig, &["--repair"]);
    assert!(good && report["findings"][0]["outcome"] == "dropped", "{report:#}");
    rig.ok(["run", &reference, "--", "cat", "/layer0/name"]);
    // Its manifest the image needs, but only a registry that answers can say that there is none.
    let digest = rig.ok(["inspect", "--format", "{{.digest}}", &reference]);
    flip(&rig.storage().join("blobs/sha256").join(&digest.trim()["sha256:".len()..]));
    let stays = |how: &str| {
        let (report, good) = verify(&rig, &["--repair"]);
        let finding = &report["findings"][0];
        assert!(!good && finding["outcome"] == "not mended" && finding["how"].as_str().unwrap().contains(how), "{report:#}");
        assert_ne!(rig.ok(["images", "-q"]), "", "{how}");
    };
    stays("ECONNREFUSED");
    let status = Arc::new(Mutex::new(""));
    let now = status.clone();
    let listener = TcpListener::bind(reference.split('/').next().unwrap()).unwrap();
    answer_once(listener, move |_| format!("HTTP/1.1 {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", now.lock().unwrap()));
    for answer in ["401 Unauthorized", "403 Forbidden", "503 Service Unavailable"] {
        *status.lock().unwrap() = answer;
        stays(&answer[..3]);
    }
    *status.lock().unwrap() = "404 Not Found";
    let (report, good) = verify(&rig, &["--repair"]);
    assert!(!good && report["findings"][0]["outcome"] == "lost", "{report:#}");
    assert_eq!(rig.ok(["images", "-q"]), "");
    assert!(verify(&rig, &[]).1);
    rig.assert_healthy();
}

#[test]
fn what_cant_be_written_is_not_lost() {
    let Some(bench) = Bench::new() else { return };
    flip(&bench.file("layer1/7"));
    let layers = bench.rig.storage().join("layers");
    fs::set_permissions(&layers, fs::Permissions::from_mode(0o500)).unwrap();
    let (report, good) = verify(&bench.rig, &["--repair"]);
    fs::set_permissions(&layers, fs::Permissions::from_mode(0o700)).unwrap();
    let finding = report["findings"].as_array().unwrap().iter().find(|finding| finding["kind"] == "layer").unwrap();
    assert!(!good && finding["outcome"] == "not mended" && finding["how"].as_str().unwrap().contains("EACCES"), "{report:#}");
    assert!(verify(&bench.rig, &["--repair"]).1);
    assert_good(&bench);
    // The whole directory is gone.
    bench.rig.ok(["rm", "built"]);
    bench.rig.ok(["prune", "-a"]);
    fs::rename(&layers, bench.rig.path("taken")).unwrap();
    let repaired = bench.rig.run(["verify", "--repair"]);
    assert!(repaired.code == Some(0) && repaired.stderr.contains("layers` was missing"), "{repaired}");
    bench.rig.ok(["run", &bench.reference, "--", "cat", "/layer2/name"]);
}

#[test]
fn what_was_built_here_is_asked_for_nowhere() {
    let rig = Rig::with_base();
    rig.build("app", "FROM base\nRUN echo x >/x\n");
    let digest = rig.ok(["inspect", "--format", "{{.digest}}", "app"]);
    fs::remove_file(rig.storage().join("blobs/sha256").join(&digest.trim()["sha256:".len()..])).unwrap();
    let (report, good) = verify(&rig, &["--repair"]);
    let finding = &report["findings"][0];
    assert!(!good && finding["outcome"] == "lost" && finding["how"].as_str().unwrap().contains("app:latest"), "{report:#}");
}

#[test]
fn what_is_attached_can_be_lost_alone() {
    let rig = Rig::with_base();
    rig.write("context/Dockerfile", "FROM base\nRUN echo x >/x\n");
    let build = || rig.ok(["build", "--timestamp", "1", "--sbom", "-t", "app", "context"]);
    build();
    let lists = fs::read_dir(rig.storage().join("referrers")).unwrap().map(|list| list.unwrap().path());
    let list = lists.into_iter().next().expect("the list of what is attached");
    let referrers: Value = serde_json::from_slice(&fs::read(&list).unwrap()).unwrap();
    let digest = referrers[0]["manifest"]["digest"].as_str().unwrap().to_owned();
    assert!(verify(&rig, &[]).1);
    for damaged in [rig.storage().join("blobs/sha256").join(&digest["sha256:".len()..]), list.clone()] {
        let bytes = fs::read(&damaged).unwrap();
        fs::write(&damaged, &bytes[..bytes.len() / 2]).unwrap();
        let (report, good) = verify(&rig, &["app"]);
        assert!(!good && report["findings"][0]["images"].to_string().contains("app"), "{report:#}");
        let (report, good) = verify(&rig, &["--repair"]);
        assert!(!good && report["findings"][0]["outcome"] == "lost", "{report:#}");
        assert!(!list.exists() && verify(&rig, &[]).1, "{report:#}");
        rig.ok(["run", "app", "--", "cat", "/x"]);
        build();
        assert!(list.exists());
    }
}

#[test]
fn what_is_used_stays() {
    let Some(bench) = Bench::new() else { return };
    flip(&bench.file("layer1/7"));
    let mut running = bench.rig.start(["run", &bench.reference, "--", "sh", "-c", "echo up; sleep 60"]);
    let mut line = [0; 3];
    std::io::Read::read_exact(running.stdout.as_mut().unwrap(), &mut line).unwrap();
    let (report, good) = verify(&bench.rig, &["--repair"]);
    let finding = report["findings"].as_array().unwrap().iter().find(|finding| finding["kind"] == "layer").unwrap().clone();
    assert!(!good && finding["outcome"] == "not mended" && finding["how"].as_str().unwrap().contains("running command"), "{report:#}");
    running.kill().unwrap();
    running.wait().unwrap();
    let waiting = Instant::now();
    while !verify(&bench.rig, &["--repair"]).1 {
        assert!(waiting.elapsed().as_secs() < 30);
        sleep(std::time::Duration::from_millis(200));
    }
    assert_good(&bench);
}

#[test]
fn killed_repairs_leave_good_storage() {
    let Some(bench) = Bench::new() else { return };
    let damage = || {
        flip(&bench.file("layer1/7"));
        flip(&bench.file("layer2/7"));
        flip(&bench.blob(&bench.inspect("{{index .Layers 0}}")));
    };
    damage();
    let started = Instant::now();
    assert!(verify(&bench.rig, &["--repair"]).1);
    let whole = started.elapsed();
    for n in 0..8 {
        damage();
        let mut child = bench.rig.start(["verify", "--repair"]);
        sleep(whole * n / 8);
        let _ = child.kill();
        child.wait().unwrap();
        let (report, good) = verify(&bench.rig, &["--repair"]);
        assert!(good, "{report:#}");
        assert_good(&bench);
    }
    bench.rig.ok(["images"]);
    assert_eq!(fs::read_dir(bench.rig.storage().join("tmp")).unwrap().count(), 0);
}

#[test]
fn storage_without_attributes_is_proven_too() {
    let Some(rig) = Rig::on_fuse("--xattr-none") else { return };
    if needs("docker-registry").is_none() || needs("skopeo").is_none() || fixture("fixtures/base.tar").is_none() {
        return;
    }
    let registry = Registry::start();
    let reference = push_sample(&registry, "sample", 1);
    rig.ok(["pull", &reference]);
    rig.build("built", &format!("FROM {reference}\nRUN echo own >/own && chown 33:44 /own && ln -s own /link && chown -h 5:6 /link\n"));
    rig.ok(["path", "built"]);
    let (report, good) = verify(&rig, &[]);
    assert!(good && report["unproven"].as_array().unwrap().is_empty(), "{report:#}");
    // Owners are in the layer's record there.
    let layers = fs::read_dir(rig.behind().join("behind/storage/layers")).unwrap().map(|layer| layer.unwrap().path());
    let record =
        layers.map(|layer| layer.join("record")).find(|record| fs::read_to_string(record).is_ok_and(|text| text.contains("33:44")));
    let record = record.expect("the record of an owner");
    let text = fs::read_to_string(&record).unwrap().replace("33:44", "34:44");
    fs::write(&record, text).unwrap();
    let (report, good) = verify(&rig, &[]);
    assert!(!good && report["findings"][0]["kind"] == "layer", "{report:#}");
}
