//! The bases of the stages: their names, platforms and the arguments in them.

use std::collections::{BTreeMap, BTreeSet};

use super::suggest::suggest;
use super::{Facts, Report, Word, rules};
use crate::dockerfile::ast::{Dockerfile, From, Instruction, Kind};
use crate::dockerfile::expand::{Expanded, Mode, expand};
use crate::oci::{Platform, Reference};

/// One stage: where it begins and what it stands on.
pub(super) struct Stage<'a> {
    pub from: &'a Instruction,
    pub instructions: &'a [Instruction],
    /// Its name in lower case.
    pub name: Option<&'a str>,
    pub base: On,
    pub platform: Platform,
}

/// What a stage stands on.
pub(super) enum On {
    Scratch,
    /// An earlier stage, counted from zero.
    Stage(usize),
    Image(String),
}

/// The stages, and the arguments that each of them may declare without a default.
pub(super) struct Stages<'a> {
    pub list: Vec<Stage<'a>>,
    pub globals: BTreeMap<String, String>,
}

/// Looks at every FROM. The stages returned end before one whose base or platform can't be told, which the build will say.
pub(super) fn check<'a>(report: &mut Report<'a>, facts: &Facts<'_>) -> Stages<'a> {
    default_arguments(report, facts);
    let (globals, declared) = globals(report.file, facts.globals, facts.arguments);
    Stages { list: stages(report, facts, &globals, &declared), globals }
}

fn stages<'a>(
    report: &mut Report<'a>,
    facts: &Facts<'_>,
    globals: &BTreeMap<String, String>,
    declared: &BTreeSet<String>,
) -> Vec<Stage<'a>> {
    let file = report.file;
    let known: BTreeSet<&str> = globals.keys().chain(declared).map(String::as_str).collect();
    let mut stages: Vec<Stage<'a>> = Vec::new();
    let starts: Vec<usize> = (0..file.instructions.len()).filter(|i| matches!(file.instructions[*i].kind, Kind::From(_))).collect();
    for (number, start) in starts.iter().enumerate() {
        let instruction = &file.instructions[*start];
        let Kind::From(from) = &instruction.kind else { continue };
        let end = starts.get(number + 1).copied().unwrap_or(file.instructions.len());
        let Some(image) = resolve(report, instruction, &from.image, globals, &known) else { return stages };
        let platform = match &from.platform {
            None => Some(facts.platform.clone()),
            Some(written) => platform(report, instruction, from, written, globals, &known),
        };
        let (Some(platform), false) = (platform, image.text.is_empty()) else { return stages };
        let named = |stage: &Stage<'_>| stage.name.is_some_and(|name| name.eq_ignore_ascii_case(&image.text));
        let base = match stages.iter().rposition(named) {
            Some(index) => On::Stage(index),
            None if image.text == "scratch" => On::Scratch,
            None => On::Image(image.text),
        };
        let platform = match base {
            On::Stage(index) => stages[index].platform.clone(),
            _ => platform,
        };
        let instructions = &file.instructions[start + 1..end];
        stages.push(Stage { from: instruction, instructions, name: from.name.as_deref(), base, platform });
    }
    stages
}

/// The arguments before the first FROM and their values, and the names of those among them that have none too.
fn globals(
    file: &Dockerfile,
    predefined: &BTreeMap<String, String>,
    given: &BTreeMap<String, String>,
) -> (BTreeMap<String, String>, BTreeSet<String>) {
    let mut globals = predefined.clone();
    let mut declared = BTreeSet::new();
    for (name, value) in given.iter().filter(|(name, _)| predefined.contains_key(*name)) {
        globals.insert(name.clone(), value.clone());
    }
    let arguments = file.instructions.iter().map_while(|instruction| match &instruction.kind {
        Kind::Arg(pairs) => Some(pairs),
        _ => None,
    });
    for (name, default) in arguments.flatten() {
        declared.insert(name.clone());
        let value = match (given.get(name), default) {
            (Some(value), _) => Some(value.clone()),
            (None, Some(default)) => {
                let lookup = |name: &str| globals.get(name).cloned();
                expand(default, file.escape, &lookup, Mode::Word).ok().map(|expanded| expanded.text)
            }
            (None, None) => None,
        };
        if let Some(value) = value {
            globals.insert(name.clone(), value);
        }
    }
    (globals, declared)
}

/// Whether every base has a name when nobody gives arguments.
fn default_arguments(report: &mut Report<'_>, facts: &Facts<'_>) {
    let file = report.file;
    let (globals, _) = globals(file, facts.globals, &BTreeMap::new());
    for instruction in &file.instructions {
        let Kind::From(from) = &instruction.kind else { continue };
        let lookup = |name: &str| globals.get(name).cloned();
        let Ok(expanded) = expand(&from.image, file.escape, &lookup, Mode::Word) else { return };
        if expanded.text.parse::<Reference>().is_err() && !is_place(&expanded.text) {
            let message = format!("Default value for ARG {} results in empty or invalid base image name", from.image);
            report.add(&rules::INVALID_DEFAULT_ARG_IN_FROM, instruction, Word::First(&from.image), message);
        }
    }
}

/// Whether a text that is no name can be a place, such as `oci-archive:/FILE` or `host:sh,ls`.
fn is_place(text: &str) -> bool {
    text.split_once(':').is_some_and(|(transport, rest)| {
        transport.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') && rest.contains(['/', ',', ':'])
    })
}

/// Expands a word of a FROM and reports the arguments that are not declared.
fn resolve(
    report: &mut Report<'_>,
    instruction: &Instruction,
    word: &str,
    globals: &BTreeMap<String, String>,
    known: &BTreeSet<&str>,
) -> Option<Expanded> {
    let lookup = |name: &str| globals.get(name).cloned();
    let expanded = expand(word, report.file.escape, &lookup, Mode::Word).ok()?;
    for name in expanded.unset.iter().filter(|name| !known.contains(name.as_str())) {
        let mut message = format!("FROM argument '{name}' is not declared");
        if let Some(near) = suggest(name, known.iter().copied()) {
            message += &format!(" (did you mean {near}?)");
        }
        report.add(&rules::UNDEFINED_ARG_IN_FROM, instruction, Word::First(name), message);
    }
    Some(expanded)
}

/// `--platform`: a variable is better than a constant, and the target's is the default.
fn platform(
    report: &mut Report<'_>,
    instruction: &Instruction,
    from: &From,
    written: &str,
    globals: &BTreeMap<String, String>,
    known: &BTreeSet<&str>,
) -> Option<Platform> {
    const TARGET: &str = "TARGETPLATFORM";
    let expanded = resolve(report, instruction, written, globals, known)?;
    let only_target = expanded.used.len() == 1 && expanded.used.contains(TARGET) && expanded.unset.is_empty();
    if only_target && globals.get(TARGET) == Some(&expanded.text) {
        let message = format!("Setting platform to predefined {written} in FROM is redundant as this is the default behavior");
        report.add(&rules::REDUNDANT_TARGET_PLATFORM, instruction, Word::First(written), message);
    }
    let platform: Platform = expanded.text.parse().ok()?;
    let name = from.name.as_deref().unwrap_or_default();
    let is_said = name.contains(&platform.os) || name.contains(&platform.architecture);
    if expanded.used.is_empty() && expanded.unset.is_empty() && !is_said {
        let message = format!("FROM --platform flag should not use constant value {:?}", expanded.text);
        report.add(&rules::FROM_PLATFORM_FLAG_CONST_DISALLOWED, instruction, Word::First(written), message);
    }
    Some(platform)
}
