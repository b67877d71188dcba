//! The inside of one logical line: name, flags, words and the JSON form, cut exactly as BuildKit cuts them.
//!
//! Everything works on the joined line, whose bytes [`Joined`] can trace back to the file. Nothing is expanded and no quote is
//! removed, except in flags, where BuildKit does.

use std::borrow::Cow;
use std::ops::Range;

/// A logical line: the pieces between continuations put together.
#[derive(Clone, Debug)]
pub(super) struct Joined<'a> {
    pub text: Cow<'a, str>,
    /// Where the first piece stands in the file.
    at: usize,
    /// (offset in `text`, offset in the file) of each piece after the first, ascending.
    more: Vec<(usize, usize)>,
}

impl<'a> Joined<'a> {
    /// A line without continuations.
    pub fn whole(text: &'a str, at: usize) -> Self {
        Self { text: Cow::Borrowed(text), at, more: Vec::new() }
    }

    /// A line of pieces.
    pub fn of(pieces: &[(usize, &'a str)]) -> Self {
        let Some(((at, first), more)) = pieces.split_first() else { return Self::whole("", 0) };
        let mut joined = Self::whole(first, *at);
        for (at, piece) in more {
            joined.more.push((joined.text.len(), *at));
            joined.text.to_mut().push_str(piece);
        }
        joined
    }

    /// The range in the file of a range in the line; what a continuation cuts off is not in it.
    pub fn locate(&self, range: &Range<usize>) -> Range<usize> {
        let next = self.more.partition_point(|(offset, _)| *offset <= range.start);
        let (offset, at) = next.checked_sub(1).map_or((0, self.at), |piece| self.more[piece]);
        let limit = self.more.get(next).map_or(self.text.len(), |(next, _)| *next);
        at + (range.start - offset)..at + (range.end.clamp(range.start, limit.max(range.start)) - offset)
    }
}

/// A word and where it stands in the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub text: String,
    pub range: Range<usize>,
}

/// White space between an instruction's name and its arguments, and between plain words. Not Unicode's, as in BuildKit.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\u{b}' | '\u{c}')
}

/// The part of `text` in `range` that is left without white space at either end.
pub(super) fn trim(text: &str, range: Range<usize>) -> Range<usize> {
    let part = &text[range.clone()];
    let start = range.start + (part.len() - part.trim_start().len());
    start..start + part.trim().len()
}

/// Cuts off the first word: an instruction's name and the range of what follows it.
pub(super) fn split_keyword(text: &str, range: Range<usize>) -> (Range<usize>, Range<usize>) {
    let range = trim(text, range);
    let part = &text[range.clone()];
    let length = part.find(is_blank).unwrap_or(part.len());
    (range.start..range.start + length, trim(text, range.start + length..range.end))
}

/// Takes the words that start with `--` off the front, quotes and escapes removed, and returns them with the range of the rest.
/// A word `--` ends them. The escape character is `\` here, whatever the directive says.
pub(super) fn split_flags(text: &str, range: Range<usize>) -> (Vec<Word>, Range<usize>) {
    let mut flags = Vec::new();
    let mut at = trim(text, range.clone()).start;
    while text[at..range.end].starts_with("--") {
        let word = flag_word(text, at..range.end);
        at = word.range.end;
        if word.text == "--" {
            break;
        }
        flags.push(word);
        at = trim(text, at..range.end).start;
    }
    (flags, trim(text, at..range.end))
}

fn flag_word(text: &str, range: Range<usize>) -> Word {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text[range.clone()].char_indices();
    while let Some((i, c)) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => return Word { text: word, range: range.start..range.start + i },
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (_, '\\') => word.extend(chars.next().map(|(_, escaped)| escaped)),
            (_, c) => word.push(c),
        }
    }
    Word { text: word, range }
}

/// Words between white space, quotes meaning nothing.
pub(super) fn fields(text: &str, range: Range<usize>) -> Vec<Word> {
    let mut words = Vec::new();
    let mut at = range.start;
    for field in text[range].split(is_blank) {
        if !field.is_empty() {
            words.push(Word { text: field.to_string(), range: at..at + field.len() });
        }
        at += field.len() + 1;
    }
    words
}

/// Words between white space that is neither quoted nor escaped; quotes and escapes stay.
pub(super) fn shell_words(text: &str, range: Range<usize>, escape: char) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut start = range.start;
    let mut quote = None;
    let mut quoted = false;
    let mut chars = text[range.clone()].char_indices().peekable();
    while let Some((i, c)) = chars.next() {
        let here = range.start + i;
        if quote.is_none() && c.is_whitespace() {
            if quoted || !word.is_empty() {
                words.push(Word { text: std::mem::take(&mut word), range: start..here });
                quoted = false;
            }
            start = here + c.len_utf8();
            continue;
        }
        if c == escape && quote != Some('\'') {
            // At the very end there is nothing to escape: it is dropped.
            if let Some((_, escaped)) = chars.next() {
                word.push(c);
                word.push(escaped);
            }
            continue;
        }
        match quote {
            None if matches!(c, '\'' | '"') => {
                quote = Some(c);
                quoted = true;
            }
            Some(open) if c == open => quote = None,
            _ => {}
        }
        word.push(c);
    }
    if quoted || !word.is_empty() {
        words.push(Word { text: word, range: start..range.end });
    }
    words
}

