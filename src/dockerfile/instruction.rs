//! From one logical line to one [`Instruction`]: what each instruction takes and requires, as BuildKit checks it.
//!
//! Nothing here knows the file as a whole (that is `parse`) and nothing is expanded (that is `expand`).

use std::ops::Range;

use super::ast::{Command, From, Heredoc, Instruction, Kind, MountFlag, Network, Onbuild, Run, Security};
use super::flags::{Flags, Problem};
use super::healthcheck;
use super::source::Span;
use super::spelling::{nearest, quote};
use super::transfer;
use super::words::{self, Joined, Json, Word};

/// The instructions there are.
pub(super) const KEYWORDS: &[&str] = &[
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// One logical line and what the grammar found after it.
#[derive(Clone, Debug)]
pub(super) struct Statement<'a> {
    pub joined: &'a Joined<'a>,
    pub heredocs: Vec<Heredoc>,
    pub span: Span,
    pub escape: char,
}

/// A statement cut into name, flags and the range of the rest.
pub(super) struct Parts<'a> {
    /// The whole joined line.
    pub line: &'a str,
    /// In upper case.
    pub keyword: &'static str,
    pub keyword_range: Range<usize>,
    pub flags: Vec<Word>,
    pub rest: Range<usize>,
    pub escape: char,
}

impl Parts<'_> {
    pub fn rest(&self) -> &str {
        &self.line[self.rest.clone()]
    }

    /// Something is wrong with the instruction as a whole.
    pub fn problem(&self, what: impl Into<String>, note: impl Into<String>) -> Problem {
        Problem::new(self.keyword_range.clone(), what, note)
    }

    /// Something is wrong with the arguments, or with the name if there are none.
    pub fn rest_problem(&self, what: impl Into<String>, note: impl Into<String>) -> Problem {
        let range = if self.rest.is_empty() { self.keyword_range.clone() } else { self.rest.clone() };
        Problem::new(range, what, note)
    }

    fn needs_arguments(&self) -> Problem {
        self.problem(format!("{} needs at least one argument", self.keyword), "nothing follows")
    }
}

/// The arguments as BuildKit's parser leaves them.
#[derive(Default)]
pub(super) struct Arguments {
    pub json: bool,
    pub list: Vec<String>,
}

/// Reads a statement.
pub(super) fn read(statement: Statement<'_>) -> Result<Instruction, Problem> {
    let line = statement.joined.text.as_ref();
    read_line(line, 0..line.len(), statement.heredocs, statement.span, statement.escape)
}

fn read_line(line: &str, range: Range<usize>, heredocs: Vec<Heredoc>, span: Span, escape: char) -> Result<Instruction, Problem> {
    let (keyword_range, rest) = words::split_keyword(line, range);
    let keyword = known_keyword(line, &keyword_range)?;
    let written = line[keyword_range.clone()].to_string();
    let start = keyword_range.start;
    let (flags, rest) = words::split_flags(line, rest);
    let parts = Parts { line, keyword, keyword_range, flags, rest, escape };
    let (arguments, kind) = meaning(&parts, &heredocs, span)?;
    Ok(Instruction {
        span,
        keyword: written,
        original: line[start..].trim_end().to_string(),
        flags: parts.flags.into_iter().map(|word| word.text).collect(),
        json: arguments.json,
        args: arguments.list,
        heredocs,
        kind,
    })
}

fn known_keyword(line: &str, range: &Range<usize>) -> Result<&'static str, Problem> {
    let written = &line[range.clone()];
    if let Some(keyword) = KEYWORDS.iter().find(|keyword| keyword.eq_ignore_ascii_case(written)) {
        return Ok(keyword);
    }
    let problem = Problem::new(
        range.clone(),
        format!("unknown instruction {}", quote(written)),
        "expected an instruction such as FROM, RUN, COPY or ENV",
    );
    let letters: String = written.chars().take_while(char::is_ascii_alphabetic).take(12).collect();
    if letters.len() < written.len() && KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(&letters)) {
        return Err(problem.hint(format!("put a space after `{letters}`")));
    }
    Err(match nearest(written, KEYWORDS.iter().copied()) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None => problem.hint("a line that belongs to the instruction above it must follow a line that ends in the escape character"),
    })
}

