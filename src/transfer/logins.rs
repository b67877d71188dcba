//! Logging in and out: a registry is asked, then the login is kept where look-ups find it.

use super::client::Client;
use crate::error::Result;
use crate::registry::{self, Admitted, Keeper, Login, Scope};

impl Client {
    /// The login that is stored for a scope, and what keeps it.
    pub fn stored_login(&self, scope: &Scope) -> Result<Option<(Login, Keeper)>> {
        self.registry_settings()?.credentials.find(scope)
    }

    /// Asks the registry whether it takes a login; keeps nothing.
    pub fn check_login(&self, scope: &Scope, login: &Login) -> Result<Admitted> {
        registry::Client::check(self.registry_settings()?, scope, login)
    }

    /// Keeps a login in the place of the one there was.
    pub fn store_login(&self, scope: &Scope, login: &Login) -> Result<Keeper> {
        self.registry_settings()?.credentials.store(scope, login)
    }

    /// Forgets a login; whether there was one where this program writes them.
    pub fn erase_login(&self, scope: &Scope) -> Result<bool> {
        self.registry_settings()?.credentials.erase(scope)
    }

    /// Forgets all logins of the place where this program writes them; whether there was one.
    pub fn erase_logins(&self) -> Result<bool> {
        self.registry_settings()?.credentials.erase_all()
    }
}
