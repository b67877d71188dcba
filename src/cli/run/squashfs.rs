//! `rootling run FILE.sqfs`: the image mounted where this machine allows it, else unpacked, once.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{Arguments, EmulationArgument, Target, root};
use crate::cli::environment::Environment;
use crate::cli::render;
use crate::error::{Error, Kind, Result, quote};
use crate::event::Silent;
use crate::oci::{Config, DiffId, Digest};
use crate::rootfs::record::Record;
use crate::rootfs::squashfs;
use crate::rootfs::view::{LayerDir, View};
use crate::sandbox::{Access, MountedSquashfs, Root, SquashFuse};
use crate::store::{Scratch, StepRecord, Store};
use crate::transfer;

/// A mounted image; dropped in this order.
pub(super) struct Mounted {
    _image: MountedSquashfs,
    _mount_point: Scratch,
}

/// The file that is meant, if it is a squashfs image. An image in storage has its name before a file that is not plainly meant as one.
pub(super) fn named(text: &str, environment: &Environment) -> Option<File> {
    let path = Path::new(text);
    // A FIFO would wait for its other end.
    let file = path.is_file().then(|| File::open(path).ok())?.filter(transfer::is_squashfs)?;
    let stored = || {
        let store = environment.storage().ok().and_then(|directory| Store::open_existing(&directory).ok()?);
        store.is_some_and(|store| store.find_image(text).is_ok())
    };
    (text.contains('/') || !stored()).then_some(file)
}

/// Makes an image ready to run.
pub(super) fn target(file: &File, arguments: &Arguments, environment: &Environment) -> Result<Target> {
    let caller = super::caller();
    let store = environment.store()?;
    let why = match mounted(file, arguments, environment, &store) {
        Ok((view, root, mounted)) => {
            return Ok(Target {
                config: Config::default(),
                platform: None,
                view,
                root,
                caller,
                mounted: Some(mounted),
                store: Some(store),
            });
        }
        Err(error) if error.kind() == Kind::Corrupt => return Err(error),
        Err(error) => error.causes().last().map_or_else(|| error.what().to_owned(), Clone::clone),
    };
    let stack = [unpacked(file, arguments.image(), &why, &store)?];
    let (view, root) = root(&store, environment, &stack, arguments)?;
    Ok(Target { config: Config::default(), platform: None, view, root, caller, mounted: None, store: Some(store) })
}

/// Mounts it, if that gives what is wanted of it.
fn mounted(file: &File, arguments: &Arguments, environment: &Environment, store: &Store) -> Result<(View, Root, Mounted)> {
    let fuse = SquashFuse::find(&environment.programs())?;
    let owners = match squashfs::owners(file) {
        // squashfuse may know what we don't.
        Err(error) if error.kind() == Kind::Unsupported => vec![u32::MAX],
        owners => owners?,
    };
    // A mount shows owners that no namespace of ours has: nobody could be them, and their files could not be copied up to be written to.
    let emulated = arguments.user.is_some() || arguments.root_emulation.is_some_and(|wanted| wanted != EmulationArgument::None);
    if owners.iter().any(|&owner| owner != 0) && (arguments.write || emulated) {
        return Err(Error::with_kind(Kind::Unsupported, "not mounted").cause("its files have several owners"));
    }
    let scratch = store.scratch()?;
    let image = fuse.mount(Path::new(arguments.image()), scratch.path())?;
    let path = scratch.path().to_owned();
    let view = View::new(vec![LayerDir { fs: path.clone(), record: Record::default().into() }]);
    let root = match arguments.write {
        true => Root::Scratch { lowers: vec![path], disk: None },
        false => Root::Directory { path, access: Access::ReadOnly },
    };
    Ok((view, root, Mounted { _image: image, _mount_point: scratch }))
}

/// The layer of its files; made once, as long as the file stays the same and nobody prunes.
fn unpacked(file: &File, name: &str, why: &str, store: &Store) -> Result<DiffId> {
    let stat = file.metadata().map_err(|e| Error::io("look at", Path::new(name), e))?;
    let same = (stat.dev(), stat.ino(), stat.size(), stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec());
    let key = Digest::of(format!("squashfs {same:?}"));
    if let Some(layer) = store.step_get(&key)?.and_then(|step| step.layers.first().copied()) {
        return Ok(layer);
    }
    render::note(&format!("unpacking {} ({why}); kept for the next run, until `rootling prune --all`", quote(name)));
    let layer = transfer::import_squashfs(store, name, file, &Silent)?;
    store.step_put(&key, &StepRecord { layers: vec![layer], blobs: Vec::new(), value: serde_json::json!({ "squashfs": name }) })?;
    Ok(layer)
}