fn meaning(parts: &Parts<'_>, heredocs: &[Heredoc], span: Span) -> Result<(Arguments, Kind), Problem> {
    match parts.keyword {
        "FROM" => from(parts),
        "RUN" => run(parts, heredocs),
        "COPY" | "ADD" => transfer::read(parts, heredocs),
        "ARG" => arg(parts),
        "ENV" => pairs(parts).map(|(arguments, pairs)| (arguments, Kind::Env(pairs))),
        "LABEL" => pairs(parts).map(|(arguments, pairs)| (arguments, Kind::Label(pairs))),
        "CMD" => command(parts).map(|(arguments, command)| (arguments, Kind::Cmd(command))),
        "ENTRYPOINT" => command(parts).map(|(arguments, command)| (arguments, Kind::Entrypoint(command))),
        "SHELL" => shell(parts),
        "WORKDIR" => text(parts, Kind::Workdir),
        "USER" => text(parts, Kind::User),
        "MAINTAINER" => text(parts, Kind::Maintainer),
        "STOPSIGNAL" => text(parts, Kind::StopSignal),
        "EXPOSE" => expose(parts),
        "VOLUME" => volume(parts),
        "HEALTHCHECK" => healthcheck::read(parts),
        _ => onbuild(parts, heredocs, span),
    }
}

pub(super) fn flags(parts: &Parts<'_>) -> Result<Flags, Problem> {
    Flags::read(parts.keyword, &parts.flags)
}

fn plain(list: Vec<String>) -> Arguments {
    Arguments { json: false, list }
}

