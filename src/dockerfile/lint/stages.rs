//! What the instructions of each stage do one after the other: variables, what is overridden, secrets, ports, files that are left out.

use super::from::{On, Stage, Stages};
use super::scope::Scope;
use super::{Base, Facts, Report, Rule, Word, rules};
use crate::dockerfile::ast::{Command, CopySource, Instruction, Kind, Transfer};
use crate::dockerfile::expand::Mode;
use crate::dockerfile::parse_fragment;
use crate::error::Error;

/// A stage so far.
#[derive(Clone)]
struct State<'a> {
    scope: Scope,
    /// Whether SHELL was set: then the shell form is meant.
    shell: bool,
    /// Whether WORKDIR was set in this file.
    workdir: bool,
    /// The last of those instructions of which only the last counts.
    last: [Option<&'a Instruction>; 3],
}

/// Looks at the stages that are asked for.
pub(super) fn check<'a>(report: &mut Report<'a>, facts: &Facts<'_>, stages: &Stages<'a>) {
    let facts = &Facts { globals: &stages.globals, ..*facts };
    let mut states: Vec<Option<State<'a>>> = Vec::with_capacity(stages.list.len());
    for (number, stage) in stages.list.iter().enumerate() {
        let asked = facts.stages.is_none_or(|asked| asked.contains(&number));
        let state = asked.then(|| stage_state(report, facts, &stages.list, stage, &states));
        states.push(state.flatten());
    }
}

/// `None` if the stage can't be executed to its end, which the build will say.
fn stage_state<'a>(
    report: &mut Report<'a>,
    facts: &Facts<'_>,
    stages: &[Stage<'a>],
    stage: &Stage<'a>,
    states: &[Option<State<'a>>],
) -> Option<State<'a>> {
    let mut triggers = Vec::new();
    let mut state = match &stage.base {
        On::Scratch => State::new(None),
        On::Stage(index) => {
            triggers.extend(stages[*index].instructions.iter().filter_map(|instruction| match &instruction.kind {
                Kind::Onbuild(onbuild) => Some((*onbuild.instruction).clone()),
                _ => None,
            }));
            State { last: [None; 3], ..states[*index].clone()? }
        }
        On::Image(name) => {
            let base = (facts.base)(name, &stage.platform);
            if let Base::Known(config) = &base {
                let actual = config.platform();
                if (&actual.os, &actual.architecture) != (&stage.platform.os, &stage.platform.architecture)
                    && !actual.architecture.is_empty()
                {
                    let message = format!(
                        "Base image {name} was pulled with platform \"{actual}\", expected \"{}\" for current build",
                        stage.platform
                    );
                    report.add(&rules::INVALID_BASE_IMAGE_PLATFORM, stage.from, Word::First(name), message);
                }
                for trigger in &config.config.on_build {
                    triggers.extend(parse_fragment("ONBUILD", trigger.as_bytes()).ok()?.instructions);
                }
            }
            State::new(Some(&base))
        }
    };
    for trigger in &triggers {
        step(report, facts, &mut state, trigger, stage.from)?;
    }
    for instruction in stage.instructions {
        only_last(report, &mut state, instruction);
        step(report, facts, &mut state, instruction, instruction)?;
    }
    Some(state)
}

impl State<'_> {
    fn new(base: Option<&Base>) -> Self {
        let shell = matches!(base, Some(Base::Known(config)) if !config.config.shell.is_empty());
        Self { scope: Scope::new(base), shell, workdir: false, last: [None; 3] }
    }
}

/// ENTRYPOINT, CMD and HEALTHCHECK: all but the last of a stage are for nothing.
fn only_last<'a>(report: &mut Report<'a>, state: &mut State<'a>, instruction: &'a Instruction) {
    let slot = match instruction.kind {
        Kind::Entrypoint(_) => 0,
        Kind::Cmd(_) => 1,
        Kind::Healthcheck(_) => 2,
        _ => return,
    };
    if let Some(before) = state.last[slot].replace(instruction) {
        let name = &instruction.keyword;
        let message = format!("Multiple {name} instructions should not be used in the same stage because only the last one will be used");
        report.add(&rules::MULTIPLE_INSTRUCTIONS_DISALLOWED, before, Word::Name, message);
    }
}

