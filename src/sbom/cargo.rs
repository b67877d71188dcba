//! Rust packages: `Cargo.lock`, and what cargo-auditable writes into programs.
//!
//! Source: the Cargo book, "Cargo.toml vs Cargo.lock"; cargo-auditable's PARSING.md (section `.dep-v0`, zlib, JSON).

use std::fs::File;
use std::io::Read;

use flate2::read::ZlibDecoder;
use object::{Object as _, ObjectSection as _, ReadCache};
use serde::Deserialize;

use super::{Inventory, LARGEST_DESCRIPTION, Manager, Package};
use crate::error::Result;
use crate::rootfs::view::{Node, View};

const SECTION: &str = ".dep-v0";

pub(super) fn visit(view: &View, node: &Node, found: &mut Inventory) -> Result<()> {
    let location = || node.path.to_string();
    if node.path.name() == Some(b"Cargo.lock") {
        if let Some(text) = found.text(view, &node.path, LARGEST_DESCRIPTION)? {
            found.packages.extend(locked(&text, &location()));
        }
    } else if node.meta.mode & 0o111 != 0
        && let Some(json) = view.open(node).ok().and_then(section)
    {
        found.packages.extend(audited(&json, &location()));
    }
    Ok(())
}

#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
}

fn locked(text: &str, location: &str) -> Vec<Package> {
    let Ok(lock) = toml::from_str::<Lock>(text) else { return Vec::new() };
    let package = |entry: Locked| {
        let mut package = Package::new(Manager::Cargo, &entry.name, &entry.version, location);
        add_source(&mut package, entry.source.as_deref());
        let hex = |text: &String| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        package.checksum = entry.checksum.filter(hex).map(|checksum| ("SHA256", checksum.to_lowercase()));
        package
    };
    lock.package.into_iter().map(package).collect()
}

/// What is not from crates.io says so in its URL.
fn add_source(package: &mut Package, source: Option<&str>) {
    if let Some(address) = source.and_then(|source| source.strip_prefix("git+")) {
        package.qualifiers.insert("vcs_url", format!("git+{}", crate::error::hide_credentials(address)));
    }
}

#[derive(Deserialize)]
struct Audited {
    packages: Vec<AuditedPackage>,
}

#[derive(Deserialize)]
struct AuditedPackage {
    name: String,
    version: String,
    #[serde(default)]
    kind: Option<String>,
}

fn audited(json: &[u8], location: &str) -> Vec<Package> {
    let Ok(list) = serde_json::from_slice::<Audited>(json) else { return Vec::new() };
    // What only built it is not in it.
    let within = list.packages.into_iter().filter(|package| package.kind.as_deref() != Some("build"));
    within.map(|package| Package::new(Manager::Cargo, &package.name, &package.version, location)).collect()
}

/// The section's content; `None` if the file is no ELF file, or has none. Only headers are read.
fn section(mut file: File) -> Option<Vec<u8>> {
    let mut magic = [0; 4];
    file.read_exact(&mut magic).ok().filter(|()| magic == *b"\x7fELF")?;
    let cache = ReadCache::new(file);
    let parsed = object::File::parse(&cache).ok()?;
    let section = parsed.section_by_name(SECTION).filter(|section| section.size() <= LARGEST_DESCRIPTION)?;
    let mut json = Vec::new();
    let read = ZlibDecoder::new(section.data().ok()?).take(LARGEST_DESCRIPTION).read_to_end(&mut json);
    read.ok().map(|_| json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_locks() {
        let text = format!(
            "version = 3\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"registry+x\"\nchecksum = \"{}\"\n\
             [[package]]\nname = \"b\"\nversion = \"0.1.0\"\nsource = \"git+https://u:p@h/b?branch=x#c\"\n",
            "Ab".repeat(32)
        );
        let found = locked(&text, "l");
        assert_eq!(found[0].checksum, Some(("SHA256", "ab".repeat(32))));
        assert_eq!(found[1].qualifiers["vcs_url"], "git+https://xxxxx@h/b?branch=x#c");
        assert!(locked("[[package]]\nname = 1\n", "l").is_empty());
    }

    #[test]
    fn reads_what_is_in_programs() {
        let json = br#"{"packages":[{"name":"a","version":"1.0.0","source":"local","root":true},{"name":"b","version":"2.0.0","source":"crates.io","kind":"build"}]}"#;
        let found = audited(json, "l");
        assert_eq!(found.iter().map(|package| package.name.as_str()).collect::<Vec<_>>(), ["a"]);
        assert!(audited(b"{}", "l").is_empty());
    }
}
