//! From an instruction to what is to be done: variables replaced, paths made absolute, names of stages found.

use crate::dockerfile::{CommandLine, Dockerfile, Health, Instruction, Kind, Mode, expand};
use crate::error::{Error, Kind as ErrorKind, Result, quote};
use crate::oci::ImagePath;

use super::chmod::Chmod;
use super::config_step::{self, Change};
use super::copy::{Archives, Destination};
use super::state::State;

/// What an instruction comes to.
#[derive(Debug)]
pub enum Action {
    /// Changes the config.
    Config(Change),
    /// Runs a command.
    Run(Command),
    /// Copies files.
    Copy(Copy),
    /// Makes a directory and goes there.
    Workdir(String),
}

/// A RUN.
#[derive(Debug, PartialEq)]
pub struct Command {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// A here-document that begins with `#!`: a file to run instead of a shell's text.
    pub script: Option<Script>,
    /// `--network=none`.
    pub network: Network,
}

/// A program given in the Dockerfile.
#[derive(Debug, PartialEq)]
pub struct Script {
    /// Its file name.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Which network a RUN sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// The machine's.
    Host,
    /// None.
    None,
}

/// A COPY or ADD.
#[derive(Debug)]
pub struct Copy {
    /// Patterns, relative to the source's root.
    pub sources: Vec<String>,
    /// Files given in the Dockerfile: name and text.
    pub inline: Vec<(String, String)>,
    /// Where to.
    pub destination: Destination,
    /// `--from`: a stage or an image.
    pub from: Option<String>,
    /// `--chown`, names or numbers.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<Chmod>,
    /// ADD unpacks.
    pub archives: Archives,
}

/// What resolving depends on besides the instruction.
pub struct Resolver<'a> {
    /// For positions in errors, and the escape character.
    pub file: &'a Dockerfile,
    /// The stage so far.
    pub state: &'a State,
    /// `--build-arg`.
    pub arguments: &'a std::collections::BTreeMap<String, String>,
    /// The global arguments.
    pub globals: &'a std::collections::BTreeMap<String, String>,
}

