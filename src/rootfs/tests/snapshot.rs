use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::rootfs::meta::Override;
use crate::rootfs::record::Record;
use crate::rootfs::seal::{SealOptions, seal};
use crate::rootfs::snapshot::Snapshot;
use crate::rootfs::tree::materialize;

fn image() -> Place {
    let place = Place::new();
    let tar = Tar::new()
        .add(&Entry { name: b"etc", owner: (1, 2), ..DIR })
        .add(&Entry { name: b"etc/secret", mode: 0o400, owner: (3, 3), content: b"s", ..FILE })
        .file("etc/linked", "l")
        .link("etc/other", "etc/linked")
        .add(&Entry { kind: b'2', name: b"link", link: b"etc", owner: (4, 4), mode: 0o777, ..FILE })
        .add(&Entry { kind: b'3', name: b"null", mode: 0o666, device: (1, 3), ..FILE })
        .dir("old")
        .file("old/a", "a")
        .file("old/b", "b")
        .end();
    place.unpacked("base", &tar);
    place.unpacked("top", &Tar::new().file("old/.wh.b", "").file("etc/new", "n").end());
    place
}

#[test]
fn a_plain_tree_shows_what_the_view_shows() {
    let place = image();
    let view = place.view(&["base", "top"]);
    materialize(&view, &place.layer("tree")).unwrap();
    let tree = place.view(&["tree"]);
    assert_eq!(listing(&view), listing(&tree));
    assert!(exported(&view) == exported(&tree));
    assert!(!native(&place.layer("tree/fs")).iter().any(|line| line.contains("whiteout")));
    assert_eq!(node(&tree, "etc/linked").link, node(&tree, "etc/other").link);
    let inode = |name: &str| fs::metadata(place.layer(name)).unwrap().ino();
    assert_ne!(inode("tree/fs/etc/linked"), inode("base/fs/etc/linked"), "never the layer's own file");
}

#[test]
fn the_difference_gives_the_changed_tree() {
    let place = image();
    materialize(&place.view(&["base", "top"]), &place.layer("tree")).unwrap();
    let tree = place.layer("tree");
    let snapshot = Snapshot::take(&tree).unwrap();
    let at = |name: &str| tree.join("fs").join(name);
    fs::write(at("etc/new"), "N").unwrap();
    fs::remove_file(at("old/a")).unwrap();
    fs::create_dir(at("fresh")).unwrap();
    fs::write(at("fresh/x"), "x").unwrap();
    fs::hard_link(at("fresh/x"), at("fresh/y")).unwrap();
    fs::set_permissions(at("etc/linked"), fs::Permissions::from_mode(0o111)).unwrap();
    xattr::set(at("null"), "user.containers.override_stat", b"0:5:0666:char-1-3").unwrap();
    fs::remove_dir_all(at("old")).unwrap();
    fs::write(at("old"), "now a file").unwrap();
    let overrides = [(path("link"), Override { uid: 8, gid: 8, mode: 0o777, device: None })].into();
    let left = Some(Record { overrides, ..Record::default() });
    seal(&tree, &SealOptions { left, ..SealOptions::default() }).unwrap();
    assert!(!snapshot.diff(&tree, &place.layer("diff")).unwrap().empty);
    let layer = LayerDir::open(&place.layer("diff")).unwrap();
    assert_eq!(
        tar_names(&packed(&layer)),
        ["etc/", "etc/linked", "etc/new", "etc/other", "fresh/", "fresh/x", "fresh/y", "link", "null", "old"]
    );
    assert_eq!(listing(&place.view(&["base", "top", "diff"])), listing(&place.view(&["tree"])));
}

#[test]
fn deletions_and_replaced_directories_are_seen() {
    let place = image();
    materialize(&place.view(&["base", "top"]), &place.layer("tree")).unwrap();
    let tree = place.layer("tree");
    let snapshot = Snapshot::take(&tree).unwrap();
    fs::remove_dir_all(tree.join("fs/etc")).unwrap();
    fs::create_dir(tree.join("fs/etc")).unwrap();
    fs::write(tree.join("fs/etc/only"), "o").unwrap();
    fs::remove_dir_all(tree.join("fs/old")).unwrap();
    seal(&tree, &SealOptions::default()).unwrap();
    snapshot.diff(&tree, &place.layer("diff")).unwrap();
    assert_eq!(listing(&place.view(&["base", "top", "diff"])), listing(&place.view(&["tree"])));
    assert!(tar_names(&packed(&LayerDir::open(&place.layer("diff")).unwrap())).contains(&".wh.old".into()));
}

/// Where nobody emulated root, the record holds for what is still the same entry.
#[test]
fn what_took_a_recorded_place_has_its_own_owner() {
    let place = image();
    materialize(&place.view(&["base", "top"]), &place.layer("tree")).unwrap();
    let tree = place.layer("tree");
    let snapshot = Snapshot::take(&tree).unwrap();
    let still = || snapshot.still_recorded(&tree).unwrap().overrides.into_keys().collect::<Vec<_>>();
    assert_eq!(still(), [path("link")]);
    // The old one is kept so that the new one can't have its number.
    fs::rename(tree.join("fs/link"), tree.join("fs/kept")).unwrap();
    assert_eq!(still(), []);
    std::os::unix::fs::symlink("etc", tree.join("fs/link")).unwrap();
    assert_eq!(still(), []);
}

#[test]
fn nothing_changed_is_nothing_written() {
    let place = image();
    materialize(&place.view(&["base", "top"]), &place.layer("tree")).unwrap();
    let snapshot = Snapshot::take(&place.layer("tree")).unwrap();
    seal(&place.layer("tree"), &SealOptions::default()).unwrap();
    assert!(snapshot.diff(&place.layer("tree"), &place.layer("diff")).unwrap().empty);
    assert_eq!(native(&place.layer("diff/fs")), [] as [&str; 0]);
    assert!(Record::load(&place.layer("diff")).unwrap().overrides.is_empty());
}

#[test]
fn a_change_right_after_the_snapshot_is_not_missed() {
    let place = image();
    materialize(&place.view(&["base"]), &place.layer("tree")).unwrap();
    for round in 0..50 {
        let file = place.layer("tree/fs/etc/linked");
        fs::write(&file, [b'a']).unwrap();
        let snapshot = Snapshot::take(&place.layer("tree")).unwrap();
        fs::write(&file, [b'b']).unwrap();
        assert!(!snapshot.diff(&place.layer("tree"), &place.layer(&format!("d{round}"))).unwrap().empty, "{round}");
    }
}
