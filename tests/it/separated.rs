//! Separated images: apps on a common base and lib, saved in parts, as isula-build does it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::rig::{Rig, assert_ordinary_user, needs};
use crate::served::digest;

/// A rig with `base`, `lib` on it, and three apps, two on the lib and one on the base.
fn rig_with_apps() -> Rig {
    assert_ordinary_user();
    let rig = Rig::with_base();
    rig.build("lib:2", "FROM base\nRUN echo lib >/lib.txt && chown 5:6 /lib.txt\nRUN echo second >/lib2.txt\n");
    for app in ["one", "two"] {
        rig.build(
            &format!("localhost:5000/team/{app}:1"),
            &format!("FROM lib:2\nRUN echo {app} >/app\nENV A={app}\nCMD [\"cat\", \"/app\", \"/lib.txt\"]\n"),
        );
    }
    rig.build("plain", "FROM base\nRUN echo plain >/app\nRUN echo more >/more\nCMD [\"cat\", \"/app\"]\n");
    rig
}

const APPS: [&str; 2] = ["localhost:5000/team/one:1", "localhost:5000/team/two:1"];

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn manifest(directory: &Path) -> BTreeMap<String, BTreeMap<String, Value>> {
    serde_json::from_slice(&fs::read(directory.join("manifest")).unwrap()).unwrap()
}

