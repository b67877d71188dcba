//! Making programs that ask about many files ask less.
//!
//! An answer of the supervisor costs ten times what the call itself does, and nearly every file is as the kernel says. A process that has asked
//! often gets a graft: in its own copy of its program's code, the instruction it asked by becomes a jump to a stub ([`crate::sys::graft`])
//! in the unused end of the same mapping. The stub finds out natively that a file has no override, and asks only about others. It works for
//! any program that makes its calls as the C libraries do, static ones included; nothing of it is seen in files or the environment, and exec ends
//! it. Nothing depends on it: a process that can't be changed goes on asking.
//!
//! Not changed are programs with several threads (one might be just there), those that share their memory with their parent, and those with
//! seccomp filters of their own, which may not allow the stub's calls: before a process gets one, its grafts are switched off.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use nix::errno::Errno;

use super::procfs;
use super::request::Request;
use crate::sys::graft::{self, ALIGNMENT, OFF, SITE};
use crate::sys::notify;
use crate::sys::seccomp::Abi;

/// So many questions are answered before a program is changed, which costs as much as ten answers.
const ENOUGH: u16 = 32;
/// So many places of a program are tried.
const MOST_PLACES: usize = 8;
/// So much at the end of a mapping is looked at for an unused place, in bytes.
const TAIL: u64 = 4096;
/// So many zero bytes are left behind a stub, whose last instruction may end with some.
const MARGIN: u64 = 8;
/// So much of a file has its headers, in bytes.
const HEADER: usize = 4096;

/// Whether programs can be changed here; found out when it is first needed.
#[derive(Default)]
pub struct Grafting {
    /// How many seccomp filters a process has that has none of its own; `None`: no program is changed.
    filters: OnceLock<Option<u64>>,
}

/// What is known of a program's questions.
#[derive(Clone, Debug, Default)]
pub struct Grafts {
    asked: u16,
    tried: Vec<u64>,
}

impl Grafts {
    /// Counts a question from a place in the program; whether the place should be changed now.
    fn is_due(&mut self, place: u64) -> bool {
        self.asked = self.asked.saturating_add(1);
        if self.asked < ENOUGH || self.tried.len() >= MOST_PLACES || self.tried.contains(&place) {
            return false;
        }
        self.tried.push(place);
        true
    }
}

impl Grafting {
    /// The supervisor is under the same filters as the callers, without its own. To be called by a worker.
    fn filters(&self) -> Option<u64> {
        *self.filters.get_or_init(|| {
            let (_, own) = procfs::threads_and_filters_of(std::process::id()).ok()?;
            graft::is_possible().then_some(own + 1)
        })
    }
}

/// Notes that a process has asked for a file's attributes, and changes its program if it does so often.
pub fn consider(request: &Request<'_>, process: u32) {
    let place = request.note.instruction;
    let is_due = || request.shared.processes.with_grafts(process, |grafts| grafts.is_due(place)) == Some(true);
    if request.note.arch == Abi::X86_64.audit()
        && is_due()
        && let Some(filters) = request.shared.grafting.filters()
    {
        // Whatever is in the way: it goes on asking.
        let _ = make(request, process, filters);
    }
}

/// Switches the grafts in the caller's memory off. They are looked for: it may have them from an ancestor that nobody has met.
pub fn withdraw(request: &Request<'_>, process: u32) {
    if request.shared.grafting.filters().is_none() {
        return;
    }
    let Ok(memory) = memory_of(request.note.thread) else { return };
    let mut tail = vec![0; TAIL as usize];
    for mapping in mappings_of(process).into_iter().filter(Mapping::is_code) {
        let Some(start) = mapping.range.end.checked_sub(TAIL).filter(|&start| memory.read_exact_at(&mut tail, start).is_ok()) else {
            continue;
        };
        for at in graft::find(&tail) {
            if request.check_alive().is_ok() {
                // If it fails, the process is gone.
                let _ = memory.write_all_at(&OFF, start + at as u64);
            }
        }
    }
}

/// Puts a stub into the caller's memory and a jump to it where the caller has made its call; `None` if that can't be done.
fn make(request: &Request<'_>, process: u32, filters: u64) -> Option<()> {
    let (number, back) = (request.note.number, request.note.instruction);
    let site = back.checked_sub(SITE as u64)?;
    let parent = procfs::family_of(process).ok()?.parent;
    let alone = procfs::threads_and_filters_of(process).ok()? == (1, filters) && (parent == 0 || notify::have_own_memory(process, parent));
    let memory = memory_of(request.note.thread).ok()?;
    if !alone || !holds(&memory, site, &graft::site(number)) {
        return None;
    }
    let mappings = mappings_of(process);
    let room = unused(&memory, &mappings, mappings.iter().find(|mapping| mapping.is_code() && mapping.range.contains(&site))?)?;
    let stub = room.start;
    let code = graft::stub(number, stub, back)?;
    if stub + code.len() as u64 > room.end {
        return None;
    }
    let jump = graft::jump_to(site, stub)?;
    request.check_alive().ok()?;
    memory.write_all_at(&code, stub).ok()?;
    memory.write_all_at(&jump, site).ok()
}

