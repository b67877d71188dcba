//! Who vouches for an image: keys, signed statements, and the policy that says whose word counts.
//!
//! Values and arithmetic only: files, registries and the terminal are others' business. The forms are those of cosign (key files, simple
//! signing) and of containers-policy.json(5), so that what one program signs the others accept.
//!
//! Not here: keyless signing (certificates of a public authority, transparency logs), GPG's simple signing. Where a policy asks for them,
//! it is said that they can't be checked; nothing is accepted unchecked.

mod der;
mod envelope;
mod identity;
mod key;
mod payload;
mod pem;
mod policy;
mod sealed;

pub use envelope::{BUNDLE_TYPE, Envelope};
pub use identity::{Claim, Identity};
pub use key::{PrivateKey, PublicKey};
pub use payload::Payload;
pub use policy::{KeySource, Match, Policy, Requirement, Signed};
