//! The bytes of one blob on their way: in one piece, in chunks, or with the request that concludes.
//!
//! One PATCH with everything is what docker sends and what every registry understands; unlike a single PUT it can be gone on with.
//! Chunks cost a round trip each and are for registries, or proxies before them, that refuse so much at once: they are taken up, and made
//! smaller, when one does. A registry that knows no PATCH gets POST and PUT.
//!
//! Source: OCI distribution-spec 1.1, "Pushing a blob in chunks", "POST then PUT".

use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, Response, StatusCode};

use super::client::header_digest;
use super::fault::{Fault, Retry};
use super::payload::Payload;
use super::transport::Target;
use super::upload::Sender;
use crate::error::{Error, Kind, Result};

/// An attempt that brought this much was worth its while: failures before it are forgiven.
const PROGRESS: u64 = 32 << 10;
/// Chunks to try in turn; the second is what nginx takes if nobody told it otherwise (`client_max_body_size`).
const CHUNKS: [u64; 3] = [16 << 20, 1 << 20, 256 << 10];
/// Attempts in a row that brought nothing before less is tried at once: some proxies just hang up on what they find too long.
const FRUITLESS: u32 = 2;

/// How bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// One PATCH with everything.
    Whole,
    /// So many bytes at once.
    Chunks(u64),
    /// With the PUT that concludes.
    Single,
}

/// What earlier attempts taught.
#[derive(Debug)]
pub(super) struct Experience {
    pub(super) manner: Manner,
    /// Attempts in a row without progress.
    pub(super) failures: u32,
    fruitless: u32,
    /// The registry said that it had everything, and had not.
    lost: bool,
    /// A conclusion was not answered.
    silent: bool,
}

/// A place to send to.
pub(super) struct Place {
    pub(super) location: String,
    /// The registry takes no smaller chunks, but for the last.
    pub(super) least: u64,
}

/// Why an upload did not go on.
pub(super) enum Stop {
    /// It may work from the start, after a wait or at once.
    Again(Fault),
    AtOnce,
    Final(Error),
}

impl Experience {
    pub(super) fn new(chunk: Option<u64>) -> Self {
        let manner = chunk.map_or(Manner::Whole, |size| Manner::Chunks(size.max(1)));
        Self { manner, failures: 0, fruitless: 0, lost: false, silent: false }
    }

    /// Whether there is another manner for a server that refused so many bytes.
    fn less_than(&mut self, refused: u64, least: u64) -> bool {
        let smaller = CHUNKS.into_iter().find(|size| *size < refused && *size >= least);
        if let Some(size) = smaller {
            (self.manner, self.fruitless) = (Manner::Chunks(size), 0);
        }
        smaller.is_some()
    }
}

