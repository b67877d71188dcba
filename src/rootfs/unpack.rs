//! Unpacking: one uncompressed layer tar to one layer directory, streaming, with any input.
//!
//! Follows the image-spec ("Image Layer Filesystem Changeset") and, where that is silent, what Docker does:
//!
//! - `.wh.x` hides what lower layers have at `x`, `.wh..wh..opq` what they have in its directory, in whatever order they come; other `.wh..wh.*` are AUFS' own and skipped;
//! - a later entry replaces an earlier one, a directory over a directory only its metadata;
//! - a leading slash is dropped; `..` and NUL are errors; names are any other bytes;
//! - symlinks above an entry are followed within the layer's root, one at its place is replaced, targets are kept verbatim;
//! - a hard link's target must come before it in the same tar.
//!
//! Nothing is ever written outside the layer directory. On an error a part of the layer is left there for the caller to remove.

use std::fs::File;
use std::io::{BufRead, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::thread;

use super::archive::{Archive, Body, Header};
use super::chunks::{ChunkReader, pipe};
use super::meta::Kind;
use super::native::NativeTree;
use crate::error::{Error, Kind as ErrorKind, Result, quote};
use crate::oci::ImagePath;

/// As the kernel's own limit (MAXSYMLINKS).
pub(super) const MAX_SYMLINKS: usize = 40;

/// How to unpack. Nothing to choose so far.
#[derive(Clone, Debug, Default)]
pub struct UnpackOptions {}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Entries of the tar, whiteouts included, skipped ones not.
    pub entries: u64,
    /// Bytes of file content.
    pub bytes: u64,
    /// Whiteouts, opaque ones included.
    pub whiteouts: u64,
    /// Directories the tar has no entry for.
    pub implicit: u64,
}

