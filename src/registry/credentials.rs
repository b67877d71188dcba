//! Who we are at which registry: containers-auth.json(5), docker's `config.json`, and docker's credential helpers (`get`).
//!
//! Writing them (login, logout) is not here.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine as _;
use serde::Deserialize;

use crate::error::{Error, Kind, Place, Result, from_io, quote};

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
    IdentityToken(String),
    /// A bearer token sent as it is.
    RegistryToken(String),
}

impl Login {
    /// The name behind it, if it says.
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Password { user, .. } => Some(user),
            Self::IdentityToken(_) | Self::RegistryToken(_) => None,
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Login({user:?}, …)"),
            Self::IdentityToken(_) => f.write_str("Login(identity token)"),
            Self::RegistryToken(_) => f.write_str("Login(registry token)"),
        }
    }
}

/// Where to look for credentials; files are read when a registry asks for them.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Given on the command line; used for every registry.
    pub explicit: Option<Login>,
    /// auth.json and config.json files, first hit wins; missing ones say nothing.
    pub files: Vec<PathBuf>,
}

impl Credentials {
    /// The login for a repository: entries for `host/ns/repo`, `host/ns`, `host` of each file in turn, helpers included.
    pub fn lookup(&self, registry: &str, repository: &str) -> Result<Option<Login>> {
        if let Some(login) = &self.explicit {
            return Ok(Some(login.clone()));
        }
        for path in &self.files {
            let text = match std::fs::read_to_string(path) {
                Ok(text) => text,
                Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => continue,
                Err(e) => return Err(Error::io("read", path, e)),
            };
            let file = AuthFile::parse(&text).map_err(|e| e.at(Place::Path(path.clone())))?;
            let found = match file.find(registry, repository).map_err(|e| e.at(Place::Path(path.clone())))? {
                Found::Login(login) => Some(login),
                Found::Helper { program, server } => ask_helper(&program, &server)?,
                Found::Nothing => None,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

/// One file, parsed.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AuthFile {
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

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Login(Login),
    Helper { program: String, server: String },
    Nothing,
}

impl AuthFile {
    fn parse(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(text).map_err(|e| Error::input("invalid credentials file").cause(e))
    }

    /// The entry of the most specific key; a helper named for the host wins over the common store, as in docker.
    fn find(&self, registry: &str, repository: &str) -> Result<Found> {
        let keys = keys(registry, repository);
        for key in &keys {
            if let Some((server, helper)) = self.cred_helpers.iter().find(|(k, _)| normalise(k) == *key) {
                return Ok(Found::Helper { program: helper_program(helper)?, server: server.clone() });
            }
            if let Some((written, entry)) = self.auths.iter().find(|(k, _)| normalise(k) == *key)
                && let Some(login) = entry.login(written)?
            {
                return Ok(Found::Login(login));
            }
        }
        if self.creds_store.is_empty() {
            return Ok(Found::Nothing);
        }
        // Docker's own name for its registry in every helper.
        let server = if registry == "docker.io" { "https://index.docker.io/v1/".to_owned() } else { registry.to_owned() };
        Ok(Found::Helper { program: helper_program(&self.creds_store)?, server })
    }
}

impl AuthEntry {
    fn login(&self, key: &str) -> Result<Option<Login>> {
        let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.registrytoken) {
            return Ok(Some(Login::RegistryToken(token)));
        }
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Login::IdentityToken(token)));
        }
        if let (Some(user), Some(password)) = (given(&self.username), given(&self.password)) {
            return Ok(Some(Login::Password { user, password }));
        }
        let Some(auth) = given(&self.auth) else { return Ok(None) };
        let bad = || Error::input(format!("invalid credentials for {}", quote(key))).cause("`auth` is not base64 of `user:password`");
        let bytes = base64::engine::general_purpose::STANDARD.decode(auth.trim()).map_err(|_| bad())?;
        let text = String::from_utf8(bytes).map_err(|_| bad())?;
        let (user, password) = text.split_once(':').ok_or_else(bad)?;
        // Docker pads the password with NULs.
        Ok(Some(Login::Password { user: user.into(), password: password.trim_end_matches('\0').into() }))
    }
}

/// The keys of a repository, most specific first.
fn keys(registry: &str, repository: &str) -> Vec<String> {
    let mut key = format!("{registry}/{repository}");
    let mut keys = vec![key.clone()];
    while let Some(at) = key.rfind('/') {
        key.truncate(at);
        keys.push(key.clone());
    }
    keys
}

