//! OCI image values: digests, references, platforms, descriptors, manifests, configs. No I/O.
//!
//! Source: OCI image-spec 1.1 and distribution-spec 1.1, Docker image manifest v2 schema 2 and its older image config.
//! JSON is written in a fixed field order with sorted maps, so that equal values give equal bytes and equal digests.

mod config;
mod descriptor;
mod digest;
mod image_path;
mod manifest;
pub mod media_type;
mod percent;
mod platform;
mod reference;
mod short_names;

pub use config::{Config, Healthcheck, History, ImageConfig, RootFs};
pub use descriptor::Descriptor;
pub use digest::{ChainId, DiffId, Digest, Hasher};
pub use image_path::ImagePath;
pub use manifest::{Index, Links, Manifest, ManifestOrIndex};
pub use percent::{percent_decoded, percent_encoded};
pub use platform::Platform;
pub use reference::{CanonicalReference, Reference};
pub use short_names::{ShortNameMode, ShortNames};
