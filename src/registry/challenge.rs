//! The `WWW-Authenticate` header (RFC 9110, 11.6.1).

use std::collections::BTreeMap;

/// One way a server wants to be convinced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    /// Lower case: `basic`, `bearer`.
    pub(super) scheme: String,
    /// Parameters, names in lower case.
    pub(super) parameters: BTreeMap<String, String>,
}

/// Reads one header's challenges; stops at what it can't read.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        let word = token(rest);
        if word.is_empty() {
            return challenges;
        }
        rest = rest[word.len()..].trim_start_matches([' ', '\t']);
        // A word followed by `=` is a parameter of the challenge before, any other starts a challenge.
        match (rest.strip_prefix('='), challenges.last_mut()) {
            (Some(after), Some(challenge)) => {
                let Some((value, after)) = value(after.trim_start_matches([' ', '\t'])) else { return challenges };
                challenge.parameters.insert(word.to_lowercase(), value);
                rest = after;
            }
            (Some(_), None) => return challenges,
            (None, _) => challenges.push(Challenge { scheme: word.to_lowercase(), parameters: BTreeMap::new() }),
        }
    }
}

fn token(text: &str) -> &str {
    let end = text.find(|c: char| c.is_whitespace() || matches!(c, ',' | '=' | '"')).unwrap_or(text.len());
    &text[..end]
}

/// A token or a quoted string, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let word = token(text);
        return Some((word.to_owned(), &text[word.len()..]));
    };
    let mut out = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &quoted[at + 1..])),
            '\\' => out.push(chars.next()?.1),
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, expected: &[(&str, &[(&str, &str)])]) {
        let expected: Vec<Challenge> = expected
            .iter()
            .map(|(scheme, parameters)| Challenge {
                scheme: (*scheme).into(),
                parameters: parameters.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            })
            .collect();
        assert_eq!(parse(header), expected, "{header}");
    }

    #[test]
    fn parses() {
        check(
            r#"Bearer realm="https://auth.example/token",service="registry",scope="repository:a/b:pull,push""#,
            &[("bearer", &[("realm", "https://auth.example/token"), ("service", "registry"), ("scope", "repository:a/b:pull,push")])],
        );
        check(r#"Basic realm="a \"b\" c""#, &[("basic", &[("realm", r#"a "b" c"#)])]);
        check(
            r#"Negotiate, Basic realm=x , Bearer Realm = "y""#,
            &[("negotiate", &[]), ("basic", &[("realm", "x")]), ("bearer", &[("realm", "y")])],
        );
        check("", &[]);
        check(r#"=x"#, &[]);
        check(r#"Basic realm="open"#, &[("basic", &[])]);
    }
}
