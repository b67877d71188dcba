//! What is attached to images: lists of contents and provenance, in storage, in a registry without the referrers API, and in one with it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::registry::Registry;
use crate::rig::{Rig, assert_ordinary_user, needs};

const DOCKERFILE: &str = "FROM base AS first\nARG WHO\nRUN --mount=type=secret,id=token cat /run/secrets/token >/dev/null; echo $WHO >/who\n\
                          FROM first\nCOPY package /app/node_modules/thing/package.json\n";

fn rig() -> Rig {
    assert_ordinary_user();
    let rig = Rig::with_base();
    rig.write("context/Dockerfile", DOCKERFILE);
    rig.write("context/package", r#"{"name":"thing","version":"1.2.3"}"#);
    rig.write("token", "very-secret-word");
    rig
}

#[track_caller]
fn build(rig: &Rig, more: &[&str]) -> String {
    let mut command = rig.command(["build", "--quiet", "-t", "team/app:1", "--secret", "id=token,src=token", "--build-arg", "WHO=me"]);
    let out = command.args(more).arg("context").env("SOURCE_DATE_EPOCH", "86400").output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

fn manifest(rig: &Rig) -> String {
    json(rig.ok(["inspect", "team/app:1"]).as_bytes())[0]["digest"].as_str().unwrap().to_owned()
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(bytes)))
}

fn curl(address: &str, path: &str) -> Option<Vec<u8>> {
    let accept = "Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json";
    let out = Command::new("curl").args(["-sS", "-f", "-H", accept, &format!("http://{address}/v2/{path}")]).output().unwrap();
    out.status.success().then_some(out.stdout)
}

/// The referrers of a list by their artifact's type: manifest and document.
fn fetched(address: &str, repository: &str, list: &Value) -> Vec<(String, Value, Vec<u8>)> {
    let entries = list["manifests"].as_array().unwrap().iter();
    entries
        .map(|entry| {
            let manifest = json(&curl(address, &format!("{repository}/manifests/{}", entry["digest"].as_str().unwrap())).unwrap());
            let layer = manifest["layers"][0]["digest"].as_str().unwrap();
            let document = curl(address, &format!("{repository}/blobs/{layer}")).unwrap();
            assert_eq!(entry["artifactType"], manifest["artifactType"]);
            (entry["artifactType"].as_str().unwrap().to_owned(), manifest, document)
        })
        .collect()
}

#[test]
fn documents_follow_their_image() {
    let rig = rig();
    let id = build(&rig, &[]);
    let bare = manifest(&rig);
    assert_eq!(build(&rig, &["--sbom", "--provenance=mode=max"]), id);
    assert_eq!(manifest(&rig), bare, "the image is not changed by what is attached to it");
    let listed = json(rig.ok(["sbom", "team/app:1"]).as_bytes());
    assert!(listed["packages"].as_array().unwrap().iter().any(|package| package["name"] == "thing"), "{listed}");
    assert_eq!((listed["creationInfo"]["created"].as_str(), listed["name"].as_str()), (Some("1970-01-02T00:00:00Z"), Some("team/app:1")));
    rig.ok(["prune", "--all"]);

    if needs("docker-registry").and(needs("curl")).is_none() {
        return;
    }
    let registry = Registry::start();
    let name = format!("{}/team/app:1", registry.address);
    let pushed = rig.ok(["push", "--quiet", "team/app:1", &name]).trim().to_owned();
    assert_ne!(pushed, bare, "layers are compressed only now");
    let list = json(&curl(&registry.address, &format!("team/app/manifests/{}", pushed.replace(':', "-"))).unwrap());
    let documents = fetched(&registry.address, "team/app", &list);
    assert_eq!(documents.len(), 2);
    for (kind, manifest, document) in &documents {
        assert_eq!(manifest["subject"]["digest"], pushed, "{kind}");
        assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.empty.v1+json");
        assert!(!String::from_utf8_lossy(document).contains("very-secret-word"));
    }
    assert_eq!(json(&documents.iter().find(|(kind, ..)| kind == "application/spdx+json").unwrap().2), listed);
    let statement = json(&documents.iter().find(|(kind, ..)| kind == "application/vnd.in-toto+json").unwrap().2);
    provenance(&rig, &statement, &pushed);

    // Pushed again nothing is added; elsewhere the list can be read without pulling.
    rig.ok(["push", "team/app:1", &name]);
    let again = json(&curl(&registry.address, &format!("team/app/manifests/{}", pushed.replace(':', "-"))).unwrap());
    assert_eq!(again, list);
    let other = Rig::new();
    assert_eq!(json(other.ok(["sbom", &name]).as_bytes()), listed);
    assert_eq!(json(other.ok(["sbom", &format!("docker://{}/team/app@{pushed}", registry.address)]).as_bytes()), listed);
    assert!(other.ok(["images", "--format", "json"]).trim() == "[]");
    let predicate = json(other.ok(["provenance", &name]).as_bytes());
    assert_eq!(predicate, statement["predicate"]);
    assert_eq!(json(rig.ok(["provenance", "team/app:1"]).as_bytes()), predicate);
    assert!(rig.fails(["provenance", "base"]).contains("--provenance"));
    let plain = format!("{}/plain:1", registry.address);
    rig.ok(["push", "base", &plain]);
    assert!(other.fails(["sbom", &plain]).contains("pull the image"));
}