/// What a text that may be a JSON array is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Json {
    /// An array of strings.
    Strings(Vec<String>),
    /// An array, but not of strings: an error.
    Others,
    /// No array: it is read as shell form.
    No,
}

/// Reads the JSON form.
pub(super) fn json(text: &str) -> Json {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return Json::No;
    }
    // BuildKit does not look at what follows the array. Most hold strings only, and these need no tree of values.
    match first(text) {
        Some(strings) => Json::Strings(strings),
        None => first::<Vec<serde_json::Value>>(text).map_or(Json::No, |_| Json::Others),
    }
}

fn first<'a, T: serde::Deserialize<'a>>(text: &'a str) -> Option<T> {
    serde_json::Deserializer::from_str(text).into_iter().next()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(words: &[Word]) -> Vec<&str> {
        words.iter().map(|word| word.text.as_str()).collect()
    }

    #[test]
    fn joined_lines_are_traced_back() {
        let joined = Joined::of(&[(4, "RUN a"), (20, "bc d"), (40, "e")]);
        assert_eq!(joined.text, "RUN abc de");
        for (range, expected) in [(0..3, 4..7), (4..7, 8..9), (5..7, 20..22), (8..10, 23..24), (9..10, 40..41), (10..10, 41..41)] {
            assert_eq!(joined.locate(&range), expected, "{range:?}");
        }
    }

    #[test]
    fn keyword_is_cut_off() {
        for (text, keyword, rest) in [
            ("RUN  a b ", "RUN", "a b"),
            ("  run\ta", "run", "a"),
            ("RUN", "RUN", ""),
            ("RUN\u{a0}x y", "RUN\u{a0}x", "y"),
            ("RUN[\"a\"]", "RUN[\"a\"]", ""),
        ] {
            let (k, r) = split_keyword(text, 0..text.len());
            assert_eq!((&text[k], &text[r]), (keyword, rest), "{text:?}");
        }
    }

    #[test]
    fn flags_are_taken_off() {
        for (text, expected, rest) in [
            ("a --b", &[][..], "a --b"),
            ("--a --b=c d", &["--a", "--b=c"], "d"),
            ("--a='x y'\"z w\"  -- --b", &["--a=x yz w"], "--b"),
            ("--a\\ b c", &["--a b"], "c"),
            ("--", &[], ""),
            ("--a=\"x", &["--a=x"], ""),
            ("--a\\", &["--a"], ""),
            ("-a", &[], "-a"),
            ("--ä='ü' ö", &["--ä=ü"], "ö"),
        ] {
            let (flags, range) = split_flags(text, 0..text.len());
            assert_eq!((texts(&flags), &text[range]), (expected.to_vec(), rest), "{text:?}");
        }
    }

    #[test]
    fn shell_words_keep_their_quotes() {
        for (text, expected) in [
            ("a  b", &["a", "b"][..]),
            ("a=\"b c\" d='e f'", &["a=\"b c\"", "d='e f'"]),
            ("a\\ b c", &["a\\ b", "c"]),
            ("'' \"\" x", &["''", "\"\"", "x"]),
            ("'a\\' b", &["'a\\'", "b"]),
            ("\"a\\\" b\" c", &["\"a\\\" b\"", "c"]),
            ("a\\", &["a"]),
            ("'open end", &["'open end"]),
            ("\u{3000}a\u{a0}b", &["a", "b"]),
            ("", &[]),
        ] {
            assert_eq!(texts(&shell_words(text, 0..text.len(), '\\')), expected, "{text:?}");
        }
        assert_eq!(texts(&shell_words("a\\ `  b", 0..7, '`')), ["a\\", "` ", "b"]);
    }

    #[test]
    fn json_or_shell_form() {
        let strings = |list: &[&str]| Json::Strings(list.iter().map(|s| s.to_string()).collect());
        for (text, expected) in [
            ("[\"a\", \"b\"]", strings(&["a", "b"])),
            ("  [ ] ", strings(&[])),
            ("[\"\\u00e4\"]", strings(&["ä"])),
            ("[1]", Json::Others),
            ("[\"a\", null]", Json::Others),
            ("['a']", Json::No),
            ("[\"a\"] x", strings(&["a"])),
            ("[\"a\"]]", strings(&["a"])),
            ("[1] x", Json::Others),
            ("[ -f x ]", Json::No),
            ("\"a\"", Json::No),
            ("[\"a\",]", Json::No),
        ] {
            assert_eq!(json(text), expected, "{text:?}");
        }
        assert_eq!(json(&"[".repeat(1 << 20)), Json::No);
    }
}
