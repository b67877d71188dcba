//! What emulated users may not do.
//!
//! The kernel sees one user who owns everything. What emulated users ask for is answered as it would be elsewhere (access, faccessat), and
//! what they make or open with O_CREAT is refused where it would be: programs depend on these. Reading, removing and renaming are not
//! watched; that would have every open handed over. root, and who has CAP_DAC_OVERRIDE, may do everything.
//!
//! Nobody is refused what they could have elsewhere: only regular files and directories of the image itself are guarded, none that is mounted, and
//! none with an access control list; and not from programs with several threads, each of which may be another user.

use std::ffi::CStr;

use nix::errno::Errno;
use rustix::fs::OFlags;

use super::attributes::Attributes;
use super::calls::Call;
use super::credentials::capability;
use super::lists::{self, Which};
use super::paths::{Follow, Located, Place, locate};
use super::processes::Caller;
use super::procfs;
use super::request::{Outcome, PASS, Request, Scratch, Shared};

const READ: u32 = 4;
const WRITE: u32 = 2;
const SEARCH: u32 = 1;

/// As whom somebody asks.
struct Asker<'c> {
    process: u32,
    uid: u32,
    gid: u32,
    groups: &'c [u32],
}

impl<'c> Asker<'c> {
    /// As whom a process acts; `None` if it may do everything.
    fn acting(caller: &'c Caller) -> Option<Self> {
        let credentials = &caller.credentials;
        let (uid, gid) = (credentials.uid.filesystem, credentials.gid.filesystem);
        let free = uid == 0 || credentials.can(capability::DAC_OVERRIDE);
        (!free).then_some(Self { process: caller.process, uid, gid, groups: &credentials.groups })
    }

    /// As whom access asks: the real IDs, and no capabilities but root's (linux/fs/open.c, access_override_creds).
    fn real(caller: &'c Caller) -> Option<Self> {
        let credentials = &caller.credentials;
        let (uid, gid) = (credentials.uid.real, credentials.gid.real);
        (uid != 0).then_some(Self { process: caller.process, uid, gid, groups: &credentials.groups })
    }

    /// Whether a file's permission bits allow this (linux/fs/namei.c, acl_permission_check).
    fn has(&self, wanted: u32, uid: u32, gid: u32, mode: u32) -> bool {
        let granted = match () {
            () if self.uid == uid => mode >> 6,
            () if self.gid == gid || self.groups.contains(&gid) => mode >> 3,
            () => mode,
        };
        granted & wanted == wanted
    }

    /// Whether it has several threads, or may have.
    fn has_threads(&self) -> bool {
        !procfs::threads_and_filters_of(self.process).is_ok_and(|(threads, _)| threads == 1)
    }

    /// Fails with `EACCES` if the file refuses it; what can't be found is left to the kernel.
    fn want(&self, shared: &Shared, file: &Located<'_>, wanted: u32) -> Result<(), Errno> {
        let Ok(attributes) = Attributes::load(shared, file) else { return Ok(()) };
        if self.has(wanted, attributes.uid(), attributes.gid(), attributes.mode())
            || !is_guarded(shared, file, &attributes)
            || self.has_threads()
        {
            return Ok(());
        }
        Err(Errno::EACCES)
    }
}

/// Whether the image's permissions hold for this file.
fn is_guarded(shared: &Shared, file: &Located<'_>, attributes: &Attributes) -> bool {
    attributes.native.stx_mnt_id == shared.processes.root_mount()
        && matches!(attributes.native_type(), libc::S_IFREG | libc::S_IFDIR)
        && attributes.recorded.is_none_or(|over| over.device.is_none())
        && lists::current(shared, file, Which::Access).is_err()
}

/// Answers access, faccessat and faccessat2.
pub fn access(request: &Request<'_>, scratch: &mut Scratch) -> Outcome {
    let Ok(caller) = request.caller() else { return PASS };
    let acts = request.row.call == Call::AccessWithFlags && request.operand_int(1) & libc::AT_EACCESS as u32 != 0;
    let asker = if acts { Asker::acting(&caller) } else { Asker::real(&caller) };
    let Some(asker) = asker else { return PASS };
    let Ok(file) = locate(request, &caller, &mut scratch.path) else { return PASS };
    // The directories on the way; those that symlinks lead through are not looked at.
    let path = file.path.to_bytes();
    let slashes = path.iter().enumerate().filter(|&(_, &byte)| byte == b'/').map(|(at, _)| at);
    for end in slashes {
        scratch.other.set(if end == 0 { b"/" } else { &path[..end] });
        asker.want(request.shared, &Located::new(scratch.other.as_c_str(), Follow::Yes), SEARCH)?;
    }
    asker.want(request.shared, &file, request.operand_int(0) & (READ | WRITE | SEARCH))?;
    PASS
}

/// Fails with `EACCES` if the caller may not make something new in a directory.
pub fn may_make(shared: &Shared, caller: &Caller, place: &Place<'_>) -> Result<(), Errno> {
    let Some(asker) = Asker::acting(caller) else { return Ok(()) };
    if exists(place.path) {
        // The kernel's to refuse: it is there already.
        return Ok(());
    }
    asker.want(shared, &Located::new(place.parent, Follow::Yes), WRITE | SEARCH)
}

/// Fails with `EACCES` if the caller may not open a file with O_CREAT, be it there or not.
pub fn may_open(shared: &Shared, caller: &Caller, place: &Place<'_>, flags: OFlags) -> Result<(), Errno> {
    if flags.contains(OFlags::EXCL) || !exists(place.path) {
        return may_make(shared, caller, place);
    }
    let Some(asker) = Asker::acting(caller) else { return Ok(()) };
    let mut wanted = match flags & OFlags::RWMODE {
        OFlags::WRONLY => WRITE,
        OFlags::RDWR => READ | WRITE,
        _ => READ,
    };
    if flags.contains(OFlags::TRUNC) {
        wanted |= WRITE;
    }
    asker.want(shared, &Located::new(place.path, Follow::Yes), wanted)
}

fn exists(path: &CStr) -> bool {
    rustix::fs::lstat(path).is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::credentials::{Change, Credentials};
    use super::super::processes::View;
    use super::*;

    #[test]
    fn bits_are_those_of_one_class() {
        let asker = Asker { process: 0, uid: 33, gid: 33, groups: &[44] };
        for (wanted, uid, gid, mode, expected) in [
            (READ, 0, 0, 0o644, true),
            (WRITE, 0, 0, 0o644, false),
            (WRITE, 33, 0, 0o644, true),
            (READ, 33, 0, 0o077, false),
            (WRITE, 0, 44, 0o664, true),
            (WRITE, 0, 33, 0o664, true),
            (READ, 0, 44, 0o604, false),
            (WRITE | SEARCH, 0, 0, 0o1777, true),
            (SEARCH, 0, 0, 0o700, false),
            (0, 0, 0, 0, true),
        ] {
            assert_eq!(asker.has(wanted, uid, gid, mode), expected, "{wanted} {uid}:{gid} {mode:o}");
        }
    }

    #[test]
    fn root_is_not_asked() {
        let root = Credentials::new(0, 0, vec![], u64::MAX);
        let mut user = root.clone();
        user.change(Change::Resuid([33, 33, 33])).unwrap();
        for (credentials, expected) in [(root, false), (user, true)] {
            let caller = Caller { process: 0, credentials: Arc::new(credentials), view: View::Shared };
            assert_eq!((Asker::acting(&caller).is_some(), Asker::real(&caller).is_some()), (expected, expected));
        }
    }
}
