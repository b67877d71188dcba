//! squashfs images (format 4.0): written from a view, read as a tar.
//!
//! Not here: mounting one (`sandbox`), where its files come from and go to (`transfer`).
//!
//! From the first byte to the last: the superblock; blocks of file content, and *fragments*, blocks that hold the ends of many files; then
//! the tables of inodes, directories, fragments, inode numbers (for NFS exports), owners and extended attributes. The tables are sequences
//! of *metadata blocks* of 8 KiB before compression, each with its size in front; an entry is named by where its block begins in the table
//! and its offset in the block. All numbers are little-endian. (linux/fs/squashfs/squashfs_fs.h; Documentation/filesystems/squashfs.rst)

mod attributes;
mod blocks;
mod census;
mod codec;
mod contents;
mod entries;
mod format;
mod inodes;
mod metadata;
mod read;
mod source;
mod write;

pub use codec::Coding;
pub use format::is_squashfs;
pub use read::{owners, to_tar};
pub use write::write;
