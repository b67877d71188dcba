//! `convert`, `save` and `load`: what goes round comes back the same.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::registry::Registry;
use crate::rig::{Rig, needs};
use crate::web::Web;

/// An image with more than one layer and a config to lose.
fn with_app() -> Rig {
    let rig = Rig::with_base();
    rig.build(
        "app:1",
        "FROM base\nENV A=b\nLABEL l=m\nRUN mkdir d && echo x >d/x && ln d/x d/y && chown 33:44 d/x && chmod 4750 d/x\nRUN rm d/y\nCMD [\"ls\"]\n",
    );
    rig
}

fn digest(rig: &Rig, image: &str) -> String {
    let inspected: serde_json::Value = serde_json::from_str(&rig.ok(["inspect", image, "--format", "json"])).unwrap();
    inspected[0]["digest"].to_string()
}

fn id(rig: &Rig, image: &str) -> String {
    let all: serde_json::Value = serde_json::from_str(&rig.ok(["images", "--format", "json"])).unwrap();
    let wanted =
        |entry: &&serde_json::Value| format!("{}:{}", entry["repository"].as_str().unwrap(), entry["tag"].as_str().unwrap()) == image;
    all.as_array().unwrap().iter().find(wanted).unwrap_or_else(|| panic!("{image} is not in {all}"))["id"].to_string()
}

#[test]
fn every_layered_place_gives_the_same_image_back() {
    let rig = with_app();
    let before = id(&rig, "app:1");
    for (number, place) in ["oci-archive:a.tar", "oci:layout", "docker-archive:d.tar", "docker-archive:d.tar.gz"].iter().enumerate() {
        let back = format!("back:{number}");
        rig.ok(["convert", "app:1", place]);
        rig.ok(["convert", place, &back]);
        assert_eq!(id(&rig, &back), before, "{place}");
    }
    // OCI's keep the manifest too, told by content as well.
    for (place, back) in [("a.tar", "told:1"), ("./layout", "told:2")] {
        rig.ok(["convert", "--format", "oci", place, back]);
        assert_eq!(digest(&rig, back), digest(&rig, "back:0"), "{place}");
    }
}

#[test]
fn flat_places_give_the_same_files_back() {
    let rig = with_app();
    rig.ok(["export", "app:1", "-o", "flat.tar"]);
    let flat = fs::read(rig.path("flat.tar")).unwrap();
    for (number, place) in ["t.tar", "t.tar.zst", "tar:u", "./tree"].iter().enumerate() {
        let back = format!("back:{number}");
        rig.ok(["convert", "app:1", place]);
        rig.ok(["convert", if *place == "tar:u" { "./u" } else { place }, &back]);
        rig.ok(["export", &back, "-o", "back.tar"]);
        assert!(fs::read(rig.path("back.tar")).unwrap() == flat, "{place}");
    }
}

#[test]
fn convert_knows_what_it_must_not_do() {
    let rig = with_app();
    fs::create_dir(rig.path("full")).unwrap();
    fs::write(rig.path("full/file"), "").unwrap();
    fs::write(rig.path("there.tar"), "mine").unwrap();
    for (line, expected) in [
        ("convert app:1 ./full", "not empty"),
        ("convert --no-clobber app:1 there.tar", "there already"),
        ("convert --no-clobber app:1 base", "there already"),
        ("convert ./nothing x", "no file or directory"),
        ("convert nothing x", "no image `nothing`"),
        ("convert isulad:x y", "gives none out"),
        ("convert app:1 host:sh", "no place that can be written"),
        ("convert app:1 No_Name", "invalid image reference"),
    ] {
        let error = rig.fails(line.split(' '));
        assert!(error.contains(expected), "{line}: {error}");
    }
    assert_eq!(fs::read(rig.path("there.tar")).unwrap(), b"mine");
    let said = rig.run(["convert", "-n", "app:1", "x.sqfs"]);
    assert!(said.stderr.contains("squashfs") && !rig.path("x.sqfs").exists());
}

