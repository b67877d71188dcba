//! The bytes of one answer, and when waiting for more of them makes no sense.

use std::time::{Duration, Instant};

use reqwest::Response;

use super::fault;

/// A server must send this much in each stall time, some 700 bytes a second; a trickle is a stall.
const TRICKLE: u64 = 32 << 10;
/// A connection that brought this much was worth its while: failures before it are forgiven.
pub(super) const PROGRESS: u64 = 32 << 10;

/// A body being received.
pub(super) struct Body {
    response: Response,
    /// Bytes since `waited` was last zero, and time spent waiting for them.
    received: u64,
    waited: Duration,
}

impl Body {
    pub(super) fn new(response: Response) -> Self {
        Self { response, received: 0, waited: Duration::ZERO }
    }

    /// The next piece, `None` at the end; an error is the reason why the connection is of no more use.
    pub(super) async fn next(&mut self, stall: Duration) -> Result<Option<impl AsRef<[u8]> + use<>>, String> {
        let left = stall.saturating_sub(self.waited);
        let started = Instant::now();
        let outcome = tokio::time::timeout(left, self.response.chunk()).await;
        self.waited += started.elapsed();
        let chunk = match outcome {
            Err(_) => return Err(format!("nothing came for {} s", stall.as_secs_f32().ceil())),
            Ok(Err(e)) => return Err(fault::innermost(&e)),
            Ok(Ok(chunk)) => chunk,
        };
        self.received += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        if self.received >= TRICKLE {
            (self.received, self.waited) = (0, Duration::ZERO);
        }
        Ok(chunk)
    }
}
