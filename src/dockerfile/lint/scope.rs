//! The variables a stage's instructions see, by name and value as far as they are known.

use std::collections::{BTreeMap, BTreeSet};

use super::suggest::suggest;
use super::{Base, Report, Word, rules};
use crate::dockerfile::ast::Instruction;
use crate::dockerfile::expand::{Mode, expand};

/// The search path is set in every stage, whatever the base.
const PATH: (&str, &str) = ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");

/// Arguments that BuildKit's scanner of results reads and that are no variables.
const NO_VARIABLES: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Variables of one stage at one instruction.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    variables: BTreeMap<String, String>,
    /// Names that ARG declares, with a value or without.
    declared: BTreeSet<String>,
    /// Whether a base nobody knows may have set more.
    open: bool,
}

impl Scope {
    /// What a stage starts with; `None` is a base without variables.
    pub fn new(base: Option<&Base>) -> Self {
        let mut variables = BTreeMap::from([(PATH.0.to_owned(), PATH.1.to_owned())]);
        if let Some(Base::Known(config)) = base {
            variables.extend(config.config.env.iter().map(|entry| {
                let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
                (name.to_owned(), value.to_owned())
            }));
        }
        Self { variables, declared: BTreeSet::new(), open: base == Some(&Base::Unknown) }
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    pub fn declare(&mut self, name: &str) {
        self.declared.insert(name.to_owned());
    }

    /// Expands a word of an instruction and reports the variables that are not defined. `None` if it can't be expanded, which the build
    /// will say.
    pub fn expand(&self, report: &mut Report<'_>, at: &Instruction, word: &str, mode: Mode) -> Option<Vec<String>> {
        let lookup = |name: &str| self.variables.get(name).cloned();
        let expanded = expand(word, report.file.escape, &lookup, mode).ok()?;
        for name in expanded.unset.iter().filter(|name| self.is_undefined(name)) {
            let mut message = format!("Usage of undefined variable '${name}'");
            if let Some(near) = suggest(name, self.variables.keys().map(String::as_str)) {
                message += &format!(" (did you mean ${near}?)");
            }
            let found = [format!("${name}"), format!("${{{name}")];
            let text = report.file.source.slice(at.span);
            let written = found.iter().find(|written| Word::First(written).find(text).is_some());
            report.add(&rules::UNDEFINED_VAR, at, written.map_or(Word::Name, |written| Word::First(written)), message);
        }
        Some(if mode == Mode::Words { expanded.words } else { vec![expanded.text] })
    }

    /// Expands a list and reports nothing.
    pub fn quietly(&self, escape: char, word: &str) -> Option<Vec<String>> {
        let lookup = |name: &str| self.variables.get(name).cloned();
        expand(word, escape, &lookup, Mode::Words).ok().map(|expanded| expanded.words)
    }

    fn is_undefined(&self, name: &str) -> bool {
        !self.open && !self.declared.contains(name) && !NO_VARIABLES.contains(&name)
    }
}
