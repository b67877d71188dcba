//! Shell patterns in `${x#p}`, `${x%p}` and `${x/p/r}`: `*`, `?` and escapes with `\`; no brackets, as in BuildKit.

use regex::Regex;

use super::spelling::quote;

/// Which match of `*` counts at the ends of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Shortest,
    Longest,
}

/// One element of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    Any,
    One,
    Literal(char),
}

/// The value without the part at its start that matches.
pub(super) fn trim_prefix(value: &str, pattern: &str, length: Length) -> Result<String, String> {
    let regex = compile(&elements(pattern)?, length, "^", pattern)?;
    Ok(regex.find(value).map_or(value, |found| &value[found.end()..]).to_string())
}

/// The value without the part at its end that matches. Both are turned round, since a search goes forward.
pub(super) fn trim_suffix(value: &str, pattern: &str, length: Length) -> Result<String, String> {
    let mut reversed = elements(pattern)?;
    reversed.reverse();
    let regex = compile(&reversed, length, "^", pattern)?;
    let turned: String = value.chars().rev().collect();
    Ok(regex.find(&turned).map_or(value, |found| &value[..value.len() - found.end()]).to_string())
}

/// The value with up to `count` longest matches replaced.
pub(super) fn replace(value: &str, pattern: &str, replacement: &str, count: usize) -> Result<String, String> {
    let regex = compile(&elements(pattern)?, Length::Longest, "", pattern)?;
    let limit = if count == usize::MAX { 0 } else { count };
    Ok(regex.replacen(value, limit, regex::NoExpand(replacement)).into_owned())
}

fn elements(pattern: &str) -> Result<Vec<Element>, String> {
    let mut elements = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        elements.push(match c {
            '*' => Element::Any,
            '?' => Element::One,
            '\\' => match chars.next() {
                Some(escaped @ ('*' | '?' | '\\' | '}' | '/')) => Element::Literal(escaped),
                Some(other) => return Err(format!("invalid escape {} in pattern {}", quote(format!("\\{other}")), quote(pattern))),
                None => return Err(format!("pattern {} ends in an escape", quote(pattern))),
            },
            c => Element::Literal(c),
        });
    }
    Ok(elements)
}

fn compile(elements: &[Element], length: Length, anchor: &str, pattern: &str) -> Result<Regex, String> {
    let mut text = anchor.to_string();
    for element in elements {
        match element {
            Element::Any => text.push_str(if length == Length::Longest { ".*" } else { ".*?" }),
            Element::One => text.push('.'),
            Element::Literal(c) => text.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    Regex::new(&text).map_err(|_| format!("pattern {} is too large", quote(pattern)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trims() {
        use Length::{Longest, Shortest};
        for (value, pattern, length, prefix, suffix) in [
            ("a/b/c", "*/", Shortest, "b/c", "a/b/c"),
            ("a/b/c", "*/", Longest, "c", "a/b/c"),
            ("a/b/c", "/*", Shortest, "a/b/c", "a/b"),
            ("a/b/c", "/*", Longest, "a/b/c", "a"),
            ("aaa", "*", Shortest, "aaa", "aaa"),
            ("aaa", "*", Longest, "", ""),
            ("äöü", "?", Shortest, "öü", "äö"),
            ("*x*", "\\*", Shortest, "x*", "*x"),
            ("a.b", ".", Shortest, "a.b", "a.b"),
            ("", "*", Longest, "", ""),
        ] {
            assert_eq!(trim_prefix(value, pattern, length).as_deref(), Ok(prefix), "{value} # {pattern} {length:?}");
            assert_eq!(trim_suffix(value, pattern, length).as_deref(), Ok(suffix), "{value} % {pattern} {length:?}");
        }
        assert!(trim_prefix("x", "\\a", Shortest).is_err());
        assert!(trim_prefix("x", "a\\", Shortest).is_err());
    }

    #[test]
    fn replaces() {
        for (value, pattern, replacement, count, expected) in [
            ("a-b-c", "-", "_", 1, "a_b-c"),
            ("a-b-c", "-", "_", usize::MAX, "a_b_c"),
            ("abcb", "b*", "$0", 1, "a$0"),
            ("a/b", "\\/", "|", 1, "a|b"),
            ("x", "y", "z", 1, "x"),
            ("a.c abc", "a.c", "z", usize::MAX, "z abc"),
        ] {
            assert_eq!(replace(value, pattern, replacement, count).as_deref(), Ok(expected));
        }
    }
}