impl Resolver<'_> {
    /// Resolves; errors point at the instruction.
    pub fn resolve(&self, instruction: &Instruction) -> Result<Action> {
        self.action(instruction, &instruction.kind).map_err(|e| match e.place() {
            None => self.file.locate(e, instruction),
            Some(_) => e,
        })
    }

    fn action(&self, instruction: &Instruction, kind: &Kind) -> Result<Action> {
        let change = match kind {
            Kind::From { .. } => return Err(Error::new("FROM inside a stage")),
            Kind::Run { .. } => return self.run(kind, instruction),
            Kind::Copy { .. } | Kind::Add { .. } => return self.copy(kind, instruction),
            Kind::Workdir(path) => {
                let path = self.word(path)?;
                if path.is_empty() {
                    return Err(Error::input("WORKDIR names no directory after its variables are replaced"));
                }
                let path = ImagePath::clean(&self.state.config.config.working_dir).resolve(&path);
                return Ok(Action::Workdir(path.to_string()));
            }
            Kind::Arg(arguments) => Change::Arg(arguments.iter().map(|(name, default)| self.argument(name, default.as_deref())).collect::<Result<_>>()?),
            Kind::Env(pairs) => Change::Env(self.pairs(pairs)?),
            Kind::Label(pairs) => Change::Label(self.pairs(pairs)?),
            Kind::User(user) => Change::User(self.word(user)?),
            Kind::Expose(ports) => {
                let mut words = Vec::new();
                for port in ports {
                    words.extend(self.expand(port, Mode::Words)?.words);
                }
                Change::Expose(words)
            }
            Kind::Volume(volumes) => Change::Volume(self.words(volumes)?),
            Kind::Cmd(line) => Change::Cmd(line.clone()),
            Kind::Entrypoint(line) => Change::Entrypoint(line.clone()),
            Kind::Shell(shell) => Change::Shell(shell.clone()),
            Kind::StopSignal(signal) => Change::StopSignal(self.word(signal)?),
            Kind::Healthcheck(health) => Change::Healthcheck(Health::clone(health)),
            Kind::Onbuild { trigger, .. } => Change::Onbuild(trigger.clone()),
            Kind::Maintainer(name) => Change::Maintainer(name.clone()),
        };
        Ok(Action::Config(change))
    }

    /// `--build-arg`, else the default, else the global argument of that name.
    fn argument(&self, name: &str, default: Option<&str>) -> Result<(String, Option<String>)> {
        let value = match (self.arguments.get(name), default) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(default)) => Some(self.word(default)?),
            (None, None) => self.globals.get(name).cloned(),
        };
        Ok((name.to_owned(), value))
    }

    fn run(&self, kind: &Kind, instruction: &Instruction) -> Result<Action> {
        let Kind::Run { command, mounts, network, security, .. } = kind else { unreachable!("called for RUN only") };
        if !mounts.is_empty() {
            return Err(unsupported("RUN --mount"));
        }
        if security.as_deref().is_some_and(|security| security != "sandbox") {
            return Err(unsupported("RUN --security=insecure"));
        }
        let network = match network.as_deref() {
            None | Some("default" | "host") => Network::Host,
            Some("none") => Network::None,
            Some(other) => return Err(Error::input(format!("unknown network {}", quote(other))).hint("`--network` is default, host or none")),
        };
        let mut script = None;
        let argv = match command {
            CommandLine::Exec(words) => words.clone(),
            CommandLine::Shell(text) => {
                let mut argv = self.state.shell();
                match instruction.heredocs.as_slice() {
                    [] => argv.push(text.clone()),
                    [only] if only.is_whole_command(text) => {
                        if only.content.starts_with("#!") {
                            script = Some(Script { name: only.name.clone(), text: only.content.clone() });
                            argv.clear();
                        } else {
                            argv.push(only.content.clone());
                        }
                    }
                    several => {
                        // The shell reads its own here-documents.
                        let mut text = text.clone();
                        for heredoc in several {
                            text.push('\n');
                            text.push_str(&heredoc.raw);
                            text.push_str(&heredoc.name);
                        }
                        argv.push(text);
                    }
                }
                argv
            }
        };
        Ok(Action::Run(Command { argv, script, network }))
    }

    fn copy(&self, kind: &Kind, instruction: &Instruction) -> Result<Action> {
        let (Kind::Copy { transfer } | Kind::Add { transfer }) = kind else { unreachable!("called for COPY and ADD only") };
        for (flag, given) in [
            ("--link", transfer.link),
            ("--parents", transfer.parents),
            ("--exclude", !transfer.excludes.is_empty()),
            ("--checksum", transfer.checksum.is_some()),
            ("--keep-git-dir", transfer.keep_git_dir),
            ("--unpack", transfer.unpack.is_some()),
        ] {
            if given {
                return Err(unsupported(flag));
            }
        }
        let archives = if matches!(kind, Kind::Add { .. }) { Archives::Unpack } else { Archives::Copy };
        let from = transfer.from.clone();
        if let Some(from) = &from
            && from.contains('$')
        {
            return Err(Error::input("`--from` can't have variables").hint(format!("add a stage `FROM {from} AS NAME` above and copy from NAME")));
        }
        let mut sources = self.words(&transfer.sources)?;
        if archives == Archives::Unpack
            && let Some(url) = sources.iter().find(|s| is_remote(s))
        {
            return Err(unsupported("ADD of a URL").cause(format!("{} is not local", quote(url))));
        }
        let mut inline = Vec::new();
        for heredoc in &instruction.heredocs {
            let text = if heredoc.expand { self.expand(&heredoc.content, Mode::Raw)?.text } else { heredoc.content.clone() };
            inline.push((heredoc.name.clone(), text));
        }
        sources.retain(|source| !source.is_empty());
        let destination = Destination::new(&self.word(&transfer.destination)?, &self.state.config.config.working_dir);
        if sources.len() + inline.len() > 1 && !destination.is_directory() {
            return Err(Error::input("several sources need a directory as destination").hint("end the destination with `/`"));
        }
        let chown = transfer.chown.as_deref().map(|chown| self.word(chown)).transpose()?.filter(|chown| !chown.is_empty());
        let chmod = transfer.chmod.as_deref().map(|chmod| self.word(chmod)).transpose()?.filter(|chmod| !chmod.is_empty());
        let chmod = chmod.as_deref().map(Chmod::parse).transpose()?;
        Ok(Action::Copy(Copy { sources, inline, destination, from, chown, chmod, archives }))
    }

    fn expand(&self, text: &str, mode: Mode) -> Result<crate::dockerfile::Expanded> {
        let lookup = |name: &str| self.state.scope.get(name).map(str::to_owned);
        expand(text, self.file.escape(), &lookup, mode).map_err(|e| Error::input(e.to_string()))
    }

    fn word(&self, text: &str) -> Result<String> {
        Ok(self.expand(text, Mode::Word)?.text)
    }

    fn words(&self, texts: &[String]) -> Result<Vec<String>> {
        texts.iter().map(|text| self.word(text)).collect()
    }

    fn pairs(&self, pairs: &[(String, String)]) -> Result<Vec<(String, String)>> {
        pairs.iter().map(|(name, value)| Ok((self.word(name)?, self.word(value)?))).collect()
    }
}

/// The line of the history for a RUN, with the arguments it saw in front, as docker writes it.
pub fn run_history(state: &State, command: &Command) -> String {
    let mut line = String::from("RUN ");
    let arguments: Vec<String> = state.scope.arguments().map(|(name, value)| format!("{name}={value} ")).collect();
    if !arguments.is_empty() {
        line.push_str(&format!("|{} {}", arguments.len(), arguments.concat()));
    }
    line.push_str(&match &command.script {
        Some(script) => script.text.clone(),
        None => command.argv.join(" "),
    });
    line
}

/// The words of a command as the config keeps them; here so that `step` needs one import.
pub use config_step::apply as apply_change;

fn is_remote(source: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@"].iter().any(|scheme| source.starts_with(scheme))
}

/// What the grammar has and the engine not yet.
fn unsupported(what: &str) -> Error {
    Error::with_kind(ErrorKind::Unsupported, format!("{what} is not executed yet"))
        .cause("this version parses it, but ignoring it in silence would make a wrong image")
}
