//! What an ELF file needs to run: its interpreter and the libraries it names.

use object::elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, FileHeader32, FileHeader64, PT_INTERP};
use object::read::elf::{Dyn as _, FileHeader, ProgramHeader as _};
use object::{Endianness, FileKind, ReadCache, ReadRef};

use crate::error::{Error, IoContext as _, Place, Result};

use std::fs::File;
use std::path::Path;

/// What one ELF file says about others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Libraries of another class or machine are not for it.
    pub(super) kind: Kind,
    /// `PT_INTERP`: the dynamic loader; `None` for static programs and libraries.
    pub(super) interpreter: Option<Vec<u8>>,
    /// `DT_NEEDED`, in order.
    pub(super) libraries: Vec<Vec<u8>>,
    /// `DT_RPATH`, unexpanded directories.
    pub(super) rpath: Vec<Vec<u8>>,
    /// `DT_RUNPATH`, unexpanded directories; where it is, `DT_RPATH` is ignored.
    pub(super) runpath: Vec<Vec<u8>>,
}

/// Class (32 or 64) and machine number (`EM_…`).
pub(super) type Kind = (u8, u16);

/// Reads an ELF file; `None` if it is none.
pub(super) fn read(path: &Path) -> Result<Option<Needs>> {
    let file = File::open(path).doing("open", path)?;
    let cache = ReadCache::new(file);
    let parsed = match FileKind::parse(&cache) {
        Ok(FileKind::Elf32) => needs::<FileHeader32<Endianness>, _>(&cache, 32),
        Ok(FileKind::Elf64) => needs::<FileHeader64<Endianness>, _>(&cache, 64),
        _ => return Ok(None),
    };
    let parsed = parsed.map_err(|e| Error::new("can't read an ELF file").at(Place::Path(path.to_owned())).cause(e))?;
    Ok(Some(parsed))
}

fn needs<'data, Elf: FileHeader<Endian = Endianness>, R: ReadRef<'data>>(data: R, class: u8) -> object::read::Result<Needs> {
    let header = Elf::parse(data)?;
    let endian = header.endian()?;
    let mut needs = Needs { kind: (class, header.e_machine(endian).0), ..Needs::default() };
    for segment in header.program_headers(endian, data)? {
        if segment.p_type(endian) == PT_INTERP {
            needs.interpreter = segment.interpreter(endian, data)?.map(<[u8]>::to_vec);
        }
    }
    let sections = header.sections(endian, data)?;
    let Some((entries, link)) = sections.dynamic(endian, data)? else { return Ok(needs) };
    let strings = sections.strings(endian, data, link)?;
    for entry in entries {
        let target = match entry.d_tag(endian) {
            DT_NEEDED => &mut needs.libraries,
            DT_RPATH => &mut needs.rpath,
            DT_RUNPATH => &mut needs.runpath,
            _ => continue,
        };
        let value: u64 = entry.d_val(endian).into();
        let Some(text) = u32::try_from(value).ok().and_then(|at| strings.get(at).ok()) else { continue };
        if entry.d_tag(endian) == DT_NEEDED {
            target.push(text.to_vec());
        } else {
            target.extend(text.split(|b| *b == b':').filter(|dir| !dir.is_empty()).map(<[u8]>::to_vec));
        }
    }
    Ok(needs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_very_program() {
        let own = read(&std::env::current_exe().unwrap()).unwrap().unwrap();
        assert!(own.interpreter.is_some_and(|i| i.starts_with(b"/lib")));
        assert!(own.libraries.iter().any(|l| l.starts_with(b"libc.so")), "{:?}", own.libraries);
        assert_eq!(read(Path::new("/etc/passwd")).unwrap(), None);
    }
}
