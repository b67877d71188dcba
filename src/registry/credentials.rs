//! Who we are at which registry: where logins are looked for, kept, and removed from.
//!
//! One-time credentials are for one registry and in memory only. All others are in files and with helpers (`auth_file`, `helper`).

use std::fmt;
use std::path::PathBuf;

use super::auth_file::{self, AuthFile, Found};
use super::helper::Helper;
use super::scope::Scope;
use crate::error::{Error, Place, Result};

/// What stands for the files in `credential-helpers` of registries.conf.
const FILES: &str = "containers-auth.json";

/// A proof of who we are. `Debug` never shows the secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// A name and a password (or an access token used as one).
    Password {
        /// Name.
        user: String,
        /// Secret.
        password: String,
    },
    /// An OAuth2 refresh token.
    IdentityToken {
        /// Whose, if known.
        user: Option<String>,
        /// Secret.
        token: String,
    },
    /// A bearer token sent as it is.
    RegistryToken(String),
}

impl Login {
    /// The name behind it, if it says.
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Password { user, .. } => Some(user),
            Self::IdentityToken { user, .. } => user.as_deref(),
            Self::RegistryToken(_) => None,
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Login({user:?}, …)"),
            Self::IdentityToken { .. } => f.write_str("Login(identity token)"),
            Self::RegistryToken(_) => f.write_str("Login(registry token)"),
        }
    }
}

/// Credentials for this once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneTime {
    /// The registry they belong to, as references name it; nobody else gets them, not even its mirrors.
    pub registry: String,
    /// Who we are there.
    pub login: Login,
}

/// Where logins are. Files are read when a registry asks for them.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// For this once; first for the registries they belong to.
    pub one_time: Vec<OneTime>,
    /// auth.json and config.json files, first hit wins; missing ones say nothing.
    pub files: Vec<PathBuf>,
    /// The one of them that logins are written to.
    pub written: Option<PathBuf>,
    /// `credential-helpers` of registries.conf: helpers, and `containers-auth.json` for the files; empty means the files alone.
    pub helpers: Vec<String>,
}

/// What keeps a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// A file, where it is readable by who can read the file.
    File(PathBuf),
    /// A helper's program.
    Helper(String),
}

impl fmt::Display for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Helper(program) => f.write_str(program),
        }
    }
}

/// One place of `credential-helpers`.
enum Source {
    Files,
    Helper(Helper),
}

impl Credentials {
    /// The login for a repository, whose registry the user calls `asked` if it is not a mirror.
    pub(super) fn lookup(&self, asked: Option<&str>, registry: &str, repository: &str) -> Result<Option<Login>> {
        if let Some(given) = self.one_time.iter().find(|given| asked == Some(given.registry.as_str())) {
            return Ok(Some(given.login.clone()));
        }
        Ok(self.stored(registry, repository)?.map(|(login, _)| login))
    }

    /// The stored login for a scope, and what keeps it.
    pub fn find(&self, scope: &Scope) -> Result<Option<(Login, Keeper)>> {
        self.stored(scope.registry(), scope.path().unwrap_or_default())
    }

