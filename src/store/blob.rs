//! Blobs: bytes named by their digest, exactly as a registry serves them.
//!
//! A blob is complete when it has its name. It is not waited for on the disk: after a power cut it may be damaged, which
//! every reading notices.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::path::PathBuf;

use super::Store;
use super::lease::Kind as Lease;
use super::lock::{Attempt, Mode, Range, is_at, try_lock};
use super::record;
use super::unfinished::Unfinished;
use crate::error::{Error, IoContext, Kind, Place, Result, from_io, quote_path};
use crate::oci::{Digest, Hasher};

/// Large enough that a download's small reads don't become system calls.
const BUFFER: usize = 256 * 1024;

impl Store {
    /// The size of a blob, if it is here; it stays from now on.
    pub fn has_blob(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(match self.open_blob(digest)? {
            Some(file) => Some(file.metadata().doing("stat", &self.layout().blob(digest))?.len()),
            None => None,
        })
    }

    /// Starts a blob whose digest is not known yet, or not worth resuming.
    pub fn blob_writer(&self) -> Result<BlobWriter> {
        let place = WriterPlace::Unfinished(self.unfinished("blob")?);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(place.path()).doing("create", place.path())?;
        Ok(BlobWriter { store: self.clone(), file: BufWriter::with_capacity(BUFFER, file), place, hasher: Hasher::new(), written: 0 })
    }

    /// Starts or resumes the download of a blob: go on at [`BlobWriter::written`]. Dropped, it stays to be resumed.
    ///
    /// If another process is writing it, this is a fresh start of one's own; [`Store::lock`] avoids that.
    pub fn partial(&self, digest: &Digest) -> Result<BlobWriter> {
        let path = self.layout().partial(digest);
        let mut file = loop {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).doing("open", &path)?;
            if try_lock(&file, Range::ALL, Mode::Exclusive).doing("lock", &path)? == Attempt::Busy {
                return self.blob_writer();
            }
            // Between opening and locking, another may have finished it: then it is the blob by now, and not ours to write.
            if is_at(&file, &path) {
                break file;
            }
        };
        let mut hasher = Hasher::new();
        let written = io::copy(&mut file, &mut hasher).doing("read", &path)?;
        let place = WriterPlace::Partial { path, keep: true };
        Ok(BlobWriter { store: self.clone(), file: BufWriter::with_capacity(BUFFER, file), place, hasher, written })
    }

    /// Opens a blob. The reader's end is an error unless the bytes had the digest. `NotFound` if it is not here.
    pub fn blob_reader(&self, digest: &Digest) -> Result<BlobReader> {
        let file = self.open_blob(digest)?.ok_or_else(|| {
            Error::with_kind(Kind::NotFound, format!("blob `{digest}` is not in the storage directory"))
                .hint("pull or build the image again")
        })?;
        Ok(BlobReader { file, path: self.layout().blob(digest), expected: *digest, hasher: Some(Hasher::new()) })
    }

    /// Reads a small blob. Errors: larger than `limit`, not here, damaged.
    pub fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let mut reader = self.blob_reader(digest)?;
        let path = reader.path.clone();
        let size = reader.file.metadata().doing("stat", &path)?.len();
        if size > limit {
            return Err(Error::with_kind(Kind::Corrupt, format!("blob `{digest}` is larger than expected"))
                .cause(format!("it has {size} bytes, at most {limit} were expected")));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        reader.read_to_end(&mut bytes).map_err(|e| from_io(|| format!("can't read {}", quote_path(&path)), e))?;
        Ok(bytes)
    }

    /// Stores bytes at hand.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if self.has_blob(&digest)? != Some(bytes.len() as u64) {
            let mut writer = self.blob_writer()?;
            writer.write_all(bytes).map_err(|e| from_io(|| "can't write a blob".into(), e))?;
            writer.commit(&digest, None)?;
        }
        Ok(digest)
    }

    /// Where a blob is, for programs that read files. Its bytes prove nothing that way.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.layout().blob(digest)
    }

    /// Removes a blob that turned out to be damaged, so that it can be fetched again.
    pub fn discard_blob(&self, digest: &Digest) -> Result<()> {
        super::remove::remove_tree(&self.layout().blob(digest)).map(drop)
    }

    fn open_blob(&self, digest: &Digest) -> Result<Option<File>> {
        self.inner.live.lease(Lease::Blob, digest)?;
        record::refresh(&self.layout().blobs());
        record::open(&self.layout().blob(digest))
    }
}

