//! What `rootling build` says of a Dockerfile without building: its parse tree (`--parse-only`) and BuildKit's build checks (`--check`).

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::process::ExitCode;

use serde::Serialize;

use crate::build;
use crate::build::check::{self, Inspection, Subject};
use crate::cli::environment::Environment;
use crate::cli::render::{self, Severity};
use crate::dockerfile::lint::{Base, Finding};
use crate::dockerfile::{self, ast::Dockerfile};
use crate::error::{Error, Place, Result, quote};
use crate::oci::{ImageConfig, Platform, Reference};
use crate::store::Store;
use crate::transfer;

/// The options.
#[derive(clap::Args)]
pub struct CheckArguments {
    /// Print what BuildKit's build checks find in the Dockerfile and build nothing; findings exit with 1 [possible values: warn, error]
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "warn", value_name = "SEVERITY", hide_possible_values = true)]
    check: Option<CheckArgument>,
    /// What to do with the Dockerfile: docker's spelling of `--check`
    #[arg(long, value_enum, value_name = "METHOD", conflicts_with = "check")]
    call: Option<Call>,
    /// Print the Dockerfile's parse tree and build nothing
    #[arg(long, conflicts_with_all = ["check", "call"])]
    parse_only: bool,
    /// How `--check` and `--parse-only` print [default: text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
}

/// How bad findings are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum CheckArgument {
    /// As the Dockerfile says.
    Warn,
    /// Errors.
    Error,
}

/// docker's methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Call {
    /// Build it.
    Build,
    /// Check it.
    Check,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What is to be done with a Dockerfile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Build it.
    Build,
    /// Print its tree.
    Parse,
    /// Check it.
    Check,
}

/// What a check needs besides the options of its own.
pub struct Surroundings<'a> {
    /// For storage.
    pub environment: &'a Environment,
    /// For bases that are not in storage.
    pub client: &'a transfer::Client,
    /// The ignore file's name and text.
    pub ignore: Option<&'a (String, String)>,
    /// `--target`.
    pub target: Option<&'a str>,
    /// `--build-arg`.
    pub arguments: &'a BTreeMap<String, String>,
    /// The platform to build for.
    pub platform: &'a Platform,
    /// `--build-context`.
    pub contexts: &'a BTreeMap<String, build::Location>,
}

impl CheckArguments {
    /// What is asked for.
    pub fn task(&self) -> Result<Task> {
        let task = match (self.parse_only, self.check.is_some() || self.call == Some(Call::Check)) {
            (true, _) => Task::Parse,
            (_, true) => Task::Check,
            _ => Task::Build,
        };
        if task == Task::Build && self.format.is_some() {
            return Err(Error::input("`--format` goes with `--check` or `--parse-only`"));
        }
        Ok(task)
    }

    /// Prints the parse tree. A stage need not come first, as for BuildKit's parser: instructions alone have a tree too.
    pub fn print_tree(&self, name: &str, source: &[u8]) -> Result<()> {
        let file = dockerfile::parse_fragment(name, source)?;
        match self.format {
            Some(Format::Json) => {
                let tree = dockerfile::tree::json(&file).map_err(|e| Error::new("can't write the parse tree").cause(e))?;
                render::result(&tree);
            }
            _ => render::result(dockerfile::tree::text(&file).trim_end()),
        }
        Ok(())
    }

