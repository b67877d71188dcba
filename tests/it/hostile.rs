//! Hostile input is only input: a correct result or one clear error, nothing touched outside storage.

use std::fs;

use crate::rig::{Rig, assert_ordinary_user};
use crate::served::{Layer, Sending, Served, Tar, gzip};

/// Imports a tar archive; afterwards the directory `outside` beside the storage must be as it was.
fn import(name: &str, make: impl Fn(&str) -> Vec<u8>) -> (Rig, bool, String) {
    let rig = Rig::with_base();
    let canary = rig.write("outside/canary", "alive");
    let outside = rig.path("outside").display().to_string();
    rig.write("hostile.tar", make(&outside));
    let ran = rig.run(["import", "hostile.tar", "hostile"]);
    assert_eq!(fs::read_to_string(canary).unwrap(), "alive", "{name}: {ran}");
    let left: Vec<_> = fs::read_dir(rig.path("outside")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left.len(), 1, "{name} reached out of storage: {left:?}");
    assert!(!ran.stderr.contains("panicked"), "{name}: {ran}");
    if ran.code != Some(0) {
        assert_eq!(ran.stderr.matches("error: ").count(), 1, "{name}: {ran}");
    }
    assert_eq!(rig.sh("base", "echo fine"), "fine\n", "{name} broke storage");
    let ok = ran.code == Some(0);
    (rig, ok, ran.stderr)
}

#[test]
fn archives_that_want_out() {
    assert_ordinary_user();
    let refused = |name: &str, make: &dyn Fn(&str) -> Vec<u8>| {
        let (_, ok, stderr) = import(name, make);
        assert!(!ok, "{name} should be refused");
        assert!(stderr.contains("hint: ") || stderr.contains("cause: ") || stderr.contains("-->"), "{name}: {stderr}");
    };
    let harmless = |name: &str, make: &dyn Fn(&str) -> Vec<u8>| {
        let (_, ok, stderr) = import(name, make);
        assert!(ok, "{name}: {stderr}");
    };
    refused("dots", &|_| Tar::default().file("../outside/new", "x").end());
    refused("inner dots", &|_| Tar::default().directory("a").file("a/../../outside/new", "x").end());
    refused("missing hard link", &|out| Tar::default().entry("h", b'1', 0o644, &format!("{out}/canary"), b"").end());
    refused("hard link with dots", &|_| Tar::default().entry("h", b'1', 0o644, "../outside/canary", b"").file("h", "overwritten").end());
    refused("hard link through a symlink", &|out| Tar::default().symlink("s", out).entry("h", b'1', 0o644, "s/canary", b"").end());
    refused("truncated", &|_| Tar::default().entry("f", b'0', 0o644, "", &[b'x'; 5000]).end()[..2000].to_vec());
    harmless("absolute names", &|out| Tar::default().file(&format!("{out}/new"), "x").end());
    harmless("absolute symlink", &|out| Tar::default().symlink("s", out).file("s/new", "x").end());
    harmless("relative symlink", &|_| Tar::default().symlink("s", "../../../../../../../../../outside").file("s/new", "x").end());
    harmless("symlink replaced", &|out| Tar::default().symlink("s", &format!("{out}/canary")).file("s", "overwritten").end());
    harmless("device nodes", &|_| Tar::default().entry("null", b'3', 0o666, "", b"").entry("disk", b'4', 0o600, "", b"").end());
    refused("whiteout of the parent", &|_| Tar::default().directory("d").file("d/.wh...", "").end());
    refused("whiteout of itself", &|_| Tar::default().file(".wh..", "").end());
    harmless("whiteouts of nothing", &|_| Tar::default().directory("d").file("d/.wh.none", "").file("d/.wh..wh..opq", "").end());
    harmless("nothing at all", &|_| Tar::default().end());
}

#[test]
fn forged_overrides_are_dropped() {
    let (rig, ok, stderr) = import("forged", |_| {
        Tar::default()
            .pax("forged", &[("SCHILY.xattr.user.containers.override_stat", "33:33:04755"), ("SCHILY.xattr.user.overlay.opaque", "y")], "x")
            .end()
    });
    assert!(ok, "{stderr}");
    rig.ok(["export", "hostile", "-o", "out.tar"]);
    let list = std::process::Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(rig.path("out.tar")).output().unwrap();
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.contains("-rw-r--r-- 0/0"), "{list}");
}

