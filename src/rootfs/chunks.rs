//! A bounded pipe of large buffers between two threads, so that decompressing or hashing and the file system work at the same time.

use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// Large enough that waking the other thread costs nothing against filling it; small enough to stay in the cache.
pub(super) const CHUNK: usize = 256 << 10;
const IN_FLIGHT: usize = 4;

/// Makes a pipe.
pub(super) fn pipe() -> (ChunkWriter, ChunkReader) {
    let (full, incoming) = sync_channel(IN_FLIGHT);
    let (empty, used) = channel();
    (ChunkWriter { full, used, current: Vec::new() }, ChunkReader { incoming, empty, current: Vec::new(), at: 0, ended: false })
}

/// The end that is written; what is not flushed when it is dropped is lost.
pub(super) struct ChunkWriter {
    full: SyncSender<io::Result<Vec<u8>>>,
    used: Receiver<Vec<u8>>,
    current: Vec<u8>,
}

impl ChunkWriter {
    /// Copies a reader to its end; its error becomes the other side's error. Returns at once when the other side is gone.
    pub fn pump(self, mut source: impl Read) {
        loop {
            let mut chunk = self.used.try_recv().unwrap_or_default();
            chunk.resize(CHUNK, 0);
            let (filled, end) = fill(&mut source, &mut chunk);
            chunk.truncate(filled);
            if filled > 0 && self.full.send(Ok(chunk)).is_err() {
                return;
            }
            match end {
                Ok(false) => {}
                Ok(true) => return,
                Err(e) => return drop(self.full.send(Err(e))),
            }
        }
    }

    /// A buffer with room for at least one byte, to be filled from its end; sent by [`Self::write_all`] or [`Self::flush`] once full.
    pub fn room(&mut self) -> io::Result<&mut Vec<u8>> {
        if self.current.len() >= CHUNK {
            self.flush()?;
        }
        if self.current.capacity() < CHUNK {
            self.current = self.used.try_recv().unwrap_or_default();
            self.current.clear();
            self.current.reserve_exact(CHUNK);
        }
        Ok(&mut self.current)
    }

    /// Sends a whole buffer after what was written so far; gives back an empty one if there is one.
    pub fn send(&mut self, buffer: Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        self.flush()?;
        self.full.send(Ok(buffer)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(self.used.try_recv().ok())
    }

    /// How many bytes [`Self::room`] takes before it is full.
    pub fn left(&self) -> usize {
        match CHUNK.saturating_sub(self.current.len()) {
            0 => CHUNK,
            left => left,
        }
    }
}

/// Fills a buffer; tells how far and whether the source ended.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> (usize, io::Result<bool>) {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => return (filled, Ok(true)),
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return (filled, Err(e)),
        }
    }
    (filled, Ok(false))
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.left().min(bytes.len());
        self.room()?.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.current.is_empty() {
            return Ok(());
        }
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.full.send(Ok(std::mem::take(&mut self.current))).map_err(gone)
    }
}

/// The end that is read.
pub(super) struct ChunkReader {
    incoming: Receiver<io::Result<Vec<u8>>>,
    empty: Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    ended: bool,
}

impl ChunkReader {
    /// Writes everything to the end.
    pub fn copy_to(&mut self, out: &mut impl Write) -> io::Result<()> {
        loop {
            let n = match self.fill_buf()? {
                [] => return Ok(()),
                chunk => {
                    out.write_all(chunk)?;
                    chunk.len()
                }
            };
            self.consume(n);
        }
    }
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.current.len() && !self.ended {
            match self.incoming.recv() {
                Ok(Ok(next)) => {
                    // The other side may have ended already; then nobody needs the buffer.
                    let _ = self.empty.send(std::mem::replace(&mut self.current, next));
                    self.at = 0;
                }
                Ok(Err(e)) => return Err(e),
                Err(_) => self.ended = true,
            }
        }
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at = (self.at + n).min(self.current.len());
    }
}

impl Read for ChunkReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let n = available.len().min(out.len());
        out[..n].copy_from_slice(&available[..n]);
        self.consume(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_bytes_and_errors() {
        let data: Vec<u8> = (0..3_000_000u32).map(|i| (i / 7) as u8).collect();
        let (writer, mut reader) = pipe();
        let failing = data.chain_error();
        std::thread::scope(|scope| {
            scope.spawn(move || writer.pump(failing));
            let mut got = Vec::new();
            let error = reader.read_to_end(&mut got).unwrap_err();
            assert_eq!(error.to_string(), "broken");
            assert_eq!(got.len(), 3_000_000);
        });
    }

    #[test]
    fn written_bytes_arrive_in_order_and_a_lost_reader_is_noticed() {
        let (mut writer, mut reader) = pipe();
        let sent: Vec<u8> = (0..1_000_003u32).map(|i| (i % 251) as u8).collect();
        std::thread::scope(|scope| {
            let sent = &sent;
            scope.spawn(move || {
                sent.chunks(977).for_each(|part| writer.write_all(part).unwrap());
                writer.flush().unwrap();
            });
            let mut got = Vec::new();
            reader.read_to_end(&mut got).unwrap();
            assert!(got == *sent);
        });
        let (mut writer, reader) = pipe();
        drop(reader);
        assert!(writer.write_all(&vec![0; 2 * CHUNK]).is_err());
    }

    trait ChainError {
        fn chain_error(self) -> impl Read + Send;
    }

    impl ChainError for Vec<u8> {
        fn chain_error(self) -> impl Read + Send {
            struct Broken;
            impl Read for Broken {
                fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                    Err(io::Error::other("broken"))
                }
            }
            io::Cursor::new(self).chain(Broken)
        }
    }
}
