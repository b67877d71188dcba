//! Docker's credential helpers: programs `docker-credential-NAME` that keep secrets elsewhere, such as in a desktop's key ring.
//!
//! What they are told comes on standard input, never as an argument, which every user of the machine could read.
//!
//! Source: docker/docker-credential-helpers, README, "Development".

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::credentials::Login;
use crate::error::{Error, Kind, Result, from_io, quote};

/// What a helper calls the name of an identity token.
const TOKEN: &str = "<token>";

/// A helper's program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Helper(String);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Record {
    #[serde(rename = "ServerURL", default)]
    server: String,
    #[serde(default)]
    username: String,
    secret: String,
}

impl Helper {
    /// The name comes from a file: it must stay a program's name, found in `PATH`.
    pub(super) fn named(name: &str) -> Result<Self> {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            return Err(Error::input(format!("invalid credential helper {}", quote(name))));
        }
        Ok(Self(format!("docker-credential-{name}")))
    }

    /// The program's name.
    pub(super) fn program(&self) -> &str {
        &self.0
    }

    /// What it has for a server.
    pub(super) fn get(&self, server: &str) -> Result<Option<Login>> {
        let failed = || format!("can't get credentials from {}", quote(&self.0));
        let Some(output) = self.run("get", server.as_bytes(), &failed)? else { return Ok(None) };
        let answer: Record =
            serde_json::from_slice(&output).map_err(|_| Error::new(failed()).cause("its answer is not the expected JSON"))?;
        Ok(Some(match answer.username.as_str() {
            TOKEN => Login::IdentityToken { user: None, token: answer.secret },
            _ => Login::Password { user: answer.username, password: answer.secret },
        }))
    }

    /// Hands it a login to keep.
    pub(super) fn store(&self, server: &str, login: &Login) -> Result<()> {
        let failed = || format!("can't store credentials with {}", quote(&self.0));
        let (username, secret) = match login {
            Login::Password { user, password } => (user.as_str(), password),
            Login::IdentityToken { token, .. } => (TOKEN, token),
            Login::RegistryToken(_) => return Err(Error::new(failed()).cause("a bearer token can't be kept there")),
        };
        let record = Record { server: server.into(), username: username.into(), secret: secret.clone() };
        let text = serde_json::to_vec(&record).map_err(|e| Error::new(failed()).cause(e))?;
        self.run("store", &text, &failed)?.map(drop).ok_or_else(|| Error::new(failed()).cause("it says that there is nothing to store"))
    }

    /// Makes it forget a server; whether it knew it.
    pub(super) fn erase(&self, server: &str) -> Result<bool> {
        if self.get(server)?.is_none() {
            return Ok(false);
        }
        let failed = || format!("can't remove credentials from {}", quote(&self.0));
        self.run("erase", server.as_bytes(), &failed).map(|done| done.is_some())
    }

    /// The servers it knows.
    pub(super) fn servers(&self) -> Result<Vec<String>> {
        let failed = || format!("can't list the credentials of {}", quote(&self.0));
        let Some(output) = self.run("list", b"", &failed)? else { return Ok(Vec::new()) };
        let listed: BTreeMap<String, String> =
            serde_json::from_slice(&output).map_err(|_| Error::new(failed()).cause("its answer is not the expected JSON"))?;
        Ok(listed.into_keys().collect())
    }

    /// Its answer; `None` if it has no such credentials.
    fn run(&self, action: &str, input: &[u8], failed: &dyn Fn() -> String) -> Result<Option<Vec<u8>>> {
        let mut child = Command::new(&self.0)
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| Error::os(failed(), e).hint(format!("install {} or remove it from the credentials file", quote(&self.0))))?;
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // A helper may answer without reading.
        let _ = stdin.write_all(input);
        drop(stdin);
        let output = child.wait_with_output().map_err(|e| from_io(failed, e))?;
        if output.status.success() {
            return Ok(Some(output.stdout));
        }
        let said = if output.stdout.is_empty() { &output.stderr } else { &output.stdout };
        let said = String::from_utf8_lossy(said).trim().to_owned();
        if said.contains("credentials not found") {
            return Ok(None);
        }
        // A helper that repeats what it was given would repeat the secret.
        let cause = match action {
            "store" => format!("it ended with {}", output.status),
            _ => format!("it said {}", quote(said)),
        };
        Err(Error::with_kind(Kind::Denied, failed()).cause(cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_names() {
        assert_eq!(Helper::named("pass").unwrap().program(), "docker-credential-pass");
        for name in ["", "../evil", "a b", "a;b"] {
            assert!(Helper::named(name).is_err(), "{name}");
        }
    }
}
