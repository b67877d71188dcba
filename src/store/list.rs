//! Manifest lists: an index under a name, changed as a whole.
//!
//! A list is what any index is (decision 13): a record with the images of it that are here. One without such images, a list that is
//! still empty, has the record of an image whose manifest is the index itself; see decision 23.

use super::image::LARGEST_DOCUMENT;
use super::index::{DEEPEST_INDEX, Extras, chosen};
use super::{ImageRecord, Member, Store, Work};
use crate::error::{Error, Kind, Result, quote};
use crate::oci::{Descriptor, Index, ManifestOrIndex, Platform, Reference, media_type};

/// What has a name.
#[derive(Clone, Debug, PartialEq)]
pub enum Named {
    /// Nothing.
    Nothing,
    /// An image.
    Image,
    /// An index, be all its images here or not.
    List(Index),
}

impl Store {
    /// The index a name stands for; `None` if that is an image alone.
    pub fn index_of(&self, record: &ImageRecord) -> Result<Option<(Descriptor, Index)>> {
        let Some(digest) = record.index else { return Ok(None) };
        let bytes = self.read_blob(&digest, LARGEST_DOCUMENT)?;
        let ManifestOrIndex::Index(index) = ManifestOrIndex::parse(&bytes, None)? else { return Ok(None) };
        let media_type = index.media_type.as_deref().unwrap_or(media_type::OCI_INDEX);
        Ok(Some((Descriptor::new(media_type, digest, bytes.len() as u64), index)))
    }

    /// Changes what a name stands for into a list; `change` is told what that is now, and nobody else changes it meanwhile.
    ///
    /// Members that are not here stay in the list all the same. The name alone means the image that serves `preferred`, else the
    /// first that is here. What holds for [`Store::put_image`] holds here too.
    pub fn change_list(
        &self,
        reference: &Reference,
        preferred: &Platform,
        change: impl FnOnce(Named) -> Result<Index>,
    ) -> Result<ImageRecord> {
        let _lock = self.lock(Work::List(reference))?;
        let now = match self.image(reference)? {
            None => Named::Nothing,
            Some(record) => self.index_of(&record)?.map_or(Named::Image, |(_, index)| Named::List(index)),
        };
        self.put_list(reference, &change(now)?, preferred)
    }

    fn put_list(&self, reference: &Reference, index: &Index, preferred: &Platform) -> Result<ImageRecord> {
        let bytes = index.to_bytes();
        let digest = self.put_blob(&bytes)?;
        let (mut members, mut extras): (Vec<Member>, _) = (Vec::new(), Extras::new(self));
        for descriptor in &index.manifests {
            if members.iter().any(|member| member.manifest.digest == descriptor.digest) {
                continue;
            }
            let found = match self.is_image(descriptor) {
                Ok(true) => self.member(descriptor).map(|member| members.push(member)),
                Ok(false) => extras.add(descriptor, DEEPEST_INDEX),
                Err(error) => Err(error),
            };
            match found {
                // Its manifest, or something that this names.
                Err(error) if error.kind() == Kind::NotFound => {}
                found => found?,
            }
        }
        let extras: Vec<_> = extras.found.into_iter().map(|(extra, _)| extra).collect();
        let (first, members) = if members.is_empty() {
            let media_type = index.media_type.as_deref().unwrap_or(media_type::OCI_INDEX);
            (bare(Descriptor::new(media_type, digest, bytes.len() as u64)), members)
        } else {
            let first = members.remove(chosen(index, &members, preferred));
            (first, members)
        };
        self.put_record(ImageRecord::new(reference.clone(), first, Some(digest)).with(members, extras))
    }
}

impl ImageRecord {
    /// Whether there is an image; a list may have none.
    pub fn has_image(&self) -> bool {
        !media_type::is_index(&self.manifest.media_type)
    }