fn memory_of(thread: u32) -> Result<File, Errno> {
    let opened = File::options().read(true).write(true).open(format!("{thread}/mem"));
    opened.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}

/// Whether these bytes stand at the address.
fn holds(memory: &File, address: u64, bytes: &[u8]) -> bool {
    let mut found = vec![0; bytes.len()];
    memory.read_exact_at(&mut found, address).is_ok() && found == bytes
}

/// A mapping of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    range: Range<u64>,
    permissions: String,
    /// Where in the file it begins, in bytes.
    offset: u64,
    /// The file, by device and inode.
    file: (String, String),
}

impl Mapping {
    /// Reads a line of `/proc/PID/maps`.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace().map(str::to_owned);
        let range = fields.next()?;
        let (start, end) = range.split_once('-')?;
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let range = number(start)?..number(end)?;
        let (permissions, offset) = (fields.next()?, number(&fields.next()?)?);
        Some(Self { range, permissions, offset, file: (fields.next()?, fields.next()?) })
    }

    /// A program's private code.
    fn is_code(&self) -> bool {
        self.permissions == "r-xp" && self.file.1 != "0"
    }
}

fn mappings_of(process: u32) -> Vec<Mapping> {
    let maps = std::fs::read_to_string(format!("{process}/maps")).unwrap_or_default();
    maps.lines().filter_map(Mapping::parse).collect()
}

/// The zero bytes that a mapping of code has behind its segment, to which nothing in the program can refer: the segment says where it ends.
fn unused(memory: &File, mappings: &[Mapping], code: &Mapping) -> Option<Range<u64>> {
    let first = mappings.iter().find(|mapping| mapping.file == code.file && mapping.offset == 0)?;
    let mut header = [0; HEADER];
    memory.read_exact_at(&mut header, first.range.start).ok()?;
    let start = code.range.start.checked_sub(code.offset)?.checked_add(end_of_segment(&header, code.offset)?)?.next_multiple_of(ALIGNMENT);
    let mut tail = vec![0; usize::try_from(code.range.end.checked_sub(start)?).ok().filter(|&length| length <= TAIL as usize)?];
    memory.read_exact_at(&mut tail, start).ok()?;
    // Behind the stubs that are there already.
    let used = tail.iter().rposition(|&byte| byte != 0).map_or(0, |at| at as u64 + MARGIN).next_multiple_of(ALIGNMENT);
    Some(start + used..code.range.end).filter(|range| !range.is_empty())
}

/// Where the segment ends in its file whose mapping begins at this offset (elf(5), 64 bit, little-endian).
fn end_of_segment(header: &[u8; HEADER], offset: u64) -> Option<u64> {
    const LOAD: u64 = 1;
    let field = |at: usize, size: usize| {
        header.get(at..at.checked_add(size)?).map(|bytes| bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
    };
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, size, count) = (field(32, 8)? as usize, field(54, 2)? as usize, field(56, 2)? as usize);
    (0..count).find_map(|number| {
        let entry = table.checked_add(number * size)?;
        let [kind, begin, in_file, in_memory] = [(0, 4), (8, 8), (32, 8), (40, 8)].map(|(at, size)| field(entry.checked_add(at)?, size));
        let begin = begin?;
        (kind? == LOAD && begin & !0xfff == offset && in_file? == in_memory?).then_some(begin.checked_add(in_file?)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_end_where_they_say() {
        let mut header = [0; HEADER];
        let own = File::open("/proc/self/exe").unwrap();
        own.read_exact_at(&mut header, 0).unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let code = maps.lines().filter_map(Mapping::parse).find(Mapping::is_code).unwrap();
        let end = end_of_segment(&header, code.offset).unwrap();
        let length = code.range.end - code.range.start;
        assert!((code.offset + length - 4096..=code.offset + length).contains(&end), "{end:x} {code:x?}");
        assert_eq!(end_of_segment(&header, 1), None);
        header[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(end_of_segment(&header, code.offset), None);
        assert_eq!(end_of_segment(&[0; HEADER], 0), None);
    }

    #[test]
    fn places_are_tried_once_and_not_too_many() {
        let mut grafts = Grafts::default();
        assert_eq!((1..ENOUGH).filter(|_| grafts.is_due(1)).count(), 0);
        assert_eq!([1, 1, 2, 1].map(|place| grafts.is_due(place)), [true, false, true, false]);
        assert_eq!((3..100).filter(|&place| grafts.is_due(place)).count(), MOST_PLACES - 2);
    }
}