/// One instruction, reported at `at`, which is the FROM for a trigger.
fn step(report: &mut Report<'_>, facts: &Facts<'_>, state: &mut State<'_>, instruction: &Instruction, at: &Instruction) -> Option<()> {
    match &instruction.kind {
        Kind::Arg(pairs) => arguments(report, facts, state, pairs, at)?,
        Kind::Env(pairs) => {
            pairs_format(report, instruction, at);
            let mut expanded = Vec::with_capacity(pairs.len());
            for (name, value) in pairs {
                let name = word(report, state, at, name)?;
                expanded.push((name, word(report, state, at, value)?));
            }
            for (name, value) in expanded {
                secret(report, "ENV", &name, at);
                state.scope.set(&name, &value);
            }
        }
        Kind::Label(pairs) => {
            pairs_format(report, instruction, at);
            for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
                word(report, state, at, text)?;
            }
        }
        Kind::Run(run) => {
            for mount in &run.mounts {
                let expanded = mount.resolve(&mut |text| word(report, state, at, text).ok_or_else(|| Error::input("can't be expanded")));
                expanded.ok()?;
            }
        }
        Kind::Copy(copy) => transfer(report, facts, state, &copy.transfer, copy.from.as_deref(), at)?,
        Kind::Add(add) => {
            transfer(report, facts, state, &add.transfer, None, at)?;
            add.checksum.iter().try_for_each(|text| word(report, state, at, text).map(drop))?;
        }
        Kind::Workdir(path) => {
            let path = word(report, state, at, path)?;
            if !state.workdir && !path.starts_with('/') {
                let message = format!("Relative workdir {path:?} can have unexpected results if the base image changes");
                report.add(&rules::WORKDIR_RELATIVE_PATH, at, Word::First(&path), message);
            }
            state.workdir = true;
        }
        Kind::User(text) | Kind::StopSignal(text) => drop(word(report, state, at, text)?),
        Kind::Volume(paths) => paths.iter().try_for_each(|path| word(report, state, at, path).map(drop))?,
        Kind::Expose(ports) => expose(report, state, ports, at)?,
        Kind::Cmd(Command::Shell(_)) | Kind::Entrypoint(Command::Shell(_)) if !state.shell => {
            let name = &instruction.keyword;
            let message = format!("JSON arguments recommended for {name} to prevent unintended behavior related to OS signals");
            report.add(&rules::JSON_ARGS_RECOMMENDED, at, Word::Name, message);
        }
        Kind::Shell(_) => state.shell = true,
        _ => {}
    }
    Some(())
}

/// A word expanded, what is undefined in it reported.
fn word(report: &mut Report<'_>, state: &State<'_>, at: &Instruction, text: &str) -> Option<String> {
    state.scope.expand(report, at, text, Mode::Word)?.pop()
}

fn arguments(
    report: &mut Report<'_>,
    facts: &Facts<'_>,
    state: &mut State<'_>,
    pairs: &[(String, Option<String>)],
    at: &Instruction,
) -> Option<()> {
    for (name, default) in pairs {
        secret(report, "ARG", name, at);
        let value = match (facts.arguments.get(name), default) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(default)) => Some(word(report, state, at, default)?),
            (None, None) => facts.globals.get(name).cloned(),
        };
        if let Some(value) = value {
            state.scope.set(name, &value);
        }
        state.scope.declare(name);
    }
    Some(())
}

/// `ENV name value`.
fn pairs_format(report: &mut Report<'_>, instruction: &Instruction, at: &Instruction) {
    if instruction.args.get(2).is_some_and(String::is_empty) {
        let name = &instruction.keyword;
        let message = format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
        report.add(&rules::LEGACY_KEY_VALUE_FORMAT, at, Word::Name, message);
    }
}

/// Parts of a name, between underscores or at its ends, that mean a secret.
const SECRET: [&str; 10] = ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];

fn secret(report: &mut Report<'_>, keyword: &str, name: &str, at: &Instruction) {
    let lower = name.to_ascii_lowercase();
    if lower.split('_').any(|part| SECRET.contains(&part)) && !lower.split('_').any(|part| part == "public") {
        let message = format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {name:?})");
        report.add(&rules::SECRETS_USED_IN_ARG_OR_ENV, at, Word::First(name), message);
    }
}

fn transfer(
    report: &mut Report<'_>,
    facts: &Facts<'_>,
    state: &State<'_>,
    transfer: &Transfer,
    from: Option<&str>,
    at: &Instruction,
) -> Option<()> {
    let flags = [&transfer.chown, &transfer.chmod].into_iter().flatten().chain(&transfer.excludes);
    for text in flags.chain([&transfer.destination]) {
        word(report, state, at, text)?;
    }
    let verb = if at.keyword.eq_ignore_ascii_case("add") { "Add" } else { "Copy" };
    for source in &transfer.sources {
        match source {
            CopySource::Path(path) => {
                let path = word(report, state, at, path)?;
                if from.is_none_or(str::is_empty) && is_ignored(facts, &path) {
                    let message = format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore");
                    report.add(&rules::COPY_IGNORED_FILE, at, Word::First(&path), message);
                }
            }
            CopySource::Inline(heredoc) if heredoc.expand => {
                state.scope.expand(report, at, &heredoc.content, Mode::Heredoc)?;
            }
            CopySource::Inline(_) => {}
        }
    }
    Some(())
}

fn is_ignored(facts: &Facts<'_>, path: &str) -> bool {
    let remote = path.contains("://") || path.starts_with("git@");
    let path = path.trim_start_matches("./").trim_matches('/');
    !remote && facts.ignore.is_some_and(|ignore| ignore.matches(path))
}

fn expose(report: &mut Report<'_>, state: &State<'_>, ports: &[String], at: &Instruction) -> Option<()> {
    let escape = report.file.escape;
    let mut add = |rule: &'static Rule, port: &str, message: String| report.add(rule, at, Word::First(port), message);
    for port in ports {
        // BuildKit does not report variables here.
        for port in state.scope.quietly(escape, port)? {
            let (mapping, protocol) = port.split_once('/').unwrap_or((&port, ""));
            if protocol.contains(char::is_uppercase) {
                let message = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
                add(&rules::EXPOSE_PROTO_CASING, &port, message);
            }
            if mapping.contains(':') {
                let message = format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'");
                add(&rules::EXPOSE_INVALID_FORMAT, &port, message);
            }
        }
    }
    Some(())
}
