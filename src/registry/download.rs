//! A plain URL: asked whether it changed, downloaded, resumed.
//!
//! Not here: where the bytes go (a [`Receiver`] takes them) and what they should be. Source: RFC 9110 (conditional requests, ranges,
//! 13.1 and 14.2).

use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED,
    RANGE,
};
use reqwest::{Method, Response, StatusCode, Url};

use super::blob::content_range;
use super::body::{Body, PROGRESS};
use super::client::Client;
use super::fault::{self, Fault, Retry};
use super::redirect::{self, Integrity, Request};
use super::registries_conf::Security;
use super::settings::TlsVerify;
use super::token::{basic, secret};
use super::transport::{read_limited, retry_of};
use crate::error::{Error, Kind, Result, quote};
use crate::oci::percent_decoded;

/// An error message worth reading is shorter.
const LONGEST_COMPLAINT: usize = 16 << 10;

/// What to ask for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// `http://` or `https://`; a user and password in it become credentials for its host.
    pub url: &'a str,
    /// The `Authorization` header; only the URL's own scheme, host and port ever get it.
    pub authorization: Option<&'a str>,
    /// What a server said about the bytes that are here already.
    pub known: Option<&'a Validators>,
}

/// What tells one state of a URL from another.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Validators {
    /// `ETag`, as sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// `Last-Modified`, as sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<String>,
}

/// What came of asking.
#[derive(Debug)]
pub enum Fetched {
    /// What is here is what the server has.
    Unchanged,
    /// The receiver has it whole.
    Whole(Head),
}

/// What the server says about what it sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// For the next time.
    pub validators: Validators,
    /// `Last-Modified` in seconds since 1970.
    pub modified: Option<i64>,
    /// Size in bytes, where it is known beforehand.
    pub size: Option<u64>,
}

/// Takes the bytes.
pub trait Receiver {
    /// The first byte comes next. Called again when everything starts over: what was taken is worth nothing then.
    fn begin(&mut self, head: &Head) -> Result<()>;

    /// Takes the next bytes.
    fn take(&mut self, piece: &[u8]) -> Result<()>;
}

impl Client {
    /// Downloads a URL, through broken connections; redirects lead to other hosts, but credentials do not.
    ///
    /// Errors: `NotFound`, `Denied`, `Network` when the patience is used up, and the receiver's own.
    pub fn download(&self, ask: &Ask<'_>, receiver: &mut dyn Receiver) -> Result<Fetched> {
        let mut transfer = Transfer::new(self, ask)?;
        loop {
            let (fault, asked) = match transfer.attempt(receiver) {
                Ok(fetched) => return Ok(fetched),
                Err(fault) => match fault.retry {
                    Retry::Never => return Err(fault.error),
                    // A server that is restarting refuses connections too.
                    Retry::Briefly => (fault, None),
                    Retry::After(asked) => (fault, asked),
                },
            };
            transfer.recover(fault, asked)?;
        }
    }
}

struct Transfer<'a> {
    client: &'a Client,
    what: String,
    url: Url,
    authorization: Option<HeaderValue>,
    known: Option<&'a Validators>,
    /// What the bytes taken so far belong to.
    head: Head,
    taken: u64,
    /// Whether the server has not yet shown that it does not resume.
    resumes: bool,
    failures: u32,
    forgiven_at: u64,
}

