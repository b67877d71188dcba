use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::rootfs::meta::{Kind, Override, Times};
use crate::rootfs::record::Record;
use crate::rootfs::seal::{SealOptions, Sealed, seal};

/// What a build step leaves: all kinds of modes, a socket, books of overlayfs.
fn upper(place: &Place) -> PathBuf {
    let layer = place.layer("upper");
    let fs_dir = layer.join("fs");
    fs::create_dir_all(fs_dir.join("locked/inner")).unwrap();
    for (name, mode) in
        [("none", 0o000), ("exec", 0o111), ("suid", 0o4555), ("plain", 0o644), ("locked/inner/deep", 0o400), ("owned", 0o440)]
    {
        fs::write(fs_dir.join(name), name).unwrap();
        if name == "owned" {
            xattr::set(fs_dir.join(name), "user.containers.override_stat", b"33:33:0440").unwrap();
        }
        if name == "plain" {
            for private in ["user.overlay.origin", "user.overlay.impure", "user.overlay.overlay.nested"] {
                xattr::set(fs_dir.join(name), private, b"x").unwrap();
            }
            xattr::set(fs_dir.join(name), "user.containers.override_stat", b"forged").unwrap();
        }
        fs::set_permissions(fs_dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    xattr::set(fs_dir.join("locked/inner"), "user.overlay.opaque", b"y").unwrap();
    drop(std::os::unix::net::UnixListener::bind(fs_dir.join("socket")).unwrap());
    symlink("plain", fs_dir.join("link")).unwrap();
    crate::sys::fs::make_whiteout(crate::sys::fs::open_root(&fs_dir).unwrap(), c"gone").unwrap();
    fs::set_permissions(fs_dir.join("locked/inner"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(fs_dir.join("locked"), fs::Permissions::from_mode(0o500)).unwrap();
    layer
}

#[test]
fn an_upper_directory_becomes_a_layer() {
    let place = Place::new();
    let layer = upper(&place);
    let over = |uid| Override { uid, gid: 0, mode: 0o777, device: None };
    let overrides = [(path("link"), over(5)), (path("not there"), over(6)), (path("plain"), over(7))].into();
    let mut left = Record { overrides, ..Record::default() };
    left.keep_xattr(&path("exec"), b"trusted.x", b"y");
    left.keep_xattr(&path("not there"), b"trusted.x", b"y");
    let options = SealOptions { left: Some(left), times: Times::NoLaterThan(1_500_000_000), ..SealOptions::default() };
    let sealed = seal(&layer, &options).unwrap();
    assert_eq!(sealed, Sealed { empty: false, entries: 10, sockets: 1 });
    let view = place.view(&["upper"]);
    assert_eq!(
        listing(&view)[1..],
        [
            "/exec 111 0:0 = exec",
            "/link 777 5:0 -> plain",
            "/locked 500 0:0 /",
            "/locked/inner 0 0:0 /",
            "/locked/inner/deep 400 0:0 = locked/inner/deep",
            "/none 0 0:0 = none",
            "/owned 440 33:33 = owned",
            "/plain 777 7:0 = plain",
            "/suid 4555 0:0 = suid",
        ]
    );
    let record = Record::load(&layer).unwrap();
    assert_eq!((record.overrides.len(), record.xattrs.len()), (2, 1));
    view.walk(&ImagePath::root(), &mut |node| {
        assert!(node.meta.mtime.secs <= 1_500_000_000, "{}", node.path);
        Ok(())
    })
    .unwrap();
    let names: Vec<_> = xattr::list(layer.join("fs/plain")).unwrap().collect();
    assert_eq!(names, [] as [&str; 0]);
    assert!(native(&layer.join("fs")).contains(&"gone (whiteout)".into()));
    assert!(tar_names(&packed(&view.layers()[0])).contains(&"locked/inner/.wh..wh..opq".into()));
    let before = packed(&view.layers()[0]);
    assert_eq!(seal(&layer, &SealOptions::default()).unwrap().entries, 10);
    assert!(packed(&LayerDir::open(&layer).unwrap()) == before, "sealing again changes nothing");
}

#[test]
fn an_untouched_root_makes_no_layer() {
    let place = Place::new();
    let fs_dir = place.layer("upper").join("fs");
    fs::create_dir_all(&fs_dir).unwrap();
    fs::set_permissions(&fs_dir, fs::Permissions::from_mode(0o755)).unwrap();
    let options = SealOptions { base_root: Some(Meta::new(Kind::Directory, 0o755)), ..SealOptions::default() };
    assert!(seal(&place.layer("upper"), &options).unwrap().empty);
    fs::set_permissions(&fs_dir, fs::Permissions::from_mode(0o711)).unwrap();
    assert!(!seal(&place.layer("upper"), &options).unwrap().empty);
    assert_eq!(tar_names(&packed(&place.view(&["upper"]).layers()[0])), ["./"]);
}

#[test]
fn redirects_are_refused() {
    let place = Place::new();
    fs::create_dir_all(place.layer("upper/fs/moved")).unwrap();
    xattr::set(place.layer("upper/fs/moved"), "user.overlay.redirect", b"/from").unwrap();
    let error = seal(&place.layer("upper"), &SealOptions::default()).unwrap_err();
    assert!(error.to_string().contains("redirect"), "{error}");
}
