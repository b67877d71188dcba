//! What happened, as plain data. How it looks is decided by `cli::render`; nothing below `cli` prints.

use std::time::Duration;

/// Receives events; called from any thread, must be quick and never fail.
pub trait Sink: Send + Sync {
    /// Takes one event.
    fn event(&self, event: Event<'_>);
}

/// A sink for callers that don't want to hear.
pub struct Silent;

impl Sink for Silent {
    fn event(&self, _: Event<'_>) {}
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// Something the user should know although the work goes on; said once per cause.
    Warning(&'a str),
    /// A milestone in one line.
    Note(&'a str),
    /// A build step begins. `id` is unique in the process.
    StepStarted { id: u64, stage: &'a str, number: usize, total: usize, text: &'a str },
    /// Nothing remembered answers for the step: it is executed now.
    StepExecuting { id: u64 },
    /// Bytes the step's command wrote.
    StepOutput { id: u64, stream: Stream, bytes: &'a [u8] },
    /// The step ended; `layer` is the size in bytes of the layer it made or found, if there is one.
    StepFinished { id: u64, outcome: Outcome, elapsed: Duration, layer: Option<u64> },
    /// A transfer (download, upload, compression) begins; `total` in bytes where known. `id` is unique in the process.
    TransferStarted { id: u64, what: &'a str, total: Option<u64> },
    /// Bytes done so far, absolute.
    TransferAdvanced { id: u64, done: u64 },
    /// The transfer ended; `note` such as "already here".
    TransferFinished { id: u64, note: &'a str },
}

/// Which of the two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered from the step cache.
    Cached,
    /// Executed.
    Done,
    /// Failed; the error follows from the caller.
    Failed,
    /// Ended because something else failed.
    Stopped,
    /// Executed, while what it read was changed by others.
    Unsettled,
    /// Not executed, since this is a dry run; nothing answers for it.
    Planned,
}

/// A number no other step or transfer of this process has.
pub fn next_id() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