/// A blob being written. Dropped, it is gone, unless it came from [`Store::partial`].
pub struct BlobWriter {
    store: Store,
    file: BufWriter<File>,
    place: WriterPlace,
    hasher: Hasher,
    written: u64,
}

enum WriterPlace {
    Unfinished(Unfinished),
    Partial { path: PathBuf, keep: bool },
}

impl BlobWriter {
    /// Bytes it has, those of an earlier attempt included.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Reads what it has so far: who unpacks while downloading needs the beginning again after resuming.
    pub fn reader(&mut self) -> Result<impl Read + Send + use<>> {
        self.file.flush().doing("write", self.place.path())?;
        let file = File::open(self.place.path()).doing("open", self.place.path())?;
        Ok(file.take(self.written))
    }

    /// Forgets what it has: the server does not resume, or what is here turned out wrong.
    pub fn restart(&mut self) -> Result<()> {
        self.file.flush().doing("write", self.place.path())?;
        let file = self.file.get_mut();
        file.set_len(0).and_then(|()| io::Seek::rewind(file)).doing("truncate", self.place.path())?;
        (self.hasher, self.written) = (Hasher::new(), 0);
        Ok(())
    }

    /// Finishes it if it has this digest and size. If not, the bytes are thrown away: no resuming would make them right.
    pub fn commit(mut self, expected: &Digest, size: Option<u64>) -> Result<()> {
        let digest = std::mem::take(&mut self.hasher).finish();
        if digest != *expected || size.is_some_and(|size| size != self.written) {
            self.place.give_up();
            let error = Error::with_kind(Kind::Corrupt, format!("blob `{expected}` did not arrive as announced"));
            return Err(match size {
                Some(size) if size != self.written => error.cause(format!("expected {size} bytes, got {}", self.written)),
                _ => error.cause(format!("the {} bytes that came have digest `{digest}`", self.written)),
            });
        }
        self.put(&digest)
    }

    /// Finishes it under the digest it has; returns digest and size.
    pub fn finish(mut self) -> Result<(Digest, u64)> {
        let digest = std::mem::take(&mut self.hasher).finish();
        let size = self.written;
        self.put(&digest)?;
        Ok((digest, size))
    }

    fn put(&mut self, digest: &Digest) -> Result<()> {
        self.file.flush().doing("write", self.place.path())?;
        let path = self.store.layout().blob(digest);
        self.store.inner.live.lease(Lease::Blob, digest)?;
        // Replacing an equal blob does no harm, and mends a damaged one.
        match &mut self.place {
            WriterPlace::Unfinished(unfinished) => unfinished.place(&path),
            WriterPlace::Partial { path: partial, .. } => std::fs::rename(partial, &path),
        }
        .doing("write", &path)?;
        self.store.made_something();
        Ok(())
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes).doing("write", self.place.path())?;
        self.hasher.update(&bytes[..written]);
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(self.file.flush().doing("write", self.place.path())?)
    }
}

impl WriterPlace {
    fn path(&self) -> &std::path::Path {
        match self {
            Self::Unfinished(unfinished) => unfinished.path(),
            Self::Partial { path, .. } => path,
        }
    }

    fn give_up(&mut self) {
        if let Self::Partial { keep, .. } = self {
            *keep = false;
        }
    }
}

