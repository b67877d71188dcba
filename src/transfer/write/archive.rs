//! A tar whose entries belong to nobody and to no time.

use std::io::{self, Write};

use tar::{EntryType, Header};

use crate::error::{Error, Kind, Result, from_io, quote};

const BLOCK: u64 = 512;

/// An archive being written; [`Archive::finish`] ends it.
pub(in crate::transfer) struct Archive<'a> {
    out: &'a mut dyn Write,
}

impl<'a> Archive<'a> {
    pub(in crate::transfer) fn new(out: &'a mut dyn Write) -> Self {
        Self { out }
    }

    pub(in crate::transfer) fn directory(&mut self, name: &str) -> Result<()> {
        self.header(name, EntryType::Directory, 0o755, 0, None)
    }

    pub(in crate::transfer) fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.stream(name, bytes.len() as u64, |out| out.write_all(bytes).map_err(failed))
    }

    pub(in crate::transfer) fn symlink(&mut self, name: &str, target: &str) -> Result<()> {
        self.header(name, EntryType::Symlink, 0o777, 0, Some(target))
    }

    /// A file whose content must turn out to have the size announced.
    pub(in crate::transfer) fn stream(&mut self, name: &str, size: u64, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        self.header(name, EntryType::Regular, 0o644, size, None)?;
        let mut counted = Counted { out: self.out, written: 0 };
        fill(&mut counted)?;
        if counted.written != size {
            return Err(Error::with_kind(Kind::Corrupt, format!("can't write {}", quote(name)))
                .cause(format!("it has {} bytes, {size} were announced", counted.written)));
        }
        let padding = usize::try_from(size.next_multiple_of(BLOCK) - size).unwrap_or_default();
        self.out.write_all(&[0; BLOCK as usize][..padding]).map_err(failed)
    }

    pub(in crate::transfer) fn finish(self) -> Result<()> {
        self.out.write_all(&[0; 2 * BLOCK as usize]).map_err(failed)
    }

    fn header(&mut self, name: &str, kind: EntryType, mode: u32, size: u64, link: Option<&str>) -> Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_path(name).map_err(failed)?;
        link.map_or(Ok(()), |target| header.set_link_name(target)).map_err(failed)?;
        header.set_cksum();
        self.out.write_all(header.as_bytes()).map_err(failed)
    }
}

struct Counted<'a> {
    out: &'a mut dyn Write,
    written: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn failed(e: io::Error) -> Error {
    from_io(|| "can't write the archive".into(), e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_must_hold() {
        for (size, fits) in [(0, false), (5, true), (512, false)] {
            let mut out = Vec::new();
            let outcome = Archive::new(&mut out).stream("a", size, |out| out.write_all(b"hello").map_err(failed));
            assert_eq!(outcome.is_ok(), fits, "{size}");
        }
        let mut out = Vec::new();
        let mut archive = Archive::new(&mut out);
        archive.directory("d/").unwrap();
        archive.bytes("d/a", &[7; 700]).unwrap();
        archive.symlink("l", "d/a").unwrap();
        archive.finish().unwrap();
        let names: Vec<String> = tar::Archive::new(&out[..])
            .entries()
            .unwrap()
            .map(|entry| String::from_utf8(entry.unwrap().path_bytes().into_owned()).unwrap())
            .collect();
        assert_eq!(names, ["d/", "d/a", "l"]);
    }
}
