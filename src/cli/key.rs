//! `rootling key`: key files for signing, as cosign's.

use std::fs::OpenOptions;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::{prompt, render};
use crate::error::{Error, IoContext, Place, Result, quote_path};
use crate::trust::PrivateKey;

/// cosign's variable.
const PASSWORD: &str = "COSIGN_PASSWORD";

#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(clap::Subcommand)]
enum Task {
    /// Make a pair of keys: NAME.key, encrypted by a password from $COSIGN_PASSWORD or the terminal, and NAME.pub
    Generate {
        /// What the files are called, without `.key` and `.pub`
        #[arg(value_name = "NAME", default_value = "cosign")]
        name: PathBuf,
    },
    /// Print the public key that belongs to a private one
    Public {
        /// The private key
        #[arg(value_name = "KEYFILE")]
        file: PathBuf,
    },
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    match &arguments.task {
        Task::Generate { name } => generate(name, environment),
        Task::Public { file } => {
            render::result(read(file, None, environment)?.public().to_pem().trim_end());
            Ok(())
        }
    }
}

fn generate(name: &Path, environment: &Environment) -> Result<()> {
    let with = |extension: &str| PathBuf::from(format!("{}.{extension}", name.display()));
    let (private, public) = (with("key"), with("pub"));
    if let Some(there) = [&private, &public].into_iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(Error::input(format!("{} exists already", quote_path(there)))
            .cause("what was signed by a key that is overwritten can't be signed again")
            .hint("choose another name: `rootling key generate NAME`"));
    }
    let password = match environment.password(PASSWORD) {
        Some(password) => password.to_owned(),
        None => {
            let first = ask("Password for the new key: ")?;
            if ask("The same again: ")? != first {
                return Err(Error::input("the two passwords differ").hint("try again"));
            }
            first
        }
    };
    let key = PrivateKey::generate()?;
    write(&private, 0o600, &key.to_pem(&password)?)?;
    write(&public, 0o644, &key.public().to_pem())?;
    render::note(&format!("wrote {} and {}", private.display(), public.display()));
    Ok(())
}

fn write(path: &Path, mode: u32, text: &str) -> Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).doing("create", path)?;
    file.write_all(text.as_bytes()).doing("write", path)
}

/// Reads a private key. Its password, if it has one, is that in a file, in the variable, or what is typed.
pub fn read(file: &Path, password: Option<&Path>, environment: &Environment) -> Result<PrivateKey> {
    let text = std::fs::read(file).doing("read", file)?;
    let mut given = || match (password, environment.password(PASSWORD)) {
        (Some(path), _) => {
            let text = std::fs::read_to_string(path).doing("read", path)?;
            // podman takes the first line too.
            Ok(text.lines().next().unwrap_or_default().to_owned())
        }
        (None, Some(password)) => Ok(password.to_owned()),
        (None, None) => ask(&format!("Password for {}: ", file.display())),
    };
    PrivateKey::read(&text, &mut given).map_err(|e| e.at(Place::Path(file.to_owned())))
}

/// Asks at the terminal, without echo.
fn ask(question: &str) -> Result<String> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::input("the key needs a password")
            .cause("there is no terminal to ask for it")
            .hint("set $COSIGN_PASSWORD, or name a file: `--sign-passphrase-file FILE`"));
    }
    prompt::secret(question)
}