fn provenance(rig: &Rig, statement: &Value, pushed: &str) {
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    assert_eq!(statement["subject"][0]["digest"]["sha256"], pushed.trim_start_matches("sha256:"));
    assert_eq!(statement["subject"][0]["name"].as_str().unwrap().split('?').next(), Some("pkg:docker/team/app@1"));
    let definition = &statement["predicate"]["buildDefinition"];
    let source = &definition["externalParameters"]["configSource"];
    let digest = crate::served::digest(DOCKERFILE.as_bytes());
    assert_eq!(*source, json!({"path": "Dockerfile", "digest": {"sha256": digest.trim_start_matches("sha256:")}}));
    let request = &definition["externalParameters"]["request"];
    assert_eq!((request["args"]["build-arg:WHO"].as_str(), request["secrets"][0]["id"].as_str()), (Some("me"), Some("token")));
    let base = json(rig.ok(["inspect", "base"]).as_bytes())[0]["digest"].as_str().unwrap().to_owned();
    let material = &definition["resolvedDependencies"][0];
    assert!(material["uri"].as_str().unwrap().starts_with("pkg:docker/base@latest?platform="), "{material}");
    assert_eq!(material["digest"]["sha256"], base.trim_start_matches("sha256:"));
    assert_eq!(statement["predicate"]["runDetails"]["metadata"]["startedOn"], "1970-01-02T00:00:00Z");
    assert!(statement["predicate"]["runDetails"]["builder"]["id"].as_str().unwrap().starts_with("pkg:cargo/rootling@"));
}

#[test]
fn same_input_same_documents() {
    if needs("docker-registry").and(needs("curl")).is_none() {
        return;
    }
    let registry = Registry::start();
    let lists: Vec<Value> = ["one", "two"]
        .iter()
        .map(|name| {
            // An imported base is as old as its import.
            let rig = Rig::new();
            rig.write("context/Dockerfile", "FROM scratch\nARG WHO\nCOPY package /app/node_modules/thing/package.json\n");
            rig.write("context/package", r#"{"name":"thing","version":"1.2.3"}"#);
            rig.write("token", "");
            build(&rig, &["--attest", "type=sbom", "--attest", "type=provenance"]);
            let pushed = rig.ok(["push", "--quiet", "team/app:1", &format!("{}/{name}:1", registry.address)]);
            json(&curl(&registry.address, &format!("{name}/manifests/{}", pushed.trim().replace(':', "-"))).unwrap())
        })
        .collect();
    assert_eq!(lists[0], lists[1]);
    // The lesser mode keeps values to itself.
    let statement = fetched(&registry.address, "one", &lists[0]).into_iter().find(|(kind, ..)| kind.contains("in-toto")).unwrap().2;
    assert!(!String::from_utf8_lossy(&statement).contains("WHO"));
}

struct Front(Child, String);

impl Front {
    fn start(registry: &Registry) -> Front {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/referrers.py");
        let mut child = Command::new("python3").arg(script).arg(&registry.address).stdout(Stdio::piped()).spawn().unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut port).unwrap();
        Front(child, format!("127.0.0.1:{}", port.trim()))
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn registries_with_the_referrers_api_keep_the_list() {
    if needs("docker-registry").and(needs("curl")).and(needs("python3")).is_none() {
        return;
    }
    let registry = Registry::start();
    let front = Front::start(&registry);
    let rig = rig();
    build(&rig, &["--platform", "linux/amd64", "--sbom", "--provenance"]);
    let name = format!("{}/app:1", front.1);
    let pushed = rig.ok(["push", "--quiet", "team/app:1", &name]).trim().to_owned();
    assert!(curl(&registry.address, &format!("app/manifests/{}", pushed.replace(':', "-"))).is_none(), "no list of ours is needed");
    let list = json(&curl(&front.1, &format!("app/referrers/{pushed}")).unwrap());
    assert_eq!(list["manifests"].as_array().unwrap().len(), 2);
    // What is wanted stands on a later page.
    for text in ["a", "b", "c"] {
        let script = r#"printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"x/%s","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[],"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":1}}' "$0" "$1" | curl -sS -f -X PUT --data-binary @- -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' "http://$2/v2/app/manifests/$0""#;
        let out = Command::new("sh").args(["-c", script, text, &pushed, &front.1]).output().unwrap();
        assert!(out.status.success(), "{out:?}");
    }
    rig.write("context/package", r#"{"name":"other","version":"2"}"#);
    let listed = json(Rig::new().ok(["sbom", "--platform", "linux/amd64", &name]).as_bytes());
    assert!(listed["packages"].as_array().unwrap().iter().any(|package| package["name"] == "thing"), "{listed}");
}

#[test]
fn each_platform_has_its_own() {
    if needs("docker-registry").and(needs("curl")).is_none() {
        return;
    }
    let registry = Registry::start();
    let rig = Rig::new();
    assert_ordinary_user();
    rig.write("context/Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH.json /node_modules/a/package.json\n");
    rig.write("context/amd64.json", r#"{"name":"for-amd64","version":"1"}"#);
    rig.write("context/arm64.json", r#"{"name":"for-arm64","version":"1"}"#);
    rig.ok(["build", "--platform", "linux/amd64,linux/arm64", "--sbom", "-t", "many", "context"]);
    let name = format!("{}/many:1", registry.address);
    rig.ok(["push", "many", &name]);
    let other = Rig::new();
    for architecture in ["amd64", "arm64"] {
        let platform = format!("linux/{architecture}");
        for (rig, name) in [(&rig, "many"), (&other, name.as_str())] {
            let listed = rig.ok(["sbom", "--platform", &platform, name]);
            assert!(listed.contains(&format!("pkg:npm/for-{architecture}@1")), "{listed}");
        }
    }
}
