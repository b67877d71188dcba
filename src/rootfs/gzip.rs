//! gzip on several threads, one member, the same bytes whatever the number of threads (the scheme of pigz).
//!
//! Each block is deflated by itself with the 32 KiB before it as dictionary and ended by a sync flush, so that the parts join to one stream.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

const BLOCK: usize = 1 << 20;
const WINDOW: usize = 32 << 10;

/// Magic, deflate, no flags, no time, no extra flags, an unknown system: nothing that could differ.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// An empty final block with fixed codes.
const END: [u8; 2] = [3, 0];

struct Job {
    dictionary: Vec<u8>,
    block: Vec<u8>,
    done: SyncSender<io::Result<Part>>,
}

struct Part {
    deflated: Vec<u8>,
    crc: Crc,
}

/// A gzip stream being written.
pub(super) struct ParallelGzip<W> {
    out: W,
    block: Vec<u8>,
    dictionary: Vec<u8>,
    crc: Crc,
    pending: VecDeque<Receiver<io::Result<Part>>>,
    jobs: Option<SyncSender<Job>>,
    workers: Vec<JoinHandle<()>>,
    queue: Arc<Mutex<Receiver<Job>>>,
    threads: usize,
    level: Compression,
    started: bool,
}

impl<W: Write> ParallelGzip<W> {
    pub fn new(out: W, level: u32, threads: usize) -> Self {
        let (jobs, queue) = sync_channel(2 * threads);
        Self {
            out,
            block: Vec::with_capacity(BLOCK),
            dictionary: Vec::new(),
            crc: Crc::new(),
            pending: VecDeque::new(),
            jobs: Some(jobs),
            workers: Vec::new(),
            queue: Arc::new(Mutex::new(queue)),
            threads,
            level: Compression::new(level),
            started: false,
        }
    }

    pub fn finish(mut self) -> io::Result<W> {
        if !self.block.is_empty() {
            self.submit()?;
        }
        while !self.pending.is_empty() {
            self.collect()?;
        }
        self.start()?;
        self.out.write_all(&END)?;
        self.out.write_all(&self.crc.sum().to_le_bytes())?;
        self.out.write_all(&self.crc.amount().to_le_bytes())?;
        self.jobs = None;
        for worker in self.workers.drain(..) {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        Ok(self.out)
    }

    fn submit(&mut self) -> io::Result<()> {
        if self.pending.len() >= 2 * self.threads {
            self.collect()?;
        }
        // Small streams need few threads.
        if self.workers.len() < self.threads && self.workers.len() <= self.pending.len() {
            let (queue, level) = (self.queue.clone(), self.level);
            self.workers.push(thread::Builder::new().name("gzip".into()).spawn(move || work(&queue, level))?);
        }
        let tail = self.block[self.block.len().saturating_sub(WINDOW)..].to_vec();
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        let (done, part) = sync_channel(1);
        let job = Job { dictionary: std::mem::replace(&mut self.dictionary, tail), block, done };
        let gone = || io::Error::other("a compression thread ended");
        self.jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
        self.pending.push_back(part);
        Ok(())
    }

    fn collect(&mut self) -> io::Result<()> {
        let Some(part) = self.pending.pop_front() else { return Ok(()) };
        let part = part.recv().map_err(|_| io::Error::other("a compression thread ended"))??;
        self.crc.combine(&part.crc);
        self.start()?;
        self.out.write_all(&part.deflated)
    }

    fn start(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.started, true) {
            self.out.write_all(&HEADER)?;
        }
        Ok(())
    }
}

impl<W: Write> Write for ParallelGzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..n]);
        if self.block.len() == BLOCK {
            self.submit()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn work(queue: &Mutex<Receiver<Job>>, level: Compression) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // Nobody waits for it when the stream was dropped.
        let _ = job.done.send(deflate(level, &job));
    }
}

fn deflate(level: Compression, job: &Job) -> io::Result<Part> {
    // A new one for each block: after `reset`, zlib-rs still knows at level 1 what it deflated before, and the bytes would differ.
    let mut compress = Compress::new(level, false);
    if !job.dictionary.is_empty() {
        compress.set_dictionary(&job.dictionary).map_err(io::Error::other)?;
    }
    let mut crc = Crc::new();
    crc.update(&job.block);
    let mut deflated = Vec::with_capacity(job.block.len() / 2 + 1024);
    loop {
        let used = usize::try_from(compress.total_in()).unwrap_or(usize::MAX);
        let full_before = deflated.capacity();
        let status = compress.compress_vec(&job.block[used..], &mut deflated, FlushCompress::Sync).map_err(io::Error::other)?;
        let all_in = compress.total_in() == job.block.len() as u64;
        // Room left over means that the flush is complete.
        if all_in && deflated.len() < deflated.capacity() {
            return Ok(Part { deflated, crc });
        }
        if status == Status::StreamEnd {
            return Err(io::Error::other("deflate ended by itself"));
        }
        deflated.reserve(full_before / 2);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn bytes_do_not_depend_on_the_number_of_threads() {
        let data: Vec<u8> = (0..5_300_000u32).flat_map(|i| (i.wrapping_mul(i) >> 7).to_le_bytes()).collect();
        let run = |threads| {
            let mut gzip = ParallelGzip::new(Vec::new(), 6, threads);
            gzip.write_all(&data).unwrap();
            gzip.finish().unwrap()
        };
        let one = run(1);
        assert!(one == run(4));
        let mut out = Vec::new();
        flate2::read::GzDecoder::new(&one[..]).read_to_end(&mut out).unwrap();
        assert!(out == data);
    }

    /// What a thread deflated before must leave no trace, at any level.
    #[test]
    fn bytes_do_not_depend_on_who_did_what() {
        let words = ["usr/share", "lib", "x86_64-linux-gnu", "\0\0\0\0\0\0\0\0", "0000644", "ELF", "return", "the", "\u{7f}\u{1}"];
        let mut state = 7u64;
        let mut data = Vec::new();
        while data.len() < 7 * BLOCK / 2 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            data.extend_from_slice(words[(state >> 33) as usize % words.len()].as_bytes());
            data.extend_from_slice(&(state >> 50).to_le_bytes()[..(state >> 60) as usize % 5]);
        }
        for level in [1, 2, 6, 9] {
            let run = |threads| {
                let mut gzip = ParallelGzip::new(Vec::new(), level, threads);
                gzip.write_all(&data).unwrap();
                gzip.finish().unwrap()
            };
            let one = run(1);
            for threads in [2, 5] {
                assert!(one == run(threads), "level {level}, {threads} threads");
            }
            let mut out = Vec::new();
            flate2::read::GzDecoder::new(&one[..]).read_to_end(&mut out).unwrap();
            assert!(out == data, "level {level}");
        }
    }

    #[test]
    fn incompressible_data_fits() {
        let mut state = 1u64;
        let data: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(3 * BLOCK)
        .collect();
        let mut gzip = ParallelGzip::new(Vec::new(), 1, 2);
        gzip.write_all(&data).unwrap();
        let mut out = Vec::new();
        flate2::read::GzDecoder::new(&gzip.finish().unwrap()[..]).read_to_end(&mut out).unwrap();
        assert!(out == data);
    }
}
