//! Referrers: manifests that say by `subject` what they are about, such as signatures and bills of materials.
//!
//! A registry with the referrers API lists them itself. For one without, who pushes a referrer keeps the list, as an index under the tag
//! `sha256-<hex>` of the subject.
//!
//! Source: OCI distribution-spec 1.1, "Listing Referrers", "Pushing Manifests with Subject", "Unavailable Referrers API".

use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, LINK};

use super::client::{Client, LONGEST_MANIFEST};
use super::payload::Payload;
use super::redirect::Integrity;
use super::registries_conf::Endpoint;
use super::transport::{Access, Call, Target, read_limited};
use crate::error::{Error, Kind, Result, quote};
use crate::oci::{Descriptor, Digest, Index, ManifestOrIndex, Reference, media_type};

/// What a registry says that keeps the list itself.
const SUBJECT: &str = "oci-subject";
/// Pages of a list that are read; one has up to some hundred referrers.
const MOST_PAGES: usize = 20;

impl Client {
    /// The referrers of a manifest; none if the registry knows of none.
    pub fn referrers(&self, reference: &Reference, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.each_endpoint(reference, |endpoint| match self.listed(endpoint, reference, subject)? {
            Some(referrers) => Ok(referrers),
            None => Ok(self.tagged(reference, subject)?.map(|index| index.manifests).unwrap_or_default()),
        })
    }

    /// Puts a manifest that has a subject, and into the list of the subject's referrers if the registry does not see to that.
    ///
    /// `listing` is its descriptor as it stands in such a list. Two that push referrers of one image to an old registry at the same time may lose
    /// each other's entry: its API has nothing against that.
    pub fn put_referrer(&self, reference: &Reference, subject: &Digest, listing: &Descriptor, bytes: &[u8]) -> Result<()> {
        let what = format!("can't attach to {}", quote(reference.familiar()));
        let endpoint = self.home(reference)?;
        let media_type = HeaderValue::from_str(&listing.media_type).map_err(|_| Error::input("invalid media type"))?;
        let call = Call {
            what: &what,
            endpoint: &endpoint,
            method: Method::PUT,
            target: Target::Path(format!("manifests/{}", listing.digest)),
            headers: HeaderMap::from_iter([(CONTENT_TYPE, media_type)]),
            integrity: Integrity::Connection,
            access: Access::Push,
            payload: Payload::Bytes(bytes),
        };
        let response = self.block_on(self.transport().exchange(&call))?;
        if response.headers().contains_key(SUBJECT) {
            return Ok(());
        }
        let mut index = self.tagged(reference, subject)?.unwrap_or_else(|| Index::oci(Vec::new()));
        if index.manifests.iter().any(|there| there.digest == listing.digest) {
            return Ok(());
        }
        index.manifests.push(listing.clone());
        self.put_manifest(&tag(reference, subject)?, media_type::OCI_INDEX, &index.to_bytes())
    }

    /// What the referrers API says; `None` where there is none.
    fn listed(&self, endpoint: &Endpoint, reference: &Reference, subject: &Digest) -> Result<Option<Vec<Descriptor>>> {
        let what = format!("can't look for what is attached to {}", quote(reference.familiar()));
        let mut target = Target::Path(format!("referrers/{subject}"));
        let mut referrers = Vec::new();
        for _ in 0..MOST_PAGES {
            let call = Call {
                what: &what,
                endpoint,
                method: Method::GET,
                target,
                headers: HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(media_type::OCI_INDEX))]),
                integrity: Integrity::Connection,
                access: Access::Pull,
                payload: Payload::Empty,
            };
            let response = match self.block_on(self.transport().exchange(&call)) {
                Ok(response) => response,
                // Registries that don't know the address say so in different ways.
                Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Other) => return Ok(None),
                Err(error) => return Err(error),
            };
            let next = response.headers().get(LINK).and_then(|link| next_page(link.to_str().ok()?));
            let stall = self.transport().settings().patience.stall;
            let bytes = self.block_on(read_limited(response, LONGEST_MANIFEST, stall));
            let bytes = bytes.map_err(|why| Error::with_kind(Kind::Corrupt, &what).cause(why))?;
            // Some web server's page for every address is no list.
            let Ok(ManifestOrIndex::Index(index)) = ManifestOrIndex::parse(&bytes, Some(media_type::OCI_INDEX)) else {
                return Ok(None);
            };
            referrers.extend(index.manifests);
            match next {
                Some(next) => target = Target::Location(next),
                None => break,
            }
        }
        Ok(Some(referrers))
    }

    /// The list that was pushed under a tag.
    fn tagged(&self, reference: &Reference, subject: &Digest) -> Result<Option<Index>> {
        let fetched = match self.manifest(&tag(reference, subject)?, &[media_type::OCI_INDEX]) {
            Err(error) if error.kind() == Kind::NotFound => return Ok(None),
            other => other?,
        };
        match ManifestOrIndex::parse(&fetched.bytes, fetched.media_type.as_deref()) {
            Ok(ManifestOrIndex::Index(index)) => Ok(Some(index)),
            _ => Ok(None),
        }
    }
}

fn tag(reference: &Reference, subject: &Digest) -> Result<Reference> {
    format!("{}/{}:sha256-{}", reference.registry(), reference.repository(), subject.hex()).parse()
}

/// `<ADDRESS>; rel="next"` (RFC 8288).
fn next_page(link: &str) -> Option<String> {
    let (address, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    rest.contains("rel=\"next\"").then(|| address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_next_page() {
        for (link, expected) in [
            ("</v2/a/referrers/sha256:x?n=2>; rel=\"next\"", Some("/v2/a/referrers/sha256:x?n=2")),
            ("</v2/a>; rel=\"prev\"", None),
            ("/v2/a", None),
        ] {
            assert_eq!(next_page(link).as_deref(), expected, "{link}");
        }
    }
}
