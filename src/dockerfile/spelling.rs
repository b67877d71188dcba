//! What users wrote, as messages show it: quoted and cut, for a word of a hostile file can be a megabyte long.

use crate::error;

/// Characters shown of a word.
const SHOWN: usize = 40;

/// Letters of the longest word that may be a misspelt name. The comparison takes length times length.
const NAME: usize = 32;

/// A word in backticks, cut if it is long.
pub(super) fn quote(word: impl AsRef<str>) -> String {
    let word = word.as_ref();
    match word.char_indices().nth(SHOWN) {
        Some((end, _)) => error::quote(format!("{}…", &word[..end])),
        None => error::quote(word),
    }
}

/// The name that was probably meant.
pub(super) fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if written.len() > NAME {
        return None;
    }
    error::nearest(written, candidates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swapped_letters_are_seen() {
        for (written, expected) in [("chwon", Some("chown")), ("RNU", Some("RUN")), ("frm", Some("from")), ("nur", None), ("é", None)] {
            assert_eq!(nearest(written, ["chown", "RUN", "from"]), expected, "{written}");
        }
        assert_eq!(nearest(&"x".repeat(1 << 20), ["x"]), None);
    }

    #[test]
    fn long_words_are_cut() {
        assert_eq!(quote("ä".repeat(50)), format!("`{}…`", "ä".repeat(40)));
    }
}
