//! Contexts and Dockerfiles that are elsewhere: repositories, tarballs, URLs, standard input; and named contexts.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::registry::write_layout;
use crate::rig::{Ran, Rig, needs};
use crate::served::{Layer, Tar, gzip};
use crate::web::{Web, holding, listing, sh};

/// Builds with these words, standard input being a file of the rig.
#[track_caller]
fn build(rig: &Rig, words: &[&str], stdin: Option<&Path>) -> Ran {
    let mut command = rig.command(["build", "--progress", "plain", "-t", "x"].iter().chain(words));
    command.stdin(stdin.map_or_else(Stdio::null, |file| fs::File::open(file).unwrap().into()));
    let line = format!("{command:?}");
    Ran::of(command.output().unwrap(), line)
}

#[track_caller]
fn builds(rig: &Rig, words: &[&str], stdin: Option<&Path>) -> String {
    let ran = build(rig, words, stdin);
    assert_eq!(ran.code, Some(0), "{ran}");
    ran.stderr
}

fn content(rig: &Rig, file: &str) -> String {
    rig.ok(["export", "x", "-o", "content.tar"]);
    sh(&rig.path(""), &format!("tar xOf content.tar {file}"))
}

const SOURCES: &str = "mkdir -p sub/deep && echo top >top && echo s >sub/s && echo no >sub/no && echo no >sub/.dockerignore && \
    printf 'FROM scratch\\nCOPY . /c/\\n' | tee Dockerfile sub/Dockerfile >sub/deep/Other && echo top >.dockerignore";

#[test]
fn a_repository_is_a_context() {
    let rig = Rig::new();
    let Some(web) = Web::start(&rig) else { return };
    let repository = web.repository(&rig, "r", SOURCES);
    repository.sh("git tag v1");
    repository.commit("echo later >sub/s");
    let url = web.url("git/r.git");
    builds(&rig, &[&url], None);
    let listed = listing(&rig, "x");
    assert!(listed.contains("c/sub/s") && !listed.contains("c/top") && !listed.contains(".git/"), "{listed}");
    assert!(builds(&rig, &[&url], None).contains("cached"));
    builds(&rig, &[&format!("{url}#v1:sub")], None);
    assert_eq!(content(&rig, "c/s"), "s\n");
    assert!(!listing(&rig, "x").contains("c/no"));
    builds(&rig, &[&format!("{url}#:sub"), "-f", "deep/Other"], None);
    assert_eq!(content(&rig, "c/s"), "later\n");
    // The Dockerfile from elsewhere, the files from the repository.
    let other = rig.write("Other", "FROM scratch\nCOPY sub/s /other\n");
    builds(&rig, &["-f", "-", &url], Some(&other));
    assert_eq!(content(&rig, "other"), "later\n");
    web.file("dockerfiles/D", "FROM scratch\nCOPY sub/s /by-url\n");
    builds(&rig, &["-f", &web.url("dockerfiles/D"), &url], None);
    assert_eq!(content(&rig, "by-url"), "later\n");
    // A repository of this machine, for its owner only.
    builds(&rig, &[&format!("file://{}#v1:sub", repository.bare.display())], None);
    assert_eq!(content(&rig, "c/s"), "s\n");
    let ran = build(&rig, &[&format!("{url}#:absent")], None);
    assert!(ran.stderr.contains("can't open the build context") && ran.stderr.contains("no directory `/absent`"), "{ran}");
}

