//! `--chmod`: octal numbers and the symbolic form of chmod(1).

use crate::error::{Error, Result, quote};

/// How a mode is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chmod {
    /// To this number.
    Octal(u32),
    /// Clause by clause.
    Symbolic(Vec<Clause>),
}

/// `who operator permissions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// Mask of the user, group and other bits it is about, special bits included.
    who: u32,
    operator: u8,
    permissions: String,
}

impl Chmod {
    /// Reads the option's value.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || {
            Error::input(format!("invalid mode {} in `--chmod`", quote(text)))
                .hint("give an octal number such as `0755`, or a form of chmod(1) such as `u=rwX,go=rX`")
        };
        if text.bytes().all(|b| b.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).ok_or_else(bad)?;
            return Ok(Self::Octal(mode));
        }
        let clauses: Option<Vec<Vec<Clause>>> = text.split(',').map(clauses).collect();
        clauses.map(|all| Self::Symbolic(all.concat())).ok_or_else(bad)
    }

    /// The new mode of something that has `mode`.
    pub fn apply(&self, mode: u32, directory: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(clauses) => clauses.iter().fold(mode, |mode, clause| clause.apply(mode, directory)),
        }
    }
}

/// One comma-separated part: `ugo+rw-x` has two clauses for the same `who`.
fn clauses(text: &str) -> Option<Vec<Clause>> {
    let (letters, mut rest) = text.split_at(text.find(['+', '-', '='])?);
    let mut who = 0;
    for letter in letters.bytes() {
        who |= match letter {
            b'u' => 0o4700,
            b'g' => 0o2070,
            b'o' => 0o1007,
            b'a' => 0o7777,
            _ => return None,
        };
    }
    // Without letters all are meant; the umask of a build is not the user's business.
    let who = if letters.is_empty() { 0o7777 } else { who };
    let mut clauses = Vec::new();
    while let Some(&operator) = rest.as_bytes().first() {
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
        let permissions = &rest[1..end];
        if !permissions.bytes().all(|b| b"rwxXstugo".contains(&b)) {
            return None;
        }
        clauses.push(Clause { who, operator, permissions: permissions.to_owned() });
        rest = &rest[end..];
    }
    Some(clauses)
}

impl Clause {
    fn apply(&self, mode: u32, directory: bool) -> u32 {
        let copied = |class: u32| (mode >> class & 7) * 0o111;
        let mut bits = 0;
        for letter in self.permissions.bytes() {
            bits |= match letter {
                b'r' => 0o444,
                b'w' => 0o222,
                b'x' => 0o111,
                b'X' if directory || mode & 0o111 != 0 => 0o111,
                b's' => 0o6000,
                b't' => 0o1000,
                b'u' => copied(6),
                b'g' => copied(3),
                b'o' => copied(0),
                _ => 0,
            };
        }
        let bits = bits & self.who;
        match self.operator {
            b'+' => mode | bits,
            b'-' => mode & !bits,
            // GNU chmod keeps a directory's set-user-ID and set-group-ID bits unless they are named.
            _ if directory => mode & !(self.who & 0o1777) | bits,
            _ => mode & !self.who | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for (text, mode, directory, expected) in [
            ("755", 0o600, false, 0o755),
            ("04755", 0o600, false, 0o4755),
            ("u+x", 0o644, false, 0o744),
            ("go-rwx", 0o755, false, 0o700),
            ("u=rwX,go=rX", 0o640, false, 0o644),
            ("u=rwX,go=rX", 0o700, true, 0o755),
            ("a+rw-x", 0o711, false, 0o666),
            ("g=u", 0o750, false, 0o770),
            ("u+s,g+s,+t", 0o755, false, 0o7755),
            ("=r", 0o777, false, 0o444),
        ] {
            assert_eq!(Chmod::parse(text).unwrap().apply(mode, directory), expected, "{text} of {mode:o}");
        }
        for text in ["", "9", "77777", "u", "u+y", "z+x", "u+x,"] {
            assert!(Chmod::parse(text).is_err(), "{text}");
        }
    }
}
