//! Content hashes of host files for cache keys.
use super::meta::Kind;
use crate::error::Result;
use crate::oci::{Digest, ImagePath};
use std::path::Path;
/// Whether an entry is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Yes.
    Take,
    /// No, but something below may be.
    Descend,
    /// Neither it nor anything below.
    Skip,
}
/// A host file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Below the root that was walked.
    pub path: ImagePath,
    /// Type.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Size.
    pub size: u64,
    /// ns since 1970.
    pub mtime: i128,
    /// ns since 1970.
    pub ctime: i128,
    /// Identity.
    pub dev: u64,
    /// Identity.
    pub ino: u64,
    /// Names.
    pub nlink: u64,
}
/// Lists everything selected below `from` (in `root`), sorted, following nothing; on several threads.
pub fn scan(_root: &Path, _from: &ImagePath, _select: &(dyn Fn(&ImagePath, Kind) -> Selection + Sync)) -> Result<Vec<Source>> {
    todo!()
}
/// Remembered content hashes.
pub struct Hashes {}
impl Hashes {
    /// Loads; a missing or damaged file is an empty memory.
    pub fn load(_file: &Path) -> Result<Self> {
        todo!()
    }
    /// Saves if something changed, atomically.
    pub fn save(&self) -> Result<()> {
        todo!()
    }
    /// Digest of a file's content.
    pub fn hash_file(&self, _root: &Path, _source: &Source) -> Result<Digest> {
        todo!()
    }
    /// Digest of a set of entries: paths below `from`, types, modes, content, link targets; not owners, not times.
    pub fn hash_tree(&self, _root: &Path, _from: &ImagePath, _sources: &[Source]) -> Result<Digest> {
        todo!()
    }
}
