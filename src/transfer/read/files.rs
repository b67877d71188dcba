//! The files of a directory or an archive, by name, without ever leaving it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, IoContext as _, Kind, Result, quote};
use crate::oci::ImagePath;
use crate::rootfs::compress::{Compression, decompress};
use crate::rootfs::listing::Listing;
use crate::rootfs::meta;
use crate::rootfs::record::Record;
use crate::rootfs::squashfs;
use crate::rootfs::view::{Follow, LayerDir, View};
use crate::store::{Scratch, Store};

/// Named files.
pub(super) enum Files {
    /// Links in it are followed as if it were a root directory.
    Directory(View),
    /// Members of a tar.
    Archive { file: File, listing: Listing, _scratch: Option<Scratch> },
    /// Several that are one: a file is taken from the first that has it.
    Parts(Vec<Files>),
}

/// A file's bytes.
pub(super) enum Piece<'a> {
    Whole(File),
    Part { file: &'a File, at: u64, left: u64 },
}

impl Files {
    pub(super) fn directory(path: &Path) -> Result<Self> {
        if !std::fs::metadata(path).doing("open", path)?.is_dir() {
            return Err(Error::input("it is not a directory").hint("an archive of a layout is `oci-archive:FILE`"));
        }
        Ok(Self::Directory(View::new(vec![LayerDir { fs: path.to_owned(), record: Arc::new(Record::default()) }])))
    }

    pub(super) fn is_directory(&self) -> bool {
        matches!(self, Self::Directory(_))
    }

    /// Lists an archive; one that is compressed, or can't be read at will, is written out first.
    pub(super) fn archive(store: &Store, path: &Path) -> Result<Self> {
        let file = match path == Path::new("-") {
            // Opened anew by a name it would be refused to who may only read it.
            true => io::stdin().as_fd().try_clone_to_owned().map(File::from).map_err(|e| Error::os("can't read standard input", e))?,
            false => File::open(path).doing("open", path)?,
        };
        Self::opened(store, file, path)
    }

    /// The same of an open file, which is read from its start.
    pub(super) fn opened(store: &Store, mut file: File, path: &Path) -> Result<Self> {
        let found = file.metadata().doing("look at", path)?;
        if found.is_dir() {
            return Err(Error::input("it is a directory").hint("a layout directory is `oci:DIRECTORY`"));
        }
        let mut start = [0; 16];
        let length = if found.is_file() { file.read_at(&mut start, 0).doing("read", path)? } else { 0 };
        if squashfs::is_squashfs(&start[..length]) {
            return Err(Error::input("it is a squashfs image, which holds files and no images")
                .hint(format!("`rootling import {} NAME` makes an image of it", path.display())));
        }
        let mut scratch = None;
        if !found.is_file() || Compression::detect(&start[..length]) != Compression::None {
            let made = store.scratch()?;
            let plain = made.path().join("archive.tar");
            let mut out = File::options().read(true).write(true).create_new(true).open(&plain).doing("create", &plain)?;
            if io::copy(&mut decompress(file)?, &mut out).doing("write", &plain)? == 0 {
                return Err(Error::input("it is empty"));
            }
            out.rewind().doing("read", &plain)?;
            (file, scratch) = (out, Some(made));
        }
        let listing = Listing::of(&file)?;
        Ok(Self::Archive { file, listing, _scratch: scratch })
    }

    /// A file from an offset on, with its size; `None` if there is none of this name.
    pub(super) fn open(&self, name: &str, offset: u64) -> Result<Option<(Piece<'_>, u64)>> {
        match self {
            Self::Directory(view) => {
                let path = view.resolve(&ImagePath::clean(name), Follow::Last)?;
                let Some(node) = view.lookup(&path)?.filter(|node| node.meta.kind == meta::Kind::File) else { return Ok(None) };
                let mut file = view.open(&node)?;
                file.seek(SeekFrom::Start(offset)).doing("read", node.path.as_relative())?;
                Ok(Some((Piece::Whole(file), node.meta.size)))
            }
            Self::Archive { file, listing, .. } => Ok(listing.find(name).map(|member| {
                let left = member.size.saturating_sub(offset);
                (Piece::Part { file, at: member.offset + offset, left }, member.size)
            })),
            Self::Parts(parts) => parts.iter().find_map(|part| part.open(name, offset).transpose()).transpose(),
        }
    }

    /// A small file.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some((piece, size)) = self.open(name, 0)? else { return Ok(None) };
        if size > limit {
            return Err(Error::with_kind(Kind::Corrupt, format!("{} has {size} bytes; at most {limit} are allowed here", quote(name))));
        }
        let mut bytes = Vec::new();
        piece.take(limit).read_to_end(&mut bytes).doing("read", Path::new(name))?;
        Ok(Some(bytes))
    }
}

impl Read for Piece<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Whole(file) => file.read(buffer),
            Self::Part { file, at, left } => {
                let wanted = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                let count = file.read_at(&mut buffer[..wanted], *at)?;
                *at += count as u64;
                *left -= count as u64;
                Ok(count)
            }
        }
    }
}
