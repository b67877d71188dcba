//! PEM (RFC 7468): base64 between two lines.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A block of a text.
pub(super) struct Block {
    /// What stands in its first line.
    pub(super) label: String,
    /// What it holds; `None` if that is no base64, or is encrypted in OpenSSL's old way, which puts headers before it.
    pub(super) bytes: Option<Vec<u8>>,
}

/// The blocks of a text, in order; what stands around them is no matter.
pub(super) fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let Some((label, body)) = after.split_once("-----") else { break };
        let Some((body, behind)) = body.split_once(&format!("-----END {label}-----")) else { break };
        let bare: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        found.push(Block { label: label.to_owned(), bytes: STANDARD.decode(bare).ok() });
        rest = behind;
    }
    found
}

/// A text with one block, in lines of 64 characters.
pub(super) fn write(label: &str, bytes: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in STANDARD.encode(bytes).as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let text = format!("a comment\n{}{}", write("A B", &[7; 100]), write("C", b""));
        let found: Vec<_> = blocks(&text).into_iter().map(|block| (block.label, block.bytes)).collect();
        assert_eq!(found, [("A B".to_owned(), Some(vec![7; 100])), ("C".to_owned(), Some(Vec::new()))]);
    }

    #[test]
    fn reads_nothing_from_nonsense() {
        for text in ["", "-----BEGIN A", "-----BEGIN A-----", "-----BEGIN A-----\nAAAA\n-----END B-----"] {
            assert!(blocks(text).is_empty(), "{text}");
        }
        assert!(blocks("-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\n-----END A-----")[0].bytes.is_none());
    }
}
