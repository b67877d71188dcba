//! Options whose value is a list `key=value,key=value`, as buildx has them: comma-separated values (RFC 4180).

use std::collections::BTreeMap;

use crate::error::{Error, Result, nearest, quote};

/// The attributes of one option that nobody has taken yet.
#[derive(Debug)]
pub struct Attributes {
    option: &'static str,
    text: String,
    left: BTreeMap<String, String>,
    /// Keys that were asked for: candidates for what was meant.
    asked: Vec<&'static str>,
}

impl Attributes {
    /// Reads an option's value.
    pub fn parse(option: &'static str, text: &str) -> Result<Self> {
        let mut attributes = Self { option, text: text.to_owned(), left: BTreeMap::new(), asked: Vec::new() };
        for field in fields(text) {
            let Some((key, value)) = field.split_once('=') else {
                return Err(attributes.bad(&format!("{} is not `key=value`", quote(&field))));
            };
            if attributes.left.insert(key.trim().to_lowercase(), value.to_owned()).is_some() {
                return Err(attributes.bad(&format!("{} is there twice", quote(key))));
            }
        }
        Ok(attributes)
    }

    /// Takes an attribute's value.
    pub fn take(&mut self, key: &'static str) -> Option<String> {
        self.asked.push(key);
        self.left.remove(key)
    }

    /// Takes a truth value, spelled as Go reads one.
    pub fn maybe_flag(&mut self, key: &'static str) -> Result<Option<bool>> {
        match self.take(key).as_deref() {
            None => Ok(None),
            Some("true" | "True" | "TRUE" | "t" | "T" | "1") => Ok(Some(true)),
            Some("false" | "False" | "FALSE" | "f" | "F" | "0") => Ok(Some(false)),
            Some(other) => Err(self.bad(&format!("{} is neither true nor false", quote(format!("{key}={other}"))))),
        }
    }

    /// The same with what it is if absent.
    pub fn flag(&mut self, key: &'static str, default: bool) -> Result<bool> {
        Ok(self.maybe_flag(key)?.unwrap_or(default))
    }

    /// Takes all attributes whose keys begin so, without that beginning.
    pub fn take_prefixed(&mut self, prefix: &str) -> BTreeMap<String, String> {
        let keys: Vec<String> = self.left.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
        keys.into_iter().filter_map(|key| Some((key[prefix.len()..].to_owned(), self.left.remove(&key)?))).collect()
    }

    /// An error about this option.
    pub fn bad(&self, why: &str) -> Error {
        Error::input(format!("invalid `{} {}`", self.option, self.text.replace('`', "\\`"))).cause(why)
    }

    /// Ends: what nobody took nobody knows.
    pub fn finish(self) -> Result<()> {
        let Some(key) = self.left.keys().next() else { return Ok(()) };
        let error = self.bad(&format!("unknown attribute {}", quote(key)));
        Err(match nearest(key, self.asked.iter().copied()) {
            Some(near) => error.hint(format!("did you mean {}?", quote(near))),
            None => error,
        })
    }
}

/// The fields of a line; quotes keep commas, two quotes are one.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut().expect("there is always one");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits() {
        for (line, expected) in [
            ("a=1,b=2", &["a=1", "b=2"][..]),
            ("\"a=1,2\",b=", &["a=1,2", "b="]),
            ("\"a=\"\"x\"\"\"", &["a=\"x\""]),
            ("a=\"x\"", &["a=\"x\""]),
        ] {
            assert_eq!(fields(line), expected, "{line}");
        }
    }
}