#[test]
fn several_images_share_an_archive() {
    let rig = with_app();
    rig.ok(["tag", "app:1", "other:2"]);
    let (app, base) = (id(&rig, "app:1"), id(&rig, "base:latest"));
    for (format, file) in [("docker-archive", "all.tar"), ("docker-archive", "all.tar.zst"), ("oci-archive", "all.oci"), ("oci-dir", "all")]
    {
        rig.ok(["save", "-f", format, "-o", file, "base", "app:1", "other:2"]);
        rig.ok(["rm", "base", "app:1", "other:2"]);
        let said = rig.run(["load", "-i", file]);
        for name in ["base:latest", "app:1", "other:2"] {
            assert!(said.stderr.contains(&format!("loaded {name}")), "{file}: {}", said.stderr);
        }
        assert_eq!((id(&rig, "app:1"), id(&rig, "other:2"), id(&rig, "base:latest")), (app.clone(), app.clone(), base.clone()), "{file}");
    }
    // What is shared is in it once.
    let size = |file: &str| fs::metadata(rig.path(file)).unwrap().len();
    rig.ok(["save", "-o", "one.tar", "app:1"]);
    assert!(size("all.tar") < size("one.tar") + 20_000, "{} {}", size("all.tar"), size("one.tar"));
    let Some(()) = needs("skopeo") else { return };
    for image in ["docker-archive:all.tar:other:2", "docker-archive:all.tar:base:latest", "oci-archive:all.oci:2"] {
        let out = Command::new("skopeo").args(["inspect", "--config", image]).current_dir(rig.path("")).output().unwrap();
        assert!(out.status.success(), "{image}: {}", String::from_utf8_lossy(&out.stderr));
    }
}

