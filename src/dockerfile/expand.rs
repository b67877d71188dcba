//! Variables, quotes and escapes in a value, as BuildKit's shell lexer processes them.
//!
//! Not a shell: no commands, arithmetic or file names. `$x`, `${x}` and `${x` with a modifier `}` where the modifier is one of
//! `:-w` `-w` `:+w` `+w` `:?w` `?w` `#p` `##p` `%p` `%%p` `/p/r` `//p/r`; `w` and `r` may hold further variables.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::CharIndices;

use super::shell_pattern::{self, Length};
use super::spelling::quote;
use crate::error::Error;

/// What the result is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One value: quotes and escapes are processed.
    Word,
    /// A list: besides, split at white space that is not quoted, after variables are replaced.
    Words,
    /// A here-document's text: quotes mean nothing; the escape character is `\` whatever the directive says.
    Heredoc,
}

/// An expanded value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The value.
    pub text: String,
    /// Its words, in [`Mode::Words`].
    pub words: Vec<String>,
    /// Names of the variables that were looked up and set.
    pub used: BTreeSet<String>,
    /// Names of the variables that were looked up and not set.
    pub unset: BTreeSet<String>,
}

/// Why a value can't be expanded, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpandError {
    /// What is wrong.
    pub what: String,
    /// Byte offset in the value.
    pub at: usize,
}

impl From<ExpandError> for Error {
    fn from(error: ExpandError) -> Self {
        Error::input(error.what)
    }
}

/// The longest value: variables made of variables grow without limit. No kernel passes on a longer one.
const LONGEST_WORD: usize = 1 << 20;

/// The longest text of a here-document.
const LONGEST_TEXT: usize = 64 << 20;

/// Expansions within expansions beyond this are refused, since each takes stack.
const DEEPEST: usize = 64;

/// Expands a value with the variables `lookup` knows. A variable that is not set is empty.
pub fn expand(text: &str, escape: char, lookup: &dyn Fn(&str) -> Option<String>, mode: Mode) -> Result<Expanded, ExpandError> {
    let escape = if mode == Mode::Heredoc { '\\' } else { escape };
    let mut lexer = Lexer {
        text,
        chars: text.char_indices().peekable(),
        escape,
        lookup,
        quotes: mode != Mode::Heredoc,
        depth: 0,
        longest: if mode == Mode::Heredoc { LONGEST_TEXT } else { LONGEST_WORD },
        seen: Expanded::default(),
    };
    let mut words = (mode == Mode::Words).then(Words::default);
    let text = lexer.until(None, Escapes::Remove, words.as_mut())?;
    Ok(Expanded { text, words: words.map(Words::finish).unwrap_or_default(), ..lexer.seen })
}

/// What becomes of escape characters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    Remove,
    /// They stay, for the pattern they are part of to interpret.
    Keep,
}

/// A list in the making.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    word: String,
}

impl Words {
    /// Text whose white space separates.
    fn split(&mut self, text: &str) {
        for c in text.chars() {
            if !c.is_whitespace() {
                self.word.push(c);
            } else if !self.word.is_empty() {
                self.done.push(std::mem::take(&mut self.word));
            }
        }
    }

    /// Text that was quoted.
    fn keep(&mut self, text: &str) {
        self.word.push_str(text);
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.done.push(self.word);
        }
        self.done
    }
}

struct Lexer<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
    escape: char,
    lookup: &'a dyn Fn(&str) -> Option<String>,
    quotes: bool,
    depth: usize,
    longest: usize,
    /// Holds what was looked up.
    seen: Expanded,
}

