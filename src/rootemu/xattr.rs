//! Extended attributes that only real root can set: `security.*` and `trusted.*`, kept as `user.rootling.xattr.` + name.
//!
//! Our own attributes are not shown to the step. `security.capability` is kept in its second form, whichever the step writes: the third names
//! a user namespace that does not exist where the image runs. What the file holding it refuses, the table takes ([`super::kept`]): these
//! on symlinks, and on a file system without extended attributes `user.*`, too. Access control lists are kept likewise, but mean more ([`super::lists`]).

use std::ffi::CStr;

use nix::errno::Errno;
use rustix::fs::XattrFlags;
use rustix::path::Arg;

use super::attributes::Attributes;
use super::credentials::{Credentials, capability};
use super::kept;
use super::lists::{self, Which};
use super::paths::{Follow, Located, PathBuffer, locate};
use super::procfs::errno;
use super::request::{DONE, Outcome, PASS, Request, Scratch, Shared};
use crate::rootfs::meta::{KEPT_XATTR_PREFIX, capability_v2};
use crate::sys::notify::Answer;

const CAPABILITY: &[u8] = b"security.capability";
/// Names of ours that a step neither sees nor sets; overlayfs hides its own.
const HIDDEN: [&[u8]; 2] = [b"user.containers.", b"user.rootling."];
/// XATTR_NAME_MAX, XATTR_SIZE_MAX, XATTR_LIST_MAX (linux/limits.h).
const NAME_MAX: usize = 255;
const SIZE_MAX: usize = 65536;

/// What a name means. A box would be the allocation that [`KeptName`] avoids.
#[allow(clippy::large_enum_variant)]
enum Name {
    /// The kernel's business.
    Native,
    /// Kept under another name.
    Kept(KeptName),
    /// Not there.
    Hidden,
}

/// The name under which an attribute is kept; on the stack, since `ls -l` asks every file for two.
struct KeptName([u8; KeptName::ROOM]);

impl KeptName {
    const ROOM: usize = KEPT_XATTR_PREFIX.len() + NAME_MAX + 1;

    /// A prefix, `KEPT_XATTR_PREFIX` or none, and a name of at most `NAME_MAX` bytes.
    fn new(prefix: &[u8], name: &[u8]) -> Self {
        let mut bytes = [0; Self::ROOM];
        bytes[..prefix.len()].copy_from_slice(prefix);
        bytes[prefix.len()..prefix.len() + name.len()].copy_from_slice(name);
        Self(bytes)
    }

    fn as_c_str(&self) -> &CStr {
        // The last byte is never written.
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }
}

/// What becomes of calls on `user.*`.
#[derive(Clone, Copy, PartialEq)]
enum User {
    /// They are answered: the table may have some.
    Answered,
    /// The kernel knows all.
    Passed,
}

fn classify(name: &[u8], user: User) -> Name {
    if HIDDEN.iter().any(|hidden| name.starts_with(hidden)) {
        return Name::Hidden;
    }
    if name.len() > NAME_MAX {
        return Name::Native;
    }
    let prefix = if is_privileged(name) {
        KEPT_XATTR_PREFIX.as_bytes()
    } else if user == User::Answered && name.starts_with(b"user.") {
        b""
    } else {
        return Name::Native;
    };
    Name::Kept(KeptName::new(prefix, name))
}

/// Whether a name is kept under another.
fn is_privileged(name: &[u8]) -> bool {
    name.starts_with(b"security.") || name.starts_with(b"trusted.") || Which::of(name).is_some()
}

/// Where a name of the image is kept in the file itself.
fn kept_name(name: &[u8]) -> Result<KeptName, Errno> {
    let prefix = if name.starts_with(b"user.") { &b""[..] } else { KEPT_XATTR_PREFIX.as_bytes() };
    if name.len() > NAME_MAX { Err(Errno::EINVAL) } else { Ok(KeptName::new(prefix, name)) }
}

/// Keeps a value, in the file or in the table.
///
/// # Errors
/// Those of setxattr.
pub fn keep(shared: &Shared, file: &Located<'_>, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<(), Errno> {
    match set(file, kept_name(name)?.as_c_str(), value, flags) {
        Err(Errno::EOPNOTSUPP | Errno::EPERM) => kept::set(shared, file, name, value, flags),
        done => done,
    }
}