impl<'a> Transfer<'a> {
    fn new(client: &'a Client, ask: &Ask<'a>) -> Result<Self> {
        let mut url = Url::parse(ask.url).map_err(|e| Error::input("invalid URL").cause(e))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Error::input(format!("{} is not a web address", quote(fault::shown(&url)))));
        }
        let authorization = match (ask.authorization, url.username(), url.password()) {
            (Some(header), _, _) => Some(secret(header.trim().to_owned())?),
            (None, "", None) => None,
            (None, user, password) => Some(basic(&percent_decoded(user), &percent_decoded(password.unwrap_or_default()))?),
        };
        let _ = url.set_username("");
        let _ = url.set_password(None);
        let what = format!("can't download {}", quote(fault::shown(&url)));
        let known = ask.known.filter(|known| **known != Validators::default());
        Ok(Self { client, what, url, authorization, known, head: Head::default(), taken: 0, resumes: true, failures: 0, forgiven_at: 0 })
    }

    /// One connection: from the request to the last byte, or until it breaks.
    fn attempt(&mut self, receiver: &mut dyn Receiver) -> Result<Fetched, Fault> {
        let response = match self.send()? {
            Some(response) => response,
            None => return Ok(Fetched::Unchanged),
        };
        if response.status() != StatusCode::PARTIAL_CONTENT {
            let head = head_of(&response);
            if same(self.known, &head.validators) {
                return Ok(Fetched::Unchanged);
            }
            receiver.begin(&head).map_err(Fault::final_error)?;
            (self.head, self.taken, self.forgiven_at) = (head, 0, 0);
        }
        let stall = self.client.transport().settings().patience.stall;
        let mut body = Body::new(response);
        loop {
            match self.client.block_on(body.next(stall)) {
                Err(why) => return Err(self.broken(&why)),
                Ok(Some(piece)) => {
                    receiver.take(piece.as_ref()).map_err(Fault::final_error)?;
                    self.taken += piece.as_ref().len() as u64;
                }
                Ok(None) if self.head.size.is_some_and(|size| size > self.taken) => return Err(self.broken("the connection was closed")),
                Ok(None) => return Ok(Fetched::Whole(std::mem::take(&mut self.head))),
            }
        }
    }

    /// Sends the request, for the rest only where that can be had; `None` if nothing changed since what is known.
    fn send(&mut self) -> Result<Option<Response>, Fault> {
        let headers = self.headers();
        let security = match self.client.transport().settings().tls {
            TlsVerify::Never => Security::Insecure,
            _ => Security::Verified,
        };
        let request = Request {
            what: &self.what,
            method: Method::GET,
            url: self.url.clone(),
            headers: &headers,
            authorization: self.authorization.as_ref(),
            security,
            integrity: Integrity::Connection,
            payload: &super::payload::Payload::Empty,
        };
        let transport = self.client.transport();
        let (response, from) = self.client.block_on(redirect::send(transport.connections(), &transport.settings().patience, &request))?;
        match response.status() {
            StatusCode::NOT_MODIFIED if self.known.is_some() && self.taken == 0 => Ok(None),
            StatusCode::PARTIAL_CONTENT if headers.contains_key(RANGE) && self.continues(&response) => Ok(Some(response)),
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if headers.contains_key(RANGE) => {
                // Something else is there by now, or the server can't count.
                self.resumes = false;
                Err(self.broken("the server can't go on where it stopped"))
            }
            status if status.is_success() && status != StatusCode::PARTIAL_CONTENT => Ok(Some(response)),
            _ => Err(self.refusal(response, &from)),
        }
    }

    fn headers(&self) -> HeaderMap {
        // A coding would be undone by nobody, and ranges count coded bytes.
        let mut headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
        let mut put = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        if self.taken == 0 {
            if let Some(known) = self.known {
                known.etag.iter().for_each(|etag| put(IF_NONE_MATCH, etag));
                known.last_modified.iter().for_each(|date| put(IF_MODIFIED_SINCE, date));
            }
            return headers;
        }
        // Without a validator the rest might be the rest of something else.
        let validators = &self.head.validators;
        let strong = validators.etag.as_ref().filter(|etag| !etag.starts_with("W/")).or(validators.last_modified.as_ref());
        if let Some(validator) = strong.filter(|_| self.resumes) {
            put(RANGE, &format!("bytes={}-", self.taken));
            put(IF_RANGE, validator);
        }
        headers
    }

    /// Whether a part is the one that is missing.
    fn continues(&self, response: &Response) -> bool {
        let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let total = |total: Option<u64>| total.is_none() || self.head.size.is_none() || total == self.head.size;
        range.and_then(content_range).is_some_and(|(start, of)| start == self.taken && total(of))
    }

    fn broken(&self, why: &str) -> Fault {
        let sent = match self.head.size {
            Some(size) => format!("{} sent {} of {size} bytes", quote(fault::host(&self.url)), self.taken),
            None => format!("{} sent {} bytes", quote(fault::host(&self.url)), self.taken),
        };
        Fault::passing(Error::with_kind(Kind::Network, &self.what).cause(sent).cause(why))
    }

    fn refusal(&self, response: Response, from: &Url) -> Fault {
        let (status, retry) = (response.status(), retry_of(&response));
        let stall = self.client.transport().settings().patience.stall;
        let body = self.client.block_on(read_limited(response, LONGEST_COMPLAINT, stall)).unwrap_or_default();
        let host = fault::host(from);
        let answered = format!("{} answered {status}", quote(&host));
        let said = fault::said(&body).map(|text| format!(": {}", quote(text))).unwrap_or_default();
        let (kind, hint) = match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => (Kind::NotFound, "check the URL"),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if self.authorization.is_none() => {
                (Kind::Denied, "check the URL; if it is private, give `--secret id=HTTP_AUTH_TOKEN_HOST,…` with HOST being its host")
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => (Kind::Denied, "the server does not accept the credentials given for it"),
            s if s.is_server_error() || s == StatusCode::TOO_MANY_REQUESTS => (Kind::Network, "the server has a problem; try again later"),
            _ => (Kind::Other, "check the URL"),
        };
        let mut error = Error::with_kind(kind, &self.what).cause(answered + &said).hint(hint);
        if *from != self.url {
            error = error.at(fault::place(from));
        }
        Fault { retry, ..Fault::final_error(error) }
    }

    /// Counts a failure and waits; its error when there were too many.
    fn recover(&mut self, fault: Fault, asked: Option<std::time::Duration>) -> Result<()> {
        if self.taken.saturating_sub(self.forgiven_at) >= PROGRESS {
            (self.failures, self.forgiven_at) = (0, self.taken);
        }
        self.failures += 1;
        let attempts = self.client.transport().settings().patience.attempts;
        let attempts = if fault.retry == Retry::Briefly { attempts.min(3) } else { attempts };
        if self.failures >= attempts {
            return Err(fault.error.cause(format!("given up after {} attempts", self.failures)));
        }
        self.client.block_on(self.client.transport().wait(&fault::host(&self.url), self.failures, asked));
        Ok(())
    }
}

