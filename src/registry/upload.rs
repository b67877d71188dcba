//! Sending: blobs and manifests into a repository.
//!
//! A blob is looked for first, then mounted from another repository of the registry, then sent as docker sends it, which every registry
//! understands: POST for a place, PATCH with all bytes, PUT with the digest. After a broken connection the registry is asked how much it
//! has; one that does not know, or has forgotten the upload, gets it from the start.
//!
//! Source: OCI distribution-spec 1.1, "Pushing Blobs", "Mounting a blob from another repository", "Pushing Manifests".

use std::io::Read;

use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, Response, StatusCode};

use super::client::{Client, header_digest, manifest_call};
use super::fault::{Fault, Retry};
use super::payload::Payload;
use super::redirect::Integrity;
use super::registries_conf::Endpoint;
use super::transport::{Access, Call, Target};
use crate::error::{Error, Kind, Result, quote};
use crate::oci::{Digest, Reference, media_type};

/// An attempt that brought this much was worth its while: failures before it are forgiven.
const PROGRESS: u64 = 32 << 10;

/// A blob to send.
pub struct Upload<'a> {
    /// What it is.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Opens it for reading from an offset on; asked again after a broken connection.
    pub open: &'a dyn Fn(u64) -> Result<Box<dyn Read + Send>>,
    /// Told how many bytes have gone; an error ends the upload.
    pub seen: &'a dyn Fn(u64) -> Result<()>,
    /// Repositories of the same registry that probably have it.
    pub from: &'a [String],
}

/// How a blob got there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It was there.
    There,
    /// From another repository, without sending it.
    Mounted,
    /// Sent.
    Sent,
}

/// What asking for a place to send to gave.
enum Place {
    Mounted,
    Location(String),
}

/// Why an upload did not go on.
enum Stop {
    /// It may work from the start.
    Again(Error),
    Final(Error),
}

impl Client {
    /// The digest a tag has at the registry itself, whatever mirrors say; `None` if there is no such image.
    pub fn pushed_digest(&self, reference: &Reference) -> Result<Option<Digest>> {
        let what = format!("can't look up {}", quote(reference.to_string()));
        let endpoint = self.home(reference)?;
        let mut call = manifest_call(&what, &endpoint, Method::HEAD, reference, &media_type::ACCEPTED_MANIFESTS)?;
        call.access = Access::Push;
        Ok(self.found(&call)?.and_then(|response| header_digest(&response)))
    }

    /// Brings a blob into a reference's repository, sending it only if nothing else helps.
    pub fn put_blob(&self, reference: &Reference, blob: &Upload<'_>) -> Result<Put> {
        let what = format!("can't push blob {} to {}", blob.digest, quote(reference.familiar_repository()));
        let sender = Sender { client: self, endpoint: self.home(reference)?, what, blob };
        if sender.is_there()? {
            return Ok(Put::There);
        }
        let mut failures = 0;
        let mut from = blob.from.first();
        loop {
            let location = match sender.start(from.take())? {
                Place::Mounted => return Ok(Put::Mounted),
                Place::Location(location) => location,
            };
            let error = match sender.send(location, &mut failures) {
                Ok(()) => return Ok(Put::Sent),
                Err(Stop::Final(error)) => return Err(error),
                Err(Stop::Again(error)) => error,
            };
            // An answer that got lost may have been a good one.
            if sender.is_there().unwrap_or(false) {
                return Ok(Put::Sent);
            }
            sender.pause(&mut failures, error)?;
        }
    }

    /// Puts a manifest or an index under the reference's tag, or under its digest if it has one.
    pub fn put_manifest(&self, reference: &Reference, media_type: &str, bytes: &[u8]) -> Result<()> {
        let what = format!("can't push the manifest of {}", quote(reference.to_string()));
        let endpoint = self.home(reference)?;
        let media_type = HeaderValue::from_str(media_type).map_err(|_| Error::input("invalid media type"))?;
        let call = Call {
            what: &what,
            endpoint: &endpoint,
            method: Method::PUT,
            target: Target::Path(format!("manifests/{}", reference.manifest_name())),
            headers: HeaderMap::from_iter([(CONTENT_TYPE, media_type)]),
            integrity: Integrity::Connection,
            access: Access::Push,
            payload: Payload::Bytes(bytes),
        };
        let response = self.block_on(self.transport().exchange(&call))?;
        match header_digest(&response) {
            Some(digest) if digest != Digest::of(bytes) => {
                Err(Error::with_kind(Kind::Corrupt, &what).cause(format!("the registry took it as {digest}, it is {}", Digest::of(bytes))))
            }
            _ => Ok(()),
        }
    }

    /// The registry itself: mirrors take no pushes.
    pub(super) fn home(&self, reference: &Reference) -> Result<Endpoint> {
        Ok(self.endpoints(reference)?.pop().expect("a reference has its registry"))
    }

