use std::fs;
use std::os::unix::fs::MetadataExt;

use super::*;
use crate::error::Kind as ErrorKind;
use crate::rootfs::meta::{Kind, Mtime};

#[test]
fn what_one_uid_cannot_hold_is_kept_beside_it() {
    let place = Place::new();
    let tar = Tar::new()
        .dir("etc")
        .add(&Entry { name: b"etc/shadow", mode: 0o640, owner: (0, 42), content: b"x", ..FILE })
        .add(&Entry { name: b"etc/none", mode: 0, ..FILE })
        .add(&Entry { name: b"plain", mode: 0o644, content: b"y", ..FILE })
        .add(&Entry { name: b"suid", mode: 0o4755, ..FILE })
        .add(&Entry { name: b"locked", mode: 0o500, ..DIR })
        .add(&Entry { name: b"locked/in", ..FILE })
        .add(&Entry { name: b"link", kind: b'2', link: b"/etc", mode: 0o777, owner: (33, 34), ..FILE })
        .add(&Entry { name: b"pipe", kind: b'6', mode: 0o200, owner: (0, 7), ..FILE })
        .add(&Entry { name: b"null", kind: b'3', mode: 0o666, device: (1, 3), ..FILE })
        .add(&Entry { name: b"sda", kind: b'4', mode: 0o660, owner: (0, 6), device: (8, 0), ..FILE })
        .end();
    let layer = place.unpacked("l", &tar);
    let native_mode = |name: &str| fs::symlink_metadata(layer.fs.join(name)).unwrap().mode() & 0o7777;
    assert_eq!((native_mode("etc/none"), native_mode("locked"), native_mode("suid"), native_mode("sda")), (0o600, 0o700, 0o4755, 0o660));
    let over =
        |name: &str| xattr::get(layer.fs.join(name), "user.containers.override_stat").unwrap().map(|v| String::from_utf8(v).unwrap());
    for (name, expected) in [
        ("etc/shadow", Some("0:42:0640")),
        ("etc/none", Some("0:0:00")),
        ("plain", None),
        ("suid", None),
        ("locked", Some("0:0:0500")),
        ("null", Some("0:0:0666:char-1-3")),
        ("sda", Some("0:6:0660:block-8-0")),
    ] {
        assert_eq!(over(name).as_deref(), expected, "{name}");
    }
    let view = place.view(&["l"]);
    assert_eq!(meta(&view, "link").uid, 33);
    assert_eq!((meta(&view, "pipe").gid, meta(&view, "pipe").mode, meta(&view, "pipe").kind), (7, 0o200, Kind::Fifo));
    assert_eq!(meta(&view, "sda").kind, Kind::BlockDevice { major: 8, minor: 0 });
    assert_eq!((meta(&view, "etc/none").mode, meta(&view, "locked").mode), (0, 0o500));
}

#[test]
fn neither_umask_nor_the_parent_directory_shows() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    fs::create_dir(place.layer("shared")).unwrap();
    fs::set_permissions(place.layer("shared"), fs::Permissions::from_mode(0o2777)).unwrap();
    let tar = Tar::new()
        .add(&Entry { name: b"wide", mode: 0o666, ..FILE })
        .add(&Entry { name: b"d", mode: 0o777, ..DIR })
        .add(&Entry { name: b"group", mode: 0o2775, ..DIR })
        .add(&Entry { name: b"group/d", mode: 0o755, ..DIR })
        .file("group/implied/f", "")
        .end();
    place.unpacked("shared/l", &tar);
    let modes: Vec<_> = listing(&place.view(&["shared/l"])).iter().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(modes, ["755", "777", "2775", "755", "755", "644", "666"]);
}

