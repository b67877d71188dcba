//! What is in an image: the packages that its package managers' databases know, as an SPDX document.
//!
//! Only databases are read (dpkg, rpm, apk, pip, npm, cargo): nothing is guessed from files. The image is read through a [`View`], so that
//! neither links nor odd names lead out of it, and everything in it may be hostile: what can't be understood becomes a note in the document,
//! never an error.
//!
//! Not here: where the document is kept (`store`, `transfer`).

mod apk;
mod cargo;
mod dpkg;
mod licenses;
mod npm;
mod os_release;
mod purl;
mod python;
mod rpm;
mod spdx;

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::oci::ImagePath;
use crate::rootfs::meta::Kind as FileKind;
use crate::rootfs::view::{Node, View};

pub use os_release::System;
pub use spdx::{Document, MEDIA_TYPE};

/// Largest database that is read: rpm's of a full desktop has 200 MB.
const LARGEST_DATABASE: u64 = 512 << 20;
/// Largest file that describes one package.
const LARGEST_DESCRIPTION: u64 = 4 << 20;

/// Everything found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    /// What the image calls itself.
    pub system: System,
    /// The packages, sorted.
    pub packages: Vec<Package>,
    /// What could not be read, and why.
    pub notes: Vec<String>,
    /// npm's lock files, which are read when all packages are found.
    locks: Vec<ImagePath>,
}

/// Whose package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Manager {
    /// Debian's dpkg.
    Dpkg,
    /// RPM.
    Rpm,
    /// Alpine's apk.
    Apk,
    /// Python's pip.
    Python,
    /// JavaScript's npm.
    Npm,
    /// Rust's cargo.
    Cargo,
}

/// A package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Whose.
    pub manager: Manager,
    /// Its name, with the scope in front for npm.
    pub name: String,
    /// Its version, as its manager writes it.
    pub version: String,
    /// Where that is known: the file that says so.
    pub location: String,
    /// CPU architecture, in the manager's words.
    pub architecture: Option<String>,
    /// Further parts of its package URL, such as `upstream`.
    pub qualifiers: BTreeMap<&'static str, String>,
    /// Who supplies it, in SPDX' form (`Person: …`, `Organization: …`).
    pub supplier: Option<String>,
    /// Its page.
    pub homepage: Option<String>,
    /// What its database says of the licence.
    pub license: Option<String>,
    /// Algorithm, as SPDX writes it, and digits.
    pub checksum: Option<(&'static str, String)>,
}

impl Package {
    fn new(manager: Manager, name: &str, version: &str, location: &str) -> Self {
        Self {
            manager,
            name: name.into(),
            version: version.into(),
            location: location.into(),
            architecture: None,
            qualifiers: BTreeMap::new(),
            supplier: None,
            homepage: None,
            license: None,
            checksum: None,
        }
    }
}

impl Inventory {
    /// Looks through an image. Errors: the storage directory's own.
    pub fn of(view: &View) -> Result<Self> {
        let mut found = Self { system: os_release::read(view)?, ..Self::default() };
        dpkg::find(view, &mut found)?;
        rpm::find(view, &mut found)?;
        apk::find(view, &mut found)?;
        view.walk(&ImagePath::root(), &mut |node| match node.meta.kind {
            FileKind::File => found.visit(view, node),
            _ => Ok(()),
        })?;
        npm::add_checksums(view, &mut found)?;
        found.packages.sort();
        found.packages.dedup();
        Ok(found)
    }

    /// What lies anywhere.
    fn visit(&mut self, view: &View, node: &Node) -> Result<()> {
        python::visit(view, node, self)?;
        npm::visit(view, node, self)?;
        cargo::visit(view, node, self)
    }

    fn note(&mut self, path: &ImagePath, why: impl std::fmt::Display) {
        self.notes.push(format!("{path} could not be read: {why}"));
    }

    /// A file's content; one that is too large or unreadable becomes a note.
    fn content(&mut self, view: &View, path: &ImagePath, limit: u64) -> Result<Option<Vec<u8>>> {
        match view.read(path, limit) {
            Ok(content) => Ok(content),
            Err(e) if e.kind() == crate::error::Kind::NoSpace => Err(e),
            Err(e) => {
                self.note(path, e.causes().last().map_or(e.what(), String::as_str));
                Ok(None)
            }
        }
    }

    fn text(&mut self, view: &View, path: &ImagePath, limit: u64) -> Result<Option<String>> {
        Ok(self.content(view, path, limit)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// Paragraphs of `Name: value` lines, as dpkg, pip and others have them: continued lines are joined to their field.
fn paragraphs(text: &str) -> impl Iterator<Item = BTreeMap<&str, String>> {
    // A blank line may hold spaces.
    let mut lines = text.lines().peekable();
    std::iter::from_fn(move || {
        while lines.next_if(|line| line.trim().is_empty()).is_some() {}
        lines.peek()?;
        let mut fields = BTreeMap::new();
        let mut last = None;
        while let Some(line) = lines.next_if(|line| !line.trim().is_empty()) {
            match line.split_once(':').filter(|_| !line.starts_with([' ', '\t'])) {
                Some((name, value)) => {
                    // The first of equals: pip repeats `Classifier`.
                    fields.entry(name).or_insert_with(|| value.trim().to_owned());
                    last = Some(name);
                }
                None => {
                    if let Some(value) = last.and_then(|name| fields.get_mut(name)) {
                        value.push('\n');
                        value.push_str(line.trim());
                    }
                }
            }
        }
        Some(fields)
    })
}

/// `NAME <ADDRESS>` in SPDX' form.
fn person(text: &str) -> Option<String> {
    let line = text.lines().next().unwrap_or_default().trim();
    let (name, address) = match line.split_once('<') {
        Some((name, rest)) => (name.trim(), rest.split('>').next().unwrap_or_default().trim()),
        None => (line, ""),
    };
    let clean = |text: &str| text.replace(['(', ')'], "").trim().to_owned();
    match (clean(name), clean(address)) {
        (name, _) if name.is_empty() => None,
        (name, address) if address.is_empty() => Some(format!("Person: {name}")),
        (name, address) => Some(format!("Person: {name} ({address})")),
    }
}

fn organization(text: &str) -> Option<String> {
    let name = text.replace(['(', ')'], "").trim().to_owned();
    (!name.is_empty()).then(|| format!("Organization: {name}"))
}

/// The error for a damaged database.
fn damaged(why: &str) -> Error {
    Error::with_kind(crate::error::Kind::Corrupt, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_paragraphs() {
        let text = "\n \nA: 1\nB: two\n lines\nA: ignored\n\n\nC:3\nno field\n";
        let found: Vec<_> = paragraphs(text).collect();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0]["A"].as_str(), found[0]["B"].as_str(), found[1]["C"].as_str()), ("1", "two\nlines", "3\nno field"));
        assert_eq!(paragraphs("").count() + paragraphs(" \n\n").count(), 0);
    }

    #[test]
    fn reads_people() {
        for (text, expected) in [
            ("A B <a@b>", Some("Person: A B (a@b)")),
            ("A (of B) <a@b>", Some("Person: A of B (a@b)")),
            ("A", Some("Person: A")),
            ("<a@b>", None),
            ("", None),
        ] {
            assert_eq!(person(text).as_deref(), expected, "{text}");
        }
    }
}
