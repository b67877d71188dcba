//! Steps that travel: kept by one machine in a registry, a directory or the image, taken by another, and never believed when they lie.

use std::fs;
use std::path::{Path, PathBuf};

use crate::registry::Registry;
use crate::rig::{Ran, Rig, assert_ordinary_user, needs};
use crate::served::digest;

const DOCKERFILE: &str = "FROM base AS tools\nRUN echo tool >/tool && cat /proc/sys/kernel/random/uuid >/made\n\
    FROM base\nWORKDIR /w\nCOPY --from=tools /tool /made /\nCOPY file /file\nRUN cat /file /tool >/out && cat /proc/sys/kernel/random/uuid >/id\n\
    ENV A=b\nRUN true\n";

/// A storage directory with the context; all rigs of a test share the base, which a real machine would pull.
fn machine(base: Option<&Path>) -> Rig {
    assert_ordinary_user();
    let rig = match base {
        Some(base) => {
            let rig = Rig::new();
            rig.ok(["import", base.to_str().unwrap(), "base"]);
            rig
        }
        None => Rig::with_base(),
    };
    rig.write("ctx/file", "content\n");
    rig.write("ctx/Dockerfile", DOCKERFILE);
    rig
}

/// A tarball of the base.
fn base(rig: &Rig) -> PathBuf {
    rig.ok(["export", "base", "-o", "base.tar"]);
    rig.path("base.tar")
}

fn build(rig: &Rig, options: &[&str]) -> Ran {
    let ran = rig.run([&["build", "--progress", "plain", "-t", "app"], options, &["ctx"]].concat());
    assert_eq!(ran.code, Some(0), "{ran}");
    ran
}

fn cached(ran: &Ran) -> usize {
    ran.stderr.lines().filter(|line| line.contains("] cached")).count()
}

/// What says whether two machines have the very same files.
fn identity(rig: &Rig) -> String {
    rig.sh("app", "cat /id /made /out")
}

#[test]
fn steps_travel_by_directory_and_registry() {
    let Some(()) = needs("docker-registry") else { return };
    let registry = Registry::start();
    let first = machine(None);
    let base = base(&first);
    let first = machine(Some(&base));
    let reference = format!("{}/cache:1", registry.address);
    let to_registry = format!("type=registry,ref={reference},mode=max");
    build(&first, &["--cache-to", "type=local,dest=steps,mode=max,compression=zstd", "--cache-to", &to_registry]);
    let steps = first.path("steps").display().to_string();
    for from in [format!("type=local,src={steps}"), format!("type=registry,ref={reference}"), reference.clone()] {
        let second = machine(Some(&base));
        let ran = build(&second, &["--cache-from", &from]);
        assert_eq!(cached(&ran), 6, "{ran}");
        assert_eq!(identity(&first), identity(&second));
    }
    // Only what hits is fetched: another file, and the steps after it are made anew.
    let third = machine(Some(&base));
    third.write("ctx/file", "other\n");
    let ran = build(&third, &["--cache-from", &format!("type=local,src={steps}")]);
    assert_eq!(cached(&ran), 3, "{ran}");
    assert_ne!(identity(&first), identity(&third));
    // The same steps give the same cache.
    build(&first, &["--cache-to", "type=local,dest=again,mode=max,compression=zstd"]);
    assert_eq!(fs::read(first.path("again/index.json")).unwrap(), fs::read(first.path("steps/index.json")).unwrap());
    third.assert_healthy();
}

