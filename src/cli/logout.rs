//! `rootling logout`.

use std::path::PathBuf;

use super::environment::Environment;
use super::pull::RegistryArguments;
use super::render;
use crate::error::{Error, Kind, Result, quote};
use crate::registry::Keeper;

#[derive(clap::Args)]
pub struct Arguments {
    /// Registry, as for `login` [default: docker.io]
    #[arg(value_name = "SERVER", conflicts_with = "all")]
    server: Option<String>,
    /// Forget all logins
    #[arg(long, short)]
    all: bool,
    /// Where the login is kept [default: $REGISTRY_AUTH_FILE, then podman's place]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let client = RegistryArguments::of_login(arguments.authfile.clone(), None, None).client(environment);
    if arguments.all {
        let text = if client.erase_logins()? { "Removed all logins" } else { "There was no login" };
        render::result(text);
        return Ok(());
    }
    let scope = super::login::scope(arguments.server.as_deref())?;
    let removed = client.erase_login(&scope)?;
    let left = client.stored_login(&scope)?.map(|(_, keeper)| keeper);
    match (removed, &left) {
        (true, _) => render::result(&format!("Removed the login for {scope}")),
        (false, Some(_)) => {}
        (false, None) => return Err(Error::with_kind(Kind::NotFound, format!("not logged in to {}", quote(scope.to_string())))),
    }
    // Logins of a registry count for what is in it.
    if let Some(keeper) = left {
        let remedy = match &keeper {
            Keeper::File(path) => format!("`rootling logout --authfile {} {scope}` removes it there", path.display()),
            Keeper::Helper(_) => "the program that stored it there removes it".to_owned(),
        };
        render::note(&format!("still logged in to {scope} by what {keeper} has; {remedy}"));
    }
    Ok(())
}
