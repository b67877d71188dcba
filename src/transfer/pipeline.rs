//! The way of one layer: compressed bytes in, files and diff ID out. Each stage has its own thread and nothing is read twice.

use std::io::{self, Read, Write};
use std::path::Path;

use super::pipe::{PipeReader, PipeWriter, pipe};
use crate::error::{Error, Kind, Result, from_io};
use crate::oci::{DiffId, Digest, Hasher};
use crate::rootfs::compress::decompress;
use crate::rootfs::unpack::{UnpackOptions, unpack};

/// Pieces in which bytes are handed on.
const PIECE: usize = 256 << 10;

/// What a layer turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unpacked {
    /// Digest of the tar.
    pub(super) diff_id: DiffId,
    /// Size of the tar.
    pub(super) size: u64,
}

/// Runs `produce`, which writes the compressed layer, and takes apart what it writes at the same time: into the directory `layer`,
/// or, without one, only to find its diff ID.
///
/// When the layer can't be unpacked, what `produce` pushes goes into the void: whether the bytes had their digest decides who is to
/// blame, so its own error comes first.
pub(super) fn take_apart(layer: Option<&Path>, produce: impl FnOnce(&mut Feed) -> Result<()> + Send) -> Result<Unpacked> {
    let (compressed_in, compressed_out) = pipe();
    let (tar_in, tar_out) = pipe();
    std::thread::scope(|scope| {
        let inflating = scope.spawn(move || inflate(compressed_out, layer.map(|_| tar_in)));
        let unpacking = layer.map(|layer| scope.spawn(move || unpack_all(tar_out, layer)));
        let mut feed = Feed { pipe: Some(compressed_in), refused: false };
        let produced = produce(&mut feed);
        // Only a complete blob has an end.
        if let (Ok(()), Some(pipe)) = (&produced, feed.pipe.take()) {
            let _ = pipe.finish();
        }
        let refused = feed.refused;
        drop(feed);
        let inflated = inflating.join().unwrap_or_else(|_| Err(Error::new("decompressing panicked")));
        let unpacked =
            unpacking.map_or(Ok(()), |thread| thread.join().unwrap_or_else(|_| Err((Fault::Own, Error::new("unpacking panicked")))));
        // A stage that fails breaks the pipes on both sides of it: who did not find its pipe broken knows why.
        let taken = match (unpacked, inflated) {
            (Err((Fault::Source, _)), Err(error)) | (Err((_, error)), _) => Err(error),
            (Ok(()), inflated) => inflated,
        };
        match produced {
            Err(_) if refused && taken.is_err() => taken,
            Err(error) => Err(error),
            Ok(()) => taken,
        }
    })
}

/// Where the compressed layer is written.
pub(super) struct Feed {
    /// `None` once nobody reads any more.
    pipe: Option<PipeWriter>,
    /// A writer was told so.
    refused: bool,
}

/// Unlike [`Feed::push`] it fails when nobody reads any more: for sources that have no digest to be checked.
impl Write for Feed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        self.refused = self.pipe.is_none();
        if self.refused { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Feed {
    /// For bytes that nobody takes apart.
    pub(super) fn nowhere() -> Self {
        Self { pipe: None, refused: false }
    }

    /// Hands on some bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.pipe.as_mut().is_some_and(|pipe| pipe.write_all(bytes).is_err()) {
            self.pipe = None;
        }
    }

    /// Pushes everything a reader has; `seen` gets each piece first.
    pub(super) fn copy(&mut self, mut from: impl Read, mut seen: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            let count = match from.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(from_io(|| "can't read the layer".into(), e)),
            };
            seen(&piece[..count])?;
            self.push(&piece[..count]);
        }
    }
}

/// Decompresses by content and digests the tar.
fn inflate(compressed: PipeReader, mut tar: Option<PipeWriter>) -> Result<Unpacked> {
    let failed = || "can't decompress the layer".to_owned();
    let mut source = decompress(compressed)?;
    let (mut hasher, mut size) = (Hasher::new(), 0);
    let mut piece = vec![0; PIECE];
    loop {
        let count = match source.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(corrupt(from_io(failed, e))),
        };
        hasher.update(&piece[..count]);
        size += count as u64;
        if let Some(tar) = &mut tar {
            tar.write_all(&piece[..count]).map_err(|e| from_io(failed, e))?;
        }
    }
    if let Some(tar) = tar {
        tar.finish().map_err(|e| from_io(failed, e))?;
    }
    Ok(Unpacked { diff_id: DiffId(hasher.finish()), size })
}

/// Why unpacking failed.
enum Fault {
    /// What was read, or where it was written.
    Own,
    /// The source gave up.
    Source,
}

fn unpack_all(mut tar: PipeReader, layer: &Path) -> Result<(), (Fault, Error)> {
    let outcome = unpack(&mut tar, layer, &UnpackOptions::default());
    // Padding after the archive's end belongs to the diff ID.
    let drained = io::copy(&mut tar, &mut io::sink()).map_err(|e| from_io(|| "can't read the layer".into(), e));
    outcome.map(drop).and(drained.map(drop)).map_err(|error| (if tar.is_abandoned() { Fault::Source } else { Fault::Own }, error))
}

/// Bytes a decompressor refuses are not what they should be, whatever it calls that.
fn corrupt(error: Error) -> Error {
    match error.kind() {
        Kind::Other => Error::with_kind(Kind::Corrupt, "can't decompress the layer").cause(error),
        _ => error,
    }
}

/// For a layer that is a plain tar: the digest it is expected under.
pub(super) fn expect(unpacked: Unpacked, expected: &Digest) -> Result<()> {
    if unpacked.diff_id.0 == *expected {
        return Ok(());
    }
    Err(Error::with_kind(Kind::Corrupt, "the layer's content is not what the image's config says")
        .cause(format!("its diff ID is {}, the config says {expected}", unpacked.diff_id)))
}
