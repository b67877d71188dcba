//! One file of a view copied into a new layer: opened, read, digested and written once. The threads of `assemble` have one copier each.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use super::assemble::{Assembly, Body, Digested};
use super::chunks::CHUNK;
use super::entry;
use super::hash::with_attributes;
use super::meta::{Kind, Meta};
use super::native::{NativeTree, Unkept, finish_file};
use super::scan::{Source, source};
use super::view::Node;
use crate::error::{Error, Result, from_io, quote};
use crate::oci::{Digest, Hasher, ImagePath};
use crate::sys::fs::copy::Copier as Cloner;
use crate::sys::fs::xattr::Target;
use crate::sys::fs::{self, FileStat};

/// Larger files are not held in memory as a whole.
const WHOLE: u64 = CHUNK as u64;
/// Smaller ones cost more to clone than to write.
const CLONE: u64 = 64 << 10;
/// So many pieces of a large file wait for the packer.
const IN_FLIGHT: usize = 4;
/// A small file that is written to meanwhile is read again so often.
const TRIES: usize = 3;

/// What the copiers of one layer share.
pub(super) struct Copiers<'a> {
    assembly: &'a Assembly<'a>,
    root: Arc<OwnedFd>,
    umask: Option<u32>,
    cloner: Cloner,
}

/// One thread's copier, which keeps the two directories open that it used last.
pub(super) struct Copier<'a> {
    shared: &'a Copiers<'a>,
    from: Option<(usize, ImagePath, OwnedFd)>,
    to: Option<(ImagePath, OwnedFd)>,
}

/// A file for the packer.
pub(super) struct Ready {
    pub meta: Meta,
    pub payload: Payload,
}

/// A file's content.
pub(super) enum Payload {
    Whole(Vec<u8>),
    Stream(Pieces),
}

/// The content of a large file, piece by piece.
pub(super) struct Pieces {
    full: Receiver<Vec<u8>>,
    empty: Sender<Vec<u8>>,
}

/// What is known of a file that was copied.
pub(super) struct Copied {
    pub piece: usize,
    /// As it was when it was read.
    pub source: Source,
    /// If it was wanted.
    pub digest: Option<Digest>,
    pub unkept: Unkept,
    /// Whether the file system kept time, mode and size as they are.
    pub exact: bool,
}

/// How far a file is.
pub(super) enum Progress<'a> {
    Done(Copied),
    Streaming(Rest<'a>),
}

/// A large file that is open at both ends.
pub(super) struct Rest<'a> {
    piece: usize,
    node: &'a Node,
    from: File,
    to: File,
    stat: FileStat,
    /// As it was read, and as it shall be.
    was: Meta,
    meta: Meta,
    digested: Digested,
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
}

impl Pieces {
    /// The next piece; `None` if its reader failed.
    pub fn next(&self) -> Option<Vec<u8>> {
        self.full.recv().ok()
    }

    /// Gives a buffer back to be filled again.
    pub fn give_back(&self, buffer: Vec<u8>) {
        // A reader that is done needs none.
        let _ = self.empty.send(buffer);
    }
}

impl<'a> Copiers<'a> {
    pub fn new(tree: &NativeTree, assembly: &'a Assembly<'a>) -> Self {
        Self { assembly, root: tree.root().clone(), umask: tree.umask(), cloner: Cloner::default() }
    }

    pub fn copier(&'a self) -> Copier<'a> {
        Copier { shared: self, from: None, to: None }
    }
}

impl<'a> Copier<'a> {
    /// Copies the file that a piece says, or begins to.
    pub fn copy(&mut self, piece: usize) -> Result<(Ready, Progress<'a>)> {
        let target = &self.shared.assembly.pieces[piece];
        let Body::File(node, digested) = target.body else { return Err(Error::new("only files are copied")) };
        let from = self.open(node)?;
        let (stat, was) = self.look(&from, node)?;
        let mut meta = was.clone();
        (self.shared.assembly.change)(&mut meta);
        if was.kind == Kind::File && stat.size > WHOLE {
            let to = self.create(&target.path, &meta)?;
            let (full, pieces) = sync_channel(IN_FLIGHT);
            let (back, empty) = channel();
            let ready = Ready { meta: meta.clone(), payload: Payload::Stream(Pieces { full: pieces, empty: back }) };
            let rest = Rest { piece, node, from, to, stat, was, meta, digested, full, empty };
            return Ok((ready, Progress::Streaming(rest)));
        }
        let (bytes, stat, was) = self.read_whole(from, stat, was, node)?;
        let mut meta = was.clone();
        (self.shared.assembly.change)(&mut meta);
        let mut to = self.create(&target.path, &meta)?;
        to.write_all(&bytes).map_err(|e| unwritten(&target.path, e))?;
        let digest = (digested == Digested::Now).then(|| with_attributes(Digest::of(&bytes), &was, &stat));
        let copied = self.finish(piece, (node, &stat), digest, (&to, &target.path, &meta))?;
        Ok((Ready { meta, payload: Payload::Whole(bytes) }, Progress::Done(copied)))
    }

