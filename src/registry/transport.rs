//! One exchange with one endpoint: finds out whether it speaks TLS, answers 401, waits and tries again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::sync::Mutex;

use super::challenge;
use super::connections::{Connections, is_loopback};
use super::credentials::Login;
use super::fault::{self, Fault, Retry, Who};
use super::payload::Payload;
use super::redirect::{self, Integrity, Request};
use super::registries_conf::{Endpoint, Security};
use super::retry;
use super::settings::{Settings, TlsVerify};
use super::token::{self, Demand, Grant, Purpose};
use crate::error::{Error, Result, quote};
use crate::event::Event;

/// How many attempts a failure that will probably stay gets.
const BRIEF_ATTEMPTS: u32 = 3;
/// An error message worth reading is shorter.
const LONGEST_COMPLAINT: usize = 64 << 10;

/// What is asked of an endpoint.
pub(super) struct Call<'a> {
    /// The headline of an error: "can't …".
    pub(super) what: &'a str,
    pub(super) endpoint: &'a Endpoint,
    pub(super) method: Method,
    pub(super) target: Target,
    pub(super) headers: HeaderMap,
    pub(super) integrity: Integrity,
    pub(super) access: Access,
    pub(super) payload: Payload<'a>,
}

/// Where a call goes.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// `/v2/` itself.
    Api,
    /// Below `/v2/REPOSITORY/`.
    Path(String),
    /// An address the registry gave for what follows, absolute or not.
    Location(String),
}

/// What one may do in a repository, as tokens have it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Access {
    /// Nothing in particular: whether the login is good.
    LogIn,
    /// Read.
    Pull,
    /// Read and write.
    Push,
    /// Write, and read another repository of the same registry.
    Mount { from: String },
}

/// All exchanges of one client.
pub(super) struct Transport {
    settings: Arc<Settings>,
    connections: Connections,
    sessions: SyncMutex<HashMap<(Endpoint, Access), Arc<Session>>>,
}

/// What we know of one repository at one endpoint, for one kind of access.
#[derive(Default)]
struct Session {
    /// Known after its first answer.
    scheme: SyncMutex<Option<&'static str>>,
    /// Held while a grant is fetched, so that eight layers fetch one token.
    grant: Mutex<Option<Grant>>,
}

impl Transport {
    pub(super) fn new(settings: Arc<Settings>) -> Self {
        Self { connections: Connections::new(settings.clone()), settings, sessions: SyncMutex::default() }
    }

