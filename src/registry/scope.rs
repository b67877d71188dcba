//! What credentials are for: a registry, or a part of it.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result, quote};
use crate::oci::Reference;

/// A registry (`host[:port]`), or a namespace or repository in it (`host/team`, `host/team/app`), as containers-auth.json(5) has them.
///
/// Invariant: the registry is one that a reference can name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    registry: String,
    path: Option<String>,
}

impl Scope {
    /// `docker.io`, which is what no server at all means, as for docker.
    pub fn docker_hub() -> Self {
        Self { registry: DOCKER.into(), path: None }
    }

    /// `host[:port]`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path below the registry, if it is not for all of it.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// The name docker gives it in its own file and to helpers.
    pub(super) fn docker_name(&self) -> String {
        match self.to_string() {
            name if name == DOCKER => DOCKER_URL.into(),
            name => name,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.registry)?;
        self.path.iter().try_for_each(|path| write!(f, "/{path}"))
    }
}

impl FromStr for Scope {
    type Err = Error;

    /// Reads `host[:port]` and `host/path`. Of a URL (`https://`, `http://`, `docker://`) only the host counts, as for isula-build.
    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::docker_hub());
        }
        let (bare, is_url) = match text.split_once("://") {
            Some((scheme, rest)) if ["http", "https", "docker"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => (rest, true),
            Some(_) => return Err(invalid(text).cause("only `https://`, `http://` and `docker://` may stand before a registry")),
            None => (text, false),
        };
        // Not shown: what stands there may be a password.
        if bare.contains('@') {
            return Err(Error::input("invalid registry").cause("it holds an `@`").hint("give the name with `--username`"));
        }
        let (host, path) = bare.split_once('/').map_or((bare, ""), |(host, path)| (host, path.trim_matches('/')));
        let host = if is_docker(host) { DOCKER.into() } else { host.to_ascii_lowercase() };
        let path = Some(path).filter(|path| !is_url && !path.is_empty() && !matches!(*path, "v1" | "v2"));
        let named = format!("{host}/{}", path.unwrap_or("x")).parse::<Reference>().map_err(|e| {
            let why = e.causes().first().cloned().unwrap_or_default();
            invalid(text).cause(why)
        })?;
        if named.registry() != host {
            return Err(invalid(text)
                .cause(format!("{} names no registry: it has neither a dot nor a port", quote(&host)))
                .hint(format!("write its full name, or `{host}:PORT`; Docker's registry is `docker.io`")));
        }
        let plain = named.digest().is_none() && path.is_none_or(|path| !path.contains(':'));
        if !plain {
            return Err(invalid(text).cause("credentials are for a repository, not for a tag"));
        }
        Ok(Self { registry: host, path: path.map(str::to_owned) })
    }
}

const DOCKER: &str = "docker.io";
/// Docker's own name for its registry in its file and in every helper.
pub(super) const DOCKER_URL: &str = "https://index.docker.io/v1/";

fn is_docker(host: &str) -> bool {
    matches!(host.to_ascii_lowercase().as_str(), "docker.io" | "index.docker.io" | "registry-1.docker.io")
}

fn invalid(text: &str) -> Error {
    Error::input(format!("invalid registry {}", quote(text)))
}

/// A key of a credentials file as [`Scope`]'s text: `https://index.docker.io/v1/` is `docker.io`.
pub(super) fn normalise(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let legacy = bare.len() != key.len() || bare.ends_with("/v1/") || bare.ends_with("/v2/");
    let bare = if legacy { bare.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2") } else { bare };
    match bare.split_once('/').map_or((bare, ""), |(host, rest)| (host, rest)) {
        (host, "") if is_docker(host) => DOCKER.into(),
        (host, rest) if is_docker(host) => format!("{DOCKER}/{rest}"),
        _ => bare.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_servers() {
        for (text, expected) in [
            ("", "docker.io"),
            ("  ", "docker.io"),
            ("h.example", "h.example"),
            ("H.Example:5000", "h.example:5000"),
            ("https://h.example:5000/v2/", "h.example:5000"),
            ("http://h.example", "h.example"),
            ("docker://h.example/ns/repo", "h.example"),
            ("h.example/", "h.example"),
            ("h.example/v2/", "h.example"),
            ("h.example/team/app", "h.example/team/app"),
            ("localhost/team", "localhost/team"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("registry-1.docker.io", "docker.io"),
            ("docker.io/me", "docker.io/me"),
            ("[::1]:5000", "[::1]:5000"),
        ] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), expected, "{text}");
        }
        for text in ["nodot", "ftp://h.example", "u:p@h.example", "h.example/a:tag", "h.example/A", "h.example:x", "h .example"] {
            assert!(text.parse::<Scope>().is_err(), "{text}");
        }
    }

    #[test]
    fn knows_docker_by_every_name() {
        for (key, expected) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("index.docker.io", "docker.io"),
            ("docker.io/team", "docker.io/team"),
            ("http://b.example/v2/", "b.example"),
            ("b.example/ns", "b.example/ns"),
        ] {
            assert_eq!(normalise(key), expected, "{key}");
        }
        assert_eq!(Scope::docker_hub().docker_name(), DOCKER_URL);
    }
}