#[test]
fn whiteouts_work_in_any_order() {
    let place = Place::new();
    place.unpacked("base", &Tar::new().dir("d").file("d/old", "1").file("gone", "2").dir("o").file("o/old", "3").file("kept", "4").end());
    for (n, tar) in [
        Tar::new().file("d/.wh.old", "").file(".wh.gone", "").dir("o").file("o/.wh..wh..opq", "").file("o/new", "5"),
        Tar::new().file("o/new", "5").file("o/.wh..wh..opq", "").dir("o").file(".wh.gone", "").file("d/.wh.old", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("top{n}");
        let unpacked = place.unpack(&name, &tar.end()).unwrap();
        assert_eq!((unpacked.whiteouts, unpacked.entries), (3, 5));
        let view = place.view(&["base", &name]);
        let found = listing(&view);
        assert_eq!(found, ["/ 755 0:0 /", "/d 755 0:0 /", "/kept 644 0:0 = 4", "/o 755 0:0 /", "/o/new 644 0:0 = 5"]);
    }
}

#[test]
fn a_whiteout_spares_its_own_layer() {
    let place = Place::new();
    place.unpacked("base", &Tar::new().dir("x").file("x/old", "").file("f", "old").end());
    for (n, tar) in [
        Tar::new().file(".wh.x", "").dir("x").file("x/new", "").file("f", "new").file(".wh.f", ""),
        Tar::new().dir("x").file("x/new", "").file(".wh.x", "").file(".wh.f", "").file("f", "new"),
        Tar::new().file("x/new", "").file(".wh.x", "").file(".wh.f", "").file("f", "new"),
        Tar::new().file(".wh.x", "").file("x/new", "").file(".wh.f", "").file("f", "new"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("top{n}");
        place.unpacked(&name, &tar.end());
        let found = listing(&place.view(&["base", &name]));
        assert_eq!(found, ["/ 755 0:0 /", "/f 644 0:0 = new", "/x 755 0:0 /", "/x/new 644 0:0 = "], "variant {n}");
    }
}

#[test]
fn implicit_directories_do_not_hide_metadata() {
    let place = Place::new();
    place.unpacked("base", &Tar::new().add(&Entry { name: b"home", mode: 0o700, owner: (5, 6), ..DIR }).end());
    let unpacked = place.unpack("top", &Tar::new().file("home/new/file", "x").end()).unwrap();
    assert_eq!(unpacked.implicit, 3, "the root, home and home/new");
    let view = place.view(&["base", "top"]);
    assert_eq!((meta(&view, "home").mode, meta(&view, "home").uid), (0o700, 5));
    assert_eq!((meta(&view, "home/new").mode, meta(&view, "home/new").mtime), (0o755, Mtime::default()));
    let names: Vec<_> = tar_names(&packed(&place.view(&["top"]).layers()[0]));
    assert_eq!(names, ["home/new/file"], "what has no entry gets none");
}

#[test]
fn later_entries_replace_earlier_ones() {
    let place = Place::new();
    let tar = Tar::new()
        .file("a", "1")
        .file("a", "22")
        .file("b", "x")
        .dir("b")
        .file("b/c", "y")
        .dir("d")
        .file("d/e", "z")
        .symlink("d", "a")
        .symlink("s", "/outside")
        .file("s", "not through")
        .add(&Entry { name: b"m", mode: 0o700, owner: (9, 9), pax: &[("SCHILY.xattr.user.k", b"v")], ..DIR })
        .file("m/kept", "")
        .dir("m")
        .end();
    place.unpacked("l", &tar);
    let view = place.view(&["l"]);
    assert_eq!(
        listing(&view),
        [
            "/ 755 0:0 /",
            "/a 644 0:0 = 22",
            "/b 755 0:0 /",
            "/b/c 644 0:0 = y",
            "/d 777 0:0 -> a",
            "/m 755 0:0 /",
            "/m/kept 644 0:0 = ",
            "/s 644 0:0 = not through"
        ]
    );
    assert!(meta(&view, "m").xattrs.is_empty(), "metadata is replaced as a whole");
}

#[test]
fn hard_links_share_an_inode() {
    let place = Place::new();
    let tar = Tar::new()
        .file("a", "x")
        .link("b", "a")
        .link("c", "/b")
        .link("a", "a")
        .add(&Entry { kind: b'2', name: b"s", link: b"t", owner: (7, 7), ..FILE })
        .link("s2", "s")
        .end();
    place.unpacked("l", &tar);
    let view = place.view(&["l"]);
    assert!(node(&view, "a").link.is_some());
    assert_eq!(node(&view, "a").link, node(&view, "c").link);
    assert_eq!((meta(&view, "s2").uid, node(&view, "s").link), (7, node(&view, "s2").link));
}

#[test]
fn times_xattrs_and_large_numbers_survive() {
    let place = Place::new();
    let capability = [&[1, 0, 0, 2][..], b"\n\0=1234567890123"].concat();
    // More than ext4 takes.
    let large = [b'l'; 30_000];
    let pax: &[(&str, &[u8])] = &[
        ("mtime", b"-12345.25"),
        ("uid", b"3000000"),
        ("gid", b"4294967295"),
        ("SCHILY.xattr.user.large", &large),
        ("SCHILY.xattr.user.mime", b"text"),
        ("SCHILY.xattr.security.capability", &capability),
        ("SCHILY.xattr.trusted.x", b""),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.containers.override_stat", b"1:1:0777"),
        ("SCHILY.xattr.user.rootling.xattr.security.capability", b"forged"),
    ];
    let layer = place.unpacked("l", &Tar::new().add(&Entry { name: b"f", pax, ..FILE }).add(&Entry { name: b"d/", pax, ..DIR }).end());
    let view = place.view(&["l"]);
    for name in ["f", "d"] {
        let meta = meta(&view, name);
        assert_eq!((meta.uid, meta.gid), (3_000_000, u32::MAX));
        assert_eq!(meta.mtime, Mtime { secs: -12346, nanos: 750_000_000 });
        let names: Vec<_> = meta.xattrs.iter().map(|(k, v)| (String::from_utf8_lossy(k).into_owned(), v.len())).collect();
        let expected = [("security.capability", 20), ("trusted.x", 0), ("user.large", 30_000), ("user.mime", 4)];
        assert_eq!(names, expected.map(|(name, length)| (name.to_owned(), length)));
        assert_eq!(meta.xattrs[&b"security.capability"[..]], capability);
    }
    let opaque = xattr::get(layer.fs.join("d"), "user.overlay.opaque").unwrap();
    assert_eq!(opaque, None);
}

#[test]
fn parents_may_be_symlinks_inside_the_layer() {
    let place = Place::new();
    let tar = Tar::new()
        .dir("usr/lib")
        .symlink("lib", "/usr/lib")
        .symlink("usr/up", "../../../lib")
        .file("lib/a", "1")
        .file("usr/up/b", "2")
        .symlink("dangling", "not/yet")
        .file("dangling/c", "3")
        .link("lib/d", "lib/a")
        .end();
    place.unpacked("l", &tar);
    let view = place.view(&["l"]);
    let found: Vec<_> = listing(&view).into_iter().filter(|line| line.contains('=')).collect();
    assert_eq!(found, ["/not/yet/c 644 0:0 = 3", "/usr/lib/a 644 0:0 = 1", "/usr/lib/b 644 0:0 = 2", "/usr/lib/d 644 0:0 = 1"]);
    assert_eq!(meta(&view, "lib").kind, Kind::Symlink);
}

#[test]
fn sparse_files_of_every_format_are_read() {
    let place = Place::new();
    let source = place.layer("source");
    fs::create_dir(&source).unwrap();
    let file = fs::File::create(source.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"one", 0).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"two", 5 << 20).unwrap();
    file.set_len(9 << 20).unwrap();
    // Something after it, to see that the reader has not lost its place.
    fs::write(source.join("after"), "here").unwrap();
    let expected = fs::read(source.join("sparse")).unwrap();
    for (n, format) in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ]
    .iter()
    .enumerate()
    {
        let mut tar = std::process::Command::new("tar");
        let tar = tar.args(["-cSf", "-", "-C"]).arg(&source).args(*format).args(["sparse", "after"]).output().unwrap();
        assert!(tar.status.success() && tar.stdout.len() < 1 << 20, "{format:?}");
        let layer = place.unpacked(&format!("l{n}"), &tar.stdout);
        assert!(fs::read(layer.fs.join("sparse")).unwrap() == expected, "{format:?}");
        assert!(fs::metadata(layer.fs.join("sparse")).unwrap().blocks() < 2048, "{format:?}: holes stay holes");
        assert_eq!(fs::read(layer.fs.join("after")).unwrap(), b"here");
    }
}

