//! Finding out whether a registry takes a login.

use reqwest::Method;
use reqwest::header::HeaderMap;

use super::client::Client;
use super::credentials::Login;
use super::payload::Payload;
use super::redirect::Integrity;
use super::scope::Scope;
use super::settings::Settings;
use super::transport::{Access, Call, Target};
use super::{Credentials, OneTime};
use crate::error::{Error, Kind, Result, quote};

/// Whether a registry looked at a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It did, and it is good.
    Good,
    /// It lets in everybody.
    NotAsked,
}

/// A registry's answer to a login.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// Whether it was looked at.
    pub checked: Checked,
    /// What to keep: the login, or the identity token that the registry gave for it.
    pub keep: Login,
}

impl Client {
    /// Asks a registry whether a login is good, with nothing else that is known of it. Errors: Denied if it is not.
    pub fn check(settings: Settings, scope: &Scope, login: &Login) -> Result<Admitted> {
        let endpoint = settings.registries.home(scope.registry())?;
        let one_time = vec![OneTime { registry: scope.registry().to_owned(), login: login.clone() }];
        let client = Self::new(Settings { credentials: Credentials { one_time, ..Credentials::default() }, ..settings });
        let what = format!("can't log in to {}", quote(scope.registry()));
        let call = Call {
            what: &what,
            endpoint: &endpoint,
            method: Method::GET,
            target: Target::Api,
            headers: HeaderMap::new(),
            integrity: Integrity::Connection,
            access: Access::LogIn,
            payload: Payload::Empty,
        };
        client.block_on(async {
            client.transport().exchange(&call).await?;
            let grant = client.transport().grant_of(&call).await;
            let checked = if grant.is_some() { Checked::Good } else { Checked::NotAsked };
            let keep = match grant.and_then(|grant| grant.identity) {
                Some(token) => Login::IdentityToken { user: login.user().map(str::to_owned), token },
                None => login.clone(),
            };
            Ok(Admitted { checked, keep })
        })
    }
}

impl Login {
    /// A name and a password. Errors: what no registry could be told.
    pub fn password(user: &str, password: &str) -> Result<Self> {
        let refuse = |why: &str| Err(Error::with_kind(Kind::Input, "invalid credentials").cause(why));
        match () {
            () if user.is_empty() => refuse("the user name is empty"),
            () if password.is_empty() => refuse("the password is empty"),
            () if user.contains(':') => refuse("the user name holds a colon, which ends it"),
            () if user.chars().any(char::is_control) => refuse("the user name holds a control character"),
            () => Ok(Self::Password { user: user.to_owned(), password: password.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_no_header_can_say() {
        assert!(Login::password("u", "p:with spaces\t and ü").is_ok());
        for (user, password) in [("", "p"), ("u", ""), ("u:v", "p"), ("u\n", "p")] {
            assert!(Login::password(user, password).is_err(), "{user:?}");
        }
    }
}
