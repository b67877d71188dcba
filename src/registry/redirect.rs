//! One request through its redirects, and the rules on where credentials may go.
//!
//! The Authorization header reaches only the origin (scheme, host, port) it is meant for, never a host a registry points at
//! (CVE-2020-15157 is what happens otherwise).

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, Response, Url};

use super::connections::Connections;
use super::fault::{self, Fault};
use super::payload::{Payload, Sent};
use super::registries_conf::Security;
use super::settings::Patience;
use crate::error::{Error, Kind, quote};

/// As browsers and Go's client do.
const MOST_HOPS: usize = 10;

/// What guarantees that the answer is the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Integrity {
    /// Its digest is known beforehand, so it may come from anywhere.
    Digest,
    /// Only the connection does: no hop may lead from HTTPS to HTTP.
    Connection,
}

/// A request before its first hop.
pub(super) struct Request<'a> {
    pub(super) what: &'a str,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: &'a HeaderMap,
    pub(super) authorization: Option<&'a HeaderValue>,
    pub(super) security: Security,
    pub(super) integrity: Integrity,
    pub(super) payload: &'a Payload<'a>,
}

/// Sends a request, follows redirects, and returns the last answer with the URL it came from.
pub(super) async fn send(connections: &Connections, patience: &Patience, request: &Request<'_>) -> Result<(Response, Url), Fault> {
    let mut url = request.url.clone();
    for _ in 0..=MOST_HOPS {
        let client = connections.client(&url, request.security).map_err(Fault::final_error)?;
        let mut hop = client.request(request.method.clone(), url.clone()).headers(request.headers.clone());
        if let Some(authorization) = request.authorization
            && url.origin() == request.url.origin()
        {
            hop = hop.header(AUTHORIZATION, authorization);
        }
        let response = match request.payload.send(hop, patience).await {
            Sent::Silence(waited) => return Err(fault::silent(request.what, &url, waited)),
            Sent::Ours(error) => return Err(Fault::final_error(error)),
            // The same hop again, with the addresses found.
            Sent::Answer(Err(e)) if e.is_dns() && connections.look_up_elsewhere(&url) => continue,
            Sent::Answer(Err(e)) => return Err(fault::of_connection(request.what, &url, e)),
            Sent::Answer(Ok(response)) => response,
        };
        let location = response.headers().get(LOCATION).filter(|_| response.status().is_redirection());
        match location {
            Some(location) => url = next_hop(request, &url, location).map_err(Fault::final_error)?,
            None => return Ok((response, url)),
        }
    }
    Err(Fault::final_error(Error::with_kind(Kind::Network, request.what).at(fault::place(&request.url)).cause(format!(
        "{} redirects in a row, the last to {}",
        MOST_HOPS + 1,
        quote(fault::host(&url))
    ))))
}

fn next_hop(request: &Request<'_>, from: &Url, location: &HeaderValue) -> Result<Url, Error> {
    let refuse = |why: String| Error::with_kind(Kind::Network, request.what).at(fault::place(from)).cause(why);
    let text = String::from_utf8_lossy(location.as_bytes());
    let mut to = from.join(&text).map_err(|e| refuse(format!("redirect to {}: {e}", quote(text.as_bytes()))))?;
    if !matches!(to.scheme(), "http" | "https") || to.host_str().is_none() {
        return Err(refuse(format!("redirect to {}, which is not a web address", quote(text.as_bytes()))));
    }
    // Credentials in a URL would become an Authorization header.
    let _ = to.set_username("");
    let _ = to.set_password(None);
    let downgrade = from.scheme() == "https" && to.scheme() == "http";
    if downgrade && request.security == Security::Verified && request.integrity == Integrity::Connection {
        return Err(refuse(format!("redirect from HTTPS to plain HTTP at {}", quote(fault::host(&to))))
            .hint("if this network can be trusted, pass `--tls-verify=false`"));
    }
    Ok(to)
}
