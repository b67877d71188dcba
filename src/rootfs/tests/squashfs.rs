//! squashfs images written, read back, and broken at every byte.

use std::fs::File;
use std::io::{Read, Seek, Write};

use super::{DIR, Entry, FILE, Place, Tar, exported};
use crate::rootfs::compress::Compression;
use crate::rootfs::squashfs::{Coding, to_tar, write};
use crate::rootfs::view::View;

const ALL: [Compression; 4] = [Compression::Zstd, Compression::Gzip, Compression::Xz, Compression::None];

fn written(view: &View, compression: Compression) -> Vec<u8> {
    let mut file = tempfile::tempfile().unwrap();
    write(view, Coding::new(compression, None).unwrap(), &file, &mut |_| ()).unwrap();
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn read(bytes: &[u8]) -> crate::error::Result<Vec<u8>> {
    let mut tar = Vec::new();
    to_tar(&file(bytes), &mut tar).map(|_| tar)
}

/// Of everything that a layer can hold one.
fn picky() -> Tar {
    let acl = [&[2, 0, 0, 0, 1, 0, 6, 0][..], &[0xff; 4], &[2, 0, 4, 0, 33, 0, 0, 0, 4, 0, 4, 0], &[0xff; 4], &[16, 0, 4, 0], &[0xff; 4]];
    let acl = [acl.concat().as_slice(), &[32, 0, 0, 0], &[0xff; 4]].concat();
    let noise: Vec<u8> = (0..300_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    Tar::new()
        .add(&Entry { name: b"d/", mode: 0o1777, owner: (33, 44), ..DIR })
        .add(&Entry { name: b"d/setuid", mode: 0o4755, content: &[7; 100], ..FILE })
        .file("d/hard", "content")
        .link("d/other", "d/hard")
        .dir("e/")
        .link("e/third", "d/hard")
        .symlink("e/soft", "../d/hard")
        .link("e/softer", "e/soft")
        .add(&Entry { kind: b'6', name: b"e/fifo", mode: 0o600, owner: (7, 0), ..FILE })
        .add(&Entry { kind: b'3', name: b"e/null", mode: 0o666, device: (1, 3), ..FILE })
        .add(&Entry { kind: b'4', name: b"e/disk", mode: 0o660, device: (259, 70_000), ..FILE })
        .add(&Entry { name: b"noise", content: &noise, owner: (2_000_000, 5), ..FILE })
        .add(&Entry { name: b"noise again", content: &noise, ..FILE })
        .add(&Entry { name: b"zeros", content: &[0; 400_000], ..FILE })
        .add(&Entry { name: b"zeros then", content: &[&[0; 300_000][..], b"end"].concat(), ..FILE })
        .add(&Entry { name: b"a block", content: &[1; 128 << 10], ..FILE })
        .add(&Entry { name: b"odd \n\xff", pax: &[("SCHILY.xattr.user.mime", b"text")], ..FILE })
        .add(&Entry { name: b"acl", mode: 0o640, pax: &[("SCHILY.xattr.system.posix_acl_access", &acl)], ..FILE })
        .add(&Entry {
            name: b"cap",
            pax: &[("SCHILY.xattr.security.capability", &[1, 0, 0, 2, 0, 4]), ("SCHILY.xattr.user.x", b"")],
            ..FILE
        })
        .dir("empty/")
        .file("nothing", "")
}

#[test]
fn what_is_written_is_read_back() {
    let place = Place::new();
    let mut tar = picky().dir("many/");
    for i in 0..3000 {
        tar = tar.file(&format!("many/{i:05}-{}", "x".repeat(i % 60)), &(i % 7).to_string());
    }
    place.unpacked("layer", &tar.end());
    place.unpacked("upper", &Tar::new().file("e/.wh.soft", "").file("above", "x").end());
    let view = place.view(&["layer", "upper"]);
    let expected = exported(&view);
    for compression in ALL {
        let image = written(&view, compression);
        assert!(image == written(&view, compression), "{compression:?} gives the same bytes again");
        assert_eq!(image.len() % 4096, 0);
        let name = format!("{compression:?}");
        place.unpacked(&name, &read(&image).unwrap());
        let again = place.view(&[&name]);
        assert!(exported(&again) == expected, "{compression:?}");
        assert!(written(&again, compression) == image, "{compression:?}: the image of an import is the image");
    }
}

#[test]
fn an_empty_image_and_odd_times() {
    let place = Place::new();
    place.unpacked("empty", &Tar::new().end());
    let view = place.view(&["empty"]);
    place.unpacked("again", &read(&written(&view, Compression::Zstd)).unwrap());
    assert!(exported(&place.view(&["again"])).len() >= 1024);
    let late = Tar::new().add(&Entry { name: b"late", mtime: 5_000_000_000, ..FILE });
    place.unpacked("late", &late.end());
    let image = written(&place.view(&["late"]), Compression::Gzip);
    assert_eq!(image[8..12], [0xff; 4], "squashfs ends in 2106");
    read(&image).unwrap();
}

#[test]
fn equal_files_are_stored_once() {
    let place = Place::new();
    let noise: Vec<u8> = (0..500_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let entry = |name| Entry { name, content: &noise, ..FILE };
    place.unpacked("one", &Tar::new().add(&entry(b"a")).end());
    place.unpacked("four", &Tar::new().add(&entry(b"a")).add(&entry(b"b")).add(&entry(b"c")).add(&entry(b"d")).end());
    let size = |name| written(&place.view(&[name]), Compression::None).len();
    assert!(size("four") < size("one") + 10_000);
}

#[test]
fn whiteouts_cannot_be_forged() {
    let place = Place::new();
    place.unpacked("layer", &Tar::new().file("ab-ab", "").end());
    let image = written(&place.view(&["layer"]), Compression::None);
    let at = image.windows(5).position(|bytes| bytes == b"ab-ab").unwrap();
    let with = |name: &[u8; 5]| {
        let mut image = image.clone();
        image[at..at + 5].copy_from_slice(name);
        read(&image).map(|_| ()).unwrap_err().to_string()
    };
    assert!(with(b".wh.a").contains("can't put"), "{}", with(b".wh.a"));
    for name in [b"ab/ab", b"/etc/", b"ab\0ab"] {
        assert!(with(name).contains("damaged"), "{name:?}");
    }
}

/// Every image that is cut or changed somewhere is read or refused, soon.
#[test]
fn broken_images_are_refused() {
    let place = Place::new();
    let small = picky().end();
    place.unpacked("layer", &small);
    place.unpacked("small", &Tar::new().dir("d/").file("d/a", "a").link("b", "d/a").symlink("l", "d").dir("d/e/").end());
    for compression in ALL {
        let image = written(&place.view(&["layer"]), compression);
        let used = u64::from_le_bytes(image[40..48].try_into().unwrap()) as usize;
        for cut in (0..300).chain((300..used).step_by(used / 400 + 1)) {
            let error = read(&image[..cut]).unwrap_err().to_string();
            assert!(error.contains("damaged") || error.contains("no squashfs"), "{compression:?} cut at {cut}: {error}");
        }
        let image = written(&place.view(&["small"]), compression);
        let used = u64::from_le_bytes(image[40..48].try_into().unwrap()) as usize;
        for at in 0..used {
            for flip in [0x01, 0x80, 0xff] {
                let mut broken = image.clone();
                broken[at] ^= flip;
                let mut bounded = Bounded(64 << 20);
                let _ = to_tar(&file(&broken), &mut bounded);
            }
        }
    }
    place.assert_outside_untouched();
}

/// Takes so many bytes and no more: a broken size may be a large one.
struct Bounded(usize);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn directories_do_not_lead_back() {
    let place = Place::new();
    place.unpacked("layer", &Tar::new().dir("aa/").end());
    let image = written(&place.view(&["layer"]), Compression::None);
    let directories = u64::from_le_bytes(image[72..80].try_into().unwrap()) as usize;
    let root = u64::from_le_bytes(image[32..40].try_into().unwrap());
    // Behind the size of the metadata block and the header: the offset of the entry's inode becomes the root's.
    let mut loops = image;
    loops[directories + 14..directories + 16].copy_from_slice(&(root as u16).to_le_bytes());
    let error = read(&loops).unwrap_err();
    assert!(format!("{:?}", error.causes()).contains("several places"), "{error}");
}
