//! The names in the storage directory. No other module joins a path below it.
//!
//! ```text
//! DIR/                                  mode 0700, owned by its one user
//!   version                             the format's number, see `format`
//!   images/<reference>.json             one record a name; `/` is written `%`, `:` is written `+`
//!   blobs/sha256/<hex>                  blobs as a registry serves them
//!   layers/<diff ID>/fs/                a layer's files in overlayfs' form
//!   layers/<diff ID>/record             what the files can't hold (rootfs::Record), if anything
//!   layers/<diff ID>/layer.json         size of its tar, and whether it is known to be on the disk (see `layer`)
//!   referrers/<hex>                     what is attached to the manifest of this digest (see `referrers`); made when the first is needed
//!   trees/<chain ID>/{fs/,record}       all layers of a stack applied; or a symbolic link to a layer that is a tree already
//!   cache/steps/<cache key>             one record a build step
//!   cache/blobs/<diff ID>               descriptors of the compressed forms a layer is known to have
//!   cache/mounts/<key>/mount.json       what a cache mount is (see `cache_mount`); its time is that of the last use
//!   cache/mounts/<key>/lock             who uses which of its directories
//!   cache/mounts/<key>/<n>/{fs/,record} its directories; made when the first is needed
//!   cache/hashes                        remembered digests of build context files
//!   tmp/<owner>-<n>.<kind>              everything unfinished; <owner> is <host>-<pid>-<start time>-<instance>
//!   tmp/partial-<hex>                   a download to be resumed by whoever comes next
//!   locks/live                          byte-range locks: who lives, what is in use (see `lease`)
//!   locks/<kind>-<hex>                  work that only one process should do at a time (see `lock`)
//! ```
//!
//! A name that ends in a digest has it as 64 hexadecimal digits, without the algorithm.

use std::path::{Path, PathBuf};

use crate::oci::{ChainId, DiffId, Digest, Reference};

/// The directories every storage directory has. `tmp` is made last: where it is, all are.
pub(super) const DIRECTORIES: [&str; 9] =
    ["images", "blobs", "blobs/sha256", "layers", "trees", "cache", "cache/steps", "cache/blobs", "locks"];

/// Longest name of an image record before it is shortened; NAME_MAX is 255, eCryptfs allows 143.
const LONGEST_NAME: usize = 140;

/// Makes every path in one storage directory.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn version(&self) -> PathBuf {
        self.root.join("version")
    }

    pub fn directory(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub fn image(&self, reference: &Reference) -> PathBuf {
        self.images().join(image_name(reference))
    }

    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub fn layer(&self, diff_id: &DiffId) -> PathBuf {
        self.layers().join(diff_id.0.hex())
    }

    pub fn referrers(&self) -> PathBuf {
        self.root.join("referrers")
    }

    pub fn referrers_of(&self, subject: &Digest) -> PathBuf {
        self.referrers().join(subject.hex())
    }

    pub fn trees(&self) -> PathBuf {
        self.root.join("trees")
    }

    pub fn tree(&self, chain: &ChainId) -> PathBuf {
        self.trees().join(chain.0.hex())
    }

    pub fn steps(&self) -> PathBuf {
        self.root.join("cache/steps")
    }

    pub fn step(&self, key: &Digest) -> PathBuf {
        self.steps().join(key.hex())
    }

    pub fn layer_blobs(&self) -> PathBuf {
        self.root.join("cache/blobs")
    }

    pub fn layer_blobs_of(&self, diff_id: &DiffId) -> PathBuf {
        self.layer_blobs().join(diff_id.0.hex())
    }

    pub fn hashes(&self) -> PathBuf {
        self.root.join("cache/hashes")
    }

    pub fn cache_mounts(&self) -> PathBuf {
        self.root.join("cache/mounts")
    }

    pub fn cache_mount(&self, key: &Digest) -> PathBuf {
        self.cache_mounts().join(key.hex())
    }

    pub fn cache_mount_record(&self, key: &Digest) -> PathBuf {
        self.cache_mount(key).join("mount.json")
    }

    pub fn cache_mount_lock(&self, key: &Digest) -> PathBuf {
        self.cache_mount(key).join("lock")
    }

    pub fn cache_mount_directory(&self, key: &Digest, number: i64) -> PathBuf {
        self.cache_mount(key).join(number.to_string())
    }

    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub fn unfinished(&self, owner: &str, number: u64, kind: &str) -> PathBuf {
        self.tmp().join(format!("{owner}-{number}.{kind}"))
    }

    pub fn partial(&self, digest: &Digest) -> PathBuf {
        self.tmp().join(format!("partial-{}", digest.hex()))
    }

    pub fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    pub fn live(&self) -> PathBuf {
        self.root.join("locks/live")
    }

    pub fn lock(&self, kind: &str, digest: &Digest) -> PathBuf {
        self.locks().join(format!("{kind}-{}", digest.hex()))
    }
}

/// What stands in `tmp/`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfinished<'a> {
    /// Something of a process.
    Of { owner: &'a str },
    /// A download nobody owns.
    Partial,
    /// Not ours.
    Unknown,
}

impl<'a> Unfinished<'a> {
    pub fn parse(name: &'a str) -> Self {
        if name.strip_prefix("partial-").and_then(Digest::from_hex).is_some() {
            return Self::Partial;
        }
        let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match name.rsplit_once('.').and_then(|(stem, _)| stem.rsplit_once('-')) {
            Some((owner, n)) if number(n) && owner.rsplitn(4, '-').take(3).all(number) => Self::Of { owner },
            _ => Self::Unknown,
        }
    }
}

/// The digest a file or directory is named after.
pub(super) fn digest_of_name(path: &Path) -> Option<Digest> {
    path.file_name().and_then(|name| name.to_str()).and_then(Digest::from_hex)
}

/// One-to-one: neither `%` nor `+` occurs in a reference, and no component is empty, so `%%` marks a shortened name.
fn image_name(reference: &Reference) -> String {
    let full = reference.to_string();
    let mut name = full.replace('/', "%").replace(':', "+");
    if name.len() > LONGEST_NAME {
        // All characters of a reference are ASCII.
        name.truncate(LONGEST_NAME - 2 - 64);
        name = format!("{name}%%{}", Digest::of(&full).hex());
    }
    name + ".json"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images() {
        let name = |text: &str| image_name(&text.parse().unwrap());
        for (reference, expected) in [
            ("debian", "docker.io%library%debian+latest.json"),
            ("localhost:5000/a/b:1", "localhost+5000%a%b+1.json"),
            ("[::1]:5000/x:A", "[++1]+5000%x+A.json"),
        ] {
            assert_eq!(name(reference), expected);
        }
        let (long, longer) = (format!("x/{}", "a".repeat(200)), format!("x/{}", "a".repeat(201)));
        assert!(name(&long).len() <= LONGEST_NAME + 5 && name(&long) != name(&longer));
    }

    #[test]
    fn names_of_unfinished_things() {
        let partial = format!("partial-{}", Digest::of("").hex());
        for (name, expected) in [
            ("node-1.example-12-345-0-7.draft", Unfinished::Of { owner: "node-1.example-12-345-0" }),
            ("n-1-2-3-4.blob", Unfinished::Of { owner: "n-1-2-3" }),
            (partial.as_str(), Unfinished::Partial),
            ("partial-12", Unfinished::Unknown),
            ("n-1-2-3.blob", Unfinished::Unknown),
            ("n-1-2-3-4", Unfinished::Unknown),
            ("keep me", Unfinished::Unknown),
        ] {
            assert_eq!(Unfinished::parse(name), expected, "{name}");
        }
    }
}
