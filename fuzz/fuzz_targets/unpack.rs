//! Any bytes are a layer or one error, and nothing appears beside the layer directory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rootling::rootfs::unpack::{UnpackOptions, unpack};

fuzz_target!(|data: &[u8]| {
    let scratch = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
    let layer = scratch.path().join("layer");
    let _ = unpack(data, &layer, &UnpackOptions::default());
    let beside = std::fs::read_dir(scratch.path()).expect("readable").flatten().any(|e| e.file_name() != "layer");
    assert!(!beside, "something was written beside the layer");
});
