//! squashfs images: read by others, read from others, run.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::rig::{Ran, Rig, assert_ordinary_user, needs};

/// A rig with an image `app` of everything, written to `app.sqfs`.
fn rig_with_image() -> Rig {
    assert_ordinary_user();
    let rig = Rig::with_base();
    rig.build(
        "app",
        "FROM base\n\
         RUN mkdir /d && echo hello >/d/file && chown 33:44 /d/file && ln /d/file /d/hard && ln -s file /d/soft && mkfifo /d/pipe\n\
         RUN echo s >/d/setuid && chmod 4755 /d/setuid && mkdir -m 1777 /d/sticky && dd if=/dev/zero of=/d/zeros bs=1000 count=999\n\
         RUN cp /d/file '/d/odd name' && cp /bin/ls /d/again && mkdir /many && for i in $(seq 1 600); do echo $i >/many/$i; done\n",
    );
    rig.ok(["push", "app", "squashfs:app.sqfs"]);
    rig
}

/// An image of root's files only.
fn rig_with_plain() -> Rig {
    assert_ordinary_user();
    let rig = Rig::with_base();
    rig.ok(["push", "base", "squashfs:base.sqfs"]);
    rig
}

fn run(program: &str, arguments: &[&str], at: &Path) -> String {
    let out = Command::new(program).args(arguments).current_dir(at).output().unwrap();
    assert!(out.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// The program as on a machine without squashfuse.
fn without_squashfuse(rig: &Rig, arguments: &[&str]) -> Ran {
    let mut command = rig.command(arguments);
    command.env("PATH", "/nowhere");
    Ran::of(command.output().unwrap(), format!("{command:?}"))
}

/// Programs with this in their command line.
fn running(what: &str) -> usize {
    let lines = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| !line.starts_with(b"sh\0") && String::from_utf8_lossy(line).contains(what)).count()
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn unsquashfs_and_squashfuse_read_it() {
    let (Some(()), Some(())) = (needs("unsquashfs"), needs("squashfuse")) else { return };
    let rig = rig_with_image();
    for compression in ["zstd", "gzip", "xz", "none"] {
        rig.ok(["push", "--compression-format", compression, "app", "squashfs:app.sqfs"]);
        let listed = run("unsquashfs", &["-lln", "app.sqfs"], &rig.path("."));
        let line = |end: &str| listed.lines().find(|line| line.ends_with(end)).unwrap_or_else(|| panic!("{end}: {listed}"));
        assert!(line("/d/file").contains(" 33/44 ") && line("/d/hard").contains(" 33/44 "));
        assert!(line("/d/setuid").starts_with("-rwsr-xr-x") && line("/d/sticky").starts_with("drwxrwxrwt"));
        assert!(line("/d/pipe").starts_with('p') && line("/d/soft -> file").starts_with('l'));
        let said = run("unsquashfs", &["-stat", "app.sqfs"], &rig.path("."));
        assert!(said.contains("SQUASHFS 4:0") && said.contains("exportable"), "{said}");
        let _ = fs::remove_dir_all(rig.path("un"));
        run("unsquashfs", &["-q", "-n", "-d", "un", "app.sqfs"], &rig.path("."));
        assert_eq!(fs::read_to_string(rig.path("un/d/file")).unwrap(), "hello\n");
        assert_eq!(fs::metadata(rig.path("un/d/zeros")).unwrap().len(), 999_000);
        assert!(fs::read(rig.path("un/d/again")).unwrap() == fs::read(rig.path("un/bin/ls")).unwrap());
        assert_eq!(fs::read_dir(rig.path("un/many")).unwrap().count(), 600);
    }
}

#[test]
fn an_import_is_the_same_image_again() {
    let rig = rig_with_image();
    let facts = rig.facts("app");
    rig.ok(["import", "app.sqfs", "again"]);
    // Configurations aside: squashfs has none.
    let files = |facts: &str| facts.lines().filter(|line| line.starts_with('"')).map(str::to_owned).collect::<Vec<_>>();
    assert!(files(&facts).len() > 600);
    assert_eq!(files(&rig.facts("again")), files(&facts));
    rig.ok(["push", "again", "squashfs:again.sqfs"]);
    assert!(fs::read(rig.path("app.sqfs")).unwrap() == fs::read(rig.path("again.sqfs")).unwrap());
    rig.ok(["export", "app", "-o", "exported.sqfs"]);
    assert!(fs::read(rig.path("app.sqfs")).unwrap() == fs::read(rig.path("exported.sqfs")).unwrap());
    rig.ok(["convert", "./app.sqfs", "tree.tar"]);
    rig.build("from", &format!("FROM squashfs:{}\nRUN test $(stat -c %u /d/file) = 33\n", rig.path("app.sqfs").display()));
}

#[test]
fn images_of_mksquashfs_are_imported() {
    let Some(()) = needs("mksquashfs") else { return };
    let rig = Rig::new();
    rig.write("tree/file", "hello\n");
    rig.write("tree/d/large", vec![7; 1_000_000]);
    rig.write("tree/d/noise", (0..700_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 9) as u8).collect::<Vec<_>>());
    for i in 0..700 {
        rig.write(&format!("tree/many/{i:04}"), i.to_string());
    }
    std::os::unix::fs::symlink("file", rig.path("tree/soft")).unwrap();
    fs::hard_link(rig.path("tree/file"), rig.path("tree/d/hard")).unwrap();
    let mut first = None;
    for options in [
        "-comp gzip",
        "-comp xz",
        "-comp zstd -b 1M",
        "-comp lz4",
        "-comp gzip -noI -noD -noF -noX",
        "-comp zstd -always-use-fragments",
        "-comp xz -Xbcj x86",
        "-comp gzip -b 4096",
        "-comp zstd -no-fragments -no-duplicates -no-exports",
    ] {
        let pseudo = ["-p", "null c 666 0 0 1 3", "-p", "owned d 2750 33 44"];
        let mut arguments = vec!["tree", "m.sqfs", "-noappend", "-quiet", "-no-progress", "-mkfs-time", "0"];
        arguments.extend(pseudo);
        arguments.extend(options.split(' '));
        run("mksquashfs", &arguments, &rig.path("."));
        rig.ok(["import", "m.sqfs", "m"]);
        let facts = rig.facts("m");
        assert!(facts.contains("33:44"), "{facts}");
        assert_eq!(first.get_or_insert_with(|| facts.clone()), &facts, "{options}");
    }
    run("mksquashfs", &["tree", "l.sqfs", "-quiet", "-no-progress", "-comp", "lzo"], &rig.path("."));
    let error = rig.fails(["import", "l.sqfs", "l"]);
    assert!(error.contains("lzo") && error.contains("hint: "), "{error}");
}

#[test]
fn broken_images_have_one_clear_error() {
    let rig = rig_with_plain();
    let image = fs::read(rig.path("base.sqfs")).unwrap();
    rig.write("cut.sqfs", &image[..image.len() / 2]);
    rig.write("short.sqfs", b"hsqs");
    let mut flipped = image.clone();
    flipped[64] ^= 0x80;
    rig.write("flipped.sqfs", flipped);
    for name in ["cut.sqfs", "short.sqfs", "flipped.sqfs"] {
        for arguments in [vec!["import", name, "x"], vec!["run", name, "--", "true"]] {
            let error = rig.fails(&arguments);
            assert!(error.contains("squashfs image is damaged") && error.contains("at byte"), "{arguments:?}: {error}");
        }
    }
    rig.assert_healthy();
}

#[test]
fn an_image_is_run_where_it_lies() {
    let (Some(()), Some(())) = (needs("squashfuse"), fuse()) else { return };
    let rig = rig_with_plain();
    let ran = rig.run(["run", "base.sqfs", "--", "sh", "-c", "id -u; echo >/new || echo closed"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_eq!(ran.stdout.lines().last(), Some("closed"), "{ran}");
    assert_ne!(ran.stdout.lines().next(), Some("0"), "the caller's own ID: {ran}");
    assert!(!ran.stderr.contains("unpacking"), "{ran}");
    assert_eq!(rig.ok(["run", "-w", "./base.sqfs", "sh", "-c", "echo x >/new; cat /new /proc/self/comm"]), "x\ncat\n");
    assert_eq!(rig.run(["run", "./base.sqfs", "--", "sh", "-c", "exit 7"]).code, Some(7));
    assert!(rig.fails(["run", "./base.sqfs"]).contains("no command"));
    assert!(rig.fails(["run", "./nothing.sqfs", "true"]).contains("neither a directory nor a squashfs image"));
    // Nothing is left, neither of mounts nor of programs.
    let left: Vec<_> = fs::read_dir(rig.storage().join("tmp")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!fs::read_to_string("/proc/self/mounts").unwrap().contains(&*rig.storage().to_string_lossy()));
    let server = format!("{}\0/dev/fd", rig.path("base.sqfs").display());
    wait_until("squashfuse ends", || running(&server) == 0);
}

#[test]
fn killing_ends_everything() {
    let (Some(()), Some(())) = (needs("squashfuse"), fuse()) else { return };
    let rig = rig_with_plain();
    let image = rig.path("base.sqfs").display().to_string();
    for signal in ["KILL", "TERM"] {
        let mut child = rig.start(["run", &image, "--", "sh", "-c", "exec sleep 987654"]);
        let server = format!("{image}\0/dev/fd");
        wait_until("the command runs", || running("sleep\0987654") == 1 && running(&server) == 1);
        run("kill", &["-s", signal, &child.id().to_string()], Path::new("/"));
        let status = child.wait().unwrap();
        assert!(status.signal() == Some(9) || status.code() == Some(143), "{status:?}");
        wait_until("squashfuse and the command end", || running(&server) == 0 && running("sleep\0987654") == 0);
    }
    rig.ok(["images"]);
    rig.assert_healthy();
}

#[test]
fn without_fuse_it_is_unpacked_once() {
    let rig = rig_with_image();
    let layers = || fs::read_dir(rig.storage().join("layers")).unwrap().count();
    let before = layers();
    let first = without_squashfuse(&rig, &["run", "app.sqfs", "--", "cat", "/d/file"]);
    assert_eq!((first.code, first.stdout.as_str()), (Some(0), "hello\n"), "{first}");
    assert!(first.stderr.contains("unpacking `app.sqfs`") && first.stderr.contains("no squashfuse"), "{first}");
    let again = without_squashfuse(&rig, &["run", "app.sqfs", "--", "cat", "/d/hard"]);
    assert_eq!((again.stdout.as_str(), again.stderr.as_str()), ("hello\n", ""), "{again}");
    // Owners are the image's.
    let owner = without_squashfuse(&rig, &["run", "--user", "0", "app.sqfs", "--", "stat", "-c", "%u:%g %a", "/d/file", "/d/setuid"]);
    assert_eq!(owner.stdout, "33:44 644\n0:0 4755\n", "{owner}");
    let written = without_squashfuse(&rig, &["run", "-w", "app.sqfs", "--", "sh", "-c", "echo more >>/d/file; cat /d/file"]);
    assert_eq!(written.stdout, "hello\nmore\n", "{written}");
    // Another file under the same name is another image.
    rig.ok(["push", "base", "squashfs:app.sqfs"]);
    let other = without_squashfuse(&rig, &["run", "app.sqfs", "--", "test", "-e", "/d"]);
    assert_eq!(other.code, Some(1), "{other}");
    assert!(other.stderr.contains("unpacking"), "{other}");
    assert_eq!(layers(), before + 2);
    rig.ok(["prune", "--all"]);
    assert_eq!(layers(), before);
}

#[test]
fn a_fuse_that_does_not_work_is_done_without() {
    let Some(()) = needs("squashfuse") else { return };
    let rig = rig_with_plain();
    for stage in [
        // Another device in its place: the kernel refuses the mount.
        "mount --bind /dev/null /dev/fuse",
        // A squashfuse that gives up.
        "mkdir bin; printf '#!/bin/sh\\necho no such luck >&2; exit 1\\n' >bin/squashfuse_ll; chmod +x bin/squashfuse_ll; PATH=$PWD/bin:$PATH",
    ] {
        let script = format!("{stage}; exec \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, "sh", crate::rig::PROGRAM, "--storage"]);
        command.arg(rig.storage()).args(["run", "base.sqfs", "--", "echo", "fine"]).current_dir(rig.path("."));
        let ran = Ran::of(command.output().unwrap(), stage.to_owned());
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "fine\n"), "{ran}");
        assert!(ran.stderr.contains("unpacking `base.sqfs`"), "{ran}");
        rig.ok(["prune", "--all"]);
    }
}

/// Whether FUSE can be used here at all.
fn fuse() -> Option<()> {
    let device = fs::File::options().read(true).write(true).open("/dev/fuse");
    if device.is_err() {
        return crate::rig::skip("/dev/fuse is not accessible");
    }
    Some(())
}