/// Removes a kept value, if there is one.
pub fn take(shared: &Shared, file: &Located<'_>, name: &[u8]) -> Result<(), Errno> {
    match remove(file, kept_name(name)?.as_c_str()) {
        Err(Errno::ENODATA | Errno::EOPNOTSUPP | Errno::EPERM) => {
            // Fails where there is none.
            let _ = kept::remove(shared, file, name);
            Ok(())
        }
        done => done,
    }
}

/// A kept value.
pub fn kept_value(shared: &Shared, file: &Located<'_>, name: &[u8]) -> Option<Vec<u8>> {
    let name_in_file = kept_name(name).ok()?;
    let get = |value: &mut [u8]| match file.follow {
        Follow::Yes => rustix::fs::getxattr(file.path, name_in_file.as_c_str(), value),
        Follow::No => rustix::fs::lgetxattr(file.path, name_in_file.as_c_str(), value),
    };
    // Enough for nearly all; a longer value is read with a second call.
    let mut short = [0; 256];
    match get(&mut short) {
        Ok(length) => Some(short[..length].to_vec()),
        Err(rustix::io::Errno::RANGE) => {
            let mut long = vec![0; SIZE_MAX];
            let length = get(&mut long).ok()?;
            long.truncate(length);
            Some(long)
        }
        Err(_) => kept::get(shared, file, name),
    }
}

/// A call's name argument; `None` if the kernel should find the error.
fn name_of(request: &Request<'_>, buffer: &mut PathBuffer, index: u8) -> Option<Name> {
    buffer.load(request, request.operand(index)).ok()?;
    let user = if request.shared.may_keep_xattrs() { User::Answered } else { User::Passed };
    Some(classify(buffer.as_bytes(), user))
}

/// The arguments of a call on a value.
struct Value {
    address: u64,
    size: usize,
    flags: u32,
}

impl Value {
    fn plain(request: &Request<'_>) -> Self {
        Self { address: request.operand(1), size: request.operand(2) as usize, flags: request.operand_int(3) }
    }

    /// `struct xattr_args`: value, size, flags.
    fn structured(request: &Request<'_>) -> Result<Self, Errno> {
        let mut bytes = [[0_u8; 8]; 2];
        request.read(request.operand(1), bytes.as_flattened_mut())?;
        let [address, rest] = bytes.map(u64::from_le_bytes);
        Ok(Self { address, size: rest as u32 as usize, flags: (rest >> 32) as u32 })
    }
}

/// Answers setxattr.
pub fn set_call(request: &Request<'_>, scratch: &mut Scratch) -> Outcome {
    set_value(request, scratch, Value::plain(request))
}

/// Answers setxattrat.
pub fn set_call_at(request: &Request<'_>, scratch: &mut Scratch) -> Outcome {
    let Ok(value) = Value::structured(request) else { return PASS };
    set_value(request, scratch, value)
}

fn set_value(request: &Request<'_>, scratch: &mut Scratch, value: Value) -> Outcome {
    let kept = match name_of(request, &mut scratch.other, 0) {
        None | Some(Name::Native) => return PASS,
        Some(Name::Hidden) => return Err(Errno::EPERM),
        Some(Name::Kept(kept)) => kept,
    };
    if value.size > SIZE_MAX {
        return Err(Errno::E2BIG);
    }
    let caller = request.caller()?;
    may_change(&caller.credentials, scratch.other.as_bytes())?;
    let Ok(file) = locate(request, &caller, &mut scratch.path) else { return PASS };
    scratch.bytes.resize(value.size, 0);
    request.read(value.address, &mut scratch.bytes)?;
    request.check_alive()?;
    if let Some(which) = Which::of(scratch.other.as_bytes()) {
        return lists::set(request.shared, &caller.credentials, &file, which, &scratch.bytes);
    }
    if scratch.other.as_bytes() == CAPABILITY {
        scratch.bytes = capability_v2(std::mem::take(&mut scratch.bytes));
    }
    let flags = XattrFlags::from_bits_retain(value.flags);
    match set(&file, kept.as_c_str(), &scratch.bytes, flags) {
        Ok(()) => DONE,
        Err(Errno::ENOENT) => PASS,
        Err(Errno::EOPNOTSUPP | Errno::EPERM) => {
            kept::set(request.shared, &file, scratch.other.as_bytes(), &scratch.bytes, flags)?;
            DONE
        }
        Err(error) => Err(error),
    }
}

