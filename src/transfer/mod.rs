//! Images between places: registries, archives and layouts, rootfs tarballs and directories, programs and engines of this machine.
//!
//! Whatever the source, a layer passes once through `pipeline`: (download and blob file) -> decompress and diff ID -> unpack.
//! Nothing gets a name in the storage directory before every digest held. On its way out an image becomes a `bundle`, whose layers are
//! packed only then, and `write` or `push` takes it to its place.
//!
//! Not here: HTTP (`registry`), the form of a tar (`rootfs`), what is kept how (`store`).

mod attachments;
mod bundle;
mod client;
mod copy;
mod digested;
mod download;
mod draft;
mod export;
pub mod git;
pub mod guess;
mod host;
mod import;
mod layers;
mod logins;
pub mod look;
mod members;
mod named;
mod one_time;
mod packed;
mod parallel;
mod pipe;
mod pipeline;
mod place;
mod pull;
mod push;
pub mod read;
mod separated;
mod signatures;
mod steps;
pub mod verify;
mod whole;
mod with_spec;
mod write;

pub use attachments::{Attachment, STATEMENT, Sought, attach, attached, attached_remotely, nothing_attached, statement};
pub use bundle::{Annotations, Documents, Repack, Shape, Subject};
pub use client::{Client, ClientSettings, TrustSettings};
pub use copy::{Brought, Copied, Means, Source, bring, bring_each, copy, usual_platform};
pub use download::{DownloadRequest, Downloaded, download};
pub use export::{compression_of, export, export_squashfs, export_to, is_squashfs_name};
pub use import::{import_file, import_host, import_layer, import_squashfs, import_url, is_squashfs, reconfigure};
pub use layers::Need;
pub use members::{Which, members};
pub use named::search;
pub use one_time::{AskPassword, Given, OneTimeSettings, Question};
pub use packed::Packing;
pub use place::Place;
pub use pull::{PullOptions, config, pull, pull_all};
pub use push::push;
pub use separated::{Checksums, LoadRequest, Renames, SaveRequest, load_separated, save_separated};
pub use signatures::{permit, sign};
pub use steps::{DEFAULT_TAG, INLINE_FIELD, MadeStep, StepCache, StepPlace, inline, save_steps};
pub use with_spec::{Files, export_with_spec, import_with_spec};
pub use write::{Job, Outgoing, write};
