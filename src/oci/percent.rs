//! Percent-encoding (RFC 3986, 2.1).

/// `%41` is `A`; what is no escape stays as it is.
pub fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'%').then(|| after.get(..2)).flatten();
        let value = escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        out.push(value.unwrap_or(first));
        rest = if value.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Everything but letters, digits and `-._~:` as escapes: what the parts of a package URL need (purl-spec, "Character encoding").
pub fn percent_encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes() {
        for (text, expected) in [("a%40b%2fc", "a@b/c"), ("%zz%4", "%zz%4"), ("%c3%a9", "é"), ("", "")] {
            assert_eq!(percent_decoded(text), expected, "{text}");
        }
    }

    #[test]
    fn encodes() {
        for (text, expected) in [("1:2+b1", "1:2%2Bb1"), ("@a/b", "%40a%2Fb"), ("é", "%C3%A9"), ("-._~", "-._~")] {
            assert_eq!(percent_encoded(text), expected, "{text}");
            assert_eq!(percent_decoded(expected), text);
        }
    }
}
