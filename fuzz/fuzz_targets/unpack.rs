//! Any bytes unpacked as a layer: a layer or one error, nothing outside, and what was unpacked packs again to a fixed point.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rootling::rootfs::pack::pack_layer;
use rootling::rootfs::unpack::{UnpackOptions, unpack};
use rootling::rootfs::view::LayerDir;

fuzz_target!(|tar: &[u8]| {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("victim"), "intact").expect("a file");
    let layer = |name: &str| dir.path().join(name);
    if unpack(tar, &layer("a"), &UnpackOptions::default()).is_ok() {
        let mut first = Vec::new();
        let opened = LayerDir::open(&layer("a")).expect("a record that was just written");
        if pack_layer(&opened, &mut first).is_ok() {
            unpack(&*first, &layer("b"), &UnpackOptions::default()).expect("our own tar unpacks");
            let mut second = Vec::new();
            pack_layer(&LayerDir::open(&layer("b")).expect("a record"), &mut second).expect("and packs again");
            assert!(first == second);
        }
    }
    assert_eq!(std::fs::read(dir.path().join("victim")).expect("still there"), b"intact");
});
