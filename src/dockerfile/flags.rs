//! The flags of instructions: which exist, what they take, and what was given.

use std::ops::Range;

use super::spelling::{nearest, quote};
use super::words::Word;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// A value, once.
    Value,
    /// A value, as often as wanted.
    Values,
    /// Nothing, or `true` or `false`.
    Switch,
}

/// The flags each instruction has. Those not listed have none.
const FLAGS: &[(&str, &[(&str, Takes)])] = &[
    ("FROM", &[("platform", Takes::Value)]),
    ("RUN", &[("mount", Takes::Values), ("network", Takes::Value), ("security", Takes::Value), ("device", Takes::Values)]),
    (
        "COPY",
        &[
            ("from", Takes::Value),
            ("chown", Takes::Value),
            ("chmod", Takes::Value),
            ("link", Takes::Switch),
            ("parents", Takes::Switch),
            ("exclude", Takes::Values),
        ],
    ),
    (
        "ADD",
        &[
            ("chown", Takes::Value),
            ("chmod", Takes::Value),
            ("link", Takes::Switch),
            ("keep-git-dir", Takes::Switch),
            ("checksum", Takes::Value),
            ("unpack", Takes::Switch),
            ("exclude", Takes::Values),
        ],
    ),
    (
        "HEALTHCHECK",
        &[
            ("interval", Takes::Value),
            ("timeout", Takes::Value),
            ("start-period", Takes::Value),
            ("start-interval", Takes::Value),
            ("retries", Takes::Value),
        ],
    ),
];

/// What is wrong, where in the line, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub range: Range<usize>,
    pub what: String,
    pub note: String,
    pub hint: Option<String>,
}

impl Problem {
    pub fn new(range: Range<usize>, what: impl Into<String>, note: impl Into<String>) -> Self {
        Self { range, what: what.into(), note: note.into(), hint: None }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// One given flag, its name known to the instruction.
#[derive(Clone, Debug)]
struct Given {
    name: &'static str,
    value: String,
    range: Range<usize>,
}

/// The flags given to one instruction, each checked for name, count and value.
#[derive(Clone, Debug, Default)]
pub(super) struct Flags(Vec<Given>);

impl Flags {
    /// Checks the flag words of an instruction, whose name is in upper case.
    pub fn read(keyword: &str, words: &[Word]) -> Result<Self, Problem> {
        let known = FLAGS.iter().find(|(name, _)| *name == keyword).map_or(&[][..], |(_, flags)| flags);
        let mut given: Vec<Given> = Vec::with_capacity(words.len());
        for word in words {
            let written = word.text.strip_prefix("--").unwrap_or(&word.text);
            let (name, value) = written.split_once('=').map_or((written, None), |(name, value)| (name, Some(value)));
            let Some((name, takes)) = known.iter().find(|(known, _)| *known == name) else {
                return Err(unknown(keyword, name, word, known));
            };
            let show = quote(format!("--{name}"));
            if *takes != Takes::Values && given.iter().any(|other| other.name == *name) {
                return Err(Problem::new(word.range.clone(), format!("flag {show} is given twice"), "can be given once"));
            }
            let value = match (takes, value) {
                (Takes::Switch, None) => "true".to_string(),
                (Takes::Switch, Some(value)) if matches!(value.to_ascii_lowercase().as_str(), "true" | "false") => {
                    value.to_ascii_lowercase()
                }
                (Takes::Switch, Some(value)) => {
                    let what = format!("flag {show} takes `true` or `false`, not {}", quote(value));
                    return Err(Problem::new(word.range.clone(), what, ""));
                }
                (_, Some(value)) => value.to_string(),
                (_, None) => {
                    let problem = Problem::new(word.range.clone(), format!("flag {show} needs a value"), "no value");
                    return Err(problem.hint(format!("write `--{name}=VALUE`, without white space around `=`")));
                }
            };
            given.push(Given { name, value, range: word.range.clone() });
        }
        Ok(Self(given))
    }

    /// The value of a flag that is given at most once.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.found(name).map(|(value, _)| value)
    }

    /// The value with its place.
    pub fn found(&self, name: &str) -> Option<(&str, Range<usize>)> {
        self.0.iter().find(|given| given.name == name).map(|given| (given.value.as_str(), given.range.clone()))
    }

    /// All values of a flag, with their places.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, Range<usize>)> + 'a {
        self.0.iter().filter(move |given| given.name == name).map(|given| (given.value.as_str(), given.range.clone()))
    }

    /// A switch; unset is `None`.
    pub fn switch(&self, name: &str) -> Option<bool> {
        self.value(name).map(|value| value == "true")
    }
}

fn unknown(keyword: &str, name: &str, word: &Word, known: &[(&str, Takes)]) -> Problem {
    let what = format!("unknown flag {} of {keyword}", quote(format!("--{name}")));
    let note = match known {
        [] => format!("{keyword} has no flags"),
        _ => format!("known: {}", known.iter().map(|(name, _)| format!("--{name}")).collect::<Vec<_>>().join(", ")),
    };
    let problem = Problem::new(word.range.clone(), what, note);
    let owner = FLAGS.iter().find(|(_, flags)| flags.iter().any(|(flag, _)| *flag == name));
    if let Some(near) = nearest(name, known.iter().map(|(name, _)| *name)) {
        problem.hint(format!("did you mean `--{near}`?"))
    } else if let Some((owner, _)) = owner {
        problem.hint(format!("`--{name}` is a flag of {owner}"))
    } else if known.is_empty() {
        problem.hint(format!("arguments that start with `--` must follow something else, e.g. `{keyword} [\"--{name}\"]`"))
    } else {
        problem
    }
}
