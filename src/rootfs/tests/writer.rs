use super::*;
use crate::rootfs::meta::{Kind, Mtime};
use crate::rootfs::writer::{Content, LayerWriter, Written};

fn base() -> Place {
    let place = Place::new();
    let tar = Tar::new()
        .add(&Entry { name: b"./", mode: 0o711, owner: (5, 5), ..DIR })
        .add(&Entry { name: b"srv", mode: 0o2750, owner: (33, 34), pax: &[("SCHILY.xattr.user.k", b"v")], ..DIR })
        .add(&Entry { name: b"srv/old", mode: 0o600, owner: (33, 34), content: b"old", ..FILE })
        .dir("usr")
        .dir("usr/lib")
        .file("usr/lib/a", "a")
        .symlink("lib", "usr/lib")
        .end();
    place.unpacked("base", &tar);
    place
}

fn file(mode: u32) -> Meta {
    Meta { mtime: Mtime::from_secs(77), ..Meta::new(Kind::File, mode) }
}

fn write(place: &Place, work: impl FnOnce(&mut LayerWriter)) -> Written {
    let mut writer = LayerWriter::create(&place.layer("top"), place.view(&["base"])).unwrap();
    work(&mut writer);
    writer.finish().unwrap()
}

#[test]
fn copied_up_parents_change_nothing() {
    let place = base();
    let written = write(&place, |writer| {
        let content = Content::Bytes(b"new");
        writer.put(&path("srv/new"), &Meta { uid: 1, gid: 2, size: 3, ..file(0o4755) }, content).unwrap();
        assert_eq!(writer.view().read(&path("srv/new"), 9).unwrap().unwrap(), b"new");
    });
    assert!(!written.empty);
    let (before, after) = (place.view(&["base"]), place.view(&["base", "top"]));
    assert_eq!(meta(&before, "srv"), meta(&after, "srv"));
    assert_eq!(meta(&before, "/"), meta(&after, "/"));
    assert_eq!(node(&after, "srv").layer, 1, "but it is in the layer");
    assert_eq!((meta(&after, "srv/new").uid, meta(&after, "srv/new").mode, meta(&after, "srv/new").mtime.secs), (1, 0o4755, 77));
    assert_eq!(tar_names(&packed(&after.layers()[1])), ["srv/", "srv/new"]);
}

#[test]
fn every_content_is_written() {
    let place = base();
    let host = place.layer("host");
    fs::write(&host, "from the host").unwrap();
    write(&place, |writer| {
        let put = |writer: &mut LayerWriter, name: &str, size: u64, content: Content<'_>| {
            writer.put(&path(name), &Meta { size, ..file(0o640) }, content).unwrap();
        };
        put(writer, "host", 13, Content::File(&fs::File::open(&host).unwrap()));
        put(writer, "stream", 0, Content::Reader(&mut &b"streamed"[..]));
        put(writer, "empty", 0, Content::None);
        put(writer, "link", 0, Content::HardLink(&path("stream")));
        put(writer, "up", 0, Content::HardLink(&path("srv/old")));
        writer.put(&path("sym"), &Meta { uid: 3, ..Meta::new(Kind::Symlink, 0o777) }, Content::Symlink(b"host")).unwrap();
        writer.put(&path("tty"), &Meta::new(Kind::CharDevice { major: 5, minor: 0 }, 0o666), Content::None).unwrap();
        writer.put(&path("pipe"), &Meta::new(Kind::Fifo, 0o600), Content::None).unwrap();
        assert_eq!(meta(writer.view(), "sym").uid, 3);
        assert!(writer.put(&path("none/x"), &file(0o644), Content::None).is_err(), "the parent must exist");
        assert!(writer.put(&path(".wh.x"), &file(0o644), Content::None).is_err());
        assert!(writer.put(&path("srv"), &file(0o644), Content::None).is_err(), "a directory is in the way");
        assert!(writer.put(&path("lib"), &Meta::new(Kind::Directory, 0o755), Content::None).is_err(), "a symlink is in the way");
    });
    let found = listing(&place.view(&["base", "top"]));
    for line in [
        "/host 640 0:0 = from the host",
        "/stream 640 0:0 = streamed",
        "/link 640 0:0 = streamed",
        "/empty 640 0:0 = ",
        "/up 600 33:34 = old",
        "/srv/old 600 33:34 = old",
        "/sym 777 3:0 -> host",
        "/tty 666 0:0 CharDevice { major: 5, minor: 0 }",
        "/pipe 600 0:0 Fifo",
    ] {
        assert!(found.contains(&line.into()), "{line} in {found:#?}");
    }
}

