use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use super::*;
use crate::oci::Digest;
use crate::rootfs::hash::Hashes;
use crate::rootfs::scan::{Selection, scan};

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

fn hash(place: &Place, from: &str) -> Digest {
    let (root, from) = (place.layer("c"), path(from));
    let sources = scan(&root, &from, &|_, _| Selection::Take).unwrap();
    Hashes::load(&place.layer("hashes")).unwrap().hash_tree(&root, &from, &sources).unwrap()
}

#[test]
fn a_scan_is_sorted_and_selective() {
    let place = context();
    let names = |from: &str, skip: &'static str| -> Vec<String> {
        let select = |path: &ImagePath, _| match path.to_string() {
            name if name == skip => Selection::Skip,
            name if name == "/d" && skip.is_empty() => Selection::Descend,
            _ => Selection::Take,
        };
        scan(&place.layer("c"), &path(from), &select).unwrap().iter().map(|s| s.path.to_string()).collect()
    };
    assert_eq!(names("/", "-"), ["/", "/a", "/d", "/d/b", "/d/e", "/d/e/f", "/d!", "/d!/g", "/link"]);
    assert_eq!(names("/", "/d"), ["/", "/a", "/d!", "/d!/g", "/link"]);
    assert_eq!(names("/", ""), ["/", "/a", "/d/b", "/d/e", "/d/e/f", "/d!", "/d!/g", "/link"]);
    assert_eq!(names("d/e", "-"), ["/d/e", "/d/e/f"]);
    assert_eq!(names("a", "-"), ["/a"]);
    assert_eq!(names("missing", "-"), [] as [&str; 0]);
}

#[test]
fn the_digest_is_of_names_modes_and_contents() {
    let place = context();
    let whole = hash(&place, "/");
    let file = hash(&place, "d/b");
    filetime(&place.layer("c/d/b"), 5);
    assert_eq!(hash(&place, "/"), whole, "times don't count");
    fs::rename(place.layer("c/d/b"), place.layer("c/d/bb")).unwrap();
    assert_ne!(hash(&place, "/"), whole, "names do");
    assert_eq!(hash(&place, "d/bb"), file, "but not that of a single file");
    fs::rename(place.layer("c/d/bb"), place.layer("c/d/b")).unwrap();
    assert_eq!(hash(&place, "/"), whole);
    fs::set_permissions(place.layer("c/d/b"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_ne!(hash(&place, "/"), whole, "modes do");
    fs::set_permissions(place.layer("c/d/b"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(place.layer("c/d/e/f"), "4").unwrap();
    assert_ne!(hash(&place, "/"), whole, "contents do");
    fs::write(place.layer("c/d/e/f"), "3").unwrap();
    fs::remove_file(place.layer("c/link")).unwrap();
    std::os::unix::fs::symlink("/etc/group", place.layer("c/link")).unwrap();
    assert_ne!(hash(&place, "/"), whole, "targets do");
}

#[test]
fn hashes_are_remembered_by_what_a_change_changes() {
    let place = context();
    let (root, memory) = (place.layer("c"), place.layer("hashes"));
    let list = || scan(&root, &path("a"), &|_, _| Selection::Take).unwrap().remove(0);
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

fn filetime(file: &Path, secs: u64) {
    File::options().write(true).open(file).unwrap().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(secs)).unwrap();
}
