//! What a build took from elsewhere, by address and digest: base images, files by URL, commits.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::error::hide_credentials;
use crate::oci::{Digest, Platform, Reference, percent_encoded};
use crate::store::Image;

/// Everything taken so far; steps that run at the same time share it.
#[derive(Debug, Default)]
pub struct Materials(Mutex<BTreeMap<String, (&'static str, String)>>);

impl Materials {
    /// A base image, or one that is copied from.
    pub fn image(&self, name: &str, platform: &Platform, image: &Image) {
        // What it is here: the index it came in says more than the image that was chosen.
        let digest = image.record.index.unwrap_or(image.record.manifest.digest);
        let address = match name.parse::<Reference>() {
            Ok(reference) => image_address(&reference, platform),
            // An archive or layout, as the Dockerfile calls it.
            Err(_) => hide_credentials(name),
        };
        self.add(address, "sha256", digest.hex());
    }

    /// A file by its URL.
    pub fn file(&self, url: &str, digest: &Digest) {
        self.add(hide_credentials(url), "sha256", digest.hex());
    }

    /// A repository's commit.
    pub fn commit(&self, repository: &str, commit: &str) {
        // Repositories with SHA-256 are rare, but exist.
        let algorithm = if commit.len() == 64 { "sha256" } else { "sha1" };
        self.add(hide_credentials(repository), algorithm, commit.to_owned());
    }

    /// All of them, sorted: address, algorithm, digits.
    pub fn all(&self) -> Vec<(String, &'static str, String)> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.iter().map(|(address, (algorithm, digits))| (address.clone(), *algorithm, digits.clone())).collect()
    }

    fn add(&self, address: String, algorithm: &'static str, digits: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(address, (algorithm, digits));
    }
}

/// An image's package URL, as BuildKit writes it.
pub fn image_address(reference: &Reference, platform: &Platform) -> String {
    let name = reference.familiar_repository();
    let name: Vec<String> = name.split('/').map(percent_encoded).collect();
    let version = reference.tag().map(str::to_owned).or_else(|| reference.digest().map(ToString::to_string));
    let version = version.map(|version| format!("@{}", percent_encoded(&version))).unwrap_or_default();
    format!("pkg:docker/{}{version}?platform={}", name.join("/"), percent_encoded(&platform.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let amd64 = "linux/amd64".parse().unwrap();
        for (name, expected) in [
            ("debian:12", "pkg:docker/debian@12?platform=linux%2Famd64"),
            ("h:5000/a/b", "pkg:docker/h:5000/a/b@latest?platform=linux%2Famd64"),
        ] {
            assert_eq!(image_address(&name.parse().unwrap(), &amd64), expected);
        }
        let materials = Materials::default();
        materials.file("https://u:p@h/f", &Digest::of("x"));
        materials.commit("https://h/r.git", "0123456789012345678901234567890123456789");
        let all = materials.all();
        assert_eq!((all[0].0.as_str(), all[0].1), ("https://h/r.git", "sha1"));
        assert_eq!(all[1].0, "https://xxxxx@h/f");
    }
}
