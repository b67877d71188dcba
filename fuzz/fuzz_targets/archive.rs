//! Any bytes are an archive of images or one error, and nothing appears outside the storage directory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rootling::event::Silent;
use rootling::store::Store;
use rootling::transfer::read::{Images, Platforms};

fuzz_target!(|data: &[u8]| {
    let scratch = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
    let archive = scratch.path().join("archive");
    std::fs::write(&archive, data).expect("written");
    let store = Store::open(&scratch.path().join("storage")).expect("a storage directory");
    let _ = Images::open(&store, &archive, None).and_then(|images| images.read_each(&Platforms::All, &Silent));
    let names = ["archive", "storage"];
    let beside = std::fs::read_dir(scratch.path()).expect("readable").flatten().any(|e| !names.iter().any(|name| e.file_name() == *name));
    assert!(!beside, "something was written beside the storage directory");
});
