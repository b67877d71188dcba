//! The document: SPDX 2.3 as JSON.
//!
//! The same image has the same document: its names are made of content, its time is the image's or that of the build.
//!
//! Source: SPDX specification 2.3; spdx-spec/schemas/spdx-schema.json.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Inventory, Manager, Package, licenses, purl};
use crate::oci::Digest;

/// The document's media type, in registries too.
pub const MEDIA_TYPE: &str = "application/spdx+json";

const NONE: &str = "NOASSERTION";
const IMAGE: &str = "SPDXRef-Image";
const SYSTEM: &str = "SPDXRef-OperatingSystem";

/// What a document is about.
pub struct Document<'a> {
    /// What to call the image.
    pub name: &'a str,
    /// Its ID, the digest of its config: unlike the manifest's it stays the same however layers are compressed.
    pub id: Digest,
    /// Its architecture, as its config has it.
    pub architecture: &'a str,
    /// RFC 3339 time; fractions of seconds are dropped, as SPDX wants.
    pub created: &'a str,
    /// What is in it.
    pub inventory: &'a Inventory,
}

impl Document<'_> {
    /// The document as text.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut packages = vec![self.image()];
        let mut relationships = vec![relationship("SPDXRef-DOCUMENT", "DESCRIBES", IMAGE)];
        if let Some(system) = self.system() {
            packages.push(system);
            relationships.push(relationship(IMAGE, "CONTAINS", SYSTEM));
        }
        let mut numbers = BTreeMap::new();
        for package in &self.inventory.packages {
            let id = identifier(package, &mut numbers);
            relationships.push(relationship(IMAGE, "CONTAINS", &id));
            packages.push(self.package(package, id));
        }
        let mut document = json!({
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": self.name,
            "documentNamespace": format!("https://spdx.org/spdxdocs/rootling-{}", self.id.hex()),
            "creationInfo": {
                "created": seconds(self.created),
                "creators": [concat!("Tool: rootling-", env!("CARGO_PKG_VERSION"))],
            },
            "packages": packages,
            "relationships": relationships,
        });
        if !self.inventory.notes.is_empty() {
            document["comment"] = self.inventory.notes.join("\n").into();
        }
        let mut bytes = serde_json::to_vec_pretty(&document).expect("plain data");
        bytes.push(b'\n');
        bytes
    }

    fn image(&self) -> Value {
        let id = self.id.to_string();
        json!({
            "SPDXID": IMAGE,
            "name": self.name,
            "versionInfo": id,
            "primaryPackagePurpose": "CONTAINER",
            "downloadLocation": NONE,
            "filesAnalyzed": false,
            "licenseConcluded": NONE,
            "licenseDeclared": NONE,
            "copyrightText": NONE,
            "supplier": NONE,
            "externalRefs": [reference(&purl::of_image(self.name, &id, self.architecture))],
        })
    }

    fn system(&self) -> Option<Value> {
        let system = &self.inventory.system;
        let name = [&system.name, &system.id].into_iter().find(|name| !name.is_empty())?;
        let mut package = json!({
            "SPDXID": SYSTEM,
            "name": name,
            "primaryPackagePurpose": "OPERATING-SYSTEM",
            "downloadLocation": NONE,
            "filesAnalyzed": false,
            "licenseConcluded": NONE,
            "licenseDeclared": NONE,
            "copyrightText": NONE,
            "supplier": NONE,
        });
        if !system.version.is_empty() {
            package["versionInfo"] = system.version.clone().into();
        }
        Some(package)
    }

    fn package(&self, package: &Package, id: String) -> Value {
        let license = package.license.as_deref();
        let declared = license.and_then(licenses::expression);
        let mut value = json!({
            "SPDXID": id,
            "name": package.name,
            "versionInfo": package.version,
            "downloadLocation": NONE,
            "filesAnalyzed": false,
            "licenseConcluded": NONE,
            "licenseDeclared": declared.unwrap_or(NONE),
            "copyrightText": NONE,
            "supplier": package.supplier.as_deref().unwrap_or(NONE),
            "sourceInfo": format!("found in {}", package.location),
            "externalRefs": [reference(&purl::of(package, &self.inventory.system))],
        });
        if let (Some(text), None) = (license, declared) {
            value["licenseComments"] = format!("declared as {text}").into();
        }
        if let Some(page) = package.homepage.as_deref().filter(|page| is_web(page)) {
            value["homepage"] = page.into();
        }
        if let Some((algorithm, digits)) = &package.checksum {
            value["checksums"] = json!([{ "algorithm": algorithm, "checksumValue": digits }]);
        }
        value
    }
}

fn reference(url: &str) -> Value {
    json!({ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": url })
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

/// An identifier of letters, digits, dots and dashes; equal ones are numbered.
fn identifier(package: &Package, numbers: &mut BTreeMap<String, u32>) -> String {
    let kind = match package.manager {
        Manager::Dpkg => "deb",
        Manager::Rpm => "rpm",
        Manager::Apk => "apk",
        Manager::Python => "python",
        Manager::Npm => "npm",
        Manager::Cargo => "cargo",
    };
    let text = format!("{kind}-{}-{}", package.name, package.version);
    let clean: String = text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let number = numbers.entry(clean.clone()).and_modify(|number| *number += 1).or_insert(1);
    if *number == 1 { format!("SPDXRef-Package-{clean}") } else { format!("SPDXRef-Package-{number}-of-{clean}") }
}

fn is_web(page: &str) -> bool {
    (page.starts_with("https://") || page.starts_with("http://")) && page.bytes().all(|byte| byte.is_ascii_graphic())
}

/// `YYYY-MM-DDThh:mm:ssZ`.
fn seconds(time: &str) -> String {
    let time: jiff::Timestamp = time.parse().unwrap_or_default();
    jiff::Timestamp::from_second(time.as_second()).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_differ() {
        let mut numbers = BTreeMap::new();
        let ids: Vec<String> = [("a+b", "1"), ("a-b", "1"), ("a b", "1")]
            .iter()
            .map(|(name, version)| identifier(&Package::new(Manager::Npm, name, version, ""), &mut numbers))
            .collect();
        assert_eq!(ids, ["SPDXRef-Package-npm-a-b-1", "SPDXRef-Package-2-of-npm-a-b-1", "SPDXRef-Package-3-of-npm-a-b-1"]);
    }

    #[test]
    fn documents() {
        let mut inventory = Inventory::default();
        inventory.packages.push(Package { license: Some("MIT".into()), ..Package::new(Manager::Cargo, "a", "1", "/Cargo.lock") });
        inventory.packages.push(Package { license: Some("mine".into()), ..Package::new(Manager::Cargo, "b", "1", "/Cargo.lock") });
        let id = Digest::of("x");
        let document =
            Document { name: "h/app:1", id, architecture: "amd64", created: "2026-01-02T03:04:05.678+01:00", inventory: &inventory };
        assert_eq!(document.to_bytes(), document.to_bytes());
        let value: Value = serde_json::from_slice(&document.to_bytes()).unwrap();
        assert_eq!(value["creationInfo"]["created"], "2026-01-02T02:04:05Z");
        assert_eq!(value["packages"][1]["licenseDeclared"], "MIT");
        assert_eq!(value["packages"][2]["licenseComments"], "declared as mine");
        assert_eq!(value["packages"][0]["externalRefs"][0]["referenceLocator"], format!("pkg:oci/app@{id}?arch=amd64"));
        assert_eq!(value["relationships"].as_array().unwrap().len(), 3);
    }
}
