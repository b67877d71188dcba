//! A new layer made from a list of entries, written by several threads and packed while it is written: each file is read once.
//!
//! The list is complete and in the order of the tar, so nothing is looked up and nothing replaced. Along it move
//!
//! - the *maker*, who makes directories and everything else that has no content to copy,
//! - several *copiers* (`copier`), who follow it with groups of files: read, digest, write,
//! - the *packer*, who follows them and gives the tar to whoever computes the diff ID.
//!
//! Not here: what comes to lie where (`build`), layers that replace or remove something they hold themselves (`writer`).

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::copier::{Copied, Copiers, Payload, Progress, Ready};
use super::meta::{Kind, Meta, Mtime};
use super::native::NativeTree;
use super::pack::{Packed, finish, header, pack_layer, piped, trouble};
use super::scan::Source;
use super::tar_writer::{Body as TarBody, TarWriter};
use super::view::{LayerDir, Node, View};
use crate::error::{Error, Kind as ErrorKind, Result, from_io, quote};
use crate::oci::{Digest, Hasher, ImagePath};

/// An entry of the new layer.
#[derive(Debug)]
pub struct Piece<'a> {
    /// Where.
    pub path: ImagePath,
    /// What it shall be. Of a file that is copied, what it was when it was listed.
    pub meta: Meta,
    /// What it is made of.
    pub body: Body<'a>,
}

/// What an entry is made of.
#[derive(Debug)]
pub enum Body<'a> {
    /// What `meta` says, without content.
    Plain,
    /// A symlink to this target.
    Symlink(Vec<u8>),
    /// A file with this content.
    Bytes(&'a [u8]),
    /// A copy of a file of the view.
    File(&'a Node, Digested),
    /// Another name of a piece before.
    HardLink(ImagePath),
}

/// Whether the digest of a file's content is to be computed on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digested {
    /// It is known.
    Before,
    /// It is not.
    Now,
}

/// All that a layer is made of.
pub struct Assembly<'a> {
    /// The entries: each path once, each directory before what is in it, in the order of paths; without the root.
    pub pieces: &'a [Piece<'a>],
    /// What the root directory is, of which the layer says nothing.
    pub root: &'a Meta,
    /// Where copied files come from.
    pub view: &'a View,
    /// What is changed about them.
    pub change: &'a (dyn Fn(&mut Meta) + Sync),
}

/// What was made.
#[derive(Debug)]
pub struct Assembled {
    /// Digest of the tar that the layer packs to.
    pub diff_id: Digest,
    /// Its size.
    pub size: u64,
    /// Files whose digest was not known, as they were when they were read, by the number of their piece.
    pub digests: Vec<(usize, Source, Digest)>,
}

/// The longest path that a layer takes: the kernel takes no longer one (PATH_MAX with its final NUL), nor does unpacking.
pub const MAX_PATH: usize = 4095;

/// An error if a path is longer than a layer takes.
pub fn check_length(path: &ImagePath) -> Result<()> {
    if path.as_bytes().len() <= MAX_PATH {
        return Ok(());
    }
    let start = String::from_utf8_lossy(&path.as_bytes()[..60]).into_owned();
    let what = format!("a path that begins with {} has more than {MAX_PATH} bytes", quote(format!("{start}…")));
    Err(Error::with_kind(ErrorKind::Unsupported, what).hint("leave the directory out by `.dockerignore`"))
}

/// Groups of files are worked on ahead of the packer up to this number, which bounds the memory they take.
const AHEAD: usize = 32;
/// A group has as many files, or so many bytes: waking a thread then costs little, and the last group does not keep all waiting.
const GROUP_FILES: usize = 64;
const GROUP_BYTES: u64 = 512 << 10;
/// After so many entries the maker says how far it has come.
const MAKER_STEP: usize = 32;

/// Makes the layer in the directory `layer`, whose `fs/` must not exist or be empty.
///
/// Errors: those of reading and writing; then the directory is to be thrown away.
pub fn assemble(layer: &Path, assembly: &Assembly<'_>) -> Result<Assembled> {
    let mut tree = NativeTree::create(layer)?;
    tree.put_dir(&ImagePath::root(), assembly.root)?;
    tree.record_mut().implicit.insert(ImagePath::root());
    let groups = groups(assembly.pieces);
    let line = Line { assembly, groups: &groups, state: Mutex::default(), changed: Condvar::new() };
    let copiers = Copiers::new(&tree, assembly);
    let mut hasher = Hasher::new();
    let packed = line.run(&mut tree, &copiers, &mut hasher);
    let mut state = line.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = state.error.take() {
        return Err(error);
    }
    let packed = packed?;
    let mut exact = assembly.pieces.iter().all(|piece| is_kept_exactly(piece.meta.mtime));
    let mut digests = Vec::new();
    for copied in state.copied {
        exact &= copied.exact;
        digests.extend(copied.digest.map(|digest| (copied.piece, copied.source, digest)));
        tree.keep(&assembly.pieces[copied.piece].path, copied.unkept);
    }
    link(&mut tree, assembly.pieces)?;
    tree.finish()?;
    if exact {
        return Ok(Assembled { diff_id: hasher.finish(), size: packed.bytes, digests });
    }
    // What the file system made of it is what counts, now and when it is packed again.
    let mut hasher = Hasher::new();
    let packed = pack_layer(&LayerDir::open(layer)?, &mut hasher)?;
    Ok(Assembled { diff_id: hasher.finish(), size: packed.bytes, digests })
}

