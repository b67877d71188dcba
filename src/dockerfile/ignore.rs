//! `.dockerignore`: which paths of a build context are left out, exactly as moby's `patternmatcher` decides.
//!
//! One pattern a line, last match wins, `!` takes back in. A pattern that matches a directory matches everything below it. `**`
//! matches any number of directories. Lines that start with `#` are comments. Leading slashes mean nothing.

use regex::bytes::Regex;

use super::glob::Glob;
use super::source::Source;
use super::spelling::quote;
use crate::error::{Error, Place, Result};

/// The patterns of one file.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

/// What is known of a directory, for what lies in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// For each pattern whether the path or a directory above it matched.
    hits: Vec<bool>,
    ignored: bool,
}

impl Matched {
    /// Whether the path is left out.
    pub fn ignored(&self) -> bool {
        self.ignored
    }
}

#[derive(Clone, Debug)]
struct Pattern {
    /// Cleaned, without `!`.
    text: String,
    /// Starts with `!`.
    exception: bool,
    matcher: Matcher,
}

#[derive(Clone, Debug)]
enum Matcher {
    Exact,
    /// `…**`, the rest literal.
    Prefix(String),
    /// `**…`, the rest literal.
    Suffix(String),
    Regex(Box<Regex>),
}

impl Ignore {
    /// Reads a file; `name` is what errors call it.
    pub fn parse(name: &str, text: &[u8]) -> Result<Self> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let text = String::from_utf8_lossy(text);
        let mut ignore = Self::default();
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            let range = at..at + line.trim_end().len();
            at += line.len();
            if line.starts_with('#') {
                continue;
            }
            ignore.add(line).map_err(|error| {
                let source = Source::new(name, text.as_ref());
                let place: Place = source.place(range, "");
                error.at(place)
            })?;
        }
        Ok(ignore)
    }

    /// Reads patterns that are already apart, such as those of `--exclude`.
    pub fn from_patterns<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut ignore = Self::default();
        patterns.into_iter().try_for_each(|pattern| ignore.add(pattern))?;
        Ok(ignore)
    }

    /// Takes one pattern as it is: a `!` in front means nothing special. What it matches is said to be left out, whatever it stands for.
    pub fn of_pattern(pattern: &str) -> Result<Self> {
        match pattern.strip_prefix('!') {
            Some(rest) => Self::from_patterns([format!("\\!{rest}").as_str()]),
            None => Self::from_patterns([pattern]),
        }
    }

    /// Whether some pattern may match below a directory; says yes where that is not sure.
    pub fn may_match_below(&self, directory: impl AsRef<[u8]>) -> bool {
        let directory = directory.as_ref();
        self.patterns.iter().any(|pattern| pattern.may_match_below(directory))
    }

    /// Whether nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a path (relative to the context, `/` between components) is left out. The context itself never is.
    pub fn matches(&self, path: impl AsRef<[u8]>) -> bool {
        let path = path.as_ref();
        if path.is_empty() || path == b"." {
            return false;
        }
        let mut ignored = false;
        for pattern in self.patterns.iter() {
            // A pattern that could not change the answer need not be asked.
            if pattern.exception == ignored && prefixes(path).any(|prefix| pattern.matches(prefix)) {
                ignored = !pattern.exception;
            }
        }
        ignored
    }

    /// [`Ignore::matches`] for a walk, which asks for a directory before what is in it and so need not look at parents again.
    /// `parent` is the answer for the directory the path lies in; the default for what lies in the context itself.
    pub fn matches_in(&self, path: impl AsRef<[u8]>, parent: &Matched) -> Matched {
        let path = path.as_ref();
        let mut matched = Matched { hits: Vec::with_capacity(self.patterns.len()), ignored: false };
        for (i, pattern) in self.patterns.iter().enumerate() {
            // Every pattern is asked, also one that can't change the answer here: further down it may. (Moby's own walk does not
            // ask, and so differs from its own answer for a single path: `*`, `!a/**`, `*` takes `a/b` there.)
            let hit = parent.hits.get(i).copied().unwrap_or(false) || pattern.matches(path);
            if hit {
                matched.ignored = !pattern.exception;
            }
            matched.hits.push(hit);
        }
        matched
    }

    /// Whether nothing below an ignored directory can be taken back in by an exception, so that it need not be read.
    pub fn can_skip(&self, directory: impl AsRef<[u8]>) -> bool {
        let directory = directory.as_ref();
        !self.patterns.iter().any(|pattern| pattern.exception && pattern.may_match_below(directory))
    }

    fn add(&mut self, line: &str) -> Result<()> {
        let line = line.trim();
        let (exception, rest) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest.trim()));
        if rest.is_empty() {
            return if exception { Err(Error::input("`!` must be followed by a pattern")) } else { Ok(()) };
        }
        let cleaned = clean(rest);
        let text = cleaned.strip_prefix('/').filter(|rest| !rest.is_empty()).unwrap_or(&cleaned).to_string();
        Glob::new(&text)?;
        let matcher = Matcher::new(&text)?;
        self.patterns.push(Pattern { text, exception, matcher });
        Ok(())
    }
}

