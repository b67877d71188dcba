//! A build's result in every place, read again by programs that are not ours.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::registry::Registry;
use crate::rig::{Rig, assert_ordinary_user, needs};
use crate::served::digest;

/// A rig with an image `app` whose files have owners, modes and links.
fn rig_with_app() -> Rig {
    assert_ordinary_user();
    let rig = Rig::with_base();
    let dockerfile = "FROM base\n\
        RUN mkdir /d && echo hello >/d/file && chown 33:44 /d/file && ln /d/file /d/hard && ln -s file /d/soft && mkfifo /d/pipe\n\
        RUN echo s >/d/setuid && chmod 4755 /d/setuid && mkdir -m 500 /d/closed && echo x >/tmp/x && mkdir -m 1777 /d/sticky\n\
        RUN rm /tmp/x\n\
        ENV A=b\n\
        CMD [\"cat\", \"/d/file\"]\n";
    rig.write("ctx/Dockerfile", dockerfile);
    rig
}

fn run(program: &str, arguments: &[&str]) -> String {
    let out = Command::new(program).args(arguments).output().unwrap();
    assert!(out.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn text(path: PathBuf) -> String {
    path.display().to_string()
}

#[test]
fn archives_and_layouts_are_read_by_skopeo_and_umoci() {
    let (Some(()), Some(())) = (needs("skopeo"), needs("umoci")) else { return };
    let rig = rig_with_app();
    let outputs = ["type=oci,dest=a.tar", "type=oci,dest=layout,tar=false", "docker-archive:d.tar:app:2", "oci-archive:n.tar:app:3"];
    let mut line = vec!["build", "-t", "app:1"];
    outputs.iter().for_each(|output| line.extend(["-o", output]));
    line.push("ctx");
    rig.ok(line);
    let place = |kind: &str, name: &str| format!("{kind}:{}", text(rig.path(name)));
    let digest = |place: &str| run("skopeo", &["inspect", "--format", "{{.Digest}}", place]).trim().to_owned();
    assert_eq!(digest(&place("oci-archive", "a.tar")), digest(&format!("{}:1", place("oci", "layout"))));
    assert_eq!(digest(&place("oci-archive", "n.tar:app:3")), digest(&place("oci-archive", "a.tar")));
    // Names given by outputs name the image here too.
    let images = rig.ok(["images"]);
    for tag in ["1", "2", "3"] {
        assert!(images.lines().any(|l| l.contains("app") && l.contains(tag)), "{images}");
    }
    run("umoci", &["unpack", "--rootless", "--image", &format!("{}:1", text(rig.path("layout"))), &text(rig.path("bundle"))]);
    assert_eq!(fs::read_to_string(rig.path("bundle/rootfs/d/hard")).unwrap(), "hello\n");
    assert!(!rig.path("bundle/rootfs/tmp/x").exists());
    let tags = run("tar", &["xOf", &text(rig.path("d.tar")), "manifest.json"]);
    assert!(tags.contains("[\"app:2\"]"), "{tags}");
    let copy = format!("{}:copied", place("oci", "copied"));
    run("skopeo", &["copy", "--quiet", "--insecure-policy", &place("docker-archive", "d.tar"), &copy]);
    assert!(run("skopeo", &["inspect", "--config", &copy]).contains("\"A=b\""));
}

#[test]
fn a_layout_holds_several_images_and_keeps_them() {
    let Some(()) = needs("skopeo") else { return };
    let rig = rig_with_app();
    rig.write("two/Dockerfile", "FROM base\nRUN echo two >/two\n");
    rig.ok(["build", "-o", "oci:layout:first", "ctx"]);
    rig.ok(["build", "-o", "oci:layout:second", "two"]);
    let layout = |name: &str| format!("oci:{}:{name}", text(rig.path("layout")));
    let first = run("skopeo", &["inspect", "--format", "{{.Digest}}", &layout("first")]);
    assert_ne!(first, run("skopeo", &["inspect", "--format", "{{.Digest}}", &layout("second")]));
    rig.ok(["build", "-o", "oci:layout:second", "ctx"]);
    assert_eq!(first, run("skopeo", &["inspect", "--format", "{{.Digest}}", &layout("second")]));
    let index: serde_json::Value = serde_json::from_slice(&fs::read(rig.path("layout/index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    // An index of somebody else's that can't be read is not thrown away.
    rig.write("layout/index.json", "{");
    assert!(rig.fails(["build", "-o", "oci:layout:third", "ctx"]).contains("can't be understood"));
    assert_eq!(fs::read_to_string(rig.path("layout/index.json")).unwrap(), "{");
}

#[test]
fn the_same_image_gives_the_same_bytes() {
    let (rig, other) = (rig_with_app(), Rig::with_base());
    // The same image in two storage directories: by way of an archive of its files, which `import` gives no time of its own.
    rig.ok(["build", "-t", "app", "-o", "type=tar,dest=files.tar", "ctx"]);
    fs::copy(rig.path("files.tar"), other.path("files.tar")).unwrap();
    let time = fs::metadata(rig.path("files.tar")).unwrap().modified().unwrap();
    fs::File::open(other.path("files.tar")).unwrap().set_modified(time).unwrap();
    for rig in [&rig, &other] {
        rig.ok(["import", "files.tar", "localhost/same:1"]);
    }
    for (place, options) in [
        ("oci-archive:a", &[][..]),
        ("docker-archive:a", &[]),
        ("oci-archive:a", &["--compression-format", "zstd"]),
        ("oci-archive:a", &["--compression-format", "gzip", "--compression-level", "1"]),
        ("oci-archive:a", &["--compression-format", "none"]),
        ("tar:a", &[]),
    ] {
        let bytes = [&rig, &rig, &other].map(|rig| {
            rig.ok([&["push", "same", place][..], options].concat().iter().map(|word| word.replace("same", "localhost/same:1")));
            fs::read(rig.path("a")).unwrap()
        });
        assert!(bytes[0] == bytes[1] && bytes[0] == bytes[2], "{place} {options:?}");
    }
}

#[test]
fn directories_have_true_modes_and_links() {
    let rig = rig_with_app();
    rig.ok(["build", "-o", "tree", "ctx"]);
    let mode = |name: &str| fs::symlink_metadata(rig.path("tree/d").join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("setuid"), mode("closed"), mode("sticky"), mode("file")), (0o4755, 0o500, 0o1777, 0o644));
    let inode = |name: &str| fs::symlink_metadata(rig.path("tree/d").join(name)).unwrap().ino();
    assert_eq!(inode("file"), inode("hard"));
    assert_eq!(fs::read_link(rig.path("tree/d/soft")).unwrap(), PathBuf::from("file"));
    assert!(!rig.path("tree/tmp/x").exists());
    // Again, into what is there: ours is replaced, theirs is kept, and nobody's symlink is followed.
    fs::write(rig.path("outside"), "untouched").unwrap();
    fs::remove_file(rig.path("tree/d/file")).unwrap();
    std::os::unix::fs::symlink(rig.path("outside"), rig.path("tree/d/file")).unwrap();
    fs::write(rig.path("tree/theirs"), "kept").unwrap();
    rig.ok(["build", "-o", "type=local,dest=tree", "ctx"]);
    assert_eq!(fs::read_to_string(rig.path("outside")).unwrap(), "untouched");
    assert_eq!(fs::read_to_string(rig.path("tree/d/file")).unwrap(), "hello\n");
    assert_eq!(fs::read_to_string(rig.path("tree/theirs")).unwrap(), "kept");
    // Nobody named an image, so none was left.
    assert!(!rig.ok(["images"]).contains("unnamed"));
}

#[test]
fn squashfs_and_streams() {
    let rig = rig_with_app();
    let mut command = rig.command(["build", "-q", "-o", "-", "ctx"]);
    let out = command.output().unwrap();
    assert!(out.status.success());
    fs::write(rig.path("piped.tar"), out.stdout).unwrap();
    let listed = run("tar", &["tvf", &text(rig.path("piped.tar")), "--numeric-owner", "d/file"]);
    assert!(listed.contains("33/44"), "{listed}");
    let Some(()) = needs("unsquashfs") else { return };
    rig.ok(["build", "-o", "type=squashfs,dest=x.sqfs", "ctx"]);
    let first = fs::read(rig.path("x.sqfs")).unwrap();
    rig.ok(["build", "-o", "squashfs:x.sqfs", "ctx"]);
    assert!(fs::read(rig.path("x.sqfs")).unwrap() == first);
    let listed = run("unsquashfs", &["-lln", &text(rig.path("x.sqfs"))]);
    assert!(listed.lines().any(|l| l.contains("33/44") && l.ends_with("d/file")), "{listed}");
    assert!(listed.lines().any(|l| l.starts_with("-rwsr-xr-x") && l.ends_with("d/setuid")), "{listed}");
}

#[test]
fn podman_loads_what_was_written() {
    let Some(()) = needs("podman") else { return };
    let rig = Rig::with_base();
    // Without subuids podman can keep no other owner than root.
    rig.write("ctx/Dockerfile", "FROM base\nRUN echo x >/x\nENV A=b\n");
    rig.ok(["build", "-t", "localhost/app:1", "-o", "type=oci,dest=o.tar", "-o", "type=docker,dest=d.tar", "ctx"]);
    for archive in ["o.tar", "d.tar"] {
        // Its sockets' names must be short.
        let short = tempfile::TempDir::with_prefix_in("p.", "/tmp").unwrap();
        let (root, runroot) = (text(short.path().join("s")), text(short.path().join("r")));
        let options = ["--root", &root, "--runroot", &runroot, "--storage-driver", "vfs"];
        let file = text(rig.path(archive));
        let load = [&options[..], &["load", "-q", "-i", &file]].concat();
        let loaded = run("podman", &load);
        assert!(loaded.contains("localhost/app:1"), "{archive}: {loaded}");
        run("podman", &[&options[..], &["unshare", "rm", "-rf", &root]].concat());
    }
}

#[test]
fn wrong_outputs_fail_before_anything_is_built() {
    let rig = Rig::new();
    rig.write("ctx/Dockerfile", "FROM no-such-base\n");
    for (output, expected) in [
        ("type=oic,dest=x", "there is no type `oic`"),
        ("oci-archiv:x", "did you mean `oci-archive`"),
        ("type=oci,dest=x,compresion=zstd", "did you mean `compression`"),
        ("type=oci,compression-level=77,dest=x", "level 77"),
        (":", "transport"),
        ("docker-archive:", "nothing follows"),
    ] {
        let error = rig.fails(["build", "-o", output, "ctx"]);
        assert!(error.contains(expected) && !error.contains("no-such-base"), "{output}: {error}");
    }
}

#[test]
fn a_missing_engine_is_explained() {
    let rig = rig_with_app();
    let mut command = rig.command(["build", "-t", "app", "-o", "docker-daemon:app:1", "ctx"]);
    let out = command.env("DOCKER_HOST", format!("unix://{}", text(rig.path("no.sock")))).output().unwrap();
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && error.contains("no.sock") && error.contains("dockerd"), "{error}");
    let error = rig.fails(["push", "app", "isulad:app:1"]);
    assert!(error.contains("no program `isula`"), "{error}");
}

#[test]
fn a_killed_writer_leaves_nothing() {
    let rig = rig_with_app();
    rig.write("big/file", vec![7; 40 << 20]);
    rig.write("big/Dockerfile", "FROM base\nCOPY file /file\n");
    rig.ok(["build", "-t", "big", "big"]);
    for (transport, name) in [("docker-archive", "out.tar"), ("oci-archive", "out.tar"), ("tar", "out.tar.xz"), ("squashfs", "out.sqfs")] {
        rig.ok(["push", "big", &format!("{transport}:whole.{name}")]);
        for delay in [20, 60, 120] {
            let mut child = rig.start(["push", "big", &format!("{transport}:{name}")]);
            std::thread::sleep(Duration::from_millis(delay));
            let _ = child.kill();
            let _ = child.wait();
            // One that was quicker is whole.
            if let Ok(bytes) = fs::read(rig.path(name)) {
                assert!(bytes == fs::read(rig.path(format!("whole.{name}"))).unwrap(), "{transport} after {delay} ms");
                fs::remove_file(rig.path(name)).unwrap();
            }
        }
    }
    let beside = fs::read_dir(rig.path(".")).unwrap().flatten().map(|entry| entry.file_name());
    assert_eq!(beside.filter(|name| name.as_encoded_bytes().starts_with(b".")).count(), 0, "no drafts are left");
    let mut child = rig.start(["push", "big", "local:out"]);
    std::thread::sleep(Duration::from_millis(60));
    let _ = child.kill();
    let _ = child.wait();
    assert!(!rig.path("out").exists() || fs::metadata(rig.path("out/file")).unwrap().len() == 40 << 20);
    rig.assert_healthy();
}

#[test]
fn several_platforms_leave_as_an_index() {
    let (Some(()), Some(())) = (needs("skopeo"), needs("docker-registry")) else { return };
    let registry = Registry::start();
    let rig = Rig::new();
    rig.write("ctx/file", "hello\n");
    rig.write("ctx/Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY file /$TARGETARCH\n");
    let name = format!("{}/multi:1", registry.address);
    let platforms = ["build", "--platform", "linux/amd64,linux/arm64/v8", "-t", &name];
    rig.ok([&platforms[..], &["-o", "tree", "-o", "type=oci,dest=o.tar", "--push", "--metadata-file", "m.json", "ctx"]].concat());
    for platform in ["amd64", "arm64"] {
        assert_eq!(fs::read_to_string(rig.path(format!("tree/linux_{platform}/{platform}"))).unwrap(), "hello\n");
    }
    let raw = |place: &str| run("skopeo", &["inspect", "--raw", "--tls-verify=false", place]);
    let (pushed, written) = (raw(&format!("docker://{name}")), raw(&format!("oci-archive:{}", text(rig.path("o.tar")))));
    assert_eq!(pushed, written);
    let metadata = fs::read_to_string(rig.path("m.json")).unwrap();
    assert!(metadata.contains(&digest(pushed.as_bytes())), "{metadata}");
    let index: serde_json::Value = serde_json::from_str(&pushed).unwrap();
    assert_eq!(index["manifests"][1]["platform"]["architecture"], "arm64");
    // By name too, as Docker's manifest list, and read from another machine's side.
    let list = format!("docker://{}/multi:list", registry.address);
    rig.ok(["push", "--format", "docker", &name, &list]);
    assert!(raw(&list).contains("manifest.list.v2"), "{}", raw(&list));
    let other = Rig::new();
    other.ok(["pull", "--platform", "linux/arm64", &name]);
    other.ok(["export", &name, "-o", "arm.tar"]);
    assert!(run("tar", &["tf", &text(other.path("arm.tar"))]).contains("arm64"));
    let refused = rig.fails(["push", &name, "docker-archive:d.tar"]);
    assert!(refused.contains("one platform"), "{refused}");
}

#[test]
fn what_is_there_is_not_ours_to_remove() {
    let rig = Rig::with_base();
    rig.build("tree", "FROM base\nRUN mkdir -p /.profile/x /.keys && chmod 777 /.keys && echo new >/file\n");
    let home = rig.path("home");
    fs::create_dir_all(home.join(".keys")).unwrap();
    fs::set_permissions(home.join(".keys"), fs::Permissions::from_mode(0o700)).unwrap();
    rig.ok(["push", "tree", &format!("local:{}", home.display())]);
    assert_eq!(fs::metadata(home.join(".keys")).unwrap().permissions().mode() & 0o777, 0o700, "a directory that was there keeps its mode");
    let other = rig.path("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join(".profile"), "mine").unwrap();
    let error = rig.fails(["push", "tree", &format!("local:{}", other.display())]);
    assert!(error.contains("`.profile` is in the way"), "{error}");
    assert_eq!(fs::read_to_string(other.join(".profile")).unwrap(), "mine");
    let error = rig.fails(["push", "tree", &format!("local:{}", rig.storage().display())]);
    assert!(error.contains("is in the storage directory"), "{error}");
    rig.assert_healthy();
}
