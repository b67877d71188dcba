//! Any bytes are a squashfs image or one error, and what is read of an image has an end.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use rootling::rootfs::squashfs::to_tar;

/// A sparse file's size may be any; so much of it is enough.
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

fuzz_target!(|data: &[u8]| {
    let mut image = tempfile::tempfile_in("/dev/shm").expect("a scratch file");
    image.write_all(data).expect("written");
    let _ = to_tar(&image, Bounded(16 << 20));
});
