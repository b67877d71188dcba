//! Copies of file contents: cloned where the file system can, else by the kernel, else through a buffer.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use super::stat_fd;

/// Copies contents and remembers what the two file systems refused, so that it is tried once and not for each file.
#[derive(Debug)]
pub struct Copier {
    clone: AtomicBool,
    range: AtomicBool,
}

impl Default for Copier {
    fn default() -> Self {
        Self { clone: AtomicBool::new(true), range: AtomicBool::new(true) }
    }
}

impl Copier {
    /// Copies the first `size` bytes of `from` into the new and empty `to`, holes kept; ends early with `UnexpectedEof` if there are fewer.
    pub fn copy(&self, from: &File, to: &File, size: u64) -> io::Result<()> {
        if size == 0 {
            return Ok(());
        }
        let stat = stat_fd(from)?;
        if stat.size < size {
            return Err(too_short());
        }
        if stat.size == size && self.clone_whole(from, to, size) {
            return Ok(());
        }
        if stat.blocks.saturating_mul(512) < size {
            return self.copy_extents(from, to, size);
        }
        self.copy_range(from, to, 0, size)
    }

    /// Makes `to`, which is new and empty, share the content of `from`, if the file system can and `from` has still this size: a clone takes the
    /// whole file, and one that grew must not give more than was announced.
    pub fn clone_whole(&self, from: &File, to: &File, size: u64) -> bool {
        if !self.clone.load(Ordering::Relaxed) {
            return false;
        }
        match rustix::fs::ioctl_ficlone(to, from) {
            Err(_) => self.clone.store(false, Ordering::Relaxed),
            Ok(()) => return stat_fd(to).is_ok_and(|stat| stat.size == size) || to.set_len(size).is_ok(),
        }
        false
    }

    /// Copies what lies between the holes.
    fn copy_extents(&self, from: &File, to: &File, size: u64) -> io::Result<()> {
        let mut at = 0;
        while at < size {
            let start = match rustix::fs::seek(from, rustix::fs::SeekFrom::Data(at)) {
                Ok(start) => start.min(size),
                Err(Errno::NXIO) => size,
                Err(_) => return self.copy_range(from, to, at, size - at),
            };
            if start < size {
                let end = rustix::fs::seek(from, rustix::fs::SeekFrom::Hole(start))?.min(size);
                self.copy_range(from, to, start, end - start)?;
                at = end;
            } else {
                at = size;
            }
        }
        to.set_len(size)
    }

    fn copy_range(&self, mut from: &File, mut to: &File, start: u64, len: u64) -> io::Result<()> {
        let mut done = 0;
        while self.range.load(Ordering::Relaxed) && done < len {
            let (mut off_in, mut off_out) = (start + done, start + done);
            let want = usize::try_from(len - done).unwrap_or(usize::MAX).min(1 << 30);
            match rustix::fs::copy_file_range(from, Some(&mut off_in), to, Some(&mut off_out), want) {
                // Also what some file systems say of files whose size they don't know (procfs).
                Ok(0) => break,
                Ok(n) => done += n as u64,
                Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::NOTSUP | Errno::PERM | Errno::BADF) => {
                    self.range.store(false, Ordering::Relaxed);
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        if done == len {
            return Ok(());
        }
        from.seek(SeekFrom::Start(start + done))?;
        to.seek(SeekFrom::Start(start + done))?;
        let mut buffer = vec![0; 128 << 10];
        while done < len {
            let want = buffer.len().min(usize::try_from(len - done).unwrap_or(usize::MAX));
            match from.read(&mut buffer[..want]) {
                Ok(0) => return Err(too_short()),
                Ok(n) => {
                    to.write_all(&buffer[..n])?;
                    done += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

fn too_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_data_and_keeps_holes() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = |name| dir.path().join(name);
        let mut from = File::options().read(true).write(true).create_new(true).open(path("from")).unwrap();
        from.seek(SeekFrom::Start(8 << 20)).unwrap();
        from.write_all(b"middle").unwrap();
        from.set_len(16 << 20).unwrap();
        let to = File::create(path("to")).unwrap();
        Copier::default().copy(&from, &to, 16 << 20).unwrap();
        assert!(std::fs::read(path("to")).unwrap() == std::fs::read(path("from")).unwrap());
        assert!(stat_fd(&to).unwrap().blocks < 1000, "holes are kept");
        let short = File::create(path("short")).unwrap();
        assert!(Copier::default().copy(&from, &short, 17 << 20).is_err());
    }
}
