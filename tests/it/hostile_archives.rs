//! Image archives of strangers: a whole image, or one error and nothing at all.

use std::fs;

use crate::rig::Rig;
use crate::served::{Layer, Tar, digest, gzip};

/// A config that fits layers.
fn config(layers: &[&Layer]) -> String {
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("\"{}\"", layer.diff_id)).collect();
    format!(r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#, diff_ids.join(","))
}

fn layer(name: &str) -> (Vec<u8>, Layer) {
    let tar = Tar::default().file(name, "1").end();
    let layer = Layer::plain(&tar);
    (tar, layer)
}

fn binary(tar: Tar, name: &str, bytes: &[u8]) -> Tar {
    tar.entry(name, b'0', 0o644, "", bytes)
}

/// Loads an archive; what is said, if it is refused. Either way storage must be good and have no half of an image.
fn load(name: &str, archive: &[u8]) -> (Rig, Option<String>) {
    let rig = Rig::new();
    rig.write("secret.json", config(&[]));
    rig.write("a.tar", archive);
    let ran = rig.run(["load", "-i", "a.tar"]);
    assert!(!ran.stderr.contains("panicked"), "{name}: {ran}");
    let refused = ran.code != Some(0);
    if refused {
        assert_eq!(ran.stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{name}: {ran}");
        assert_eq!(rig.ok(["images", "--format", "json"]).trim(), "[]", "{name}");
    }
    let said = ran.stderr;
    (rig, refused.then_some(said))
}

#[test]
fn docker_archives() {
    let (tar, one) = layer("one");
    let good = config(&[&one]);
    let item = |config: &str, tags: &str, layers: &str| format!(r#"{{"Config":"{config}","RepoTags":[{tags}],"Layers":[{layers}]}}"#);
    let whole = |manifest: &str| binary(Tar::default().file("c.json", &good), "l.tar", &tar).file("manifest.json", manifest).end();
    let fine = item("c.json", "\"a:1\"", "\"l.tar\"");
    for (name, archive, expected) in [
        ("as it should be", whole(&format!("[{fine}]")), None),
        ("several names", whole(&format!("[{}]", item("c.json", "\"a:1\",\"b:2\"", "\"l.tar\""))), None),
        ("a name that is none", whole(&format!("[{}]", item("c.json", "\"../../A b\"", "\"l.tar\""))), None),
        ("compressed", gzip(&whole(&format!("[{fine}]"))), None),
        (
            "a compressed layer",
            binary(Tar::default().file("c.json", &good), "l.tar", &gzip(&tar)).file("manifest.json", &format!("[{fine}]")).end(),
            None,
        ),
        ("a config outside", whole(&format!("[{}]", item("../secret.json", "\"a:1\"", ""))), Some("secret.json")),
        ("a config of the machine", whole(&format!("[{}]", item("/etc/passwd", "\"a:1\"", ""))), Some("passwd")),
        (
            "a linked config",
            Tar::default().symlink("c.json", "../secret.json").file("manifest.json", &format!("[{}]", item("c.json", "", ""))).end(),
            Some("missing"),
        ),
        (
            "a loop of links",
            Tar::default().symlink("c.json", "d.json").symlink("d.json", "c.json").file("manifest.json", &format!("[{fine}]")).end(),
            Some("c.json"),
        ),
        ("a missing layer", whole(&format!("[{}]", item("c.json", "\"a:1\"", "\"m.tar\""))), Some("m.tar")),
        ("too few layers", whole(&format!("[{}]", item("c.json", "\"a:1\"", ""))), Some("contradict")),
        (
            "a second image that is broken",
            whole(&format!("[{fine},{}]", item("c.json", "\"b:1\"", "\"l.tar\",\"l.tar\""))),
            Some("contradict"),
        ),
        (
            "another layer",
            binary(Tar::default().file("c.json", &good), "l.tar", &layer("two").0).file("manifest.json", &format!("[{fine}]")).end(),
            Some("diff ID"),
        ),
        ("no JSON", whole("["), Some("manifest.json")),
        ("no images", whole("[]"), Some("no image")),
        ("another JSON", whole(r#"{"a":1}"#), Some("manifest.json")),
        ("no config", whole(r#"[{"Layers":[]}]"#), Some("manifest.json")),
        ("a config that is none", Tar::default().file("c.json", "null").file("manifest.json", &format!("[{fine}]")).end(), Some("config")),
        ("a huge manifest", whole(&format!("[{fine}]{}", " ".repeat(5 << 20))), Some("at most")),
        ("nothing", Vec::new(), Some("a.tar")),
        ("zeros", vec![0; 10240], Some("rootling import")),
        ("noise", (0..9999u32).map(|n| (n * n % 251) as u8).collect(), Some("a.tar")),
    ] {
        let (rig, refused) = load(name, &archive);
        match (&refused, expected) {
            (None, None) => {
                assert!(rig.ok(["images", "-q"]).lines().count() > 0, "{name}");
                rig.assert_healthy();
            }
            (Some(said), Some(expected)) => assert!(said.contains(expected), "{name}: {expected} is not in: {said}"),
            _ => panic!("{name}: {refused:?}"),
        }
    }
}

#[test]
fn oci_archives() {
    let (_, one) = layer("one");
    let manifest = |config: &str, media_type: &str| {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{{"mediaType":"{media_type}","digest":"{}","size":{}}}]}}"#,
            digest(config.as_bytes()),
            config.len(),
            one.digest,
            one.size
        )
    };
    let entry = |document: &str, kind: &str, extra: &str| {
        let (digest, size) = (digest(document.as_bytes()), document.len());
        format!(r#"{{"mediaType":"application/vnd.oci.image.{kind}.v1+json","digest":"{digest}","size":{size}{extra}}}"#)
    };
    let index = |entries: &[String]| format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
    let archive = |index: &str, documents: &[&str]| {
        let mut tar = Tar::default().file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#).file("index.json", index);
        for document in documents {
            tar = tar.file(&format!("blobs/sha256/{}", &digest(document.as_bytes())["sha256:".len()..]), document);
        }
        binary(tar, &format!("blobs/sha256/{}", &one.digest["sha256:".len()..]), &one.blob).end()
    };
    let good = config(&[&one]);
    let image = manifest(&good, "application/vnd.oci.image.layer.v1.tar");
    let named = |name: &str| format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{name}"}}"#);
    let chart = manifest(&good, "application/vnd.cncf.helm.chart.content.v1.tar+gzip");
    let deep = (0..6).fold(index(&[entry(&image, "manifest", "")]), |inner, _| index(&[entry(&inner, "index", "")]));
    for (name, bytes, expected) in [
        ("as it should be", archive(&index(&[entry(&image, "manifest", &named("a:1"))]), &[&image, &good]), None),
        ("a name that is none", archive(&index(&[entry(&image, "manifest", &named("../A b"))]), &[&image, &good]), None),
        ("no images", archive(&index(&[]), &[]), Some("no image")),
        ("a missing manifest", archive(&index(&[entry(&image, "manifest", "")]), &[&good]), Some("missing")),
        ("a missing config", archive(&index(&[entry(&image, "manifest", "")]), &[&image]), Some("missing")),
        (
            "a wrong size",
            archive(&index(&[entry(&image, "manifest", "").replace("\"size\":", "\"size\":9")]), &[&image, &good]),
            Some("bytes instead of"),
        ),
        ("a chart", archive(&index(&[entry(&chart, "manifest", "")]), &[&chart, &good]), Some("media type")),
        ("an index that is a manifest", archive(&image, &[&image, &good]), Some("not an")),
        ("a manifest called index, which says what it is", archive(&index(&[entry(&image, "index", "")]), &[&image, &good]), None),
        ("indexes in indexes", archive(&deep, &[&image, &good]), Some("missing")),
        ("a digest of another kind", archive(&index(&[entry(&image, "manifest", "")]).replace("sha256:", "md5:"), &[]), Some("digest")),
        ("a path for a digest", archive(&index(&[entry(&image, "manifest", "")]).replace("sha256:", "sha256:../"), &[]), Some("digest")),
        ("no JSON", archive("{", &[]), Some("JSON")),
    ] {
        let (rig, refused) = load(name, &bytes);
        match (&refused, expected) {
            (None, None) => rig.assert_healthy(),
            (Some(said), Some(expected)) => assert!(said.contains(expected), "{name}: {expected} is not in: {said}"),
            _ => panic!("{name}: {refused:?}"),
        }
    }
}

/// Cut anywhere, an archive is refused, or it was whole but for its padding.
#[test]
fn cut_archives() {
    let (tar, one) = layer("one");
    let manifest = r#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l.tar"]}]"#;
    let whole = binary(Tar::default().file("c.json", &config(&[&one])).file("manifest.json", manifest), "l.tar", &tar).end();
    let rig = Rig::new();
    for length in (0..whole.len()).step_by(whole.len() / 40) {
        fs::write(rig.path("a.tar"), &whole[..length]).unwrap();
        let ran = rig.run(["load", "-i", "a.tar"]);
        let loaded = rig.ok(["images", "-q"]).lines().count();
        assert_eq!(ran.code == Some(0), loaded == 1, "{length}: {ran}");
        assert!(ran.code == Some(0) || ran.stderr.matches("error: ").count() == 1 && !ran.stderr.contains("panicked"), "{length}: {ran}");
        if loaded == 1 {
            rig.ok(["export", "a:1", "-o", "out.tar"]);
            rig.ok(["rm", "a:1"]);
        }
    }
    rig.assert_healthy();
}