    pub(super) fn connections(&self) -> &Connections {
        &self.connections
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The answer, which is a success; everything else is an error.
    pub(super) async fn exchange(&self, call: &Call<'_>) -> Result<Response> {
        let mut attempt = 1;
        loop {
            let fault = match self.exchange_once(call).await {
                Ok(response) => return Ok(response),
                Err(fault) => fault,
            };
            let (attempts, asked) = match fault.retry {
                Retry::Never => (1, None),
                Retry::Briefly => (BRIEF_ATTEMPTS.min(self.settings.patience.attempts), None),
                Retry::After(asked) => (self.settings.patience.attempts, asked),
            };
            if attempt >= attempts {
                return Err(match attempt {
                    1 => fault.error,
                    n => fault.error.cause(format!("given up after {n} attempts")),
                });
            }
            self.wait(&call.endpoint.host, attempt, asked).await;
            attempt += 1;
        }
    }

    /// The same without a second attempt where sending again is not the same as asking again.
    pub(super) async fn exchange_once(&self, call: &Call<'_>) -> Result<Response, Fault> {
        self.attempt(call, &self.session(call)).await
    }

    /// Waits before the attempt after number `attempt`; says so if it takes a while.
    pub(super) async fn wait(&self, host: &str, attempt: u32, asked: Option<Duration>) {
        let delay = retry::delay(&self.settings.patience, attempt, asked);
        if delay > Duration::from_secs(5) {
            let text = format!("{} has a problem; trying again in {} s", quote(host), delay.as_secs());
            self.settings.notices.event(Event::Note(&text));
        }
        tokio::time::sleep(delay).await;
    }

    /// What the registry granted for a call that succeeded; `None` if it asked nobody who they are.
    pub(super) async fn grant_of(&self, call: &Call<'_>) -> Option<Grant> {
        self.session(call).grant.lock().await.clone()
    }

    fn session(&self, call: &Call<'_>) -> Arc<Session> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.entry((call.endpoint.clone(), call.access.clone())).or_default().clone()
    }

    async fn attempt(&self, call: &Call<'_>, session: &Session) -> Result<Response, Fault> {
        let security = self.security(call.endpoint);
        let known = *session.scheme.lock().unwrap_or_else(PoisonError::into_inner);
        let schemes = known.as_ref().map_or_else(|| self.schemes(&call.endpoint.host, security), std::slice::from_ref);
        let mut first: Option<Fault> = None;
        for scheme in schemes {
            let url = url(scheme, call).map_err(Fault::final_error)?;
            let outcome = self.authorised(call, session, &url, security).await;
            match outcome {
                Err(fault) if fault.wrong_scheme && known.is_none() => drop(first.get_or_insert(fault)),
                // What says nothing in the second way says nothing about the first.
                Err(fault) if first.is_some() && fault.status.is_none() && fault.retry != Retry::Never => {}
                outcome => {
                    if outcome.as_ref().map_or_else(|fault| fault.status.is_some(), |_| true) {
                        *session.scheme.lock().unwrap_or_else(PoisonError::into_inner) = Some(scheme);
                    }
                    return outcome;
                }
            }
        }
        // Of two ways that both fail the first is the likelier one, so its error is the one to show.
        Err(first.expect("there is at least one scheme"))
    }

    /// Sends with the grant we have, and once more with a new one if that is refused.
    async fn authorised(&self, call: &Call<'_>, session: &Session, url: &Url, security: Security) -> Result<Response, Fault> {
        // An upload may continue at another host, which is told nothing.
        let home = Url::parse(&base(url.scheme(), call.endpoint)).is_ok_and(|home| home.origin() == url.origin());
        let mut sent = session.grant.lock().await.clone().filter(|grant| home && grant.is_fresh());
        for last in [false, true] {
            let request = Request {
                what: call.what,
                method: call.method.clone(),
                url: url.clone(),
                headers: &call.headers,
                authorization: sent.as_ref().map(|grant| &grant.header),
                security,
                integrity: call.integrity,
                payload: &call.payload,
            };
            let (response, from) = redirect::send(&self.connections, &self.settings.patience, &request).await?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            let ours = home && from.origin() == url.origin();
            let login = if ours { self.login(call.endpoint).map_err(Fault::final_error)? } else { None };
            if status == StatusCode::UNAUTHORIZED && ours && !last {
                let challenges = response.headers().get_all(WWW_AUTHENTICATE).iter();
                let challenges: Vec<_> = challenges.filter_map(|h| h.to_str().ok()).flat_map(challenge::parse).collect();
                let purpose = if call.access == Access::LogIn { Purpose::LogIn } else { Purpose::Access };
                let demand = Demand { what: call.what, registry: url, security, scopes: &scopes(call), login: login.as_ref(), purpose };
                let old = sent.take();
                sent = self.renew(session, old, &challenges, &demand).await?;
                if sent.is_some() {
                    continue;
                }
            }
            return Err(self.refusal(call, response, &from, login.as_ref()).await);
        }
        unreachable!("the second round always returns")
    }

    /// A grant other than the one that was refused: perhaps another transfer has already fetched it.
    async fn renew(
        &self,
        session: &Session,
        refused: Option<Grant>,
        challenges: &[challenge::Challenge],
        demand: &Demand<'_>,
    ) -> Result<Option<Grant>, Fault> {
        let mut held = session.grant.lock().await;
        let newer = held.as_ref().filter(|grant| grant.is_fresh() && refused.as_ref().is_none_or(|old| old.header != grant.header));
        if let Some(newer) = newer {
            return Ok(Some(newer.clone()));
        }
        *held = token::grant(&self.connections, &self.settings.patience, challenges, demand).await?;
        Ok(held.clone())
    }

    /// Only a repository's own registry and mirrors named in registries.conf are endpoints, so each gets what is stored for it.
    /// What is given for this once is for the registry alone.
    fn login(&self, endpoint: &Endpoint) -> Result<Option<Login>> {
        self.settings.credentials.lookup(endpoint.asked.as_deref(), &endpoint.host, &endpoint.repository)
    }

    async fn refusal(&self, call: &Call<'_>, response: Response, from: &Url, login: Option<&Login>) -> Fault {
        let (status, retry) = (response.status(), retry_of(&response));
        let body = read_limited(response, LONGEST_COMPLAINT, self.settings.patience.stall).await.unwrap_or_default();
        // What Go's and nginx' servers say to HTTP on their TLS port; to HEAD they say nothing.
        let told = call.method == Method::HEAD || String::from_utf8_lossy(&body).contains("HTTPS");
        let wrong_scheme = status == StatusCode::BAD_REQUEST && told;
        let who = match login {
            _ if call.access == Access::LogIn => Who::Candidate,
            Some(login) => Who::Known(login),
            None => Who::Nobody,
        };
        let error = fault::of_status(call.what, from, status, &body, who);
        Fault { retry, wrong_scheme, status: Some(status), ..Fault::final_error(error) }
    }

    /// The ways to talk to a host, best first.
    ///
    /// Loopback is plain HTTP first, as nearly all registries there are: it saves loading CA certificates. Docker does it the
    /// other way round, with the same outcome.
    fn schemes(&self, host: &str, security: Security) -> &'static [&'static str] {
        let bare = host.rsplit_once(':').map_or(host, |(bare, port)| if port.ends_with(']') { host } else { bare });
        match (is_loopback(bare), security) {
            _ if self.settings.tls == TlsVerify::Always => &["https"],
            (true, _) => &["http", "https"],
            (false, Security::Insecure) => &["https", "http"],
            (false, Security::Verified) => &["https"],
        }
    }