impl Drop for WriterPlace {
    fn drop(&mut self) {
        if let Self::Partial { path, keep: false } = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A blob being read. At its end the digest is checked; a mismatch is an error instead of the end.
pub struct BlobReader {
    file: File,
    path: PathBuf,
    expected: Digest,
    /// `None` once checked.
    hasher: Option<Hasher>,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer).doing("read", &self.path)?;
        let Some(hasher) = &mut self.hasher else { return Ok(count) };
        hasher.update(&buffer[..count]);
        if count > 0 || buffer.is_empty() {
            return Ok(count);
        }
        if self.hasher.take().unwrap_or_default().finish() == self.expected {
            return Ok(0);
        }
        let error = Error::with_kind(Kind::Corrupt, format!("blob `{}` is damaged", self.expected));
        Err(error.at(Place::Path(self.path.clone())).hint("remove the file, then pull or build the image again").into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn only_whole_blobs_appear() {
        let (_dir, store) = testing::store();
        let digest = Digest::of("content");
        for (bytes, size, expected) in [
            ("conten", None, Some("did not arrive as announced: the 6 bytes that came have digest")),
            ("content", Some(6), Some("did not arrive as announced: expected 6 bytes, got 7")),
            ("content", Some(7), None),
        ] {
            let mut writer = store.blob_writer().unwrap();
            writer.write_all(bytes.as_bytes()).unwrap();
            assert_eq!(store.has_blob(&digest).unwrap(), None);
            match (writer.commit(&digest, size), expected) {
                (Ok(()), None) => {}
                (Err(e), Some(text)) => assert!(e.kind() == Kind::Corrupt && e.to_string().contains(text), "{e}"),
                (result, _) => panic!("{result:?} for {bytes:?}"),
            }
            assert!(testing::names(&store, "tmp").is_empty());
        }
        assert_eq!(store.has_blob(&digest).unwrap(), Some(7));
        assert_eq!(store.read_blob(&digest, 7).unwrap(), b"content");
        assert!(store.read_blob(&digest, 6).is_err());
        assert_eq!(store.blob_reader(&Digest::of("absent")).err().unwrap().kind(), Kind::NotFound);
    }

    #[test]
    fn downloads_resume() {
        let (_dir, store) = testing::store();
        let digest = Digest::of("0123456789");
        let mut first = store.partial(&digest).unwrap();
        first.write_all(b"01234").unwrap();
        let other = store.partial(&digest).unwrap();
        assert_eq!(other.written(), 0, "someone else's is not touched");
        drop((first, other));
        let mut second = store.partial(&digest).unwrap();
        assert_eq!(second.written(), 5);
        let mut before = String::new();
        second.reader().unwrap().read_to_string(&mut before).unwrap();
        assert_eq!(before, "01234");
        second.write_all(b"56789").unwrap();
        second.commit(&digest, Some(10)).unwrap();
        assert_eq!(store.read_blob(&digest, 10).unwrap(), b"0123456789");
        assert!(testing::names(&store, "tmp").is_empty());
    }

    #[test]
    fn wrong_downloads_start_over() {
        let (_dir, store) = testing::store();
        let digest = Digest::of("right");
        for round in 0..2 {
            let mut writer = store.partial(&digest).unwrap();
            assert_eq!(writer.written(), 0, "round {round}");
            writer.write_all(b"wrong").unwrap();
            assert!(writer.commit(&digest, None).is_err());
        }
        let mut writer = store.partial(&digest).unwrap();
        writer.write_all(b"wrong").unwrap();
        writer.restart().unwrap();
        writer.write_all(b"right").unwrap();
        writer.commit(&digest, Some(5)).unwrap();
        assert_eq!(store.read_blob(&digest, 5).unwrap(), b"right");
    }

    #[test]
    fn damage_is_found_and_can_be_mended() {
        let (_dir, store) = testing::store();
        let digest = store.put_blob(b"content").unwrap();
        for damage in ["", "contenT", "content and more"] {
            std::fs::write(store.layout().blob(&digest), damage).unwrap();
            let error = store.read_blob(&digest, 100).unwrap_err();
            assert!(error.kind() == Kind::Corrupt && error.place().is_some(), "{error:?}");
        }
        store.discard_blob(&digest).unwrap();
        store.put_blob(b"content").unwrap();
        assert_eq!(store.read_blob(&digest, 100).unwrap(), b"content");
    }
}
