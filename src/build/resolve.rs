//! From an instruction to what is to be done: variables replaced, paths made absolute, names of stages found.

use crate::dockerfile;
use crate::dockerfile::ast::{self, CopySource, Dockerfile, Instruction, Invocation, Kind, Mount, Security, Transfer};
use crate::dockerfile::expand::{Expanded, Mode, expand};
use crate::dockerfile::ignore::Ignore;
use crate::error::{Error, Kind as ErrorKind, Result, hide_credentials, quote};
use crate::oci::ImagePath;
use crate::sandbox::Network;
use crate::transfer::git::Metadata;

use super::chmod::Chmod;
use super::config_step::Change;
use super::copy::{Archives, Destination};
use super::remote::{self, Remote};
use super::sources::Shape;
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
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// A here-document that begins with `#!`: a file to run instead of a shell's text.
    pub script: Option<Script>,
    /// `--network`; `None` for the build's.
    pub network: Option<Network>,
    /// `--mount`, in order.
    pub mounts: Vec<Mount>,
    /// The file in which a fakeroot program that is in front keeps what it pretends.
    pub pretence: Option<ImagePath>,
}

/// A program given in the Dockerfile.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// Its file name.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// A COPY or ADD.
#[derive(Debug)]
pub struct Copy {
    /// Patterns, relative to the source's root.
    pub sources: Vec<String>,
    /// What ADD fetches.
    pub remotes: Vec<Remote>,
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
    /// `--exclude`, as written.
    pub exclude_patterns: Vec<String>,
    /// `--exclude`, all as one.
    pub excludes: Ignore,
    /// `--parents`.
    pub shape: Shape,
    /// `--link`.
    pub link: Link,
}

