//! Fakeroot mode: a program in the image that pretends to be root, described by one data file a distribution.
//!
//! Deliberately not here: the name of any distribution or package manager, which are in `fakeroot-configs/`, and anything that looks into
//! an image. [`config`] reads the files, [`programs`] finds what a command starts, [`ownership`] makes what was pretended last.

mod config;
mod ownership;
mod programs;

pub use config::{Condition, Config, Install, LARGEST_FILE, Origin, Words, Wrap, config_name};
pub use ownership::{After, Before, Pretence};
pub(super) use ownership::{keep, recall};

use crate::error::Result;

/// The files that come with this program: names and texts, sorted.
const BUILT_IN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/fakeroot_configs.rs"));

/// The configs that come with this program.
pub fn built_in() -> Result<Vec<Config>> {
    BUILT_IN.iter().map(|(name, text)| Config::parse(name, Origin::BuiltIn, text)).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::oci::ImagePath;

    /// Real files: `NAME.EXPECTED` is the os-release of NAME, for which the config EXPECTED is meant.
    #[test]
    fn real_releases_have_one_config_each() {
        let configs = built_in().unwrap();
        let mut met = 0;
        for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/os-release")).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read(&path).unwrap();
            let read = |file: &ImagePath| Ok((file.to_string() == "/etc/os-release").then(|| text.clone()));
            let matching: Vec<&str> = configs.iter().filter(|config| config.matches(&read).unwrap()).map(|config| config.name()).collect();
            let expected = path.extension().unwrap().to_str().unwrap();
            let expected = if expected == "none" { vec![] } else { vec![expected] };
            assert_eq!(matching, expected, "{}", path.display());
            met += 1;
        }
        assert!(met > 20);
    }

    #[test]
    fn built_in_configs_keep_ownership_and_wrap_what_they_should() {
        for config in built_in().unwrap() {
            let argv = |text: &str| ["/bin/sh", "-c", text].map(str::to_owned).to_vec();
            let wrapped = config.wrap(&argv("chown 1:1 /f"), None, "/state").expect("chown is wrapped");
            assert_eq!(wrapped.iter().filter(|word| *word == "/state").count(), 2, "{}: loaded and saved", config.name());
            assert_eq!(wrapped[wrapped.len() - 3..], argv("chown 1:1 /f"));
            assert_eq!(config.wrap(&argv("echo chown 1:1 /f"), None, "/state"), None);
        }
    }
}
