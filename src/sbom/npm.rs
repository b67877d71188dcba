//! npm packages: `node_modules/NAME/package.json`, and the checksums of `node_modules/.package-lock.json`.
//!
//! Source: npm's package-json(5) and package-lock-json(5).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{Inventory, LARGEST_DESCRIPTION, Manager, Package, person};
use crate::error::Result;
use crate::oci::ImagePath;
use crate::rootfs::view::{Node, View};

/// A lock file has some hundred bytes a package.
const LARGEST_LOCK: u64 = 64 << 20;

pub(super) fn visit(view: &View, node: &Node, found: &mut Inventory) -> Result<()> {
    if is_package(&node.path) {
        if let Some(bytes) = found.content(view, &node.path, LARGEST_DESCRIPTION)? {
            found.packages.extend(package(&bytes, &node.path.to_string()));
        }
    } else if node.path.as_bytes().ends_with(b"node_modules/.package-lock.json") {
        found.locks.push(node.path.clone());
    }
    Ok(())
}

/// `…/node_modules/NAME/package.json`, `…/node_modules/@SCOPE/NAME/package.json`; those deeper in a package are its own business.
fn is_package(path: &ImagePath) -> bool {
    let parts: Vec<&[u8]> = path.components().rev().take(4).collect();
    match parts.as_slice() {
        [b"package.json", name, b"node_modules", ..] => !name.starts_with(b"@") && !name.starts_with(b"."),
        [b"package.json", _, scope, b"node_modules"] => scope.starts_with(b"@"),
        _ => false,
    }
}

fn package(bytes: &[u8], location: &str) -> Option<Package> {
    let document: Value = serde_json::from_slice(bytes).ok()?;
    let text = |name: &str| document[name].as_str();
    let mut package = Package::new(Manager::Npm, text("name")?, text("version")?, location);
    package.license = text("license").or(document["license"]["type"].as_str()).map(str::to_owned);
    package.homepage = text("homepage").map(str::to_owned);
    package.supplier = text("author").and_then(person).or_else(|| {
        let author = &document["author"];
        let name = author["name"].as_str()?;
        person(&format!("{name} <{}>", author["email"].as_str().unwrap_or_default()))
    });
    package.checksum = text("_integrity").and_then(checksum);
    Some(package)
}

/// Gives packages the checksums that lock files know.
pub(super) fn add_checksums(view: &View, found: &mut Inventory) -> Result<()> {
    for path in std::mem::take(&mut found.locks) {
        let Some(bytes) = found.content(view, &path, LARGEST_LOCK)? else { continue };
        let Ok(lock) = serde_json::from_slice::<Value>(&bytes) else { continue };
        let prefix = path.parent().and_then(|directory| directory.parent()).unwrap_or_default();
        take_checksums(&lock, &prefix, &mut found.packages);
    }
    Ok(())
}

/// A lock's checksums for the packages below the directory it speaks of.
fn take_checksums(lock: &Value, prefix: &ImagePath, packages: &mut [Package]) {
    for package in packages.iter_mut().filter(|package| package.manager == Manager::Npm && package.checksum.is_none()) {
        let file = ImagePath::clean(&package.location);
        let place = file.parent().and_then(|place| place.strip_prefix(prefix));
        let place = place.map(|place| String::from_utf8_lossy(place.as_bytes()).into_owned());
        package.checksum = place.and_then(|place| checksum(lock["packages"][&place]["integrity"].as_str()?));
    }
}

/// `sha512-BASE64`, of which there may be several.
fn checksum(integrity: &str) -> Option<(&'static str, String)> {
    let (algorithm, digest) = integrity.split_whitespace().next()?.split_once('-')?;
    let algorithm = match algorithm {
        "sha1" => "SHA1",
        "sha256" => "SHA256",
        "sha384" => "SHA384",
        "sha512" => "SHA512",
        _ => return None,
    };
    let digest = STANDARD.decode(digest).ok()?;
    Some((algorithm, digest.iter().map(|byte| format!("{byte:02x}")).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_packages() {
        for (path, expected) in [
            ("usr/lib/node_modules/npm/package.json", true),
            ("app/node_modules/@types/node/package.json", true),
            ("app/node_modules/a/node_modules/b/package.json", true),
            ("app/node_modules/a/lib/package.json", false),
            ("app/node_modules/@types/package.json", false),
            ("app/package.json", false),
            ("node_modules/package.json", false),
        ] {
            assert_eq!(is_package(&ImagePath::clean(path)), expected, "{path}");
        }
    }

    #[test]
    fn reads_packages() {
        let text = br#"{"name":"@a/b","version":"1.2.3","license":"MIT","author":{"name":"N","email":"e@x"}}"#;
        let found = package(text, "l").unwrap();
        assert_eq!((found.name.as_str(), found.supplier.as_deref()), ("@a/b", Some("Person: N (e@x)")));
        for text in [&b""[..], b"[]", b"{\"name\":\"a\"}", b"\xff"] {
            assert!(package(text, "l").is_none());
        }
    }

    #[test]
    fn takes_checksums_from_locks() {
        let package = |version: &str, location: &str| Package::new(Manager::Npm, "a", version, location);
        let mut packages = [package("1", "/app/node_modules/a/package.json"), package("2", "/other/node_modules/a/package.json")];
        let lock = serde_json::json!({ "packages": { "node_modules/a": { "version": "1", "integrity": "sha1-AQI=" } } });
        take_checksums(&lock, &ImagePath::clean("/app"), &mut packages);
        assert_eq!(packages[0].checksum, Some(("SHA1", "0102".into())));
        assert_eq!(packages[1].checksum, None);
    }
}
