//! `export --with-spec` and `import --with-spec`: an image taken apart into configuration and files, and put together again.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::rig::{Rig, assert_ordinary_user, needs};

const BASE: &str = "host:sh,cat,chmod,chown,echo,ln,mkdir,mkfifo,mknod,rm,setcap,setfattr,touch";

/// A rig with an image `app:1` of several layers, of what only root can make, odd names, and a configuration worth keeping.
fn rig_with_app() -> Option<Rig> {
    assert_ordinary_user();
    for program in ["setcap", "setfattr"] {
        needs(program)?;
    }
    let rig = Rig::new();
    rig.ok(["import", BASE, "base"]);
    let deeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/round-trip/deeds");
    rig.write("context/deeds", fs::read(deeds).unwrap());
    rig.build(
        "app:1",
        "FROM base\n\
         COPY deeds /\n\
         RUN sh /deeds /data\n\
         RUN mkdir /odd && cd /odd && touch \"$(printf 'a\\nb')\" \"$(printf '\\377')\" -- '-x' ' ' 'back\\slash' ünïcode .wh && ln ' ' '  '\n\
         RUN rm /deeds && touch -d 1969-12-31T23:59:58.5Z /old && touch -d 2001-02-03T04:05:06.789Z /odd\n\
         LABEL kept=yes\n\
         ENV A=b\n\
         USER 33:44\n\
         EXPOSE 80\n\
         CMD [\"cat\", \"/data/file\"]\n",
    );
    Some(rig)
}

fn id(rig: &Rig, image: &str) -> String {
    let images: serde_json::Value = serde_json::from_str(&rig.ok(["images", "--format", "json"])).unwrap();
    let all = images.as_array().unwrap();
    let found = all.iter().find(|entry| entry.to_string().contains(image)).unwrap_or_else(|| panic!("no {image} in {all:?}"));
    found["id"].as_str().or(found["config"].as_str()).unwrap_or_else(|| panic!("no ID in {found}")).to_owned()
}

fn config(rig: &Rig, image: &str) -> serde_json::Value {
    serde_json::from_str(&rig.ok(["inspect", image, "--format", "config"])).unwrap()
}

