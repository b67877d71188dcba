//! BuildKit's build checks: what is allowed but probably not meant. What is wrong is an error of the parser, not a finding.
//!
//! Pure: what depends on the build (arguments, platform, base images, ignored files) comes in as [`Facts`]. The rules are BuildKit's
//! (moby/buildkit, frontend/dockerfile/linter), and so are their names and messages. `style` looks at how the file is written, `from` at
//! the bases of its stages, `stages` at what the instructions of each stage do one after the other.

mod config;
mod from;
mod rules;
mod scope;
mod stages;
mod style;
mod suggest;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::ast::{Dockerfile, Instruction};
use super::ignore::Ignore;
use super::source::Span;
use crate::error::Place;
use crate::oci::{ImageConfig, Platform};

pub use config::Config;
pub use rules::{RULES, Rule, State};

/// What the findings depend on besides the file.
pub struct Facts<'a> {
    /// `--build-arg`.
    pub arguments: &'a BTreeMap<String, String>,
    /// The global arguments that need no declaration: platforms and the target's name.
    pub globals: &'a BTreeMap<String, String>,
    /// The platform to build for.
    pub platform: &'a Platform,
    /// The stages to look at, counted from zero; `None` for all. What concerns the file as a whole is always looked at.
    pub stages: Option<&'a BTreeSet<usize>>,
    /// What the context leaves out.
    pub ignore: Option<&'a Ignore>,
    /// What is known of a base image.
    pub base: &'a dyn Fn(&str, &Platform) -> Base,
}

/// What is known of a base image.
#[derive(Clone, Debug, PartialEq)]
pub enum Base {
    /// Its config.
    Known(Box<ImageConfig>),
    /// Nothing, and so any variable may be set in it.
    Unknown,
    /// Nothing, and it is taken to set no variables.
    Bare,
}

/// One finding.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The rule.
    pub rule: &'static Rule,
    /// What is not as it should be.
    pub message: String,
    /// The lines BuildKit gives: those of the instruction, mostly.
    pub span: Span,
    /// The very place, with what the rule asks for.
    pub place: Place,
}

/// The configuration that the file's directive asks for; the default if there is none.
///
/// Errors: the directive's, with its place.
pub fn configuration(file: &Dockerfile) -> crate::error::Result<Config> {
    let Some(directive) = file.directives.iter().find(|directive| directive.name == "check") else { return Ok(Config::default()) };
    Config::parse(&directive.value).map_err(|error| error.at(file.source.place(directive.span.start..directive.span.end, "")))
}

/// Looks at a file. Findings come in the order of the file.
pub fn lint(file: &Dockerfile, config: &Config, facts: &Facts<'_>) -> Vec<Finding> {
    let mut report = Report { file, config, findings: Vec::new() };
    style::check(&mut report);
    let stages = from::check(&mut report, facts);
    stages::check(&mut report, facts, &stages);
    let mut findings = report.findings;
    findings.sort_by_key(|(at, finding)| (*at, finding.rule.name));
    findings.into_iter().map(|(_, finding)| finding).collect()
}

/// A word to point at; an instruction's name if the word is not there.
enum Word<'w> {
    Name,
    First(&'w str),
    Last(&'w str),
}

impl Word<'_> {
    /// Where it stands in a text, not within a longer word.
    fn find(&self, text: &str) -> Option<Range<usize>> {
        let whole = |word: &str, at: usize| {
            let joins = |c: char| c.is_alphanumeric() || c == '_';
            let before = !word.starts_with(joins) || !text[..at].ends_with(joins);
            before && (!word.ends_with(joins) || !text[at + word.len()..].starts_with(joins))
        };
        let (word, at) = match self {
            Word::Name | Word::First("") | Word::Last("") => return None,
            Word::First(word) => (word, text.match_indices(word).map(|(at, _)| at).find(|at| whole(word, *at))?),
            Word::Last(word) => (word, text.rmatch_indices(word).map(|(at, _)| at).find(|at| whole(word, *at))?),
        };
        Some(at..at + word.len())
    }
}

/// The findings so far.
struct Report<'a> {
    file: &'a Dockerfile,
    config: &'a Config,
    /// With where they stand, for the order.
    findings: Vec<(usize, Finding)>,
}

impl<'a> Report<'a> {
    /// Adds a finding about a word of the instruction.
    fn add(&mut self, rule: &'static Rule, instruction: &Instruction, word: Word<'_>, message: String) {
        let span = instruction.span;
        let text = self.file.source.slice(span);
        let arguments = instruction.keyword.len().min(text.len());
        // What a continuation cuts is not found as a whole.
        let range = match word.find(text.get(arguments..).unwrap_or_default()) {
            Some(found) => span.start + arguments + found.start..span.start + arguments + found.end,
            None => span.start..span.start + arguments,
        };
        let place = self.file.source.place(range.clone(), rule.description);
        self.push(Finding { rule, message, span, place }, range.start, instruction);
    }

    /// Adds a finding that stands at the byte `at`.
    fn push(&mut self, finding: Finding, at: usize, instruction: &Instruction) {
        if self.config.runs(finding.rule) && !self.is_excused(finding.rule, instruction) {
            self.findings.push((at, finding));
        }
    }

    /// Whether a comment above the instruction says `check=skip=` with the rule's name.
    fn is_excused(&self, rule: &Rule, instruction: &Instruction) -> bool {
        self.comments_above(instruction).iter().any(|comment| {
            let Some((name, value)) = comment.split_once('=') else { return false };
            // What follows a name is a remark: `check=skip=UndefinedVar // set by the base image`.
            let value = value.split(" //").next().unwrap_or(value);
            name.trim().eq_ignore_ascii_case("check")
                && Config::parse(value).is_ok_and(|config| !config.runs(rule) && rule.state == State::Stable)
        })
    }

    /// The comments right above an instruction, without `#` and white space, up to an empty one, a blank line or a directive.
    fn comments_above(&self, instruction: &Instruction) -> Vec<&'a str> {
        let directives = self.file.directives.iter().map(|directive| directive.span.last_line).max().unwrap_or(0);
        let lines = (directives + 1..instruction.span.first_line).rev().map(|number| self.file.source.line(number));
        let mut comments: Vec<&str> =
            lines.map_while(|line| Some(line.strip_prefix('#')?.trim()).filter(|comment| !comment.is_empty())).collect();
        comments.reverse();
        comments
    }
}

#[cfg(test)]
mod tests;
