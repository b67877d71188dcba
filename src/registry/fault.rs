//! What went wrong with an exchange, in the user's words, and whether trying again makes sense.

use std::error::Error as StdError;
use std::time::Duration;

use reqwest::{StatusCode, Url};
use serde_json::Value;

use super::credentials::Login;
use crate::error::{Error, Kind, Place, describe_io, quote};

/// How a user gives credentials.
fn credentials(registry: &str) -> String {
    format!("`rootling login {registry}` (or podman's and docker's), or `--creds USER` for this once")
}

/// As whom a registry was asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Who<'a> {
    /// As nobody.
    Nobody,
    /// With credentials that were given or stored.
    Known(&'a Login),
    /// With credentials that are being tried.
    Candidate,
}

/// Whether trying again makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// It will stay so.
    Never,
    /// It probably will stay so: a server that is restarting also refuses connections.
    Briefly,
    /// It may pass; the server may have said when.
    After(Option<Duration>),
}

/// An exchange that failed.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) error: Error,
    pub(super) retry: Retry,
    /// The server may want HTTPS instead of HTTP, or the other way round.
    pub(super) wrong_scheme: bool,
    /// What was answered, if anything was.
    pub(super) status: Option<StatusCode>,
    /// Nothing came for as long as we wait.
    pub(super) silent: bool,
}

impl Fault {
    pub(super) fn final_error(error: Error) -> Self {
        Self { error, retry: Retry::Never, wrong_scheme: false, status: None, silent: false }
    }

    pub(super) fn passing(error: Error) -> Self {
        Self { retry: Retry::After(None), ..Self::final_error(error) }
    }
}

/// The place of an exchange.
pub(super) fn place(url: &Url) -> Place {
    Place::Name(shown(url))
}

/// A URL without query, which may hold a signature, and without credentials.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

/// `host[:port]` of a URL.
pub(super) fn host(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    }
}

/// No byte came in time.
pub(super) fn silent(what: &str, url: &Url, waited: Duration) -> Fault {
    let error = Error::with_kind(Kind::Network, what).at(place(url));
    let why = format!("{} has sent nothing for {} s", quote(host(url)), waited.as_secs_f32().ceil());
    Fault { silent: true, ..Fault::passing(error.cause(why)) }
}

/// The connection could not be made or broke.
pub(super) fn of_connection(what: &str, url: &Url, error: reqwest::Error) -> Fault {
    let host = host(url);
    let base = Error::with_kind(Kind::Network, what).at(place(url));
    if error.is_dns() {
        let error = base
            .cause(format!("unknown host {}", quote(&host)))
            .hint("check the host's name, the network, and `HTTPS_PROXY` and `NO_PROXY` where a proxy is needed");
        return Fault { retry: Retry::Briefly, ..Fault::final_error(error) };
    }
    if let Some(tls) = find::<rustls::Error>(&error) {
        return of_tls(base, &host, tls);
    }
    if let Some(io) = find::<std::io::Error>(&error).filter(|io| io.raw_os_error().is_some()) {
        let refused = io.kind() == std::io::ErrorKind::ConnectionRefused;
        let caused = base.cause(format!("connection to {}: {}", quote(&host), describe_io(io)));
        if refused {
            return Fault {
                retry: Retry::Briefly,
                wrong_scheme: true,
                ..Fault::final_error(caused.hint("check the port, and that the server is running"))
            };
        }
        return Fault { wrong_scheme: true, ..Fault::passing(caused) };
    }
    if error.is_timeout() {
        return Fault::passing(base.cause(format!("connection to {}: no answer in time", quote(&host))));
    }
    let broken = base.cause(format!("connection to {}: {}", quote(&host), innermost(&error)));
    Fault { wrong_scheme: true, ..Fault::passing(broken) }
}

fn of_tls(base: Error, host: &str, tls: &rustls::Error) -> Fault {
    use rustls::CertificateError as Bad;
    let without = "or pass `--tls-verify=false` if this network can be trusted";
    let error = match tls {
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer) => {
            base.cause(format!("{} shows a certificate of an unknown authority", quote(host))).hint(format!(
                "put the authority's certificate into /etc/containers/certs.d/{host}/ca.crt or /etc/docker/certs.d/{host}/ca.crt, {without}"
            ))
        }
        rustls::Error::InvalidCertificate(bad) => {
            let why = match bad {
                Bad::Expired | Bad::ExpiredContext { .. } => "has expired".to_owned(),
                Bad::NotValidYet | Bad::NotValidYetContext { .. } => "is not valid yet; is the clock right?".to_owned(),
                Bad::NotValidForName | Bad::NotValidForNameContext { .. } => "is for another name".to_owned(),
                other => format!("is not acceptable: {other}"),
            };
            base.cause(format!("the certificate of {} {why}", quote(host))).hint(format!("tell the server's operators, {without}"))
        }
        rustls::Error::InvalidMessage(_) => base
            .cause(format!("{} does not speak TLS", quote(host)))
            .hint("if it speaks plain HTTP in a trusted network, pass `--tls-verify=false`"),
        other => base.cause(format!("TLS with {}: {other}", quote(host))),
    };
    Fault { wrong_scheme: matches!(tls, rustls::Error::InvalidMessage(_)), ..Fault::final_error(error) }
}