fn may_change(credentials: &Credentials, name: &[u8]) -> Result<(), Errno> {
    let allowed = match name {
        CAPABILITY => credentials.can(capability::SETFCAP),
        // The file's owner may.
        name if Which::of(name).is_some() => true,
        name => credentials.uid.filesystem == 0 || !is_privileged(name),
    };
    if allowed { Ok(()) } else { Err(Errno::EPERM) }
}

/// Answers getxattr.
pub fn get_call(request: &Request<'_>, scratch: &mut Scratch) -> Outcome {
    get_value(request, scratch, Value::plain(request))
}

/// Answers getxattrat.
pub fn get_call_at(request: &Request<'_>, scratch: &mut Scratch) -> Outcome {
    let Ok(value) = Value::structured(request) else { return PASS };
    get_value(request, scratch, value)
}

fn get_value(request: &Request<'_>, scratch: &mut Scratch, value: Value) -> Outcome {
    let kept = match name_of(request, &mut scratch.other, 0) {
        None | Some(Name::Native) => return PASS,
        Some(Name::Hidden) => None,
        Some(Name::Kept(kept)) => Some(kept),
    };
    let caller = request.caller()?;
    let Ok(file) = locate(request, &caller, &mut scratch.path) else { return PASS };
    let Some(kept) = kept else { return Err(Errno::ENODATA) };
    if let Some(which) = Which::of(scratch.other.as_bytes()) {
        return match lists::current(request.shared, &file, which) {
            // Also what a bad descriptor looks like from here.
            Err(Errno::ENOENT) => PASS,
            list => reply(request, &list?, value.address, value.size),
        };
    }
    if scratch.other.as_bytes().starts_with(b"trusted.") && caller.credentials.uid.filesystem != 0 {
        return Err(Errno::ENODATA);
    }
    scratch.bytes.resize(SIZE_MAX, 0);
    let length = match file.follow {
        Follow::Yes => rustix::fs::getxattr(file.path, kept.as_c_str(), &mut scratch.bytes[..]),
        Follow::No => rustix::fs::lgetxattr(file.path, kept.as_c_str(), &mut scratch.bytes[..]),
    };
    let length = match length {
        Ok(length) => length,
        // Also what a bad descriptor looks like from here.
        Err(rustix::io::Errno::NOENT) => return PASS,
        Err(error) => {
            let Some(found) = kept::get(request.shared, &file, scratch.other.as_bytes()) else { return Err(absent(request, error)) };
            return reply(request, &found, value.address, value.size);
        }
    };
    reply(request, &scratch.bytes[..length], value.address, value.size)
}

/// How a call fails that asked for what neither file nor table has: as on a file system that could have it, where the table makes it one.
fn absent(request: &Request<'_>, error: rustix::io::Errno) -> Errno {
    let ours = error == rustix::io::Errno::OPNOTSUPP && request.shared.may_keep_xattrs();
    if ours { Errno::ENODATA } else { errno(error) }
}

/// Gives bytes to a caller that says how much room it has; none means that it only wants to know how many.
fn reply(request: &Request<'_>, bytes: &[u8], address: u64, room: usize) -> Outcome {
    if room != 0 {
        if bytes.len() > room {
            return Err(Errno::ERANGE);
        }
        request.write(address, bytes)?;
    }
    Ok(Answer::Value(bytes.len() as i64))
}

/// Answers listxattr.
pub fn list_call(request: &Request<'_>, scratch: &mut Scratch) -> Outcome {
    let Ok(caller) = request.caller() else { return PASS };
    let Ok(file) = locate(request, &caller, &mut scratch.path) else { return PASS };
    scratch.bytes.resize(SIZE_MAX, 0);
    let length = match file.follow {
        Follow::Yes => rustix::fs::listxattr(file.path, &mut scratch.bytes[..]),
        Follow::No => rustix::fs::llistxattr(file.path, &mut scratch.bytes[..]),
    };
    let root = caller.credentials.uid.filesystem == 0;
    let tabled: Vec<u8> = kept::names(request.shared, &file)
        .iter()
        .filter(|name| root || !name.starts_with(b"trusted."))
        .flat_map(|name| [name, &b"\0"[..]].concat())
        .collect();
    let mut names = match length {
        Ok(length) => shown(&scratch.bytes[..length], root),
        Err(error) if tabled.is_empty() && absent(request, error) != Errno::ENODATA => return PASS,
        Err(_) => Vec::new(),
    };
    names.extend(tabled);
    reply(request, &names, request.operand(0), request.operand(1) as usize)
}

