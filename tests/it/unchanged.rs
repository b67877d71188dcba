//! Bytes in are bytes out: pulled, tagged and pushed elsewhere, an image or an index has the digest it came with.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::registry::Registry;
use crate::rig::{Rig, needs};
use crate::served::{Layer, Tar, digest};

const OCI: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.oci.image.layer.v1.tar+gzip",
];
const DOCKER: [&str; 4] = [
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
];

/// What is sent to a registry by hand, with curl.
struct Publisher<'a> {
    registry: &'a Registry,
    repository: &'a str,
    scratch: &'a Path,
}

impl Publisher<'_> {
    fn curl(&self, arguments: &[&str]) -> String {
        let out = Command::new("curl").args(["-sSf"]).args(arguments).output().unwrap();
        assert!(out.status.success(), "curl {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    fn url(&self, rest: &str) -> String {
        format!("http://{}/v2/{}/{rest}", self.registry.address, self.repository)
    }

    fn file(&self, bytes: &[u8]) -> String {
        let path = self.scratch.join("sent");
        fs::write(&path, bytes).unwrap();
        format!("@{}", path.display())
    }

    /// Sends a blob; returns its descriptor.
    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let place = self.curl(&["-X", "POST", "-o", "/dev/null", "-w", "%header{location}", &self.url("blobs/uploads/")]);
        let digest = digest(bytes);
        let place = format!("{}&digest={digest}", place.trim());
        self.curl(&["-X", "PUT", "-H", "Content-Type: application/octet-stream", "--data-binary", &self.file(bytes), &place]);
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    /// Sends a document, under a tag or its digest; returns its descriptor. Its bytes are nobody's usual form.
    fn document(&self, media_type: &str, document: &Value, tag: Option<&str>) -> Value {
        let bytes = serde_json::to_vec_pretty(document).unwrap();
        let name = tag.map_or_else(|| digest(&bytes), str::to_owned);
        let content_type = format!("Content-Type: {media_type}");
        self.curl(&["-X", "PUT", "-H", &content_type, "--data-binary", &self.file(&bytes), &self.url(&format!("manifests/{name}"))]);
        json!({ "mediaType": media_type, "digest": digest(&bytes), "size": bytes.len() })
    }

    fn image(&self, [_, manifest, config, _]: [&str; 4], architecture: &str, layers: &[(&str, Layer)], tag: Option<&str>) -> Value {
        let diff_ids: Vec<&str> = layers.iter().map(|(_, layer)| layer.diff_id.as_str()).collect();
        let document =
            json!({ "os": "linux", "architecture": architecture, "config": {}, "rootfs": { "type": "layers", "diff_ids": diff_ids } });
        let config = self.blob(config, &serde_json::to_vec_pretty(&document).unwrap());
        let layers: Vec<Value> = layers.iter().map(|(media_type, layer)| self.blob(media_type, &layer.blob)).collect();
        let document = json!({ "schemaVersion": 2, "mediaType": manifest, "config": config, "layers": layers });
        self.document(manifest, &document, tag)
    }

    /// An attestation as BuildKit writes it.
    fn attestation(&self, subject: &Value) -> Value {
        let config = json!({ "os": "unknown", "architecture": "unknown", "config": {}, "rootfs": { "type": "layers", "diff_ids": [digest(b"{}")] } });
        let config = self.blob(OCI[2], &serde_json::to_vec(&config).unwrap());
        let layer = self.blob("application/vnd.in-toto+json", format!("{{\"of\":{}}}", subject["digest"]).as_bytes());
        let mut member =
            self.document(OCI[1], &json!({ "schemaVersion": 2, "mediaType": OCI[1], "config": config, "layers": [layer] }), None);
        member["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
        member["annotations"] =
            json!({ "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": subject["digest"] });
        member
    }

    /// An index of two platforms, each with an attestation, an index of another kind of thing, and that thing.
    fn index(&self, kinds: [&str; 4], tag: &str) -> Value {
        let mut members = Vec::new();
        for architecture in [host(), "s390x"] {
            let tar = |name: &str| Tar::default().file(&format!("{name}-{architecture}"), &name.repeat(3000)).end();
            let shared = Tar::default().file("shared", "both").end();
            let layers = [(kinds[3], Layer::gzipped(&shared)), (kinds[3], Layer::gzipped(&tar("own")))];
            let mut image = self.image(kinds, architecture, &layers, None);
            image["platform"] = json!({ "os": "linux", "architecture": architecture });
            let attestation = self.attestation(&image);
            members.extend([image, attestation]);
        }
        if kinds == OCI {
            let chart = self.blob("application/vnd.cncf.helm.config.v1+json", b"{\"name\":\"chart\"}");
            let content = self.blob("application/vnd.cncf.helm.chart.content.v1.tar+gzip", b"no tar at all");
            let chart = json!({ "schemaVersion": 2, "mediaType": OCI[1], "config": chart, "layers": [content] });
            let chart = self.document(OCI[1], &chart, None);
            members.push(self.document(OCI[0], &json!({ "schemaVersion": 2, "mediaType": OCI[0], "manifests": [chart] }), None));
        }
        self.document(kinds[0], &json!({ "schemaVersion": 2, "mediaType": kinds[0], "manifests": members }), Some(tag))
    }
}

fn host() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// The digest of what a registry has under a name.
fn remote_digest(registry: &Registry, path: &str) -> String {
    let (repository, name) = path.rsplit_once(':').unwrap();
    let accept = format!("Accept: {}, {}, {}, {}", OCI[0], OCI[1], DOCKER[0], DOCKER[1]);
    let url = format!("http://{}/v2/{repository}/manifests/{name}", registry.address);
    let out = Command::new("curl").args(["-sSf", "-H", &accept, &url]).output().unwrap();
    assert!(out.status.success(), "{path}: {}", String::from_utf8_lossy(&out.stderr));
    digest(&out.stdout)
}

#[test]
fn images_leave_as_they_came() {
    let (Some(()), Some(())) = (needs("docker-registry"), needs("curl")) else { return };
    let (from, to, rig) = (Registry::start(), Registry::start(), Rig::new());
    let tar = |name: &str| Tar::default().file(name, &name.repeat(5000)).end();
    let (zstd, plain) = ("application/vnd.oci.image.layer.v1.tar+zstd", "application/vnd.oci.image.layer.v1.tar");
    let docker_plain = "application/vnd.docker.image.rootfs.diff.tar";
    for (name, kinds, layers) in [
        ("oci", OCI, vec![(OCI[3], Layer::gzipped(&tar("a"))), (zstd, Layer::zstd(&tar("b"))), (plain, Layer::plain(&tar("c")))]),
        ("docker", DOCKER, vec![(DOCKER[3], Layer::gzipped(&tar("d"))), (docker_plain, Layer::plain(&tar("e")))]),
        // Jib, ko and kaniko have written such mixtures.
        ("mixed", [OCI[0], OCI[1], DOCKER[2], OCI[3]], vec![(DOCKER[3], Layer::gzipped(&tar("f"))), (OCI[3], Layer::gzipped(&tar("g")))]),
        ("mixed-docker", DOCKER, vec![(zstd, Layer::zstd(&tar("h")))]),
    ] {
        let publisher = Publisher { registry: &from, repository: name, scratch: &rig.path("") };
        let published = publisher.image(kinds, host(), &layers, Some("1"));
        let source = format!("{}/{name}:1", from.address);
        rig.ok(["pull", &source]);
        rig.ok(["tag", &source, &format!("{}/copy/{name}:2", to.address)]);
        rig.ok(["push", &format!("{}/copy/{name}:2", to.address)]);
        assert_eq!(published["digest"], remote_digest(&to, &format!("copy/{name}:2")), "{name}");
        // By digest, and by tag and digest.
        for pinned in [format!("{}/{name}@", from.address), format!("{source}@")] {
            let pinned = pinned + published["digest"].as_str().unwrap();
            let other = Rig::new();
            other.ok(["pull", &pinned]);
            other.ok(["push", &pinned, &format!("{}/pinned/{name}:1", to.address)]);
            assert_eq!(published["digest"], remote_digest(&to, &format!("pinned/{name}:1")), "{pinned}");
            let wrong = pinned.replace(published["digest"].as_str().unwrap(), &digest(b"other"));
            assert!(other.fails(["pull", &wrong]).contains("manifest unknown"));
        }
    }
}

#[test]
fn indexes_leave_as_they_came() {
    let (Some(()), Some(())) = (needs("docker-registry"), needs("curl")) else { return };
    let (from, to) = (Registry::start(), Registry::start());
    for (name, kinds) in [("oci", OCI), ("docker", DOCKER)] {
        let rig = Rig::new();
        let published = Publisher { registry: &from, repository: name, scratch: &rig.path("") }.index(kinds, "1");
        let source = format!("{}/{name}:1", from.address);
        let copy = format!("{}/copy/{name}:2", to.address);
        // One platform alone.
        rig.ok(["pull", &source]);
        let missing = rig.fails(["push", "--all-platforms", &source, &copy]);
        assert!(missing.contains("linux/s390x") && missing.contains("pull --all-platforms"), "{missing}");
        rig.ok(["push", &source, &format!("{}/one/{name}:1", to.address)]);
        assert_ne!(published["digest"], remote_digest(&to, &format!("one/{name}:1")));
        // All.
        let pulled = rig.run(["pull", "--all-platforms", &source]);
        assert!(pulled.code == Some(0) && pulled.stderr.contains("linux/s390x"), "{pulled}");
        rig.ok(["prune", "--all"]);
        rig.ok(["tag", &source, &copy]);
        for option in ["--all-platforms", "--progress=plain"] {
            rig.ok(["push", option, &copy]);
            assert_eq!(published["digest"], remote_digest(&to, &format!("copy/{name}:2")), "{option}");
        }
        // Another storage directory gets it from there, whole.
        let other = Rig::new();
        other.ok(["pull", "--all-platforms", &format!("{copy}@{}", published["digest"].as_str().unwrap())]);
        other.ok(["export", &copy_pinned(&copy, &published), "--platform", "linux/s390x", "-o", "s.tar"]);
        assert!(String::from_utf8_lossy(&fs::read(other.path("s.tar")).unwrap()).contains("own-s390x"));
        // One of its platforms, chosen.
        rig.ok(["push", "--platform", "linux/s390x", &copy, &format!("{}/one/{name}:s390x", to.address)]);
        let pushed = remote_digest(&to, &format!("one/{name}:s390x"));
        let inspected = rig.ok(["inspect", &copy, "--platform", "linux/s390x", "--format", "json"]);
        assert!(inspected.contains(&pushed), "{inspected}");
        // Through an archive.
        let third = Rig::new();
        let archive = rig.path("all.tar").display().to_string();
        rig.ok(["save", "--format", "oci-archive", "-o", &archive, &copy]);
        third.ok(["load", "-i", &archive]);
        third.ok(["push", "--all-platforms", &copy, &format!("{}/archive/{name}:1", to.address)]);
        assert_eq!(published["digest"], remote_digest(&to, &format!("archive/{name}:1")));
        // In another form the attestations, which speak of the old bytes, stay behind.
        rig.ok(["push", "--force-compression", "--compression-format", "zstd", &copy, &format!("oci://{}/other/{name}:1", to.address)]);
        let url = format!("http://{}/v2/other/{name}/manifests/1", to.address);
        let raw = Command::new("curl").args(["-sSf", "-H", &format!("Accept: {}", OCI[0]), &url]).output().unwrap();
        let raw: Value = serde_json::from_slice(&raw.stdout).unwrap();
        assert_eq!(raw["manifests"].as_array().unwrap().len(), if kinds == OCI { 3 } else { 2 }, "{raw}");
    }
}

fn copy_pinned(copy: &str, published: &Value) -> String {
    format!("{copy}@{}", published["digest"].as_str().unwrap())
}