/// The path and every directory above it, shortest first, without the context itself.
fn prefixes(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let cuts = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(i, _)| i);
    cuts.chain(std::iter::once(path.len())).map(|end| &path[..end])
}

/// Go's `filepath.Clean`.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.join("/")) {
        (true, joined) => format!("/{joined}"),
        (false, joined) if joined.is_empty() => ".".to_string(),
        (false, joined) => joined,
    }
}

impl Pattern {
    fn matches(&self, path: &[u8]) -> bool {
        match &self.matcher {
            Matcher::Exact => path == self.text.as_bytes(),
            Matcher::Prefix(prefix) => path.starts_with(prefix.as_bytes()),
            Matcher::Suffix(suffix) => {
                path.ends_with(suffix.as_bytes()) || suffix.strip_prefix('/').is_some_and(|whole| path == whole.as_bytes())
            }
            Matcher::Regex(regex) => regex.is_match(path),
        }
    }

    /// Whether some path below `directory` may match. Says yes where it is not sure.
    fn may_match_below(&self, directory: &[u8]) -> bool {
        if directory.is_empty() || directory == b"." {
            return true;
        }
        let mut wanted = self.text.split('/');
        for component in directory.split(|byte| *byte == b'/') {
            match wanted.next() {
                None => return true,
                // Brackets can match a slash, and `\` may stand before one.
                Some(part) if part.contains("**") || part.contains(['[', '\\']) => return true,
                Some(part) if Glob::new(part).is_ok_and(|glob| !glob.matches(component)) => return false,
                Some(_) => {}
            }
        }
        true
    }
}

impl Matcher {
    /// The matcher of a valid pattern.
    fn new(text: &str) -> Result<Self> {
        if let Some(prefix) = text.strip_suffix("**").filter(|prefix| !prefix.contains(['*', '?', '[', ']', '\\'])) {
            return Ok(if prefix.is_empty() { Matcher::Suffix(String::new()) } else { Matcher::Prefix(prefix.to_string()) });
        }
        if let Some(suffix) = text.strip_prefix("**").filter(|suffix| !suffix.contains(['*', '?', '[', ']', '\\'])) {
            return Ok(Matcher::Suffix(suffix.to_string()));
        }
        if !text.contains(['*', '?', '[', ']', '\\']) {
            return Ok(Matcher::Exact);
        }
        let regex = Regex::new(&translate(text));
        regex.map(|regex| Matcher::Regex(Box::new(regex))).map_err(|_| Error::input(format!("can't use pattern {}", quote(text))))
    }
}

/// The pattern as a regular expression. Names may be any bytes, so what stands for several characters matches bytes.
fn translate(text: &str) -> String {
    let mut regex = String::from("^");
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                regex.push_str(if chars.peek().is_none() { "(?-u:.*)" } else { "(?:(?-u:.*)/)?" });
            }
            '*' => regex.push_str("(?-u:[^/]*)"),
            '?' => regex.push_str("[^/]"),
            '[' => bracket(&mut chars, &mut regex),
            '\\' => {
                let literal = chars.next().unwrap_or('\\');
                regex.push_str(&regex::escape(literal.encode_utf8(&mut [0; 4])));
            }
            c => regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    regex.push('$');
    regex
}

/// What follows `[`, known to be complete.
fn bracket(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, regex: &mut String) {
    regex.push('[');
    if chars.next_if_eq(&'^').is_some() {
        regex.push('^');
    }
    while let Some(c) = chars.next() {
        match c {
            ']' => break,
            '-' => regex.push('-'),
            '\\' => push_in_class(chars.next().unwrap_or('\\'), regex),
            c => push_in_class(c, regex),
        }
    }
    regex.push(']');
}

