//! What a request carries, and waiting for the answer while it is being sent.

use std::io::Read;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::Stream;
use reqwest::header::CONTENT_LENGTH;
use reqwest::{Body, RequestBuilder, Response};

use super::settings::Patience;
use crate::error::{Error, Result, from_io};

/// Pieces in which a body is handed over.
const PIECE: usize = 256 << 10;
/// How often the sender is told how far it is.
const TOLD_EVERY: Duration = Duration::from_millis(200);
/// A server that has all of a blob may read it once more before it answers: bytes a second, of a slow disk.
const DIGESTING: u64 = 8 << 20;

/// Where the bytes of a stream come from; asked again for each attempt.
pub(super) type Open<'a> = &'a dyn Fn() -> Result<Box<dyn Read + Send>>;

/// What a request carries.
pub(super) enum Payload<'a> {
    /// Nothing.
    Empty,
    /// Nothing, but the answer takes as long as the server needs to read so many bytes.
    Conclusion { read: u64 },
    /// Bytes at hand.
    Bytes(&'a [u8]),
    /// A stream; `length` is announced if known. `seen` is told how much of it was taken and may end it.
    Stream { length: Option<u64>, open: Open<'a>, seen: &'a dyn Fn(u64) -> Result<()> },
}

/// What came of sending.
pub(super) enum Sent {
    /// An answer, or a broken connection.
    Answer(reqwest::Result<Response>),
    /// Neither went a byte out nor came an answer for so long.
    Silence(Duration),
    /// The stream's own fault.
    Ours(Error),
}

impl Payload<'_> {
    pub(super) async fn send(&self, request: RequestBuilder, patience: &Patience) -> Sent {
        let (length, open, seen) = match self {
            Self::Empty => return plain(request, patience.stall).await,
            Self::Conclusion { read } => return plain(request, patience.stall + Duration::from_secs(read / DIGESTING)).await,
            Self::Bytes(bytes) => return plain(request.body(bytes.to_vec()), patience.stall).await,
            Self::Stream { length, open, seen } => (length, open, seen),
        };
        let taken = Arc::new(AtomicU64::new(0));
        let reader = match open() {
            Ok(reader) => reader,
            Err(error) => return Sent::Ours(error),
        };
        let request = length.iter().fold(request, |request, length| request.header(CONTENT_LENGTH, *length));
        let sending = request.body(Body::wrap_stream(Pieces { reader, taken: taken.clone() })).send();
        let mut sending = pin!(sending);
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let answer = tokio::time::timeout(TOLD_EVERY.min(patience.stall), &mut sending).await;
            let now = taken.load(Ordering::Relaxed);
            if let Err(error) = seen(now) {
                return Sent::Ours(error);
            }
            if let Ok(answer) = answer {
                return Sent::Answer(answer);
            }
            if now != last {
                (last, since) = (now, Instant::now());
            } else if since.elapsed() >= patience.stall {
                return Sent::Silence(patience.stall);
            }
        }
    }
}

async fn plain(request: RequestBuilder, patience: Duration) -> Sent {
    match tokio::time::timeout(patience, request.send()).await {
        Ok(answer) => Sent::Answer(answer),
        Err(_) => Sent::Silence(patience),
    }
}

/// A reader as the stream reqwest wants.
struct Pieces {
    reader: Box<dyn Read + Send>,
    taken: Arc<AtomicU64>,
}

impl Stream for Pieces {
    type Item = Result<Vec<u8>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Reading a file, or what another thread packs, is not asynchronous: the runtime moves its other work away meanwhile.
        let read = tokio::task::block_in_place(|| {
            let mut piece = Vec::with_capacity(PIECE);
            self.reader.by_ref().take(PIECE as u64).read_to_end(&mut piece).map(|_| piece)
        });
        Poll::Ready(match read {
            Ok(piece) if piece.is_empty() => None,
            Ok(piece) => {
                self.taken.fetch_add(piece.len() as u64, Ordering::Relaxed);
                Some(Ok(piece))
            }
            Err(e) => Some(Err(from_io(|| "can't read what is to be sent".into(), e))),
        })
    }
}
