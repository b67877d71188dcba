//! Signing what is in a registry.

use std::io::{Cursor, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::{PAYLOAD, SIGNATURE, place};
use crate::error::{Error, Kind, Result, quote};
use crate::oci::{Descriptor, Digest, Manifest, ManifestOrIndex, Reference, media_type};
use crate::registry::{self, Upload};
use crate::transfer::Client;
use crate::trust::{Payload, PrivateKey};

/// Signs what was pushed under a name, for that name. With an index every image in it is signed too, since some programs look at the one, some
/// at the other. Signatures of others stay; one of this key over the same is not made again.
pub fn sign(client: &Client, reference: &Reference, pushed: &Descriptor, key: &PrivateKey) -> Result<()> {
    let failed = |e: Error| e.context(format!("can't sign {}", quote(reference.familiar())));
    let signing = Signing { client: client.registry()?, reference, key };
    let mut digests = vec![pushed.digest];
    if media_type::is_index(&pushed.media_type) {
        let pinned: Reference = reference.canonical(pushed.digest).to_string().parse()?;
        let fetched = signing.client.manifest(&pinned, &media_type::ACCEPTED_MANIFESTS).map_err(failed)?;
        if let ManifestOrIndex::Index(index) = ManifestOrIndex::parse(&fetched.bytes, fetched.media_type.as_deref())? {
            digests.extend(index.manifests.iter().map(|member| member.digest));
        }
    }
    digests.iter().try_for_each(|digest| signing.one(digest)).map_err(failed)
}

struct Signing<'a> {
    client: &'a registry::Client,
    reference: &'a Reference,
    key: &'a PrivateKey,
}

impl Signing<'_> {
    fn one(&self, digest: &Digest) -> Result<()> {
        let place = place(self.reference, digest)?;
        let mut layers = self.present(&place)?;
        let payload = Payload { reference: self.reference.to_string(), digest: *digest }.to_bytes();
        let mut layer = Descriptor::new(PAYLOAD, Digest::of(&payload), payload.len() as u64);
        if layers.iter().any(|old| self.is_ours(old, &layer, &payload)) {
            return Ok(());
        }
        layer.annotations.insert(SIGNATURE.into(), STANDARD.encode(self.key.sign(&payload)?));
        layers.push(layer);
        let config = config(&layers);
        self.put(&payload)?;
        self.put(&config)?;
        let config = Descriptor::new(media_type::OCI_CONFIG, Digest::of(&config), config.len() as u64);
        self.client.put_manifest(&place, media_type::OCI_MANIFEST, &Manifest::oci(config, layers).to_bytes())
    }

    /// The signatures that are there, of whomever.
    fn present(&self, place: &Reference) -> Result<Vec<Descriptor>> {
        // The registry itself is asked, since a mirror may not know the latest.
        let Some(digest) = self.client.pushed_digest(place)? else { return Ok(Vec::new()) };
        let pinned: Reference = place.canonical(digest).to_string().parse()?;
        let fetched = self.client.manifest(&pinned, &media_type::ACCEPTED_MANIFESTS)?;
        match ManifestOrIndex::parse(&fetched.bytes, fetched.media_type.as_deref())? {
            ManifestOrIndex::Manifest(manifest) => Ok(manifest.layers),
            ManifestOrIndex::Index(_) => {
                Err(Error::with_kind(Kind::Corrupt, format!("{} is no list of signatures", quote(place.familiar()))))
            }
        }
    }

    fn is_ours(&self, old: &Descriptor, new: &Descriptor, payload: &[u8]) -> bool {
        let signature = old.annotations.get(SIGNATURE).and_then(|text| STANDARD.decode(text).ok());
        old.digest == new.digest && signature.is_some_and(|signature| self.key.public().verifies(payload, &signature))
    }

    fn put(&self, bytes: &[u8]) -> Result<()> {
        put(self.client, self.reference, bytes)
    }
}

/// Sends a small blob.
pub(in crate::transfer) fn put(client: &registry::Client, reference: &Reference, bytes: &[u8]) -> Result<()> {
    let open = |offset: u64| -> Result<Box<dyn Read + Send>> {
        let rest = bytes.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        Ok(Box::new(Cursor::new(rest.to_vec())))
    };
    let upload = Upload { digest: Digest::of(bytes), size: bytes.len() as u64, open: &open, seen: &|_| Ok(()), from: &[] };
    client.put_blob(reference, &upload).map(drop)
}

/// What cosign writes: registries that look into images want to find one layer a diff ID.
fn config(layers: &[Descriptor]) -> Vec<u8> {
    const NEVER: &str = "0001-01-01T00:00:00Z";
    let history: Vec<_> = layers.iter().map(|_| json!({ "created": NEVER })).collect();
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
    let config = json!({
        "architecture": "", "os": "", "created": NEVER, "config": {}, "history": history,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    config.to_string().into_bytes()
}
