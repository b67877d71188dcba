//! A tree that is an image: unpack, pack, view, copy, hash. The only door into an image.
//!
//! Not here: where layers are kept and when (`store`), what goes into them (`build`), mounting (`sandbox`).
//!
//! A *layer directory* `L` holds `L/fs/`, the tree in overlayfs' on-disk form, and, where that tree can't say everything,
//! `L/record` ([`record::Record`]). In `fs/`:
//!
//! - a whiteout is a character device 0:0; a directory whose lower content is hidden carries the xattr `user.overlay.opaque`;
//! - all entries belong natively to the one user; files are at least `rw-------`, directories `rwx------` for them;
//! - a true owner, mode or type that differs is in the xattr [`meta::OVERRIDE_XATTR`] ([`meta::Override`]);
//!   an entry without one is owned by 0:0 and has its native mode;
//! - device nodes are empty regular files with an override;
//! - xattrs one can't set unprivileged (`security.*`, `trusted.*`, access control lists) are kept as `user.rootling.xattr.<name>`; the mode is
//!   never older than a list ([`access_list`]).
//!
//! Symlinks and FIFOs can't hold user xattrs: their overrides and xattrs are in the record. So are all on a file system without user xattrs.

pub mod access_list;
pub mod assemble;
pub mod compress;
pub mod differ;
pub mod extract;
pub mod hash;
pub mod listing;
pub mod meta;
pub mod pack;
pub mod record;
pub mod scan;
pub mod seal;
pub mod snapshot;
pub mod squashfs;
pub mod tree;
pub mod unpack;
pub mod view;
pub mod writer;

mod archive;
mod chunks;
mod copier;
mod entry;
mod gzip;
mod native;
mod tar_writer;

#[cfg(test)]
mod tests;
