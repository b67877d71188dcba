//! Text in a picture: made harmless, measured, cut.

/// The text with everything escaped that means something to XML, and without characters that XML forbids or that reorder what follows.
///
/// An instruction may hold anything; in the picture it is only ever text.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Pixels of a character in the picture's monospaced type; generous, since the type differs from machine to machine.
const CHARACTER: f64 = 6.8;

/// Pixels of a text. East Asian characters and most symbols are twice as wide.
pub fn width(text: &str) -> f64 {
    text.chars().map(|c| if c >= '\u{1100}' { 2.0 * CHARACTER } else { CHARACTER }).sum()
}

/// The text in one line, cut with an ellipsis where it is wider than so many pixels; empty if nothing useful fits.
pub fn fit(text: &str, pixels: f64) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if width(&line) <= pixels {
        return line;
    }
    let mut cut = String::new();
    let mut used = CHARACTER;
    for c in line.chars() {
        used += width(c.encode_utf8(&mut [0; 4]));
        if used > pixels {
            break;
        }
        cut.push(c);
    }
    // Two letters and dots tell nothing.
    if cut.chars().count() < 3 { String::new() } else { format!("{}…", cut.trim_end()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_whatever_an_instruction_holds() {
        for (input, expected) in [
            ("a && b <\"'>", "a &amp;&amp; b &lt;&quot;&#39;&gt;"),
            ("]]></text><script>x()</script>", "]]&gt;&lt;/text&gt;&lt;script&gt;x()&lt;/script&gt;"),
            ("a\u{0}b\u{1b}[31m\u{202e}c", "a\u{fffd}b\u{fffd}[31m\u{fffd}c"),
        ] {
            assert_eq!(escape(input), expected);
        }
    }

    #[test]
    fn cuts_to_what_fits() {
        assert_eq!(fit("RUN  a \\\n  b", 200.0), "RUN a \\ b");
        assert_eq!(fit("RUN make install", 8.0 * CHARACTER), "RUN mak…");
        assert_eq!(fit("RUN make install", 2.0 * CHARACTER), "");
        assert_eq!(fit("建建建建建建", 9.5 * CHARACTER), "建建建建…");
    }
}
