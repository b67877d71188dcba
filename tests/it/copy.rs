//! COPY and ADD of what is here already: what comes to lie where, under whose name, and from which cache.
//!
//! Where buildah or Docker's engine can say what is right, `tests/corpus` asks them. Here is what they can't: flags that are younger than
//! they are, with expectations from BuildKit's reference and its own tests.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::rig::{Rig, assert_ordinary_user};

/// Mode, owner, name and target of everything in an image, sorted.
fn tree(rig: &Rig, image: &str) -> Vec<String> {
    let tar = rig.path(format!("{image}.tar"));
    rig.ok(["export", image, "-o", tar.to_str().unwrap()]);
    let out = Command::new("tar").args(["--numeric-owner", "--quoting-style=escape", "-tvf"]).arg(&tar).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let line = |l: &str| {
        let words: Vec<&str> = l.split_whitespace().collect();
        format!("{} {} {}", words[0], words[1], words[5..].join(" ").trim_start_matches("./"))
    };
    let mut lines: Vec<String> = text.lines().map(line).filter(|l| !l.ends_with(' ')).collect();
    lines.sort_by(|a, b| a.split(' ').nth(2).cmp(&b.split(' ').nth(2)));
    lines
}

/// The names alone, directories without their slash.
fn names(rig: &Rig, image: &str) -> String {
    let names: Vec<String> = tree(rig, image).iter().map(|l| l.split(' ').nth(2).unwrap().trim_end_matches('/').to_owned()).collect();
    names.join(" ")
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The tree of BuildKit's own test of `--parents`.
fn nested(rig: &Rig) {
    for file in ["test/a/b/c/d/foo", "test/a/b/c/d/e/bay", "test/a/b2/c/d/e/bar", "test/a/b/c2/d/e/baz", "test/a/b/c2/d/e2/baz"] {
        rig.write(&format!("context/{file}"), "x");
    }
}

#[test]
fn parents_keep_the_directories_above() {
    assert_ordinary_user();
    let rig = Rig::new();
    nested(&rig);
    for (name, source, expected) in [
        ("middle", "/test/a/b/./c/d", "out out/c out/c/d out/c/d/e out/c/d/e/bay out/c/d/foo"),
        (
            "dot-at-the-end",
            "/test/a/b/c/d/.",
            "out out/test out/test/a out/test/a/b out/test/a/b/c out/test/a/b/c/d out/test/a/b/c/d/e out/test/a/b/c/d/e/bay out/test/a/b/c/d/foo",
        ),
        (
            "start",
            "./test/a/b2/c/d/e/bar",
            "out out/test out/test/a out/test/a/b2 out/test/a/b2/c out/test/a/b2/c/d out/test/a/b2/c/d/e out/test/a/b2/c/d/e/bar",
        ),
        ("double", "/test/a/./b2/./c", "out out/b2 out/b2/c out/b2/c/d out/b2/c/d/e out/b2/c/d/e/bar"),
        (
            "wildcard",
            "/test/a/./*/c",
            "out out/b out/b/c out/b/c/d out/b/c/d/e out/b/c/d/e/bay out/b/c/d/foo out/b2 out/b2/c out/b2/c/d out/b2/c/d/e out/b2/c/d/e/bar",
        ),
        ("double-wildcard", "/test/a/b*/./c/**/e", "out out/c out/c/d out/c/d/e out/c/d/e/bar out/c/d/e/bay"),
        (
            "two-inputs",
            "/test/a/b/c*/./d/**/baz /test/a/b*/./c/**/bar",
            "out out/c out/c/d out/c/d/e out/c/d/e/bar out/d out/d/e out/d/e/baz out/d/e2 out/d/e2/baz",
        ),
        (
            "files-anywhere",
            "**/ba?",
            "out out/test out/test/a out/test/a/b out/test/a/b/c out/test/a/b/c/d out/test/a/b/c/d/e out/test/a/b/c/d/e/bay out/test/a/b/c2 out/test/a/b/c2/d out/test/a/b/c2/d/e out/test/a/b/c2/d/e/baz out/test/a/b/c2/d/e2 out/test/a/b/c2/d/e2/baz out/test/a/b2 out/test/a/b2/c out/test/a/b2/c/d out/test/a/b2/c/d/e out/test/a/b2/c/d/e/bar",
        ),
        ("nothing", "/test/**/none*", "out"),
        (
            "excluded",
            "--exclude=**/e --exclude=test/a/b2 test",
            "out out/test out/test/a out/test/a/b out/test/a/b/c out/test/a/b/c/d out/test/a/b/c/d/foo out/test/a/b/c2 out/test/a/b/c2/d out/test/a/b/c2/d/e2 out/test/a/b/c2/d/e2/baz",
        ),
    ] {
        rig.build(name, &format!("FROM scratch\nCOPY --parents {source} /out/\n"));
        assert_eq!(names(&rig, name), expected, "{name}");
        rig.build(name, &format!("FROM scratch AS base\nCOPY . /\nFROM scratch\nCOPY --parents --from=base {source} /out/\n"));
        assert_eq!(names(&rig, name), expected, "{name}, from a stage");
    }
    for (source, wanted) in [("test/none", "is not in"), ("/test/a/./none", "is not in"), ("test/a/b/c/d/foo/./x", "is not a directory")] {
        let ran = rig.try_build("missing", &format!("FROM scratch\nCOPY --parents {source} /out/\n"));
        assert!(ran.code != Some(0) && ran.stderr.contains(wanted) && ran.stderr.contains("Dockerfile.missing:2"), "{source}: {ran}");
    }
}

#[test]
fn parents_look_like_their_sources() {
    let rig = Rig::new();
    rig.write("context/x/y/f", "f");
    rig.write("context/init/x/z", "z");
    mode(&rig.path("context/x"), 0o750);
    mode(&rig.path("context/x/y"), 0o700);
    mode(&rig.path("context/init/x"), 0o711);
    rig.build(
        "owned",
        "FROM scratch\nCOPY --chown=1:2 init /out/\nCOPY --parents --chown=3:4 x/y/f /out/\nCOPY --parents --chmod=0701 x/y/f /mod/\n",
    );
    let expected = [
        "drwx-----x 0/0 mod/x/",
        "drwx-----x 0/0 mod/x/y/",
        "-rwx-----x 0/0 mod/x/y/f",
        // It was there: it gets the mode of the source and stays whose it was.
        "drwxr-x--- 1/2 out/x/",
        "drwx------ 3/4 out/x/y/",
        "-rw-r--r-- 3/4 out/x/y/f",
        "-rw-r--r-- 1/2 out/x/z",
    ];
    let found = tree(&rig, "owned");
    for line in expected {
        assert!(found.iter().any(|l| l == line), "no `{line}` in {found:#?}");
    }
}

#[test]
fn excluded_files_stay_behind() {
    let rig = Rig::new();
    for file in ["dir1/101.png", "dir1/102.txt", "dir2/201.pdf", "dir2/202.txt", "dir2/sub/203.txt", "home.txt", "home.md", "a b.txt"] {
        rig.write(&format!("context/{file}"), "x");
    }
    for (name, line, expected) in [
        (
            "one-level",
            "COPY --exclude=*/*.png --exclude=*.txt --exclude=*.md . /1",
            "1 1/dir1 1/dir1/102.txt 1/dir2 1/dir2/201.pdf 1/dir2/202.txt 1/dir2/sub 1/dir2/sub/203.txt",
        ),
        ("in-each-match", "COPY --exclude=*.txt dir* /2/", "2 2/101.png 2/201.pdf 2/sub 2/sub/203.txt"),
        ("all", "ADD --exclude=* dir* /3", "3"),
        ("any-level", "COPY --exclude=**/*.txt dir2 /4", "4 4/201.pdf 4/sub"),
        ("exception", "COPY --exclude=sub --exclude=*.txt --exclude=!sub/203.txt dir2 /5/", "5 5/201.pdf 5/sub 5/sub/203.txt"),
        ("matched-files", "COPY --exclude=*.txt hom* /6/", "6 6/home.md"),
        ("two", "COPY --exclude=*.txt --exclude=*.md hom* /7/", ""),
        ("named", "COPY --exclude=*.txt home.txt /8/", "8 8/home.txt"),
        ("variable", "ARG OUT=*.pdf\nCOPY --exclude=$OUT --exclude=sub dir2 /9/", "9 9/202.txt"),
        ("directory", "COPY --exclude=sub/ dir2 /a/", "a a/201.pdf a/202.txt"),
    ] {
        rig.build(name, &format!("FROM scratch\n{line}\n"));
        assert_eq!(names(&rig, name), expected, "{name}");
        let (before, instruction) = line.rsplit_once('\n').map_or(("", line), |(before, line)| (before, line));
        let from_stage = instruction.replace("ADD ", "COPY ").replace("COPY ", "COPY --from=base ");
        rig.build(name, &format!("FROM scratch AS base\nCOPY . /\nFROM scratch\n{before}\n{from_stage}\n"));
        assert_eq!(names(&rig, name), expected, "{name}, from a stage");
    }
    // What is left out does not count for the cache.
    let dockerfile = "FROM scratch\nCOPY --exclude=*.txt . /x/\n";
    rig.build("counts", dockerfile);
    rig.write("context/home.txt", "changed");
    assert!(rig.build("counts", dockerfile).contains("] cached"));
    rig.write("context/home.md", "changed");
    assert!(!rig.build("counts", dockerfile).contains("] cached"));
    let ran = rig.try_build("bad", "FROM scratch\nCOPY --exclude=[ . /x/\n");
    assert!(ran.code != Some(0) && ran.stderr.contains("bad pattern `[`") && ran.stderr.contains("Dockerfile.bad:2"), "{ran}");
}

#[test]
fn a_linked_layer_depends_on_nothing_below() {
    let rig = Rig::new();
    rig.write("context/f", "linked");
    rig.write("context/init/one", "1");
    fs::create_dir_all(rig.path("context/init/real")).unwrap();
    symlink("real", rig.path("context/init/lib")).unwrap();
    rig.write("context/init/tmp/t", "t");
    mode(&rig.path("context/init/tmp"), 0o777);
    let linked = |flag: &str| format!("FROM scratch\nCOPY init /\nCOPY {flag} f /lib/f\nCOPY {flag} f /tmp/f\n");
    rig.build("placed", &linked(""));
    let placed = tree(&rig, "placed");
    assert!(placed.contains(&"lrwxrwxrwx 0/0 lib -> real".into()) && placed.contains(&"drwxrwxrwx 0/0 tmp/".into()), "{placed:#?}");
    assert!(names(&rig, "placed").contains("real/f"));
    rig.build("linked", &linked("--link"));
    let found = tree(&rig, "linked");
    for line in ["drwxr-xr-x 0/0 lib/", "-rw-r--r-- 0/0 lib/f", "drwxr-xr-x 0/0 tmp/", "-rw-r--r-- 0/0 tmp/t"] {
        assert!(found.iter().any(|l| l == line), "no `{line}` in {found:#?}");
    }
    // With `--chmod` it is placed as without `--link`.
    rig.build("mode", &linked("--link --chmod=600"));
    assert!(tree(&rig, "mode").contains(&"-rw------- 0/0 real/f".into()));
    fs::rename(rig.path("context/init/one"), rig.path("context/init/two")).unwrap();
    let log = rig.build("linked", &linked("--link"));
    assert_eq!(log.matches("] cached").count(), 2, "the layers below changed, these did not: {log}");
    let log = rig.build("placed", &linked(""));
    assert_eq!(log.matches("] cached").count(), 1, "only the first step is the same as before: {log}");
}

#[test]
fn archives_are_unpacked_unless_told_otherwise() {
    let rig = Rig::new();
    rig.write("context/d/f", "x");
    let tar = Command::new("tar").args(["-czf", "t.tgz", "d"]).current_dir(rig.path("context")).status().unwrap();
    assert!(tar.success());
    for (name, line, expected) in [
        ("default", "ADD t.tgz /x/", "x x/d x/d/f"),
        ("told", "ADD --unpack=true t.tgz /x/", "x x/d x/d/f"),
        ("not", "ADD --unpack=false t.tgz /x/", "x x/t.tgz"),
        ("between", "ADD d t.tgz /x/", "x x/d x/d/f x/f"),
    ] {
        rig.build(name, &format!("FROM scratch\n{line}\n"));
        assert_eq!(names(&rig, name), expected, "{name}");
    }
    for (line, wanted) in [
        ("ADD --checksum=sha256:0000 t.tgz /x/", "`--checksum` needs exactly one source, a URL or a repository"),
        ("COPY https://example.com/x /x/", "COPY can't download"),
    ] {
        let ran = rig.try_build("wrong", &format!("FROM scratch\n{line}\n"));
        assert!(ran.code != Some(0) && ran.stderr.contains(wanted) && ran.stderr.contains("Dockerfile.wrong:2"), "{line}: {ran}");
    }
}

#[test]
fn modes_reach_what_a_stage_holds() {
    let rig = Rig::new();
    rig.write("context/d/e/run", "x");
    mode(&rig.path("context/d/e/run"), 0o754);
    symlink("run", rig.path("context/d/e/link")).unwrap();
    let stage = "FROM scratch AS s\nCOPY --chown=5:6 d /d\n";
    for (name, flag, expected) in [
        ("octal", "--chmod=2751", ["drwxr-s--x 5/6 x/e/", "-rwxr-s--x 5/6 x/e/run"]),
        ("symbolic", "--chmod=u=rwX,go=rX", ["drwxr-xr-x 5/6 x/e/", "-rwxr-xr-x 5/6 x/e/run"]),
        ("owned", "--chmod=go= --chown=7", ["drwx------ 7/7 x/e/", "-rwx------ 7/7 x/e/run"]),
    ] {
        rig.build(name, &format!("{stage}FROM scratch\nCOPY --from=s {flag} /d /x\n"));
        let found = tree(&rig, name);
        for line in expected {
            assert!(found.iter().any(|l| l == line), "{name}: no `{line}` in {found:#?}");
        }
        assert!(found.iter().any(|l| l.starts_with("lrwxrwxrwx") && l.ends_with("x/e/link -> run")), "{name}: {found:#?}");
    }
}

#[test]
fn hostile_contexts() {
    let rig = Rig::with_base();
    let context = rig.path("context");
    rig.write("context/d/f", "x");
    let mkfifo = Command::new("mkfifo").arg(context.join("d/fifo")).status().unwrap();
    assert!(mkfifo.success());
    let _socket = std::os::unix::net::UnixListener::bind(context.join("d/socket")).unwrap();
    symlink("loop2", context.join("d/loop1")).unwrap();
    symlink("loop1", context.join("d/loop2")).unwrap();
    symlink("/etc/passwd", context.join("d/out")).unwrap();
    symlink("../../../../../../../etc/passwd", context.join("d/up")).unwrap();
    rig.write("context/d/new\nline", "x");
    fs::write(context.join(std::ffi::OsString::from("d/tab\tand \u{e4}")), "x").unwrap();
    rig.build("odd", "FROM scratch\nCOPY d /d\n");
    let found = tree(&rig, "odd");
    for line in ["prw-r--r-- 0/0 d/fifo", "lrwxrwxrwx 0/0 d/out -> /etc/passwd", "-rw-r--r-- 0/0 d/new\\nline"] {
        assert!(found.iter().any(|l| l == line), "no `{line}` in {found:#?}");
    }
    assert!(!names(&rig, "odd").contains("socket"));
    for (name, source) in [("out", "d/out"), ("up", "d/up"), ("loop", "d/loop1"), ("above", "../outside"), ("wild", "d/ou*")] {
        let ran = rig.try_build(name, &format!("FROM scratch\nCOPY {source} /x/\n"));
        assert!(ran.code != Some(0) && ran.stderr.matches("error: ").count() == 1, "{name}: {ran}");
    }
    // Nobody may read it: an error that names it, and none if it is not wanted.
    rig.write("context/closed", "x");
    mode(&context.join("closed"), 0);
    let ran = rig.try_build("closed", "FROM scratch\nCOPY closed d/f /x/\n");
    assert!(ran.code != Some(0) && ran.stderr.contains("closed`") && ran.stderr.contains("Permission denied"), "{ran}");
    rig.write("context/.dockerignore", "closed\n");
    rig.build("opened", "FROM scratch\nCOPY . /x/\n");
    assert!(fs::symlink_metadata(context.join("d/fifo")).unwrap().file_type().is_fifo());
    rig.assert_healthy();
}

#[test]
fn contexts_of_any_depth() {
    let rig = Rig::new();
    fs::create_dir_all(rig.path("context")).unwrap();
    // Longer than a path may be for the kernel: made step by step.
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let mut dir = rustix::fs::open(rig.path("context"), flags, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..10_000 {
        rustix::fs::mkdirat(&dir, "d", 0o755.into()).unwrap();
        dir = rustix::fs::openat(&dir, "d", flags, rustix::fs::Mode::empty()).unwrap();
    }
    let ran = rig.try_build("deep", "FROM scratch\nCOPY . /x/\n");
    assert!(ran.code != Some(0) && ran.stderr.contains("more than 4095 bytes") && ran.stderr.len() < 2000, "{ran}");
    rig.write("context/.dockerignore", "d/d/d\n");
    rig.build("deep", "FROM scratch\nCOPY . /x/\n");
    assert_eq!(names(&rig, "deep"), "x x/.dockerignore x/d x/d/d");
    // `TempDir` can't remove it.
    assert!(Command::new("rm").arg("-rf").arg(rig.path("context")).status().unwrap().success());
}

#[test]
fn files_that_change_meanwhile() {
    let rig = Rig::new();
    for number in 0..2000 {
        rig.write(&format!("context/{}/{number}", number % 10), number.to_string());
    }
    let busy = rig.write("context/5/log", "");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut log = fs::File::options().append(true).open(&busy).unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                std::io::Write::write_all(&mut log, b"one more line\n").unwrap();
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        for _ in 0..3 {
            let ran = rig.try_build("busy", "FROM scratch\nCOPY . /x/\n");
            assert!(ran.code == Some(0) || ran.stderr.contains("changes while it is copied"), "{ran}");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    rig.build("busy", "FROM scratch\nCOPY . /x/\n");
    let tar = rig.path("busy.tar");
    rig.ok(["export", "busy", "-o", tar.to_str().unwrap()]);
    let out = Command::new("tar").arg("-xOf").arg(tar).arg("x/5/log").output().unwrap();
    assert_eq!(out.stdout, fs::read(busy).unwrap());
}

#[test]
fn a_huge_sparse_file_takes_no_room() {
    let rig = Rig::new();
    fs::create_dir_all(rig.path("context")).unwrap();
    let file = fs::File::create(rig.path("context/sparse")).unwrap();
    file.set_len(300 << 20).unwrap();
    drop(file);
    rig.build("sparse", "FROM scratch\nCOPY sparse /\n");
    let used = Command::new("du").arg("-sk").arg(rig.storage()).output().unwrap();
    let kib: u64 = String::from_utf8_lossy(&used.stdout).split_whitespace().next().unwrap().parse().unwrap();
    assert!(kib < 20_000, "{kib} KiB");
}
