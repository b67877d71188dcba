//! Pulling from a real registry: Debian's docker-registry on loopback, images put there by skopeo.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::rig::{Rig, assert_ordinary_user, fixture, needs};
use crate::served::{Layer, Sending, Served, Tar, digest};

/// A registry that lives as long as this value.
pub struct Registry {
    child: Child,
    pub address: String,
    directory: TempDir,
}

impl Registry {
    /// Anonymous, plain HTTP, on a free port of loopback.
    pub fn start() -> Registry {
        let directory = TempDir::with_prefix("registry.").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let data = directory.path().join("data");
        let config = format!(
            "version: 0.1\nlog: {{ level: error, accesslog: {{ disabled: true }} }}\nstorage:\n  filesystem: {{ rootdirectory: {} }}\nhttp: {{ addr: {address}, secret: x }}\n",
            data.display()
        );
        let file = directory.path().join("config.yml");
        fs::write(&file, config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while TcpStream::connect(&address).is_err() {
            assert!(started.elapsed() < Duration::from_secs(20), "docker-registry does not answer on {address}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Registry { child, address, directory }
    }

    /// Copies an OCI layout directory into the registry; returns its reference.
    pub fn push(&self, layout: &Path, name: &str) -> String {
        let reference = format!("{}/{name}:latest", self.address);
        let out = Command::new("skopeo")
            .args(["copy", "--quiet", "--insecure-policy", "--preserve-digests", "--dest-tls-verify=false"])
            .arg(format!("oci:{}:latest", layout.display()))
            .arg(format!("docker://{reference}"))
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        reference
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes an image as an OCI layout directory.
pub fn write_layout(directory: &Path, layers: &[Layer]) {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| fs::write(blobs.join(&digest(bytes)["sha256:".len()..]), bytes).unwrap();
    let config = serde_json::to_vec(&serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Labels": { "sample": "yes" } },
        "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|l| l.diff_id.clone()).collect::<Vec<_>>() },
    }))
    .unwrap();
    let described: Vec<_> =
        layers.iter().map(|l| serde_json::json!({ "mediaType": l.media_type, "digest": l.digest, "size": l.size })).collect();
    let manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len() },
        "layers": described,
    }))
    .unwrap();
    put(&config);
    put(&manifest);
    layers.iter().for_each(|l| put(&l.blob));
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(&manifest), "size": manifest.len(),
        "annotations": { "org.opencontainers.image.ref.name": "latest" } }] });
    fs::write(directory.join("index.json"), index.to_string()).unwrap();
    fs::write(directory.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
}

/// Pushes an image of the corpus' base and so many layers `/layerN/name`, in turn gzip, zstd and plain.
pub fn push_sample(registry: &Registry, name: &str, layers: usize) -> String {
    let base = fixture("fixtures/base.tar").expect("the base of the corpus");
    let mut all = vec![Layer::gzipped(&fs::read(base).unwrap())];
    for n in 0..layers {
        let mut tar = Tar::default().directory(&format!("layer{n}")).file(&format!("layer{n}/name"), &format!("layer {n}\n"));
        for i in 0..300 {
            tar = tar.file(&format!("layer{n}/{i}"), &format!("{i}\n").repeat(500));
        }
        let tar = tar.end();
        all.push(match n % 3 {
            0 => Layer::gzipped(&tar),
            1 => Layer::zstd(&tar),
            _ => Layer::plain(&tar),
        });
    }
    let layout = registry.directory.path().join(name);
    write_layout(&layout, &all);
    registry.push(&layout, name)
}

#[test]
fn pull_run_export() {
    assert_ordinary_user();
    let (Some(()), Some(()), Some(_)) = (needs("docker-registry"), needs("skopeo"), fixture("fixtures/base.tar")) else { return };
    let registry = Registry::start();
    let reference = push_sample(&registry, "sample", 4);
    let rig = Rig::new();
    rig.ok(["pull", &reference]);
    assert_eq!(rig.sh(&reference, "cat /layer0/name /layer1/name /layer2/name /layer3/name"), "layer 0\nlayer 1\nlayer 2\nlayer 3\n");
    assert!(rig.ok(["inspect", &reference, "--format", "json"]).contains("\"sample\""));
    // By digest, by index, by platform.
    rig.build("child", &format!("FROM {reference}\nRUN cat /layer3/name >/copy\n"));
    assert_eq!(rig.sh("child", "cat /copy"), "layer 3\n");
    assert!(rig.fails(["pull", &format!("{}/no-such-image", registry.address)]).contains("no-such-image"));
}

#[test]
fn a_cut_connection_resumes() {
    let served = Served::start(Sending::Cut(40_000));
    let tar = (0..400).fold(Tar::default(), |t, i| t.file(&format!("f{i}"), &digest(&[i as u8]).repeat(9))).end();
    let reference = served.image("cut", &[Layer::plain(&tar)]);
    let rig = Rig::new();
    rig.ok(["pull", &reference]);
    rig.ok(["export", &reference, "-o", "out.tar"]);
}
