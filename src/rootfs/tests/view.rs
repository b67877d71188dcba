use super::*;
use crate::rootfs::view::Follow;

fn three() -> (Place, View) {
    let place = Place::new();
    place.unpacked("a", &Tar::new().dir("d").file("d/a", "a").file("d/b", "a").dir("gone").file("gone/x", "").file("f", "a").end());
    place.unpacked(
        "b",
        &Tar::new().file("d/b", "b").file(".wh.gone", "").symlink("l", "d").symlink("up", "../../d/a").symlink("loop", "loop").end(),
    );
    place.unpacked("c", &Tar::new().dir("gone").file("gone/y", "c").file("f/in", "").file("d/c", "c").end());
    let view = place.view(&["a", "b", "c"]);
    (place, view)
}

#[test]
fn layers_merge_as_overlayfs_merges_them() {
    let (_place, view) = three();
    assert_eq!(
        listing(&view),
        [
            "/ 755 0:0 /",
            "/d 755 0:0 /",
            "/d/a 644 0:0 = a",
            "/d/b 644 0:0 = b",
            "/d/c 644 0:0 = c",
            "/f 755 0:0 /",
            "/f/in 644 0:0 = ",
            "/gone 755 0:0 /",
            "/gone/y 644 0:0 = c",
            "/l 777 0:0 -> d",
            "/loop 777 0:0 -> loop",
            "/up 777 0:0 -> ../../d/a",
        ]
    );
    assert_eq!((node(&view, "d/b").layer, node(&view, "d").layer), (1, 0));
}

#[test]
fn lookup_follows_nothing_and_resolve_does() {
    let (_place, view) = three();
    assert!(view.lookup(&path("l/a")).unwrap().is_none());
    for (from, how, expected) in [
        ("l", Follow::Last, "/d"),
        ("l", Follow::Parents, "/l"),
        ("l/a", Follow::Parents, "/d/a"),
        ("up", Follow::Last, "/d/a"),
        ("l/new/deep", Follow::Last, "/d/new/deep"),
        ("missing/x", Follow::Last, "/missing/x"),
        ("/", Follow::Last, "/"),
    ] {
        assert_eq!(view.resolve(&path(from), how).unwrap().to_string(), expected, "{from}");
    }
    assert!(view.resolve(&path("loop"), Follow::Last).unwrap_err().to_string().contains("too many symbolic links"));
    assert_eq!(view.resolve(&path("loop"), Follow::Parents).unwrap(), path("loop"));
}

#[test]
fn files_are_read_through_symlinks() {
    let (_place, view) = three();
    assert_eq!(view.read(&path("l/b"), 10).unwrap().unwrap(), b"b");
    assert_eq!(view.read(&path("d"), 10).unwrap(), None);
    assert_eq!(view.read(&path("nothing"), 10).unwrap(), None);
    assert!(view.read(&path("l/b"), 0).is_err());
}

#[test]
fn an_empty_stack_has_only_a_root() {
    let view = View::new(Vec::new());
    assert_eq!(listing(&view), ["/ 755 0:0 /"]);
    assert_eq!(view.read_dir(&path("x")).unwrap(), []);
}

#[test]
fn a_view_agrees_with_a_mounted_overlay() {
    let (place, view) = three();
    let merged = place.layer("merged");
    fs::create_dir(&merged).unwrap();
    let lower = ["c", "b", "a"].map(|name| place.layer(name).join("fs").display().to_string()).join(":");
    let script = format!(
        "mount -t overlay -o userxattr,lowerdir={lower} overlay {merged} && cd {merged} && find . | sort && cat d/b gone/y",
        merged = merged.display()
    );
    let out = std::process::Command::new("unshare").args(["-Urm", "sh", "-c", &script]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut expected: Vec<_> = listing(&view).iter().map(|line| format!(".{}", line.split(' ').next().unwrap())).collect();
    expected[0] = ".".into();
    expected.push("bc".into());
    assert_eq!(String::from_utf8(out.stdout).unwrap().lines().collect::<Vec<_>>(), expected);
}