#[test]
fn the_least_of_a_cache_is_what_is_in_the_image() {
    let Some(()) = needs("docker-registry") else { return };
    let registry = Registry::start();
    let first = machine(None);
    let base = base(&first);
    let first = machine(Some(&base));
    let name = format!("{}/app:1", registry.address);
    // What the other stage gives is the same on every machine, though its layer is not.
    let dockerfile = DOCKERFILE.replace(" /made /", " /");
    first.write("ctx/Dockerfile", &dockerfile);
    let push = format!("type=image,name={name},push=true");
    build(&first, &["--cache-to", "type=local,dest=min", "--cache-to", "type=inline", "-o", &push]);
    for from in [format!("type=local,src={}", first.path("min").display()), name] {
        let second = machine(Some(&base));
        second.write("ctx/Dockerfile", &dockerfile);
        let ran = build(&second, &["--cache-from", &from]);
        assert_eq!(cached(&ran), 5, "{ran}");
        assert_eq!(second.sh("app", "cat /id"), first.sh("app", "cat /id"));
    }
    // The image's own steps harm nobody.
    let carries = |rig: &Rig| {
        let blobs = fs::read_dir(rig.storage().join("blobs/sha256")).unwrap();
        blobs.map(|blob| fs::read(blob.unwrap().path()).unwrap()).any(|blob| blob.windows(17).any(|part| part == b"rootling.cache.v1"))
    };
    assert!(carries(&first));
    let plain = machine(Some(&base));
    build(&plain, &[]);
    assert!(!carries(&plain));
}

