//! The one error type: what could not be done, where, why, and what to do next.
//!
//! Nothing here prints. An error is built where it happens, gains a place and a hint on the way up, and is rendered once,
//! by `cli::render`, under four labels: `error:`, `-->`, `cause:`, `hint:`.
//! Messages are lower case, without full stop, with names in backticks made by [`quote`].

use std::fmt::{self, Display};
use std::io;
use std::path::{Path, PathBuf};

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller may want to branch on; everything else is [`Kind::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No reason to branch.
    Other,
    /// The named thing does not exist.
    NotFound,
    /// What the user wrote (command line, Dockerfile, reference) is wrong.
    Input,
    /// Understood, but not implemented or not possible on this machine.
    Unsupported,
    /// The file system is full or a quota is used up.
    NoSpace,
    /// A digest, size or format did not hold: the bytes are not what they were said to be.
    Corrupt,
    /// The network or a registry did not deliver; trying again may help.
    Network,
    /// A registry or the kernel said no.
    Denied,
    /// The user ended it, or whoever read what we wrote.
    Interrupted,
}

/// Where it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file or directory.
    Path(PathBuf),
    /// A place that has no path: a URL, an image, a tar entry.
    Name(String),
    /// A span of a text file, with the line shown.
    Text(Box<Snippet>),
}

/// A span in a text, one line of it shown with carets below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snippet {
    /// Name of the file as the user gave it.
    pub file: String,
    /// One-based line.
    pub line: usize,
    /// One-based column, in characters.
    pub column: usize,
    /// The line's text, without its end.
    pub text: String,
    /// How many characters the carets cover; at least 1.
    pub width: usize,
    /// What stands after the carets; may be empty.
    pub note: String,
}

/// An error with everything the user needs.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    what: String,
    place: Option<Place>,
    causes: Vec<String>,
    hints: Vec<String>,
    exit_code: Option<u8>,
}

impl Error {
    /// Starts an error; `what` says what could not be done ("can't …") or what is wrong.
    pub fn new(what: impl Into<String>) -> Self {
        Self::with_kind(Kind::Other, what)
    }

    /// Starts an error of a kind.
    pub fn with_kind(kind: Kind, what: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, what: what.into(), place: None, causes: Vec::new(), hints: Vec::new(), exit_code: None }))
    }

    /// Starts an error about something the user wrote.
    pub fn input(what: impl Into<String>) -> Self {
        Self::with_kind(Kind::Input, what)
    }

    /// Starts an error for an operating system call on a path: "can't `verb` `path`", the cause named with its errno.
    pub fn io(verb: &str, path: &Path, cause: impl Into<io::Error>) -> Self {
        Self::os(format!("can't {verb} {}", quote_path(path)), cause)
    }

    /// Starts an error caused by the operating system.
    pub fn os(what: impl Into<String>, cause: impl Into<io::Error>) -> Self {
        let cause = cause.into();
        let kind = match cause.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Kind::NoSpace,
            Some(libc::ENOENT) => Kind::NotFound,
            Some(libc::EACCES | libc::EPERM) => Kind::Denied,
            Some(libc::EINTR | libc::EPIPE) => Kind::Interrupted,
            // A pipe between threads has no errno.
            None if cause.kind() == io::ErrorKind::BrokenPipe => Kind::Interrupted,
            _ => Kind::Other,
        };
        let error = Self::with_kind(kind, what).cause(describe_io(&cause));
        match kind {
            Kind::NoSpace => error.hint("free some space (`rootling prune`), or choose another place with `--storage DIR`"),
            _ => error,
        }
    }

    /// Sets the place, if none nearer to the cause was set before.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.0.place.get_or_insert(place);
        self
    }

    /// Points at a span of a text, unless it points at one already; another place becomes a cause.
    #[must_use]
    pub fn in_text(mut self, place: Place) -> Self {
        match self.0.place.take() {
            Some(text @ Place::Text(_)) => self.0.place = Some(text),
            old => {
                self.0.place = Some(place);
                match old {
                    Some(Place::Path(path)) => self.0.causes.push(format!("at {}", quote_path(&path))),
                    Some(Place::Name(name)) => self.0.causes.push(format!("at {name}")),
                    _ => {}
                }
            }
        }
        self
    }

    /// Adds a cause below those already there; the innermost comes last.
    #[must_use]
    pub fn cause(mut self, cause: impl Display) -> Self {
        self.0.causes.push(cause.to_string());
        self
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hints.push(hint.into());
        self
    }

    /// Sets the code to exit with, where a command's own is to be passed on.
    #[must_use]
    pub fn exit_code(mut self, code: u8) -> Self {
        self.0.exit_code = Some(code);
        self
    }

    /// The code to exit with, if it is not the usual one.
    pub fn code(&self) -> Option<u8> {
        self.0.exit_code
    }

    /// Wraps this error: `what` becomes the headline, the old headline the first cause; place, kind and hints stay.
    #[must_use]
    pub fn context(mut self, what: impl Into<String>) -> Self {
        let old = std::mem::replace(&mut self.0.what, what.into());
        self.0.causes.insert(0, old);
        self
    }

    /// The kind to branch on.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The headline.
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// Where, if known.
    pub fn place(&self) -> Option<&Place> {
        self.0.place.as_ref()
    }

    /// Causes, outermost first.
    pub fn causes(&self) -> &[String] {
        &self.0.causes
    }

    /// What to do next.
    pub fn hints(&self) -> &[String] {
        &self.0.hints
    }
}

impl Display for Error {
    /// One line, for logs and assertions; the user sees `cli::render`'s form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        for cause in &self.0.causes {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Lets an [`Error`] cross an interface that speaks `io::Error` (a `Read` adapter) without losing anything.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::other(error)
    }
}

/// Takes an [`Error`] that crossed an `io::Error` interface out again, or makes one with this headline.
pub fn from_io(what: impl FnOnce() -> String, error: io::Error) -> Error {
    if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        return *error
            .into_inner()
            .and_then(|inner| inner.downcast::<Error>().ok())
            .unwrap_or_else(|| Box::new(Error::new("unknown error")));
    }
    Error::os(what(), error)
}

/// Adds the path and the verb to an operating system's error.
pub trait IoContext<T> {
    /// Turns the error into "can't `verb` `path`".
    fn doing(self, verb: &str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn doing(self, verb: &str, path: &Path) -> Result<T> {
        self.map_err(|e| from_io(|| format!("can't {verb} {}", quote_path(path)), e.into()))
    }
}

/// An `io::Error` as text with the errno's name, which people search for: "No such file or directory (ENOENT)".
pub fn describe_io(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => {
            let errno = nix::errno::Errno::from_raw(number);
            format!("{} ({errno:?})", errno.desc())
        }
        None => error.to_string(),
    }
}

/// A name for a message: in backticks, control characters and broken UTF-8 escaped, so that hostile names can't draw.
pub fn quote(name: impl AsRef<[u8]>) -> String {
    let mut out = String::from("`");
    for chunk in name.as_ref().utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '`' => out.push_str("\\`"),
                c if misleads(c) => out.extend(c.escape_default()),
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out.push('`');
    out
}

