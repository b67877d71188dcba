//! What is shown of images, here and elsewhere; how they are removed.

use serde_json::Value;

use crate::registry::{Registry, push_sample};
use crate::rig::{Rig, fixture, needs};

fn images(rig: &Rig, arguments: &[&str]) -> Vec<String> {
    let mut words = vec!["images", "--format", "{{.Name}}", "--sort", "repository"];
    words.extend(arguments);
    rig.ok(words).lines().map(str::to_owned).collect()
}

/// `a:1` and `a:2` with label `kind`, `team/b` later; `base`.
fn rig() -> Rig {
    let rig = Rig::with_base();
    rig.build("a:1", "FROM base\nLABEL kind=old\nRUN echo 1 >/f\n");
    rig.build("a:2", "FROM base\nLABEL kind=new other=yes\nRUN echo 2 >/f\n");
    rig.build("registry.example/team/b", "FROM a:2\nRUN echo 3 >/g\n");
    rig
}

#[test]
fn filters_choose() {
    let rig = rig();
    let check = |arguments: &[&str], expected: &[&str]| assert_eq!(images(&rig, arguments), expected, "{arguments:?}");
    check(&[], &["a:1", "a:2", "base:latest", "registry.example/team/b:latest"]);
    check(&["a"], &["a:1", "a:2"]);
    check(&["a:*"], &["a:1", "a:2"]);
    check(&["*/b*"], &["registry.example/team/b:latest"]);
    check(&["--filter", "reference=a"], &["a:1", "a:2"]);
    check(&["--filter", "reference=*:latest"], &["base:latest"]);
    check(&["--filter", "reference=a:1", "--filter", "reference=base"], &["a:1", "base:latest"]);
    check(&["--filter", "label=kind"], &["a:1", "a:2", "registry.example/team/b:latest"]);
    check(&["--filter", "label=kind=old"], &["a:1"]);
    check(&["--filter", "label=kind", "--filter", "label!=other=yes"], &["a:1"]);
    check(&["--filter", "before=a:2", "--filter", "since=base"], &["a:1"]);
    check(&["--filter", "until=1h"], &[]);
    check(&["--filter", "dangling=true"], &[]);
    let id = rig.ok(["inspect", "--format", "{{.Id}}", "a:1"]);
    check(&["--filter", &format!("id={}", &id[7..15])], &["a:1"]);
    let error = rig.fails(["images", "--filter", "refrence=a"]);
    assert!(error.contains("did you mean `reference=`"), "{error}");
    assert!(rig.fails(["images", "--format", "{{.Sise}}"]).contains("did you mean `.Size`"));
    assert!(rig.fails(["images", "--format", "tabel"]).contains("did you mean `table`"));
}

#[test]
fn tables_show_what_is_asked_for() {
    let rig = rig();
    let table = rig.ok(["images", "--digests", "--no-trunc", "--disk-use", "a:1"]);
    let digest = rig.ok(["inspect", "--format", "{{.Digest}}", "a:1"]);
    assert!(table.contains("DIGEST") && table.contains("UNIQUE") && table.contains(digest.trim()) && table.contains(" sha256:"), "{table}");
    assert!(!rig.ok(["images", "--noheading"]).contains("REPOSITORY"));
    let table = rig.ok(["images", "--format", "table {{.Repository}}\\t{{.CreatedSince}}", "base"]);
    assert!(table.starts_with("REPOSITORY   CREATED SINCE\nbase         ") && table.contains("ago"), "{table}");
    let list: Value = serde_json::from_str(&rig.ok(["images", "--format", "json", "--disk-use"])).unwrap();
    let of = |name: &str| list.as_array().unwrap().iter().find(|image| image["repository"] == name).unwrap().clone();
    // All share what came from the base; what each made is its own.
    let (base, b) = (of("base"), of("registry.example/team/b"));
    assert!(base["shared"].as_u64() > Some(100_000) && b["shared"].as_u64() >= base["shared"].as_u64(), "{list}");
    assert!(b["unique"].as_u64() > Some(0) && b["unique"].as_u64() < Some(100_000), "{list}");
}