/// Everything a directory holds: names, kinds, native modes, times, attributes and contents, as one archive of GNU tar.
fn contents(directory: &Path) -> Vec<u8> {
    let out = Command::new("tar")
        .args(["--create", "--sort=name", "--format=posix", "--xattrs", "--xattrs-include=*", "--pax-option=delete=atime,delete=ctime"])
        .arg("--directory")
        .args([directory.as_os_str(), ".".as_ref()])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

#[test]
fn what_is_exported_imports_as_the_same_image() {
    let Some(rig) = rig_with_app() else { return };
    rig.ok(["export", "app:1", "-o", "first.tar"]);
    for (form, options) in [("dir", &[][..]), ("tar", &["--rootfs", "tar"]), ("zst", &["--rootfs", "tar", "--compression", "zstd"])] {
        let (first, second) = (rig.path(format!("first-{form}")), rig.path(format!("second-{form}")));
        let export = |rig: &Rig, to: &Path| rig.ok([&["export", "--with-spec", to.to_str().unwrap(), "app:1"][..], options].concat());
        export(&rig, &first);
        let other = Rig::new();
        let ran = other.run(["import", "--with-spec", first.to_str().unwrap()]);
        assert!(ran.code == Some(0) && !ran.stderr.contains("warning"), "{ran}");
        export(&other, &second);
        let third = Rig::new();
        third.ok(["import", "--with-spec", second.to_str().unwrap(), "named:2"]);
        assert_eq!(id(&other, "app"), id(&third, "named"), "{form}");
        // A directory's own times are when it was made.
        for directory in [&first, &second] {
            fs::File::open(directory).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
            for entry in fs::read_dir(directory).unwrap().map(Result::unwrap).filter(|entry| entry.file_name() != "rootfs") {
                fs::File::open(entry.path()).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
            }
        }
        assert!(contents(&first) == contents(&second), "{form}: the second export differs");
        // Nothing of files and configuration is lost; only the layers are one now.
        other.ok(["export", "app:1", "-o", "again.tar"]);
        assert!(fs::read(other.path("again.tar")).unwrap() == fs::read(rig.path("first.tar")).unwrap(), "{form}");
        let (mut before, after) = (config(&rig, "app:1"), config(&other, "app:1"));
        let layers = after["history"].as_array().unwrap().iter().filter(|entry| entry["empty_layer"] != true).count();
        assert_eq!((layers, after["rootfs"]["diff_ids"].as_array().unwrap().len()), (1, 1));
        before["rootfs"] = after["rootfs"].clone();
        for (entry, same) in before["history"].as_array_mut().unwrap().iter_mut().zip(after["history"].as_array().unwrap()) {
            assert_eq!(entry["created_by"], same["created_by"]);
            *entry = same.clone();
        }
        assert_eq!(before, after);
        assert_eq!(other.ok(["run", "app:1"]), "file\n");
    }
}

#[test]
fn an_image_of_one_layer_keeps_its_id() {
    let rig = Rig::with_base();
    rig.ok(["export", "--with-spec", "out", "base"]);
    let other = Rig::new();
    other.ok(["import", "--with-spec", rig.path("out").to_str().unwrap()]);
    assert_eq!(id(&rig, "base"), id(&other, "base"));
    // Without a name in the archive it has none here, unless it gets one.
    rig.ok(["rm", "base"]);
    rig.ok(["import", "--with-spec", "out", "again:1"]);
    assert_eq!(id(&rig, "again"), id(&other, "base"));
    rig.ok(["export", "--with-spec", "by-id", &id(&rig, "again").replace("sha256:", "")[..12]]);
}

#[test]
fn the_archive_without_layers_is_one_for_others() {
    let Some(()) = needs("skopeo") else { return };
    let rig = Rig::with_base();
    rig.build("app:1", "FROM base\nLABEL kept=yes\nRUN echo x >/x\n");
    rig.ok(["export", "--with-spec", "out", "app:1"]);
    for transport in ["oci-archive", "docker-archive"] {
        let place = format!("{transport}:{}", rig.path("out/empty.tar").display());
        let out = Command::new("skopeo").args(["inspect", "--format", "{{.Labels}} {{.Layers}}", &place]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "map[kept:yes] []", "{}", String::from_utf8_lossy(&out.stderr));
    }
    // One that knows nothing of our notes, as another implementation may write it.
    let copied = format!("docker-archive:{}:app:1", rig.path("plain.tar").display());
    let from = format!("docker-archive:{}", rig.path("out/empty.tar").display());
    let out = Command::new("skopeo").args(["copy", "--quiet", "--insecure-policy", &from, &copied]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    fs::rename(rig.path("plain.tar"), rig.path("out/empty.tar")).unwrap();
    let other = Rig::new();
    other.ok(["import", "--with-spec", rig.path("out").to_str().unwrap()]);
    assert_eq!(other.ok(["run", "app:1", "--", "cat", "/x"]), "x\n");
}

#[test]
fn changed_files_are_taken_with_a_warning() {
    let Some(rig) = rig_with_app() else { return };
    rig.ok(["export", "--with-spec", "out", "app:1"]);
    fs::write(rig.path("out/rootfs/new"), "new").unwrap();
    let ran = rig.run(["import", "--with-spec", "out", "changed"]);
    assert!(ran.code == Some(0) && ran.stderr.contains("not those that were exported"), "{ran}");
    assert_eq!(rig.sh("changed", "cat /new"), "new");
    assert!(rig.facts("changed").contains("33:44"), "owners of what was not changed stay");
}

#[test]
fn nothing_half_done_and_nothing_of_others() {
    let rig = Rig::with_base();
    rig.ok(["export", "--with-spec", "good", "base"]);
    let prepare = |name: &str| -> PathBuf {
        copy(&rig.path("good"), &rig.path(name));
        rig.path(name)
    };
    let wrong = |name: &str, expected: &str| {
        let error = rig.fails(["import", "--with-spec", name, "wrong"]);
        assert!(error.contains(expected), "{name}: {error}");
    };
    wrong("no-such", "there is no");
    fs::remove_file(prepare("no-spec").join("empty.tar")).unwrap();
    wrong("no-spec", "empty.tar");
    fs::remove_dir_all(prepare("no-files").join("rootfs")).unwrap();
    wrong("no-files", "neither a directory");
    fs::write(prepare("damaged").join("empty.tar"), "x").unwrap();
    wrong("damaged", "can't read an image");
    rig.ok(["push", "base", "oci-archive:whole.tar"]);
    fs::rename(rig.path("whole.tar"), prepare("layers").join("empty.tar")).unwrap();
    wrong("layers", "has layers");
    // Links that lead to what is the user's and not the image's.
    rig.write("private/secret", "secret");
    let linked = prepare("linked");
    fs::remove_dir_all(linked.join("rootfs")).unwrap();
    symlink(rig.path("private"), linked.join("rootfs")).unwrap();
    wrong("linked", "neither a directory");
    let linked = prepare("linked-tarball");
    fs::remove_dir_all(linked.join("rootfs")).unwrap();
    symlink(rig.path("private/secret"), linked.join("rootfs.tar")).unwrap();
    wrong("linked-tarball", "not a regular file");
    let linked = prepare("linked-record");
    let _ = fs::remove_file(linked.join("record"));
    symlink(rig.path("private/secret"), linked.join("record")).unwrap();
    wrong("linked-record", "not a regular file");
    fs::write(prepare("bad-record").join("record"), "{\"overrides\":{\"/../x\":\"0:0:0\"}}").unwrap();
    wrong("bad-record", "invalid layer record");
    assert!(!rig.ok(["images"]).contains("wrong"));

    // What is there is not touched, and what fails leaves nothing.
    let refused = rig.fails(["export", "--with-spec", "good", "base"]);
    assert!(refused.contains("not empty"), "{refused}");
    rig.write("file", "x");
    assert!(rig.fails(["export", "--with-spec", "file", "base"]).contains("not a directory"));
    let inside = rig.storage().join("out");
    assert!(rig.fails(["export", "--with-spec", inside.to_str().unwrap(), "base"]).contains("in the storage directory"));
    fs::create_dir(rig.path("empty")).unwrap();
    rig.ok(["export", "--with-spec", "empty", "base"]);
    assert!(rig.fails(["export", "--with-spec", "new/deep", "no-such"]).contains("no-such"));
    assert!(!rig.path("new").exists());
    let left: Vec<_> =
        fs::read_dir(rig.path("")).unwrap().map(|e| e.unwrap().file_name()).filter(|n| n.to_string_lossy().starts_with('.')).collect();
    assert!(left.is_empty(), "{left:?}");
    rig.assert_healthy();
}