/// A registry's answer that is not the one hoped for.
pub(super) fn of_status(what: &str, url: &Url, status: StatusCode, body: &[u8], who: Who<'_>) -> Error {
    let host = host(url);
    let kind = match status {
        StatusCode::NOT_FOUND => Kind::NotFound,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Kind::Denied,
        StatusCode::RANGE_NOT_SATISFIABLE => Kind::Corrupt,
        s if s.is_server_error() || s == StatusCode::TOO_MANY_REQUESTS => Kind::Network,
        _ => Kind::Other,
    };
    let mut error = Error::with_kind(kind, what).at(place(url)).cause(match said(body) {
        Some(text) => format!("{} answered {status}: {}", quote(&host), quote(text)),
        None => format!("{} answered {status}", quote(&host)),
    });
    let shown = if host == "registry-1.docker.io" { "docker.io" } else { &host };
    let credentials = credentials(shown);
    match (status, who) {
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Who::Nobody) => {
            error = error.hint(format!("check the name; if it is private, give credentials for {shown} first: {credentials}"));
        }
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Who::Known(login)) => {
            let who = login.user().map_or_else(|| "the stored token".to_owned(), |user| format!("user {}", quote(user)));
            error = error.hint(format!("{who} may not do this; give credentials of somebody who may for {shown}: {credentials}"));
        }
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Who::Candidate) => {
            error = error.hint("check the user name and the password; many registries want an access token in the place of the password");
        }
        (StatusCode::TOO_MANY_REQUESTS, Who::Nobody) => {
            error = error.hint(format!("try again later; users with credentials often may do more: {credentials}"));
        }
        (StatusCode::NOT_FOUND, Who::Candidate) => error = error.hint("is it a registry? They answer at `/v2/`"),
        (StatusCode::NOT_FOUND, _) => error = error.hint(missing(&said(body).unwrap_or_default())),
        (StatusCode::PAYLOAD_TOO_LARGE, _) => {
            error = error.hint("the registry, or a proxy before it, takes less at once; its operators can raise that limit");
        }
        (s, _) if s.is_server_error() => error = error.hint("the registry has a problem; try again later"),
        _ => {}
    }
    error
}

/// What to do about something that is not there, by the registry's code for it (distribution-spec, "Error Codes").
fn missing(said: &str) -> &'static str {
    match said {
        said if said.contains("BLOB_UPLOAD_UNKNOWN") => {
            "the registry loses uploads, as several servers behind one name do that share no storage; tell its operators"
        }
        said if said.contains("BLOB_UNKNOWN") => "the registry lacks a part of the image; push the image again, or tell its operators",
        _ => "check the repository's name and the tag",
    }
}

/// What a registry's answer says, from its JSON form (distribution-spec, "Error Codes") or its first line of text.
pub(super) fn said(body: &[u8]) -> Option<String> {
    let mut out = match serde_json::from_slice::<Value>(body) {
        Ok(value) => {
            let first = &value["errors"][0];
            let texts =
                [&first["message"], &first["code"], &value["message"], &value["details"], &value["error_description"], &value["error"]];
            let message = texts.iter().find_map(|t| t.as_str().filter(|t| !t.is_empty()))?.to_owned();
            match first["code"].as_str() {
                Some(code) if code != message => format!("{message} ({code})"),
                _ => message,
            }
        }
        Err(_) => {
            let text = String::from_utf8_lossy(body);
            // An HTML error page says nothing that its status does not.
            text.trim().lines().next().filter(|line| !line.is_empty() && !line.starts_with('<'))?.to_owned()
        }
    };
    if let Some((cut, _)) = out.char_indices().nth(300) {
        out.truncate(cut);
        out.push('…');
    }
    Some(out)
}

/// The first error of type `E` in the chain; `io::Error` hides what it wraps from `source`.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        let inner = error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        if let Some(found) = inner.and_then(|inner| find(inner as &(dyn StdError + 'static))) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

pub(super) fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_what_the_registry_says() {
        for (body, expected) in [
            (r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#, Some("manifest unknown (MANIFEST_UNKNOWN)")),
            (r#"{"errors":[{"code":"DENIED"}]}"#, Some("DENIED")),
            (r#"{"details":"incorrect username or password"}"#, Some("incorrect username or password")),
            ("Bad gateway\nmore", Some("Bad gateway")),
            ("<html><body>", None),
            ("{}", None),
            ("", None),
        ] {
            assert_eq!(said(body.as_bytes()).as_deref(), expected, "{body}");
        }
        assert_eq!(said("x".repeat(5000).as_bytes()).unwrap().chars().count(), 301);
    }

    #[test]
    fn places_hide_secrets() {
        let url = Url::parse("https://u:p@h.example/a?X-Signature=s#f").unwrap();
        assert_eq!(place(&url), Place::Name("https://h.example/a".into()));
    }
}
