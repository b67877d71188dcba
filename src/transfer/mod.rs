//! Images between places: registries, rootfs tarballs and directories, programs of this machine, exported tarballs.
//!
//! Whatever the source, a layer passes once through `pipeline`: (download and blob file) -> decompress and diff ID -> unpack.
//! Nothing gets a name in the storage directory before every digest held.
//!
//! Not here: HTTP (`registry`), the form of a tar (`rootfs`), what is kept how (`store`).

mod client;
mod download;
mod export;
pub mod git;
mod host;
mod import;
mod layers;
mod pipe;
mod pipeline;
mod pull;
pub mod read;

pub use client::{Client, ClientSettings};
pub use download::{DownloadRequest, Downloaded, download};
pub use export::{compression_of, export, export_to};
pub use import::{import_file, import_host, import_layer};
pub use pull::{PullOptions, pull};
