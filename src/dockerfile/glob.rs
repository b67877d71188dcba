//! Go's `filepath.Match`: `*`, `?`, `[…]` and `\`, none of `*` and `?` across a `/`. What wildcards in `COPY` and `ADD` mean.
//!
//! Works on bytes, since names need not be UTF-8; a character is a Unicode one where it can be, else a byte.

use super::spelling::quote;
use crate::error::{Error, Result};

/// A valid pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    elements: Vec<Element>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Element {
    /// `*`
    Many,
    /// `?`
    One,
    /// `[a-z]`
    Class { negated: bool, ranges: Vec<(char, char)> },
    /// Anything else.
    Literal(char),
}

impl Glob {
    /// Reads a pattern; an error says what is wrong with it.
    pub fn new(pattern: &str) -> Result<Self> {
        let mut elements = Vec::new();
        let mut chars = pattern.chars().peekable();
        while let Some(c) = chars.next() {
            elements.push(match c {
                '*' => Element::Many,
                '?' => Element::One,
                '[' => class(&mut chars).ok_or_else(|| bad(pattern, "`[` has no matching `]`, or nothing in between"))?,
                '\\' => Element::Literal(chars.next().ok_or_else(|| bad(pattern, "nothing follows `\\`"))?),
                c => Element::Literal(c),
            });
        }
        // Several stars in a row are one.
        elements.dedup_by(|a, b| *a == Element::Many && *b == Element::Many);
        Ok(Self { elements })
    }

    /// Whether a text holds characters that make a pattern of it, if only a `\` that makes a name of one.
    pub fn is_pattern(text: &str) -> bool {
        text.contains(['*', '?', '[', '\\'])
    }

    /// Whether a text is a pattern that several names may match.
    pub fn is_wildcard(text: &str) -> bool {
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '*' | '?' | '[' => return true,
                '\\' => drop(chars.next()),
                _ => {}
            }
        }
        false
    }

    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: impl AsRef<[u8]>) -> bool {
        let text = text.as_ref();
        let (mut element, mut at) = (0, 0);
        // Where to go on if the last star has to take one more character. Only the last one matters: a shorter match of an
        // earlier star leaves more to match, never less. So the time is at most length of pattern times length of text.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            let step = match self.elements.get(element) {
                None if at == text.len() => return true,
                None => None,
                Some(Element::Many) => {
                    retry = Some((element, at));
                    element += 1;
                    continue;
                }
                Some(other) => next_char(&text[at..]).filter(|(c, _)| other.takes(*c)).map(|(_, length)| length),
            };
            match (step, &mut retry) {
                (Some(length), _) => {
                    element += 1;
                    at += length;
                }
                (None, Some((star, from))) => {
                    let Some((c, length)) = next_char(&text[*from..]) else { return false };
                    if c == '/' {
                        return false;
                    }
                    *from += length;
                    (element, at) = (*star + 1, *from);
                }
                (None, None) => return false,
            }
        }
    }
}

impl Element {
    fn takes(&self, c: char) -> bool {
        match self {
            Element::Many => false,
            Element::One => c != '/',
            Element::Class { negated, ranges } => ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated,
            Element::Literal(literal) => *literal == c,
        }
    }
}

fn bad(pattern: &str, cause: &str) -> Error {
    Error::input(format!("bad pattern {}", quote(pattern))).cause(cause)
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Element> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Some(Element::Class { negated, ranges });
        }
        let low = class_char(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { class_char(chars)? } else { low };
        ranges.push((low, high));
    }
}

/// A character in a class; it may not end in the middle.
fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    let c = match chars.next()? {
        '-' | ']' => return None,
        '\\' => chars.next()?,
        c => c,
    };
    chars.peek().is_some().then_some(c)
}

/// The first character and its length; a byte that is part of none counts as U+FFFD, as in Go.
fn next_char(bytes: &[u8]) -> Option<(char, usize)> {
    let chunk = bytes.get(..bytes.len().min(4))?.utf8_chunks().next()?;
    Some(chunk.valid().chars().next().map_or((char::REPLACEMENT_CHARACTER, 1), |c| (c, c.len_utf8())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_go_does() {
        for (pattern, text, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "z", false),
            ("[\\-x]", "a", false),
            ("*x", "xxx", true),
            ("", "", true),
            ("", "a", false),
            ("**", "a", true),
            ("[b-a]", "a", false),
        ] {
            assert_eq!(Glob::new(pattern).expect(pattern).matches(text), expected, "{pattern} {text}");
        }
        assert!(Glob::new("a?b").is_ok_and(|glob| glob.matches(b"a\xffb")));
    }

    #[test]
    fn bad_patterns() {
        for pattern in ["[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[", "[^", "[^bc", "a[", "a\\", "[a\\", "[]"] {
            assert!(Glob::new(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let glob = Glob::new(&"a*".repeat(1000)).expect("valid");
        assert!(!glob.matches("a".repeat(20_000) + "b/"));
    }
}
