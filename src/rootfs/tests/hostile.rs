use super::*;
use crate::error::Kind as ErrorKind;

/// Unpacks; the outside stays as it is and an error, if one is expected, is `Corrupt` and says `expected`.
fn check(name: &str, tar: Tar, expected: Option<&str>) {
    let place = Place::new();
    match (place.unpack("layer", &tar.end()), expected) {
        (Ok(_), None) => {}
        (Err(error), Some(expected)) => {
            assert!(error.to_string().contains(expected), "{name}: {error}");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
        }
        (result, expected) => panic!("{name}: {result:?} instead of {expected:?}"),
    }
    place.assert_outside_untouched();
}

#[test]
fn nothing_leads_out() {
    let link = |name: &'static str, target: &'static str| Entry { kind: b'1', name: name.as_bytes(), link: target.as_bytes(), ..FILE };
    for (name, tar, expected) in [
        ("dot dot", Tar::new().file("../outside/victim", "bad"), Some("leads out")),
        ("dot dot inside", Tar::new().file("a/../../outside/victim", "bad"), Some("leads out")),
        ("dot dot at the end", Tar::new().dir("a/.."), Some("leads out")),
        ("absolute", Tar::new().file("/outside/victim", "inside"), None),
        ("through a relative symlink", Tar::new().symlink("s", "../../outside").file("s/victim", "inside"), None),
        ("through an absolute symlink", Tar::new().symlink("s", "/outside").file("s/victim", "inside"), None),
        ("through two", Tar::new().symlink("a", "b/../..").symlink("b", ".").file("a/outside/victim", "inside"), None),
        ("over a symlink", Tar::new().symlink("s", "../../outside/victim").file("s", "mine"), None),
        ("directory over a symlink", Tar::new().symlink("s", "../../outside").dir("s").file("s/victim", "mine"), None),
        ("whiteout over a symlink", Tar::new().symlink("s", "../../outside").file(".wh.s", "").file("s/.wh.victim", ""), None),
        ("opaque through a symlink", Tar::new().symlink("s", "../../outside").file("s/.wh..wh..opq", ""), None),
        ("loop", Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", ""), Some("")),
        ("hard link out", Tar::new().add(&link("l", "../outside/victim")), Some("leads out")),
        ("hard link to an absolute path", Tar::new().add(&link("l", "/outside/victim")), Some("is not in the archive")),
        (
            "hard link through a symlink",
            Tar::new().symlink("s", "../../outside").add(&link("l", "s/victim")),
            Some("is not in the archive"),
        ),
        ("hard link to a symlink, then written", Tar::new().symlink("s", "../../outside/victim").add(&link("l", "s")).file("l", "x"), None),
        ("hard link to a directory", Tar::new().dir("d").add(&link("l", "d")), Some("is not in the archive")),
        ("hard link to a whiteout", Tar::new().file(".wh.x", "").add(&link("l", "x")), Some("is not in the archive")),
        ("hard link to nothing", Tar::new().add(&link("l", "nothing")), Some("`l`")),
        ("hard link to the root", Tar::new().add(&link("l", "/")), Some("is not in the archive")),
        ("root as a symlink", Tar::new().symlink("/", "/outside"), Some("can't be anything else")),
        ("root as a file", Tar::new().file("./", ""), None),
        ("root as a hard link", Tar::new().file("a", "").add(&link(".", "a")), Some("can't be anything else")),
        ("whiteout of the directory itself", Tar::new().dir("d").file("d/.wh..", ""), Some("a whiteout must name")),
        ("whiteout of the parent", Tar::new().dir("d").file("d/.wh...", ""), Some("a whiteout must name")),
        ("whiteout of nothing", Tar::new().file(".wh.", ""), Some("a whiteout must name")),
        ("whiteout used as directory", Tar::new().file(".wh.a/b", ""), Some("used as a directory")),
        ("below a file", Tar::new().file("a", "").file("a/b", ""), Some("no directory")),
        ("symlink without target", Tar::new().symlink("s", ""), Some("no target")),
        ("unknown type", Tar::new().add(&Entry { kind: b'Z', name: b"z", ..FILE }), Some("unknown type")),
        ("NUL in a name", Tar::new().add(&Entry { name: b"x", pax: &[("path", b"a\0b")], ..FILE }), Some("NUL")),
        ("dot dot by PAX", Tar::new().add(&Entry { name: b"x", pax: &[("path", b"../outside/victim")], ..FILE }), Some("leads out")),
        ("huge device", Tar::new().add(&Entry { kind: b'3', name: b"x", device: (0o7_777_777, 0), ..FILE }), Some("device number")),
        ("huge owner", Tar::new().add(&Entry { name: b"x", pax: &[("uid", b"4294967296")], ..FILE }), Some("owner")),
        ("huge size", Tar::new().add(&Entry { name: b"x", pax: &[("size", b"9223372036854775807")], ..FILE }), Some("too early")),
        (
            "impossible size",
            Tar::new().add(&Entry { name: b"x", pax: &[("size", b"18446744073709551615")], ..FILE }),
            Some("impossible size"),
        ),
    ] {
        check(name, tar, expected);
    }
}

#[test]
fn devices_are_only_placeholders() {
    let place = Place::new();
    let tar = Tar::new()
        .add(&Entry { kind: b'3', name: b"dev/zero", device: (1, 5), ..FILE })
        .add(&Entry { kind: b'3', name: b"dev/wh", device: (0, 0), ..FILE })
        .add(&Entry { kind: b'4', name: b"dev/sda", device: (8, 0), ..FILE })
        .end();
    let layer = place.unpacked("l", &tar);
    for name in ["dev/zero", "dev/wh", "dev/sda"] {
        let metadata = fs::symlink_metadata(layer.fs.join(name)).unwrap();
        assert!(metadata.is_file() && metadata.len() == 0, "{name}");
    }
    assert_eq!(listing(&place.view(&["l"])).len(), 5, "a character device 0:0 of the image is no whiteout");
}

#[test]
fn any_name_is_kept() {
    let place = Place::new();
    let long = vec![b'n'; 255];
    let names: [&[u8]; 8] = [b"new\nline", b"\xff\xfe invalid", b" ", b"-rf", b"\x1b[31m", "\u{202e}txt".as_bytes(), b"a\\x41b", &long];
    let mut tar = Tar::new();
    for name in names {
        tar = tar.add(&Entry { name: b"x", owner: (1, 1), pax: &[("path", name)], ..FILE });
        let link = [name, b".l"].concat();
        if link.len() <= 255 {
            tar = tar.add(&Entry { kind: b'2', name: b"x", link: name, owner: (2, 2), pax: &[("path", &link)], ..FILE });
        }
    }
    let layer = place.unpacked("l", &tar.end());
    let view = place.view(&["l"]);
    for name in names {
        assert_eq!(view.lookup(&ImagePath::clean(name)).unwrap().unwrap().meta.uid, 1);
        let link = ImagePath::clean([name, b".l"].concat());
        if name.len() < 200 {
            let node = view.lookup(&link).unwrap().unwrap();
            assert_eq!((node.meta.uid, view.read_link(&node).unwrap().as_slice()), (2, name));
        }
    }
    let again = place.unpacked("again", &packed(&layer));
    assert_eq!(packed(&again), packed(&layer));
    let too_long = Tar::new().add(&Entry { name: b"x", pax: &[("path", &[b'n'; 256])], ..FILE }).end();
    assert!(place.unpack("long", &too_long).unwrap_err().to_string().contains("ENAMETOOLONG"));
}

#[test]
fn deep_paths_are_taken_up_to_the_kernels_limit() {
    let place = Place::new();
    // Fewer levels at the limit of length: comparing thousands of components takes its time in a debug build.
    let long = "dddddddddddddddddd/".repeat(215) + &"f".repeat(10);
    let deep = "d/".repeat(600) + "f";
    assert_eq!(long.len(), 4095);
    let tar = Tar::new()
        .add(&Entry { name: b"x", content: b"long", pax: &[("path", long.as_bytes())], ..FILE })
        .file("shallow", "")
        .add(&Entry { name: b"x", content: b"deep", pax: &[("path", deep.as_bytes())], ..FILE })
        .add(&Entry { name: b"x", content: b"deep", pax: &[("path", (deep.clone() + "2").as_bytes())], ..FILE })
        .end();
    let layer = place.unpacked("l", &tar);
    let tar = packed(&layer);
    assert!(packed(&place.unpacked("again", &tar)) == tar);
    for name in [&long, &deep] {
        assert!(place.view(&["l"]).lookup(&path(name)).unwrap().is_some());
    }
    let error =
        place.unpack("m", &Tar::new().add(&Entry { name: b"x", pax: &[("path", (long + "f").as_bytes())], ..FILE }).end()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn lying_headers_cost_no_memory() {
    let place = Place::new();
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_size(1 << 40);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    let tar = [&header.as_bytes()[..], &[b'x'; 4096]].concat();
    assert_eq!(place.unpack("pax", &tar).unwrap_err().kind(), ErrorKind::Corrupt);
    for pax in [
        &[("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"99999999999999")][..],
        &[("GNU.sparse.map", b"0,18446744073709551615"), ("GNU.sparse.realsize", b"5")],
        &[("GNU.sparse.map", b"0,3,1,3"), ("GNU.sparse.realsize", b"5")],
        &[("GNU.sparse.map", b"0,6"), ("GNU.sparse.realsize", b"18446744073709551615")],
    ] {
        let tar = Tar::new().add(&Entry { name: b"x", content: b"123456", pax, ..FILE }).end();
        let error = place.unpack(&format!("s{}", pax.len()), &tar);
        crate::sys::fs::remove::remove_tree_at(&place.layer(&format!("s{}", pax.len()))).unwrap();
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Corrupt);
    }
    place.assert_outside_untouched();
}

#[test]
fn noise_is_an_error_and_never_more() {
    let place = Place::new();
    let good = Tar::new()
        .dir("d")
        .add(&Entry { name: b"d/f", content: &[1; 700], pax: &[("mtime", b"1.5"), ("SCHILY.xattr.user.a", b"b")], ..FILE })
        .symlink("s", "d")
        .file("s/g", "x")
        .link("l", "d/f")
        .file("d/.wh.x", "")
        .end();
    let mut state = 0x1234_5678_9abc_def0u64;
    for round in 0..400 {
        let mut bytes = good.clone();
        for _ in 0..1 + round % 4 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = usize::try_from(state >> 33).unwrap() % bytes.len();
            bytes[at] = (state >> 24) as u8;
            // Half of the time the checksum is right again, to get past it.
            if state & (1 << 20) != 0 {
                let block = at / 512 * 512;
                let header = tar::Header::from_byte_slice(&bytes[block..block + 512]);
                let mut header = header.clone();
                header.set_cksum();
                bytes[block..block + 512].copy_from_slice(header.as_bytes());
            }
        }
        let name = format!("l{round}");
        if place.unpack(&name, &bytes).is_ok() {
            let layer = LayerDir::open(&place.layer(&name)).unwrap();
            let mut out = Vec::new();
            let _ = pack_layer(&layer, &mut out);
        }
        crate::sys::fs::remove::remove_tree_at(&place.layer(&name)).unwrap();
    }
    place.assert_outside_untouched();
}