    /// The answer, or `None` if it is that there is no such thing.
    fn found(&self, call: &Call<'_>) -> Result<Option<Response>> {
        match self.block_on(self.transport().exchange(call)) {
            Ok(response) => Ok(Some(response)),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// One blob on its way.
struct Sender<'a> {
    client: &'a Client,
    endpoint: Endpoint,
    what: String,
    blob: &'a Upload<'a>,
}

impl Sender<'_> {
    fn call<'c>(&'c self, method: Method, target: Target, payload: Payload<'c>) -> Call<'c> {
        let (headers, integrity) = (HeaderMap::new(), Integrity::Digest);
        Call { what: &self.what, endpoint: &self.endpoint, method, target, headers, integrity, access: Access::Push, payload }
    }

    fn is_there(&self) -> Result<bool> {
        let call = self.call(Method::HEAD, Target::Path(format!("blobs/{}", self.blob.digest)), Payload::Empty);
        Ok(self.client.found(&call)?.is_some())
    }

    /// Asks for a place to send to, or for the blob of another repository.
    fn start(&self, from: Option<&String>) -> Result<Place> {
        let plain = || self.call(Method::POST, Target::Path("blobs/uploads/".into()), Payload::Empty);
        let response = match from {
            None => self.exchange(&plain())?,
            Some(from) => {
                let path = format!("blobs/uploads/?mount={}&from={from}", self.blob.digest);
                let mut call = self.call(Method::POST, Target::Path(path), Payload::Empty);
                call.access = Access::Mount { from: from.clone() };
                match self.exchange(&call) {
                    Ok(response) if response.status() == StatusCode::CREATED => return Ok(Place::Mounted),
                    Ok(response) => response,
                    // Who may not read the other repository may write to this one all the same.
                    Err(error) if matches!(error.kind(), Kind::Denied | Kind::NotFound | Kind::Other) => self.exchange(&plain())?,
                    Err(error) => return Err(error),
                }
            }
        };
        location(&response).map(Place::Location).ok_or_else(|| self.wrong("the registry names no place to send to"))
    }

    fn exchange(&self, call: &Call<'_>) -> Result<Response> {
        self.client.block_on(self.client.transport().exchange(call))
    }

    /// Sends all bytes to a place, goes on where it broke off, and concludes.
    fn send(&self, mut place: String, failures: &mut u32) -> Result<(), Stop> {
        let mut offset = 0;
        loop {
            let fault = match self.patch(&place, offset) {
                Ok(next) => return self.conclude(&next),
                Err(fault) => fault,
            };
            if !may_pass(&fault) {
                return Err(Stop::Final(fault.error));
            }
            let Ok(Some((has, next))) = self.progress(&place) else { return Err(Stop::Again(fault.error)) };
            if has > self.blob.size || has < offset {
                return Err(Stop::Again(fault.error));
            }
            if has - offset >= PROGRESS {
                *failures = 0;
            }
            self.pause(failures, fault.error).map_err(Stop::Final)?;
            (offset, place) = (has, next);
        }
    }

    fn patch(&self, place: &str, offset: u64) -> Result<String, Fault> {
        let open = || (self.blob.open)(offset);
        let seen = |taken| (self.blob.seen)(offset + taken);
        let payload = Payload::Stream { length: Some(self.blob.size - offset), open: &open, seen: &seen };
        let mut call = self.call(Method::PATCH, Target::Location(place.to_owned()), payload);
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        if offset > 0 {
            let range = format!("{offset}-{}", self.blob.size.saturating_sub(1));
            call.headers.insert(CONTENT_RANGE, HeaderValue::from_str(&range).expect("digits are valid"));
        }
        let response = self.client.block_on(self.client.transport().exchange_once(&call))?;
        location(&response).ok_or_else(|| Fault::final_error(self.wrong("the registry does not say where to conclude")))
    }

    fn conclude(&self, place: &str) -> Result<(), Stop> {
        let separator = if place.contains('?') { '&' } else { '?' };
        let target = Target::Location(format!("{place}{separator}digest={}", self.blob.digest));
        let call = self.call(Method::PUT, target, Payload::Conclusion);
        match self.client.block_on(self.client.transport().exchange_once(&call)) {
            Ok(_) => Ok(()),
            Err(fault) if may_pass(&fault) => Err(Stop::Again(fault.error)),
            Err(fault) => Err(Stop::Final(fault.error)),
        }
    }

    /// How many bytes the registry has, and where to go on; `None` if it knows of no such upload.
    fn progress(&self, place: &str) -> Result<Option<(u64, String)>> {
        let call = self.call(Method::GET, Target::Location(place.to_owned()), Payload::Empty);
        let Some(response) = self.client.found(&call)? else { return Ok(None) };
        let range = response.headers().get(RANGE).and_then(|value| value.to_str().ok());
        let has = range.and_then(received);
        Ok(has.map(|has| (has, location(&response).unwrap_or_else(|| place.to_owned()))))
    }

    /// Counts a failure and waits, or gives up.
    fn pause(&self, failures: &mut u32, error: Error) -> Result<()> {
        *failures += 1;
        let attempts = self.client.transport().settings().patience.attempts;
        if *failures >= attempts {
            return Err(error.cause(format!("given up after {failures} attempts")));
        }
        self.client.block_on(self.client.transport().wait(&self.endpoint.host, *failures, None));
        Ok(())
    }

    fn wrong(&self, why: &str) -> Error {
        Error::with_kind(Kind::Network, &self.what).cause(why)
    }
}

/// Whether an upload is worth going on with, or beginning again: the registry may have lost it.
fn may_pass(fault: &Fault) -> bool {
    fault.retry != Retry::Never || matches!(fault.error.kind(), Kind::NotFound | Kind::Corrupt)
}

fn location(response: &Response) -> Option<String> {
    response.headers().get(LOCATION)?.to_str().ok().map(str::to_owned)
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
}