impl Sender<'_> {
    /// Sends all bytes to a place, goes on where it broke off, and concludes.
    pub(super) fn send(&self, place: Place, experience: &mut Experience) -> Result<(), Stop> {
        let Place { mut location, least } = place;
        if experience.manner == Manner::Single {
            return self.conclude(&location, Manner::Single, experience);
        }
        let mut offset = 0;
        loop {
            let rest = self.blob.size - offset;
            let length = match experience.manner {
                Manner::Chunks(size) => size.max(least).min(rest),
                Manner::Whole | Manner::Single => rest,
            };
            let fault = match self.patch(&location, offset, length, experience.manner) {
                Ok(response) => {
                    let next = self.next(&response).map_err(Stop::Final)?;
                    match self.missing(&response, &next, offset + length) {
                        None => {
                            (offset, location) = (offset + length, next);
                            experience.progressed(length);
                        }
                        Some((has, next)) => {
                            let fault = Fault::passing(self.wrong("the registry has lost what it was sent"));
                            self.pause(experience, fault).map_err(Stop::Final)?;
                            (offset, location) = (has, next);
                        }
                    }
                    if offset == self.blob.size {
                        return self.conclude(&location, experience.manner, experience);
                    }
                    continue;
                }
                Err(fault) => fault,
            };
            (offset, location) = self.recover(fault, &location, (offset, length, least), experience)?;
        }
    }

    /// Where to go on after a PATCH failed, or how to begin again.
    fn recover(
        &self,
        fault: Fault,
        location: &str,
        (offset, length, least): (u64, u64, u64),
        experience: &mut Experience,
    ) -> Result<(u64, String), Stop> {
        match fault.status {
            Some(StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED) if offset == 0 => {
                experience.manner = Manner::Single;
                return Err(Stop::AtOnce);
            }
            Some(StatusCode::PAYLOAD_TOO_LARGE) => {
                if !experience.less_than(length, least) {
                    return Err(Stop::Final(fault.error));
                }
                return self.progress(location).filter(|(has, _)| *has <= self.blob.size).ok_or(Stop::AtOnce);
            }
            _ if !may_pass(&fault) => return Err(Stop::Final(fault.error)),
            _ => {}
        }
        experience.fruitless += 1;
        if experience.fruitless >= FRUITLESS && fault.status.is_none() {
            experience.less_than(length, least);
        }
        let Some((has, next)) = self.progress(location).filter(|(has, _)| (offset..=self.blob.size).contains(has)) else {
            return Err(Stop::Again(fault));
        };
        experience.progressed(has - offset);
        self.pause(experience, fault).map_err(Stop::Final)?;
        Ok((has, next))
    }

    fn patch(&self, place: &str, offset: u64, length: u64, manner: Manner) -> Result<Response, Fault> {
        let open = || -> Result<Box<dyn std::io::Read + Send>> { Ok(Box::new(std::io::Read::take((self.blob.open)(offset)?, length))) };
        let seen = |taken| (self.blob.seen)(offset + taken);
        let payload = Payload::Stream { length: Some(length), open: &open, seen: &seen };
        let mut call = self.call(Method::PATCH, Target::Location(place.to_owned()), payload);
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        // What is no chunk has none (docker's form, which some registries insist on).
        if length > 0 && (offset > 0 || manner != Manner::Whole) {
            let range = format!("{offset}-{}", offset + length - 1);
            call.headers.insert(CONTENT_RANGE, HeaderValue::from_str(&range).expect("digits are valid"));
        }
        self.client.block_on(self.client.transport().exchange_once(&call))
    }

    fn next(&self, response: &Response) -> Result<String> {
        location(response).ok_or_else(|| self.wrong("the registry does not say where to go on"))
    }

    /// Where to go on, if the registry has less than it was sent, by its answer and again when asked: some answer with a wrong range.
    fn missing(&self, response: &Response, next: &str, sent: u64) -> Option<(u64, String)> {
        range_of(response).filter(|has| *has < sent)?;
        self.progress(next).filter(|(has, _)| *has < sent)
    }

    /// Says that this was all, or sends all with it.
    fn conclude(&self, place: &str, manner: Manner, experience: &mut Experience) -> Result<(), Stop> {
        let separator = if place.contains('?') { '&' } else { '?' };
        let target = Target::Location(format!("{place}{separator}digest={}", self.blob.digest));
        let open = || (self.blob.open)(0);
        let payload = match manner {
            Manner::Single => Payload::Stream { length: Some(self.blob.size), open: &open, seen: self.blob.seen },
            Manner::Whole | Manner::Chunks(_) => Payload::Conclusion { read: self.blob.size },
        };
        let mut call = self.call(Method::PUT, target, payload);
        if manner == Manner::Single {
            call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        }
        let response = match self.client.block_on(self.client.transport().exchange_once(&call)) {
            Ok(response) => response,
            Err(fault) if may_pass(&fault) => {
                // Waiting that long a third time makes no sense.
                if fault.silent && std::mem::replace(&mut experience.silent, true) {
                    return Err(Stop::Final(fault.error));
                }
                return Err(Stop::Again(fault));
            }
            Err(fault) => return Err(Stop::Final(fault.error)),
        };
        if let Some(digest) = header_digest(&response).filter(|digest| *digest != self.blob.digest) {
            let error = Error::with_kind(Kind::Corrupt, &self.what);
            return Err(Stop::Final(error.cause(format!("the registry took it as {digest}"))));
        }
        self.prove(experience)
    }

    /// A success alone proves nothing: whether the registry has the blob now. Those who may write and not read can't ask.
    fn prove(&self, experience: &mut Experience) -> Result<(), Stop> {
        if self.is_there_now() != Some(false) {
            return Ok(());
        }
        let error = self.wrong("the registry said that it has it, and has not");
        match std::mem::replace(&mut experience.lost, true) {
            true => Err(Stop::Final(error.hint("tell the registry's operators"))),
            false => Err(Stop::Again(Fault::passing(error))),
        }
    }

    /// How many bytes the registry has, and where to go on; `None` if it does not say.
    fn progress(&self, place: &str) -> Option<(u64, String)> {
        let call = self.call(Method::GET, Target::Location(place.to_owned()), Payload::Empty);
        let response = self.client.block_on(self.client.transport().exchange_once(&call)).ok()?;
        let has = range_of(&response)?;
        Some((has, location(&response).unwrap_or_else(|| place.to_owned())))
    }

    /// Counts a failure and waits, or gives up.
    pub(super) fn pause(&self, experience: &mut Experience, fault: Fault) -> Result<()> {
        experience.failures += 1;
        let failures = experience.failures;
        if failures >= self.client.transport().settings().patience.attempts {
            return Err(fault.error.cause(format!("given up after {failures} attempts")));
        }
        let asked: Option<Duration> = if let Retry::After(asked) = fault.retry { asked } else { None };
        self.client.block_on(self.client.transport().wait(&self.endpoint.host, failures, asked));
        Ok(())
    }

    pub(super) fn wrong(&self, why: &str) -> Error {
        Error::with_kind(Kind::Network, &self.what).cause(why)
    }
}

