//! Python packages: `*.dist-info/METADATA`, and of older tools `*.egg-info/PKG-INFO` or a file `*.egg-info`.
//!
//! Source: PyPA's "Core metadata", "Recording installed projects".

use super::{Inventory, LARGEST_DESCRIPTION, Manager, Package, organization, paragraphs, person};
use crate::error::Result;
use crate::rootfs::view::{Node, View};

pub(super) fn visit(view: &View, node: &Node, found: &mut Inventory) -> Result<()> {
    if !is_metadata(node.path.as_bytes()) {
        return Ok(());
    }
    if let Some(text) = found.text(view, &node.path, LARGEST_DESCRIPTION)? {
        found.packages.extend(package(&text, &node.path.to_string()));
    }
    Ok(())
}

fn is_metadata(path: &[u8]) -> bool {
    [&b".dist-info/METADATA"[..], b".egg-info/PKG-INFO", b".egg-info"].iter().any(|end| path.ends_with(end))
}

fn package(text: &str, location: &str) -> Option<Package> {
    let fields = paragraphs(text).next()?;
    // PyPI's names are the same in any case and with any separator.
    let name = fields.get("Name")?.to_lowercase().replace('_', "-");
    let mut package = Package::new(Manager::Python, &name, fields.get("Version")?, location);
    let known = |name: &str| fields.get(name).map(String::as_str).filter(|text| !text.is_empty() && *text != "UNKNOWN");
    // The older field holds whole licence texts, too.
    package.license = known("License-Expression").or(known("License").filter(|text| !text.contains('\n'))).map(str::to_owned);
    package.homepage = known("Home-page").map(str::to_owned);
    package.supplier = match (known("Author-email").filter(|text| text.contains('<')), known("Author")) {
        (Some(email), _) => person(email.split(',').next().unwrap_or_default()),
        (None, Some(author)) => person(author),
        (None, None) => known("Maintainer").and_then(organization),
    };
    Some(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_metadata() {
        for (path, expected) in [
            ("usr/lib/python3/dist-packages/a-1.dist-info/METADATA", true),
            ("x/a.egg-info/PKG-INFO", true),
            ("x/a-1.egg-info", true),
            ("x/a.dist-info/RECORD", false),
            ("x/METADATA", false),
        ] {
            assert_eq!(is_metadata(path.as_bytes()), expected, "{path}");
        }
    }

    #[test]
    fn reads_packages() {
        let text = "Metadata-Version: 2.1\nName: My_Package\nVersion: 1.0\nLicense: MIT\nAuthor-email: A B <a@b>\n\nName: not this\n";
        let package = package(text, "l").unwrap();
        assert_eq!((package.name.as_str(), package.version.as_str()), ("my-package", "1.0"));
        assert_eq!((package.license.as_deref(), package.supplier.as_deref()), (Some("MIT"), Some("Person: A B (a@b)")));
        assert!(super::package("Name: x\n", "l").is_none() && super::package("", "l").is_none());
    }
}