#[test]
fn archives_without_an_end_mark_are_taken_and_cut_ones_are_not() {
    let place = Place::new();
    assert_eq!(place.unpack("empty", b"").unwrap().entries, 0);
    assert_eq!(place.unpack("unfinished", &Tar::new().file("a", "x").unfinished()).unwrap().entries, 1);
    assert_eq!(place.unpack("zero", &[&Tar::new().file("a", "x").unfinished()[..], &[0; 512]].concat()).unwrap().entries, 1);
    let whole = Tar::new().file("a", "x").add(&Entry { name: b"b", content: &[7; 5000], pax: &[("path", b"long")], ..FILE }).unfinished();
    for cut in [100, 511, 1024 + 100, 1024 + 512 + 10, 1024 + 1024 + 10, 1024 + 1024 + 512 + 4999] {
        let error = place.unpack(&format!("cut{cut}"), &whole[..cut]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{cut}: {error}");
        assert!(error.to_string().contains("ends too early"), "{cut}: {error}");
    }
}

#[test]
fn the_reader_is_read_to_its_end_and_its_errors_come_through() {
    struct Counting<'a>(&'a [u8], &'a mut usize);
    impl std::io::Read for Counting<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let n = std::io::Read::read(&mut self.0, out)?;
            *self.1 += n;
            Ok(n)
        }
    }
    let place = Place::new();
    let tar = [Tar::new().file("a", "x").end(), vec![7; 1 << 20]].concat();
    let mut read = 0;
    unpack(Counting(&tar, &mut read), &place.layer("l"), &UnpackOptions::default()).unwrap();
    assert_eq!(read, tar.len());

    struct Failing;
    impl std::io::Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(crate::error::Error::with_kind(ErrorKind::Network, "the line broke").into())
        }
    }
    let error = unpack(Failing, &place.layer("f"), &UnpackOptions::default()).unwrap_err();
    assert_eq!((error.kind(), error.what()), (ErrorKind::Network, "the line broke"));
}
