//! A blob as a stream that survives broken connections.
//!
//! It ends after the descriptor's size whatever the server sends. It does not check the digest: who stores the bytes hashes them.

use std::io::{self, Read};

use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};

use super::body::{Body, PROGRESS};
use super::client::Client;
use super::fault;
use super::payload::Payload;
use super::redirect::Integrity;
use super::registries_conf::Endpoint;
use super::transport::{Access, Call, Target};
use crate::error::{Error, Kind, Result, quote};
use crate::oci::{Descriptor, Digest, Reference};

/// A blob's bytes from a registry.
pub struct BlobStream {
    client: Client,
    what: String,
    /// Those not yet given up, the one in use first.
    endpoints: Vec<Endpoint>,
    digest: Digest,
    size: u64,
    /// The next byte to hand out.
    position: u64,
    connection: Option<Connection>,
    /// Whether it is worth asking for a part: a server that answers with another one, or refuses, sends all.
    parts: bool,
    failures: u32,
    /// Where the position was when a failure was last forgiven.
    forgiven_at: u64,
}

struct Connection {
    body: Body,
    /// Received and, from `taken` on, not yet handed out.
    chunk: Vec<u8>,
    taken: usize,
    /// Bytes the server sends before those we asked for, because it ignores ranges.
    skip: u64,
}

impl BlobStream {
    /// Connects, at `offset` of the blob.
    pub(super) fn open(client: &Client, reference: &Reference, descriptor: &Descriptor, offset: u64) -> Result<Self> {
        let mut stream = Self {
            client: client.clone(),
            what: format!("can't fetch blob {} of {}", descriptor.digest, quote(reference.familiar_repository())),
            endpoints: client.endpoints(reference)?,
            digest: descriptor.digest,
            size: descriptor.size,
            position: offset,
            connection: None,
            parts: true,
            failures: 0,
            forgiven_at: offset,
        };
        if stream.position < stream.size {
            stream.connect()?;
        }
        Ok(stream)
    }

    /// The registry the bytes come from.
    pub fn host(&self) -> &str {
        self.endpoints.first().map_or("", |endpoint| &endpoint.host)
    }

    /// Asks the endpoints in turn from `position` on; one that fails is not asked again, unless it is the last.
    fn connect(&mut self) -> Result<()> {
        loop {
            let error = match self.connect_first() {
                Ok(connection) => {
                    self.connection = Some(connection);
                    return Ok(());
                }
                // Some refuse ranges, or can't count.
                Err(error) if error.kind() == Kind::Corrupt && self.position > 0 && self.parts => {
                    self.parts = false;
                    continue;
                }
                Err(error) => error,
            };
            if self.endpoints.len() <= 1 {
                return Err(error);
            }
            self.endpoints.remove(0);
        }
    }

    fn connect_first(&self) -> Result<Connection> {
        let endpoint = &self.endpoints[0];
        let mut headers = HeaderMap::new();
        // A coding would be undone by nobody, and ranges count coded bytes.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if self.position > 0 && self.parts {
            headers.insert(RANGE, HeaderValue::from_str(&format!("bytes={}-", self.position)).expect("digits are valid"));
        }
        let call = Call {
            what: &self.what,
            endpoint,
            method: Method::GET,
            target: Target::Path(format!("blobs/{}", self.digest)),
            headers,
            integrity: Integrity::Digest,
            access: Access::Pull,
            payload: Payload::Empty,
        };
        let response = self.client.block_on(self.client.transport().exchange(&call))?;
        let skip = self.skip(&response)?;
        Ok(Connection { body: Body::new(response), chunk: Vec::new(), taken: 0, skip })
    }

    /// How many bytes the server sends before `position`; an error if it has not what the descriptor says.
    fn skip(&self, response: &Response) -> Result<u64> {
        let wrong = |why: String| Err(self.corrupt().at(fault::place(response.url())).cause(why));
        let (start, total) = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok());
                match range.and_then(content_range) {
                    Some((start, total)) if start <= self.position => (start, total),
                    _ => return wrong(format!("asked for bytes from {} on, got range {}", self.position, quote(range.unwrap_or("none")))),
                }
            }
            _ => (0, response.content_length()),
        };
        match total {
            Some(total) if total != self.size => {
                wrong(format!("{} serves {total} bytes, the manifest says {}", quote(self.host()), self.size))
            }
            _ => Ok(self.position - start),
        }
    }

    fn corrupt(&self) -> Error {
        Error::with_kind(Kind::Corrupt, &self.what)
    }

    /// Waits for more bytes; an error is the reason why the connection is of no more use.
    fn receive(&mut self) -> Result<(), String> {
        let stall = self.client.transport().settings().patience.stall;
        let client = self.client.clone();
        let connection = self.connection.as_mut().expect("only called while connected");
        let chunk = client.block_on(connection.body.next(stall))?.ok_or("the connection was closed")?;
        let chunk = chunk.as_ref();
        connection.chunk.clear();
        let skipped = usize::try_from(connection.skip).unwrap_or(usize::MAX).min(chunk.len());
        connection.skip -= skipped as u64;
        connection.chunk.extend_from_slice(&chunk[skipped..]);
        connection.taken = 0;
        Ok(())
    }

    /// Counts a broken connection, waits and connects anew; an error when there were too many.
    fn recover(&mut self, why: &str) -> Result<()> {
        self.connection = None;
        if self.position - self.forgiven_at >= PROGRESS {
            (self.failures, self.forgiven_at) = (0, self.position);
        }
        self.failures += 1;
        let patience = self.client.transport().settings().patience;
        if self.failures >= patience.attempts {
            return Err(Error::with_kind(Kind::Network, &self.what)
                .cause(format!("{} sent {} of {} bytes in {} attempts", quote(self.host()), self.position, self.size, self.failures))
                .cause(why)
                .hint("try again later: what has arrived is kept"));
        }
        self.client.block_on(self.client.transport().wait(&self.endpoints[0].host, self.failures, None));
        self.connect()
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        while self.position < self.size {
            let Some(connection) = &mut self.connection else {
                self.recover("the connection was lost")?;
                continue;
            };
            let ready = &connection.chunk[connection.taken..];
            if ready.is_empty() {
                if let Err(why) = self.receive() {
                    self.recover(&why)?;
                }
                continue;
            }
            let left = usize::try_from(self.size - self.position).unwrap_or(usize::MAX);
            let count = ready.len().min(out.len()).min(left);
            out[..count].copy_from_slice(&ready[..count]);
            connection.taken += count;
            self.position += count as u64;
            return Ok(count);
        }
        // More than was announced is not looked at.
        self.connection = None;
        Ok(0)
    }
}

impl Read for BlobStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        Ok(self.fill(out)?)
    }
}

/// Start and total of `bytes START-END/TOTAL`; a total of `*` is unknown.
pub(super) fn content_range(header: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((start.parse().ok()?, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_content_ranges() {
        for (header, expected) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 0-9/*", Some((0, None))),
            ("bytes */10", None),
            ("items 0-1/2", None),
            ("bytes 5-9/x", None),
        ] {
            assert_eq!(content_range(header), expected, "{header}");
        }
    }
}
