//! An image back into the storage directory, under another name or in another form.

use crate::error::Result;
use crate::oci::{Platform, Reference};
use crate::transfer::bundle::Bundle;

/// Stores the documents of a bundle, whose layers are here, and names it.
pub(super) fn write(bundle: &Bundle<'_>, name: &Reference) -> Result<()> {
    let store = bundle.store();
    for image in &bundle.images {
        store.put_blob(&image.manifest.bytes)?;
    }
    match &bundle.index {
        Some(index) => {
            store.put_blob(&index.bytes)?;
            store.put_index(name, &index.descriptor, &Platform::host()).map(drop)
        }
        None => store.put_image(name, &bundle.images[0].manifest.descriptor, None).map(drop),
    }
}
