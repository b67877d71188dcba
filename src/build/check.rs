//! The build checks of a Dockerfile with what a build knows: its arguments and platform, the base images, what the context leaves out.

use std::collections::{BTreeMap, BTreeSet};

use crate::dockerfile::ast::Dockerfile;
use crate::dockerfile::ignore::Ignore;
use crate::dockerfile::lint::{self, Base, Config, Facts, Finding};
use crate::error::{Error, Kind, Result, quote};
use crate::event::{Event, Sink};
use crate::oci::{ImageConfig, Platform};
use crate::store::Store;

use super::Request;
use super::location::{Location, context_name};
use super::plan::{self, Plan};
use super::scope::platform_arguments;

/// The build argument that takes the place of the file's directive.
const ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// Findings shown before a build; who wants them all asks for them.
const SHOWN: usize = 10;

/// What is checked, and what is known of its surroundings.
pub struct Subject<'a> {
    /// The ignore file's name and text, as in [`Request::ignore`].
    pub ignore: Option<&'a (String, String)>,
    /// `--target`; without, all stages are checked.
    pub target: Option<&'a str>,
    /// `--build-arg`.
    pub arguments: &'a BTreeMap<String, String>,
    /// The platform to build for.
    pub platform: &'a Platform,
    /// `--build-context`.
    pub contexts: &'a BTreeMap<String, Location>,
    /// What is known of a base image.
    pub base: &'a dyn Fn(&str, &Platform) -> Base,
}

/// What was found.
pub struct Inspection {
    /// In the order of the file.
    pub findings: Vec<Finding>,
    /// What the file or the build arguments ask for.
    pub config: Config,
    /// Why the file can't be built, if what it says is enough to tell.
    pub failure: Option<Error>,
}

/// Checks a file that was parsed.
///
/// Errors: those of the checks' own configuration, and of the ignore file.
pub fn inspect(file: &Dockerfile, subject: &Subject<'_>) -> Result<Inspection> {
    let host = Platform::host();
    let is_context = |name: &str| subject.contexts.contains_key(&context_name(name));
    let Subject { target, arguments, platform, .. } = *subject;
    let options = plan::Options { target, arguments, platform, host: &host, is_context: &is_context };
    let plan = plan::plan(file, &options);
    let stages = plan.as_ref().ok().filter(|_| subject.target.is_some()).map(|plan| &plan.needed);
    let config = configuration(file, subject.arguments)?;
    Ok(Inspection { findings: findings(file, subject, &config, stages)?, config, failure: plan.err() })
}

fn findings(file: &Dockerfile, subject: &Subject<'_>, config: &Config, stages: Option<&BTreeSet<usize>>) -> Result<Vec<Finding>> {
    let ignore = subject.ignore.map(|(name, text)| Ignore::parse(name, text.as_bytes())).transpose()?;
    let globals = platform_arguments(&Platform::host(), subject.platform, subject.target);
    let facts = Facts {
        arguments: subject.arguments,
        globals: &globals,
        platform: subject.platform,
        stages,
        ignore: ignore.as_ref(),
        base: subject.base,
    };
    Ok(lint::lint(file, config, &facts))
}

/// The error that findings are where the configuration says so.
pub fn error(findings: &[Finding]) -> Option<Error> {
    let mut names: Vec<String> = findings.iter().map(|finding| quote(finding.rule.name)).collect();
    names.dedup();
    let first = findings.first()?;
    let what = match findings {
        [_] => format!("the Dockerfile fails build check {}", names.concat()),
        several => format!("the Dockerfile fails {} build checks", several.len()),
    };
    let error = Error::with_kind(Kind::Input, what).at(first.place.clone()).cause(&first.message);
    Some(error.hint(format!("mend it, or skip a check with `# check=skip={}` above the instruction", first.rule.name)))
}

/// Says before a build what was found; that is an error if the file asks for it. Of base images only those in storage are looked at.
pub(super) fn warn(file: &Dockerfile, request: &Request, plan: &Plan<'_>, store: &Store, sink: &dyn Sink) -> Result<()> {
    let platform = request.platforms.first().cloned().unwrap_or_else(Platform::host);
    let base = |name: &str, _: &Platform| stored(store, name).map_or(Base::Unknown, |config| Base::Known(Box::new(config)));
    let config = configuration(file, &request.arguments)?;
    for (name, near) in config.unknown() {
        let near = near.map_or(String::new(), |near| format!("; did you mean {}?", quote(near)));
        sink.event(Event::Warning(&format!("no build check is called {}{near}", quote(name))));
    }
    let subject = Subject {
        ignore: request.ignore.as_ref(),
        target: request.target.as_deref(),
        arguments: &request.arguments,
        platform: &platform,
        contexts: &request.contexts,
        base: &base,
    };
    let findings = findings(file, &subject, &config, Some(&plan.needed))?;
    for finding in findings.iter().take(SHOWN) {
        let line = finding.span.first_line;
        sink.event(Event::Warning(&format!("{}:{line}: {} ({})", file.source.name(), finding.message, finding.rule.name)));
    }
    if findings.len() > SHOWN {
        sink.event(Event::Warning(&format!("{} more build checks found something: `--check` shows all", findings.len() - SHOWN)));
    }
    error(&findings).filter(|_| config.error).map_or(Ok(()), Err)
}

fn configuration(file: &Dockerfile, arguments: &BTreeMap<String, String>) -> Result<Config> {
    match arguments.get(ARGUMENT) {
        Some(text) => Config::parse(text).map_err(|error| error.context(format!("can't read build argument {}", quote(ARGUMENT)))),
        None => lint::configuration(file),
    }
}

/// The config of an image in storage.
pub fn stored(store: &Store, name: &str) -> Option<ImageConfig> {
    let record = store.find_image(name).ok()?;
    Some(store.load_image(&record).ok()?.config)
}
