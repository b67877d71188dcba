//! What changed in a plain tree since it was last looked at.
use crate::error::Result;
use std::path::Path;
/// The state of a tree at one moment.
pub struct Snapshot {}
/// What a difference holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Nothing changed.
    pub empty: bool,
}
impl Snapshot {
    /// Remembers the tree of the layer directory `tree`.
    pub fn take(_tree: &Path) -> Result<Self> {
        todo!()
    }
    /// Writes what changed in `tree` (sealed) since as a layer directory.
    pub fn diff(&self, _tree: &Path, _into: &Path) -> Result<Difference> {
        todo!()
    }
}
