//! dpkg's database: one file, or one a package in images without dpkg.
//!
//! Source: dpkg(1), deb-control(5); status.d is bazel's and distroless' form.

use std::collections::BTreeMap;

use super::{Inventory, LARGEST_DATABASE, LARGEST_DESCRIPTION, Manager, Package, paragraphs, person};
use crate::error::Result;
use crate::oci::ImagePath;
use crate::rootfs::view::{Follow, View};

const STATUS: &str = "/var/lib/dpkg/status";
const PARTS: &str = "/var/lib/dpkg/status.d";

pub(super) fn find(view: &View, found: &mut Inventory) -> Result<()> {
    if let Some(text) = found.text(view, &ImagePath::clean(STATUS), LARGEST_DATABASE)? {
        found.packages.extend(paragraphs(&text).filter_map(|fields| package(&fields, STATUS)));
    }
    let parts = view.resolve(&ImagePath::clean(PARTS), Follow::Last)?;
    for node in view.read_dir(&parts)? {
        if !node.path.as_bytes().ends_with(b".md5sums")
            && let Some(text) = found.text(view, &node.path, LARGEST_DESCRIPTION)?
        {
            let location = node.path.to_string();
            found.packages.extend(paragraphs(&text).filter_map(|fields| package(&fields, &location)));
        }
    }
    Ok(())
}

fn package(fields: &BTreeMap<&str, String>, location: &str) -> Option<Package> {
    // Removed packages whose configuration is left stay in the file.
    let installed = fields.get("Status").is_none_or(|status| status.split_whitespace().nth(2) == Some("installed"));
    let (name, version) = (fields.get("Package")?, fields.get("Version")?);
    let mut package = Package::new(Manager::Dpkg, name, version, location);
    package.architecture = fields.get("Architecture").cloned();
    package.supplier = fields.get("Maintainer").and_then(|text| person(text));
    package.homepage = fields.get("Homepage").cloned();
    // `Source: NAME (VERSION)`: what advisories speak of.
    if let Some(source) = fields.get("Source") {
        package.qualifiers.insert("upstream", source.replace(" (", "@").trim_end_matches(')').to_owned());
    }
    installed.then_some(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_installed() {
        let text = "Package: a\nStatus: install ok installed\nVersion: 1:2-3\nArchitecture: all\nSource: b (2-1)\nMaintainer: M <m@x>\n\n\
                    Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
                    Package: half\nStatus: install reinstreq half-installed\nVersion: 1\n\n\
                    Package: held\nStatus: hold ok installed\nVersion: 2\n\nnonsense\n";
        let found: Vec<_> = paragraphs(text).filter_map(|fields| package(&fields, STATUS)).collect();
        assert_eq!(found.iter().map(|package| package.name.as_str()).collect::<Vec<_>>(), ["a", "held"]);
        assert_eq!((found[0].version.as_str(), found[0].qualifiers["upstream"].as_str()), ("1:2-3", "b@2-1"));
        assert_eq!(found[0].supplier.as_deref(), Some("Person: M (m@x)"));
    }
}
