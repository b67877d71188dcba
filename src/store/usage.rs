//! What images take of the disk, and how much of it they share.

use std::collections::BTreeMap;

use super::remove::disk_usage;
use super::{Member, Store};
use crate::error::Result;
use crate::oci::Digest;

/// Disk space of one image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUse {
    /// Bytes that other images need too.
    pub shared: u64,
    /// Bytes that only this image needs.
    pub unique: u64,
}

impl Store {
    /// Measures images: layers, and blobs as far as they are here. Equal images, whatever their names, count as one. Trees and the
    /// cache belong to no image.
    pub fn disk_use(&self, images: &[Member]) -> Result<Vec<DiskUse>> {
        // By path, since a digest may be both a blob and a layer.
        let mut users: BTreeMap<_, Vec<Digest>> = BTreeMap::new();
        let mut parts = Vec::new();
        for image in images {
            let mut paths: Vec<_> = image.layers.iter().map(|layer| self.layout().layer(layer)).collect();
            let mut blobs = image.blobs.clone();
            blobs.extend([image.manifest.digest, image.config]);
            for layer in &image.layers {
                blobs.extend(self.layer_blobs(layer)?.iter().map(|blob| blob.digest));
            }
            paths.extend(blobs.iter().map(|blob| self.layout().blob(blob)));
            paths.sort();
            paths.dedup();
            for path in &paths {
                let users = users.entry(path.clone()).or_default();
                if !users.contains(&image.manifest.digest) {
                    users.push(image.manifest.digest);
                }
            }
            parts.push(paths);
        }
        let sizes: BTreeMap<_, u64> = users.keys().map(|path| (path.clone(), disk_usage(path))).collect();
        let sum = |paths: &Vec<_>| {
            paths.iter().fold(DiskUse::default(), |mut sum, path| {
                let part = if users[path].len() > 1 { &mut sum.shared } else { &mut sum.unique };
                *part += sizes[path];
                sum
            })
        };
        Ok(parts.iter().map(sum).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, image, layer};

    #[test]
    fn tells_shared_from_unique() {
        let (_dir, store) = testing::store();
        let (common, own) = (layer(&store, "common"), layer(&store, "own"));
        let both = image(&store, "both", &[&common, &own]);
        let one = image(&store, "one", &[&common]);
        let again = store.name_again(&one, &"again".parse().unwrap()).unwrap();
        let members: Vec<_> = [&both, &one, &again].iter().flat_map(|record| record.members()).collect();
        let found = store.disk_use(&members).unwrap();
        assert!(found[0].unique > found[1].unique && found[1].unique > 0, "{found:?}");
        assert!(found[0].shared > 0 && found[0].shared == found[1].shared && found[1] == found[2], "{found:?}");
    }
}
