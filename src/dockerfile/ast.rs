//! What a Dockerfile says, as a tree: one [`Instruction`] for each, with everything its text means but nothing expanded.
//!
//! Values keep their variables and, unless said otherwise, the quotes and escapes that `expand` removes. Every type here is plain
//! data; stages, scopes and defaults of variables are the business of planning.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::heredoc;
pub use super::mount::{Mount, MountFlag, MountKind, Sharing};
use super::source::{Source, Span};

/// A parsed Dockerfile: at least one `FROM`, before which only `ARG` stands.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    /// The text, for showing places in it.
    pub source: Source,
    /// The escape character: `\`, or `` ` `` by directive.
    pub escape: char,
    /// The parser directives as written, names in lower case.
    pub directives: Vec<Directive>,
    /// The instructions in order.
    pub instructions: Vec<Instruction>,
}

impl Dockerfile {
    /// The value of a parser directive (`syntax`, `escape`, `check`).
    pub fn directive(&self, name: &str) -> Option<&str> {
        self.directives.iter().find(|directive| directive.name == name).map(|directive| directive.value.as_str())
    }
}

/// `# name=value` at the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// In lower case.
    pub name: String,
    /// Without the white space around it.
    pub value: String,
    /// The line.
    pub span: Span,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// Where it stands, here-documents included.
    pub span: Span,
    /// Its name as written.
    pub keyword: String,
    /// Its logical line: continuations joined, comments gone, here-documents not included.
    pub original: String,
    /// Its flags as BuildKit's parser leaves them: quotes and escapes removed, `--` kept.
    pub flags: Vec<String>,
    /// Whether its arguments were written as a JSON array.
    pub json: bool,
    /// Its arguments as BuildKit's parser leaves them, unexpanded. `name`, `value` and separator by turns for `ENV` and `LABEL`;
    /// empty for `ONBUILD`, whose instruction is in its kind.
    pub args: Vec<String>,
    /// Its here-documents in order.
    pub heredocs: Vec<Heredoc>,
    /// What it means.
    pub kind: Kind,
}

/// A here-document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The terminator, without quotes.
    pub name: String,
    /// The number before `<<`; 0 if there is none.
    pub fd: u32,
    /// Whether variables are expanded: the name was not quoted.
    pub expand: bool,
    /// Whether leading tabs are stripped (`<<-`).
    pub chomp: bool,
    /// The text as written, leading tabs and line ends included.
    pub content: Arc<str>,
}

impl Heredoc {
    /// The text as it is meant: leading tabs stripped if asked for.
    pub fn text(&self) -> Cow<'_, str> {
        if !self.chomp {
            return Cow::Borrowed(&self.content);
        }
        Cow::Owned(self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect())
    }
}

/// What an instruction means.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A new stage.
    From(From),
    /// Variables with their defaults.
    Arg(Vec<(String, Option<String>)>),
    /// Environment variables.
    Env(Vec<(String, String)>),
    /// Labels.
    Label(Vec<(String, String)>),
    /// A command to run.
    Run(Box<Run>),
    /// Files from the context, a stage or an image.
    Copy(Box<Copy>),
    /// Files from the context, archives, URLs and Git repositories.
    Add(Box<Add>),
    /// The directory.
    Workdir(String),
    /// `user[:group]`.
    User(String),
    /// `port[-port][/protocol]`.
    Expose(Vec<String>),
    /// Paths.
    Volume(Vec<String>),
    /// Default arguments or command. Not expanded.
    Cmd(Command),
    /// Not expanded.
    Entrypoint(Command),
    /// The shell of shell-form commands. Not expanded.
    Shell(Vec<String>),
    /// A signal's name or number.
    StopSignal(String),
    /// A health check.
    Healthcheck(Healthcheck),
    /// An instruction for those who build on this image.
    Onbuild(Onbuild),
    /// The author.
    Maintainer(String),
}

/// `FROM [--platform=…] image [AS name]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// Image, earlier stage or `scratch`.
    pub image: String,
    /// The flag's value.
    pub platform: Option<String>,
    /// The stage's name, in lower case. Not expanded.
    pub name: Option<String>,
}