impl Experience {
    fn progressed(&mut self, bytes: u64) {
        if bytes >= PROGRESS {
            (self.failures, self.fruitless) = (0, 0);
        }
    }
}

/// Whether an upload is worth going on with, or beginning again: the registry may have lost it.
fn may_pass(fault: &Fault) -> bool {
    fault.retry != Retry::Never || matches!(fault.error.kind(), Kind::NotFound | Kind::Corrupt)
}

pub(super) fn location(response: &Response) -> Option<String> {
    response.headers().get(LOCATION)?.to_str().ok().map(str::to_owned)
}

fn range_of(response: &Response) -> Option<u64> {
    received(response.headers().get(RANGE)?.to_str().ok()?)
}

/// Bytes received, from `0-LAST`; `0-0` is what registries say for none.
fn received(range: &str) -> Option<u64> {
    let (start, last) = range.trim_start_matches("bytes=").split_once('-')?;
    match (start.parse::<u64>().ok()?, last.parse::<u64>().ok()?) {
        (0, 0) => Some(0),
        (0, last) => last.checked_add(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ranges() {
        for (range, expected) in
            [("0-0", Some(0)), ("0-99", Some(100)), ("bytes=0-99", Some(100)), ("5-9", None), ("0-18446744073709551615", None), ("x", None)]
        {
            assert_eq!(received(range), expected, "{range}");
        }
    }

    #[test]
    fn tries_less_until_there_is_none() {
        for (refused, least, expected) in [
            (1 << 30, 0, Some(16 << 20)),
            (16 << 20, 0, Some(1 << 20)),
            (1 << 20, 0, Some(256 << 10)),
            (256 << 10, 0, None),
            (1 << 30, 32 << 20, None),
            (16 << 20, 5 << 20, None),
            (5000, 0, None),
        ] {
            let mut experience = Experience::new(None);
            let found = experience.less_than(refused, least).then_some(experience.manner);
            assert_eq!(found, expected.map(Manner::Chunks), "{refused} {least}");
        }
    }
}