/// A text of a stranger's for a terminal: characters that steer one are written as in Rust (`\u{1b}`).
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if misleads(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Whether a character does something else on a terminal than show itself: controls, and changes of the direction of writing.
fn misleads(c: char) -> bool {
    c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c)
}

/// [`quote`] for a path.
pub fn quote_path(path: &Path) -> String {
    quote(path.as_os_str().as_encoded_bytes())
}

/// A text that may hold URLs, without the credentials in them: `https://user:word@host/` becomes `https://xxxxx@host/`, as BuildKit
/// shows them. The user of `ssh://git@host/` is no secret.
pub fn hide_credentials(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        let end = after.find(|c: char| c.is_whitespace() || "/?#\"'`\\,".contains(c)).unwrap_or(after.len());
        let (user, host) = after[..end].rsplit_once('@').unwrap_or(("", &after[..end]));
        let web = ["http", "https"].iter().any(|scheme| before.to_ascii_lowercase().ends_with(scheme));
        out.push_str(before);
        out.push_str("://");
        out.push_str(if user.is_empty() {
            ""
        } else if web || user.contains(':') {
            "xxxxx@"
        } else {
            &after[..=user.len()]
        });
        out.push_str(host);
        rest = &after[end..];
    }
    out + rest
}

/// The candidate nearest to what was written, if one is near enough to be meant: at most a third of its letters differ.
pub fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (edit_distance(written, candidate), candidate))
        .filter(|(distance, candidate)| *distance * 3 <= candidate.chars().count().max(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Letters inserted, removed, replaced or swapped with their neighbour (optimal string alignment), compared without case.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut next = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let substituted = row[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            next[j] = substituted.min(row[j] + 1).min(next[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                next[j] = next[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hides_credentials() {
        for (text, expected) in [
            ("ADD https://u:p@h.example/a /b", "ADD https://xxxxx@h.example/a /b"),
            ("http://token@h/ and HTTPS://a:b@c:d@h", "http://xxxxx@h/ and HTTPS://xxxxx@h"),
            ("ssh://git@h/r git@h:r", "ssh://git@h/r git@h:r"),
            ("ssh://git:p@h/r", "ssh://xxxxx@h/r"),
            ("https://h/a@b?c=://d@e", "https://h/a@b?c=://d@e"),
            ("[\"https://u:p@h\", \"x@y\"]", "[\"https://xxxxx@h\", \"x@y\"]"),
            ("no URL", "no URL"),
        ] {
            assert_eq!(hide_credentials(text), expected, "{text}");
        }
    }

    #[test]
    fn quotes_hostile_names() {
        for (name, expected) in
            [(&b"plain"[..], "`plain`"), (b"a\x1b[31mb", "`a\\u{1b}[31mb`"), (b"\xff\xfe", "`\\xff\\xfe`"), (b"a`b", "`a\\`b`")]
        {
            assert_eq!(quote(name), expected);
        }
    }

    #[test]
    fn errors_survive_an_io_interface() {
        let error = from_io(|| "outer".into(), io::Error::from(Error::input("inner").hint("h")));
        assert_eq!((error.what(), error.kind(), error.hints().len()), ("inner", Kind::Input, 1));
    }

    #[test]
    fn nearest_takes_typing_errors_only() {
        assert_eq!(nearest("RUNN", ["FROM", "RUN"]), Some("RUN"));
        assert_eq!(nearest("frm", ["FROM", "RUN"]), Some("FROM"));
        assert_eq!(nearest("bulid", ["build", "run"]), Some("build"));
        assert_eq!(nearest("hello", ["FROM", "RUN"]), None);
    }
}
