//! A layer directory or a view to a tar.
use super::view::{LayerDir, View};
use crate::error::Result;
use std::io::Write;
/// What was packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Size of the tar.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
}
/// Packs a layer.
pub fn pack_layer(_layer: &LayerDir, _out: impl Write) -> Result<Packed> {
    todo!()
}
/// Packs a flattened tree.
pub fn pack_view(_view: &View, _out: impl Write) -> Result<Packed> {
    todo!()
}
