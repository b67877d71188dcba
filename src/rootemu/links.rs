//! Names that lead through `/proc/self`, which is the caller's, not the reader's.
//!
//! Most begin with it and are rewritten ([`super::paths`]). Here are the others: those that reach it by another way of writing, and symlinks
//! to it, such as a log that leads to `/dev/stdout`. Their links are followed one by one.
//!
//! Looking for such symlinks costs, so it is done only before something is changed. stat of one tells what the kernel does.

use std::ffi::CStr;
use std::mem::MaybeUninit;

use nix::errno::Errno;
use rustix::fs::CWD;

use super::calls::Call;
use super::paths::{Follow, PathBuffer, base, prefix};
use super::processes::Caller;
use super::procfs::{Name, errno};
use super::request::Request;

/// As many as the kernel follows (MAXSYMLINKS).
const MOST_LINKS: usize = 40;
const PATH_MAX: usize = 4096;

/// Whether a path may lead through `/proc/self`.
pub fn lead_home(request: &Request<'_>, directory: i32, buffer: &mut PathBuffer, follow: Follow) -> bool {
    if names_self(buffer.as_bytes()) {
        return true;
    }
    let changes = matches!(request.row.call, Call::Chown(_) | Call::Chmod | Call::SetXattr | Call::SetXattrAt | Call::RemoveXattr);
    if !changes || follow == Follow::No {
        return false;
    }
    let length = buffer.as_bytes().len();
    prefix(request, directory, buffer);
    let mut target = [MaybeUninit::uninit(); 1];
    let is_link = rustix::fs::readlinkat_raw(CWD, buffer.as_c_str(), &mut target).is_ok();
    buffer.keep_last(length);
    is_link
}

/// Whether a path has `self` or `thread-self` in it, and perhaps means it.
pub fn names_self(path: &[u8]) -> bool {
    const SELF: &[u8] = b"self/";
    path.windows(SELF.len()).any(|part| part == SELF)
}

/// The same file by a name that leads there for every reader.
pub fn resolve(request: &Request<'_>, caller: &Caller, directory: i32, path: &[u8], follow: Follow) -> Result<Vec<u8>, Errno> {
    let mut at = Vec::new();
    if path.first() != Some(&b'/') {
        at = read_link(base(request, directory)?.as_c_str())?;
        // Not below the root: a pipe, or what is deleted.
        if at.first() != Some(&b'/') || at.ends_with(b" (deleted)") {
            return Err(Errno::ENOENT);
        }
    }
    let mut rest = components(path);
    let mut links = 0;
    let mut through_magic = false;
    while let Some(name) = rest.pop() {
        if name == b".." && !through_magic {
            at.truncate(at.iter().rposition(|&byte| byte == b'/').unwrap_or(0));
            continue;
        }
        let whole = at.len();
        at.push(b'/');
        match &*name {
            b"self" if &at == b"/proc/" => at.extend_from_slice(Name::new(format_args!("{}", caller.process)).as_bytes()),
            b"thread-self" if &at == b"/proc/" => {
                at.extend_from_slice(Name::new(format_args!("{}/task/{}", caller.process, request.note.thread)).as_bytes());
            }
            _ => at.extend_from_slice(&name),
        }
        if at.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if rest.is_empty() && follow == Follow::No {
            continue;
        }
        at.push(0);
        let target = read_link(CStr::from_bytes_until_nul(&at).unwrap_or(c""));
        at.pop();
        let Ok(target) = target else { continue };
        if is_of_process(&at) {
            through_magic = true;
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(Errno::ELOOP);
        }
        at.truncate(if target.first() == Some(&b'/') { 0 } else { whole });
        through_magic &= !at.is_empty();
        rest.extend(components(&target));
    }
    Ok(if at.is_empty() { b"/".to_vec() } else { at })
}

/// The parts of a path, the first one last.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&byte| byte == b'/').rev().filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec).collect()
}

/// Whether a link's text is not where it leads: `/proc/PID/fd/N`, `exe`, `cwd`, `root`.
fn is_of_process(path: &[u8]) -> bool {
    path.strip_prefix(b"/proc/").and_then(<[u8]>::first).is_some_and(u8::is_ascii_digit)
}

fn read_link(name: &CStr) -> Result<Vec<u8>, Errno> {
    rustix::fs::readlinkat(CWD, name, Vec::new()).map(std::ffi::CString::into_bytes).map_err(errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        assert_eq!(components(b"//proc/./self/../fd/"), [&b"fd"[..], b"..", b"self", b"proc"]);
        for (path, expected) in [(&b"/proc/12/fd/3"[..], true), (b"/proc/sys", false), (b"/procs/1", false), (b"/proc/1", true)] {
            assert_eq!(is_of_process(path), expected, "{path:?}");
        }
    }
}