    /// Copies the rest of a large file, giving it to the packer on the way; `None` if there is none any more.
    pub fn stream(&mut self, rest: Rest<'a>) -> Result<Option<Copied>> {
        let path = &self.shared.assembly.pieces[rest.piece].path;
        let size = rest.stat.size;
        let cloned = size >= CLONE && self.shared.cloner.clone_whole(&rest.from, &rest.to, size);
        let sparse = rest.stat.blocks.saturating_mul(512) < size;
        let mut hasher = (rest.digested == Digested::Now).then(Hasher::new);
        // What is cloned does not change any more, whoever writes to the source.
        let from = if cloned { &rest.to } else { &rest.from };
        let (mut done, mut to) = (0, &rest.to);
        while done < size {
            let mut buffer = rest.empty.try_recv().unwrap_or_default();
            buffer.clear();
            let want = CHUNK.min(usize::try_from(size - done).unwrap_or(CHUNK));
            buffer.reserve_exact(CHUNK);
            read_exact(from, &mut buffer, want).map_err(|e| unread(rest.node, e))?;
            if let Some(hasher) = &mut hasher {
                hasher.update(&buffer);
            }
            if !cloned {
                let hole = sparse && buffer.iter().all(|byte| *byte == 0);
                let written = if hole { to.seek(SeekFrom::Current(want as i64)).map(drop) } else { to.write_all(&buffer) };
                written.map_err(|e| unwritten(path, e))?;
            }
            done += want as u64;
            if rest.full.send(buffer).is_err() {
                return Ok(None);
            }
        }
        if sparse && !cloned {
            rest.to.set_len(size).map_err(|e| unwritten(path, e))?;
        }
        let digest = hasher.map(|hasher| with_attributes(hasher.finish(), &rest.was, &rest.stat));
        self.finish(rest.piece, (rest.node, &rest.stat), digest, (&rest.to, path, &rest.meta)).map(Some)
    }

    fn finish(
        &self,
        piece: usize,
        (node, stat): (&Node, &FileStat),
        digest: Option<Digest>,
        (to, path, meta): (&File, &ImagePath, &Meta),
    ) -> Result<Copied> {
        let unkept = finish_file(to, path, meta, self.shared.umask)?;
        let made = fs::stat_fd(to).map_err(|e| unwritten(path, e))?;
        let exact = made.size == meta.size && made.mtime.0 == meta.mtime.secs && made.permissions() == meta.native_mode();
        Ok(Copied { piece, source: source(node.path.clone(), stat), digest, unkept, exact })
    }

    /// What the open file is.
    fn look(&self, file: &File, node: &Node) -> Result<(FileStat, Meta)> {
        let stat = fs::stat_fd(file).map_err(|e| unread(node, e))?;
        if entry::kind(&stat) != Kind::File {
            return Err(changed(node));
        }
        let record = &self.shared.assembly.view.layers()[node.layer].record;
        Ok((stat, entry::read(Target::Fd(file.as_fd()), &stat, record, &node.path)?.meta))
    }

    /// Reads a small file in one piece, again if it is written to meanwhile.
    fn read_whole(&mut self, file: File, mut stat: FileStat, mut was: Meta, node: &Node) -> Result<(Vec<u8>, FileStat, Meta)> {
        let mut file = file;
        for _ in 0..TRIES {
            // A device is kept as an empty file.
            let size = usize::try_from(was.size).unwrap_or_default();
            let mut bytes = Vec::with_capacity(size);
            let read = read_exact(&file, &mut bytes, size);
            let now = fs::stat_fd(&file).map_err(|e| unread(node, e))?;
            match read {
                Ok(()) if now == stat => return Ok((bytes, stat, was)),
                Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(unread(node, e)),
                _ => {}
            }
            // What has replaced it may be a new file.
            file = self.open(node)?;
            (stat, was) = self.look(&file, node)?;
        }
        Err(changed(node))
    }

    fn open(&mut self, node: &Node) -> Result<File> {
        let (parent, name) = split(&node.path);
        let view = self.shared.assembly.view;
        if self.from.as_ref().is_none_or(|(layer, path, _)| *layer != node.layer || path.as_bytes() != parent) {
            let path = ImagePath::clean(parent);
            let dir = view.open_dir(&path, node.layer)?;
            self.from = Some((node.layer, path, dir));
        }
        let (_, _, dir) = self.from.as_ref().ok_or_else(|| Error::new("no directory is open"))?;
        fs::open_file(dir, name).map_err(|e| unread(node, e))
    }

    fn create(&mut self, path: &ImagePath, meta: &Meta) -> Result<File> {
        let (parent, name) = split(path);
        if self.to.as_ref().is_none_or(|(path, _)| path.as_bytes() != parent) {
            let dir = fs::open_dir_below(&self.shared.root, parent).map_err(|e| unwritten(path, e))?;
            self.to = Some((ImagePath::clean(parent), dir));
        }
        let (_, dir) = self.to.as_ref().ok_or_else(|| Error::new("no directory is open"))?;
        fs::create_file(dir, name, meta.native_mode() & 0o777).map_err(|e| unwritten(path, e))
    }
}

/// Reads so many bytes.
fn read_exact(file: &File, buffer: &mut Vec<u8>, size: usize) -> io::Result<()> {
    while buffer.len() < size {
        let left = size - buffer.len();
        if fs::read_append(file, buffer, left)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was read"));
        }
    }
    Ok(())
}

/// The directory's path and the name in it.
fn split(path: &ImagePath) -> (&[u8], &[u8]) {
    let bytes = path.as_bytes();
    bytes.iter().rposition(|&b| b == b'/').map_or((&[][..], bytes), |at| (&bytes[..at], &bytes[at + 1..]))
}

fn changed(node: &Node) -> Error {
    Error::input(format!("{} changes while it is copied", quote(node.path.to_string())))
        .hint("build when nothing writes to it, or leave it out by `.dockerignore`")
}

fn unread(node: &Node, cause: io::Error) -> Error {
    from_io(|| format!("can't read {}", quote(node.path.to_string())), cause)
}

fn unwritten(path: &ImagePath, cause: io::Error) -> Error {
    from_io(|| format!("can't write {}", quote(path.to_string())), cause)
}
