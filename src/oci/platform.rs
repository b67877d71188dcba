//! Operating system and architecture of an image.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, nearest, quote};

/// Architectures of Go's that images are made for (`go tool dist list`).
const ARCHITECTURES: [&str; 14] =
    ["386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64", "s390x", "wasm"];

/// A platform as in an index (image-spec, image-index.md): Go's names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// `v7` of `arm`, `v8` of `arm64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Only Windows images have one.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// `win32k` and the like; Windows again.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// CPU features, as Docker's manifest lists name them; the image-spec reserves the field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
}

impl Platform {
    /// A platform without the fields that only Windows images have.
    pub fn new(os: &str, architecture: &str, variant: Option<String>) -> Self {
        let (os, architecture) = (os.into(), architecture.into());
        Self { architecture, os, variant, os_version: None, os_features: Vec::new(), features: Vec::new() }
    }

    /// A Linux platform.
    pub fn linux(architecture: &str, variant: Option<&str>) -> Self {
        Self::new("linux", architecture, variant.map(Into::into))
    }

    /// The platform of this program.
    pub fn host() -> Self {
        match std::env::consts::ARCH {
            "x86_64" => Self::linux("amd64", None),
            "x86" => Self::linux("386", None),
            "aarch64" => Self::linux("arm64", None),
            "arm" => Self::linux("arm", Some("v7")),
            "powerpc64" => Self::linux("ppc64le", None),
            "loongarch64" => Self::linux("loong64", None),
            other => Self::linux(other, None),
        }
    }

    /// The architecture that was probably meant, if this one is not known and much like one that is.
    pub fn misspelt(&self) -> Option<&'static str> {
        if ARCHITECTURES.contains(&self.architecture.as_str()) {
            return None;
        }
        nearest(&self.architecture, ARCHITECTURES)
    }

    /// How well an image of platform `self` serves who asks for `wanted`: `None` not at all, larger is better.
    ///
    /// Follows containerd's `platforms.Only`: arm64 without variant is v8, an arm CPU runs older variants too.
    pub fn serves(&self, wanted: &Self) -> Option<u32> {
        if self.os != wanted.os || self.architecture != wanted.architecture {
            return None;
        }
        let (have, want) = (self.level(), wanted.level());
        match self.architecture.as_str() {
            "arm" | "arm64" | "amd64" => (have <= want).then_some(1 + have),
            _ => (self.variant == wanted.variant).then_some(1),
        }
    }

    /// The variant as a number, defaults filled in.
    fn level(&self) -> u32 {
        let default = match self.architecture.as_str() {
            "arm64" => 8,
            "arm" => 7,
            "amd64" => 1,
            _ => 0,
        };
        self.variant.as_deref().and_then(|v| v.strip_prefix('v')).and_then(|v| v.parse().ok()).unwrap_or(default)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// Reads `os/arch[/variant]` or `arch`, and `local` for this machine's; kernel names (`x86_64`, `aarch64`) are translated.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::input(format!("invalid platform {}", quote(text))).hint("a platform reads `linux/amd64` or `linux/arm/v7`");
        let word = |s: &&str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        if text == "local" {
            return Ok(Self::host());
        }
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(word) {
            return Err(bad());
        }
        let (os, architecture, variant) = match parts[..] {
            [architecture] if architecture != "linux" => ("linux", architecture, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(bad()),
        };
        let architecture = architecture.to_lowercase();
        let (architecture, implied) = match architecture.as_str() {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "armhf" | "armv7l" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            "i386" | "i686" => ("386", None),
            other => (other, None),
        };
        let variant = variant.map(str::to_lowercase).or(implied.map(str::to_owned));
        let variant = variant.filter(|v| !(architecture == "arm64" && v == "v8" || architecture == "amd64" && v == "v1"));
        Ok(Self::new(&os.to_lowercase(), architecture, variant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses() {
        for (text, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm/v7", "linux/arm/v7"),
            ("Linux/ARM64", "linux/arm64"),
            ("local", &Platform::host().to_string()),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), expected);
        }
        let misspelt = |text: &str| text.parse::<Platform>().unwrap().misspelt();
        assert_eq!((misspelt("amd46"), misspelt("linux/arm64"), misspelt("linux/vax")), (Some("amd64"), None, None));
        for text in ["", "linux", "linux/", "a/b/c/d", "linux/a b"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn serves_older_variants() {
        let p = |s: &str| s.parse::<Platform>().unwrap();
        assert!(p("linux/arm/v6").serves(&p("linux/arm/v7")).is_some());
        assert!(p("linux/arm/v7").serves(&p("linux/arm/v6")).is_none());
        assert!(p("linux/arm/v7").serves(&p("linux/arm/v7")) > p("linux/arm/v6").serves(&p("linux/arm/v7")));
        assert!(p("linux/arm64").serves(&p("linux/amd64")).is_none());
    }
}