    /// An error if it is a list without images.
    pub fn expect_image(&self) -> Result<()> {
        if self.has_image() {
            return Ok(());
        }
        let name = self.reference.familiar();
        Err(Error::input(format!("{} is a manifest list that has no image here", quote(&name)))
            .hint(format!("add one with `rootling manifest add {name} IMAGE`")))
    }
}

/// What stands for the image of a list that has none.
fn bare(index: Descriptor) -> Member {
    let config = index.digest;
    Member { manifest: index, config, platform: Platform::new("", "", None), layers: Vec::new(), blobs: Vec::new(), size: 0, created: None }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, image, layer};
    use super::super::{Action, Keep, PruneOptions};
    use super::*;

    fn descriptor(record: &ImageRecord, architecture: &str) -> Descriptor {
        Descriptor { platform: Some(Platform::linux(architecture, None)), ..record.manifest.clone() }
    }

    fn prune(store: &Store) {
        let action = Action::Remove;
        let options = PruneOptions { steps: Keep::Nothing, trees: Keep::All, mounts: Keep::Nothing, action };
        Store::open(store.path()).unwrap().prune(&options).unwrap();
    }

    #[test]
    fn a_list_grows_from_nothing() {
        let (_dir, store) = testing::store();
        let name: Reference = "list".parse().unwrap();
        let host = Platform::linux("amd64", None);
        let empty = store.change_list(&name, &host, |now| {
            assert_eq!(now, Named::Nothing);
            Ok(Index::oci(Vec::new()))
        });
        let empty = empty.unwrap();
        assert!(!empty.has_image() && store.load_image(&empty).unwrap_err().to_string().contains("no image"));
        let path = store.path().to_owned();
        let images = [("a", "arm64"), ("b", "amd64")].map(|(text, arch)| (image(&store, text, &[&layer(&store, text)]), arch));
        let one_more = |record: &ImageRecord, architecture: &str| {
            store.change_list(&name, &host, |now| {
                let Named::List(mut index) = now else { panic!("{now:?}") };
                index.manifests.push(descriptor(record, architecture));
                Ok(index)
            })
        };
        assert_eq!(one_more(&images[0].0, images[0].1).unwrap().config, images[0].0.config);
        let both = one_more(&images[1].0, images[1].1).unwrap();
        // This machine's wins, and the list's word on platforms counts.
        assert_eq!((both.config, both.others[0].config), (images[1].0.config, images[0].0.config));
        assert_eq!(both.for_platform(&Platform::linux("arm64", None)).unwrap().config, images[0].0.config);
        for (record, _) in &images {
            store.remove_image(&record.reference).unwrap();
        }
        drop(store);
        let store = Store::open(&path).unwrap();
        prune(&store);
        let record = store.image(&name).unwrap().unwrap();
        assert!(store.index_of(&record).unwrap().is_some() && store.load_image(&record).is_ok());
        assert!(record.others.iter().all(|other| store.member(&other.manifest).is_ok()), "collection keeps the members");
        // A further name has all of it.
        let again = store.name_again(&record, &"again".parse().unwrap()).unwrap();
        assert_eq!((again.others, again.index), (record.others, record.index));
    }

    #[test]
    fn many_add_at_once() {
        let (_dir, store) = testing::store();
        let name: Reference = "list".parse().unwrap();
        let images: Vec<ImageRecord> = (0..8).map(|n| image(&store, &format!("i{n}"), &[&layer(&store, &n.to_string())])).collect();
        std::thread::scope(|scope| {
            for record in &images {
                let (store, name) = (Store::open(store.path()).unwrap(), &name);
                scope.spawn(move || {
                    store
                        .change_list(name, &Platform::host(), |now| {
                            let mut index = if let Named::List(index) = now { index } else { Index::oci(Vec::new()) };
                            index.manifests.push(descriptor(record, "amd64"));
                            Ok(index)
                        })
                        .unwrap();
                });
            }
        });
        let record = store.image(&name).unwrap().unwrap();
        assert_eq!(record.members().len(), 8);
    }
}
