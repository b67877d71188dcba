//! Manifest lists: made, changed, shown, sent; read by skopeo and podman.

use std::process::Command;

use serde_json::Value;

use crate::registry::{Registry, push_sample};
use crate::rig::{Rig, assert_ordinary_user, fixture, needs};

fn list(rig: &Rig, name: &str) -> Value {
    serde_json::from_str(&rig.ok(["manifest", "inspect", name])).unwrap()
}

/// `os/arch[/variant]` of a list's members.
fn platforms(list: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let platform = |member: &Value| {
        let platform = &member["platform"];
        [&platform["os"], &platform["architecture"], &platform["variant"]].into_iter().filter_map(text).collect::<Vec<_>>().join("/")
    };
    list["manifests"].as_array().unwrap().iter().map(platform).collect()
}

/// A rig with images `one`, `two` and `three`.
fn rig() -> Rig {
    assert_ordinary_user();
    let rig = Rig::with_base();
    for name in ["one", "two", "three"] {
        rig.build(name, &format!("FROM base\nRUN echo {name} >/name\n"));
    }
    rig
}

fn digest(rig: &Rig, image: &str) -> String {
    rig.ok(["inspect", "--format", "{{.Digest}}", image]).trim().to_owned()
}

#[test]
fn a_list_is_made_changed_and_taken_apart() {
    let rig = rig();
    let empty = rig.ok(["manifest", "create", "list"]);
    assert!(empty.starts_with("sha256:") && platforms(&list(&rig, "list")).is_empty());
    assert_eq!(list(&rig, "list")["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert!(rig.fails(["run", "list", "--", "true"]).contains("has no image here"));
    assert!(rig.fails(["manifest", "create", "list", "one"]).contains("already"));
    assert!(rig.fails(["manifest", "add", "absent", "one"]).contains("no manifest list `absent`"));
    assert!(rig.fails(["manifest", "add", "two", "one"]).contains("not a manifest list"));
    rig.ok(["manifest", "create", "--amend", "list", "one"]);
    let two = digest(&rig, "two");
    rig.ok([
        "manifest",
        "add",
        "--arch",
        "aarch64",
        "--variant",
        "v9",
        "--os-version",
        "1.2",
        "--os-features",
        "x,y",
        "--features",
        "sse",
        "--annotation",
        "who=me",
        "list",
        &format!("two@{two}"),
    ]);
    let id = rig.ok(["inspect", "--format", "{{.Id}}", "three"]);
    rig.ok(["manifest", "add", "--arch", "riscv64", "list", id.trim()]);
    let shown = list(&rig, "list");
    let host = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
    assert_eq!(platforms(&shown), [host, "linux/arm64/v9", "linux/riscv64"]);
    let second = &shown["manifests"][1];
    assert_eq!((&second["digest"], &second["annotations"]["who"]), (&two.clone().into(), &"me".into()));
    let platform = &second["platform"];
    assert_eq!(
        (&platform["os.version"], &platform["os.features"][1], &platform["features"][0]),
        (&"1.2".into(), &"y".into(), &"sse".into())
    );
    // The list's word on platforms counts, and the name alone runs here.
    assert_eq!(rig.ok(["run", "list", "--", "cat", "/name"]), "one\n");
    let images: Value = serde_json::from_str(&rig.ok(["images", "list", "--format", "json"])).unwrap();
    assert_eq!(images[0]["images"].as_array().unwrap().len(), 3);
    assert_eq!(rig.ok(["images", "list"]).lines().count(), 4, "{}", rig.ok(["images", "list"]));
    // Another image for a platform does not replace one; the same image does.
    rig.ok(["manifest", "annotate", "--arch", "s390x", "--index-annotation", "of=all", "list", &two]);
    let shown = list(&rig, "list");
    assert_eq!((platforms(&shown)[1].as_str(), &shown["annotations"]["of"]), ("linux/s390x", &"all".into()));
    assert!(rig.fails(["manifest", "annotate", "--arch", "amd46", "list", "one"]).contains("did you mean `amd64`"));
    // Collection keeps all of it, whoever else had names for it.
    rig.ok(["tag", "list", "kept"]);
    for name in ["two", "three", "list"] {
        rig.ok(["rm", name]);
    }
    rig.ok(["prune", "--all"]);
    assert_eq!(platforms(&list(&rig, "kept")).len(), 3);
    rig.ok(["export", "--platform", "linux/riscv64", "kept", "-o", "/dev/null"]);
    rig.ok(["manifest", "remove", "kept", "one"]);
    assert_eq!(platforms(&list(&rig, "kept")).len(), 2);
    assert!(rig.fails(["manifest", "remove", "kept", "base"]).contains("is not in the list"));
    rig.ok(["manifest", "exists", "kept"]);
    assert!(rig.fails(["manifest", "rm", "one"]).contains("not a manifest list"));
    rig.ok(["manifest", "rm", "kept"]);
    assert!(rig.fails(["manifest", "exists", "kept"]).contains("no manifest list"));
    // isula-build's words: who annotates what is not there adds it.
    rig.ok(["manifest", "create", "again"]);
    let ran = rig.run(["manifest", "annotate", "--arch", "arm64", "again", "one"]);
    assert!(ran.code == Some(0) && ran.stderr.contains("it was added"), "{ran}");
    assert_eq!(platforms(&list(&rig, "again")), ["linux/arm64"]);
}

#[test]
fn many_change_one_list() {
    let rig = rig();
    rig.ok(["manifest", "create", "list"]);
    let adding: Vec<_> = ["one", "two", "three", "base"].iter().map(|image| rig.start(["manifest", "add", "list", image])).collect();
    for child in adding {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    assert_eq!(list(&rig, "list")["manifests"].as_array().unwrap().len(), 4);
}

#[test]
fn others_read_what_is_pushed() {
    let (Some(()), Some(()), Some(())) = (needs("docker-registry"), needs("skopeo"), needs("podman")) else { return };
    let rig = rig();
    let (registry, other) = (Registry::start(), Registry::start());
    rig.ok(["manifest", "create", "list", "one"]);
    rig.ok(["manifest", "add", "--arch", "riscv64", "list", "two"]);
    let target = format!("{}/team/list:1", registry.address);
    let pushed = rig.ok(["manifest", "push", "--quiet", "list", &target]).trim().to_owned();
    let run = |program: &str, arguments: &[&str]| {
        let out = Command::new(program).args(arguments).output().unwrap();
        assert!(out.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let remote = format!("docker://{target}");
    let raw: Value = serde_json::from_str(&run("skopeo", &["inspect", "--raw", "--tls-verify=false", &remote])).unwrap();
    assert_eq!((platforms(&raw).len(), &raw["mediaType"]), (2, &"application/vnd.oci.image.index.v1+json".into()));
    // podman refuses a long path there.
    let short = tempfile::TempDir::with_prefix_in("r.", "/tmp").unwrap();
    let root = short.path().display().to_string();
    let conf = rig.write("registries.conf", format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", registry.address));
    let conf = format!("CONTAINERS_REGISTRIES_CONF={}", conf.display());
    let podman = [&conf, "podman", "--root", &root, "--runroot", &root, "--storage-driver", "vfs", "manifest", "inspect", &target];
    let seen: Value = serde_json::from_str(&run("env", &podman)).unwrap();
    assert_eq!(platforms(&seen), platforms(&raw));
    // Each of its images can be had, and its files are the right ones.
    let layout = rig.path("two").display().to_string();
    let copy = ["--override-arch", "riscv64", "copy", "--src-tls-verify=false", &remote, &format!("oci:{layout}:two")];
    run("skopeo", &copy);
    // The same list from another storage, to another registry, is the same.
    let second = Rig::new();
    second.ok(["manifest", "create", "copied"]);
    second.ok(["manifest", "add", "--all", "copied", &remote]);
    assert_eq!(platforms(&list(&second, "copied")), platforms(&raw));
    assert_eq!(second.ok(["run", "copied", "--", "cat", "/name"]), "one\n");
    let elsewhere = format!("{}/copied", other.address);
    assert_eq!(second.ok(["manifest", "push", "-q", "--purge", "copied", &elsewhere]).trim(), pushed);
    assert!(second.fails(["manifest", "exists", "copied"]).contains("no manifest list"));
    // Shown where it is; nothing is pulled.
    let shown = Rig::new();
    assert_eq!(platforms(&list(&shown, &elsewhere)), platforms(&raw));
    assert!(!shown.storage().join("blobs").exists());
    // Docker's documents, all of them.
    let docker = format!("{}/docker", other.address);
    rig.ok(["manifest", "push", "--format", "v2s2", "list", &docker]);
    let raw = run("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{docker}")]);
    assert!(raw.contains("manifest.list.v2+json") && raw.contains("distribution.manifest.v2+json") && !raw.contains("vnd.oci"), "{raw}");
    rig.ok(["manifest", "create", "--format", "docker", "old", "one", "two"]);
    rig.ok(["manifest", "push", "old", &docker]);
    let raw = run("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{docker}")]);
    assert!(raw.contains("manifest.list.v2+json") && !raw.contains("vnd.oci"), "{raw}");
    // Empty lists and archives.
    rig.ok(["manifest", "create", "empty"]);
    rig.ok(["manifest", "push", "empty", &format!("{}/empty", other.address)]);
    let archive = format!("oci-archive:{}", rig.path("list.tar").display());
    rig.ok(["manifest", "push", "list", &archive]);
    second.ok(["manifest", "create", "from-archive"]);
    second.ok(["manifest", "add", "--all", "from-archive", &archive]);
    assert_eq!(platforms(&list(&second, "from-archive")).len(), 2);
}

#[test]
fn members_are_pulled_when_they_are_not_here() {
    let (Some(()), Some(_)) = (needs("docker-registry"), fixture("fixtures/base.tar")) else { return };
    let registry = Registry::start();
    let reference = push_sample(&registry, "sample", 2);
    let rig = Rig::new();
    rig.ok(["manifest", "create", "list", &reference]);
    assert_eq!(list(&rig, "list")["manifests"].as_array().unwrap().len(), 1);
    // It has no name, and stays for the list.
    assert_eq!(rig.ok(["images", "-q"]).lines().count(), 1);
    rig.ok(["prune", "--all"]);
    rig.ok(["export", "list", "-o", "/dev/null"]);
    assert!(rig.fails(["manifest", "add", "list", "0123456789ab"]).contains("0123456789ab"));
}
