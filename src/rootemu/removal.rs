//! Removals where a file system has no time of birth: the number of what is removed will be used again, and what is known of it must not be
//! believed of another file. So the supervisor removes what the table knows, and notes that it is gone.
//!
//! Everything else is left to the kernel, and all of it where a number and a time of birth tell inodes apart.

use rustix::fs::{AtFlags, CWD, RenameFlags, Statx};

use super::attributes::{IDENTITY, identify};
use super::calls::{Call, Last, Row, Target};
use super::inodes;
use super::paths::{Follow, Located, locate, own_name};
use super::procfs::errno;
use super::request::{DONE, Outcome, PASS, Request, Scratch};

/// Whether they must be watched: whether the root's file system has no time of birth.
pub fn matters() -> bool {
    identify(&Located::new(c"/", Follow::Yes)).is_ok_and(|root| inodes::birth(&root) == (0, 0))
}

/// Answers unlink, unlinkat and rmdir.
pub fn remove(request: &Request<'_>, scratch: &mut Scratch) -> Outcome {
    let Some(file) = doomed(request, scratch) else { return PASS };
    let Ok(name) = own_name(request, &mut scratch.path) else { return PASS };
    let flags = match request.row.call {
        Call::RemoveDirectory => AtFlags::REMOVEDIR,
        _ if request.row.first == 2 => AtFlags::from_bits_retain(request.operand_int(0)),
        _ => AtFlags::empty(),
    };
    request.check_alive()?;
    rustix::fs::unlinkat(CWD, name.path(), flags).map_err(errno)?;
    request.shared.inodes.bury(&file);
    DONE
}

/// Answers a rename that may replace what is known.
pub fn rename(request: &Request<'_>, scratch: &mut Scratch) -> Outcome {
    // Where the second name stands: rename(old, new), renameat(directory, old, directory, new, flags).
    let target = match request.row.target {
        Target::Path { directory: None, .. } => Target::Path { directory: None, path: 1, last: Last::Stay },
        _ => Target::Path { directory: Some(2), path: 3, last: Last::Stay },
    };
    let row = Row { target, ..*request.row };
    let Some(replaced) = doomed(&request.on(&row), scratch) else { return PASS };
    let flags = if row.call == Call::RenameWithFlags { request.argument(4) as u32 } else { 0 };
    let flags = RenameFlags::from_bits_retain(flags);
    if flags.contains(RenameFlags::EXCHANGE) {
        return PASS;
    }
    let Ok(old) = own_name(request, &mut scratch.path) else { return PASS };
    let Ok(new) = own_name(&request.on(&row), &mut scratch.path) else { return PASS };
    request.check_alive()?;
    rustix::fs::renameat_with(CWD, old.path(), CWD, new.path(), flags).map_err(errno)?;
    // Two names of one file: nothing was replaced.
    if identify(&Located::new(new.path(), Follow::No)).is_ok_and(|now| now.stx_ino != replaced.stx_ino) {
        request.shared.inodes.bury(&replaced);
    }
    DONE
}

/// What a call will remove altogether, if the table knows it.
fn doomed(request: &Request<'_>, scratch: &mut Scratch) -> Option<Statx> {
    if request.shared.inodes.is_empty() {
        return None;
    }
    let caller = request.caller().ok()?;
    let file = locate(request, &caller, &mut scratch.path).ok()?;
    request.shared.inodes.read(&identify(&file).ok()?, |_| ())?;
    // How many names it has, FUSE must be asked anew: to it each is a file of its own.
    let flags = file.follow.flags() | AtFlags::STATX_FORCE_SYNC;
    let native = rustix::fs::statx(CWD, file.path, flags, IDENTITY).ok()?;
    let is_directory = u32::from(native.stx_mode) & libc::S_IFMT == libc::S_IFDIR;
    (is_directory || native.stx_nlink == 1).then_some(native)
}
