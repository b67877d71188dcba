//! The client: manifests and blobs of a repository, from whichever endpoint has them.

use std::sync::{Arc, OnceLock};

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response};
use tokio::runtime::Runtime;

use super::blob::BlobStream;
use super::fault;
use super::payload::Payload;
use super::redirect::Integrity;
use super::registries_conf::Endpoint;
use super::settings::Settings;
use super::transport::{Access, Call, Target, Transport, read_limited};
use crate::error::{Error, Kind, Result, quote};
use crate::oci::{Descriptor, Digest, Reference, media_type};

/// The distribution-spec asks registries to take manifests up to 4 MiB; none serves larger ones.
pub(super) const LONGEST_MANIFEST: usize = 4 << 20;

/// A client of all registries. Cheap to make and to clone; clones share connections and tokens.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    transport: Transport,
    runtime: OnceLock<Runtime>,
}

/// A manifest or index as served, its digest checked.
#[derive(Clone, Debug)]
pub struct FetchedManifest {
    /// As served.
    pub bytes: Vec<u8>,
    /// The `Content-Type`, if there was one.
    pub media_type: Option<String>,
    /// Digest of `bytes`.
    pub digest: Digest,
}

impl Client {
    /// A client that has done nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(Inner { transport: Transport::new(Arc::new(settings)), runtime: OnceLock::new() }))
    }

    /// The manifest or index a reference names, of one of the `accepted` media types.
    ///
    /// Bytes whose digest is not the one asked for, or not the one the registry says, are fetched once more, then Corrupt.
    pub fn manifest(&self, reference: &Reference, accepted: &[&str]) -> Result<FetchedManifest> {
        let what = format!("can't fetch the manifest of {}", quote(reference.to_string()));
        self.each_endpoint(reference, |endpoint| {
            let call = manifest_call(&what, endpoint, Method::GET, reference, accepted)?;
            self.block_on(async {
                match self.fetch_manifest(&call, reference).await {
                    Err(e) if e.kind() == Kind::Corrupt => self.fetch_manifest(&call, reference).await,
                    outcome => outcome,
                }
            })
        })
    }

    /// The digest a tag has now, without fetching what it names; `None` if the registry does not tell.
    pub fn digest(&self, reference: &Reference) -> Result<Option<Digest>> {
        let what = format!("can't look up {}", quote(reference.to_string()));
        self.each_endpoint(reference, |endpoint| {
            let call = manifest_call(&what, endpoint, Method::HEAD, reference, &media_type::ACCEPTED_MANIFESTS)?;
            let response = self.block_on(self.0.transport.exchange(&call))?;
            Ok(header_digest(&response))
        })
    }

    /// A blob's bytes from `offset` on. The stream ends after the descriptor's size and survives broken connections; it does not
    /// check the digest, which is the work of who stores the bytes.
    pub fn blob(&self, reference: &Reference, descriptor: &Descriptor, offset: u64) -> Result<BlobStream> {
        BlobStream::open(self, reference, descriptor, offset)
    }

    /// A small blob's bytes, size and digest checked; larger than `limit` is an error.
    pub fn blob_bytes(&self, reference: &Reference, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>> {
        let what = || format!("can't fetch blob {} of {}", descriptor.digest, quote(reference.familiar_repository()));
        if descriptor.size > limit {
            return Err(Error::with_kind(Kind::Corrupt, what())
                .cause(format!("it says to have {} bytes; at most {limit} are allowed here", descriptor.size)));
        }
        let mut found = None;
        // A damaged transfer gets a second chance.
        for _ in 0..2 {
            let mut bytes = Vec::new();
            let mut stream = self.blob(reference, descriptor, 0)?;
            std::io::Read::read_to_end(&mut stream, &mut bytes).map_err(|e| crate::error::from_io(what, e))?;
            let digest = Digest::of(&bytes);
            if digest == descriptor.digest {
                return Ok(bytes);
            }
            found = Some((digest, stream.host().to_owned()));
        }
        let (digest, host) = found.unwrap_or((descriptor.digest, String::new()));
        Err(Error::with_kind(Kind::Corrupt, what()).cause(format!("{} served bytes of digest {digest}", quote(host))))
    }

    /// Endpoints in their order until one delivers. The last is the registry itself, whose error is the one that counts.
    pub(super) fn each_endpoint<T>(&self, reference: &Reference, mut ask: impl FnMut(&Endpoint) -> Result<T>) -> Result<T> {
        let endpoints = self.endpoints(reference)?;
        let (last, mirrors) = endpoints.split_last().expect("a reference has its registry");
        for mirror in mirrors {
            if let Ok(answer) = ask(mirror) {
                return Ok(answer);
            }
        }
        ask(last)
    }

    pub(super) fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>> {
        self.0.transport.settings().registries.endpoints(reference)
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.0.transport
    }

    /// Runs a future on the calling thread; sockets are served by the runtime's own.
    pub(super) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let start = || {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .max_blocking_threads(4)
                .thread_name("rootling-net")
                .enable_all()
                .build()
                .expect("threads can be started")
        };
        self.0.runtime.get_or_init(start).block_on(future)
    }

    async fn fetch_manifest(&self, call: &Call<'_>, reference: &Reference) -> Result<FetchedManifest> {
        let response = self.0.transport.exchange(call).await?;
        let place = fault::place(response.url());
        let corrupt = |why: String| Error::with_kind(Kind::Corrupt, call.what).at(place.clone()).cause(why);
        let media_type = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let media_type = media_type.and_then(|t| t.split(';').next()).map(|t| t.trim().to_owned());
        let stated = header_digest(&response);
        let stall = self.0.transport.settings().patience.stall;
        let bytes = read_limited(response, LONGEST_MANIFEST, stall).await.map_err(corrupt)?;
        let digest = Digest::of(&bytes);
        if let Some(wanted) = reference.digest().copied().or(stated)
            && wanted != digest
        {
            return Err(corrupt(format!("{} served bytes of digest {digest} for {wanted}", quote(&call.endpoint.host))));
        }
        Ok(FetchedManifest { bytes, media_type, digest })
    }
}

pub(super) fn manifest_call<'a>(
    what: &'a str,
    endpoint: &'a Endpoint,
    method: Method,
    reference: &Reference,
    accepted: &[&str],
) -> Result<Call<'a>> {
    let accept = HeaderValue::from_str(&accepted.join(", ")).map_err(|_| Error::input("invalid media type"))?;
    let integrity = if reference.digest().is_some() { Integrity::Digest } else { Integrity::Connection };
    Ok(Call {
        what,
        endpoint,
        method,
        target: Target::Path(format!("manifests/{}", reference.manifest_name())),
        headers: HeaderMap::from_iter([(ACCEPT, accept)]),
        integrity,
        access: Access::Pull,
        payload: Payload::Empty,
    })
}

pub(super) fn header_digest(response: &Response) -> Option<Digest> {
    response.headers().get("docker-content-digest")?.to_str().ok()?.parse().ok()
}
