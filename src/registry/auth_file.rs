//! One credentials file: containers-auth.json(5), docker's `config.json`, and the older `.dockercfg`.
//!
//! A file is changed under a lock on the file itself and replaced as a whole, so that two logins at once both end up in it and nobody ever
//! reads half of one. What is in it besides credentials stays.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::credentials::Login;
use super::helper::Helper;
use super::scope::{DOCKER_URL, Scope, normalise};
use crate::error::{Error, IoContext as _, Place, Result, quote, quote_path};

/// A file as read.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct AuthFile {
    auths: BTreeMap<String, AuthEntry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// What a file says about a repository.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The login itself.
    Login(Login),
    /// A helper is to be asked for this server.
    Helper(Helper, String),
    /// Nothing.
    Nothing,
}

impl AuthFile {
    /// Reads a file; a missing one says nothing.
    pub(super) fn read(path: &Path) -> Result<Self> {
        if let Ok(stat) = fs::metadata(path)
            && (stat.is_dir() || stat.file_type().is_fifo())
        {
            return Err(irregular(path));
        }
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Self::default()),
            Err(e) => return Err(Error::io("read", path, e)),
        };
        let at = |e: Error| e.at(Place::Path(path.to_owned()));
        if path.file_name().is_some_and(|name| name == ".dockercfg") {
            let auths = serde_json::from_str(&text).map_err(|e| at(invalid(&e)))?;
            return Ok(Self { auths, ..Self::default() });
        }
        Self::parse(&text).map_err(at)
    }

    pub(super) fn parse(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(text).map_err(|e| invalid(&e))
    }

    /// The entry of the most specific key; a helper named for the host wins over the common store, as in docker.
    pub(super) fn find(&self, registry: &str, repository: &str) -> Result<Found> {
        for key in &keys(registry, repository) {
            if let Some((server, helper)) = self.cred_helpers.iter().find(|(k, _)| normalise(k) == *key) {
                return Ok(Found::Helper(Helper::named(helper)?, server.clone()));
            }
            if let Some((written, entry)) = self.auths.iter().find(|(k, _)| normalise(k) == *key)
                && let Some(login) = entry.login(written)?
            {
                return Ok(Found::Login(login));
            }
        }
        let store = if self.creds_store.is_empty() { None } else { Some(Helper::named(&self.creds_store)?) };
        Ok(store.map_or(Found::Nothing, |store| Found::Helper(store, if registry == "docker.io" { DOCKER_URL } else { registry }.into())))
    }

    /// The helper that is to keep a scope's login, and the server's name there.
    pub(super) fn keeper(&self, scope: &Scope) -> Result<Option<(Helper, String)>> {
        let name = scope.to_string();
        if let Some((server, helper)) = self.cred_helpers.iter().find(|(k, _)| normalise(k) == name) {
            return Ok(Some((Helper::named(helper)?, server.clone())));
        }
        match self.creds_store.as_str() {
            "" => Ok(None),
            store => Ok(Some((Helper::named(store)?, scope.docker_name()))),
        }
    }

    /// All helpers it names; with the server each is for, if it is for one.
    pub(super) fn helpers(&self) -> Result<Vec<(Helper, Option<String>)>> {
        let mut helpers = Vec::new();
        for (server, helper) in &self.cred_helpers {
            helpers.push((Helper::named(helper)?, Some(server.clone())));
        }
        if !self.creds_store.is_empty() {
            helpers.push((Helper::named(&self.creds_store)?, None));
        }
        Ok(helpers)
    }
}

impl AuthEntry {
    fn login(&self, key: &str) -> Result<Option<Login>> {
        let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.registrytoken) {
            return Ok(Some(Login::RegistryToken(token)));
        }
        let pair = match given(&self.auth) {
            Some(auth) => Some(decode(&auth).ok_or_else(|| {
                Error::input(format!("invalid credentials for {}", quote(key))).cause("`auth` is not base64 of `user:password`")
            })?),
            None => None,
        };
        if let Some(token) = given(&self.identitytoken) {
            let user = given(&self.username).or(pair.map(|(user, _)| user)).filter(|user| !user.is_empty());
            return Ok(Some(Login::IdentityToken { user, token }));
        }
        if let (Some(user), Some(password)) = (given(&self.username), given(&self.password)) {
            return Ok(Some(Login::Password { user, password }));
        }
        Ok(pair.map(|(user, password)| Login::Password { user, password }))
    }
}

fn invalid(why: &serde_json::Error) -> Error {
    // The parser's own words could show what stands there.
    Error::input("invalid credentials file").cause(format!("it is not the expected JSON at line {} column {}", why.line(), why.column()))
}

fn decode(auth: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    // Docker pads the password with NULs.
    Some((user.into(), password.trim_end_matches('\0').into()))
}

/// The keys of a repository, most specific first; the last is the registry.
fn keys(registry: &str, repository: &str) -> Vec<String> {
    let mut key = format!("{registry}/{repository}").trim_end_matches('/').to_owned();
    let mut keys = vec![key.clone()];
    while let Some(at) = key.rfind('/') {
        key.truncate(at);
        keys.push(key.clone());
    }
    keys
}

/// Puts a login into a file, in the place of what was there for the scope.
pub(super) fn put(path: &Path, scope: &Scope, login: &Login) -> Result<()> {
    let entry = match login {
        Login::Password { user, password } => serde_json::json!({ "auth": STANDARD.encode(format!("{user}:{password}")) }),
        // Docker's form: the name with an empty password beside it.
        Login::IdentityToken { user, token } => {
            serde_json::json!({ "auth": STANDARD.encode(format!("{}:", user.as_deref().unwrap_or_default())), "identitytoken": token })
        }
        Login::RegistryToken(token) => serde_json::json!({ "registrytoken": token }),
    };
    insert(path, scope, entry)
}

