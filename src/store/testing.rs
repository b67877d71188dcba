//! Small stores for tests.

use std::fs;

use tempfile::TempDir;

use super::{ImageRecord, Layer, Store};
use crate::oci::{Descriptor, ImageConfig, Manifest, Platform, media_type};

/// A new storage directory.
pub fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("storage")).unwrap();
    (dir, store)
}

/// A layer with one file, named and filled with this text.
pub fn layer(store: &Store, text: &str) -> Layer {
    let draft = store.draft().unwrap();
    fs::create_dir(draft.path().join("fs")).unwrap();
    let file = draft.path().join("fs").join(text);
    fs::write(&file, text).unwrap();
    // The tar holds the times; equal layers must be equal.
    let epoch = std::time::SystemTime::UNIX_EPOCH;
    for path in [file, draft.path().join("fs")] {
        fs::File::open(path).unwrap().set_modified(epoch).unwrap();
    }
    draft.commit_packed().unwrap()
}

/// An image of these layers.
pub fn image(store: &Store, name: &str, layers: &[&Layer]) -> ImageRecord {
    let mut config = ImageConfig::scratch(&Platform::host());
    config.author = Some(name.to_owned());
    config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
    let bytes = config.to_bytes();
    let config = Descriptor::new(media_type::OCI_CONFIG, store.put_blob(&bytes).unwrap(), bytes.len() as u64);
    let layers = layers.iter().map(|layer| Descriptor::new(media_type::OCI_LAYER, layer.diff_id.0, layer.size)).collect();
    let bytes = Manifest::oci(config, layers).to_bytes();
    let manifest = Descriptor::new(media_type::OCI_MANIFEST, store.put_blob(&bytes).unwrap(), bytes.len() as u64);
    store.put_image(&name.parse().unwrap(), &manifest, None).unwrap()
}

/// The names in a directory of the storage, sorted.
pub fn names(store: &Store, directory: &str) -> Vec<String> {
    let entries = fs::read_dir(store.path().join(directory)).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