    fn security(&self, endpoint: &Endpoint) -> Security {
        match self.settings.tls {
            TlsVerify::Never => Security::Insecure,
            TlsVerify::Always => Security::Verified,
            TlsVerify::Configured => endpoint.security,
        }
    }
}

/// What a call needs (distribution, docs/spec/auth/scope.md).
fn scopes(call: &Call<'_>) -> Vec<String> {
    let own = |actions: &str| format!("repository:{}:{actions}", call.endpoint.repository);
    match &call.access {
        Access::LogIn => Vec::new(),
        Access::Pull => vec![own("pull")],
        Access::Push => vec![own("pull,push")],
        Access::Mount { from } => vec![own("pull,push"), format!("repository:{from}:pull")],
    }
}

fn base(scheme: &str, endpoint: &Endpoint) -> String {
    let host = match endpoint.host.as_str() {
        "docker.io" => "registry-1.docker.io",
        host => host,
    };
    format!("{scheme}://{host}/v2/{}/", endpoint.repository)
}

fn url(scheme: &str, call: &Call<'_>) -> Result<Url> {
    let base = base(scheme, call.endpoint);
    let bad = |e: &dyn std::fmt::Display| Error::input(format!("invalid registry address {}", quote(&call.endpoint.host))).cause(e);
    let text = match &call.target {
        Target::Api => "/v2/",
        Target::Path(path) => return Url::parse(&format!("{base}{path}")).map_err(|e| bad(&e)),
        Target::Location(text) => text.as_str(),
    };
    let base = Url::parse(&base).map_err(|e| bad(&e))?;
    let refuse = |why: String| Error::with_kind(crate::error::Kind::Network, call.what).at(fault::place(&base)).cause(why);
    let mut url = base.join(text).map_err(|e| refuse(format!("it sends us to {}: {e}", quote(text))))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(refuse(format!("it sends us to {}, which is not a web address", quote(text))));
    }
    let _ = url.set_username("");
    let _ = url.set_password(None);
    // Registries behind a proxy that ends TLS often don't know that they are reached by it.
    if base.scheme() == "https" && url.host_str() == base.host_str() {
        let _ = url.set_scheme("https");
    }
    Ok(url)
}

/// Whether a status is worth another attempt.
pub(super) fn retry_of(response: &Response) -> Retry {
    let header = response.headers().get(RETRY_AFTER).and_then(|value: &HeaderValue| value.to_str().ok());
    let asked = header.and_then(|text| retry::retry_after(text, SystemTime::now()));
    match response.status().as_u16() {
        408 | 425 | 429 | 500 | 502 | 503 | 504 => Retry::After(asked),
        _ => Retry::Never,
    }
}

/// Reads a body that should be short; the error says why it could not be.
pub(super) async fn read_limited(mut response: Response, limit: usize, stall: Duration) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    let deadline = tokio::time::Instant::now() + stall;
    loop {
        match tokio::time::timeout_at(deadline, response.chunk()).await {
            Err(_) => return Err(format!("the answer was not complete after {} s", stall.as_secs_f32().ceil())),
            Ok(Err(e)) => return Err(format!("the answer broke off: {}", fault::innermost(&e))),
            Ok(Ok(None)) => return Ok(body),
            Ok(Ok(Some(chunk))) if body.len() + chunk.len() > limit => return Err(format!("the answer is longer than {limit} bytes")),
            Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
        }
    }
}