#[test]
fn a_tarball_is_a_context() {
    let rig = Rig::new();
    let Some(web) = Web::start(&rig) else { return };
    fs::create_dir_all(rig.path("src")).unwrap();
    sh(&rig.path("src"), SOURCES);
    sh(&rig.path("src"), "chmod 4751 sub/s && chmod 700 sub");
    let mut archives = Vec::new();
    for (name, flag) in [("plain.tar", ""), ("a.tar.gz", "z"), ("a.tar.xz", "J"), ("a.tar.zst", "--zstd"), ("a.tar.bz2", "j")] {
        let flag = if flag.len() == 1 { format!("-{flag}") } else { flag.to_owned() };
        sh(&rig.path("src"), &format!("tar {flag} -c -f ../www/{name} --owner=5 --group=6 ."));
        archives.push(rig.path("www").join(name));
    }
    for archive in &archives {
        builds(&rig, &["-"], Some(archive));
        let listed = listing(&rig, "x");
        // Owners are the machine's where it was packed, modes are the file's own.
        assert!(listed.contains("-rwsr-x--x 0/0 2") && listed.contains("drwx------ 0/0"), "{listed}");
        assert!(listed.contains("c/sub/s") && !listed.contains("c/top"), "{}: {listed}", archive.display());
    }
    builds(&rig, &["-f", "sub/deep/Other", "-"], Some(&archives[1]));
    builds(&rig, &[archives[0].to_str().unwrap()], None);
    assert_eq!(content(&rig, "c/sub/s"), "s\n");
    web.requests();
    let url = web.url("a.tar.gz");
    builds(&rig, &[&url], None);
    assert!(builds(&rig, &[&url], None).contains("cached"));
    assert_eq!(web.requests(), ["GET /a.tar.gz 200 -", "GET /a.tar.gz 304 -"]);
    let ran = build(&rig, &["-f", "absent", &url], None);
    assert!(ran.stderr.contains("there is no `absent` in the build context"), "{ran}");
}

#[test]
fn a_dockerfile_comes_alone() {
    let rig = Rig::new();
    let Some(web) = Web::start(&rig) else { return };
    let dockerfile = rig.write("D", "FROM scratch\nCOPY <<here /f\ntext\nhere\n");
    builds(&rig, &["-"], Some(&dockerfile));
    assert_eq!(content(&rig, "f"), "text\n");
    web.file("D", "FROM scratch\nCOPY <<here /g\ntext\nhere\n");
    builds(&rig, &[&web.url("D")], None);
    assert_eq!(content(&rig, "g"), "text\n");
    web.file("E", "FROM scratch\nCOPY x /\n");
    let ran = build(&rig, &[&web.url("E")], None);
    assert!(ran.stderr.contains("there is no build context") && ran.stderr.contains(&format!("{}:2:1", web.url("E"))), "{ran}");
    let ran = build(&rig, &["-f", "F", "-"], Some(&dockerfile));
    assert!(ran.stderr.contains("both `--file` and a Dockerfile on standard input"), "{ran}");
    let ran = build(&rig, &["-f", "F", &web.url("D")], None);
    assert!(ran.stderr.contains("is not a tarball"), "{ran}");
    let ran = build(&rig, &[&web.url("absent")], None);
    assert!(ran.stderr.contains("404"), "{ran}");
    let ran = build(&rig, &["absent"], None);
    assert!(ran.stderr.contains("`absent` is not a directory"), "{ran}");
    let ran = build(&rig, &["D"], None);
    assert!(ran.stderr.contains("neither a directory nor a tarball"), "{ran}");
}

