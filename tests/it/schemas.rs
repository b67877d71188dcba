//! What we write, against the OCI image-spec's JSON schemas.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::registry::Registry;
use crate::rig::{Rig, assert_ordinary_user, needs, skip};

const CHECK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/schemas.py");
const SCHEMAS: &str = "/usr/share/gocode/src/github.com/opencontainers/image-spec/schema";

/// Whether the documents at these places are as the schemas want, and what is said of them.
fn check(rig: &Rig, places: &[String]) -> (bool, String) {
    // Debian's python has Debian's jsonschema.
    let out = Command::new("/usr/bin/python3").arg(CHECK).args(places).current_dir(rig.path("")).output().unwrap();
    (out.status.success(), format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
}

fn schemas() -> Option<()> {
    let library = Command::new("/usr/bin/python3").args(["-c", "import jsonschema"]).output().is_ok_and(|out| out.status.success());
    match library && Path::new(SCHEMAS).is_dir() {
        true => Some(()),
        false => skip("python3-jsonschema or golang-github-opencontainers-image-spec-dev is not installed"),
    }
}

#[test]
fn documents_are_as_the_schemas_want() {
    assert_ordinary_user();
    let (Some(()), Some(())) = (schemas(), needs("docker-registry")) else { return };
    let (rig, registry) = (Rig::with_base(), Registry::start());
    rig.write(
        "ctx/Dockerfile",
        "FROM base\nENV A=b\nLABEL l=m\nUSER 5\nEXPOSE 80\nVOLUME /v\nSTOPSIGNAL TERM\nHEALTHCHECK CMD true\nRUN echo x >/tmp/x\nRUN rm /tmp/x\nENTRYPOINT [\"ls\"]\n",
    );
    let remote = |name: &str| format!("{}/{name}", registry.address);
    rig.ok(["build", "-t", "app:1", "-o", "oci-archive:built.tar", "-o", "oci:built", "ctx"]);
    let mut places: Vec<String> = ["built.tar", "built"].map(str::to_owned).to_vec();
    for compression in ["gzip", "zstd", "none"] {
        let file = format!("saved-{compression}.tar");
        rig.ok(["save", "--format", "oci-archive", "--compression-format", compression, "-o", &file, "app:1"]);
        places.push(file);
    }
    rig.ok(["push", "--format", "oci", "app:1", &remote("app:1")]);
    places.push(remote("app:1"));
    // What came as Docker's documents leaves as OCI's, and what has no config of its own gets one.
    rig.ok(["save", "-o", "docker.tar", "app:1"]);
    rig.ok(["convert", "--format", "oci", "docker-archive:docker.tar", "oci:from-docker"]);
    rig.ok(["convert", "app:1", "tar:flat.tar"]);
    rig.ok(["convert", "tar:./flat.tar", "oci:from-tar"]);
    places.extend(["from-docker", "from-tar"].map(str::to_owned));
    // Indexes: a local list, pushed, and images of two platforms.
    rig.ok(["manifest", "create", "list:1", "app:1"]);
    rig.ok(["manifest", "push", "list:1", &format!("docker://{}", remote("list:1"))]);
    places.push(remote("list:1"));
    rig.write("two/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    rig.ok(["build", "--platform", "linux/amd64,linux/arm64", "-t", "two:1", "-o", "oci:two-platforms", "two"]);
    places.push("two-platforms".into());
    let (valid, said) = check(&rig, &places);
    assert!(valid, "{said}");
    breaks(&rig);
}

/// The check itself: documents that are wrong in one thing are refused, so that its agreement means something.
fn breaks(rig: &Rig) {
    let index = fs::read_to_string(rig.path("built/index.json")).unwrap();
    for (old, new, expected) in [
        ("\"schemaVersion\":2", "\"schemaVersion\":1", "schemaVersion"),
        ("\"sha256:", "\"sha256_", "digest"),
        ("\"size\":", "\"length\":", "size"),
        ("\"manifests\":[", "\"artifactType\":\"none\",\"manifests\":[", "artifactType"),
        ("\"manifests\":[", "\"annotations\":{\"a\":1},\"manifests\":[", "annotations"),
    ] {
        let broken = index.replacen(old, new, 1);
        assert_ne!(broken, index, "there is no {old} in {index}");
        rig.write("broken/index.json", broken);
        fs::copy(rig.path("built/oci-layout"), rig.path("broken/oci-layout")).unwrap();
        let _ = std::os::unix::fs::symlink(rig.path("built/blobs"), rig.path("broken/blobs"));
        let (valid, said) = check(rig, &["broken".into()]);
        assert!(!valid && said.contains(expected), "{old} -> {new}: {said}");
    }
}
