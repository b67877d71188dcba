//! A writer that digests what passes through it.

use std::io::{self, Write};

use crate::oci::{Digest, Hasher};

/// Hands bytes on and digests them.
pub(super) struct Digested<W> {
    out: W,
    hasher: Hasher,
}

impl<W> Digested<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, hasher: Hasher::new() }
    }

    /// The writer, and the digest of what it got.
    pub(super) fn finish(self) -> (W, Digest) {
        (self.out, self.hasher.finish())
    }
}

impl<W: Write> Write for Digested<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
