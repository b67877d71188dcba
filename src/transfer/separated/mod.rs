//! Images that share their lower layers, saved as tarballs of which the shared ones are delivered once (isula-build's separated images).
//!
//! ```text
//! DIR/manifest                          JSON: which tarballs and layers each app is made of, with checksums ([`Entry`])
//! DIR/<name>_<tag>_base_image.tar.gz    <layer ID>/layer.tar: the one layer of the base image
//! DIR/<name>_<tag>_lib_image.tar.gz     <layer ID>/layer.tar: what the lib image has above the base, if there is a lib image
//! DIR/<name>_<tag>_app_image.tar.gz     <layer ID>/layer.tar: what the app has above these; its config, manifest.json and repositories
//! ```
//!
//! All tarballs of an app in one are what `docker save` writes. What several apps share is there once, named after the first of them.
//!
//! Source: isula-build's manual, "save" and "load", and its files.

mod load;
mod save;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, IoContext as _, Kind, Place, Result, quote, quote_path};

pub use load::{Checksums, LoadRequest, load_separated};
pub use save::{Renames, SaveRequest, save_separated};

const MANIFEST: &str = "manifest";

/// The largest description that is read (isula-build).
const LARGEST: u64 = 10 << 20;

/// What an app is made of. Checksums are SHA-256 of the tarballs as they are, in hexadecimal digits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Entry {
    app: String,
    app_hash: String,
    #[serde(deserialize_with = "null_is_empty")]
    app_layers: Vec<String>,
    /// Empty if there is no lib image, as all of its fields are then.
    lib: String,
    lib_hash: String,
    lib_image_name: String,
    /// `null` if there is no lib image.
    lib_layers: Option<Vec<String>>,
    base: String,
    base_hash: String,
    base_image_name: String,
    base_layer: String,
}

/// Apps by name and tag.
type Entries = BTreeMap<String, Entry>;

/// Go writes an empty list so.
fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Reads a description, which must be a small regular file.
fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    let file = open(path)?;
    let size = file.metadata().doing("look at", path)?.len();
    if size > LARGEST {
        let what = format!("{} has {size} bytes; at most {LARGEST} are allowed", quote_path(path));
        return Err(Error::with_kind(Kind::Corrupt, what));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes).doing("read", path)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::with_kind(Kind::Corrupt, "it can't be understood").at(Place::Path(path.to_owned())).cause(e))
}

/// Opens a regular file. A link in a directory that was delivered may lead to anything of the user's, so none is followed.
fn open(path: &Path) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let irregular = || Error::input(format!("{} is not a regular file", quote_path(path)));
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(rustix::io::Errno::LOOP) => return Err(irregular().cause("it is a symbolic link")),
        opened => File::from(opened.doing("open", path)?),
    };
    if file.metadata().doing("look at", path)?.is_file() { Ok(file) } else { Err(irregular()) }
}

/// A name of a file in the directory itself.
fn check_file_name(name: &str) -> Result<()> {
    let mut components = Path::new(name).components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(only)), None) if only == name && name != MANIFEST => Ok(()),
        _ => Err(Error::with_kind(Kind::Corrupt, format!("{} can't be the name of a tarball", quote(name)))
            .cause("tarballs lie in the directory itself")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_directory() {
        for (name, fine) in [
            ("app_1_app_image.tar.gz", true),
            ("..x", true),
            ("", false),
            (".", false),
            ("..", false),
            ("a/b", false),
            ("a/", false),
            ("./a", false),
            ("../a", false),
            ("/a", false),
            ("manifest", false),
        ] {
            assert_eq!(check_file_name(name).is_ok(), fine, "{name}");
        }
    }

    #[test]
    fn entries_are_isula_builds() {
        let text = r#"{"app:1":{"app":"a","appHash":"0","appLayers":["x"],"lib":"","libHash":"","libImageName":"","libLayers":null,"base":"b","baseHash":"1","baseImageName":"base:1","baseLayer":"y"}}"#;
        let entries: Entries = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&entries).unwrap(), text);
        let sparse: Entries = serde_json::from_str(r#"{"app:1":{"app":"a","appLayers":null}}"#).unwrap();
        assert!(sparse["app:1"].app_layers.is_empty());
    }
}
