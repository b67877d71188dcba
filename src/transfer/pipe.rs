//! A pipe between two threads: bounded, in large pieces, and with errors that reach the other side.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Large enough that handing over costs nothing, small enough that eight layers on their way stay within some 30 MB.
const PIECE: usize = 256 << 10;
/// Pieces on their way.
const DEPTH: usize = 6;

/// What is written to the one comes out of the other.
pub(super) fn pipe() -> (PipeWriter, PipeReader) {
    let (sender, receiver) = sync_channel(DEPTH);
    (
        PipeWriter { sender, piece: Vec::with_capacity(PIECE) },
        PipeReader { receiver, piece: Vec::new(), taken: 0, ended: false, abandoned: false },
    )
}

/// The end to write to. Dropped without [`PipeWriter::finish`], the reader gets an error instead of an end.
pub(super) struct PipeWriter {
    sender: SyncSender<Piece>,
    piece: Vec<u8>,
}

/// The end to read from. Once it is dropped, writing fails with `BrokenPipe`.
pub(super) struct PipeReader {
    receiver: Receiver<Piece>,
    piece: Vec<u8>,
    taken: usize,
    ended: bool,
    abandoned: bool,
}

enum Piece {
    Bytes(Vec<u8>),
    End,
}

impl PipeWriter {
    /// Says that this was all.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.send()?;
        self.sender.send(Piece::End).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn send(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.sender.send(Piece::Bytes(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..count]);
        if self.piece.len() == PIECE {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

impl PipeReader {
    /// Whether the writer was dropped before its end: then it knows why, and not who reads.
    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned
    }
}

impl Read for PipeReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.piece.len() && !self.ended {
            self.taken = 0;
            match self.receiver.recv() {
                Ok(Piece::Bytes(piece)) => self.piece = piece,
                Ok(Piece::End) => {
                    self.ended = true;
                    self.piece = Vec::new();
                }
                Err(_) => {
                    self.abandoned = true;
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the sending thread gave up"));
                }
            }
        }
        let ready = &self.piece[self.taken..];
        let count = ready.len().min(out.len());
        out[..count].copy_from_slice(&ready[..count]);
        self.taken += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_everything_in_order() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, PIECE * 20 + 7] {
            let sent: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let (mut writer, mut reader) = pipe();
            let mut received = Vec::new();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    writer.write_all(&sent).unwrap();
                    writer.finish().unwrap();
                });
                reader.read_to_end(&mut received).unwrap();
            });
            assert!(received == sent, "{length}");
        }
    }

    #[test]
    fn either_side_learns_of_the_others_end() {
        let (mut writer, mut reader) = pipe();
        writer.write_all(b"half").unwrap();
        drop(writer);
        assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);

        let (mut writer, reader) = pipe();
        drop(reader);
        assert_eq!(writer.write_all(&vec![0; PIECE]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
