use super::*;
use crate::oci::{Digest, Hasher};
use crate::rootfs::assemble::{Assembled, Assembly, Body, Digested, Piece, assemble};
use crate::rootfs::meta::{Kind, Mtime};

/// The digest and size of what a layer packs to now.
fn packed_again(place: &Place, layer: &str) -> (Digest, u64) {
    let mut hasher = Hasher::new();
    let packed = pack_layer(&LayerDir::open(&place.layer(layer)).unwrap(), &mut hasher).unwrap();
    (hasher.finish(), packed.bytes)
}

/// A base with everything that can be copied; files of all sizes around the limits.
fn base() -> (Place, View) {
    let place = Place::new();
    let (large, larger) = (vec![b'l'; (256 << 10) + 1], vec![7; 3 << 20]);
    let mut tar = Tar::new()
        .add(&Entry { name: b"d", mode: 0o2750, owner: (33, 34), pax: &[("SCHILY.xattr.user.k", b"v")], ..DIR })
        .add(&Entry { name: b"d/suid", mode: 0o4711, owner: (5, 6), content: b"suid", ..FILE })
        .add(&Entry { name: b"d/x", pax: &[("SCHILY.xattr.user.mime", b"text")], content: b"x", ..FILE })
        .add(&Entry { name: b"d/closed", mode: 0, content: b"closed", ..FILE })
        .add(&Entry { name: b"d/exact", content: &large[1..], ..FILE })
        .add(&Entry { name: b"d/large", content: &large, ..FILE })
        .add(&Entry { name: b"d/larger", content: &larger, ..FILE })
        .file("d/empty", "")
        .symlink("d/link", "x")
        .dir("many");
    for number in 0..300 {
        tar = tar.file(&format!("many/{number:03}"), &number.to_string().repeat(number));
    }
    place.unpacked("base", &tar.end());
    let view = place.view(&["base"]);
    (place, view)
}

/// Copies the whole view below `/copy`, everything changed by `change`.
fn copy(place: &Place, view: &View, layer: &str, change: &(dyn Fn(&mut Meta) + Sync)) -> Assembled {
    let mut nodes = Vec::new();
    view.walk(&ImagePath::root(), &mut |node| {
        nodes.push(node.clone());
        Ok(())
    })
    .unwrap();
    let pieces: Vec<Piece<'_>> = nodes
        .iter()
        .map(|node| {
            let mut meta = node.meta.clone();
            change(&mut meta);
            let body = match node.meta.kind {
                Kind::File => Body::File(node, Digested::Now),
                Kind::Symlink => Body::Symlink(view.read_link(node).unwrap()),
                _ => Body::Plain,
            };
            let path = if node.path.is_root() { path("copy") } else { path("copy").resolve(node.path.as_bytes()) };
            Piece { path, meta, body }
        })
        .chain([
            Piece { path: path("inline"), meta: Meta::new(Kind::File, 0o644), body: Body::Bytes(b"here") },
            Piece { path: path("zlink"), meta: Meta::new(Kind::File, 0o644), body: Body::HardLink(path("copy/d/x")) },
        ])
        .collect();
    let root = Meta::new(Kind::Directory, 0o755);
    assemble(&place.layer(layer), &Assembly { pieces: &pieces, root: &root, view, change }).unwrap()
}

#[test]
fn what_is_digested_on_the_way_is_what_it_packs_to() {
    let (place, view) = base();
    let made = copy(&place, &view, "same", &|_| {});
    assert_eq!((made.diff_id, made.size), packed_again(&place, "same"));
    let after = place.view(&["same"]);
    for name in ["d", "d/suid", "d/x", "d/closed", "d/exact", "d/large", "d/larger", "d/empty", "d/link", "many", "many/299"] {
        assert_eq!(meta(&after, &format!("copy/{name}")), meta(&view, name), "{name}");
        let content = |view: &View, name: &str| view.read(&path(name), 9 << 20).unwrap();
        assert!(content(&after, &format!("copy/{name}")) == content(&view, name), "{name}");
    }
    assert_eq!(node(&after, "zlink").link, node(&after, "copy/d/x").link);
    assert_eq!(made.digests.len(), 307);
    let digest = |name: &str| made.digests.iter().find(|(_, source, _)| source.path == path(name)).unwrap().2;
    assert_eq!(digest("d/larger"), Digest::of(vec![7; 3 << 20]));
    assert_eq!(digest("d/empty"), Digest::of(""));
    assert_ne!(digest("d/x"), Digest::of("x"), "its extended attributes are part of it");
}

#[test]
fn changes_reach_the_file_and_the_tar() {
    let (place, view) = base();
    let change = |meta: &mut Meta| {
        (meta.uid, meta.gid, meta.mode, meta.mtime) = (7, 8, 0o640, Mtime::from_secs(99));
    };
    let made = copy(&place, &view, "changed", &change);
    assert_eq!((made.diff_id, made.size), packed_again(&place, "changed"));
    let found = meta(&place.view(&["changed"]), "copy/d/suid");
    assert_eq!((found.uid, found.gid, found.mode, found.mtime.secs), (7, 8, 0o640, 99));
    // Times that not every file system keeps; whatever this one makes of them, the digest is of that.
    for secs in [-5, 1 << 40] {
        let made = copy(&place, &view, &format!("time{secs}"), &|meta| meta.mtime = Mtime::from_secs(secs));
        assert_eq!((made.diff_id, made.size), packed_again(&place, &format!("time{secs}")), "{secs}");
    }
}

#[test]
fn the_first_error_ends_all() {
    let (place, view) = base();
    fs::remove_file(place.layer("base/fs/d/larger")).unwrap();
    let nodes = [node(&place.view(&["base"]), "d/x"), Node { path: path("d/larger"), ..node(&view, "d/x") }];
    let pieces: Vec<Piece<'_>> = nodes
        .iter()
        .map(|node| Piece {
            path: path(&node.path.to_string().replace('/', "-")),
            meta: node.meta.clone(),
            body: Body::File(node, Digested::Now),
        })
        .collect();
    let root = Meta::new(Kind::Directory, 0o755);
    let error = assemble(&place.layer("bad"), &Assembly { pieces: &pieces, root: &root, view: &view, change: &|_| {} }).unwrap_err();
    assert!(error.to_string().contains("can't read `/d/larger`"), "{error}");
}

#[test]
fn a_sparse_file_stays_sparse() {
    let place = Place::new();
    fs::create_dir_all(place.layer("host/fs")).unwrap();
    let file = fs::File::create(place.layer("host/fs/sparse")).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"middle", 32 << 20).unwrap();
    file.set_len(64 << 20).unwrap();
    drop(file);
    let view = place.view(&["host"]);
    let node = node(&view, "sparse");
    let pieces = [Piece { path: path("copy"), meta: node.meta.clone(), body: Body::File(&node, Digested::Before) }];
    let root = Meta::new(Kind::Directory, 0o755);
    let made = assemble(&place.layer("top"), &Assembly { pieces: &pieces, root: &root, view: &view, change: &|_| {} }).unwrap();
    assert_eq!((made.diff_id, made.size), packed_again(&place, "top"));
    let found = fs::metadata(place.layer("top/fs/copy")).unwrap();
    assert!(found.len() == 64 << 20 && found.blocks() * 512 < 8 << 20, "{} blocks", found.blocks());
}