/// A command line in one of its two forms. Never expanded: in the shell form that is the shell's job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// One line for the shell; may be empty.
    Shell(String),
    /// A program and its arguments; may be empty.
    Exec(Vec<String>),
}

/// `RUN`
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The command as written; [`Run::invocation`] says what is run.
    pub command: Command,
    /// `--mount`, in order.
    pub mounts: Vec<MountFlag>,
    /// `--network`
    pub network: Network,
    /// `--security`
    pub security: Security,
    /// `--device`, in order.
    pub devices: Vec<String>,
    /// The here-documents the command names.
    pub heredocs: Vec<Heredoc>,
}

/// What a `RUN` runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// A text for the shell.
    Shell(String),
    /// A program and its arguments.
    Exec(Vec<String>),
    /// A here-document that starts with `#!`: a file to be made executable and run.
    Script {
        /// The here-document's name, which BuildKit gives the file.
        name: String,
        /// The file's content.
        content: String,
    },
}

impl Run {
    /// What to run. A command that is nothing but a here-document runs its text; otherwise the shell gets the command followed by
    /// the here-documents as they were written, and reads them itself.
    pub fn invocation(&self) -> Invocation {
        let line = match &self.command {
            Command::Exec(arguments) => return Invocation::Exec(arguments.clone()),
            Command::Shell(line) => line,
        };
        match self.heredocs.as_slice() {
            [] => Invocation::Shell(line.clone()),
            [only] if heredoc::parse(line).is_ok_and(|word| word.is_some()) => {
                let content = only.text().into_owned();
                if only.content.starts_with("#!") {
                    Invocation::Script { name: only.name.clone(), content }
                } else {
                    Invocation::Shell(content)
                }
            }
            several => Invocation::Shell(several.iter().fold(line.clone(), |text, heredoc| text + "\n" + &heredoc.content + &heredoc.name)),
        }
    }
}

/// `RUN --network`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// What the build says.
    #[default]
    Default,
    /// No network.
    None,
    /// The host's network.
    Host,
}

/// `RUN --security`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// As every other step.
    #[default]
    Sandbox,
    /// Without limits; needs an entitlement.
    Insecure,
}

/// What `COPY` and `ADD` have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// At least one, in order.
    pub sources: Vec<CopySource>,
    /// Where to.
    pub destination: String,
    /// `--chown`
    pub chown: Option<String>,
    /// `--chmod`
    pub chmod: Option<String>,
    /// `--link`
    pub link: bool,
    /// `--exclude`, in order.
    pub excludes: Vec<String>,
}

/// One source of a [`Transfer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopySource {
    /// A path or pattern, URL or repository.
    Path(String),
    /// A here-document: a file of its name.
    Inline(Heredoc),
}

/// `COPY`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// What, where to and how.
    pub transfer: Transfer,
    /// `--from`: stage, context or image. Not expanded.
    pub from: Option<String>,
    /// `--parents`
    pub parents: bool,
}

/// `ADD`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    /// What, where to and how.
    pub transfer: Transfer,
    /// `--checksum`
    pub checksum: Option<String>,
    /// `--keep-git-dir`
    pub keep_git_dir: bool,
    /// `--unpack`; unset means local archives are unpacked and remote ones are not.
    pub unpack: Option<bool>,
}

/// `HEALTHCHECK`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthcheck {
    /// Forgets the base image's.
    None,
    /// Runs a command now and then. A time that is unset or zero is the engine's default.
    Cmd {
        /// The command. Not expanded.
        command: Command,
        /// Between two checks.
        interval: Option<Duration>,
        /// For one check.
        timeout: Option<Duration>,
        /// In which failures do not count.
        start_period: Option<Duration>,
        /// Between two checks during the start period.
        start_interval: Option<Duration>,
        /// Failures in a row that make it unhealthy.
        retries: Option<u32>,
    },
}

/// `ONBUILD`
#[derive(Clone, Debug, PartialEq)]
pub struct Onbuild {
    /// What the image's configuration records: the instruction as one line, followed by its here-documents.
    pub trigger: String,
    /// The same, parsed.
    pub instruction: Box<Instruction>,
}
