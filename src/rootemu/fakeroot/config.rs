//! One data file: how a distribution is recognised, how a fakeroot program gets into an image of it, which commands it goes before.
//!
//! TOML; doc/fakeroot.md describes it. Every entry has a `why`, and one that has none is an error.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;
use toml::Spanned;

use super::programs;
use crate::error::{Error, Place, Result, Snippet, nearest, quote};
use crate::oci::ImagePath;

/// Where a config comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// With this program.
    BuiltIn,
    /// A file.
    File(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built in"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// The name of the config that a file of this name holds; `None` if it holds none.
pub fn config_name(file: &str) -> Option<&str> {
    file.strip_suffix(".toml").filter(|name| !name.is_empty() && !name.starts_with('.'))
}

/// A config.
#[derive(Clone, Debug)]
pub struct Config {
    name: String,
    origin: Origin,
    about: String,
    conditions: Vec<Condition>,
    installs: Vec<Install>,
    wrap: Wrap,
}

/// Something that must hold of an image.
#[derive(Clone, Debug)]
pub struct Condition {
    /// A file in the image; links are followed.
    pub file: ImagePath,
    /// What must be found in it; `^` and `$` are the ends of a line.
    pub pattern: Regex,
    /// Why this is asked.
    pub why: String,
}

/// Something done once in an image, as root whose system calls succeed without effect.
#[derive(Clone, Debug)]
pub struct Install {
    /// Text for a shell that succeeds if nothing needs to be done.
    pub test: String,
    /// Text for a shell that does it.
    pub command: String,
    /// Why it is done, and in this way.
    pub why: String,
}

/// What goes before which commands.
#[derive(Clone, Debug)]
pub struct Wrap {
    /// Words to go before, still with placeholders.
    pub with: Vec<String>,
    /// Why these.
    pub why: String,
    /// Before which commands.
    pub commands: Vec<Words>,
}

/// Commands that are wrapped for the same reason.
#[derive(Clone, Debug)]
pub struct Words {
    /// Names of programs; `*` for all.
    pub names: Vec<String>,
    /// The reason.
    pub why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    about: Spanned<String>,
    #[serde(rename = "match")]
    conditions: Spanned<Vec<RawCondition>>,
    #[serde(default, rename = "install")]
    installs: Vec<RawInstall>,
    wrap: RawWrap,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCondition {
    file: Spanned<String>,
    pattern: Spanned<String>,
    why: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInstall {
    test: Spanned<String>,
    command: Spanned<String>,
    why: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWrap {
    with: Spanned<Vec<Spanned<String>>>,
    why: Spanned<String>,
    commands: Spanned<Vec<RawWords>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWords {
    names: Spanned<Vec<Spanned<String>>>,
    why: Spanned<String>,
}

/// What `with` may hold besides plain words.
const STATE: &str = "{state}";

/// Files that a config looks into are small texts; a larger one is something else.
pub const LARGEST_FILE: u64 = 1 << 20;

impl Config {
    /// Reads a config from its text. Errors point at the line.
    pub fn parse(name: &str, origin: Origin, text: &str) -> Result<Self> {
        let shown = match &origin {
            Origin::BuiltIn => format!("{name}.toml"),
            Origin::File(path) => path.display().to_string(),
        };
        let source = Source { name: shown, text };
        let document: Document = toml::from_str(text).map_err(|e| source.error(e.message(), e.span().unwrap_or_default()))?;
        let conditions = source.list(document.conditions, "match")?.into_iter();
        let wrap = document.wrap;
        let commands = source.list(wrap.commands, "command to wrap")?.into_iter();
        Ok(Self {
            name: name.to_owned(),
            about: source.text(document.about)?,
            conditions: conditions.map(|raw| source.condition(raw)).collect::<Result<_>>()?,
            installs: document.installs.into_iter().map(|raw| source.install(raw)).collect::<Result<_>>()?,
            wrap: Wrap {
                with: source.with(wrap.with)?,
                why: source.text(wrap.why)?,
                commands: commands.map(|raw| source.words(raw)).collect::<Result<_>>()?,
            },
            origin,
        })
    }

    /// Its file's name without the ending.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it comes from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What it is for, in a few words.
    pub fn about(&self) -> &str {
        &self.about
    }

    /// What must hold of an image: all of it.
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// What is done once, in this order.
    pub fn installs(&self) -> &[Install] {
        &self.installs
    }

    /// What goes before which commands.
    pub fn wrapping(&self) -> &Wrap {
        &self.wrap
    }

    /// Whether this is the config for an image. `read` gives a file of it, if there is one.
    pub fn matches(&self, read: &dyn Fn(&ImagePath) -> Result<Option<Vec<u8>>>) -> Result<bool> {
        for condition in &self.conditions {
            if !read(&condition.file)?.is_some_and(|text| condition.pattern.is_match(&text)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A command with what goes before it; `None` if nothing does. `script` is the text of the program that the command is, if it is known;
    /// `state` the file in which is kept what is pretended.
    pub fn wrap(&self, argv: &[String], script: Option<&str>, state: &str) -> Option<Vec<String>> {
        let started = script.map_or_else(|| programs::of_command(argv), programs::of_script);
        let mut names = self.wrap.commands.iter().flat_map(|words| &words.names);
        // Who calls it by hand knows why; fakeroot can't be nested.
        let by_hand = argv.first().is_some_and(|first| programs::base_name(first) == self.program());
        if by_hand || !names.any(|name| name == "*" || started.contains(name)) {
            return None;
        }
        Some(self.put_before(argv, state))
    }

    /// A command with what goes before it, whatever it is.
    pub fn put_before(&self, argv: &[String], state: &str) -> Vec<String> {
        self.wrap.with.iter().map(|word| word.replace(STATE, state)).chain(argv.iter().cloned()).collect()
    }

    /// The program that goes before.
    pub fn program(&self) -> &str {
        &self.wrap.with[0]
    }
}

/// A file's text, for errors.
struct Source<'a> {
    name: String,
    text: &'a str,
}

impl Source<'_> {
    fn error(&self, what: &str, span: Range<usize>) -> Error {
        let start = span.start.min(self.text.len());
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line = self.text[line_start..].lines().next().unwrap_or_default();
        let width =
            self.text.get(start..span.end).and_then(|marked| marked.lines().next()).map_or(1, |marked| marked.chars().count().max(1));
        let snippet = Snippet {
            file: self.name.clone(),
            line: self.text[..start].matches('\n').count() + 1,
            column: self.text[line_start..start].chars().count() + 1,
            text: line.to_owned(),
            width,
            note: String::new(),
        };
        let error = Error::input("invalid fakeroot config").at(Place::Text(Box::new(snippet))).cause(what.trim_end());
        error.hint(remedy(what))
    }

    fn text(&self, text: Spanned<String>) -> Result<String> {
        if text.get_ref().trim().is_empty() {
            return Err(self.error("this is empty", text.span()));
        }
        Ok(text.into_inner())
    }

    fn list<T>(&self, list: Spanned<Vec<T>>, what: &str) -> Result<Vec<T>> {
        if list.get_ref().is_empty() {
            return Err(self.error(&format!("there is no {what}"), list.span()));
        }
        Ok(list.into_inner())
    }

    fn condition(&self, raw: RawCondition) -> Result<Condition> {
        let span = raw.file.span();
        let file = self.text(raw.file)?;
        if !file.starts_with('/') {
            return Err(self.error("the file's path must begin with `/`", span));
        }
        let span = raw.pattern.span();
        let pattern = self.text(raw.pattern)?;
        let pattern = RegexBuilder::new(&pattern).multi_line(true).build().map_err(|e| {
            // Its message repeats the pattern over several lines; the last one says what is wrong.
            let text = e.to_string();
            let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            self.error(&format!("not a regular expression: {last}"), span)
        })?;
        Ok(Condition { file: ImagePath::clean(&file), pattern, why: self.text(raw.why)? })
    }

    fn install(&self, raw: RawInstall) -> Result<Install> {
        Ok(Install { test: self.text(raw.test)?, command: self.text(raw.command)?, why: self.text(raw.why)? })
    }

    fn with(&self, with: Spanned<Vec<Spanned<String>>>) -> Result<Vec<String>> {
        let mut words = Vec::new();
        for word in self.list(with, "word to put before a command")? {
            let span = word.span();
            let word = self.text(word)?;
            if word.replace(STATE, "").contains(['{', '}']) {
                return Err(self.error("unknown placeholder; there is `{state}`", span));
            }
            words.push(word);
        }
        Ok(words)
    }

    fn words(&self, raw: RawWords) -> Result<Words> {
        let mut names = Vec::new();
        for name in self.list(raw.names, "name")? {
            let span = name.span();
            let name = self.text(name)?;
            if name.contains('/') || name.contains(char::is_whitespace) {
                return Err(self.error("a name is a program's alone, without directory and arguments", span));
            }
            names.push(name);
        }
        Ok(Words { names, why: self.text(raw.why)? })
    }
}

/// What to do about what the TOML parser says.
fn remedy(what: &str) -> String {
    const KNOWN: [&str; 11] = ["about", "match", "file", "pattern", "why", "install", "test", "command", "wrap", "with", "commands"];
    let mut quoted = what.split('`').skip(1).step_by(2);
    match (what.starts_with("unknown field"), what.starts_with("missing field"), quoted.next()) {
        (true, _, Some(name)) => match nearest(name, KNOWN) {
            Some(near) => format!("did you mean {}?", quote(near)),
            None => format!("remove {}; doc/fakeroot.md lists what there is", quote(name)),
        },
        (_, true, Some("why")) => "say why in `why = \"…\"`: who reads the file in ten years needs it".into(),
        (_, true, Some(name)) => format!("add {}; doc/fakeroot.md describes it", quote(name)),
        _ => "doc/fakeroot.md describes the format; `rootling info --fakeroot IMAGE` reads the file again".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
about = "Test OS"
[[match]]
file = "/etc/os-release"
pattern = '^ID=test$'
why = "its name"
[[install]]
test = "command -v fakeroot"
command = "get fakeroot"
why = "needed"
[wrap]
with = ["fakeroot", "-s{state}"]
why = "so"
[[wrap.commands]]
names = ["pkg", "chown"]
why = "they chown"
"#;

    fn parse(text: &str) -> Result<Config> {
        Config::parse("test", Origin::File("dir/test.toml".into()), text)
    }

    #[test]
    fn a_config_is_what_its_file_says() {
        let config = parse(GOOD).unwrap();
        assert_eq!((config.name(), config.about(), config.program()), ("test", "Test OS", "fakeroot"));
        assert_eq!(config.installs()[0].command, "get fakeroot");
        for (text, expected) in [("ID=test\n", true), ("NAME=x\nID=test\nZ=1\n", true), ("ID=tester\n", false), ("XID=test\n", false)] {
            assert_eq!(config.matches(&|_| Ok(Some(text.into()))).unwrap(), expected, "{text:?}");
        }
        assert!(!config.matches(&|_| Ok(None)).unwrap());
    }

    #[test]
    fn all_matches_must_hold() {
        let both = GOOD.replacen("[[install]]", "[[match]]\nfile = \"/etc/v\"\npattern = \"^[89]$\"\nwhy = \"x\"\n[[install]]", 1);
        let config = parse(&both).unwrap();
        let image = |version: &'static str| {
            move |file: &ImagePath| Ok(Some(if file.to_string() == "/etc/v" { version.into() } else { b"ID=test".to_vec() }))
        };
        assert!(config.matches(&image("9\n")).unwrap());
        assert!(!config.matches(&image("7\n")).unwrap());
    }

    #[test]
    fn commands_are_wrapped_whole() {
        let config = parse(GOOD).unwrap();
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let wrap = |argv: &str| config.wrap(&words(argv), None, "/state");
        assert_eq!(wrap("/usr/bin/pkg get x"), Some(words("fakeroot -s/state /usr/bin/pkg get x")));
        assert_eq!(wrap("echo pkg"), None);
        assert_eq!(wrap("fakeroot pkg get x"), None, "by hand");
        let script = config.wrap(&words("/dev/pipes/EOF"), Some("#!/bin/sh\nset -e\npkg get x\n"), "/state");
        assert_eq!(script, Some(words("fakeroot -s/state /dev/pipes/EOF")));
        let all = parse(&GOOD.replace("\"chown\"", "\"*\"")).unwrap();
        assert!(all.wrap(&words("./install.sh"), None, "/state").is_some());
    }

    #[test]
    fn errors_name_line_and_remedy() {
        for (from, to, line, cause, hint) in [
            ("^ID=test$", "^ID=(test$", 5, "not a regular expression: unclosed group", "doc/fakeroot.md"),
            ("\"/etc/os-release\"", "\"etc/os-release\"", 4, "must begin with `/`", "doc/fakeroot.md"),
            ("pattern =", "patern =", 5, "unknown field `patern`", "did you mean `pattern`?"),
            ("why = \"needed\"\n", "", 7, "missing field `why`", "say why"),
            ("why = \"needed\"\n", "why = \" \"\n", 10, "this is empty", "doc/fakeroot.md"),
            ("-s{state}", "-s{sate}", 12, "unknown placeholder", "doc/fakeroot.md"),
            ("\"pkg\"", "\"/bin/pkg\"", 15, "without directory", "doc/fakeroot.md"),
            ("[\"pkg\", \"chown\"]", "[]", 15, "there is no name", "doc/fakeroot.md"),
            ("[\"fakeroot\", \"-s{state}\"]", "\"fakeroot\"", 12, "expected a sequence", "doc/fakeroot.md"),
            ("about = \"Test OS\"", "about = \"Test OS", 2, "", "doc/fakeroot.md"),
        ] {
            assert!(GOOD.contains(from));
            let error = parse(&GOOD.replacen(from, to, 1)).expect_err(to);
            let Some(Place::Text(snippet)) = error.place() else { panic!("{to}: no place") };
            assert_eq!((snippet.file.as_str(), snippet.line), ("dir/test.toml", line), "{to}: {error}");
            assert!(error.causes()[0].contains(cause), "{to}: {error}");
            assert!(error.hints()[0].contains(hint), "{to}: {:?}", error.hints());
        }
    }
}
