//! Making programs that ask about many files ask less.
//!
//! An answer of the supervisor costs ten times what the call itself does, and nearly every file is as the kernel says. A process that has asked
//! often gets a graft: in its own copy of its program's code, the instruction it asked by becomes a jump to a stub ([`crate::sys::graft`])
//! in the unused end of the same mapping. The stub finds out natively that a file has no override, and asks only about others. It works for
//! any program that makes its calls as the C libraries do, static ones included; nothing of it is seen in files or the environment, and exec ends
//! it. Nothing depends on it: a process that can't be changed goes on asking.
//!
//! Not changed are programs with several threads (one might be just there), and those with seccomp filters of their own, which may not allow
//! the stub's calls: before a process gets one, its grafts are switched off.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use nix::errno::Errno;

use super::procfs;
use super::request::Request;
use crate::sys::graft::{self, ALIGNMENT, OFF, SITE};
use crate::sys::seccomp::Abi;

/// So many questions are answered before a program is changed, which costs as much as ten answers.
const ENOUGH: u16 = 32;
/// So many places of a program are tried.
const MOST_PLACES: usize = 8;
/// So many grafts are remembered, a process's own and inherited ones.
const MOST_GRAFTS: usize = 32;
/// So much at the end of a mapping is looked at for an unused place, in bytes.
const TAIL: u64 = 4096;
/// So many zero bytes are left to the program, whose last instruction may end with some.
const MARGIN: u64 = 32;

/// Whether programs can be changed here; found out when it is first needed.
#[derive(Default)]
pub struct Grafting {
    /// How many seccomp filters a process has that has none of its own; `None`: no program is changed.
    filters: OnceLock<Option<u64>>,
}

/// A stub in a process's memory.
#[derive(Clone, Copy, Debug)]
struct Graft {
    number: u32,
    stub: u64,
    back: u64,
}

/// What is known of a process's grafts. A child begins with its parent's, which it has in its copy of the memory.
#[derive(Clone, Debug, Default)]
pub struct Grafts {
    asked: u16,
    tried: Vec<u64>,
    made: Vec<Graft>,
    closed: bool,
}

impl Grafts {
    /// Exec brings other code. Grafts are still remembered, since it may fail; they are recognised before they are touched.
    pub fn forget_program(&mut self) {
        self.asked = 0;
        self.tried.clear();
    }

    /// Counts a question from a place in the program; whether the place should be changed now.
    fn is_due(&mut self, place: u64) -> bool {
        self.asked = self.asked.saturating_add(1);
        if self.asked < ENOUGH || self.closed || self.tried.contains(&place) {
            return false;
        }
        let room = self.tried.len() < MOST_PLACES && self.made.len() < MOST_GRAFTS;
        if room {
            self.tried.push(place);
        }
        room
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
        && let Some(graft) = make(request, process, filters)
    {
        request.shared.processes.with_grafts(process, |grafts| grafts.made.push(graft));
    }
}

/// Switches a process's grafts off for good.
pub fn withdraw(request: &Request<'_>, process: u32) {
    let made = request.shared.processes.with_grafts(process, |grafts| {
        grafts.closed = true;
        grafts.made.clone()
    });
    let Some(made) = made.filter(|made| !made.is_empty()) else { return };
    let Ok(memory) = memory_of(request.note.thread) else { return };
    for Graft { number, stub, back } in made {
        // The whole stub is compared: the process may be another program by now.
        let is_there = graft::stub(number, stub, back).is_some_and(|code| holds(&memory, stub, &code));
        if is_there && request.check_alive().is_ok() {
            // If it fails, the process is gone.
            let _ = memory.write_all_at(&OFF, stub);
        }
    }
}

/// Puts a stub into the caller's memory and a jump to it where the caller has made its call; `None` if that can't be done.
fn make(request: &Request<'_>, process: u32, filters: u64) -> Option<Graft> {
    let (number, back) = (request.note.number, request.note.instruction);
    let site = back.checked_sub(SITE as u64)?;
    if procfs::threads_and_filters_of(process).ok()? != (1, filters) {
        return None;
    }
    let memory = memory_of(request.note.thread).ok()?;
    if !holds(&memory, site, &graft::site(number)) {
        return None;
    }
    let end = end_of_code(process, site)?;
    let stub = unused(&memory, end)?;
    let code = graft::stub(number, stub, back)?;
    if stub + code.len() as u64 > end {
        return None;
    }
    let jump = graft::jump_to(site, stub)?;
    request.check_alive().ok()?;
    memory.write_all_at(&code, stub).ok()?;
    memory.write_all_at(&jump, site).ok()?;
    Some(Graft { number, stub, back })
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

/// Where the mapping ends that holds this address, if it is a program's private code.
fn end_of_code(process: u32, address: u64) -> Option<u64> {
    let maps = std::fs::read_to_string(format!("{process}/maps")).ok()?;
    maps.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let [start, end] = [start, end].map(|number| u64::from_str_radix(number, 16));
        let (start, end) = (start.ok()?, end.ok()?);
        (fields.next()? == "r-xp" && (start..end).contains(&address)).then_some(end)
    })
}

/// The first place in the zero bytes before `end`: a linker fills the last page of the code with them.
fn unused(memory: &File, end: u64) -> Option<u64> {
    let mut tail = vec![0; TAIL as usize];
    memory.read_exact_at(&mut tail, end.checked_sub(TAIL)?).ok()?;
    let used = tail.iter().rposition(|&byte| byte != 0).map_or(0, |at| at as u64 + 1);
    Some((end - TAIL + used + MARGIN).next_multiple_of(ALIGNMENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_tried_once_and_not_too_many() {
        let mut grafts = Grafts::default();
        assert_eq!((1..ENOUGH).filter(|_| grafts.is_due(1)).count(), 0);
        assert_eq!([1, 1, 2, 1].map(|place| grafts.is_due(place)), [true, false, true, false]);
        assert_eq!((3..100).filter(|&place| grafts.is_due(place)).count(), MOST_PLACES - 2);
        grafts.forget_program();
        assert!(!grafts.is_due(1));
        grafts.closed = true;
        assert_eq!((0..100).filter(|&place| grafts.is_due(place)).count(), 0);
    }
}
