//! Package URLs.
//!
//! Source: package-url/purl-spec, PURL-SPECIFICATION.rst and PURL-TYPES.rst.

use std::collections::BTreeMap;

use super::{Manager, Package, System};
use crate::oci::percent_encoded;

/// A package's URL.
pub(super) fn of(package: &Package, system: &System) -> String {
    let (namespace, name) = match package.manager {
        Manager::Dpkg | Manager::Rpm | Manager::Apk => (system.id.as_str(), package.name.as_str()),
        Manager::Npm => package.name.rsplit_once('/').unwrap_or(("", &package.name)),
        Manager::Python | Manager::Cargo => ("", package.name.as_str()),
    };
    let kind = match package.manager {
        Manager::Dpkg => "deb",
        Manager::Rpm => "rpm",
        Manager::Apk => "apk",
        Manager::Python => "pypi",
        Manager::Npm => "npm",
        Manager::Cargo => "cargo",
    };
    let mut url = format!("pkg:{kind}");
    for part in [namespace, name].into_iter().filter(|part| !part.is_empty()) {
        url.push('/');
        url.push_str(&percent_encoded(part));
    }
    if !package.version.is_empty() {
        url.push('@');
        url.push_str(&percent_encoded(&package.version));
    }
    let mut qualifiers: BTreeMap<&str, String> = package.qualifiers.iter().map(|(name, value)| (*name, value.clone())).collect();
    qualifiers.extend(package.architecture.clone().map(|architecture| ("arch", architecture)));
    if matches!(package.manager, Manager::Dpkg | Manager::Rpm | Manager::Apk) {
        qualifiers.extend(system.distribution().map(|distribution| ("distro", distribution)));
    }
    let qualifiers: Vec<String> = qualifiers.iter().map(|(name, value)| format!("{name}={}", percent_encoded(value))).collect();
    if !qualifiers.is_empty() {
        url.push('?');
        url.push_str(&qualifiers.join("&"));
    }
    url
}

/// The URL of an image by its digest.
pub(super) fn of_image(name: &str, digest: &str, architecture: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or_default().split(['@', ':']).next().unwrap_or_default();
    format!("pkg:oci/{}@{}?arch={}", percent_encoded(&last.to_lowercase()), percent_encoded(digest), percent_encoded(architecture))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_specification() {
        let debian = System { id: "debian".into(), version: "12".into(), name: String::new() };
        let package = |manager, name: &str, version: &str, architecture: Option<&str>| Package {
            architecture: architecture.map(str::to_owned),
            ..Package::new(manager, name, version, "")
        };
        for (package, expected) in [
            (package(Manager::Dpkg, "g++", "4:12.2+b1", Some("amd64")), "pkg:deb/debian/g%2B%2B@4:12.2%2Bb1?arch=amd64&distro=debian-12"),
            (package(Manager::Npm, "@types/node", "1.0.0", None), "pkg:npm/%40types/node@1.0.0"),
            (package(Manager::Npm, "left-pad", "1", None), "pkg:npm/left-pad@1"),
            (package(Manager::Cargo, "serde", "1.0.0+x", None), "pkg:cargo/serde@1.0.0%2Bx"),
            (package(Manager::Python, "zope.interface", "", None), "pkg:pypi/zope.interface"),
        ] {
            assert_eq!(of(&package, &debian), expected);
        }
        assert_eq!(of_image("h:5000/Team/app:1", "sha256:ab", "amd64"), "pkg:oci/app@sha256:ab?arch=amd64");
    }
}
