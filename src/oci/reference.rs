//! Image references: `[registry/]repository[:tag][@digest]`.

use std::fmt;
use std::str::FromStr;

use super::Digest;
use crate::error::{Error, Result, quote};

/// The registry of names that name none.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// A reference as docker parses it (distribution/reference): `debian` is `docker.io/library/debian:latest`.
///
/// Invariant: registry and repository are valid; there is a tag, a digest, or both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A reference that names one manifest for ever: a repository and a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalReference {
    /// `host[:port]`.
    pub registry: String,
    /// Path below the registry.
    pub repository: String,
    /// The manifest.
    pub digest: Digest,
}

impl Reference {
    /// `host[:port]`, `docker.io` if none was written.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path below the registry, `library/debian`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `None` only if there is a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if pinned.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What stands for the manifest in a URL: the digest if there is one, else the tag.
    pub fn manifest_name(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => unreachable!("a reference has a tag or a digest"),
        }
    }

    /// The same repository, pinned.
    pub fn canonical(&self, digest: Digest) -> CanonicalReference {
        CanonicalReference { registry: self.registry.clone(), repository: self.repository.clone(), digest }
    }

    /// As people write it: without `docker.io/library/` and without `docker.io/`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        if self.registry != DEFAULT_REGISTRY {
            return full;
        }
        let short = &full[DEFAULT_REGISTRY.len() + 1..];
        // `library/a/b` shortened to `a/b` would read as another repository.
        match short.strip_prefix("library/") {
            Some(official) if !self.repository["library/".len()..].contains('/') => official.to_owned(),
            _ => short.to_owned(),
        }
    }

    /// The repository as people write it, without tag and digest.
    pub fn familiar_repository(&self) -> String {
        let bare = Self { tag: None, digest: None, ..self.clone() };
        bare.familiar()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).map_err(|why| {
            let error = Error::input(format!("invalid image reference {}", quote(text))).cause(why);
            let lower = text.to_lowercase();
            if lower != text && parse(&lower).is_ok() { error.hint(format!("did you mean {}?", quote(lower))) } else { error }
        })
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest.parse::<Digest>().map_err(|e| e.to_string())?)),
        None => (text, None),
    };
    // A colon after the last slash separates the tag; any other belongs to the port.
    let (name, tag) = match name.rfind(':').filter(|at| !name[*at..].contains('/')) {
        Some(at) => (&name[..at], Some(&name[at + 1..])),
        None => (name, None),
    };
    if let Some(tag) = tag
        && !is_tag(tag)
    {
        return Err(format!("tag {} is not 1 to 128 letters, digits, `_`, `.` or `-`", quote(tag)));
    }
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if is_host(first) => (first, rest),
        _ => (DEFAULT_REGISTRY, name),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    if !is_registry(registry) {
        return Err(format!("{} is not a registry's host name or address", quote(registry)));
    }
    if digest.is_none() && tag.is_none() && name.len() == 64 && Digest::from_hex(name).is_some() {
        return Err("64 hexadecimal digits are an image ID, not a name".into());
    }
    for component in repository.split('/') {
        if !is_component(component) {
            return Err(match component {
                "" => "the repository has an empty path component".into(),
                c => format!("repository component {} is not lower-case letters and digits separated by `.`, `_`, `__` or `-`", quote(c)),
            });
        }
    }
    let repository = match registry {
        DEFAULT_REGISTRY if !repository.contains('/') => format!("library/{repository}"),
        _ => repository.to_owned(),
    };
    if registry.len() + 1 + repository.len() > 255 {
        return Err("registry and repository are longer than 255 characters".into());
    }
    let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| "latest".to_owned()));
    Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
}

/// Whether what stands before the first slash names a registry.
pub(super) fn is_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.chars().any(char::is_uppercase)
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len()) && word(tag.as_bytes()[0]) && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let host_ok = match host.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']').is_some_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok()),
        None => host.split('.').all(|label| {
            let bytes = label.as_bytes();
            let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
            *first != b'-' && *last != b'-' && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
        }),
    };
    host_ok && port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok())
}

/// `[a-z0-9]+` runs joined by one of `.`, `_`, `__` or any number of `-`.
fn is_component(component: &str) -> bool {
    let run = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    run(first)
        && run(last)
        && bytes.split(|b| run(*b)).all(|sep| matches!(sep, b"" | b"." | b"_" | b"__") || sep.iter().all(|b| *b == b'-'))
}

impl fmt::Display for CanonicalReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.registry, self.repository, self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_as_docker_does() {
        let digest = Digest::of("");
        for (text, full, familiar) in [
            ("debian", "docker.io/library/debian:latest", "debian:latest"),
            ("debian:12", "docker.io/library/debian:12", "debian:12"),
            ("user/app", "docker.io/user/app:latest", "user/app:latest"),
            ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("index.docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("localhost:5000/app:1", "localhost:5000/app:1", "localhost:5000/app:1"),
            ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest", "127.0.0.1:5000/a/b/c:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("a__b/c-d---e.f", "docker.io/a__b/c-d---e.f:latest", "a__b/c-d---e.f:latest"),
            (&format!("debian@{digest}"), &format!("docker.io/library/debian@{digest}"), &format!("debian@{digest}")),
            (&format!("d:1@{digest}"), &format!("docker.io/library/d:1@{digest}"), &format!("d:1@{digest}")),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
            assert_eq!(familiar.parse::<Reference>().unwrap(), reference, "{text}");
        }
    }

    #[test]
    fn refuses_what_docker_refuses() {
        let hex = "0".repeat(64);
        for text in [
            "",
            "Debian",
            "a//b",
            "/a",
            "a/",
            "a:",
            "a:-x",
            "a@sha256:00",
            "a@md5:00",
            "a___b",
            "-a",
            "a b",
            "a:b:c",
            "example.com:/x",
            "..",
            &hex,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
