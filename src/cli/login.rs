//! `rootling login`: a user's name and password for a registry, checked there, then kept for later.

use std::io::Read as _;
use std::path::PathBuf;

use super::environment::Environment;
use super::pull::RegistryArguments;
use super::{prompt, render};
use crate::error::{Error, Kind, Result, quote};
use crate::registry::{Checked, Keeper, Login, Scope};
use crate::transfer::Client;

/// Longer than any token.
const LONGEST_PASSWORD: u64 = 1 << 20;

#[derive(clap::Args)]
pub struct Arguments {
    /// Registry as HOST[:PORT], or a part of it as HOST/NAMESPACE; `https://` and `docker://` may stand before it [default: docker.io]
    #[arg(value_name = "SERVER")]
    server: Option<String>,
    /// User name [default: those already stored are tried, then you are asked]
    #[arg(long, short, value_name = "NAME")]
    username: Option<String>,
    /// Password or access token; others on this machine can read it while the command runs [default: asked for]
    #[arg(long, short, value_name = "PASSWORD", requires = "username", conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Take the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// Print the name of the user who is logged in, and do nothing else
    #[arg(long, conflicts_with_all = ["username", "password", "password_stdin"])]
    get_login: bool,
    /// Where to keep the login [default: $REGISTRY_AUTH_FILE, then podman's place]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Directory with certificates: `*.crt` are authorities, `*.cert` and `*.key` are yours
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// Require HTTPS with a known certificate [default: true, but for loopback addresses]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tls_verify: Option<bool>,
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let scope = scope(arguments.server.as_deref())?;
    let registry =
        RegistryArguments::of_login(arguments.authfile.clone(), arguments.cert_dir.clone(), arguments.tls_verify).client(environment);
    let stored = if arguments.username.is_none() { registry.stored_login(&scope)?.map(|(login, _)| login) } else { None };
    if arguments.get_login {
        let user = stored.as_ref().map(|login| login.user().unwrap_or("<token>"));
        let user = user.ok_or_else(|| Error::with_kind(Kind::NotFound, format!("not logged in to {}", quote(scope.to_string()))))?;
        render::result(user);
        return Ok(());
    }
    if let Some(login) = &stored
        && still_good(&registry, &scope, login)?
    {
        render::result("Login Succeeded");
        return Ok(());
    }
    let login = arguments.ask(&scope, stored.as_ref().and_then(Login::user))?;
    let admitted = registry.check_login(&scope, &login)?;
    let keeper = registry.store_login(&scope, &admitted.keep)?;
    if admitted.checked == Checked::NotAsked {
        render::note(&format!("{scope} lets in everybody, so the password was not checked"));
    }
    render::note(&match keeper {
        Keeper::File(path) => format!("the login is in {}, readable by you alone but not encrypted", path.display()),
        Keeper::Helper(program) => format!("the login is kept by {program}"),
    });
    render::result("Login Succeeded");
    Ok(())
}

/// What was named; docker.io if nothing was. An empty name is a script's variable without a value, and no reason to send a password anywhere.
pub(super) fn scope(server: Option<&str>) -> Result<Scope> {
    match server {
        Some(name) if name.trim().is_empty() => {
            Err(Error::input("the registry is empty").hint("name a registry, or leave it out for docker.io"))
        }
        server => server.unwrap_or_default().parse(),
    }
}

/// Whether the login that is stored will do; if not, the user is asked.
fn still_good(registry: &Client, scope: &Scope, login: &Login) -> Result<bool> {
    render::note(&format!("trying the stored login for {scope}"));
    match registry.check_login(scope, login) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == Kind::Denied => {
            render::note("it is no longer good");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

impl Arguments {
    fn ask(&self, scope: &Scope, known: Option<&str>) -> Result<Login> {
        let user = match (&self.username, known) {
            (Some(name), _) => name.clone(),
            (None, known) => {
                let offered = known.map_or(String::new(), |name| format!(" [{name}]"));
                let typed = prompt::line(&format!("User name for {scope}{offered}: "))?;
                if typed.is_empty() { known.unwrap_or_default().to_owned() } else { typed }
            }
        };
        let password = match &self.password {
            Some(password) => {
                render::warning("a password on the command line can be read by others; use `--password-stdin`");
                password.clone()
            }
            None if self.password_stdin => from_stdin()?,
            None => prompt::secret(&format!("Password of {user} at {}: ", scope.registry()))?,
        };
        Login::password(&user, &password)
    }
}

/// Standard input without the end of its last line, as docker.
fn from_stdin() -> Result<String> {
    let failed = |e| Error::os("can't read the password from standard input", e);
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(LONGEST_PASSWORD).read_to_end(&mut bytes).map_err(failed)?;
    let text = String::from_utf8(bytes).map_err(|_| Error::input("the password on standard input is not UTF-8"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}
