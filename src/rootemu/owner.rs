//! chown and chmod.
//!
//! chmod is left to the kernel where nothing is recorded and the mode is one with which the user can read and delete the file: others are recorded at once, since
//! caches are never sealed, nor is what a killed step leaves. access and faccessat are left to the kernel altogether: it sees one user who owns everything
//! and holds CAP_DAC_OVERRIDE, so emulated users other than root may read and write more than they could elsewhere, never less.

use nix::errno::Errno;

use super::attributes::{self, Attributes};
use super::calls::Width;
use super::credentials::{Credentials, KEEP, capability};
use super::inodes::Origin;
use super::paths::locate;
use super::request::{DONE, Outcome, PASS, Request, Scratch};
use super::xattr;

/// Answers a call of the chown family.
pub fn chown(request: &Request<'_>, scratch: &mut Scratch, width: Width) -> Outcome {
    let Ok(caller) = request.caller() else { return PASS };
    let Ok(file) = locate(request, &caller, &mut scratch.path) else { return PASS };
    let Ok(old) = Attributes::load(request.shared, &file) else { return PASS };
    let uid = width.id(request.operand_int(0));
    let gid = width.id(request.operand_int(1));
    let credentials = &caller.credentials;
    if !may_chown(credentials, &old, uid, gid) {
        return Err(Errno::EPERM);
    }
    request.check_alive()?;
    let mut mode = old.mode();
    if old.native_type() != libc::S_IFDIR {
        mode = without_privilege(mode, credentials, old.gid());
        xattr::drop_capability(request.shared, &file, &old);
    }
    let new = (choose(uid, old.uid()), choose(gid, old.gid()), mode);
    if new != (old.uid(), old.gid(), old.mode()) {
        old.store(request.shared, &file, new.0, new.1, new.2)?;
    }
    DONE
}

fn choose(asked: u32, old: u32) -> u32 {
    if asked == KEEP { old } else { asked }
}

impl Width {
    /// An ID argument as the 32 bit call would have it.
    pub fn id(self, argument: u32) -> u32 {
        match self {
            Self::Narrow if argument & 0xffff == 0xffff => KEEP,
            Self::Narrow => argument & 0xffff,
            Self::Wide => argument,
        }
    }
}

/// chown_ok and chgrp_ok (linux/fs/attr.c).
fn may_chown(credentials: &Credentials, old: &Attributes, uid: u32, gid: u32) -> bool {
    if credentials.can(capability::CHOWN) {
        return true;
    }
    let owner = credentials.uid.filesystem == old.uid();
    let uid_stays = uid == KEEP || (owner && uid == old.uid());
    let gid_allowed = gid == KEEP || (owner && (credentials.in_group(gid) || gid == old.gid()));
    uid_stays && gid_allowed
}

/// A chown takes setuid from everyone's files, and setgid where it gives privilege (linux/fs/open.c chown_common, fs/attr.c).
fn without_privilege(mode: u32, credentials: &Credentials, gid: u32) -> u32 {
    let mut mode = mode & !libc::S_ISUID;
    let member = credentials.in_group(gid) || credentials.can(capability::FSETID);
    if mode & libc::S_ISGID != 0 && (mode & libc::S_IXGRP != 0 || !member) {
        mode &= !libc::S_ISGID;
    }
    mode
}

/// Answers a call of the chmod family.
pub fn chmod(request: &Request<'_>, scratch: &mut Scratch) -> Outcome {
    let Ok(caller) = request.caller() else { return PASS };
    let Ok(file) = locate(request, &caller, &mut scratch.path) else { return PASS };
    let credentials = &caller.credentials;
    let privileged = credentials.can(capability::FOWNER) && credentials.can(capability::FSETID);
    let harmless = request.operand_int(0) & 0o700 == 0o700;
    if privileged && harmless && request.shared.inodes.is_empty() && attributes::read_override(file.path, file.follow).is_none() {
        return PASS;
    }
    let Ok(old) = Attributes::load(request.shared, &file) else { return PASS };
    if old.native_type() == libc::S_IFLNK {
        return PASS;
    }
    if old.uid() != credentials.uid.filesystem && !credentials.can(capability::FOWNER) {
        return Err(Errno::EPERM);
    }
    let mut mode = request.operand_int(0) & 0o7777;
    if !credentials.in_group(old.gid()) && !credentials.can(capability::FSETID) {
        mode &= !libc::S_ISGID;
    }
    request.check_alive()?;
    if old.recorded.is_none() && mode == request.operand_int(0) & 0o7777 && !old.locks_out(mode) {
        return PASS;
    }
    old.store(request.shared, &file, old.uid(), old.gid(), mode)?;
    DONE
}

/// Before a call that may copy up a symlink or FIFO whose owner came with the layers: copies it up, and enters the owner under the new number.
pub fn before_move(request: &Request<'_>, scratch: &mut Scratch) -> Outcome {
    if request.shared.inodes.is_empty() {
        return PASS;
    }
    let Ok(caller) = request.caller() else { return PASS };
    let Ok(file) = locate(request, &caller, &mut scratch.path) else { return PASS };
    let Ok(old) = Attributes::load(request.shared, &file) else { return PASS };
    let Some(entry) = request.shared.inodes.get(&old.native) else { return PASS };
    if entry.origin == Origin::Layers && request.check_alive().is_ok() {
        // If it can't be copied up, the kernel will not do it either.
        let _ = old.enter(request.shared, &file, |_| ());
    }
    PASS
}
