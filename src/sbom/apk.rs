//! apk's database.
//!
//! Source: Alpine's wiki, "Apk spec", "Installed database V2". Its checksums are those of the packages' control data, not of the packages.

use std::collections::BTreeMap;

use super::{Inventory, LARGEST_DATABASE, Manager, Package, person};
use crate::error::Result;
use crate::oci::ImagePath;
use crate::rootfs::view::View;

/// The second since Alpine merged `/usr`.
const PLACES: [&str; 2] = ["/lib/apk/db/installed", "/usr/lib/apk/db/installed"];

pub(super) fn find(view: &View, found: &mut Inventory) -> Result<()> {
    for place in PLACES {
        if let Some(text) = found.text(view, &ImagePath::clean(place), LARGEST_DATABASE)? {
            found.packages.extend(text.split("\n\n").filter_map(|block| package(block, place)));
            break;
        }
    }
    Ok(())
}

fn package(block: &str, location: &str) -> Option<Package> {
    let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, value) in block.lines().filter_map(|line| line.split_once(':')) {
        // Files follow, with letters of their own.
        fields.entry(name).or_insert(value);
    }
    let mut package = Package::new(Manager::Apk, fields.get("P")?, fields.get("V")?, location);
    package.architecture = fields.get("A").map(|text| (*text).to_owned());
    package.license = fields.get("L").map(|text| (*text).to_owned());
    package.homepage = fields.get("U").map(|text| (*text).to_owned());
    package.supplier = fields.get("m").and_then(|text| person(text));
    if let Some(origin) = fields.get("o").filter(|origin| **origin != package.name) {
        package.qualifiers.insert("upstream", (*origin).to_owned());
    }
    Some(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_packages() {
        let text = "C:Q1abc=\nP:musl-utils\nV:1.2.4-r2\nA:x86_64\nL:MIT AND BSD-2-Clause\no:musl\nm:T <t@x>\nF:sbin\nR:ldconfig\na:0:0:755\n\nP:x\n\n";
        let found: Vec<_> = text.split("\n\n").filter_map(|block| package(block, "l")).collect();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), found[0].version.as_str()), ("musl-utils", "1.2.4-r2"));
        assert_eq!((found[0].qualifiers["upstream"].as_str(), found[0].license.as_deref()), ("musl", Some("MIT AND BSD-2-Clause")));
    }
}