/// Undoes what docker writes into keys: `https://index.docker.io/v1/` means `docker.io`.
fn normalise(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let legacy = bare.len() != key.len() || bare.ends_with("/v1/") || bare.ends_with("/v2/");
    let bare = if legacy { bare.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2") } else { bare };
    match bare.split_once('/').map_or((bare, ""), |(host, rest)| (host, rest)) {
        ("index.docker.io" | "registry-1.docker.io", "") => "docker.io".into(),
        ("index.docker.io" | "registry-1.docker.io", rest) => format!("docker.io/{rest}"),
        _ => bare.to_owned(),
    }
}

/// The name comes from a file: it must stay a program's name, found in `PATH`.
fn helper_program(name: &str) -> Result<String> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Err(Error::input(format!("invalid credential helper {}", quote(name))));
    }
    Ok(format!("docker-credential-{name}"))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    #[serde(default)]
    username: String,
    secret: String,
}

/// Docker's helper protocol: the server's name on standard input, JSON back.
fn ask_helper(program: &str, server: &str) -> Result<Option<Login>> {
    let failed = || format!("can't get credentials from {}", quote(program));
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| Error::os(failed(), e).hint(format!("install {} or remove it from the credentials file", quote(program))))?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // A helper may answer without reading.
    let _ = stdin.write_all(server.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(|e| from_io(failed, e))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(if output.stdout.is_empty() { &output.stderr } else { &output.stdout }).trim().to_owned();
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(Error::with_kind(Kind::Denied, failed()).cause(format!("it said {}", quote(said))));
    }
    let answer: HelperAnswer = serde_json::from_slice(&output.stdout).map_err(|e| Error::new(failed()).cause(e))?;
    Ok(Some(match answer.username.as_str() {
        // Docker's mark for an identity token.
        "<token>" => Login::IdentityToken(answer.secret),
        _ => Login::Password { user: answer.username, password: answer.secret },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, password: &str) -> Found {
        Found::Login(Login::Password { user: user.into(), password: password.into() })
    }

    fn check(json: &str, registry: &str, repository: &str, expected: Found) {
        let found = AuthFile::parse(json).unwrap().find(registry, repository).unwrap();
        assert_eq!(found, expected, "{json} for {registry}/{repository}");
    }

    #[test]
    fn finds_the_most_specific() {
        // dTpw = u:p, YTpi = a:b
        let json =
            r#"{"auths":{"h.example":{"auth":"dTpw"},"h.example/team":{"auth":"YTpi"},"https://index.docker.io/v1/":{"auth":"dTpw"}}}"#;
        check(json, "h.example", "x/y", password("u", "p"));
        check(json, "h.example", "team/y", password("a", "b"));
        check(json, "h.example", "teams/y", password("u", "p"));
        check(json, "docker.io", "library/debian", password("u", "p"));
        check(json, "other.example", "x", Found::Nothing);
        check("", "h.example", "x", Found::Nothing);
        check(r#"{"auths":{"h.example":{}}}"#, "h.example", "x", Found::Nothing);
    }

    #[test]
    fn knows_tokens_and_helpers() {
        let json = r#"{"auths":{"a.example":{"auth":"dTpw","identitytoken":"I"},"http://b.example/v2/":{"username":"u","password":"p"}},
            "credHelpers":{"c.example":"pass"},"credsStore":"secretservice"}"#;
        check(json, "a.example", "x", Found::Login(Login::IdentityToken("I".into())));
        check(json, "b.example", "x", password("u", "p"));
        check(json, "c.example", "x", Found::Helper { program: "docker-credential-pass".into(), server: "c.example".into() });
        let store = |server: &str| Found::Helper { program: "docker-credential-secretservice".into(), server: server.into() };
        check(json, "docker.io", "x", store("https://index.docker.io/v1/"));
        check(json, "d.example", "x", store("d.example"));
    }

    #[test]
    fn refuses_what_it_can_not_read() {
        assert!(AuthFile::parse("{").is_err());
        for json in [r#"{"auths":{"h":{"auth":"!!"}}}"#, r#"{"auths":{"h":{"auth":"dQ=="}}}"#, r#"{"credHelpers":{"h":"../evil"}}"#] {
            assert!(AuthFile::parse(json).unwrap().find("h", "x").is_err(), "{json}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown =
            format!("{:?} {:?}", Login::Password { user: "u".into(), password: "hush".into() }, Login::IdentityToken("hush".into()));
        assert!(!shown.contains("hush"), "{shown}");
    }
}