#[test]
fn names_and_ids_are_removed() {
    let rig = rig();
    rig.ok(["tag", "a:1", "x:1", "x:2", "y/z:1"]);
    let id = rig.ok(["inspect", "--format", "{{.Id}}", "a:1"]);
    let error = rig.fails(["rm", &id.trim()[7..20]]);
    assert!(error.contains("several names") && error.contains("--force"), "{error}");
    // What can be removed is, the rest is told.
    let ran = rig.run(["rm", "absent", "x:1", "absent2"]);
    assert!(ran.code == Some(1) && ran.stdout == "removed x:1\n" && ran.stderr.matches("error:").count() == 2, "{ran}");
    rig.ok(["rm", "-f", "absent", "x:2"]);
    assert_eq!(rig.ok(["rm", "y*"]), "removed y/z:1\n");
    assert!(rig.fails(["rm", "y*"]).contains("no image matches"));
    rig.ok(["tag", "a:1", "x:1"]);
    rig.ok(["rm", "--force", id.trim()]);
    assert_eq!(images(&rig, &[]), ["a:2", "base:latest", "registry.example/team/b:latest"]);
    rig.build("a:2", "FROM base\nRUN echo other >/f\n");
    rig.ok(["rm", "--prune"]);
    let ran = rig.ok(["rm", "--all"]);
    assert_eq!(ran.lines().count(), 3, "{ran}");
    assert_eq!(images(&rig, &[]).len(), 0);
}

#[test]
fn collection_says_what_it_would_take() {
    let rig = Rig::with_base();
    let context = rig.path("context");
    std::fs::create_dir_all(&context).unwrap();
    let file = rig.write("Dockerfile", "FROM base\nLABEL keep=yes\nRUN echo nameless >/f\n");
    rig.ok(["build", "-f", file.to_str().unwrap(), context.to_str().unwrap()]);
    let prune = |arguments: &[&str]| -> Value {
        let mut words = vec!["prune", "--format", "json"];
        words.extend(arguments);
        serde_json::from_str(&rig.ok(words)).unwrap()
    };
    assert_eq!(prune(&["--all", "--dry-run", "--filter", "label!=keep"])["images"]["count"], 0);
    let would = prune(&["--all", "--dry-run"]);
    assert!(would["images"]["count"] == 1 && would["layers"]["count"] == 1 && would["freed"].as_u64() > Some(0), "{would}");
    assert_eq!(prune(&["--all", "--filter", "until=10h"])["images"]["count"], 0);
    let did = prune(&["--all"]);
    assert_eq!((&did["images"], &did["layers"]), (&would["images"], &would["layers"]));
    assert!(rig.fails(["prune", "--filter", "age=1"]).contains("invalid filter"));
}

#[test]
fn images_elsewhere_are_shown_without_pulling() {
    let (Some(()), Some(()), Some(_)) = (needs("docker-registry"), needs("skopeo"), fixture("fixtures/base.tar")) else { return };
    let registry = Registry::start();
    let reference = push_sample(&registry, "sample", 3);
    let place = format!("docker://{reference}");
    let rig = Rig::new();
    let skopeo = |arguments: &[&str]| {
        let out = std::process::Command::new("skopeo").args(arguments).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let theirs: Value = serde_json::from_str(&skopeo(&["inspect", "--tls-verify=false", &place])).unwrap();
    let ours: Value = serde_json::from_str(&rig.ok(["inspect", &place])).unwrap();
    for field in ["Name", "Digest", "RepoTags", "Architecture", "Os", "Layers"] {
        assert_eq!(ours[field], theirs[field], "{field}");
    }
    assert_eq!(rig.ok(["inspect", "--raw", &place]).trim_end(), skopeo(&["inspect", "--raw", "--tls-verify=false", &place]).trim_end());
    let config = skopeo(&["inspect", "--raw", "--config", "--tls-verify=false", &place]);
    assert_eq!(rig.ok(["inspect", "--raw", "--config", &place]).trim_end(), config.trim_end());
    let layers = theirs["Layers"].as_array().unwrap().len();
    let line = rig.ok(["inspect", "--format", "{{.Digest}} {{len .LayersData}}", &place]);
    assert_eq!(line, format!("{} {layers}\n", theirs["Digest"].as_str().unwrap()));
    rig.ok(["history", &place]);
    assert!(!rig.storage().join("blobs").exists(), "nothing is stored");
    assert!(rig.fails(["inspect", "--platform", "linux/s390x", &place]).contains("no image for platform"));
    assert!(rig.fails(["inspect", &format!("docker://{}/absent", registry.address)]).contains("absent"));
    // Here it says the same, and docker's words too.
    rig.ok(["pull", &reference]);
    let here: Value = serde_json::from_str(&rig.ok(["inspect", &reference])).unwrap();
    assert_eq!((&here[0]["Digest"], &here[0]["Id"]), (&ours["Digest"], &ours["Id"]));
    assert_eq!(here[0]["RootFS"]["Layers"].as_array().unwrap().len(), layers);
    assert_eq!(here[0]["digest"], ours["digest"]);
}
