use std::fs;
use std::process::{Command, Stdio};

use super::*;

/// A layer with everything in it that a tar can say.
fn everything() -> Vec<u8> {
    let long = "long/".repeat(30) + "name";
    let target = "t".repeat(150);
    Tar::new()
        .add(&Entry { name: b"./", mode: 0o751, owner: (3, 4), ..DIR })
        .add(&Entry { name: b"dir", mode: 0o1777, owner: (0, 50), ..DIR })
        .add(&Entry {
            name: b"dir/file",
            mode: 0o4750,
            owner: (33, 34),
            content: b"content",
            pax: &[("SCHILY.xattr.user.a", b"1")],
            ..FILE
        })
        .link("dir/linked", "dir/file")
        .add(&Entry { name: b"x", owner: (4_000_000, 5), content: &[9; 1500], pax: &[("path", long.as_bytes())], ..FILE })
        .add(&Entry { kind: b'2', name: b"s", pax: &[("linkpath", target.as_bytes())], owner: (7, 8), mode: 0o777, ..FILE })
        .add(&Entry { kind: b'3', name: b"null", mode: 0o666, device: (1, 3), ..FILE })
        .add(&Entry { kind: b'4', name: b"sda", mode: 0o660, owner: (0, 6), device: (8, 0), ..FILE })
        .add(&Entry { kind: b'6', name: b"pipe", mode: 0o622, owner: (1, 1), ..FILE })
        .add(&Entry { name: b"old", pax: &[("mtime", b"-5.5")], ..FILE })
        .file(".wh.gone", "")
        .file("dir/.wh..wh..opq", "")
        .file("implicit/in", "")
        .end()
}

fn gnu_tar(args: &[&str], tar: &[u8]) -> Vec<String> {
    use std::io::Write;
    let mut child = Command::new("tar").args(args).env("TZ", "UTC").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let tar = tar.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&tar)));
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(out.status.success());
    String::from_utf8(out.stdout).unwrap().lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn packing_is_reproducible_and_nothing_is_lost() {
    let place = Place::new();
    let first = packed(&place.unpacked("a", &everything()));
    let second = packed(&place.unpacked("b", &first));
    assert!(first == second);
    assert_eq!(listing(&place.view(&["a"])), listing(&place.view(&["b"])));
    for name in ["dir/file", "s", "old", "/"] {
        let (mut a, b) = (meta(&place.view(&["a"]), name), meta(&place.view(&["b"]), name));
        a.mtime.nanos = 0;
        assert_eq!(a, b, "{name}: times are whole seconds, rounded down, the rest is equal");
    }
}