    /// Entries for `host/ns/repo`, `host/ns`, `host` of each file in turn, helpers included.
    fn stored(&self, registry: &str, repository: &str) -> Result<Option<(Login, Keeper)>> {
        for source in self.sources()? {
            let found = match source {
                Source::Files => self.in_files(registry, repository)?,
                Source::Helper(helper) => {
                    let scope: Scope = registry.parse()?;
                    helper.get(&scope.docker_name())?.map(|login| (login, Keeper::Helper(helper.program().to_owned())))
                }
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn in_files(&self, registry: &str, repository: &str) -> Result<Option<(Login, Keeper)>> {
        for path in &self.files {
            let at = |e: Error| e.at(Place::Path(path.clone()));
            let found = match AuthFile::read(path)?.find(registry, repository).map_err(at)? {
                Found::Login(login) => Some((login, Keeper::File(path.clone()))),
                Found::Helper(helper, server) => helper.get(&server)?.map(|login| (login, Keeper::Helper(helper.program().to_owned()))),
                Found::Nothing => None,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Keeps a login: with the helper that is named for its registry in any of the files, else in the file that is written.
    ///
    /// Afterwards it is what a look-up finds: older entries in files that come before are removed.
    pub fn store(&self, scope: &Scope, login: &Login) -> Result<Keeper> {
        if let Some(Source::Helper(helper)) = self.sources()?.first() {
            whole_registry(scope, helper)?;
            helper.store(&scope.docker_name(), login)?;
            return Ok(Keeper::Helper(helper.program().to_owned()));
        }
        let keeper = match self.keeper(scope)? {
            Some((path, helper, server)) => {
                whole_registry(scope, &helper)?;
                helper.store(&server, login)?;
                auth_file::put_mark(&path, scope)?;
                self.clear_before(&path, scope)?;
                Keeper::Helper(helper.program().to_owned())
            }
            None => {
                let path = self.written.clone().ok_or_else(|| {
                    Error::input("there is no place for credentials").hint("set `$HOME`, or name a file with `--authfile FILE`")
                })?;
                auth_file::put(&path, scope, login)?;
                self.clear_before(&path, scope)?;
                Keeper::File(path)
            }
        };
        Ok(keeper)
    }

    /// Forgets the login of exactly this scope where [`Credentials::store`] would have kept it; whether there was one.
    pub fn erase(&self, scope: &Scope) -> Result<bool> {
        let mut removed = false;
        for source in self.sources()? {
            if let Source::Helper(helper) = source {
                removed |= helper.erase(&scope.docker_name())?;
            }
        }
        if let Some((path, helper, server)) = self.keeper(scope)? {
            removed |= helper.erase(&server)?;
            auth_file::remove(&path, scope)?;
        }
        if let Some(path) = &self.written {
            removed |= auth_file::remove(path, scope)?;
        }
        Ok(removed)
    }

    /// Forgets all logins that are in the file that is written, and those of the helpers it names; whether there was one.
    pub fn erase_all(&self) -> Result<bool> {
        let mut removed = false;
        for source in self.sources()? {
            if let Source::Helper(helper) = source {
                for server in helper.servers()? {
                    removed |= helper.erase(&server)?;
                }
            }
        }
        let Some(path) = &self.written else { return Ok(removed) };
        for (helper, server) in AuthFile::read(path)?.helpers().map_err(|e| e.at(Place::Path(path.clone())))? {
            let servers = server.map_or_else(|| helper.servers(), |server| Ok(vec![server]))?;
            for server in servers {
                removed |= helper.erase(&server)?;
            }
        }
        Ok(auth_file::remove_all(path)? || removed)
    }

    /// The first file that names a helper for the scope.
    fn keeper(&self, scope: &Scope) -> Result<Option<(PathBuf, Helper, String)>> {
        for path in &self.files {
            let found = AuthFile::read(path)?.keeper(scope).map_err(|e| e.at(Place::Path(path.clone())))?;
            if let Some((helper, server)) = found {
                return Ok(Some((path.clone(), helper, server)));
            }
        }
        Ok(None)
    }

    fn clear_before(&self, kept: &PathBuf, scope: &Scope) -> Result<()> {
        self.files.iter().take_while(|path| *path != kept).try_for_each(|path| auth_file::remove(path, scope).map(drop))
    }

    fn sources(&self) -> Result<Vec<Source>> {
        if self.helpers.is_empty() {
            return Ok(vec![Source::Files]);
        }
        let read = |name: &String| if name == FILES { Ok(Source::Files) } else { Helper::named(name).map(Source::Helper) };
        self.helpers.iter().map(read).collect()
    }
}

/// Helpers know servers only, as for podman.
fn whole_registry(scope: &Scope, helper: &Helper) -> Result<()> {
    if scope.path().is_none() {
        return Ok(());
    }
    Err(Error::input(format!("can't keep a login for `{scope}`"))
        .cause(format!("{} keeps logins of whole registries only", helper.program()))
        .hint(format!("log in to `{}`, or name a file without helper with `--authfile FILE`", scope.registry())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: &str) -> Login {
        Login::Password { user: user.into(), password: "hush".into() }
    }

    #[test]
    fn one_time_credentials_belong_to_one_registry() {
        let one_time = vec![OneTime { registry: "h.example".into(), login: login("u") }];
        let credentials = Credentials { one_time, ..Credentials::default() };
        for (asked, registry, expected) in [
            (Some("h.example"), "h.example", true),
            // The registry of the name is elsewhere by the user's own registries.conf.
            (Some("h.example"), "new.example", true),
            // A mirror, even of the same name.
            (None, "mirror.example", false),
            (None, "h.example", false),
            (Some("other.example"), "other.example", false),
        ] {
            assert_eq!(credentials.lookup(asked, registry, "x").unwrap().is_some(), expected, "{asked:?} {registry}");
        }
    }

    #[test]
    fn what_was_stored_is_found_and_erased() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["first", "second", "third"].map(|name| dir.path().join(name)).to_vec();
        let credentials = Credentials { written: Some(files[1].clone()), files, ..Credentials::default() };
        let scope: Scope = "h.example".parse().unwrap();
        // An older entry in front does not win over the new one.
        auth_file::put(&credentials.files[0], &scope, &login("old")).unwrap();
        auth_file::put(&credentials.files[2], &scope, &login("other")).unwrap();
        credentials.store(&scope, &login("new")).unwrap();
        let (found, keeper) = credentials.find(&scope).unwrap().unwrap();
        assert_eq!((found.user(), keeper), (Some("new"), Keeper::File(credentials.files[1].clone())));
        assert!(credentials.erase(&scope).unwrap() && !credentials.erase(&scope).unwrap());
        assert_eq!(credentials.find(&scope).unwrap().unwrap().1, Keeper::File(credentials.files[2].clone()));
        let nowhere = Credentials::default();
        assert_eq!(nowhere.store(&scope, &login("u")).unwrap_err().hints().len(), 1);
    }

    #[test]
    fn secrets_are_not_shown() {
        let token = Login::IdentityToken { user: None, token: "hush".into() };
        let one_time = OneTime { registry: "h".into(), login: login("u") };
        let shown = format!("{:?} {token:?} {one_time:?}", login("u"));
        assert!(!shown.contains("hush"), "{shown}");
    }
}