#[test]
fn registries_that_lie() {
    let tar = Tar::default().file("f", "content").end();
    let check = |name: &str, wanted: &[&str], make: &dyn Fn(&Served) -> String| {
        let served = Served::start(Sending::Whole);
        let reference = make(&served);
        let rig = Rig::with_base();
        let stderr = rig.fails(["pull", &reference]);
        assert!(wanted.iter().any(|w| stderr.contains(w)), "{name}: none of {wanted:?} in {stderr}");
        assert!(!rig.ok(["images"]).contains(name), "{name} left an image");
        assert_eq!(rig.sh("base", "echo fine"), "fine\n");
    };
    let wrong = format!("sha256:{}", "0".repeat(64));
    check("wrong-digest", &["digest"], &|s| {
        let mut layer = Layer::gzipped(&tar);
        layer.digest.clone_from(&wrong);
        s.image("wrong-digest", &[layer])
    });
    check("wrong-diff-id", &["diff ID", "digest"], &|s| {
        s.image("wrong-diff-id", &[Layer { diff_id: wrong.clone(), ..Layer::gzipped(&tar) }])
    });
    check("too-long", &["size", "bytes", "long"], &|s| s.image("too-long", &[Layer { size: 10, ..Layer::gzipped(&tar) }]));
    check("too-short", &["size", "bytes", "short", "ended"], &|s| s.image("too-short", &[Layer { size: 100_000, ..Layer::gzipped(&tar) }]));
    check("truncated-gzip", &["gzip", "ended", "truncated", "unexpected"], &|s| {
        let mut layer = Layer::gzipped(&tar);
        layer.blob.truncate(layer.blob.len() - 12);
        (layer.digest, layer.size) = (crate::served::digest(&layer.blob), layer.blob.len());
        s.image("truncated-gzip", &[layer])
    });
    check("not-gzip", &["gzip", "tar", "archive"], &|s| {
        let blob = b"this is neither gzip nor tar".to_vec();
        s.image("not-gzip", &[Layer { digest: crate::served::digest(&blob), size: blob.len(), blob, ..Layer::gzipped(&tar) }])
    });
    check("gzip-with-tail", &["tail", "garbage", "trailing", "diff ID", "gzip"], &|s| {
        let mut blob = gzip(&tar);
        blob.extend(b"and something after the end");
        s.image("gzip-with-tail", &[Layer { digest: crate::served::digest(&blob), size: blob.len(), blob, ..Layer::gzipped(&tar) }])
    });
    check("no-json", &["manifest", "JSON", "json"], &|s| {
        s.manifest("no-json", "latest", b"<html>".to_vec());
        s.reference("no-json")
    });
    check("deep-json", &["manifest", "JSON", "json", "recursion"], &|s| {
        s.manifest("deep-json", "latest", "[".repeat(100_000).into_bytes());
        s.reference("deep-json")
    });
}

#[test]
fn odd_dockerfiles() {
    let rig = Rig::with_base();
    let works = |name: &str, dockerfile: &[u8], check: &str, wanted: &str| {
        rig.write("context/Dockerfile", dockerfile);
        let ran = rig.run(["build", "-t", "odd", "context"]);
        assert_eq!(ran.code, Some(0), "{name}: {ran}");
        assert_eq!(rig.sh("odd", check), wanted, "{name}");
    };
    works("CRLF", b"FROM base\r\nRUN echo a \\\r\n  b >/f\r\n", "cat /f", "a b\n");
    works("byte order mark", b"\xef\xbb\xbfFROM base\nRUN echo bom >/f\n", "cat /f", "bom\n");
    works("no final newline", b"FROM base\nRUN echo end >/f", "cat /f", "end\n");
    works("1 MB comment", &[b"FROM base\n# ".as_slice(), &[b'x'; 1 << 20], b"\nRUN echo long >/f\n"].concat(), "cat /f", "long\n");
    let many = format!("FROM base\n{}", (0..100_000).map(|i| format!("LABEL l{}={i}\n", i % 10)).collect::<String>());
    rig.write("context/Dockerfile", many);
    let ran = rig.run(["build", "-t", "many", "context"]);
    assert_eq!(ran.code, Some(0), "100,000 instructions: {}", &ran.to_string()[..2000]);

    let refused = |name: &str, dockerfile: &[u8], place: &str| {
        rig.write("context/Dockerfile", dockerfile);
        let stderr = rig.fails(["build", "-t", "refused", "context"]);
        assert!(stderr.contains(place), "{name}: no {place} in {stderr}");
    };
    refused("NUL", b"FROM base\nRUN echo \0 >/f\n", "Dockerfile:2");
    refused("invalid UTF-8", b"FROM base\nRUN echo \xff\xfe >/f\n", "Dockerfile:2");
    refused("unterminated heredoc", b"FROM base\nRUN <<EOF\necho\n", "Dockerfile:2");
    refused("nothing", b"", "Dockerfile");
    refused("only comments", b"# nothing\n", "Dockerfile");
    refused("deep variables", format!("FROM base\nENV A={}\n", "${A:-".repeat(100_000)).as_bytes(), "Dockerfile:2");
    refused("unknown flag", b"FROM base\nCOPY --no-such-flag a /\n", "Dockerfile:2");
}