    /// Checks and prints what is found.
    pub fn print_findings(&self, name: &str, source: &[u8], surroundings: &Surroundings<'_>) -> Result<ExitCode> {
        let file = dockerfile::parse(name, source)?;
        let bases = Bases { surroundings, store: OnceCell::new(), known: RefCell::default() };
        let subject = Subject {
            ignore: surroundings.ignore,
            target: surroundings.target,
            arguments: surroundings.arguments,
            platform: surroundings.platform,
            contexts: surroundings.contexts,
            base: &|name, platform| bases.find(name, platform),
        };
        let Inspection { findings, config, failure } = check::inspect(&file, &subject)?;
        for (name, near) in config.unknown() {
            let near = near.map_or(String::new(), |near| format!("; did you mean {}?", quote(near)));
            render::warning(&format!("no build check is called {}{near}", quote(name)));
        }
        let severe = config.error || self.check == Some(CheckArgument::Error);
        match self.format {
            Some(Format::Json) => render::result(&json(&file, &findings)?),
            _ => print(&findings, if severe { Severity::Error } else { Severity::Warning }),
        }
        match (failure, check::error(&findings).filter(|_| severe)) {
            (Some(error), _) | (None, Some(error)) => Err(error),
            (None, None) if findings.is_empty() => Ok(ExitCode::SUCCESS),
            (None, None) => Ok(ExitCode::FAILURE),
        }
    }
}

fn print(findings: &[Finding], severity: Severity) {
    for finding in findings {
        render::finding(severity, &format!("{}: {}", finding.rule.name, finding.message), &finding.place);
    }
    match findings.len() {
        0 => render::result("no findings"),
        1 => render::result("1 finding"),
        several => render::result(&format!("{several} findings")),
    }
}

/// What is known of base images, asked once for each.
struct Bases<'a> {
    surroundings: &'a Surroundings<'a>,
    store: OnceCell<Option<Store>>,
    known: RefCell<BTreeMap<(String, Platform), Base>>,
}

impl Bases<'_> {
    fn find(&self, name: &str, platform: &Platform) -> Base {
        if self.surroundings.contexts.contains_key(&build::context_name(name)) {
            return Base::Unknown;
        }
        let key = (name.to_owned(), platform.clone());
        if let Some(base) = self.known.borrow().get(&key) {
            return base.clone();
        }
        let base = self.config(name, platform).map_or(Base::Bare, |config| Base::Known(Box::new(config)));
        self.known.borrow_mut().insert(key, base.clone());
        base
    }

    /// From storage, else from the registry; as docker's check does, but not to know is no error.
    fn config(&self, name: &str, platform: &Platform) -> Option<ImageConfig> {
        let store = self.store.get_or_init(|| self.surroundings.environment.store().ok()).as_ref()?;
        let stored = check::stored(store, name);
        if stored.as_ref().is_some_and(|config| config.platform().serves(platform).is_some() || config.architecture.is_empty()) {
            return stored;
        }
        let asked = name.parse::<Reference>().and_then(|name| transfer::config(store, self.surroundings.client, &name, platform));
        match asked {
            Ok(config) => Some(config),
            Err(_) if stored.is_some() => stored,
            Err(error) => {
                render::warning(&format!(
                    "nothing is known of base image {}, so variables it sets count as undefined: {error}",
                    quote(name)
                ));
                None
            }
        }
    }
}

/// As BuildKit's lint request answers, with the exact place besides.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Warning<'a> {
    rule_name: &'a str,
    description: &'a str,
    detail: &'a str,
    location: Location,
    line: usize,
    column: usize,
}

#[derive(Serialize)]
struct Location {
    ranges: [Range; 1],
}

#[derive(Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Serialize)]
struct Position {
    line: usize,
}

fn json(file: &Dockerfile, findings: &[Finding]) -> Result<String> {
    let warnings: Vec<Warning<'_>> = findings.iter().map(warning).collect();
    let document = serde_json::json!({ "warnings": warnings, "sources": [{ "filename": file.source.name() }] });
    serde_json::to_string_pretty(&document).map_err(|e| Error::new("can't write the findings").cause(e))
}

fn warning(finding: &Finding) -> Warning<'_> {
    let Finding { rule, message, span, place } = finding;
    let (line, column) = match place {
        Place::Text(snippet) => (snippet.line, snippet.column),
        _ => (span.first_line, 1),
    };
    let range = Range { start: Position { line: span.first_line }, end: Position { line: span.last_line } };
    Warning { rule_name: rule.name, description: rule.description, detail: message, location: Location { ranges: [range] }, line, column }
}
