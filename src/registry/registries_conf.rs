//! Mirrors, blocked and insecure registries, short names: containers-registries.conf(5), version 2, and what version 1 can say.
//!
//! What a short name means is [`ShortNames`]' to say; here is only read what the files have on it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, IoContext as _, Kind, Place, Result, quote};
use crate::oci::{Reference, ShortNameMode, ShortNames};

/// How far a server is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Security {
    /// It must show a certificate for its name.
    Verified,
    /// Any certificate or none at all.
    Insecure,
}

/// A place that may serve a repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// `host[:port]` as configured; `docker.io` stands for its registry's real host.
    pub host: String,
    /// Repository there.
    pub repository: String,
    /// How far it is trusted.
    pub security: Security,
    /// What references call the registry, if this is the registry itself; `None` for a mirror.
    pub asked: Option<String>,
}

/// What the `registries.conf` files say, merged.
#[derive(Clone, Debug, Default)]
pub struct RegistriesConf {
    /// By prefix; a later file replaces an earlier one's entry.
    registries: BTreeMap<String, Registry>,
    short_names: ShortNames,
    credential_helpers: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Registry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<Mirror>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Mirror {
    location: String,
    insecure: bool,
    pull_from_mirror: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Document {
    registry: Vec<Registry>,
    registries: VersionOne,
    unqualified_search_registries: Option<Vec<String>>,
    short_name_mode: Option<String>,
    aliases: BTreeMap<String, String>,
    credential_helpers: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct VersionOne {
    insecure: VersionOneList,
    block: VersionOneList,
    search: VersionOneList,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct VersionOneList {
    registries: Vec<String>,
}

impl RegistriesConf {
    /// Reads files, and the `*.conf` files of directories in the order of their names; later ones win. Missing ones say nothing.
    pub fn load(paths: &[PathBuf]) -> Result<Self> {
        let mut conf = Self::default();
        for path in paths {
            for file in conf_files(path)? {
                let text = std::fs::read_to_string(&file).doing("read", &file)?;
                conf.merge(&text).map_err(|e| e.at(Place::Path(file)))?;
            }
        }
        Ok(conf)
    }

    /// Adds what one file says.
    pub fn merge(&mut self, text: &str) -> Result<()> {
        let bad = |why: &str| Error::input("invalid registries.conf").cause(why.trim_end());
        let document: Document = toml::from_str(text).map_err(|e| bad(&e.to_string()))?;
        for mut registry in document.registry {
            if registry.prefix.is_empty() {
                registry.prefix = registry.location.clone();
            }
            if registry.prefix.is_empty() {
                return Err(bad("a [[registry]] has neither prefix nor location"));
            }
            if registry.location.is_empty() && !registry.prefix.starts_with("*.") {
                registry.location = registry.prefix.clone();
            }
            if registry.mirror.iter().any(|m| m.location.is_empty()) {
                return Err(bad(&format!("a mirror of {} has no location", quote(&registry.prefix))));
            }
            self.registries.insert(registry.prefix.clone(), registry);
        }
        if let Some(search) = document.unqualified_search_registries {
            self.short_names.search = search;
        } else if !document.registries.search.registries.is_empty() {
            self.short_names.search = document.registries.search.registries;
        }
        match document.short_name_mode.as_deref() {
            None | Some("") => {}
            Some("enforcing") => self.short_names.mode = ShortNameMode::Enforcing,
            Some("permissive") => self.short_names.mode = ShortNameMode::Permissive,
            Some("disabled") => self.short_names.mode = ShortNameMode::Disabled,
            Some(other) => return Err(bad(&format!("unknown short-name-mode {}", quote(other)))),
        }
        self.short_names.aliases.extend(document.aliases);
        // An empty one takes back what an earlier file says.
        self.short_names.aliases.retain(|_, target| !target.is_empty());
        if let Some(helpers) = document.credential_helpers {
            self.credential_helpers = helpers;
        }
        for host in document.registries.insecure.registries {
            self.entry(&host).insecure = true;
        }
        for host in document.registries.block.registries {
            self.entry(&host).blocked = true;
        }
        Ok(())
    }

    fn entry(&mut self, host: &str) -> &mut Registry {
        let new = || Registry { prefix: host.into(), location: host.into(), ..Registry::default() };
        self.registries.entry(host.to_owned()).or_insert_with(new)
    }

    /// What names without a registry mean.
    pub fn short_names(&self) -> &ShortNames {
        &self.short_names
    }

    /// `credential-helpers`, in their order.
    pub fn credential_helpers(&self) -> &[String] {
        &self.credential_helpers
    }

    /// A registry as a whole. Refuses one that is blocked.
    pub(super) fn home(&self, registry: &str) -> Result<Endpoint> {
        let (host, repository, asked) = (registry.to_owned(), String::new(), Some(registry.to_owned()));
        let own = Endpoint { host, repository, security: Security::Verified, asked };
        let Some((conf, _)) = self.find(registry) else { return Ok(own) };
        conf.check_blocked()?;
        let moved = Some(&conf.location).filter(|location| !location.is_empty() && !location.contains('/') && conf.prefix == registry);
        Ok(Endpoint { host: moved.cloned().unwrap_or(own.host), security: security(conf.insecure), ..own })
    }

    /// Who may serve a reference: mirrors in their order, then the registry itself. Refuses what is blocked.
    pub fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>> {
        let name = format!("{}/{}", reference.registry(), reference.repository());
        let asked = Some(reference.registry().to_owned());
        let own = Endpoint {
            host: reference.registry().into(),
            repository: reference.repository().into(),
            security: Security::Verified,
            asked: asked.clone(),
        };
        let Some((registry, matched)) = self.find(&name) else { return Ok(vec![own]) };
        registry.check_blocked()?;
        let rest = &name[matched..];
        let mut endpoints = Vec::new();
        for mirror in registry.mirror.iter().filter(|m| m.serves(registry, reference)) {
            endpoints.push(endpoint(&format!("{}{rest}", mirror.location), mirror.insecure)?);
        }
        if registry.location.is_empty() {
            endpoints.push(Endpoint { security: security(registry.insecure), ..own });
        } else {
            endpoints.push(Endpoint { asked, ..endpoint(&format!("{}{rest}", registry.location), registry.insecure)? });
        }
        Ok(endpoints)
    }

    /// The entry with the longest matching prefix, and how much of the name it matched.
    fn find(&self, name: &str) -> Option<(&Registry, usize)> {
        let candidates = self.registries.values().filter_map(|r| Some((r, matched(&r.prefix, name)?)));
        candidates.max_by_key(|(r, _)| r.prefix.len())
    }
}

impl Registry {
    fn check_blocked(&self) -> Result<()> {
        if !self.blocked {
            return Ok(());
        }
        let error = Error::with_kind(Kind::Denied, format!("registry {} is blocked", quote(&self.prefix)));
        Err(error.cause("registries.conf says `blocked = true`").hint("use another registry, or ask who wrote the file"))
    }
}

impl Mirror {
    fn serves(&self, registry: &Registry, reference: &Reference) -> bool {
        let pinned = reference.digest().is_some();
        match self.pull_from_mirror.as_str() {
            "digest-only" => pinned,
            "tag-only" => !pinned,
            _ => pinned || !registry.mirror_by_digest_only,
        }
    }
}

fn security(insecure: bool) -> Security {
    if insecure { Security::Insecure } else { Security::Verified }
}

fn endpoint(name: &str, insecure: bool) -> Result<Endpoint> {
    match name.split_once('/') {
        Some((host, repository)) if !host.is_empty() && !repository.is_empty() => {
            Ok(Endpoint { host: host.into(), repository: repository.into(), security: security(insecure), asked: None })
        }
        _ => Err(Error::input("invalid registries.conf").cause(format!("location makes {}, which names no repository", quote(name)))),
    }
}

/// How many bytes of `name` a prefix covers: `host`, `host/path` at a component's border, or `*.domain` over any host below it.
fn matched(prefix: &str, name: &str) -> Option<usize> {
    if let Some(domain) = prefix.strip_prefix('*') {
        let host = name.split('/').next().unwrap_or_default();
        let bare = host.rsplit_once(':').map_or(host, |(bare, _)| bare);
        return (domain.starts_with('.') && (bare.ends_with(domain) || host.ends_with(domain))).then_some(host.len());
    }
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(prefix.len())
}

fn conf_files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(if path.exists() { vec![path.to_owned()] } else { Vec::new() });
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).doing("read", path)? {
        let file = entry.doing("read", path)?.path();
        if file.extension().is_some_and(|e| e == "conf") && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        unqualified-search-registries = ["a.example", "docker.io"]
        short-name-mode = "permissive"
        credential-helpers = ["containers-auth.json", "pass"]
        [[registry]]
        location = "docker.io"
        [[registry.mirror]]
        location = "mirror.example:5000/hub"
        insecure = true
        [[registry.mirror]]
        location = "pinned.example"
        pull-from-mirror = "digest-only"
        [[registry]]
        prefix = "docker.io/secret"
        blocked = true
        [[registry]]
        prefix = "*.lab.example"
        insecure = true
        [[registry]]
        prefix = "old.example/team"
        location = "new.example/archive"
    "#;

    fn check(text: &str, reference: &str, expected: &[&str]) {
        let mut conf = RegistriesConf::default();
        conf.merge(text).unwrap();
        let endpoints = conf.endpoints(&reference.parse().unwrap()).unwrap();
        let shown: Vec<String> = endpoints
            .iter()
            .map(|e| format!("{}{}/{}", if e.security == Security::Insecure { "!" } else { "" }, e.host, e.repository))
            .collect();
        assert_eq!(shown, expected, "{reference}");
    }

    #[test]
    fn chooses_endpoints() {
        let pinned = format!("debian@{}", crate::oci::Digest::of(""));
        check("", "debian", &["docker.io/library/debian"]);
        check(TEXT, "debian", &["!mirror.example:5000/hub/library/debian", "docker.io/library/debian"]);
        check(TEXT, &pinned, &["!mirror.example:5000/hub/library/debian", "pinned.example/library/debian", "docker.io/library/debian"]);
        check(TEXT, "a.lab.example:5000/x", &["!a.lab.example:5000/x"]);
        check(TEXT, "lab.example/x", &["lab.example/x"]);
        check(TEXT, "old.example/team/app:1", &["new.example/archive/app"]);
        check(TEXT, "old.example/teams/app:1", &["old.example/teams/app"]);
        check("[registries.insecure]\nregistries = ['h.example:1']", "h.example:1/x", &["!h.example:1/x"]);
    }

    #[test]
    fn blocks() {
        let mut conf = RegistriesConf::default();
        conf.merge(TEXT).unwrap();
        assert_eq!(conf.endpoints(&"docker.io/secret/x".parse().unwrap()).unwrap_err().kind(), Kind::Denied);
    }

    #[test]
    fn refuses_nonsense() {
        for text in [
            "[[registry]]",
            "x = [",
            "short-name-mode = 'x'",
            "[[registry]]\nlocation='a.b'\n[[registry.mirror]]\ninsecure=true",
            "registry = 1",
        ] {
            assert!(RegistriesConf::default().merge(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_short_names_and_helpers() {
        let mut conf = RegistriesConf::default();
        assert_eq!(*conf.short_names(), ShortNames::default());
        conf.merge(TEXT).unwrap();
        assert_eq!((conf.short_names().search.len(), conf.short_names().mode), (2, ShortNameMode::Permissive));
        assert_eq!(conf.credential_helpers(), ["containers-auth.json", "pass"]);
        conf.merge("[aliases]\n'a' = 'h.example/a'\n'b' = 'h.example/b'").unwrap();
        conf.merge("[aliases]\n'a' = ''").unwrap();
        assert_eq!(conf.short_names().aliases.keys().collect::<Vec<_>>(), ["b"]);
        conf.merge("[registries.search]\nregistries = ['one.example']").unwrap();
        assert_eq!(conf.short_names().search, ["one.example"]);
    }

    #[test]
    fn knows_registries_as_a_whole() {
        let mut conf = RegistriesConf::default();
        conf.merge("[[registry]]\nlocation='h.example'\ninsecure=true\n[[registry]]\nprefix='old.example'\nlocation='new.example'")
            .unwrap();
        conf.merge("[[registry]]\nlocation='no.example'\nblocked=true").unwrap();
        let home = |registry: &str| conf.home(registry).map(|e| (e.host, e.security, e.asked));
        assert_eq!(home("h.example").unwrap(), ("h.example".into(), Security::Insecure, Some("h.example".into())));
        assert_eq!(home("old.example").unwrap(), ("new.example".into(), Security::Verified, Some("old.example".into())));
        assert_eq!(home("no.example").unwrap_err().kind(), Kind::Denied);
    }

    #[test]
    fn later_files_win() {
        let dir = tempfile::tempdir().unwrap();
        let drop_ins = dir.path().join("registries.conf.d");
        std::fs::create_dir(&drop_ins).unwrap();
        std::fs::write(dir.path().join("registries.conf"), "[[registry]]\nlocation='h.example'").unwrap();
        std::fs::write(drop_ins.join("20.conf"), "[[registry]]\nlocation='h.example'\ninsecure=true").unwrap();
        std::fs::write(drop_ins.join("10.conf"), "[[registry]]\nlocation='h.example'\nblocked=true").unwrap();
        std::fs::write(drop_ins.join("README"), "not toml [").unwrap();
        let conf = RegistriesConf::load(&[dir.path().join("registries.conf"), drop_ins, dir.path().join("missing")]).unwrap();
        assert_eq!(conf.endpoints(&"h.example/x".parse().unwrap()).unwrap()[0].security, Security::Insecure);
    }
}