fn from(parts: &Parts<'_>) -> Result<(Arguments, Kind), Problem> {
    let flags = flags(parts)?;
    let fields = words::fields(parts.line, parts.rest.clone());
    let name = match fields.as_slice() {
        [_] => None,
        [_, r#as, name] if r#as.text.eq_ignore_ascii_case("as") => Some(stage_name(name)?),
        [] => return Err(parts.needs_arguments()),
        _ => {
            let problem = parts.rest_problem("FROM takes one image and optionally `AS name`", "expected `image` or `image AS name`");
            let comment = fields.iter().any(|word| word.text.starts_with('#'));
            return Err(if comment { problem.hint("a comment needs a line of its own") } else { problem });
        }
    };
    let list: Vec<String> = fields.into_iter().map(|word| word.text).collect();
    let platform = flags.value("platform").map(str::to_string);
    Ok((plain(list.clone()), Kind::From(From { image: list.into_iter().next().unwrap_or_default(), platform, name })))
}

fn stage_name(word: &Word) -> Result<String, Problem> {
    let name = word.text.to_lowercase();
    let valid = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'));
    if valid {
        return Ok(name);
    }
    let what = format!("invalid stage name {}", quote(&word.text));
    Err(Problem::new(word.range.clone(), what, "a letter, then letters, digits, `-`, `_` or `.`"))
}

fn arg(parts: &Parts<'_>) -> Result<(Arguments, Kind), Problem> {
    // BuildKit does not look at flags here; a default that starts with `--` has never been possible.
    let found = words::shell_words(parts.line, parts.rest.clone(), parts.escape);
    if found.is_empty() {
        return Err(parts.needs_arguments());
    }
    let mut pairs = Vec::with_capacity(found.len());
    for word in &found {
        pairs.push(match word.text.split_once('=') {
            Some(("", _)) => return Err(Problem::new(word.range.clone(), "a variable needs a name", "no name before `=`")),
            Some((name, value)) => (name.to_string(), Some(value.to_string())),
            None => (word.text.clone(), None),
        });
    }
    Ok((plain(found.into_iter().map(|word| word.text).collect()), Kind::Arg(pairs)))
}

/// `ENV` and `LABEL`: `name=value …`, or the older `name value`, where everything after the name is the value.
fn pairs(parts: &Parts<'_>) -> Result<(Arguments, Vec<(String, String)>), Problem> {
    flags(parts)?;
    let found = words::shell_words(parts.line, parts.rest.clone(), parts.escape);
    let Some(first) = found.first() else { return Err(parts.needs_arguments()) };
    let keyword = parts.keyword;
    if !first.text.contains('=') {
        let rest = parts.rest();
        let Some(end) = rest.find([' ', '\t', '\r', '\u{b}', '\u{c}']) else {
            let problem = Problem::new(first.range.clone(), format!("{keyword} needs a name and a value"), "no value");
            return Err(problem.hint(format!("write `{keyword} NAME=VALUE`")));
        };
        let (name, value) = (&rest[..end], rest[end..].trim_start_matches([' ', '\t', '\r', '\u{b}', '\u{c}']));
        let list = vec![name.to_string(), value.to_string(), String::new()];
        return Ok((plain(list), vec![(name.to_string(), value.to_string())]));
    }
    let mut pairs = Vec::with_capacity(found.len());
    let mut list = Vec::with_capacity(found.len() * 3);
    for word in &found {
        let Some((name, value)) = word.text.split_once('=') else {
            let what = format!("expected `name=value`, found {}", quote(&word.text));
            let problem = Problem::new(word.range.clone(), what, "no `=`");
            return Err(problem.hint("put quotes around a value that holds white space"));
        };
        if name.is_empty() {
            return Err(Problem::new(word.range.clone(), format!("{keyword} needs a name"), "no name before `=`"));
        }
        list.extend([name.to_string(), value.to_string(), "=".to_string()]);
        pairs.push((name.to_string(), value.to_string()));
    }
    Ok((plain(list), pairs))
}

/// A text in JSON or shell form.
pub(super) fn command_in(parts: &Parts<'_>, range: Range<usize>) -> Result<(Arguments, Command), Problem> {
    let written = &parts.line[range.clone()];
    match words::json(written) {
        Json::Strings(list) => Ok((Arguments { json: true, list: list.clone() }, Command::Exec(list))),
        Json::No => {
            let list = if written.is_empty() { Vec::new() } else { vec![written.to_string()] };
            Ok((plain(list), Command::Shell(written.to_string())))
        }
        Json::Others => Err(not_strings(range)),
    }
}

fn not_strings(range: Range<usize>) -> Problem {
    Problem::new(range, "an array in JSON form may hold strings only", "not all are strings").hint("put every element in double quotes")
}

fn command(parts: &Parts<'_>) -> Result<(Arguments, Command), Problem> {
    flags(parts)?;
    command_in(parts, parts.rest.clone())
}

fn shell(parts: &Parts<'_>) -> Result<(Arguments, Kind), Problem> {
    let (arguments, command) = command(parts)?;
    match command {
        Command::Exec(list) if !list.is_empty() => Ok((arguments, Kind::Shell(list))),
        Command::Shell(text) if !text.is_empty() => {
            let problem = parts.rest_problem("SHELL takes a JSON array of strings", "not a JSON array");
            Err(problem.hint("for example `SHELL [\"/bin/bash\", \"-c\"]`, with double quotes"))
        }
        _ => Err(parts.needs_arguments()),
    }
}

/// Instructions that take the rest of the line as one value.
fn text(parts: &Parts<'_>, kind: fn(String) -> Kind) -> Result<(Arguments, Kind), Problem> {
    // BuildKit does not look at flags of STOPSIGNAL.
    if parts.keyword != "STOPSIGNAL" {
        flags(parts)?;
    }
    if parts.rest.is_empty() {
        return Err(parts.problem(format!("{} needs one argument", parts.keyword), "nothing follows"));
    }
    let value = parts.rest().to_string();
    Ok((plain(vec![value.clone()]), kind(value)))
}

fn expose(parts: &Parts<'_>) -> Result<(Arguments, Kind), Problem> {
    flags(parts)?;
    let list: Vec<String> = words::fields(parts.line, parts.rest.clone()).into_iter().map(|word| word.text).collect();
    if list.is_empty() {
        return Err(parts.needs_arguments());
    }
    Ok((plain(list.clone()), Kind::Expose(list)))
}

/// Arguments as a JSON array or between white space.
pub(super) fn list(parts: &Parts<'_>) -> Result<(Arguments, Vec<Word>), Problem> {
    let found = match words::json(parts.rest()) {
        Json::Others => return Err(not_strings(parts.rest.clone())),
        Json::No => words::fields(parts.line, parts.rest.clone()),
        Json::Strings(strings) => {
            let found: Vec<Word> = strings.into_iter().map(|text| Word { text, range: parts.rest.clone() }).collect();
            let list = found.iter().map(|word| word.text.clone()).collect();
            return Ok((Arguments { json: true, list }, found));
        }
    };
    Ok((plain(found.iter().map(|word| word.text.clone()).collect()), found))
}

fn volume(parts: &Parts<'_>) -> Result<(Arguments, Kind), Problem> {
    flags(parts)?;
    let (arguments, found) = list(parts)?;
    if found.is_empty() {
        return Err(parts.needs_arguments());
    }
    let paths: Vec<String> = found.iter().map(|word| word.text.trim().to_string()).collect();
    if paths.iter().any(String::is_empty) {
        return Err(parts.rest_problem("a volume's path can't be empty", ""));
    }
    Ok((arguments, Kind::Volume(paths)))
}

fn run(parts: &Parts<'_>, heredocs: &[Heredoc]) -> Result<(Arguments, Kind), Problem> {
    let flags = flags(parts)?;
    let mut mounts = Vec::new();
    for (raw, range) in flags.all("mount") {
        mounts.push(MountFlag::parse(raw).map_err(|error| Problem {
            range,
            what: error.what().to_string(),
            note: String::new(),
            hint: error.hints().first().cloned(),
        })?);
    }
    let network = one_of(&flags, "network", &[("default", Network::Default), ("none", Network::None), ("host", Network::Host)])?;
    let security = one_of(&flags, "security", &[("sandbox", Security::Sandbox), ("insecure", Security::Insecure)])?;
    let devices = flags.all("device").map(|(value, _)| value.to_string()).collect();
    let (arguments, command) = command_in(parts, parts.rest.clone())?;
    let run = Run { command, mounts, network, security, devices, heredocs: heredocs.to_vec() };
    Ok((arguments, Kind::Run(Box::new(run))))
}

fn one_of<T: Copy + Default>(flags: &Flags, name: &str, known: &[(&str, T)]) -> Result<T, Problem> {
    let Some((value, range)) = flags.found(name) else { return Ok(T::default()) };
    if let Some((_, found)) = known.iter().find(|(text, _)| *text == value) {
        return Ok(*found);
    }
    let names: Vec<&str> = known.iter().map(|(text, _)| *text).collect();
    let problem = Problem::new(range, format!("`--{name}` can't be {}", quote(value)), format!("known: {}", names.join(", ")));
    Err(match nearest(value, names) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None => problem,
    })
}

fn onbuild(parts: &Parts<'_>, heredocs: &[Heredoc], span: Span) -> Result<(Arguments, Kind), Problem> {
    flags(parts)?;
    if parts.rest.is_empty() {
        return Err(parts.needs_arguments());
    }
    let (keyword, _) = words::split_keyword(parts.line, parts.rest.clone());
    let written = parts.line[keyword.clone()].to_uppercase();
    match written.as_str() {
        "ONBUILD" => return Err(Problem::new(keyword, "ONBUILD can't trigger ONBUILD", "not allowed here")),
        "FROM" | "MAINTAINER" => return Err(Problem::new(keyword, format!("ONBUILD can't trigger {written}"), "not allowed here")),
        _ => {}
    }
    let instruction = read_line(parts.line, parts.rest.clone(), heredocs.to_vec(), span, parts.escape)?;
    let trigger = heredocs.iter().fold(parts.rest().to_string(), |text, heredoc| text + "\n" + &heredoc.content + &heredoc.name);
    Ok((Arguments::default(), Kind::Onbuild(Onbuild { trigger, instruction: Box::new(instruction) })))
}