#[test]
fn directories_merge_and_missing_ones_are_made() {
    let place = base();
    write(&place, |writer| {
        writer.make_dirs(&path("srv/a/b"), 0o750, 7, 8, Some(Mtime::from_secs(5))).unwrap();
        writer.put(&path("usr/lib"), &Meta::new(Kind::Directory, 0o700), Content::None).unwrap();
    });
    let view = place.view(&["base", "top"]);
    assert_eq!((meta(&view, "srv/a/b").uid, meta(&view, "srv/a").mode, meta(&view, "srv").uid), (7, 0o750, 33));
    assert_eq!((meta(&view, "srv/a/b").mtime, meta(&view, "srv/a").mtime), (Mtime::from_secs(5), Mtime::from_secs(5)));
    assert_eq!((meta(&view, "usr/lib").mode, meta(&view, "usr/lib/a").mode), (0o700, 0o644), "its content stays");
}

#[test]
fn what_is_removed_is_gone_and_what_comes_after_is_new() {
    let place = base();
    write(&place, |writer| {
        writer.remove(&path("usr/lib")).unwrap();
        writer.remove(&path("nothing")).unwrap();
        assert!(writer.view().lookup(&path("usr/lib/a")).unwrap().is_none());
        writer.make_dirs(&path("usr/lib"), 0o755, 0, 0, None).unwrap();
        assert!(writer.view().lookup(&path("usr/lib/a")).unwrap().is_none());
        writer.remove(&path("lib")).unwrap();
        writer.put(&path("temp"), &file(0o644), Content::None).unwrap();
        writer.remove(&path("temp")).unwrap();
        assert!(writer.remove(&path("/")).is_err());
    });
    let view = place.view(&["base", "top"]);
    assert_eq!(tar_names(&packed(&view.layers()[1])), [".wh.lib", "usr/", "usr/lib/", "usr/lib/.wh..wh..opq"]);
    assert!(view.lookup(&path("lib")).unwrap().is_none());
}

#[test]
fn nothing_written_is_an_empty_layer() {
    let place = base();
    assert!(write(&place, |writer| writer.make_dirs(&path("srv"), 0o755, 0, 0, None).unwrap()).empty);
    assert_eq!(tar_names(&packed(&place.view(&["base", "top"]).layers()[1])), [] as [&str; 0]);
}

#[test]
fn archives_go_through_the_images_symlinks_and_never_out() {
    let place = base();
    let tar = Tar::new()
        .dir("lib")
        .file("lib/b", "b")
        .file("lib/a", "replaced")
        .symlink("out", "/../../../outside")
        .file("out/victim", "inside")
        .add(&Entry { name: b"owned", owner: (9, 9), ..FILE })
        .link("linked", "lib/a")
        .dir("srv/old")
        .end();
    write(&place, |writer| {
        let count = writer.unpack_onto(&path("/"), &*tar, Some((1, 2))).unwrap();
        assert_eq!(count, 8);
        for bad in
            [Tar::new().file("../x", ""), Tar::new().file(".wh.x", ""), Tar::new().link("l", "missing"), Tar::new().file("owned/x", "")]
        {
            assert!(writer.unpack_onto(&path("/"), &*bad.end(), None).is_err());
        }
    });
    place.assert_outside_untouched();
    let view = place.view(&["base", "top"]);
    assert_eq!(meta(&view, "lib").kind, Kind::Symlink);
    assert_eq!(view.read(&path("usr/lib/b"), 9).unwrap().unwrap(), b"b");
    assert_eq!(view.read(&path("outside/victim"), 9).unwrap().unwrap(), b"inside");
    assert_eq!((meta(&view, "owned").uid, meta(&view, "owned").gid), (1, 2));
    assert_eq!(meta(&view, "srv/old").kind, Kind::Directory, "a file gives way to a directory");
    assert_eq!(view.read(&path("linked"), 9).unwrap().unwrap(), b"replaced");
}
