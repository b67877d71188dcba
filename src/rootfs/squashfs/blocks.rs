//! Blocks compressed on all cores and written in the order they came in. What is written does not depend on how many cores there are.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::codec::{Coding, Encoder};
use super::format::BLOCK_RAW;
use crate::error::{Error, Result, from_io};

/// Where the image is written.
pub(super) struct Output<'a> {
    out: BufWriter<&'a File>,
    /// Bytes so far.
    pub at: u64,
}

impl<'a> Output<'a> {
    pub fn new(file: &'a File) -> Self {
        Self { out: BufWriter::with_capacity(1 << 20, file), at: 0 }
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes).map_err(trouble)
    }

    pub fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(trouble)
    }
}

pub(super) fn trouble(e: io::Error) -> Error {
    from_io(|| "can't write the image".into(), e)
}

/// A block to be compressed.
struct Job {
    block: Vec<u8>,
    done: SyncSender<io::Result<Done>>,
}

/// What came of it.
struct Done {
    packed: Option<Vec<u8>>,
    block: Vec<u8>,
}

/// Where a block went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub start: u64,
    /// With [`BLOCK_RAW`].
    pub size: u32,
}

/// The workers, and the blocks that are with them. `T` says what a block is for.
pub(super) struct Blocks<'a, 'b, T> {
    pub output: &'b mut Output<'a>,
    jobs: SyncSender<Job>,
    waiting: VecDeque<(T, Receiver<io::Result<Done>>)>,
    limit: usize,
    spare: Vec<Vec<u8>>,
    block: usize,
}

/// Compresses the blocks that `produce` submits.
pub(super) fn with_workers<'a, T, R>(
    output: &mut Output<'a>,
    (coding, block): (Coding, usize),
    produce: impl FnOnce(Blocks<'a, '_, T>) -> Result<R>,
) -> Result<R> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let encoders = (0..threads).map(|_| Encoder::new(coding, block)).collect::<Result<Vec<_>>>()?;
    // Enough that nobody runs dry while a slow block holds up the others.
    let limit = 4 * threads + 4;
    let (jobs, queue) = sync_channel(limit);
    let queue = Mutex::new(queue);
    std::thread::scope(|scope| {
        let queue = &queue;
        encoders.into_iter().for_each(|encoder| drop(scope.spawn(move || work(queue, encoder))));
        // Dropped at its end, which ends the workers.
        produce(Blocks { output, jobs, waiting: VecDeque::new(), limit, spare: Vec::new(), block })
    })
}

fn work(queue: &Mutex<Receiver<Job>>, mut encoder: Encoder) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { block, done }) = job else { return };
        let packed = encoder.encode(&block).map(|packed| packed.map(<[u8]>::to_vec));
        // Nobody waits for it when something else failed.
        let _ = done.send(packed.map(|packed| Done { packed, block }));
    }
}

impl<T> Blocks<'_, '_, T> {
    /// An empty buffer with room for a block.
    pub fn buffer(&mut self) -> Vec<u8> {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.reserve_exact(self.block);
        buffer
    }

    /// Gives back a buffer that was not submitted.
    pub fn put_back(&mut self, buffer: Vec<u8>) {
        self.spare.push(buffer);
    }

    /// Takes a block; `placed` is told where blocks went that were submitted before.
    pub fn submit(&mut self, what: T, block: Vec<u8>, placed: &mut impl FnMut(T, Placed)) -> Result<()> {
        while self.waiting.len() >= self.limit {
            self.collect(placed)?;
        }
        let (done, result) = sync_channel(1);
        self.jobs.send(Job { block, done }).map_err(|_| gone())?;
        self.waiting.push_back((what, result));
        Ok(())
    }

    /// Waits for all blocks.
    pub fn finish(mut self, placed: &mut impl FnMut(T, Placed)) -> Result<()> {
        while !self.waiting.is_empty() {
            self.collect(placed)?;
        }
        Ok(())
    }

    fn collect(&mut self, placed: &mut impl FnMut(T, Placed)) -> Result<()> {
        let Some((what, result)) = self.waiting.pop_front() else { return Ok(()) };
        let done = result.recv().map_err(|_| gone())?.map_err(|e| Error::os("can't compress the image", e))?;
        let start = self.output.at;
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or_default();
        let size = match &done.packed {
            Some(packed) => {
                self.output.write(packed)?;
                length(packed)
            }
            None => {
                self.output.write(&done.block)?;
                length(&done.block) | BLOCK_RAW
            }
        };
        self.spare.push(done.block);
        placed(what, Placed { start, size });
        Ok(())
    }
}

fn gone() -> Error {
    Error::new("a compression thread ended")
}