#[test]
fn contexts_that_lead_out() {
    let rig = Rig::with_base();
    rig.write("secret", "secret");
    rig.write("context/f", "f");
    let secret = rig.path("secret");
    std::os::unix::fs::symlink(&secret, rig.path("context/absolute")).unwrap();
    std::os::unix::fs::symlink("../secret", rig.path("context/relative")).unwrap();
    std::os::unix::fs::symlink("..", rig.path("context/up")).unwrap();
    for source in ["absolute", "relative", "up/secret", "../secret", "../../../../../../../../etc/shadow"] {
        rig.write("context/Dockerfile", format!("FROM base\nCOPY {source} /taken\n"));
        let ran = rig.run(["build", "-t", "out", "context"]);
        assert!(ran.code.is_some_and(|c| c != 0), "COPY {source} must not leave the context: {ran}");
    }
    // As a part of a directory a symlink is copied as the link that it is.
    rig.write("context/Dockerfile", "FROM base\nCOPY . /all\n");
    rig.ok(["build", "-t", "in", "context"]);
    assert_eq!(rig.sh("in", "readlink /all/relative"), "../secret\n");
    // A link in the image must not lead a COPY out of the image.
    rig.write(
        "context/Dockerfile",
        format!(
            "FROM base\nRUN ln -s {} /way && ln -s ../../../../../../.. /up\nCOPY f /way/f\nCOPY f /up{}/g\n",
            rig.path("").display(),
            rig.path("").display()
        ),
    );
    rig.ok(["build", "-t", "inside", "context"]);
    assert!(!rig.path("f").exists() && !rig.path("g").exists(), "a COPY left the image");
}

#[test]
fn storage_that_is_not_ours() {
    let rig = Rig::new();
    let full = rig.write("storage/somebody's file", "precious");
    let stderr = rig.fails(["images"]);
    assert!(stderr.contains("hint: "), "{stderr}");
    assert!(full.exists());
    let rig = Rig::with_base();
    let version = rig.storage().join("version");
    fs::write(&version, "999999\n").unwrap();
    assert!(rig.fails(["images"]).contains("newer"));
}

#[test]
fn variables_made_of_variables_end() {
    let rig = Rig::with_base();
    let mut dockerfile = String::from("FROM base\nENV A0=xxxxxxxxxx\n");
    for number in 1..60 {
        dockerfile += &format!("ENV A{number}=${{A{0}}}${{A{0}}}\n", number - 1);
    }
    let ran = rig.try_build("doubling", &dockerfile);
    assert!(ran.code == Some(1) && ran.stderr.contains("longer than 1 MiB") && ran.stderr.contains("--> "), "{ran}");
    let mut dockerfile = format!("FROM base\nENV A=1 B={}\n", "y".repeat(900_000));
    for number in 0..60 {
        dockerfile += &format!("ENV C{number}=$B\n");
    }
    let ran = rig.try_build("many", &dockerfile);
    assert!(ran.code == Some(1) && ran.stderr.contains("longer than 16 MiB together"), "{ran}");
}