#[test]
fn caches_that_lie_are_passed_over() {
    let first = machine(None);
    let base = base(&first);
    let first = machine(Some(&base));
    build(&first, &["--cache-to", "type=local,dest=good,mode=max"]);
    let good = first.path("good");
    let blobs = |directory: &Path| -> Vec<PathBuf> {
        fs::read_dir(directory.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let is_document = |path: &PathBuf| fs::read(path).unwrap().starts_with(b"{");
    type Lie = Box<dyn Fn(&Path)>;
    let edited = |change: fn(&mut serde_json::Value)| -> Lie {
        Box::new(move |directory: &Path| {
            // The config is changed, and everything above it made to fit.
            let blob = |digest: &str| directory.join("blobs/sha256").join(&digest["sha256:".len()..]);
            let read = |path: &Path| -> serde_json::Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
            let put = |value: &serde_json::Value| {
                let bytes = serde_json::to_vec(value).unwrap();
                fs::write(blob(&digest(&bytes)), &bytes).unwrap();
                (digest(&bytes), bytes.len())
            };
            let mut index = read(&directory.join("index.json"));
            let mut manifest = read(&blob(index["manifests"][0]["digest"].as_str().unwrap()));
            let mut config = read(&blob(manifest["config"]["digest"].as_str().unwrap()));
            change(&mut config);
            let (config_digest, config_size) = put(&config);
            (manifest["config"]["digest"], manifest["config"]["size"]) = (config_digest.into(), config_size.into());
            let (manifest_digest, manifest_size) = put(&manifest);
            (index["manifests"][0]["digest"], index["manifests"][0]["size"]) = (manifest_digest.into(), manifest_size.into());
            fs::write(directory.join("index.json"), index.to_string()).unwrap();
        })
    };
    let lies: Vec<(&str, Lie)> = vec![
        ("no index", Box::new(|d| fs::remove_file(d.join("index.json")).unwrap())),
        ("garbage for an index", Box::new(|d| fs::write(d.join("index.json"), "\0\0").unwrap())),
        ("garbage in documents", Box::new(move |d| blobs(d).iter().filter(|b| is_document(b)).for_each(|b| fs::write(b, "{}").unwrap()))),
        ("garbage in layers", Box::new(move |d| blobs(d).iter().filter(|b| !is_document(b)).for_each(|b| fs::write(b, "x").unwrap()))),
        ("no layers", Box::new(move |d| blobs(d).iter().filter(|b| !is_document(b)).for_each(|b| fs::remove_file(b).unwrap()))),
        ("other layers than said", edited(|config| config["diff_ids"].as_array_mut().unwrap().reverse())),
        ("layers nobody has", edited(|config| config["diff_ids"][0] = digest(b"nothing").into())),
        ("too few layers", edited(|config| drop(config["diff_ids"].as_array_mut().unwrap().pop()))),
        (
            "times that are none",
            edited(|config| config["steps"].as_array_mut().unwrap().iter_mut().for_each(|s| s["created"] = "\n".into())),
        ),
        ("another form", edited(|config| *config = serde_json::json!({ "steps": "all" }))),
    ];
    for (what, lie) in lies {
        let second = machine(Some(&base));
        let copy = second.path("cache");
        let copied = std::process::Command::new("cp").arg("-r").arg(&good).arg(&copy).status().unwrap();
        assert!(copied.success());
        lie(&copy);
        let ran = build(&second, &["--cache-from", &format!("type=local,src={}", copy.display())]);
        // A step whose layer nobody has is no step.
        assert!(ran.stderr.contains("going on without") || what == "layers nobody has", "{what}: {ran}");
        assert!(second.sh("app", "cat /out").starts_with("content\ntool\n"), "{what}");
        second.ok(["prune"]);
        let ran = build(&second, &[]);
        assert!(cached(&ran) >= 5, "{what}: {ran}");
    }
}

#[test]
fn one_stage_can_be_made_anew() {
    let rig = machine(None);
    build(&rig, &[]);
    let before = identity(&rig);
    assert_eq!(cached(&build(&rig, &[])), 6);
    let ran = build(&rig, &["--no-cache-filter", "tools"]);
    assert!(cached(&ran) < 6 && cached(&ran) > 0, "{ran}");
    assert_ne!(identity(&rig), before);
}

#[test]
fn wrong_caches_fail_before_anything_is_built() {
    let rig = Rig::new();
    rig.write("ctx/Dockerfile", "FROM no-such-base\n");
    for (option, value, expected) in [
        ("--cache-to", "type=gha", "no type `gha`"),
        ("--cache-to", "type=locl,dest=x", "did you mean `local`"),
        ("--cache-from", "type=local,dest=x", "no `src=`"),
        ("--cache-from", "UPPER", "invalid image reference"),
    ] {
        let error = rig.fails(["build", option, value, "ctx"]);
        assert!(error.contains(expected) && !error.contains("no-such-base"), "{value}: {error}");
    }
}

#[test]
fn steps_say_why_they_were_executed() {
    let rig = machine(None);
    rig.write("ctx/src/a.c", "a");
    rig.write("ctx/src/b.c", "b");
    let dockerfile = |run: &str| format!("FROM base\nARG VERSION=1\nRUN echo $VERSION >/v\nCOPY src /src\nRUN {run}\n");
    rig.write("ctx/Dockerfile", dockerfile("true"));
    let explained = |options: &[&str]| build(&rig, &[&["--explain"], options].concat()).stderr;
    let first = explained(&[]);
    assert_eq!(first.matches("never built here").count(), 3, "{first}");
    assert!(!explained(&[]).contains(" changed"));
    rig.write("ctx/src/a.c", "changed");
    rig.write("ctx/src/c.c", "new");
    let files = explained(&[]);
    assert!(files.contains("4: file `src/a.c` changed, file `src/c.c` is new\n"), "{files}");
    assert!(files.contains("5: a step before it gave something else\n") && !files.contains("src/b.c"), "{files}");
    let variable = explained(&["--build-arg", "VERSION=secret"]);
    assert!(variable.contains("3: variable `VERSION` changed\n") && !variable.contains("secret\n"), "{variable}");
    rig.write("ctx/Dockerfile", dockerfile("echo other"));
    assert!(explained(&[]).contains("5: the instruction changed"));
    assert!(explained(&["--no-cache"]).contains("old results are not to be used"));
    let steps = fs::read_dir(rig.storage().join("cache/steps")).unwrap();
    assert!(!steps.map(|step| fs::read_to_string(step.unwrap().path()).unwrap()).any(|text| text.contains("\"secret")));
    // Another base.
    rig.ok(["import", "host:sh,ls,cat,echo,mkdir", "base"]);
    let base = explained(&[]);
    assert!(base.contains("the base changed: layer "), "{base}");
}
