//! Which checks run and whether a finding is an error: `# check=skip=A,B;error=true;experimental=C`.
//!
//! The same text stands in the directive, in a comment above one instruction, and in the build argument `BUILDKIT_DOCKERFILE_CHECK`, which
//! takes the directive's place.

use super::rules::{RULES, Rule, State};
use crate::dockerfile::spelling::{nearest, quote};
use crate::error::{Error, Result};

/// What is to be checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    skipped: Selection,
    experimental: Selection,
    /// Whether a finding ends the build.
    pub error: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Selection {
    All,
    Named(Vec<String>),
}

impl Default for Selection {
    fn default() -> Self {
        Selection::Named(Vec::new())
    }
}

impl Selection {
    fn parse(value: &str) -> Self {
        match value.trim() {
            "all" => Selection::All,
            names => Selection::Named(names.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()),
        }
    }

    fn has(&self, rule: &Rule) -> bool {
        match self {
            Selection::All => true,
            Selection::Named(names) => names.iter().any(|name| name == rule.name),
        }
    }
}

impl Config {
    /// Reads the directive's value.
    pub fn parse(text: &str) -> Result<Self> {
        let mut config = Self::default();
        for option in text.split(';').map(str::trim).filter(|option| !option.is_empty()) {
            match option.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
                Some(("skip", value)) => config.skipped = Selection::parse(value),
                Some(("experimental", value)) => config.experimental = Selection::parse(value),
                Some(("error", value)) => {
                    config.error = truth(value).ok_or_else(|| {
                        Error::input(format!("check option `error` can't be {}", quote(value))).hint("write `error=true` or `error=false`")
                    })?;
                }
                _ => {
                    let error = Error::input(format!("unknown check option {}", quote(option)));
                    return Err(error.hint("for example `# check=skip=JSONArgsRecommended,StageNameCasing;error=true`"));
                }
            }
        }
        Ok(config)
    }

    /// Whether a rule runs. What is experimental is not skipped but asked for.
    pub(super) fn runs(&self, rule: &Rule) -> bool {
        match rule.state {
            State::Stable => !self.skipped.has(rule),
            State::Experimental => self.experimental.has(rule),
        }
    }

    /// Names of rules that there are none of, with the name that was probably meant. No error: another version may know them.
    pub fn unknown(&self) -> Vec<(&str, Option<&'static str>)> {
        let known = || RULES.iter().map(|rule| rule.name);
        let named = [&self.skipped, &self.experimental].into_iter().flat_map(|selection| match selection {
            Selection::All => &[][..],
            Selection::Named(names) => names,
        });
        named.filter(|name| known().all(|known| known != *name)).map(|name| (name.as_str(), nearest(name, known()))).collect()
    }
}

/// As Go's `strconv.ParseBool`.
fn truth(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules;
    use super::*;

    #[test]
    fn texts_are_read() {
        let named = |names: &[&str]| Selection::Named(names.iter().map(|name| (*name).to_owned()).collect());
        for (text, skipped, experimental, error) in [
            ("", named(&[]), named(&[]), false),
            ("skip=all", Selection::All, named(&[]), false),
            (" skip = A , B ; error = true ", named(&["A", "B"]), named(&[]), true),
            ("error=1;experimental=all;skip=", named(&[]), Selection::All, true),
            ("experimental=X;", named(&[]), named(&["X"]), false),
        ] {
            assert_eq!(Config::parse(text).expect(text), Config { skipped, experimental, error }, "{text}");
        }
        for (text, expected) in [
            ("skip", "unknown check option `skip`"),
            ("skp=all", "unknown check option `skp=all`"),
            ("error=yes", "check option `error` can't be `yes`"),
        ] {
            assert_eq!(Config::parse(text).unwrap_err().what(), expected);
        }
    }

    #[test]
    fn experimental_rules_are_asked_for_and_not_skipped() {
        for (text, stable, experimental) in [
            ("", true, false),
            ("skip=all", false, false),
            ("skip=StageNameCasing", false, false),
            ("skip=all;experimental=CopyIgnoredFile", false, true),
            ("experimental=all", true, true),
        ] {
            let config = Config::parse(text).expect(text);
            let runs = (config.runs(&rules::STAGE_NAME_CASING), config.runs(&rules::COPY_IGNORED_FILE));
            assert_eq!(runs, (stable, experimental), "{text}");
        }
    }

    #[test]
    fn misspelt_names_are_found() {
        let config = Config::parse("skip=JSONArgRecommended,StageNameCasing;experimental=Nothing").expect("right");
        assert_eq!(config.unknown(), [("JSONArgRecommended", Some("JSONArgsRecommended")), ("Nothing", None)]);
    }
}
