use std::time::Duration;

use super::*;
use crate::oci::Digest;
use crate::rootfs::hash::Hashes;
use crate::rootfs::scan::{Selection, Source, scan};

fn context() -> Place {
    let place = Place::new();
    for (name, content) in [("c/a", "1"), ("c/d/b", "2"), ("c/d/e/f", "3"), ("c/d!/g", "4")] {
        let file = place.layer(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }
    std::os::unix::fs::symlink("/etc/passwd", place.layer("c/link")).unwrap();
    place
}

#[test]
fn a_scan_is_sorted_and_selective() {
    let place = context();
    let names = |from: &str, skip: &'static str| -> Vec<String> {
        let select = |path: &ImagePath, _, (): &()| {
            let selection = match path.to_string() {
                name if name == skip => Selection::Skip,
                name if name == "/d" && skip.is_empty() => Selection::IfNeeded,
                name if name.starts_with("/d/") && skip.is_empty() => Selection::Way,
                _ => Selection::Take,
            };
            (selection, ())
        };
        scan(&place.layer("c"), &path(from), (), &select).unwrap().iter().map(|(s, _)| s.path.to_string()).collect()
    };
    assert_eq!(names("/", "-"), ["/", "/a", "/d", "/d/b", "/d/e", "/d/e/f", "/d!", "/d!/g", "/link"]);
    assert_eq!(names("/", "/d"), ["/", "/a", "/d!", "/d!/g", "/link"]);
    assert_eq!(names("/", ""), ["/", "/a", "/d!", "/d!/g", "/link"], "nothing below `d` is taken");
    assert_eq!(names("d/e", "-"), ["/d/e", "/d/e/f"]);
    assert_eq!(names("a", "-"), ["/a"]);
    assert_eq!(names("missing", "-"), [] as [&str; 0]);
}

#[test]
fn extended_attributes_are_part_of_a_file() {
    let place = context();
    let (root, hashes) = (place.layer("c"), Hashes::load(&place.layer("hashes")).unwrap());
    let digest = || hashes.hash_file(&root, &list(&root, "a").remove(0)).unwrap();
    let set = |name: &str, value: &[u8]| ::xattr::set(place.layer("c/a"), name, value).unwrap();
    assert_eq!(digest(), Digest::of("1"));
    set("user.mime", b"x");
    let first = digest();
    set("user.mime", b"y");
    assert!(first != Digest::of("1") && first != digest());
    ::xattr::remove(place.layer("c/a"), "user.mime").unwrap();
    set("user.overlay.x", b"means nothing");
    assert_eq!(digest(), Digest::of("1"));
    ::xattr::set(place.layer("c/d"), "user.k", b"v").unwrap();
    let special = list(&root, "d").remove(0).special.unwrap();
    assert_eq!(special.xattrs.into_iter().collect::<Vec<_>>(), [(b"user.k".to_vec(), b"v".to_vec())]);
}

#[test]
fn hashes_are_remembered_by_what_a_change_changes() {
    let place = context();
    let (root, memory) = (place.layer("c"), place.layer("hashes"));
    let list = || list(&root, "a").remove(0);
    // A ctime can't be set; wait until it has settled.
    std::thread::sleep(Duration::from_millis(2100));
    let listed = list();
    let hashes = Hashes::load(&memory).unwrap();
    assert_eq!(hashes.hash_file(&root, &listed).unwrap(), Digest::of("1"));
    hashes.save().unwrap();
    let again = Hashes::load(&memory).unwrap();
    // With the metadata of before, what is remembered is answered without reading.
    fs::write(root.join("a"), "other").unwrap();
    assert_eq!(again.hash_file(&root, &listed).unwrap(), Digest::of("1"));
    assert_eq!(again.hash_file(&root, &list()).unwrap(), Digest::of("other"));
    again.save().unwrap();
    let size = fs::metadata(&memory).unwrap().len();
    assert_eq!(size, 18 + 52 + 32, "what changed just now is not remembered");
    fs::write(&memory, [&fs::read(&memory).unwrap()[..], b"x"].concat()).unwrap();
    assert_eq!(Hashes::load(&memory).unwrap().hash_file(&root, &listed).unwrap(), Digest::of("other"), "damage is forgotten");
}

fn list(root: &Path, from: &str) -> Vec<Source> {
    let taken = scan(root, &path(from), (), &|_, _, ()| (Selection::Take, ())).unwrap();
    taken.into_iter().map(|(source, _)| source).collect()
}

#[test]
fn directories_wait_for_what_is_taken_below_them() {
    let place = Place::new();
    for name in ["c/w/x/y/f", "c/w/x/z", "c/w/q/r", "c/v/f"] {
        fs::create_dir_all(place.layer(name)).unwrap();
    }
    let select = |path: &ImagePath, _, (): &()| {
        let taken = path.to_string().ends_with("/f") && path.to_string().starts_with("/w");
        (if taken { Selection::Take } else { Selection::Way }, ())
    };
    let found = scan(&place.layer("c"), &path("/"), (), &select).unwrap();
    let names: Vec<String> = found.iter().map(|(source, _)| source.path.to_string()).collect();
    assert_eq!(names, ["/", "/w", "/w/x", "/w/x/y", "/w/x/y/f"]);
}