/// The list as the step sees it. Attributes of the host's security modules are not the image's.
fn shown(list: &[u8], root: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(list.len());
    for name in list.split(|&b| b == 0).filter(|name| !name.is_empty()) {
        let name = match name.strip_prefix(KEPT_XATTR_PREFIX.as_bytes()) {
            Some(kept) if is_privileged(kept) && (root || !kept.starts_with(b"trusted.")) => kept,
            None if !is_privileged(name) && !HIDDEN.iter().any(|hidden| name.starts_with(hidden)) => name,
            _ => continue,
        };
        out.extend_from_slice(name);
        out.push(0);
    }
    out
}

/// Answers removexattr.
pub fn remove_call(request: &Request<'_>, scratch: &mut Scratch) -> Outcome {
    let kept = match name_of(request, &mut scratch.other, 0) {
        None | Some(Name::Native) => return PASS,
        Some(Name::Hidden) => return Err(Errno::ENODATA),
        Some(Name::Kept(kept)) => kept,
    };
    let caller = request.caller()?;
    may_change(&caller.credentials, scratch.other.as_bytes())?;
    let Ok(file) = locate(request, &caller, &mut scratch.path) else { return PASS };
    request.check_alive()?;
    if let Some(which) = Which::of(scratch.other.as_bytes()) {
        return match lists::set(request.shared, &caller.credentials, &file, which, b"") {
            Err(Errno::ENOENT) => PASS,
            outcome => outcome,
        };
    }
    match remove(&file, kept.as_c_str()) {
        Ok(()) => DONE,
        Err(Errno::ENOENT) => PASS,
        Err(Errno::ENODATA | Errno::EOPNOTSUPP | Errno::EPERM) => {
            kept::remove(request.shared, &file, scratch.other.as_bytes())?;
            DONE
        }
        Err(error) => Err(error),
    }
}

/// Takes the file's capabilities away, as the kernel does when the owner changes.
pub fn drop_capability(shared: &Shared, file: &Located<'_>, attributes: &Attributes) {
    const NAME: &str = "user.rootling.xattr.security.capability";
    if attributes.native_type() != libc::S_IFREG {
        return;
    }
    // Nearly always there is none, and looking takes no lock.
    let found = match file.follow {
        Follow::Yes => rustix::fs::getxattr_query(file.path, NAME),
        Follow::No => rustix::fs::lgetxattr_query(file.path, NAME),
    };
    if found.is_ok() {
        let _ = remove(file, NAME);
    }
    // Fails where there is none.
    let _ = kept::remove(shared, file, CAPABILITY);
}

/// Sets a native attribute, as the user who may write any file of theirs.
pub fn set(file: &Located<'_>, name: impl Arg, value: &[u8], flags: XattrFlags) -> Result<(), Errno> {
    match file.follow {
        Follow::Yes => rustix::fs::setxattr(file.path, name, value, flags),
        Follow::No => rustix::fs::lsetxattr(file.path, name, value, flags),
    }
    .map_err(errno)
}

/// Removes a native attribute.
pub fn remove(file: &Located<'_>, name: impl Arg) -> Result<(), Errno> {
    match file.follow {
        Follow::Yes => rustix::fs::removexattr(file.path, name),
        Follow::No => rustix::fs::lremovexattr(file.path, name),
    }
    .map_err(errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_show_what_was_set() {
        let list = b"user.a\0user.rootling.xattr.security.capability\0user.containers.override_stat\0security.selinux\0\
            user.rootling.xattr.trusted.x\0user.rootling.xattr.system.x\0user.rootling.xattr.system.posix_acl_access\0";
        let expected = b"user.a\0security.capability\0trusted.x\0system.posix_acl_access\0";
        assert_eq!(shown(list, true).escape_ascii().to_string(), expected.escape_ascii().to_string());
        let expected = b"user.a\0security.capability\0system.posix_acl_access\0";
        assert_eq!(shown(list, false).escape_ascii().to_string(), expected.escape_ascii().to_string());
    }
}
