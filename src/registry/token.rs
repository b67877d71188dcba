//! Authorization headers: Basic, and Docker's bearer tokens (distribution, docs/spec/auth/token.md and oauth.md).

use std::time::{Duration, Instant};

use base64::Engine as _;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;

use super::challenge::Challenge;
use super::connections::{Connections, is_loopback};
use super::credentials::Login;
use super::fault::{self, Fault, Who};
use super::registries_conf::Security;
use super::settings::Patience;
use super::transport::{read_limited, retry_of};
use crate::error::{Error, Kind, Result, quote};

/// No token is longer; a header could not carry it.
const LONGEST_TOKEN: usize = 1 << 20;
/// What we call ourselves at token servers.
const CLIENT: &str = "rootling";

/// A header to send, and until when.
#[derive(Clone)]
pub(super) struct Grant {
    pub(super) header: HeaderValue,
    pub(super) expires: Option<Instant>,
    /// An identity token to log in with from now on, if one was asked for and given.
    pub(super) identity: Option<String>,
}

impl Grant {
    pub(super) fn is_fresh(&self) -> bool {
        self.expires.is_none_or(|end| Instant::now() < end)
    }
}

/// What a grant is asked for.
pub(super) struct Demand<'a> {
    pub(super) what: &'a str,
    /// The registry that asked for it.
    pub(super) registry: &'a Url,
    pub(super) security: Security,
    /// `repository:NAME:ACTIONS` each.
    pub(super) scopes: &'a [String],
    pub(super) login: Option<&'a Login>,
    pub(super) purpose: Purpose,
}

/// What a grant is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Something in a repository.
    Access,
    /// To find out whether the login is good, and to get an identity token in its place.
    LogIn,
}

impl Demand<'_> {
    fn who(&self) -> Who<'_> {
        match (self.purpose, self.login) {
            (Purpose::LogIn, _) => Who::Candidate,
            (Purpose::Access, Some(login)) => Who::Known(login),
            (Purpose::Access, None) => Who::Nobody,
        }
    }

    fn refuse(&self, why: String) -> Fault {
        Fault::final_error(Error::with_kind(Kind::Denied, self.what).at(fault::place(self.registry)).cause(why))
    }
}

/// Answers a registry's challenges; `None` if none can be answered with what we have.
pub(super) async fn grant(
    connections: &Connections,
    patience: &Patience,
    challenges: &[Challenge],
    demand: &Demand<'_>,
) -> Result<Option<Grant>, Fault> {
    if let Some(Login::RegistryToken(token)) = demand.login {
        return Ok(Some(Grant { header: secret(format!("Bearer {token}")).map_err(Fault::final_error)?, expires: None, identity: None }));
    }
    if let Some(challenge) = challenges.iter().find(|c| c.scheme == "bearer") {
        return bearer(connections, patience, challenge, demand).await.map(Some);
    }
    match (challenges.iter().any(|c| c.scheme == "basic"), demand.login) {
        (true, Some(Login::Password { user, password })) => {
            Ok(Some(Grant { header: basic(user, password).map_err(Fault::final_error)?, expires: None, identity: None }))
        }
        _ => Ok(None),
    }
}

async fn bearer(connections: &Connections, patience: &Patience, challenge: &Challenge, demand: &Demand<'_>) -> Result<Grant, Fault> {
    let what = demand.what;
    let realm = challenge.parameters.get("realm").map_or("", String::as_str);
    let realm = Url::parse(realm).map_err(|_| demand.refuse(format!("the registry's token server {} is no web address", quote(realm))))?;
    let plain = realm.scheme() != "https" && !realm.host_str().is_some_and(is_loopback);
    if demand.login.is_some() && plain && demand.security == Security::Verified {
        return Err(demand.refuse(format!("the token server {} would get the password over plain HTTP", quote(fault::host(&realm)))));
    }
    let client = connections.client(&realm, demand.security).map_err(Fault::final_error)?;
    let asked = Asked { client: &client, realm: &realm, challenge, demand };
    let mut response = send(asked.token().map_err(Fault::final_error)?, &asked, patience).await?;
    // Servers that know OAuth2 alone have nothing at GET.
    if matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)
        && let Some(Login::Password { user, password }) = demand.login
    {
        response = send(asked.oauth(&[("grant_type", "password"), ("username", user), ("password", password)]), &asked, patience).await?;
    }
    let (status, retry) = (response.status(), retry_of(&response));
    let body = read_limited(response, LONGEST_TOKEN, patience.stall).await.map_err(|why| demand.refuse(why))?;
    if status != StatusCode::OK {
        // What to log in to is the registry, not its token server.
        let error = fault::of_status(what, demand.registry, status, &body, demand.who());
        let error = error.cause(format!("asked was its token server {}", quote(fault::host(&realm))));
        return Err(Fault { retry, ..Fault::final_error(error) });
    }
    token(&body).ok_or_else(|| demand.refuse(format!("the answer of the token server {} holds no token", quote(fault::host(&realm)))))
}

