//! Signatures of images in registries: making them, and asking for them before an image is taken.
//!
//! A signature lies beside its image, in the same repository, as cosign keeps it: the image whose manifest is `sha256:X` has its signatures in
//! the manifest of tag `sha256-X.sig`, one layer each, the layer being what was signed and an annotation of it the signature. Signatures that
//! cosign 3 attaches as referrers are read too, not written.
//!
//! Source: cosign's SIGNATURE_SPEC.md.

mod check;
mod sign;

use crate::oci::{Digest, Reference};

pub(super) use check::Demands;
pub use check::permit;
pub(super) use sign::put;
pub use sign::sign;

/// What a signature of the older form is a signature of.
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Where the signature itself is.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// A payload is one line; a bundle with certificates and proofs some 20 kB.
const LONGEST_PAYLOAD: u64 = 1 << 20;

/// Where the signatures of a manifest are.
fn place(reference: &Reference, digest: &Digest) -> crate::error::Result<Reference> {
    format!("{}/{}:sha256-{}.sig", reference.registry(), reference.repository(), digest.hex()).parse()
}