/// Unpacks a layer into the directory `layer`, which gets `fs/` and, where needed, `record`; reads `tar` to its end.
///
/// Reading (and with it decompressing and digesting) happens on the calling thread, writing files on another.
pub fn unpack(tar: impl Read, layer: &Path, _options: &UnpackOptions) -> Result<Unpacked> {
    let tree_layer = layer.to_owned();
    thread::scope(|scope| {
        let (writer, reader) = pipe();
        let worker = scope.spawn(move || Unpacker::run(reader, &tree_layer));
        writer.pump(tar);
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

struct Unpacker {
    tree: NativeTree,
    done: Unpacked,
}

impl Unpacker {
    fn run(reader: ChunkReader, layer: &Path) -> Result<Unpacked> {
        let mut tree = NativeTree::create(layer)?;
        tree.put_implicit_root()?;
        let mut unpacker = Self { tree, done: Unpacked::default() };
        let mut archive = Archive::new(reader);
        while let Some(header) = archive.next_entry()? {
            unpacker.entry(&header, &mut archive).map_err(|e| archive.naming_entry(e))?;
        }
        let mut done = unpacker.done;
        let finished = unpacker.tree.finish()?;
        done.implicit = finished.record.implicit.len() as u64;
        Ok(done)
    }

    fn entry(&mut self, header: &Header, archive: &mut Archive<ChunkReader>) -> Result<()> {
        let written = entry_path(&header.name)?;
        let Some(name) = written.name() else { return self.root(header) };
        let parent = written.parent().unwrap_or_default();
        if parent.components().chain([name]).any(|part| part.starts_with(b".wh..wh.") && part != b".wh..wh..opq") {
            return Ok(());
        }
        if let Some(part) = parent.components().find(|part| part.starts_with(b".wh.")) {
            return Err(malformed(format!("the whiteout {} is used as a directory", quote(part))));
        }
        self.done.entries += 1;
        let parent = self.resolve_dir(&parent)?;
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return self.whiteout(&parent, hidden);
        }
        let path = parent.child(name);
        match &header.body {
            Body::Symlink(target) => {
                let target = check_target(target)?;
                self.tree.put_symlink(&path, &header.meta, target)
            }
            Body::HardLink(target) => self.hard_link(&path, target),
            Body::Plain if header.meta.kind == Kind::Directory => self.tree.put_dir(&path, &header.meta),
            Body::Plain if header.meta.kind != Kind::File => self.tree.put_special(&path, &header.meta),
            body => {
                self.done.bytes += header.meta.size;
                self.tree.put_file(&path, &header.meta, |_, file| write_content(archive, body, header.meta.size, file))
            }
        }
    }

    fn root(&mut self, header: &Header) -> Result<()> {
        if header.meta.kind != Kind::Directory {
            return Err(malformed("the root directory can't be anything else"));
        }
        self.done.entries += 1;
        self.tree.put_dir(&ImagePath::root(), &header.meta)
    }

    fn whiteout(&mut self, parent: &ImagePath, hidden: &[u8]) -> Result<()> {
        self.done.whiteouts += 1;
        match hidden {
            b".wh..opq" => self.tree.mark_opaque(parent),
            b"" | b"." | b".." => Err(malformed("a whiteout must name something in its own directory")),
            hidden => self.tree.whiteout(&parent.child(hidden)),
        }
    }

    fn hard_link(&mut self, path: &ImagePath, target: &[u8]) -> Result<()> {
        let written = entry_path(target)?;
        let missing = || malformed(format!("its hard link target {} is not in the archive before it", quote(target)));
        let (Some(parent), Some(name)) = (written.parent(), written.name()) else { return Err(missing()) };
        let parent = find_dir(&mut self.tree, &parent)?.ok_or_else(missing)?;
        if self.tree.link(&parent.child(name), path)? { Ok(()) } else { Err(missing()) }
    }

    /// The directory that `written` leads to; what is missing is made.
    fn resolve_dir(&mut self, written: &ImagePath) -> Result<ImagePath> {
        if self.tree.dir(written)?.is_some() {
            return Ok(written.clone());
        }
        let tree = &mut self.tree;
        follow(written, |path| match tree.stat(path)? {
            Some(stat) if stat.is_dir() => Ok(Met::Directory),
            Some(stat) if stat.file_type() == crate::sys::fs::FileType::Symlink => Ok(Met::Symlink(tree.read_link(path)?)),
            Some(stat) if !stat.is_whiteout() => Err(malformed(format!("{} above it is no directory", quote(path.as_bytes())))),
            _ => tree.put_implicit_dir(path).map(|()| Met::Directory),
        })
    }
}

/// What [`follow`] met on its way.
pub enum Met {
    /// Go on in it.
    Directory,
    /// Go on where it points.
    Symlink(Vec<u8>),
    /// There is nothing; the rest of the path stays as written.
    Nothing,
}

/// Follows the symlinks of a path as the kernel would with the image's root as its own: `..` never leaves it.
pub(super) fn follow(path: &ImagePath, mut look: impl FnMut(&ImagePath) -> Result<Met>) -> Result<ImagePath> {
    let mut todo: Vec<Vec<u8>> = path.components().rev().map(<[u8]>::to_vec).collect();
    let mut at = ImagePath::root();
    let mut links = 0;
    while let Some(part) = todo.pop() {
        match part.as_slice() {
            b"" | b"." => continue,
            b".." => {
                at = at.parent().unwrap_or_default();
                continue;
            }
            _ => {}
        }
        let next = at.child(&part);
        match look(&next)? {
            Met::Directory => at = next,
            Met::Nothing => {
                at = todo.iter().rev().fold(next, |at, part| at.resolve([b"./", part.as_slice()].concat()));
                break;
            }
            Met::Symlink(target) => {
                links += 1;
                if links > MAX_SYMLINKS {
                    return Err(malformed(format!("too many symbolic links in {}", quote(path.to_string()))));
                }
                if target.starts_with(b"/") {
                    at = ImagePath::root();
                }
                todo.extend(target.split(|&b| b == b'/').rev().map(<[u8]>::to_vec));
            }
        }
    }
    Ok(at)
}

/// The directory of the tree that `written` leads to, if there is one.
fn find_dir(tree: &mut NativeTree, written: &ImagePath) -> Result<Option<ImagePath>> {
    if tree.dir(written)?.is_some() {
        return Ok(Some(written.clone()));
    }
    let found = follow(written, |path| {
        Ok(match tree.stat(path)? {
            Some(stat) if stat.file_type() == crate::sys::fs::FileType::Symlink => Met::Symlink(tree.read_link(path)?),
            Some(stat) if stat.is_dir() => Met::Directory,
            _ => Met::Nothing,
        })
    })?;
    Ok(tree.dir(&found)?.is_some().then_some(found))
}

/// An entry's name as a path, or why it can't be one.
pub(super) fn entry_path(name: &[u8]) -> Result<ImagePath> {
    ImagePath::strict(name).ok_or_else(|| {
        malformed(if name.contains(&0) {
            format!("the name {} contains a NUL", quote(name))
        } else {
            format!("the name {} leads out with `..`", quote(name))
        })
    })
}

/// The kernel's own demands on a symlink's target, said clearly.
pub(super) fn check_target(target: &[u8]) -> Result<&[u8]> {
    match target {
        b"" => Err(malformed("the symbolic link has no target")),
        target if target.contains(&0) => Err(malformed("the symbolic link's target contains a NUL")),
        target => Ok(target),
    }
}

pub(super) fn malformed(what: impl Into<String>) -> Error {
    Error::with_kind(ErrorKind::Corrupt, what)
}

/// Writes an entry's content into a new file.
pub(super) fn write_content(archive: &mut Archive<impl BufRead>, body: &Body, size: u64, mut file: &File) -> Result<()> {
    let failed = |e| Error::os("can't write the file", e);
    let Body::Sparse(pieces) = body else { return write_piece(archive, u64::MAX, file) };
    for &(offset, length) in pieces {
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        write_piece(archive, length, file)?;
    }
    file.set_len(size).map_err(failed)
}

fn write_piece(archive: &mut Archive<impl BufRead>, mut length: u64, mut file: &File) -> Result<()> {
    while length > 0 {
        let piece = archive.fill()?;
        let n = piece.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        if n == 0 {
            return Ok(());
        }
        file.write_all(&piece[..n]).map_err(|e| Error::os("can't write the file", e))?;
        archive.consume(n);
        length -= n as u64;
    }
    Ok(())
}