/// Whether every file system keeps such a time as it is: those of before 1970 or after 2038 some don't.
fn is_kept_exactly(time: Mtime) -> bool {
    i32::try_from(time.secs).is_ok_and(|secs| secs >= 0)
}

fn link(tree: &mut NativeTree, pieces: &[Piece<'_>]) -> Result<()> {
    for piece in pieces {
        if let Body::HardLink(target) = &piece.body
            && !tree.link(target, &piece.path)?
        {
            return Err(Error::new(format!("{} can't be a hard link to {}", quote(piece.path.to_string()), quote(target.to_string()))));
        }
    }
    Ok(())
}

/// Numbers of the pieces that are copied files, in groups; a large file is one by itself.
fn groups(pieces: &[Piece<'_>]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut room: Option<(usize, u64)> = None;
    for (number, piece) in pieces.iter().enumerate() {
        let Body::File(node, _) = piece.body else { continue };
        let size = node.meta.size;
        match (&mut room, groups.last_mut()) {
            (Some((files, bytes)), Some(group)) if *files > 0 && *bytes >= size => {
                group.push(number);
                (*files, *bytes) = (*files - 1, *bytes - size);
            }
            _ => {
                groups.push(vec![number]);
                room = GROUP_BYTES.checked_sub(size).map(|left| (GROUP_FILES - 1, left));
            }
        }
    }
    groups
}

/// The list, and how far each has come along it.
struct Line<'a> {
    assembly: &'a Assembly<'a>,
    groups: &'a [Vec<usize>],
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Pieces before this number are made, or have a directory to be made in.
    made: usize,
    /// The next group to be copied.
    next: usize,
    /// Groups before this number have been taken by the packer.
    taken: usize,
    ready: HashMap<usize, Vec<Ready>>,
    stopped: bool,
    error: Option<Error>,
    copied: Vec<Copied>,
}

impl Line<'_> {
    /// Does all the work; the calling thread digests.
    fn run(&self, tree: &mut NativeTree, copiers: &Copiers<'_>, hasher: &mut Hasher) -> Result<Packed> {
        let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get).min(self.groups.len());
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| self.copy_files(copiers));
            }
            scope.spawn(|| self.make(tree));
            let packed = piped(hasher, |tar| self.pack(tar));
            if packed.is_err() {
                self.stop(None);
            }
            packed
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `ready` says something; `None` if all is to stop.
    fn wait<T>(&self, mut ready: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(found) = ready(&mut state) {
                return Some(found);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends the work of all; the first error is the one that counts.
    fn stop(&self, error: Option<Error>) {
        let mut state = self.lock();
        state.stopped = true;
        if state.error.is_none() {
            state.error = error;
        }
        drop(state);
        self.changed.notify_all();
    }

    fn make(&self, tree: &mut NativeTree) {
        for (number, piece) in self.assembly.pieces.iter().enumerate() {
            if let Err(e) = make(tree, piece) {
                return self.stop(Some(e.context(format!("can't write {}", quote(piece.path.to_string())))));
            }
            if (number + 1) % MAKER_STEP == 0 || number + 1 == self.assembly.pieces.len() {
                let mut state = self.lock();
                state.made = number + 1;
                let stopped = state.stopped;
                drop(state);
                self.changed.notify_all();
                if stopped {
                    return;
                }
            }
        }
    }

    fn copy_files(&self, copiers: &Copiers<'_>) {
        let mut copier = copiers.copier();
        let next = |state: &mut State| {
            let Some(group) = self.groups.get(state.next) else { return Some(None) };
            let open = state.next < state.taken + AHEAD && group.last().is_some_and(|last| *last < state.made);
            open.then(|| {
                state.next += 1;
                Some((state.next - 1, group))
            })
        };
        while let Some(Some((number, group))) = self.wait(next) {
            let mut ready = Vec::with_capacity(group.len());
            let mut copied = Vec::with_capacity(group.len());
            let mut later = None;
            for &piece in group {
                match copier.copy(piece) {
                    Ok((found, done)) => {
                        ready.push(found);
                        match done {
                            Progress::Done(done) => copied.push(done),
                            Progress::Streaming(rest) => later = Some(rest),
                        }
                    }
                    Err(e) => return self.stop(Some(e)),
                }
            }
            let mut state = self.lock();
            state.ready.insert(number, ready);
            state.copied.append(&mut copied);
            drop(state);
            self.changed.notify_all();
            // The packer must have the other end before the file is sent through.
            match later.map(|rest| copier.stream(rest)) {
                Some(Ok(done)) => self.lock().copied.extend(done),
                Some(Err(e)) => return self.stop(Some(e)),
                None => {}
            }
        }
    }

    fn pack(&self, mut tar: TarWriter) -> Result<Packed> {
        let mut files = Vec::new().into_iter();
        let mut linked = linked(self.assembly.pieces);
        for piece in self.assembly.pieces {
            let (path, meta) = (&piece.path, &piece.meta);
            match &piece.body {
                Body::Plain => header(&mut tar, path, meta, &TarBody::Plain)?,
                Body::Symlink(target) => header(&mut tar, path, &Meta { mode: 0o777, ..meta.clone() }, &TarBody::Symlink(target))?,
                Body::HardLink(target) => {
                    // Other names say of a file what it is.
                    let meta = linked.get(target).and_then(Option::as_ref).unwrap_or(meta);
                    header(&mut tar, path, meta, &TarBody::HardLink(target.as_bytes()))?;
                }
                Body::Bytes(bytes) => {
                    header(&mut tar, path, &Meta { size: bytes.len() as u64, ..meta.clone() }, &TarBody::Plain)?;
                    tar.content_bytes(bytes).map_err(|e| trouble("pack", path, e))?;
                }
                Body::File(..) => {
                    let ready: Ready = match files.next() {
                        Some(ready) => ready,
                        None => {
                            let group = self.wait(|state| {
                                let group = state.ready.remove(&state.taken)?;
                                state.taken += 1;
                                Some(group)
                            });
                            files = group.ok_or_else(stopped)?.into_iter();
                            self.changed.notify_all();
                            files.next().ok_or_else(|| Error::new("a group of files is empty"))?
                        }
                    };
                    if let Some(meta) = linked.get_mut(path) {
                        *meta = Some(ready.meta.clone());
                    }
                    pack_file(&mut tar, path, ready)?;
                }
            }
        }
        finish(tar)
    }
}

/// The files that have other names, to be filled in with what they are.
fn linked<'a>(pieces: &'a [Piece<'_>]) -> HashMap<&'a ImagePath, Option<Meta>> {
    let target = |piece: &'a Piece<'_>| match &piece.body {
        Body::HardLink(target) => Some((target, None)),
        _ => None,
    };
    pieces.iter().filter_map(target).collect()
}

/// Of the packer when somebody else failed, whose error is the one that counts.
fn stopped() -> Error {
    Error::new("the work was stopped")
}

fn pack_file(tar: &mut TarWriter, path: &ImagePath, ready: Ready) -> Result<()> {
    header(tar, path, &ready.meta, &TarBody::Plain)?;
    let failed = |e| trouble("pack", path, e);
    match ready.payload {
        Payload::Whole(bytes) => tar.content_bytes(&bytes).map_err(failed),
        Payload::Stream(pieces) => {
            let mut left = ready.meta.size;
            while left > 0 {
                let piece = pieces.next().ok_or_else(stopped)?;
                left = left.checked_sub(piece.len() as u64).ok_or_else(|| Error::new("a file has more bytes than it said"))?;
                if let Some(empty) = tar.content_piece(piece).map_err(failed)? {
                    pieces.give_back(empty);
                }
            }
            tar.content_end(ready.meta.size).map_err(failed)
        }
    }
}

fn make(tree: &mut NativeTree, piece: &Piece<'_>) -> Result<()> {
    match &piece.body {
        // Copiers make these, and links need what they link to.
        Body::File(..) | Body::HardLink(_) => Ok(()),
        Body::Symlink(target) => tree.put_symlink(&piece.path, &piece.meta, target),
        Body::Bytes(bytes) => tree.put_file(&piece.path, &piece.meta, |_, mut file| {
            file.write_all(bytes).map_err(|e| from_io(|| "can't write the file".into(), e))
        }),
        Body::Plain => match piece.meta.kind {
            Kind::Directory => tree.put_dir(&piece.path, &piece.meta),
            Kind::File => tree.put_file(&piece.path, &piece.meta, |_, _| Ok(())),
            Kind::Symlink => Err(Error::new("a symbolic link needs a target")),
            _ => tree.put_special(&piece.path, &piece.meta),
        },
    }
}
