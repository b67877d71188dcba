//! The command line: one file a command, one printer (`render`), and the only reader of the environment.
//!
//! Exit codes: 0 done; 1 not done; 2 wrong usage; a failing RUN of `build` passes the command's own code; `run`: 125 not started for our
//! reasons, 126 not executable, 127 not found, 128+n ended by signal n, else the command's own.

mod bind;
mod build;
mod cache;
mod completion;
mod convert;
mod describe;
mod environment;
mod export;
mod fakeroot;
mod filter;
mod history;
mod images;
mod import;
mod info;
mod inspect;
mod key;
mod load;
mod login;
mod logout;
mod manifest;
mod path;
mod prompt;
mod provenance;
mod prune;
mod pull;
mod push;
pub mod render;
mod rm;
mod run;
mod save;
mod sbom;
mod separated;
mod tag;
mod template;
mod timeline;
mod verify;
mod version;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::error::Result;
use environment::Environment;

/// Build, store, run and ship OCI container images without root, daemon or subuid.
#[derive(Parser)]
#[command(name = "rootling", version, propagate_version = true, max_term_width = 120)]
struct Cli {
    /// Storage directory; else $ROOTLING_STORAGE, else /var/tmp/$USER.rootling
    #[arg(long, short = 's', global = true, value_name = "DIR")]
    storage: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build an image from a Dockerfile
    #[command(visible_alias = "bud")]
    Build(Box<build::Arguments>),
    /// Pull an image from a registry
    Pull(pull::Arguments),
    /// Send an image to a registry, an archive, a layout, or a program of this machine
    Push(push::Arguments),
    /// Log in to a registry
    Login(login::Arguments),
    /// Log out of a registry
    Logout(logout::Arguments),
    /// Copy an image from any place to any place
    #[command(visible_alias = "copy")]
    Convert(Box<convert::Arguments>),
    /// Write images to an archive
    Save(save::Arguments),
    /// Take images from an archive
    Load(load::Arguments),
    /// Make an image of a rootfs tarball, a directory, or programs of this machine
    Import(import::Arguments),
    /// Run a command in an image
    Run(Box<run::Arguments>),
    /// Write an image's flattened root file system as a tarball
    Export(export::Arguments),
    /// List images
    #[command(visible_aliases = ["list", "ls"])]
    Images(images::Arguments),
    /// Show an image's manifest and config
    Inspect(inspect::Arguments),
    /// Show how an image was made
    History(history::Arguments),
    /// Give an image another name
    Tag(tag::Arguments),
    /// Remove images
    #[command(visible_aliases = ["rmi", "delete"])]
    Rm(rm::Arguments),
    /// Make, change, show and send lists of images for several platforms
    Manifest(Box<manifest::Arguments>),
    /// List what is kept for later builds: cache mounts and the results of steps
    Cache(cache::Arguments),
    /// Prove that everything in the storage directory is what it was, and mend what is not
    Verify(verify::Arguments),
    /// Remove what no image needs
    Prune(prune::Arguments),
    /// Show what is in an image, as an SPDX document
    Sbom(sbom::Arguments),
    /// Show how an image was made, as attached to it
    Provenance(provenance::Arguments),
    /// Make keys to sign with
    Key(key::Arguments),
    /// Print a directory with an image's root file system, for ch-run, bwrap or chroot
    Path(path::Arguments),
    /// Print the storage directory
    StoragePath,
    /// Show what this machine allows, and the remedy for what it does not
    Info(info::Arguments),
    /// Show the version
    Version(version::Arguments),
    /// Print a completion script for a shell
    Completion(completion::Arguments),
}

/// How listings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// `1 layer`, `2 layers`.
fn count(number: u64, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

/// Parses the command line, runs the command, prints its error, and gives the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no errors.
            let code = if error.use_stderr() { 2 } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let environment = Environment::read(cli.storage);
    let ours = if matches!(cli.command, Command::Run(_)) { 125 } else { 1 };
    match dispatch(cli.command, &environment) {
        Ok(code) => code,
        Err(error) => {
            render::error(&error);
            ExitCode::from(error.code().unwrap_or(ours))
        }
    }
}

fn dispatch(command: Command, environment: &Environment) -> Result<ExitCode> {
    match command {
        Command::Build(arguments) => return build::execute(*arguments, environment),
        Command::Run(arguments) => return run::execute(*arguments, environment),
        Command::Verify(arguments) => return verify::execute(&arguments, environment),
        Command::Pull(arguments) => pull::execute(&arguments, environment)?,
        Command::Push(arguments) => push::execute(&arguments, environment)?,
        Command::Login(arguments) => login::execute(&arguments, environment)?,
        Command::Logout(arguments) => logout::execute(&arguments, environment)?,
        Command::Convert(arguments) => convert::execute(&arguments, environment)?,
        Command::Save(arguments) => save::execute(&arguments, environment)?,
        Command::Load(arguments) => load::execute(&arguments, environment)?,
        Command::Import(arguments) => import::execute(&arguments, environment)?,
        Command::Export(arguments) => export::execute(&arguments, environment)?,
        Command::Images(arguments) => images::execute(&arguments, environment)?,
        Command::Inspect(arguments) => inspect::execute(&arguments, environment)?,
        Command::History(arguments) => history::execute(&arguments, environment)?,
        Command::Tag(arguments) => tag::execute(&arguments, environment)?,
        Command::Rm(arguments) => rm::execute(&arguments, environment)?,
        Command::Manifest(arguments) => manifest::execute(&arguments, environment)?,
        Command::Cache(arguments) => cache::execute(&arguments, environment)?,
        Command::Prune(arguments) => prune::execute(&arguments, environment)?,
        Command::Sbom(arguments) => sbom::execute(&arguments, environment)?,
        Command::Provenance(arguments) => provenance::execute(&arguments, environment)?,
        Command::Key(arguments) => key::execute(&arguments, environment)?,
        Command::Path(arguments) => path::execute(&arguments, environment)?,
        Command::StoragePath => render::result(&environment.storage()?.display().to_string()),
        Command::Info(arguments) => info::execute(&arguments, environment)?,
        Command::Version(arguments) => version::execute(&arguments),
        Command::Completion(arguments) => completion::execute(&arguments, &mut Cli::command()),
    }
    Ok(ExitCode::SUCCESS)
}
