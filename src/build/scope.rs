//! The variables a stage's instructions see.

use std::collections::{BTreeMap, BTreeSet};

use crate::oci::Platform;

/// ARG and ENV; a variable that ENV set is not changed by ARG (Dockerfile reference, "Using ARG variables").
#[derive(Clone, Debug, Default)]
pub struct Scope {
    variables: BTreeMap<String, String>,
    /// Names that ARG declared, in order; they show in the history of RUN.
    arguments: Vec<String>,
    /// Bytes of all names and values, and two for each.
    size: usize,
    /// Names whose present value comes from ARG: they reach RUN but not the image.
    temporary: BTreeSet<String>,
}

impl Scope {
    /// The scope of a stage on an image with these `NAME=value` entries.
    pub fn of_image(env: &[String]) -> Self {
        let mut scope = Self::default();
        for entry in env {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            scope.set_env(name, value);
        }
        scope
    }

    /// ENV.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.insert(name, value);
        self.temporary.remove(name);
    }

    /// ARG with a value, or without.
    pub fn set_arg(&mut self, name: &str, value: Option<&str>) {
        if !self.arguments.iter().any(|n| n == name) {
            self.arguments.push(name.into());
        }
        let set_by_env = self.variables.contains_key(name) && !self.temporary.contains(name);
        if let Some(value) = value
            && !set_by_env
        {
            self.insert(name, value);
            self.temporary.insert(name.into());
        }
    }

    /// How long all names and values are together, in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    fn insert(&mut self, name: &str, value: &str) {
        let old = self.variables.insert(name.into(), value.into());
        self.size = self.size + value.len() - old.as_ref().map_or(0, String::len) + if old.is_none() { name.len() + 2 } else { 0 };
    }

    /// A variable's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// All that a RUN sees, sorted by name.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The declared arguments with their present values, as the history of RUN shows them.
    pub fn arguments(&self) -> impl Iterator<Item = (&str, &str)> {
        self.arguments.iter().map(|name| (name.as_str(), self.get(name).unwrap_or_default()))
    }
}

/// Arguments that need no declaration and don't enter the cache key (Dockerfile reference, "Predefined ARGs").
pub const PREDEFINED: [&str; 10] =
    ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "FTP_PROXY", "ftp_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"];

/// The platform arguments of the global scope (Dockerfile reference, "Automatic platform ARGs in the global scope").
pub fn platform_arguments(build: &Platform, target: &Platform, stage: Option<&str>) -> BTreeMap<String, String> {
    let mut arguments = BTreeMap::from([("TARGETSTAGE".to_owned(), stage.unwrap_or("default").to_owned())]);
    for (prefix, platform) in [("BUILD", build), ("TARGET", target)] {
        arguments.insert(format!("{prefix}PLATFORM"), platform.to_string());
        arguments.insert(format!("{prefix}OS"), platform.os.clone());
        arguments.insert(format!("{prefix}ARCH"), platform.architecture.clone());
        arguments.insert(format!("{prefix}VARIANT"), platform.variant.clone().unwrap_or_default());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn env_beats_arg() {
        let mut scope = Scope::of_image(&["A=image".into()]);
        scope.set_arg("A", Some("arg"));
        assert_eq!(scope.get("A"), Some("image"));
        scope.set_env("A", "env");
        scope.set_arg("B", None);
        scope.set_arg("C", Some("1"));
        scope.set_arg("C", Some("2"));
        assert_eq!(scope.arguments().collect::<Vec<_>>(), [("A", "env"), ("B", ""), ("C", "2")]);
    }
}