fn push_in_class(c: char, regex: &mut String) {
    if c.is_ascii() && !c.is_ascii_alphanumeric() {
        regex.push('\\');
    }
    regex.push(c);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignore(text: &str) -> Ignore {
        Ignore::parse(".dockerignore", text.as_bytes()).expect(text)
    }

    /// What a walk that asks for parents first says, and whether a directory that it would not read hides something taken back in.
    fn walked(ignore: &Ignore, path: &str) -> bool {
        let mut matched = Matched::default();
        let mut skipped = false;
        for prefix in prefixes(path.as_bytes()) {
            assert!(!skipped || ignore.matches(prefix), "{path} is under a skipped directory");
            matched = ignore.matches_in(prefix, &matched);
            skipped |= matched.ignored() && ignore.can_skip(prefix);
        }
        matched.ignored()
    }

    #[test]
    fn matches_as_moby_does() {
        for (patterns, path, expected) in [
            ("**", "file", true),
            ("**", "dir/file", true),
            ("**/", "file", true),
            ("**/**", "dir/file", true),
            ("dir/**", "dir/file", true),
            ("dir/**", "dir", false),
            ("dir/**", "dir/dir2/file", true),
            ("dir", "dir/sub/file", true),
            ("/dir", "dir/file", true),
            ("dir/", "dir", true),
            ("./a/../b", "b", true),
            ("**/dir2/*", "dir/dir2/file", true),
            ("**/dir2/*", "dir/dir2/dir2/file", true),
            ("**/dir2/**", "dir/dir2/dir2/file", true),
            ("**file", "file", true),
            ("**file", "dir/dir/file", true),
            ("**/file", "dir/dir/file", true),
            ("**/file*", "dir/dir/file.txt", true),
            ("**/file*txt", "dir/dir/file.txt", true),
            ("**/file*.txt*", "dir/dir/file.txt", true),
            ("**/**/*.txt", "dir/dir/file.txt", true),
            ("**/**/*.txt2", "dir/dir/file.txt", false),
            ("**/*.txt", "file.txt", true),
            ("a**/*.txt", "a/dir/file.txt", true),
            ("a/*.txt", "a/file.txt", true),
            ("a/*.txt", "a/dir/file.txt", false),
            ("a[b-d]e", "ace", true),
            ("a[b-d]e", "aae", false),
            ("a[^b-d]e", "aze", true),
            (".*", ".foo", true),
            (".*", "foo", false),
            ("abc.def", "abcdef", false),
            ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("foo\\d", "food", true),
            ("**/foo/bar", "foo/bar", true),
            ("abc/**", "abc/def", true),
            ("*", "a/b/c", true),
            ("*/*", "a", false),
            ("?", "\u{e4}", true),
            ("*.md\n!README.md", "README.md", false),
            ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true),
            ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", false),
            ("*\n!src\n!src/**", "src/a/b", false),
            ("*\n!src", "src/a/b", false),
            ("*\n!src\nsrc/a", "src/a/b", true),
            ("*\n!**/keep", "a/b/keep", false),
            ("*\n!**/keep", "a/b/other", true),
            ("a\n!a/b/c", "a/b/c/d", false),
            ("a\n!a/b/c", "a/b/x", true),
            ("a\n!a/*/c", "a/b/c", false),
            ("a/b\n!a\na/b", "a/b", true),
            ("!a\na", "a", true),
            ("*\n!a/**\n*", "a/b", true),
            ("# a\n\n  b  \n", "b", true),
            ("# a\n", "# a", false),
            (" #a", "#a", true),
            ("\u{feff}a", "a", true),
            ("a\r\nb\r\n", "a", true),
            ("! a\n", "a", false),
            ("/", "a", false),
            (".", "a", false),
            ("", "a", false),
        ] {
            let ignore = ignore(patterns);
            assert_eq!(ignore.matches(path), expected, "{patterns:?} {path}");
            assert_eq!(walked(&ignore, path), expected, "{patterns:?} {path}, walked");
        }
        assert!(ignore("*.bin").matches(b"\xff\xfe.bin"));
        assert!(!ignore("**").matches("."));
    }

    #[test]
    fn directories_are_skipped_when_nothing_comes_back() {
        for (patterns, directory, expected) in [
            ("a", "a", true),
            ("a\n!b", "a", true),
            ("a\n!a/x", "a", false),
            ("*\n!a/x/y", "a/x", false),
            ("*\n!a/x/y", "a/z", true),
            ("*\n!**/x", "a", false),
            ("*\n!*/x", "a", false),
            ("*\n!*/x", "a/b", true),
            ("*\n!a", "a/b", false),
            ("*\n!a*", "b", true),
        ] {
            assert_eq!(ignore(patterns).can_skip(directory), expected, "{patterns:?} {directory}");
        }
    }

    #[test]
    fn bad_patterns_are_named() {
        for text in ["a\n!\n", "a\n! \n", "a\n[\n", "a\nb\\\n"] {
            let error = Ignore::parse(".dockerignore", text.as_bytes()).unwrap_err();
            let Some(Place::Text(snippet)) = error.place() else { panic!("{text:?}: no place") };
            assert_eq!((snippet.line, snippet.column), (2, 1), "{text:?}");
        }
    }
}
