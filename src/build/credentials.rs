//! Which secrets are credentials for which host, by BuildKit's names.
//!
//! ```text
//! HTTP_AUTH_HEADER_HOST, HTTP_AUTH_TOKEN_HOST                              for URLs of that host
//! GIT_AUTH_HEADER.HOST, GIT_AUTH_TOKEN.HOST, GIT_AUTH_HEADER, GIT_AUTH_TOKEN   for repositories by HTTP(S)
//! ```
//!
//! A header is sent as it is; a token is a bearer's for URLs, and a password of user `x-access-token` for repositories. The first name that
//! there is counts. HOST may be with or without its port. Source: BuildKit, source/http and source/git; Dockerfile reference, ADD.

use std::collections::BTreeMap;

use base64::Engine as _;

use super::surroundings::Secret;
use crate::error::{Error, Result, quote};
use crate::transfer::git::GitAddress;

/// The secrets of a build, by ID.
pub type Secrets = BTreeMap<String, Secret>;

/// What is sent to the host of a URL.
pub fn for_url(secrets: &Secrets, url: &str) -> Result<Option<String>> {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest).split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let named = |kind: &str| hosts(authority).map(|host| format!("{kind}_{host}")).collect::<Vec<_>>();
    if let Some(header) = first(secrets, &named("HTTP_AUTH_HEADER"))? {
        return Ok(Some(header));
    }
    Ok(first(secrets, &named("HTTP_AUTH_TOKEN"))?.map(|token| format!("Bearer {token}")))
}

/// What is sent to the host of a repository.
pub fn for_repository(secrets: &Secrets, address: &GitAddress) -> Result<Option<String>> {
    let Some(authority) = address.web_host() else { return Ok(None) };
    let scoped = |kind: &str| hosts(authority).map(|host| format!("{kind}.{host}")).collect::<Vec<_>>();
    for suffix in [true, false] {
        let names = |kind: &str| if suffix { scoped(kind) } else { vec![kind.to_owned()] };
        if let Some(header) = first(secrets, &names("GIT_AUTH_HEADER"))? {
            return Ok(Some(header));
        }
        if let Some(token) = first(secrets, &names("GIT_AUTH_TOKEN"))? {
            let pair = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{token}"));
            return Ok(Some(format!("Basic {pair}")));
        }
    }
    Ok(None)
}

/// A host with its port, then without.
fn hosts(authority: &str) -> impl Iterator<Item = &str> {
    let bare = authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map(|(host, _)| host);
    [Some(authority), bare].into_iter().flatten()
}

/// The first secret there is, without the line's end that editors add.
fn first(secrets: &Secrets, names: &[String]) -> Result<Option<String>> {
    let Some((name, secret)) = names.iter().find_map(|name| Some((name, secrets.get(name)?))) else { return Ok(None) };
    let text = std::str::from_utf8(secret.reveal()).ok().map(str::trim).filter(|text| !text.contains(char::is_control));
    match text {
        Some(text) if !text.is_empty() => Ok(Some(text.to_owned())),
        _ => Err(Error::input(format!("secret {} is no header and no token", quote(name))).hint("it must be one line of text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::git::Writer;

    fn secrets(pairs: &[(&str, &str)]) -> Secrets {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(value.as_bytes().to_vec()))).collect()
    }

    #[test]
    fn urls_get_what_is_meant_for_their_host() {
        let all = secrets(&[("HTTP_AUTH_TOKEN_h", "t\n"), ("HTTP_AUTH_HEADER_h:8443", "Basic x"), ("HTTP_AUTH_TOKEN_bad", "a\nb")]);
        for (url, expected) in [
            ("https://h/x", Some("Bearer t")),
            ("https://h:8443/x", Some("Basic x")),
            ("https://u:p@h:1/x?a=@b", Some("Bearer t")),
            ("https://sub.h/x", None),
            ("https://other/h", None),
        ] {
            assert_eq!(for_url(&all, url).unwrap().as_deref(), expected, "{url}");
        }
        assert!(for_url(&all, "https://bad/").is_err());
    }

    #[test]
    fn repositories_get_the_nearest() {
        let address = |text: &str| GitAddress::parse(text, Writer::User).unwrap().unwrap();
        let all = secrets(&[("GIT_AUTH_TOKEN", "t"), ("GIT_AUTH_HEADER.h", "Bearer h"), ("GIT_AUTH_TOKEN.h", "no")]);
        for (text, expected) in [
            ("https://h/x.git", Some("Bearer h")),
            ("https://other/x.git", Some("Basic eC1hY2Nlc3MtdG9rZW46dA==")),
            ("git@h:x.git", None),
            ("git://h/x", None),
        ] {
            assert_eq!(for_repository(&all, &address(text)).unwrap().as_deref(), expected, "{text}");
        }
    }
}
