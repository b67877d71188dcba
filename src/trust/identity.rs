//! Whether the name that was signed is the name that was asked for.
//!
//! Source: containers-policy.json(5), `signedIdentity`.

use std::fmt;

use crate::error::Result;
use crate::oci::Reference;

/// A name as a signature has it. Unlike a [`Reference`] it may have neither tag nor digest: cosign signs repositories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// What a signed name must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The repository asked for, and the tag where both names have one: what cosign's signatures and all others can fulfil.
    Claimed,
    /// `matchExact`: the very name.
    Exact,
    /// `matchRepoDigestOrExact`: the very name; for an image asked for by digest, its repository, and the tag where both names have one.
    RepositoryDigestOrExact,
    /// `matchRepository`: the same repository.
    Repository,
    /// `exactReference`: this name.
    ThisReference(String),
    /// `exactRepository`: some name of this repository.
    ThisRepository(String),
    /// `remapIdentity`: as `matchRepoDigestOrExact`, after the beginning of the name is replaced.
    Remapped {
        /// The beginning.
        prefix: String,
        /// What stands in its place.
        signed: String,
    },
}

impl Claim {
    /// Reads a name, `docker.io/library/` being implied as usual.
    pub fn parse(text: &str) -> Result<Self> {
        let reference: Reference = text.parse()?;
        let (name, digest) = text.split_once('@').unwrap_or((text, ""));
        let tagged = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
        Ok(Self {
            repository: format!("{}/{}", reference.registry(), reference.repository()),
            tag: reference.tag().filter(|_| tagged).map(str::to_owned),
            digest: Some(digest.to_owned()).filter(|digest| !digest.is_empty()),
        })
    }

    /// The name of an image that is asked for. A tag counts beside a digest, too, since the image gets its name.
    pub fn of(reference: &Reference) -> Self {
        Self {
            repository: format!("{}/{}", reference.registry(), reference.repository()),
            tag: reference.tag().map(str::to_owned),
            digest: reference.digest().map(ToString::to_string),
        }
    }

    fn is_bare(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// The same under another beginning; unchanged if it does not begin so.
    fn remapped(&self, prefix: &str, signed: &str) -> Self {
        let repository = match self.repository.strip_prefix(prefix) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{signed}{rest}"),
            _ => self.repository.clone(),
        };
        Self { repository, ..self.clone() }
    }
}

impl Identity {
    /// Whether a signed name will do for the one asked for.
    pub fn accepts(&self, asked: &Claim, signed: &Claim) -> bool {
        let same_repository = asked.repository == signed.repository;
        match self {
            Self::Claimed => same_repository && (asked.tag.is_none() || signed.tag.is_none() || asked.tag == signed.tag),
            Self::Exact => asked == signed && !signed.is_bare(),
            Self::RepositoryDigestOrExact => match &asked.digest {
                Some(_) => Self::Claimed.accepts(asked, signed),
                None => asked == signed,
            },
            Self::Repository => same_repository,
            Self::ThisReference(name) => Claim::parse(name).is_ok_and(|name| name == *signed && !signed.is_bare()),
            Self::ThisRepository(name) => Claim::parse(name).is_ok_and(|name| name.repository == signed.repository),
            Self::Remapped { prefix, signed: to } => Self::RepositoryDigestOrExact.accepts(&asked.remapped(prefix, to), signed),
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    #[test]
    fn compares_names() {
        let digest = format!("h/a@{}", Digest::of("x"));
        let other = format!("h/a@{}", Digest::of("y"));
        let both = format!("h/a:1@{}", Digest::of("x"));
        let remapped = || Identity::Remapped { prefix: "h".into(), signed: "vendor.example".into() };
        for (identity, asked, signed, expected) in [
            (Identity::Claimed, "h/a:1", "h/a", true),
            (Identity::Claimed, "h/a:1", "h/a:1", true),
            (Identity::Claimed, "h/a:1", "h/a:2", false),
            (Identity::Claimed, "h/a:1", "h/b:1", false),
            (Identity::Claimed, &digest, "h/a:2", true),
            (Identity::Claimed, &both, "h/a:1", true),
            (Identity::Claimed, &both, "h/a:2", false),
            (Identity::Claimed, &both, "h/a", true),
            (Identity::Exact, "h/a:1", "h/a:1", true),
            (Identity::Exact, &both, &digest, false),
            (Identity::Exact, &both, &both, true),
            (Identity::RepositoryDigestOrExact, &both, "h/a:1", true),
            (Identity::RepositoryDigestOrExact, &both, "h/a:2", false),
            (Identity::RepositoryDigestOrExact, &both, &other, true),
            (Identity::Exact, "h/a:1", "h/a", false),
            (Identity::Exact, &digest, "h/a:1", false),
            (Identity::Exact, &digest, &digest, true),
            (Identity::RepositoryDigestOrExact, "h/a:1", "h/a:1", true),
            (Identity::RepositoryDigestOrExact, "h/a:1", "h/a", false),
            (Identity::RepositoryDigestOrExact, "h/a", "h/a:latest", true),
            (Identity::RepositoryDigestOrExact, "h/a", "h/a", false),
            (Identity::RepositoryDigestOrExact, &digest, "h/a:2", true),
            (Identity::RepositoryDigestOrExact, &digest, &other, true),
            (Identity::RepositoryDigestOrExact, &digest, "h/b:2", false),
            (Identity::Repository, "h/a:1", "h/a:2", true),
            (Identity::Repository, "h/a:1", "h/aa:1", false),
            (Identity::ThisReference("v/x:3".into()), "h/a:1", "docker.io/v/x:3", true),
            (Identity::ThisReference("v/x:3".into()), "h/a:1", "docker.io/v/x", false),
            (Identity::ThisRepository("busybox".into()), "h/a:1", "docker.io/library/busybox:9", true),
            (Identity::ThisRepository("busybox".into()), "h/a:1", "h/a:1", false),
            (remapped(), "h/p/a:1", "vendor.example/p/a:1", true),
            (remapped(), "h/p/a:1", "h/p/a:1", false),
            (remapped(), "hh/a:1", "hh/a:1", true),
        ] {
            let asked = asked.replace("h/", "h.example/").replace("hh.", "hhh.");
            let signed = signed.replace("h/", "h.example/").replace("hh.", "hhh.");
            let identity = match identity {
                Identity::Remapped { signed, .. } => Identity::Remapped { prefix: "h.example".into(), signed },
                other => other,
            };
            let (asked, signed) = (Claim::of(&asked.parse().unwrap()), Claim::parse(&signed).unwrap());
            assert_eq!(identity.accepts(&asked, &signed), expected, "{identity:?} {asked} {signed}");
        }
    }
}