impl Lexer<'_> {
    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|(_, c)| *c)
    }

    fn next(&mut self) -> Option<char> {
        self.chars.next().map(|(_, c)| c)
    }

    fn take_if(&mut self, c: char) -> bool {
        self.chars.next_if(|(_, next)| *next == c).is_some()
    }

    fn at(&mut self) -> usize {
        self.chars.peek().map_or(self.text.len(), |(at, _)| *at)
    }

    fn fail<T>(&self, at: usize, what: impl Into<String>) -> Result<T, ExpandError> {
        Err(ExpandError { what: what.into(), at })
    }

    /// Everything up to `stop`, which is taken too, or up to the end.
    fn until(&mut self, stop: Option<char>, escapes: Escapes, mut words: Option<&mut Words>) -> Result<String, ExpandError> {
        let start = self.at();
        let mut result = String::new();
        loop {
            let at = self.at();
            let Some(c) = self.next() else {
                return match stop {
                    None => Ok(result),
                    Some(stop) => self.fail(start, format!("missing `{stop}` of `${{…}}`")),
                };
            };
            if stop == Some(c) {
                return Ok(result);
            }
            let length = result.len();
            match c {
                '$' => {
                    let value = self.dollar(at)?;
                    result.push_str(&value);
                    if result.len() > self.longest {
                        return self
                            .fail(at, format!("the value is longer than {} MiB after its variables are replaced", self.longest >> 20));
                    }
                    if let Some(words) = words.as_deref_mut() {
                        words.split(&value);
                    }
                    continue;
                }
                '\'' if self.quotes => self.single_quote(at, &mut result)?,
                '"' if self.quotes => self.double_quote(at, escapes, &mut result)?,
                c if c == self.escape => {
                    if escapes == Escapes::Keep {
                        result.push(c);
                    }
                    // At the very end there is nothing to escape.
                    result.extend(self.next());
                }
                c => {
                    result.push(c);
                    if let Some(words) = words.as_deref_mut() {
                        words.split(c.encode_utf8(&mut [0; 4]));
                    }
                    continue;
                }
            }
            if let Some(words) = words.as_deref_mut() {
                words.keep(&result[length..]);
            }
        }
    }

    fn single_quote(&mut self, at: usize, result: &mut String) -> Result<(), ExpandError> {
        while let Some(c) = self.next() {
            if c == '\'' {
                return Ok(());
            }
            result.push(c);
        }
        self.fail(at, "single quote without its end")
    }

    /// Here the escape character is one before `"`, `$` and itself only.
    fn double_quote(&mut self, at: usize, escapes: Escapes, result: &mut String) -> Result<(), ExpandError> {
        loop {
            let here = self.at();
            match self.next() {
                None => return self.fail(at, "double quote without its end"),
                Some('"') => return Ok(()),
                Some('$') => {
                    let value = self.dollar(here)?;
                    result.push_str(&value);
                    if result.len() > self.longest {
                        return self
                            .fail(at, format!("the value is longer than {} MiB after its variables are replaced", self.longest >> 20));
                    }
                }
                Some(c) if c == self.escape => {
                    if escapes == Escapes::Keep {
                        result.push(c);
                    }
                    match self.peek() {
                        None => {}
                        Some(next) if next == '"' || next == '$' || next == self.escape => {
                            self.next();
                            result.push(next);
                        }
                        Some(_) => result.push(c),
                    }
                }
                Some(c) => result.push(c),
            }
        }
    }

    /// What follows a `$`, which stands at `at`.
    fn dollar(&mut self, at: usize) -> Result<String, ExpandError> {
        if !self.take_if('{') {
            let name = self.name();
            return Ok(if name.is_empty() { "$".to_string() } else { self.get(&name).unwrap_or_default() });
        }
        self.depth += 1;
        if self.depth > DEEPEST {
            return self.fail(at, "variables are nested too deeply");
        }
        let value = self.braces(at);
        self.depth -= 1;
        value
    }

    /// What follows `${`.
    fn braces(&mut self, at: usize) -> Result<String, ExpandError> {
        match self.peek() {
            None => return self.fail(at, "`${` without `}`"),
            Some('{' | '}' | ':') => return self.fail(at, "bad substitution: `${` must be followed by a variable's name"),
            Some(_) => {}
        }
        let name = self.name();
        let empty_is_unset = self.take_if(':');
        let modifier_at = self.at();
        let colon = if empty_is_unset { ":" } else { "" };
        match (self.next(), empty_is_unset) {
            (None, _) => self.fail(at, "`${` without `}`"),
            (Some('}'), false) => Ok(self.get(&name).unwrap_or_default()),
            (Some(modifier @ ('-' | '+' | '?')), _) => self.default(at, &name, modifier, empty_is_unset),
            (Some(modifier @ ('#' | '%')), false) => self.trim(at, &name, modifier),
            (Some('/'), false) => self.replace(at, &name),
            (Some(other), _) => {
                self.fail(modifier_at, format!("unsupported modifier {} in `${{{name}…}}`", quote(format!("{colon}{other}"))))
            }
        }
    }

    fn default(&mut self, at: usize, name: &str, modifier: char, empty_is_unset: bool) -> Result<String, ExpandError> {
        let word = self.until(Some('}'), Escapes::Remove, None)?;
        let value = self.get(name);
        let is_set = value.is_some();
        let value = value.filter(|value| !(empty_is_unset && value.is_empty()));
        match (modifier, value) {
            ('-', value) => Ok(value.unwrap_or(word)),
            ('+', value) => Ok(value.map(|_| word).unwrap_or_default()),
            (_, Some(value)) => Ok(value),
            (_, None) if word.is_empty() => {
                self.fail(at, format!("{name}: is not allowed to be {}", if is_set { "empty" } else { "unset" }))
            }
            (_, None) => self.fail(at, format!("{name}: {word}")),
        }
    }

    fn trim(&mut self, at: usize, name: &str, modifier: char) -> Result<String, ExpandError> {
        let length = if self.take_if(modifier) { Length::Longest } else { Length::Shortest };
        let pattern = self.until(Some('}'), Escapes::Keep, None)?;
        let value = self.get(name).unwrap_or_default();
        let trimmed = match modifier {
            '#' => shell_pattern::trim_prefix(&value, &pattern, length),
            _ => shell_pattern::trim_suffix(&value, &pattern, length),
        };
        trimmed.or_else(|what| self.fail(at, what))
    }

    fn replace(&mut self, at: usize, name: &str) -> Result<String, ExpandError> {
        let all = self.take_if('/');
        let pattern = self.until(Some('/'), Escapes::Keep, None)?;
        let replacement = self.until(Some('}'), Escapes::Keep, None)?;
        let value = self.get(name).unwrap_or_default();
        let count = if all { usize::MAX } else { 1 };
        shell_pattern::replace(&value, &pattern, &replacement, count).or_else(|what| self.fail(at, what))
    }

    /// A variable's name: letters, digits and `_`, or digits only, or one of the shell's special parameters.
    fn name(&mut self) -> String {
        let mut name = String::new();
        if let Some(special) = self.chars.next_if(|(_, c)| matches!(c, '@' | '*' | '#' | '?' | '-' | '$' | '!')) {
            return special.1.to_string();
        }
        let positional = self.peek().is_some_and(is_digit);
        let belongs = |c: char| if positional { is_digit(c) } else { c == '_' || c.is_alphabetic() || is_digit(c) };
        while let Some((_, c)) = self.chars.next_if(|(_, c)| belongs(*c)) {
            name.push(c);
        }
        name
    }

    fn get(&mut self, name: &str) -> Option<String> {
        let value = (self.lookup)(name);
        let names = if value.is_some() { &mut self.seen.used } else { &mut self.seen.unset };
        if !names.contains(name) {
            names.insert(name.to_string());
        }
        value
    }
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(name: &str) -> Option<String> {
        let value = match name {
            "x" => "value",
            "PATH" => "/usr/bin:/bin",
            "file" => "dir/archive.tar.gz",
            "list" => "a  b 'c d'",
            "empty" => "",
            "äö" => "umlaut",
            "1" => "one",
            "12" => "twelve",
            "?" => "status",
            _ => return None,
        };
        Some(value.to_string())
    }

    fn word(text: &str, escape: char) -> Result<String, String> {
        expand(text, escape, &variables, Mode::Word).map(|expanded| expanded.text).map_err(|error| format!("{}: {}", error.at, error.what))
    }

    #[test]
    fn words_are_expanded() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("$x", "value"),
            ("a$x.b", "avalue.b"),
            ("${x}y", "valuey"),
            ("$unset", ""),
            ("$", "$"),
            ("a$ b", "a$ b"),
            ("$$", ""),
            ("$?", "status"),
            ("$1x $12 $123", "onex twelve "),
            ("$äö", "umlaut"),
            ("\\$x", "$x"),
            ("'$x'", "$x"),
            ("\"$x\"", "value"),
            ("\"\\$x \\\" \\\\ \\n\"", "$x \" \\ \\n"),
            ("a\\ b\\n", "a bn"),
            ("end\\", "end"),
            ("'a\\'b", "a\\b"),
            ("\"it's\"", "it's"),
            ("${x:-d}${empty:-d}${unset:-d}", "valuedd"),
            ("${x-d}${empty-d}${unset-d}", "valued"),
            ("${x:+s}|${empty:+s}|${unset:+s}", "s||"),
            ("${x+s}|${empty+s}|${unset+s}", "s|s|"),
            ("${x:?no}${empty?no}", "value"),
            ("${unset:-${other:-$x}}", "value"),
            ("${unset:-'}'}", "}"),
            ("${unset:-\"a } b\"}", "a } b"),
            ("${unset:-a\\}b}", "a}b"),
            ("${file#*/}", "archive.tar.gz"),
            ("${file%.*}", "dir/archive.tar"),
            ("${file%%.*}", "dir/archive"),
            ("${file##*[a]}", "dir/archive.tar.gz"),
            ("${PATH#*:}|${PATH##*/}|${PATH%:*}|${PATH%%/*}", "/bin|bin|/usr/bin|"),
            (
                "${file/a/A}|${file//a/A}|${file/\\//-}|${file//./}",
                "dir/Archive.tar.gz|dir/Archive.tAr.gz|dir-archive.tar.gz|dir/archivetargz",
            ),
            ("${unset#a}${unset/a/b}", ""),
        ] {
            assert_eq!(word(text, '\\').as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(word("c:\\x`$x\\$x `` \"`\"\"", '`').as_deref(), Ok("c:\\x$x\\value ` \""));
    }

    #[test]
    fn errors_say_where() {
        for (text, expected) in [
            ("ab ${x", "3: `${` without `}`"),
            ("${", "0: `${` without `}`"),
            ("${}", "0: bad substitution: `${` must be followed by a variable's name"),
            ("${:-x}", "0: bad substitution: `${` must be followed by a variable's name"),
            ("${x:-a", "5: missing `}` of `${…}`"),
            ("${x/a", "4: missing `/` of `${…}`"),
            ("${x/a/b", "6: missing `}` of `${…}`"),
            ("${x!a}", "3: unsupported modifier `!` in `${x…}`"),
            ("${x:a}", "4: unsupported modifier `:a` in `${x…}`"),
            ("${x:#a}", "4: unsupported modifier `:#` in `${x…}`"),
            ("${x:%%a}", "4: unsupported modifier `:%` in `${x…}`"),
            ("a'b", "1: single quote without its end"),
            ("a\"b", "1: double quote without its end"),
            ("${unset:?}", "0: unset: is not allowed to be unset"),
            ("${empty:?}", "0: empty: is not allowed to be empty"),
            ("${unset?give it}", "0: unset: give it"),
            ("${x#\\a}", "0: invalid escape `\\a` in pattern `\\a`"),
        ] {
            assert_eq!(word(text, '\\').unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn lists_are_split_after_expansion() {
        for (text, expected) in [
            ("a b", &["a", "b"][..]),
            (" a\t\n b ", &["a", "b"]),
            ("$list", &["a", "b", "'c", "d'"]),
            ("\"$list\"", &["a  b 'c d'"]),
            ("a\\ b 'c d'e", &["a b", "c de"]),
            ("'' \"\"", &[]),
            ("$empty a${x}b$empty", &["avalueb"]),
        ] {
            let expanded = expand(text, '\\', &variables, Mode::Words).expect(text);
            assert_eq!(expanded.words, expected, "{text:?}");
        }
    }

    #[test]
    fn heredocs_keep_quotes() {
        for (text, expected) in
            [("\"$x\" '$x' it's\n", "\"value\" 'value' it's\n"), ("\\$x \\\\ \\\n", "$x \\ \n"), ("${unset:-\"q\"}", "\"q\"")]
        {
            // The directive's escape character does not count.
            assert_eq!(expand(text, '`', &variables, Mode::Heredoc).map(|expanded| expanded.text).as_deref(), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn lookups_are_reported() {
        let expanded = expand("$x ${unset:-$PATH} '$quoted' $unset ${empty:+$other}", '\\', &variables, Mode::Word).expect("right");
        assert_eq!(expanded.used.into_iter().collect::<Vec<_>>(), ["PATH", "empty", "x"]);
        assert_eq!(expanded.unset.into_iter().collect::<Vec<_>>(), ["other", "unset"]);
    }

    #[test]
    fn hostile_nesting_ends() {
        for unit in ["${x:-", "\"${x:-", "${x/", "${x#", "$", "'", "\"", "\\", "${", "${x:-}"] {
            let _ = expand(&unit.repeat(100_000), '\\', &variables, Mode::Words);
        }
        let deep = "${unset:-".repeat(DEEPEST) + "a" + &"}".repeat(DEEPEST);
        assert_eq!(word(&deep, '\\').as_deref(), Ok("a"));
        assert!(word(&format!("${{unset:-{deep}}}"), '\\').is_err());
    }
}