fn run(program: &str, arguments: &[&str], directory: &Path) -> String {
    let out = Command::new(program).args(arguments).current_dir(directory).output().unwrap();
    assert!(out.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn config(rig: &Rig, image: &str) -> String {
    rig.ok(["inspect", image, "--format", "config"])
}

#[test]
fn apps_are_saved_in_parts_and_loaded() {
    let rig = rig_with_apps();
    rig.ok([&["save", "--base", "base", "--lib", "lib:2", "--dest", "parts"][..], &APPS].concat());
    let parts = rig.path("parts");
    let tarballs = ["one_1_app_image.tar.gz", "one_1_base_image.tar.gz", "one_1_lib_image.tar.gz", "two_1_app_image.tar.gz"];
    assert_eq!(names(&parts), ["manifest", tarballs[0], tarballs[1], tarballs[2], tarballs[3]]);
    let manifest = manifest(&parts);
    assert_eq!(manifest.keys().collect::<Vec<_>>(), APPS);
    let entry = &manifest[APPS[1]];
    let keys =
        ["app", "appHash", "appLayers", "base", "baseHash", "baseImageName", "baseLayer", "lib", "libHash", "libImageName", "libLayers"];
    assert_eq!(entry.keys().collect::<Vec<_>>(), keys);
    for part in ["app", "lib", "base"] {
        let bytes = fs::read(parts.join(entry[part].as_str().unwrap())).unwrap();
        assert_eq!(digest(&bytes), format!("sha256:{}", entry[&format!("{part}Hash")].as_str().unwrap()));
    }
    assert_eq!((entry["baseImageName"].as_str(), entry["libImageName"].as_str()), (Some("base:latest"), Some("lib:2")));
    assert_eq!((entry["appLayers"].as_array().unwrap().len(), entry["libLayers"].as_array().unwrap().len()), (1, 2));
    // Again gives the same bytes, without anything beside the directory.
    rig.ok([&["save", "--base", "base", "--lib", "lib:2", "--dest", "again"][..], &APPS].concat());
    for name in names(&parts) {
        assert!(fs::read(parts.join(&name)).unwrap() == fs::read(rig.path("again").join(&name)).unwrap(), "{name}");
    }
    // The parts of an app unpacked over each other are what `docker save` writes: isula-build and all others read it.
    if needs("skopeo").is_some() {
        fs::create_dir(rig.path("whole")).unwrap();
        for part in ["base", "lib", "app"] {
            run("tar", &["-xzf", parts.join(entry[part].as_str().unwrap()).to_str().unwrap()], &rig.path("whole"));
        }
        run("sh", &["-c", "tar -cf ../whole.tar *"], &rig.path("whole"));
        run("skopeo", &["copy", "--quiet", "--insecure-policy", "docker-archive:whole.tar", "oci:whole.layout:x"], &rig.path(""));
        let read = run("skopeo", &["inspect", "--raw", "--config", "docker-archive:whole.tar"], &rig.path(""));
        assert_eq!(serde_json::from_str::<Value>(&read).unwrap(), serde_json::from_str::<Value>(&config(&rig, APPS[1])).unwrap());
    }
    let other = Rig::new();
    for app in APPS {
        other.ok(["load", "-d", parts.to_str().unwrap(), "-i", app]);
        assert_eq!(config(&other, app), config(&rig, app));
    }
    assert_eq!(other.ok(["run", APPS[1]]), "two\nlib\n");
    other.build("owner", &format!("FROM {}\nRUN stat -c %u:%g /lib.txt >/o\n", APPS[0]));
    assert_eq!(other.sh("owner", "cat /o"), "5:6\n");
}

#[test]
fn apps_without_lib_names_and_renames() {
    let rig = rig_with_apps();
    rig.ok(["tag", "plain", "plain:other"]);
    rig.write(
        "rename.json",
        r#"[{"name":"plain_latest_app_image.tar.gz","rename":"app.tgz"},{"name":"plain_latest_base_image.tar.gz","rename":"base.tgz"},{"name":"x","rename":"y"}]"#,
    );
    let ran = rig.run(["save", "-b", "base:latest", "-r", "rename.json", "plain:other", "plain"]);
    assert!(ran.code == Some(0) && ran.stderr.contains("no tarball is called `x`"), "{ran}");
    assert_eq!(names(&rig.path("Images")), ["app.tgz", "base.tgz", "manifest"]);
    let entries = manifest(&rig.path("Images"));
    assert_eq!(entries["plain:latest"], entries["plain:other"]);
    assert_eq!((&entries["plain:latest"]["lib"], &entries["plain:latest"]["libLayers"]), (&json!(""), &Value::Null));
    // isula-build can't load these. Both names come, whichever is asked for.
    let other = Rig::new();
    let directory = rig.path("Images").display().to_string();
    assert_eq!(other.ok(["load", "-q", "-d", &directory, "-i", "plain"]).lines().count(), 1);
    assert_eq!(other.ok(["run", "plain:other"]), "plain\n");
    // Elsewhere than in the directory.
    fs::rename(rig.path("Images/base.tgz"), rig.path("b.tgz")).unwrap();
    let third = Rig::new();
    assert!(third.fails(["load", "-d", &directory, "-i", "plain"]).contains("can't read the base tarball"));
    third.ok(["load", "-d", &directory, "-i", "plain", "-b", rig.path("b.tgz").to_str().unwrap()]);
    assert_eq!(config(&third, "plain"), config(&rig, "plain"));
}

#[test]
fn what_does_not_fit_is_not_saved() {
    let rig = rig_with_apps();
    rig.build("other-base", "FROM base\nRUN echo x >/x\n");
    let id = rig.ok(["import", "-q", "host:true", "tiny"]);
    let short = &id.trim()["sha256:".len()..][..12];
    rig.ok(["tag", APPS[0], "elsewhere/one:1"]);
    rig.build("elsewhere/one:1", "FROM lib:2\nRUN echo elsewhere >/app\n");
    fs::create_dir(rig.path("taken")).unwrap();
    rig.write("bad.json", "[{\"name\":\"x\"}]");
    rig.write("escape.json", "[{\"name\":\"one_1_app_image.tar.gz\",\"rename\":\"../x\"}]");
    rig.write(
        "same.json",
        "[{\"name\":\"one_1_app_image.tar.gz\",\"rename\":\"x\"},{\"name\":\"two_1_app_image.tar.gz\",\"rename\":\"x\"}]",
    );
    let (one, two) = (APPS[0], APPS[1]);
    for (line, expected) in [
        (vec!["-b", "tiny", one], "is not built on the base `tiny:latest`"),
        (vec!["-b", "lib:2", one], "a base has one"),
        (vec!["-b", "base", "-l", "plain", one], "is not built on the lib image"),
        (vec!["-b", "base", "-l", "base", one], "has no layer of its own"),
        (vec!["-b", "base", "-l", "lib:2", "lib:2"], "has no layer of its own"),
        (vec!["-b", "base", "base"], "has no layer of its own"),
        (vec!["-b", short, one], "is an ID, not a name"),
        (vec!["-b", "base", "no-such"], "no-such"),
        (vec!["-b", "no-such", one], "no-such"),
        (vec!["-b", "base", "-d", "taken", one], "is there already"),
        (vec!["-b", "base", "-r", "no.json", one], "no.json"),
        (vec!["-b", "base", "-r", "bad.json", one], "bad.json"),
        (vec!["-b", "base", "-r", "escape.json", one], "can't be the name of a tarball"),
        (vec!["-b", "base", "-l", "lib:2", "-r", "same.json", one, two], "two tarballs would be called `x`"),
        (vec!["-b", "base", "-l", "lib:2", one, "elsewhere/one:1"], "two tarballs would be called"),
    ] {
        let error = rig.fails([&["save"][..], &line].concat());
        assert!(error.contains(expected), "{line:?}: {error}");
    }
    for line in [vec!["-l", "lib:2", one], vec!["-b", "base", "-o", "x", one], vec!["-d", "x", one]] {
        assert_eq!(rig.run([&["save"][..], &line].concat()).code, Some(2), "{line:?}");
    }
    assert!(!rig.path("Images").exists());
    let left: Vec<_> = names(&rig.path("")).into_iter().filter(|name| name.starts_with('.')).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_was_tampered_with_is_not_loaded() {
    let rig = rig_with_apps();
    rig.ok([&["save", "-b", "base", "-l", "lib:2", "-d", "good"][..], &APPS].concat());
    rig.ok(["save", "-b", "base", "-d", "others", "plain"]);
    rig.write("private/secret", "secret");
    let app = APPS[0];
    let case = |name: &str, change: &dyn Fn(&Path), options: &[&str], expected: &str| {
        let directory = rig.path(name);
        run("cp", &["-a", "good", name], &rig.path(""));
        change(&directory);
        let other = Rig::new();
        let error = other.fails([&["load", "-d", directory.to_str().unwrap(), "-i", app][..], options].concat());
        assert!(error.contains(expected), "{name}: {error}");
        assert!(!other.ok(["images"]).contains("one"), "{name}");
        assert!(!other.path("x").exists());
    };
    let edit = |directory: &Path, key: &str, value: Value| {
        let mut entries = manifest(directory);
        entries.get_mut(app).unwrap().insert(key.to_owned(), value);
        fs::write(directory.join("manifest"), serde_json::to_vec(&entries).unwrap()).unwrap();
    };
    let plain_base = rig.path("others/plain_latest_app_image.tar.gz").display().to_string();
    case("no-manifest", &|d| fs::remove_file(d.join("manifest")).unwrap(), &[], "manifest");
    case("bad-manifest", &|d| fs::write(d.join("manifest"), "{\"a\":7}").unwrap(), &[], "can't be understood");
    case("large-manifest", &|d| fs::write(d.join("manifest"), vec![b' '; 11 << 20]).unwrap(), &[], "at most");
    case("no-app", &|d| fs::write(d.join("manifest"), "{}").unwrap(), &[], "there is no image");
    case("up", &|d| edit(d, "app", json!("../private/secret")), &[], "can't be the name of a tarball");
    case("absolute", &|d| edit(d, "lib", json!("/etc/passwd")), &["--no-check"], "can't be the name of a tarball");
    case("empty-name", &|d| edit(d, "base", json!("")), &["--no-check"], "can't be the name of a tarball");
    case("checksum", &|d| edit(d, "libHash", json!("00")), &[], "not the lib tarball that was saved");
    case("missing", &|d| fs::remove_file(d.join("one_1_app_image.tar.gz")).unwrap(), &[], "can't read the app tarball");
    let linked = |d: &Path| {
        fs::remove_file(d.join("one_1_lib_image.tar.gz")).unwrap();
        symlink(rig.path("private/secret"), d.join("one_1_lib_image.tar.gz")).unwrap();
    };
    case("linked", &linked, &["--no-check"], "symbolic link");
    let linked = |d: &Path| {
        fs::remove_file(d.join("manifest")).unwrap();
        symlink(rig.path("good/manifest"), d.join("manifest")).unwrap();
    };
    case("linked-manifest", &linked, &[], "symbolic link");
    case("wrong-base", &|_| (), &["-b", &plain_base], "not the base tarball that was saved");
    case("wrong-base-unchecked", &|_| (), &["-b", &plain_base, "--no-check"], "is missing in");
    case("garbage", &|d| fs::write(d.join("one_1_base_image.tar.gz"), "garbage").unwrap(), &["--no-check"], "can't load");
    // Layers of the right name that are others.
    let forged = |d: &Path| {
        let entry = manifest(d)[app].clone();
        let id = entry["baseLayer"].as_str().unwrap();
        let made = d.join(id);
        fs::create_dir(&made).unwrap();
        run("tar", &["-cf", made.join("layer.tar").to_str().unwrap(), "manifest"], d);
        run("tar", &["-czf", "one_1_base_image.tar.gz", id], d);
    };
    case("forged", &forged, &["--no-check"], "can't read layer 1");
    // A tarball of another app's.
    case("mixed", &|d| edit(d, "app", json!("two_1_app_image.tar.gz")), &["--no-check"], "is missing in");
    case(
        "lib-for-none",
        &|d| {
            edit(d, "lib", json!(""));
        },
        &["-l", &plain_base],
        "saved without a lib image",
    );
}

/// What isula-build does with the archive that containers/image, which skopeo uses too, writes for it.
const ISULA: &str = r#"
import gzip, hashlib, json, os, sys, tarfile
whole, out, app, base_layers, lib_layers = sys.argv[1], sys.argv[2], sys.argv[3], 1, int(sys.argv[4])
os.makedirs(out)
with tarfile.open(whole) as tar: tar.extractall('untar')
where = {}
for name in sorted(os.listdir('untar')):
    layer = os.path.join('untar', name, 'layer.tar')
    if os.path.islink(layer):
        physical = os.path.join('untar', name, os.readlink(layer))
        where[os.path.basename(physical)] = name + '/layer.tar'
        os.rename(physical, layer)
image, = json.load(open('untar/manifest.json'))
image['Layers'] = [where[layer] for layer in image['Layers']]
ids = [layer.split('/')[0] for layer in image['Layers']]
os.remove('untar/manifest.json')
with open('untar/manifest.json', 'w') as f: json.dump([image], f)
def pack(part, names):
    tarball = f'{app}_1_{part}_image.tar.gz'
    with tarfile.open(os.path.join(out, tarball), 'w:gz') as tar:
        for name in names: tar.add(os.path.join('untar', name), arcname=name)
    return tarball, hashlib.sha256(open(os.path.join(out, tarball), 'rb').read()).hexdigest()
base = pack('base', ids[:1])
lib = pack('lib', ids[1:lib_layers]) if lib_layers else ('', '')
top = max(1, lib_layers)
part = pack('app', ids[top:] + [image['Config'], 'manifest.json', 'repositories'])
entry = dict(app=part[0], appHash=part[1], appLayers=ids[top:], lib=lib[0], libHash=lib[1], libImageName='lib:2' if lib_layers else '',
    libLayers=ids[1:lib_layers] if lib_layers else None, base=base[0], baseHash=base[1], baseImageName='base:latest', baseLayer=ids[0])
with open(os.path.join(out, 'manifest'), 'w') as f: json.dump({f'{app}:1': entry}, f)
"#;

#[test]
fn what_isula_build_saves_is_loaded() {
    let (Some(()), Some(())) = (needs("skopeo"), needs("python3")) else { return };
    let rig = rig_with_apps();
    for (app, image, lib_layers) in [("one", APPS[0], "3"), ("plain", "plain", "0")] {
        rig.ok(["push", image, "oci:layout:x"]);
        run(
            "skopeo",
            &["copy", "--quiet", "--insecure-policy", "oci:layout:x", &format!("docker-archive:{app}.tar:{app}:1")],
            &rig.path(""),
        );
        run("python3", &["-c", ISULA, &format!("{app}.tar"), &format!("parts-{app}"), app, lib_layers], &rig.path(""));
        fs::remove_dir_all(rig.path("untar")).unwrap();
        let other = Rig::new();
        other.ok(["load", "-d", rig.path(format!("parts-{app}")).to_str().unwrap(), "-i", &format!("{app}:1")]);
        assert_eq!(other.ok(["run", &format!("{app}:1")]), rig.ok(["run", image]));
        assert_eq!(config(&other, &format!("{app}:1")), config(&rig, image));
    }
}