/// Notes that a helper has the login, as docker does.
pub(super) fn put_mark(path: &Path, scope: &Scope) -> Result<()> {
    insert(path, scope, Value::Object(Map::new()))
}

fn insert(path: &Path, scope: &Scope, entry: Value) -> Result<()> {
    // Docker finds its own registry only by its own name.
    let docker = path.file_name().is_some_and(|name| name == "config.json");
    let key = if docker { scope.docker_name() } else { scope.to_string() };
    edit(path, |document| {
        let auths = object(document.entry("auths").or_insert_with(|| Value::Object(Map::new())))?;
        auths.retain(|written, _| normalise(written) != scope.to_string());
        auths.insert(key, entry);
        Some(true)
    })
    .map(drop)
}

/// Takes a scope's entry out of a file; whether there was one. A missing file stays missing.
pub(super) fn remove(path: &Path, scope: &Scope) -> Result<bool> {
    let name = scope.to_string();
    remove_if(path, &|written| normalise(written) == name)
}

/// Takes all entries out of a file; whether there was one.
pub(super) fn remove_all(path: &Path) -> Result<bool> {
    remove_if(path, &|_| true)
}

fn remove_if(path: &Path, goes: &dyn Fn(&str) -> bool) -> Result<bool> {
    if !AuthFile::read(path)?.auths.keys().any(|written| goes(written)) {
        return Ok(false);
    }
    edit(path, |document| {
        let Some(auths) = document.get_mut("auths") else { return Some(false) };
        let auths = object(auths)?;
        let before = auths.len();
        auths.retain(|written, _| !goes(written));
        Some(auths.len() != before)
    })
}

fn object(value: &mut Value) -> Option<&mut Map<String, Value>> {
    value.as_object_mut()
}

/// Changes a file, which is made if missing; `change` returns whether it did, or `None` if the file has another shape.
fn edit(path: &Path, change: impl FnOnce(&mut Map<String, Value>) -> Option<bool>) -> Result<bool> {
    // People keep such files elsewhere and link to them; the link stays.
    let path = &follow(path)?;
    match fs::metadata(path) {
        Ok(stat) if !stat.is_file() => return Err(irregular(path)),
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io("look at", path, e)),
    }
    let _locked = lock(path)?;
    let text = fs::read_to_string(path).doing("read", path)?;
    let text = if text.trim().is_empty() { "{}" } else { &text };
    let mut document: Map<String, Value> = serde_json::from_str(text).map_err(|e| invalid(&e).at(Place::Path(path.clone())))?;
    let changed = change(&mut document)
        .ok_or_else(|| Error::input("invalid credentials file").cause("`auths` is not an object").at(Place::Path(path.clone())))?;
    if changed {
        let mut bytes = Vec::new();
        // As docker and podman write it.
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
        serde::Serialize::serialize(&document, &mut serializer).map_err(|e| Error::io("write", path, e))?;
        bytes.push(b'\n');
        replace(path, &bytes)?;
    }
    Ok(changed)
}

fn irregular(path: &Path) -> Error {
    Error::input(format!("{} is not a regular file", quote_path(path)))
        .hint("credentials are kept in a file; name one, or one that does not exist yet")
}

/// Where a file is or is to be made, links followed, also those to nothing.
fn follow(path: &Path) -> Result<PathBuf> {
    let mut path = path.to_owned();
    // As many as Linux follows.
    for _ in 0..40 {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            Err(_) => return Ok(fs::canonicalize(&path).unwrap_or(path)),
        }
    }
    Err(Error::io("follow", &path, std::io::Error::from_raw_os_error(libc::ELOOP)))
}

/// Locks the file that has the name now: whoever waited finds that it was replaced, and takes the new one.
fn lock(path: &Path) -> Result<File> {
    loop {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                create(path)?;
                continue;
            }
            Err(e) => return Err(Error::io("change", path, e)),
        };
        // Some network file systems have no locks; then the replacement alone must do.
        let _ = file.lock();
        let held = file.metadata().doing("look at", path)?;
        match fs::metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => return Ok(file),
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("look at", path, e)),
        }
    }
}

/// Makes a file without credentials, never seen empty: podman takes an empty file for a broken one.
fn create(path: &Path) -> Result<()> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).doing("create", directory)?;
    }
    let draft = Draft::write(path, b"{}\n")?;
    match fs::hard_link(&draft.0, path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        // No hard links on this file system; the race that remains is lost by nobody but two first logins at once.
        Err(_) => fs::rename(&draft.0, path).doing("create", path),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let draft = Draft::write(path, bytes)?;
    fs::rename(&draft.0, path).doing("write", path)
}

/// A file beside the one it is to become; dropped, it is gone.
struct Draft(PathBuf);

impl Draft {
    fn write(path: &Path, bytes: &[u8]) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let draft = path.with_file_name(format!(".{name}.{}.{number}", std::process::id()));
        // What a killed process of the same number left may stand in the way.
        let _ = fs::remove_file(&draft);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).doing("create", &draft)?;
        let draft = Self(draft);
        file.write_all(bytes).and_then(|()| file.sync_all()).doing("write", path)?;
        Ok(draft)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests;