#[test]
fn load_reads_standard_input_and_gives_names() {
    let rig = with_app();
    rig.ok(["save", "app:1", "-o", "a.tar"]);
    let archive = fs::read(rig.path("a.tar")).unwrap();
    let mut load = rig.command(["load", "-q"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    load.stdin.take().unwrap().write_all(&archive).unwrap();
    assert!(String::from_utf8(load.wait_with_output().unwrap().stdout).unwrap().contains("sha256:"));
    rig.ok(["load", "a.tar", "-t", "named:3"]);
    assert_eq!(id(&rig, "named:3"), id(&rig, "app:1"));
    fs::write(rig.path("no.tar"), "this is no archive").unwrap();
    rig.ok(["export", "app:1", "-o", "flat.tar"]);
    for (line, expected) in
        [("load no.tar", "can't read an image from `no.tar`"), ("load flat.tar", "rootling import"), ("load missing", "missing")]
    {
        let error = rig.fails(line.split(' '));
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn from_takes_every_place() {
    let rig = with_app();
    let absolute = |name: &str| rig.path(name).display().to_string();
    rig.ok(["save", "app:1", "-o", "d.tar"]);
    rig.ok(["convert", "app:1", "oci:layout:v1"]);
    rig.ok(["convert", "app:1", "flat.tar.gz"]);
    rig.ok(["convert", "app:1", "./tree"]);
    for from in [
        format!("docker-archive:{}", absolute("d.tar")),
        format!("oci:{}:v1", absolute("layout")),
        format!("tar:{}", absolute("flat.tar.gz")),
        format!("local:{}", absolute("tree")),
        "storage:app:1".to_owned(),
    ] {
        rig.build("made", &format!("FROM {from}\nRUN test \"$(stat -c %u:%g:%a d/x)\" = 33:44:4750\n"));
    }
    rig.build("programs", "FROM host:sh,echo\nRUN echo works\n");
}

#[test]
fn imports_know_urls_and_changes() {
    let rig = with_app();
    let Some(web) = Web::start(&rig) else { return };
    rig.ok(["export", "app:1", "-o", "www/rootfs.tar.gz"]);
    rig.ok(["import", &web.url("rootfs.tar.gz"), "fetched"]);
    rig.ok(["import", &web.url("rootfs.tar.gz"), "again"]);
    assert_eq!(id(&rig, "fetched:latest"), id(&rig, "again:latest"), "the same URL gives the same image");
    assert!(rig.fails(["import", &web.url("absent.tar"), "absent"]).contains("404"));
    rig.ok([
        "import",
        "-c",
        "CMD [\"sh\", \"-c\", \"echo $GREETING from $(pwd)\"]",
        "-c",
        "ENV GREETING=hello",
        "-c",
        "WORKDIR /tmp",
        "-m",
        "by hand",
        "www/rootfs.tar.gz",
        "changed",
    ]);
    assert_eq!(rig.ok(["run", "changed"]), "hello from /tmp\n");
    assert!(rig.ok(["history", "changed", "--format", "json"]).contains("by hand"));
    assert!(rig.fails(["import", "-c", "RUN true", "www/rootfs.tar.gz", "x"]).contains("changes files"));
}

/// What is only passed on is not unpacked, and goes byte for byte, an index with all it has.
#[test]
fn what_is_passed_on_stays_as_it_is() {
    if needs("docker-registry").is_none() || needs("skopeo").is_none() {
        return;
    }
    let registry = Registry::start();
    let from = Rig::new();
    from.write("context/f", "hello\n");
    from.write("context/Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY f /$TARGETARCH\n");
    let name = |tag: &str| format!("docker://{}/copies/multi:{tag}", registry.address);
    let digest_of = |rig: &Rig, place: &str| {
        let mut command = Command::new("skopeo");
        let out = command.args(["inspect", "--raw", "--tls-verify=false", place]).current_dir(rig.path("")).output().unwrap();
        assert!(out.status.success(), "{place}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    from.ok(["build", "--platform", "linux/amd64,linux/arm64", "-t", "multi", "context"]);
    from.ok(["push", "multi", &name("1")]);
    let before = digest_of(&from, &name("1"));
    assert!(before.contains("arm64"));
    let rig = Rig::new();
    let mut last = name("1");
    for to in ["oci-archive:a.tar:multi".to_owned(), "oci:layout:multi".to_owned(), name("2")] {
        rig.ok(["convert", "--all-platforms", &last, &to]);
        assert_eq!(digest_of(&rig, &to), before, "{to}");
        last = to;
    }
    let unpacked = fs::read_dir(rig.storage().join("layers")).map(Iterator::count).unwrap_or_default();
    assert_eq!(unpacked, 0, "a copy between registries and layouts unpacks nothing");
    // One platform, the same manifest; then into storage, where its files are needed.
    rig.ok(["convert", "--platform", "linux/arm64", "oci-archive:a.tar", "oci:one"]);
    assert!(before.contains(&crate::served::digest(digest_of(&rig, "oci:one").as_bytes())));
    rig.ok(["convert", "--platform", "linux/arm64", "oci:one", "one"]);
    rig.ok(["convert", "one", "one.tar"]);
    rig.ok(["convert", "-a", &name("2"), "all"]);
    rig.ok(["save", "-f", "oci", "-o", "all.tar", "all"]);
    assert_eq!(digest_of(&rig, "oci-archive:all.tar:latest"), before);
    rig.assert_healthy();
}

#[test]
fn what_was_meant_is_said() {
    let rig = with_app();
    rig.ok(["save", "-o", "d.tar", "app:1"]);
    rig.ok(["convert", "app:1", "squashfs:n.sqfs"]);
    rig.ok(["convert", "app:1", "local:tree"]);
    // Words without a slash are places where there is such a file.
    rig.ok(["convert", "squashfs:n.sqfs", "back:1"]);
    rig.ok(["convert", "local:tree", "back:2"]);
    rig.build("from", "FROM base\nCOPY --from=base /bin /copied\n");
    for (line, expected) in [
        ("import d.tar x", "rootling load -i d.tar"),
        ("run tree -- true", "run as `./tree`"),
        ("run --name x app:1", "no option `--name`"),
        ("run oci-archive:x.tar -- true", "rootling pull oci-archive:x.tar"),
        ("load -i n.sqfs", "rootling import n.sqfs"),
        ("push --creds user app:1 localhost:1/x", "--creds"),
    ] {
        let error = rig.fails(line.split(' '));
        assert!(error.contains(expected), "{line}: {error}");
    }
    let said = rig.run(["load"]);
    assert!(said.stderr.contains("from standard input") && said.stderr.contains("it is empty"), "{said}");
}