#[test]
fn a_hostile_tarball_stays_inside() {
    let rig = Rig::new();
    let secret = rig.write("secret", "secret-of-this-machine");
    let dockerfile = |lines: &str| Tar::default().file("Dockerfile", &format!("FROM scratch\n{lines}\n"));
    for (name, tar, expected) in [
        ("up", dockerfile("COPY . /").file("../evil", "x"), "leads out with `..`"),
        ("deep up", dockerfile("COPY . /").file("a/../../evil", "x"), "leads out with `..`"),
        (
            "link",
            dockerfile("COPY link/secret /").symlink("link", rig.path("").to_str().unwrap()),
            "`link/secret` is not in the build context",
        ),
        ("dockerfile", Tar::default().symlink("Dockerfile", secret.to_str().unwrap()), "there is no `Dockerfile`"),
        ("hard link", dockerfile("COPY . /").entry("hard", b'1', 0o644, secret.to_str().unwrap(), b""), "hard link target"),
        ("cut", Tar::default().file("Dockerfile", "FROM scratch").file("x", &"x".repeat(5000)), ""),
    ] {
        let mut bytes = tar.end();
        if name == "cut" {
            bytes.truncate(bytes.len() - 4096);
        }
        for bytes in [bytes.clone(), gzip(&bytes)] {
            let archive = rig.write("hostile.tar", bytes);
            let ran = build(&rig, &["-"], Some(&archive));
            assert!(ran.code == Some(1) && ran.stderr.contains(expected), "{name}: {expected} is not in: {ran}");
            assert_eq!(ran.stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{ran}");
        }
    }
    assert!(!rig.path("evil").exists());
    // Allowed: a leading slash is dropped, devices are placeholders, links are links.
    let tar = dockerfile("COPY . /c/").file("/abs", "x").symlink("link", "/etc").entry("dev", b'3', 0o600, "", b"");
    let archive = rig.write("odd.tar", tar.end());
    builds(&rig, &["-"], Some(&archive));
    let listed = listing(&rig, "x");
    assert!(listed.contains("c/abs") && listed.contains("c/link -> /etc") && listed.contains("crw------- 0/0 1,3"), "{listed}");
    assert_eq!(holding(&rig, "secret-of-this-machine"), "");
    rig.assert_healthy();
}

#[test]
fn named_contexts_take_the_place_of_stages_and_images() {
    let rig = Rig::with_base();
    let Some(web) = Web::start(&rig) else { return };
    rig.write("dir/file", "from the directory\n");
    rig.write("dir/.dockerignore", "hidden\n");
    rig.write("dir/hidden", "no\n");
    sh(&rig.path(""), "chmod 640 dir/file && tar czf www/t.tgz --owner=7 --group=8 -C dir file");
    web.repository(&rig, "r", "mkdir d; echo 'from the repository' >d/file");
    let dockerfile = rig.write(
        "Dockerfile",
        "FROM absent.example/never:1 AS never\nFROM base AS stage\nRUN echo built >/file\nFROM scratch\n\
         COPY --from=stage /file /stage\nCOPY --from=docker.io/library/tools:latest /file /image\nCOPY --from=never /file /never\nCOPY --from=never . /all/\n",
    );
    let file = dockerfile.to_str().unwrap();
    let dir = format!("tools={}", rig.path("dir").display());
    let (tar, git) = (format!("never={}", web.url("t.tgz")), format!("Stage={}#:d", web.url("git/r.git")));
    let words = ["-f", file, "--build-context", &dir, "--build-context", &tar, "--build-context", &git, "."];
    builds(&rig, &words, None);
    let read = |name: &str| content(&rig, name);
    assert_eq!(["stage", "image", "never"].map(read), ["from the repository\n", "from the directory\n", "from the directory\n"]);
    let listed = listing(&rig, "x");
    assert!(listed.contains("-rw-r----- 0/0") && !listed.contains("hidden"), "{listed}");
    assert!(builds(&rig, &words, None).contains("cached"));

    // What RUN mounts.
    rig.write(
        "Dockerfile",
        "FROM base\nRUN --mount=from=tools,target=/d --mount=from=never,target=/t cat /d/file /t/file >/both; ls /d >>/both\n",
    );
    builds(&rig, &words, None);
    assert_eq!(content(&rig, "both"), "from the directory\nfrom the directory\nfile\n");

    // FROM files, FROM an image by another name.
    rig.write("Dockerfile", "FROM tools\nCOPY <<x /more\ny\nx\n");
    builds(&rig, &["-f", file, "--build-context", &dir, "."], None);
    assert_eq!(listing(&rig, "x").lines().filter(|line| !line.ends_with("./")).count(), 3, "{}", listing(&rig, "x"));
    builds(&rig, &["-f", file, "--build-context", "tools=docker-image://base", "."], None);
    assert!(listing(&rig, "x").contains("bin/"));
    for (given, expected) in [
        ("tools", "it must be NAME=LOCATION"),
        ("tools=", "it must be NAME=LOCATION"),
        ("tools=absent-directory", "is not a directory"),
        ("tools=target:x", "bake"),
        ("tools=docker-image://Nope:UP", "invalid `--build-context"),
    ] {
        let ran = build(&rig, &["-f", file, "--build-context", given, "."], None);
        assert!(ran.code == Some(1) && ran.stderr.contains(expected), "{given}: {expected} is not in: {ran}");
    }
}

#[test]
fn images_in_files_are_bases_and_sources() {
    let rig = Rig::new();
    let Some(()) = needs("skopeo") else { return };
    let layers = [
        Layer::gzipped(&Tar::default().file("one", "1").file("both", "lower").end()),
        Layer::zstd(&Tar::default().file("two", "2").file("both", "upper").end()),
    ];
    write_layout(&rig.path("layout"), &layers);
    let plain = [
        Layer::plain(&Tar::default().file("one", "1").end()),
        Layer::gzipped(&Tar::default().file("two", "2").file("both", "upper").end()),
    ];
    write_layout(&rig.path("for-docker"), &plain);
    let skopeo = |from: &str, to: &str| sh(&rig.path(""), &format!("skopeo copy --quiet --insecure-policy {from} {to}"));
    skopeo("oci:layout:latest", "oci-archive:a.tar:tools:1");
    skopeo("oci:for-docker:latest", "docker-archive:d.tar:tools:1");
    sh(&rig.path(""), "gzip -k a.tar d.tar; mkdir c; cp -r layout/. c/");
    for place in [
        "oci:layout",
        "oci:layout:latest",
        "oci-archive:a.tar",
        "oci-archive:a.tar:tools:1",
        "oci-archive:a.tar.gz",
        "docker-archive:d.tar",
        "docker-archive:d.tar.gz:tools:1",
    ] {
        rig.write("Dockerfile", format!("FROM {place}\nCOPY --from={place} /two /copied\nLABEL l=1\n"));
        builds(&rig, &["-f", "Dockerfile", "."], None);
        let read = |name: &str| content(&rig, name);
        assert_eq!(["one", "two", "both", "copied"].map(read), ["1", "2", "upper", "2"], "{place}");
        assert!(rig.ok(["inspect", "x"]).contains("\"sample\""), "{place}: the config comes along");
    }
    rig.write("Dockerfile", "FROM tools\nCOPY --from=tools /two /copied\n");
    let digest = sh(&rig.path("layout"), "grep -o '\"digest\": *\"sha256:[0-9a-f]*' index.json | head -1 | grep -o 'sha256.*'");
    for place in ["oci-layout://layout".to_owned(), "oci-layout://./layout:latest".into(), format!("oci-layout://layout@{}", digest.trim())]
    {
        builds(&rig, &["-f", "Dockerfile", "--build-context", &format!("tools={place}"), "."], None);
        assert_eq!(content(&rig, "copied"), "2");
    }
    rig.assert_healthy();
    for (place, expected) in [
        ("oci:layout:nope", "there is no image `nope` in it"),
        ("oci:absent", "can't open"),
        ("oci:for-docker/blobs", "it is not an OCI image layout"),
        ("oci:a.tar", "oci-archive:FILE"),
        ("oci-archive:layout", "oci:DIRECTORY"),
        ("oci-archive:d.tar", "docker-archive:FILE"),
        ("docker-archive:a.tar", "oci-archive:FILE"),
        ("docker-archive:d.tar:nope", "there is no image `nope` in it"),
        ("oci-archive:Dockerfile", ""),
    ] {
        rig.write("D", format!("FROM {place}\n"));
        let ran = build(&rig, &["-f", "D", "."], None);
        assert!(ran.code == Some(1) && ran.stderr.contains(expected), "{place}: {expected} is not in: {ran}");
    }
}

#[test]
fn a_damaged_image_file_is_refused() {
    let layer = || Layer::gzipped(&Tar::default().file("one", "1").end());
    let wrong = |change: fn(&mut Layer)| {
        let mut layer = layer();
        change(&mut layer);
        layer
    };
    for (name, layer, expected) in [
        ("bytes", wrong(|layer| layer.blob[20] ^= 1), "digest"),
        ("size", wrong(|layer| layer.size += 1), "bytes instead of"),
        ("diff ID", wrong(|layer| layer.diff_id = Layer::plain(b"").diff_id), "diff ID"),
        ("type", wrong(|layer| layer.media_type = "application/json"), "media type"),
    ] {
        let rig = Rig::new();
        write_layout(&rig.path("layout"), std::slice::from_ref(&layer));
        // Under the name that the manifest gives it, whatever it is.
        fs::write(rig.path("layout/blobs/sha256").join(&layer.digest["sha256:".len()..]), &layer.blob).unwrap();
        rig.write("Dockerfile", "FROM oci:layout\n");
        let ran = build(&rig, &["."], None);
        assert!(ran.code == Some(1) && ran.stderr.contains(expected), "{name}: {expected} is not in: {ran}");
        assert_eq!(rig.ok(["images", "--format", "json"]).trim(), "[]", "{name}");
        // What is outside a layout is not in it.
        fs::remove_file(rig.path("layout/index.json")).unwrap();
        rig.write("outside.json", "{}");
        std::os::unix::fs::symlink("../outside.json", rig.path("layout/index.json")).unwrap();
        let ran = build(&rig, &["."], None);
        assert!(ran.stderr.contains("there is no `index.json` in it"), "{ran}");
    }
}