/// Whether a server that ignores conditions has what is known all the same. Weak tags say the same bytes often enough (BuildKit).
fn same(known: Option<&Validators>, now: &Validators) -> bool {
    let bare = |validators: &Validators| validators.etag.as_ref().map(|etag| etag.trim_start_matches("W/").to_owned());
    known.and_then(bare).is_some_and(|etag| bare(now) == Some(etag))
}

fn head_of(response: &Response) -> Head {
    let text = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let last_modified = text(LAST_MODIFIED);
    Head {
        modified: last_modified.as_deref().and_then(|date| jiff::fmt::rfc2822::parse(date).ok()).map(|time| time.timestamp().as_second()),
        validators: Validators { etag: text(ETAG), last_modified },
        size: response.content_length(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_same_when_it_sees_it() {
        let tag = |etag: &str| Validators { etag: Some(etag.into()), last_modified: None };
        for (known, now, expected) in [
            (tag("\"a\""), tag("\"a\""), true),
            (tag("W/\"a\""), tag("\"a\""), true),
            (tag("\"a\""), tag("\"b\""), false),
            (tag("\"a\""), Validators::default(), false),
            (Validators::default(), Validators::default(), false),
        ] {
            assert_eq!(same(Some(&known), &now), expected, "{known:?} {now:?}");
        }
        assert!(!same(None, &tag("\"a\"")));
    }
}
