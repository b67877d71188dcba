//! Names without a registry, where more than `docker.io` is searched: containers-registries.conf(5), "Short-Name Aliasing".
//!
//! Only `unqualified-search-registries` turns this on. Without it a short name means `docker.io`, as in docker, whatever aliases a
//! distribution has installed: a Dockerfile then means the same on every machine.

use std::collections::BTreeMap;

use super::Reference;
use super::reference::is_host;
use crate::error::{Error, Result, quote};

/// What short names mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShortNames {
    /// Registries that are searched, in their order; with none of them all short names are docker's.
    pub search: Vec<String>,
    /// Full names of short ones.
    pub aliases: BTreeMap<String, String>,
    /// What to do when several registries might be meant.
    pub mode: ShortNameMode,
}

/// What to do when several registries might be meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShortNameMode {
    /// Refuse, as podman does where nobody can be asked.
    Enforcing,
    /// Search them in their order.
    #[default]
    Permissive,
    /// The same, and aliases don't count.
    Disabled,
}

impl ShortNames {
    /// What a name may mean, in the order to try; a name with a registry, and any name where nothing is configured, means one thing.
    pub fn candidates(&self, text: &str) -> Result<Vec<Reference>> {
        let candidates = self.all(text)?;
        if candidates.len() > 1 && self.mode == ShortNameMode::Enforcing {
            let names: Vec<String> = candidates.iter().map(|name| quote(name.to_string())).collect();
            return Err(Error::input(format!("{} may mean several images", quote(text)))
                .cause(format!("registries.conf has `short-name-mode = \"enforcing\"` and these are searched: {}", names.join(", ")))
                .hint("write the full name, or an alias in registries.conf"));
        }
        Ok(candidates)
    }

    /// The same for what is already here: what was pulled by its short name is found by it.
    pub fn local(&self, text: &str) -> Vec<Reference> {
        if self.search.is_empty() { Vec::new() } else { self.all(text).unwrap_or_default() }
    }

    fn all(&self, text: &str) -> Result<Vec<Reference>> {
        let (name, _) = split(text);
        if self.search.is_empty() || name.split_once('/').is_some_and(|(first, _)| is_host(first)) {
            return Ok(vec![text.parse()?]);
        }
        if let Some(target) = self.aliases.get(name).filter(|_| self.mode != ShortNameMode::Disabled) {
            let (target, _) = split(target);
            return Ok(vec![format!("{target}{}", &text[name.len()..]).parse()?]);
        }
        // What is no name at all is said to be none as it was written.
        text.parse::<Reference>()?;
        self.search.iter().map(|registry| format!("{registry}/{text}").parse()).collect()
    }
}

/// A name, and its tag and digest.
fn split(text: &str) -> (&str, &str) {
    let end = text.find('@').unwrap_or(text.len());
    let end = text[..end].rfind(':').filter(|at| !text[*at..end].contains('/')).unwrap_or(end);
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(mode: ShortNameMode, search: &[&str]) -> ShortNames {
        let aliases = [("fedora", "registry.example/fedora"), ("team/app", "h.example:5000/x/app:ignored")];
        ShortNames {
            search: search.iter().map(|s| (*s).to_owned()).collect(),
            aliases: aliases.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            mode,
        }
    }

    fn check(names: &ShortNames, text: &str, expected: &[&str]) {
        let found: Vec<String> = names.candidates(text).unwrap().iter().map(Reference::to_string).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn docker_is_meant_unless_something_is_searched() {
        let none = names(ShortNameMode::Permissive, &[]);
        check(&none, "debian", &["docker.io/library/debian:latest"]);
        check(&none, "fedora", &["docker.io/library/fedora:latest"]);
        assert!(none.local("debian").is_empty());
    }

    #[test]
    fn searches_in_order() {
        let two = names(ShortNameMode::Permissive, &["a.example", "docker.io"]);
        let digest = crate::oci::Digest::of("");
        check(&two, "x", &["a.example/x:latest", "docker.io/library/x:latest"]);
        check(&two, "x/y:1", &["a.example/x/y:1", "docker.io/x/y:1"]);
        check(&two, "h.example/x", &["h.example/x:latest"]);
        check(&two, "localhost/x", &["localhost/x:latest"]);
        check(&two, "fedora:39", &["registry.example/fedora:39"]);
        check(&two, &format!("team/app@{digest}"), &[&format!("h.example:5000/x/app@{digest}")]);
        check(&names(ShortNameMode::Disabled, &["a.example"]), "fedora", &["a.example/fedora:latest"]);
        assert!(two.candidates("Not A Name").is_err());
    }

    #[test]
    fn enforcing_refuses_to_guess() {
        let two = names(ShortNameMode::Enforcing, &["a.example", "docker.io"]);
        assert!(two.candidates("x").is_err());
        assert_eq!(two.local("x").len(), 2);
        check(&two, "fedora", &["registry.example/fedora:latest"]);
        check(&names(ShortNameMode::Enforcing, &["a.example"]), "x", &["a.example/x:latest"]);
    }
}
