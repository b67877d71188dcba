//! What is attached to images: for each manifest the manifests that have it as their `subject`, such as a bill of materials.
//!
//! One record a subject; the referrers and what they name are blobs. They stay as long as their subject's own blob, and are found by its digest,
//! whatever names it has.

use serde::{Deserialize, Serialize};

use super::{Store, record};
use crate::error::{Error, IoContext, Kind, Place, Result};
use crate::oci::{Descriptor, Digest};

/// A manifest that is about another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Referrer {
    /// Its descriptor, as it stands in a list of referrers, with `artifactType` and annotations.
    pub manifest: Descriptor,
    /// The blobs it names.
    pub blobs: Vec<Digest>,
}

impl Store {
    /// The referrers of a manifest.
    pub fn referrers(&self, subject: &Digest) -> Result<Vec<Referrer>> {
        let path = self.layout().referrers_of(subject);
        let Some(bytes) = record::read(&path)? else { return Ok(Vec::new()) };
        // A power cut came before the content reached the disk.
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(Vec::new());
        }
        serde_json::from_slice(&bytes).map_err(|e| {
            Error::with_kind(Kind::Corrupt, "a list of what is attached to an image is damaged")
                .at(Place::Path(path))
                .cause(e)
                .hint("remove the file; what it lists is attached again by building")
        })
    }

    /// Adds referrers, whose blobs are here; each takes the place of one of the same kind.
    pub fn add_referrers(&self, subject: &Digest, new: Vec<Referrer>) -> Result<()> {
        let directory = self.layout().referrers();
        std::fs::create_dir_all(&directory).doing("create", &directory)?;
        // A damaged list is replaced.
        let old = self.referrers(subject).unwrap_or_default();
        let replaced = |old: &Referrer| new.iter().any(|new| kind(new) == kind(old));
        let kept: Vec<Referrer> = old.into_iter().filter(|old| !replaced(old)).collect();
        let all: Vec<Referrer> = kept.into_iter().chain(new.iter().cloned()).collect();
        self.write_json(&self.layout().referrers_of(subject), &all)
    }
}

/// What tells one kind of referrer from another.
fn kind(referrer: &Referrer) -> impl PartialEq + use<> {
    (referrer.manifest.other.get("artifactType").cloned(), referrer.manifest.annotations.clone())
}

#[cfg(test)]
mod tests {
    use super::super::gc::{Action, Keep, PruneOptions};
    use super::super::testing::{self, image, layer};
    use super::*;

    fn referrer(store: &Store, artifact: &str, text: &str) -> Referrer {
        let blob = store.put_blob(text.as_bytes()).unwrap();
        let manifest = store.put_blob(format!("manifest of {text}").as_bytes()).unwrap();
        let mut manifest = Descriptor::new("m", manifest, 1);
        manifest.other.insert("artifactType".into(), artifact.into());
        Referrer { manifest, blobs: vec![blob] }
    }

    #[test]
    fn stay_and_go_with_their_image() {
        let (_dir, store) = testing::store();
        let app = image(&store, "app", &[&layer(&store, "a")]);
        let subject = app.manifest.digest;
        assert!(store.referrers(&subject).unwrap().is_empty());
        let (first, other, second) = (referrer(&store, "a", "1"), referrer(&store, "b", "2"), referrer(&store, "a", "3"));
        store.add_referrers(&subject, vec![first.clone(), other.clone()]).unwrap();
        store.add_referrers(&subject, vec![second.clone()]).unwrap();
        assert_eq!(store.referrers(&subject).unwrap(), [other.clone(), second.clone()]);

        let path = store.path().to_owned();
        drop(store);
        let store = Store::open(&path).unwrap();
        let all = PruneOptions { steps: Keep::Nothing, trees: Keep::Nothing, mounts: Keep::Nothing, action: Action::Remove };
        assert_eq!(store.prune(&all).unwrap().blobs.count, 2, "what was replaced");
        for kept in [&other, &second] {
            assert!(store.has_blob(&kept.manifest.digest).unwrap().is_some() && store.has_blob(&kept.blobs[0]).unwrap().is_some());
        }
        store.remove_image(&app.reference).unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        store.prune(&all).unwrap();
        assert!(testing::names(&store, "referrers").is_empty() && testing::names(&store, "blobs/sha256").is_empty());
    }
}