async fn send(request: RequestBuilder, asked: &Asked<'_>, patience: &Patience) -> Result<Response, Fault> {
    let what = asked.demand.what;
    let answer = tokio::time::timeout(patience.stall, request.send()).await;
    answer.map_err(|_| fault::silent(what, asked.realm, patience.stall))?.map_err(|e| fault::of_connection(what, asked.realm, e))
}

/// A token server, and what it is asked for.
struct Asked<'a> {
    client: &'a reqwest::Client,
    realm: &'a Url,
    challenge: &'a Challenge,
    demand: &'a Demand<'a>,
}

impl Asked<'_> {
    /// A refresh token is posted (oauth.md); a password goes as Basic on a GET (token.md), which nearly every token server understands.
    fn token(&self) -> Result<RequestBuilder> {
        if let Some(Login::IdentityToken { token, .. }) = self.demand.login {
            return Ok(self.oauth(&[("grant_type", "refresh_token"), ("refresh_token", token)]));
        }
        let scopes = self.scopes();
        let mut query: Vec<(&str, &str)> = self.service().iter().map(|service| ("service", *service)).collect();
        query.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
        if self.demand.purpose == Purpose::LogIn {
            query.extend([("offline_token", "true"), ("client_id", CLIENT)]);
        }
        let request = self.client.get(self.realm.clone());
        Ok(match self.demand.login {
            Some(Login::Password { user, password }) => {
                query.insert(0, ("account", user));
                request.query(&query).header(AUTHORIZATION, basic(user, password)?)
            }
            _ => request.query(&query),
        })
    }

    fn oauth(&self, proof: &[(&str, &str)]) -> RequestBuilder {
        let scopes = self.scopes().join(" ");
        let mut form = proof.to_vec();
        form.extend([("service", self.service().unwrap_or_default()), ("scope", &scopes), ("client_id", CLIENT)]);
        if self.demand.purpose == Purpose::LogIn {
            form.push(("access_type", "offline"));
        }
        self.client.post(self.realm.clone()).form(&form)
    }

    fn service(&self) -> Option<&str> {
        self.challenge.parameters.get("service").map(String::as_str)
    }

    fn scopes(&self) -> Vec<String> {
        scopes(self.challenge.parameters.get("scope").map(String::as_str), self.demand.scopes)
    }
}

/// The challenge's scopes and ours, each once.
fn scopes(asked: Option<&str>, ours: &[String]) -> Vec<String> {
    let mut scopes: Vec<String> = asked.unwrap_or_default().split(' ').filter(|s| !s.is_empty()).map(str::to_owned).collect();
    for scope in ours {
        if !scopes.contains(scope) {
            scopes.push(scope.clone());
        }
    }
    scopes
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    expires_in: Option<u64>,
    #[serde(default)]
    refresh_token: String,
}

fn token(body: &[u8]) -> Option<Grant> {
    let answer: TokenAnswer = serde_json::from_slice(body).ok()?;
    let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
    if token.is_empty() {
        return None;
    }
    // The specification's default is 60 s. A tenth less: clocks and transfers take their share.
    let lifetime = Duration::from_secs(answer.expires_in.unwrap_or(60)).mul_f32(0.9);
    let identity = Some(answer.refresh_token).filter(|token| !token.is_empty());
    Some(Grant { header: secret(format!("Bearer {token}")).ok()?, expires: Instant::now().checked_add(lifetime), identity })
}

pub(super) fn basic(user: &str, password: &str) -> Result<HeaderValue> {
    secret(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))))
}

/// A header value that is never shown in debug output.
pub(super) fn secret(text: String) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&text).map_err(|_| Error::input("credentials hold a character no HTTP header may have"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_scopes() {
        for (asked, expected) in [
            (None, &["repository:a:pull"][..]),
            (Some("repository:a:pull"), &["repository:a:pull"]),
            (Some("repository:a:pull,push x:y:z"), &["repository:a:pull,push", "x:y:z", "repository:a:pull"]),
        ] {
            assert_eq!(scopes(asked, &["repository:a:pull".into()]), expected);
        }
    }

    #[test]
    fn reads_tokens() {
        for (body, expected) in [
            (r#"{"token":"T"}"#, Some("Bearer T")),
            (r#"{"access_token":"A","expires_in":300}"#, Some("Bearer A")),
            (r#"{"token":""}"#, None),
            (r#"{"token":"a\nb"}"#, None),
            ("", None),
        ] {
            assert_eq!(token(body.as_bytes()).map(|g| g.header.to_str().unwrap().to_owned()).as_deref(), expected, "{body}");
        }
        assert!(!token(br#"{"token":"T","expires_in":0}"#).unwrap().is_fresh());
        assert!(token(br#"{"token":"T","expires_in":18446744073709551615}"#).is_some());
    }
}
