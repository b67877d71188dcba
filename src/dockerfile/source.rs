//! The text of one Dockerfile and places in it, for errors that show the line.

use std::ops::Range;

use crate::error::{Error, Place, Snippet, hide_credentials};

/// A Dockerfile's text, valid UTF-8 without byte order mark, under the name the user gave it.
#[derive(Clone, Debug)]
pub struct Source {
    name: String,
    text: String,
    /// Byte offset of the start of each line.
    lines: Vec<usize>,
}

/// A part of a [`Source`]: a byte range and the one-based lines it touches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// Line of the first byte, counted from one.
    pub first_line: usize,
    /// Line of the last byte, counted from one.
    pub last_line: usize,
}

/// Characters of a line shown right of the carets; a line can be a megabyte long.
const SHOWN_AFTER: usize = 120;

impl Source {
    /// Takes a text and indexes its lines.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let lines = std::iter::once(0).chain(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(i, _)| i + 1)).collect();
        Self { name: name.into(), text, lines }
    }

    /// The name the user gave.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text of a span.
    pub fn slice(&self, span: Span) -> &str {
        self.text.get(span.start..span.end).unwrap_or_default()
    }

    /// The bytes of a line counted from one, white space around it left out; empty beyond the last.
    pub fn line_range(&self, number: usize) -> Range<usize> {
        let end = self.lines.get(number).map_or(self.text.len(), |next| next - 1);
        let start = number.checked_sub(1).and_then(|index| self.lines.get(index)).copied().unwrap_or(end);
        let text = &self.text[start..end];
        let start = start + (text.len() - text.trim_start().len());
        start..start + text.trim().len()
    }

    /// The text of a line counted from one, without white space around it.
    pub fn line(&self, number: usize) -> &str {
        &self.text[self.line_range(number)]
    }

    /// The number of lines, what follows the last line end not counted if it is nothing.
    pub fn lines(&self) -> usize {
        self.lines.len() - usize::from(self.lines.last() == Some(&self.text.len()))
    }

    /// A span from byte offsets.
    pub fn span(&self, range: Range<usize>) -> Span {
        let last = range.end.saturating_sub(1).max(range.start);
        Span { start: range.start, end: range.end, first_line: self.line_of(range.start), last_line: self.line_of(last) }
    }

    /// A place for an error: the line of `range`'s start with carets below it, and `note` after them.
    pub fn place(&self, range: Range<usize>, note: impl Into<String>) -> Place {
        let line = self.line_of(range.start);
        let start = self.lines[line - 1];
        let end = self.lines.get(line).map_or(self.text.len(), |next| next - 1);
        let text = self.text[start..end].trim_end_matches('\r');
        let at = self.floor(range.start).min(start + text.len());
        let until = self.floor(range.end).clamp(at, start + text.len());
        // Errors are shown to others, URLs with passwords are not.
        let [before, marked] = [&self.text[start..at], &self.text[at..until]].map(|part| hide_credentials(part).chars().count());
        let text: String = hide_credentials(text).chars().take(before + marked + SHOWN_AFTER).collect();
        Place::Text(Box::new(Snippet { file: self.name.clone(), line, column: before + 1, text, width: marked.max(1), note: note.into() }))
    }

    /// An error about something written at `range`.
    pub fn error(&self, range: Range<usize>, what: impl Into<String>, note: impl Into<String>) -> Error {
        Error::input(what).at(self.place(range, note))
    }

    fn line_of(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset)
    }

    fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters() {
        let source = Source::new("D", "a\r\nbäc d\r\n\nlast");
        for (range, expected) in [
            (0..1, (1, 1, 1, "a")),
            (4..7, (2, 2, 2, "bäc d")),
            (8..9, (2, 5, 1, "bäc d")),
            (3..99, (2, 1, 5, "bäc d")),
            (11..11, (3, 1, 1, "")),
            (12..16, (4, 1, 4, "last")),
            (16..16, (4, 5, 1, "last")),
        ] {
            let Place::Text(snippet) = source.place(range.clone(), "") else { panic!("not a text place") };
            assert_eq!((snippet.line, snippet.column, snippet.width, snippet.text.as_str()), expected, "{range:?}");
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        let source = Source::new("D", "ADD https://u:p@h/a /b\n");
        for (range, expected) in [(0..22, (1, 24)), (4..19, (5, 17)), (20..22, (23, 2))] {
            let Place::Text(snippet) = source.place(range.clone(), "") else { panic!("not a text place") };
            assert_eq!(snippet.text, "ADD https://xxxxx@h/a /b", "{range:?}");
            assert_eq!((snippet.column, snippet.width), expected, "{range:?}");
        }
    }

    #[test]
    fn a_long_line_is_cut_after_the_carets() {
        let source = Source::new("D", "x".repeat(1 << 20));
        let Place::Text(snippet) = source.place(0..3, "") else { panic!("not a text place") };
        assert_eq!(snippet.text.len(), 3 + SHOWN_AFTER);
    }
}
