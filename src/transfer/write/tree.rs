//! A flattened root file system as plain files, a directory a platform where there are several.

use std::path::Path;

use crate::error::{Error, IoContext as _, Result, quote_path};
use crate::event::{Event, Sink};
use crate::rootfs::extract::{Top, extract};
use crate::rootfs::view::View;
use crate::transfer::bundle::Bundle;
use crate::transfer::draft;

/// Writes the files. A directory that is not there yet appears when it is whole; into one that is there files are put one by one.
pub(super) fn write(bundle: &Bundle<'_>, directory: &Path, sink: &dyn Sink) -> Result<()> {
    check_outside(bundle.store().path(), directory)?;
    let fresh = !directory.exists();
    if !fresh {
        return fill(bundle, directory, Top::Theirs, sink);
    }
    let unfinished = draft::Directory::beside(directory)?;
    fill(bundle, unfinished.path(), Top::New, sink)?;
    unfinished.place(directory)
}

/// What an image holds must not pass for what the storage directory holds.
pub(in crate::transfer) fn check_outside(storage: &Path, directory: &Path) -> Result<()> {
    let absolute = std::path::absolute(directory).doing("look at", directory)?;
    let exists = absolute.ancestors().find_map(|path| std::fs::canonicalize(path).ok()).unwrap_or_default();
    let storage = std::fs::canonicalize(storage).unwrap_or_else(|_| storage.to_owned());
    if exists.starts_with(&storage) {
        return Err(Error::input(format!("{} is in the storage directory", quote_path(directory)))
            .hint("choose a place outside; `rootling path IMAGE` prints a tree that is there already"));
    }
    Ok(())
}

fn fill(bundle: &Bundle<'_>, target: &Path, top: Top, sink: &dyn Sink) -> Result<()> {
    for image in &bundle.images {
        let view = View::new(bundle.store().stack(&image.parsed.rootfs.diff_ids)?);
        // BuildKit's names: `linux_amd64`, `linux_arm_v7`.
        let below = match bundle.index {
            Some(_) => {
                let below = target.join(image.platform.to_string().replace('/', "_"));
                std::fs::create_dir_all(&below).doing("create", &below)?;
                below
            }
            None => target.to_owned(),
        };
        let left_out = extract(&view, &below, top)?;
        if left_out > 0 {
            sink.event(Event::Warning(&format!("left out {left_out} device nodes, which only root can make; a tarball holds them")));
        }
    }
    Ok(())
}