#[test]
fn gnu_tar_sees_the_true_owners() {
    let place = Place::new();
    let layer = place.unpacked("l", &everything());
    let lines = gnu_tar(&["--numeric-owner", "-tvf", "-"], &packed(&layer));
    let long = "long/".repeat(30) + "name";
    let expected = [
        "drwxr-x--x 3/4 0 2001-09-09 01:46 ./".into(),
        "---------- 0/0 0 1970-01-01 00:00 .wh.gone".into(),
        "drwxrwxrwt 0/50 0 2001-09-09 01:46 dir/".into(),
        "---------- 0/0 0 1970-01-01 00:00 dir/.wh..wh..opq".into(),
        "-rwsr-x--- 33/34 7 2001-09-09 01:46 dir/file".into(),
        "hrwsr-x--- 33/34 0 2001-09-09 01:46 dir/linked link to dir/file".into(),
        "-rw-r--r-- 0/0 0 2001-09-09 01:46 implicit/in".into(),
        format!("-rw-r--r-- 4000000/5 1500 2001-09-09 01:46 {long}"),
        "crw-rw-rw- 0/0 1,3 2001-09-09 01:46 null".into(),
        "-rw-r--r-- 0/0 0 1969-12-31 23:59 old".into(),
        "prw--w--w- 1/1 0 2001-09-09 01:46 pipe".into(),
        format!("lrwxrwxrwx 7/8 0 2001-09-09 01:46 s -> {}", "t".repeat(150)),
        "brw-rw---- 0/6 8,0 2001-09-09 01:46 sda".into(),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn gnu_tar_unpacks_contents_and_xattrs() {
    let place = Place::new();
    let data: Vec<u8> = (0..1_000_000u32).map(|i| (i / 3) as u8).collect();
    let pax: &[(&str, &[u8])] = &[("SCHILY.xattr.user.name", b"value")];
    let layer = place.unpacked("l", &Tar::new().add(&Entry { name: b"big", content: &data, pax, ..FILE }).file("small", "x").end());
    fs::write(place.layer("l.tar"), packed(&layer)).unwrap();
    fs::create_dir(place.layer("out")).unwrap();
    let status =
        Command::new("tar").args(["--xattrs", "-xf"]).arg(place.layer("l.tar")).arg("-C").arg(place.layer("out")).status().unwrap();
    assert!(status.success());
    assert!(fs::read(place.layer("out/big")).unwrap() == data);
    assert_eq!(xattr::get(place.layer("out/big"), "user.name").unwrap().unwrap(), b"value");
}

#[test]
fn private_attributes_and_sockets_stay_at_home() {
    let place = Place::new();
    let layer = place.unpacked("l", &Tar::new().add(&Entry { name: b"f", owner: (1, 1), ..FILE }).end());
    for name in ["user.overlay.origin", "user.rootling.other", "user.containers.x"] {
        xattr::set(layer.fs.join("f"), name, b"private").unwrap();
    }
    xattr::set(layer.fs.join("f"), "user.a=b%", b"odd").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(layer.fs.join("socket")).unwrap();
    let tar = packed(&layer);
    assert_eq!(tar_names(&tar), ["f"], "the PAX header is not counted as an entry");
    assert!(!tar.windows(7).any(|w| w == b"private"));
    place.unpacked("again", &tar);
    let xattrs = meta(&place.view(&["again"]), "f").xattrs;
    assert_eq!(xattrs.into_iter().collect::<Vec<_>>(), [(b"user.a=b%".to_vec(), b"odd".to_vec())]);
}

#[test]
fn a_view_is_exported_flat() {
    let place = Place::new();
    place.unpacked("base", &Tar::new().dir("a").file("a/gone", "").file("a/one", "1").link("a/two", "a/one").file("x", "old").end());
    place.unpacked("top", &Tar::new().file("a/.wh.gone", "").file("x", "new").add(&Entry { name: b"a", mode: 0o700, ..DIR }).end());
    let view = place.view(&["base", "top"]);
    let tar = exported(&view);
    assert_eq!(tar_names(&tar), ["./", "a/", "a/one", "a/two", "x"]);
    place.unpacked("flat", &tar);
    assert_eq!(listing(&view), listing(&place.view(&["flat"])));
    assert!(node(&place.view(&["flat"]), "a/two").link.is_some());
}

#[test]
fn names_that_mean_deletion_are_refused() {
    let place = Place::new();
    let layer = place.unpacked("l", &Tar::new().file("a", "").end());
    fs::write(layer.fs.join(".wh.a"), "").unwrap();
    assert!(pack_layer(&layer, &mut Vec::new()).unwrap_err().to_string().contains("deletion"));
}

#[test]
fn a_failing_writer_ends_packing() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::Error::from_raw_os_error(libc::ENOSPC))
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let place = Place::new();
    let layer = place.unpacked("l", &Tar::new().add(&Entry { name: b"big", content: &vec![1; 5 << 20], ..FILE }).end());
    assert_eq!(pack_layer(&layer, Full).unwrap_err().kind(), crate::error::Kind::NoSpace);
}

#[test]
fn the_lowest_layer_deletes_nothing() {
    let place = Place::new();
    let layer = place.unpacked("l", &everything());
    let mut lowest = Vec::new();
    crate::rootfs::pack::pack_lowest(&layer, &mut lowest).unwrap();
    let (told, names) = (tar_names(&packed(&layer)), tar_names(&lowest));
    assert_eq!(told.iter().filter(|name| !name.contains(".wh.")).collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
    assert!(told.len() > names.len());
    // What deletes nothing packs as ever.
    let whole = place.unpacked("w", &Tar::new().file("a/b", "c").end());
    let mut lowest = Vec::new();
    crate::rootfs::pack::pack_lowest(&whole, &mut lowest).unwrap();
    assert!(lowest == packed(&whole));
}
