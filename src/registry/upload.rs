//! Sending: blobs and manifests into a repository.
//!
//! A blob is looked for first, then mounted from another repository of the registry, then sent (`sending`): POST for a place, PATCH with
//! the bytes, PUT with the digest, and it is looked for once more. After a broken connection the registry is asked how much it has; one
//! that does not know, or has forgotten the upload, gets it from the start.
//!
//! Source: OCI distribution-spec 1.1, "Pushing Blobs", "Mounting a blob from another repository", "Pushing Manifests".

use std::io::Read;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode};

use super::client::{Client, header_digest, manifest_call};
use super::payload::Payload;
use super::redirect::Integrity;
use super::registries_conf::Endpoint;
use super::sending::{Experience, Place, Stop, location};
use super::transport::{Access, Call, Target};
use crate::error::{Error, Kind, Result, quote};
use crate::oci::{Digest, Reference, media_type};

/// Distribution-spec 1.1, "Pushing a blob in chunks".
const LEAST_CHUNK: &str = "OCI-Chunk-Min-Length";

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
enum Answer {
    Mounted,
    Place(Place),
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
        // Who may write and not read learns by writing whether that is so.
        if sender.is_there().or_else(|e| if e.kind() == Kind::Denied { Ok(false) } else { Err(e) })? {
            return Ok(Put::There);
        }
        let mut experience = Experience::new(self.transport().settings().chunk_size);
        let mut from = blob.from.first();
        loop {
            let place = match sender.start(from.take())? {
                Answer::Mounted if sender.is_there_now() == Some(false) => continue,
                Answer::Mounted => return Ok(Put::Mounted),
                Answer::Place(place) => place,
            };
            let fault = match sender.send(place, &mut experience) {
                Ok(()) => return Ok(Put::Sent),
                Err(Stop::Final(error)) => return Err(error),
                Err(Stop::AtOnce) => continue,
                Err(Stop::Again(fault)) => fault,
            };
            // An answer that got lost may have been a good one.
            if sender.is_there_now() == Some(true) {
                return Ok(Put::Sent);
            }
            sender.pause(&mut experience, fault)?;
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
pub(super) struct Sender<'a> {
    pub(super) client: &'a Client,
    pub(super) endpoint: Endpoint,
    pub(super) what: String,
    pub(super) blob: &'a Upload<'a>,
}

impl Sender<'_> {
    pub(super) fn call<'c>(&'c self, method: Method, target: Target, payload: Payload<'c>) -> Call<'c> {
        let (headers, integrity) = (HeaderMap::new(), Integrity::Digest);
        Call { what: &self.what, endpoint: &self.endpoint, method, target, headers, integrity, access: Access::Push, payload }
    }

    fn is_there(&self) -> Result<bool> {
        let call = self.call(Method::HEAD, Target::Path(format!("blobs/{}", self.blob.digest)), Payload::Empty);
        Ok(self.client.found(&call)?.is_some())
    }

    /// Asked once; `None` if there is no answer.
    pub(super) fn is_there_now(&self) -> Option<bool> {
        let call = self.call(Method::HEAD, Target::Path(format!("blobs/{}", self.blob.digest)), Payload::Empty);
        match self.client.block_on(self.client.transport().exchange_once(&call)) {
            Ok(_) => Some(true),
            Err(fault) if fault.error.kind() == Kind::NotFound => Some(false),
            Err(_) => None,
        }
    }

    /// Asks for a place to send to, or for the blob of another repository.
    fn start(&self, from: Option<&String>) -> Result<Answer> {
        let plain = || self.call(Method::POST, Target::Path("blobs/uploads/".into()), Payload::Empty);
        let response = match from {
            None => self.exchange(&plain())?,
            Some(from) => {
                let path = format!("blobs/uploads/?mount={}&from={from}", self.blob.digest);
                let mut call = self.call(Method::POST, Target::Path(path), Payload::Empty);
                call.access = Access::Mount { from: from.clone() };
                match self.exchange(&call) {
                    Ok(response) if response.status() == StatusCode::CREATED => return Ok(Answer::Mounted),
                    Ok(response) => response,
                    // Who may not read the other repository may write to this one all the same.
                    Err(error) if matches!(error.kind(), Kind::Denied | Kind::NotFound | Kind::Other) => self.exchange(&plain())?,
                    Err(error) => return Err(error),
                }
            }
        };
        let location = location(&response).ok_or_else(|| self.wrong("the registry names no place to send to"))?;
        let least = response.headers().get(LEAST_CHUNK).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
        Ok(Answer::Place(Place { location, least }))
    }

    fn exchange(&self, call: &Call<'_>) -> Result<Response> {
        self.client.block_on(self.client.transport().exchange(call))
    }
}
