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

/// How much a layer may inflate to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Most {
    /// As much as it likes: the user's own file.
    Anything,
    /// A layer of so many bytes that comes from somewhere: a few bytes must not fill a disk that others use too.
    Of(u64),
}

/// What any layer may inflate to, in bytes.
const ALWAYS: u64 = 4 << 30;
/// How many times its size a layer may inflate to beyond that. Real ones stay below 20; zeros give some 1000 with gzip, 30,000 with zstd.
const TIMES: u64 = 300;

impl Most {
    fn check(self, inflated: u64) -> Result<()> {
        let Self::Of(compressed) = self else { return Ok(()) };
        if inflated <= ALWAYS.max(compressed.saturating_mul(TIMES)) {
            return Ok(());
        }
        // Not `Corrupt`: it would be fetched once more.
        Err(Error::with_kind(Kind::Unsupported, "the layer inflates beyond all measure")
            .cause(format!("its {compressed} bytes become more than {}", ALWAYS.max(compressed.saturating_mul(TIMES))))
            .hint(format!(
                "a layer may inflate to {} GiB, or to {TIMES} times its size; `rootling import` takes a tarball of any size",
                ALWAYS >> 30
            )))
    }
}

/// Runs `produce`, which writes the compressed layer, and takes apart what it writes at the same time: into the directory `layer`,
/// or, without one, only to find its diff ID.
///
/// When the layer can't be unpacked, what `produce` pushes goes into the void: whether the bytes had their digest decides who is to
/// blame, so its own error comes first.
pub(super) fn take_apart(layer: Option<&Path>, produce: impl FnOnce(&mut Feed) -> Result<()> + Send) -> Result<Unpacked> {
    take_apart_at_most(Most::Anything, layer, produce)
}

/// [`take_apart`], unless it gets too much.
pub(super) fn take_apart_at_most(
    most: Most,
    layer: Option<&Path>,
    produce: impl FnOnce(&mut Feed) -> Result<()> + Send,
) -> Result<Unpacked> {
    let (compressed_in, compressed_out) = pipe();
    let (tar_in, tar_out) = pipe();
    std::thread::scope(|scope| {
        let inflating = scope.spawn(move || inflate(compressed_out, layer.map(|_| tar_in), most));
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
fn inflate(compressed: PipeReader, mut tar: Option<PipeWriter>, most: Most) -> Result<Unpacked> {
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
        most.check(size)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_that_inflate_beyond_measure() {
        for (most, inflated, allowed) in [
            (Most::Of(1 << 20), 4 << 30, true),
            (Most::Of(1 << 20), (4 << 30) + 1, false),
            (Most::Of(1 << 30), 300 << 30, true),
            (Most::Of(1 << 30), (300 << 30) + 1, false),
            (Most::Anything, 1 << 50, true),
        ] {
            assert_eq!(most.check(inflated).is_ok(), allowed, "{most:?} {inflated}");
        }
    }
}