/// What a COPY's layer depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// On the layers below: links in the destination are followed, what is there stays what it is.
    Placed,
    /// `--link`: on nothing but what is copied.
    Linked,
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
    /// Resolves.
    pub fn resolve(&self, instruction: &Instruction) -> Result<Action> {
        let change = match &instruction.kind {
            Kind::From(_) => return Err(Error::input("FROM can't be a trigger")),
            Kind::Run(run) => return self.run(run),
            Kind::Copy(copy) => return self.copy(copy),
            Kind::Add(add) => return self.add(add),
            Kind::Workdir(path) => {
                let path = self.word(path)?;
                let path = ImagePath::clean(&self.state.config.config.working_dir).resolve(&path);
                return Ok(Action::Workdir(path.to_string()));
            }
            Kind::Arg(arguments) => Change::Arg(self.arguments(arguments)?),
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
            Kind::Healthcheck(check) => Change::Healthcheck(check.clone()),
            Kind::Onbuild(onbuild) => Change::Onbuild(onbuild.trigger.clone()),
            Kind::Maintainer(name) => Change::Maintainer(name.clone()),
        };
        Ok(Action::Config(change))
    }

    /// `--build-arg`, else the default, else the global argument of that name. Each sees those before it in the same instruction.
    fn arguments(&self, arguments: &[(String, Option<String>)]) -> Result<Vec<(String, Option<String>)>> {
        let mut scope = self.state.scope.clone();
        let mut resolved = Vec::new();
        for (name, default) in arguments {
            let value = match (self.arguments.get(name), default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => {
                    let lookup = |name: &str| scope.get(name).map(str::to_owned);
                    Some(expand(default, self.file.escape, &lookup, Mode::Word)?.text)
                }
                (None, None) => self.globals.get(name).cloned(),
            };
            scope.set_arg(name, value.as_deref());
            resolved.push((name.clone(), value));
        }
        Ok(resolved)
    }

    fn run(&self, run: &ast::Run) -> Result<Action> {
        let network = match run.network {
            ast::Network::Default => None,
            ast::Network::Host => Some(Network::Host),
            ast::Network::None => Some(Network::None),
        };
        let mounts = run.mounts.iter().map(|mount| mount.resolve(&mut |value| self.word(value))).collect::<Result<_>>()?;
        let mut script = None;
        let argv = match run.invocation() {
            Invocation::Exec(words) => words,
            Invocation::Script { name, content } => {
                script = Some(Script { name, text: content });
                Vec::new()
            }
            Invocation::Shell(text) => {
                let mut argv = self.state.shell();
                argv.push(text);
                argv
            }
        };
        Ok(Action::Run(Command { argv, script, network, mounts, pretence: None }))
    }

    fn copy(&self, copy: &ast::Copy) -> Result<Action> {
        if let Some(from) = &copy.from
            && from.contains('$')
        {
            return Err(
                Error::input("`--from` can't have variables").hint(format!("add a stage `FROM {from} AS NAME` above and copy from NAME"))
            );
        }
        // An empty name is the context (BuildKit).
        let shape = if copy.parents { Shape::Parents } else { Shape::Flat };
        let copy = Copy { shape, ..self.transfer(&copy.transfer, copy.from.clone().filter(|from| !from.is_empty()), Archives::Copy)? };
        if let Some(url) = copy.sources.iter().find(|source| remote::is_web(source)) {
            return Err(Error::input(format!("COPY can't download {}", quote(hide_credentials(url)))).hint("ADD can"));
        }
        Ok(Action::Copy(copy))
    }

    fn add(&self, add: &ast::Add) -> Result<Action> {
        let local = if add.unpack == Some(false) { Archives::Copy } else { Archives::Unpack };
        let mut copy = self.transfer(&add.transfer, None, local)?;
        let checksum = add.checksum.as_deref().map(|checksum| self.word(checksum)).transpose()?.filter(|checksum| !checksum.is_empty());
        let flags = remote::Flags {
            checksum: checksum.as_deref(),
            metadata: if add.keep_git_dir { Metadata::Keep } else { Metadata::Drop },
            archives: if add.unpack == Some(true) { Archives::Unpack } else { Archives::Copy },
        };
        let mut local = Vec::new();
        for source in std::mem::take(&mut copy.sources) {
            match Remote::parse(&source, &flags)? {
                Some(remote) => copy.remotes.push(remote),
                None => local.push(source),
            }
        }
        remote::check_flags(copy.remotes.len(), local.len() + copy.inline.len(), &flags)?;
        copy.sources = local;
        Ok(Action::Copy(copy))
    }

    fn transfer(&self, transfer: &Transfer, from: Option<String>, archives: Archives) -> Result<Copy> {
        let mut sources = Vec::new();
        let mut inline = Vec::new();
        for source in &transfer.sources {
            match source {
                CopySource::Path(path) => sources.push(self.word(path)?),
                CopySource::Inline(heredoc) => {
                    let text = heredoc.text();
                    let text = if heredoc.expand { self.expand(&text, Mode::Heredoc)?.text } else { text.into_owned() };
                    inline.push((heredoc.name.clone(), text));
                }
            }
        }
        let destination = Destination::new(&self.word(&transfer.destination)?, &self.state.config.config.working_dir);
        if sources.len() + inline.len() > 1 && !destination.is_directory() {
            return Err(needs_directory());
        }
        let chown = transfer.chown.as_deref().map(|chown| self.word(chown)).transpose()?.filter(|chown| !chown.is_empty());
        let chmod = transfer.chmod.as_deref().map(|chmod| self.word(chmod)).transpose()?.filter(|chmod| !chmod.is_empty());
        let chmod = chmod.as_deref().map(Chmod::parse).transpose()?;
        // With `--chmod` BuildKit copies as without `--link`, and Dockerfiles rely on links being followed then.
        let link = if transfer.link && chmod.is_none() { Link::Linked } else { Link::Placed };
        let exclude_patterns = self.words(&transfer.excludes)?;
        let excludes = Ignore::from_patterns(exclude_patterns.iter().map(String::as_str))?;
        let (remotes, shape) = (Vec::new(), Shape::Flat);
        Ok(Copy { sources, remotes, inline, destination, from, chown, chmod, archives, exclude_patterns, excludes, shape, link })
    }

    fn expand(&self, text: &str, mode: Mode) -> Result<Expanded> {
        let lookup = |name: &str| self.state.scope.get(name).map(str::to_owned);
        expand(text, self.file.escape, &lookup, mode).map_err(Error::from)
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

/// Whether this version executes an instruction: asked of all before the first is executed, since nothing is ignored in silence and
/// nobody should wait for a long step to hear it.
pub fn check_supported(instruction: &Instruction) -> Result<()> {
    match &instruction.kind {
        Kind::Run(run) => check_privileges(run),
        Kind::Copy(copy) => check_destination(&copy.transfer),
        Kind::Add(add) => check_destination(&add.transfer),
        _ => Ok(()),
    }
}

/// What nobody without privileges can give. A device that is not required may be missing (BuildKit), so only required ones are errors.
fn check_privileges(run: &ast::Run) -> Result<()> {
    if run.security == Security::Insecure {
        return Err(Error::with_kind(ErrorKind::Unsupported, "`RUN --security=insecure` asks for privileges on the machine")
            .cause("this program has none, whoever allows them")
            .hint("leave it out; if the command lacks a capability within its container, `rootling build --cap-add` gives it"));
    }
    for device in &run.devices {
        let fields = dockerfile::comma_fields("--device", device)?;
        let required = fields.iter().any(|field| matches!(field.as_str(), "required" | "required=true" | "required=1"));
        if required {
            let name = fields.iter().find(|field| !field.starts_with("required")).map_or("", |field| field.trim_start_matches("name="));
            return Err(Error::with_kind(ErrorKind::Unsupported, format!("the device {} is not there", quote(name)))
                .cause("devices of CDI are not known here")
                .hint("leave `--device` out and give the build the device's files: `rootling build --device /dev/NAME --bind LIBRARY`"));
        }
    }
    Ok(())
}

/// Several sources need a directory; said before the first step where no variable leaves it open.
fn check_destination(transfer: &Transfer) -> Result<()> {
    let written = &transfer.destination;
    if transfer.sources.len() < 2 || written.contains('$') || Destination::new(written, "/").is_directory() {
        return Ok(());
    }
    Err(needs_directory())
}

fn needs_directory() -> Error {
    Error::input("several sources need a directory as destination").hint("end the destination with `/`")
}

/// The line of the history for a RUN, with the arguments it saw in front, as docker writes it.
pub fn run_history(state: &State, command: &Command) -> String {
    let mut line = String::from("RUN ");
    let arguments: Vec<String> = state.scope.arguments().map(|(name, value)| format!("{name}={value} ")).collect();
    if !arguments.is_empty() {
        line.push_str(&format!("|{} {}", arguments.len(), arguments.concat()));
    }
    line.push_str(&match &command.script {
        Some(script) if command.argv.is_empty() => script.text.clone(),
        Some(script) => format!("{} {}", command.argv.join(" "), script.text),
        None => command.argv.join(" "),
    });
    line
}
