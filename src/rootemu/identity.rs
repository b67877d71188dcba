//! The calls on a process's own user and group IDs, capabilities, and those of the other end of a socket.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::calls::{Identity, Width};
use super::credentials::{Change, Credentials, Ids};
use super::exec;
use super::processes::Caller;
use super::request::{DONE, Outcome, PASS, Request};
use crate::sys::notify::Answer;

/// Answers a call on user and group IDs.
pub fn identity(request: &Request<'_>, call: Identity, width: Width) -> Outcome {
    let caller = request.caller()?;
    let credentials = &*caller.credentials;
    let [first, second, third] = [0, 1, 2].map(|index| width.id(request.operand_int(index)));
    match call {
        Identity::GetUid => width.value(credentials.uid.real),
        Identity::GetEuid => width.value(credentials.uid.effective),
        Identity::GetGid => width.value(credentials.gid.real),
        Identity::GetEgid => width.value(credentials.gid.effective),
        Identity::GetResuid => get_three(request, width, &credentials.uid),
        Identity::GetResgid => get_three(request, width, &credentials.gid),
        Identity::GetGroups => get_groups(request, width, credentials),
        Identity::SetGroups => set_groups(request, width, &caller),
        Identity::SetUid => change(request, &caller, Change::Uid(first)),
        Identity::SetGid => change(request, &caller, Change::Gid(first)),
        Identity::SetReuid => change(request, &caller, Change::Reuid(first, second)),
        Identity::SetRegid => change(request, &caller, Change::Regid(first, second)),
        Identity::SetResuid => change(request, &caller, Change::Resuid([first, second, third])),
        Identity::SetResgid => change(request, &caller, Change::Resgid([first, second, third])),
        Identity::SetFsuid => change(request, &caller, Change::Fsuid(first)),
        Identity::SetFsgid => change(request, &caller, Change::Fsgid(first)),
    }
}

fn change(request: &Request<'_>, caller: &Caller, change: Change) -> Outcome {
    request.shared.processes.change(caller, |credentials| credentials.change(change)).map(Answer::Value)
}

impl Width {
    fn bytes(self) -> usize {
        match self {
            Self::Narrow => 2,
            Self::Wide => 4,
        }
    }

    /// What a caller sees of an ID; 16 bit callers see 65534 for what they can't hold.
    fn show(self, id: u32) -> u32 {
        match self {
            Self::Narrow if id > 0xffff => 65534,
            _ => id,
        }
    }

    fn value(self, id: u32) -> Outcome {
        Ok(Answer::Value(self.show(id).into()))
    }

    fn write(self, request: &Request<'_>, address: u64, ids: &[u32]) -> Result<(), Errno> {
        const AT_ONCE: usize = 64;
        let mut address = address;
        for part in ids.chunks(AT_ONCE) {
            let mut bytes = [0; 4 * AT_ONCE];
            for (place, &id) in bytes.chunks_mut(self.bytes()).zip(part) {
                place.copy_from_slice(&self.show(id).to_le_bytes()[..self.bytes()]);
            }
            let length = part.len() * self.bytes();
            request.write(address, &bytes[..length])?;
            address = address.wrapping_add(length as u64);
        }
        Ok(())
    }
}

fn get_three(request: &Request<'_>, width: Width, ids: &Ids) -> Outcome {
    for (index, id) in [ids.real, ids.effective, ids.saved].into_iter().enumerate() {
        width.write(request, request.operand(index as u8), &[id])?;
    }
    DONE
}

fn get_groups(request: &Request<'_>, width: Width, credentials: &Credentials) -> Outcome {
    let room = request.operand_int(0) as i32;
    let count = credentials.groups.len();
    if room < 0 || (room != 0 && (room as usize) < count) {
        return Err(Errno::EINVAL);
    }
    if room != 0 {
        width.write(request, request.operand(1), &credentials.groups)?;
    }
    Ok(Answer::Value(count as i64))
}

fn set_groups(request: &Request<'_>, width: Width, caller: &Caller) -> Outcome {
    /// NGROUPS_MAX.
    const MOST: u32 = 65536;
    let count = request.operand_int(0);
    if !caller.credentials.can(super::credentials::capability::SETGID) {
        return Err(Errno::EPERM);
    }
    if count > MOST {
        return Err(Errno::EINVAL);
    }
    let mut bytes = vec![0; count as usize * width.bytes()];
    request.read(request.operand(1), &mut bytes)?;
    let id = |bytes: &[u8]| bytes.iter().rev().fold(0, |id, &byte| id << 8 | u32::from(byte));
    let groups: Vec<u32> = bytes.chunks(width.bytes()).map(|bytes| width.id(id(bytes))).collect();
    if groups.contains(&u32::MAX) {
        return Err(Errno::EINVAL);
    }
    request.shared.processes.change(caller, |credentials| credentials.set_groups(groups))?;
    DONE
}

/// `_LINUX_CAPABILITY_VERSION_*` and how many structures follow.
const VERSIONS: [(u32, usize); 3] = [(0x1998_0330, 1), (0x2007_1026, 2), (0x2008_0522, 2)];

/// The header's version as the number of structures, and its process.
fn capability_header(request: &Request<'_>) -> Option<(usize, u32)> {
    let mut header = [[0_u8; 4]; 2];
    request.read(request.operand(0), header.as_flattened_mut()).ok()?;
    let [version, process] = header.map(u32::from_le_bytes);
    let (_, count) = VERSIONS.iter().find(|(known, _)| *known == version)?;
    Some((*count, process))
}

/// Answers capget. A version the kernel does not know is left to it: it tells the caller which one to use.
pub fn capget(request: &Request<'_>) -> Outcome {
    let Some((count, process)) = capability_header(request) else { return PASS };
    let caller = request.caller()?;
    if request.operand(1) == 0 {
        return PASS;
    }
    let credentials = if process == 0 || process == caller.process {
        caller.credentials
    } else {
        request.shared.processes.credentials_of(process).ok_or(Errno::ESRCH)?
    };
    let sets = credentials.capabilities;
    let mut bytes = [[[0; 4]; 3]; 2];
    for (half, words) in bytes.iter_mut().enumerate() {
        *words = [sets.effective, sets.permitted, sets.inheritable].map(|set| ((set >> (32 * half)) as u32).to_le_bytes());
    }
    request.write(request.operand(1), bytes[..count].as_flattened().as_flattened())?;
    DONE
}

/// Answers capset. The real capabilities stay as they are: the emulation needs them, and the process can't tell.
pub fn capset(request: &Request<'_>) -> Outcome {
    let Some((count, process)) = capability_header(request) else { return PASS };
    let caller = request.caller()?;
    if process != 0 && process != caller.process && process != request.note.thread {
        return Err(Errno::EPERM);
    }
    let mut words = [[0_u8; 4]; 6];
    request.read(request.operand(1), &mut words.as_flattened_mut()[..count * 12])?;
    let [effective, permitted, inheritable, effective_2, permitted_2, inheritable_2] =
        words.map(|word| u64::from(u32::from_le_bytes(word)));
    let sets = [effective | effective_2 << 32, permitted | permitted_2 << 32, inheritable | inheritable_2 << 32];
    request.shared.processes.change(&caller, |credentials| credentials.set_capabilities(sets[0], sets[1], sets[2]))?;
    DONE
}

/// Answers those subcommands of prctl that act on emulated capabilities.
pub fn prctl(request: &Request<'_>) -> Outcome {
    let caller = request.caller()?;
    let processes = &request.shared.processes;
    match request.operand_int(0) as i32 {
        libc::PR_SET_SECCOMP => exec::restrict(request),
        libc::PR_GET_KEEPCAPS => Ok(Answer::Value(caller.credentials.keep_capabilities.into())),
        libc::PR_SET_KEEPCAPS => {
            let keep = match request.operand(1) {
                0 => false,
                1 => true,
                _ => return Err(Errno::EINVAL),
            };
            processes.change(&caller, |credentials| {
                credentials.keep_capabilities = keep;
                Ok(())
            })?;
            DONE
        }
        libc::PR_CAP_AMBIENT => ambient(request, &caller),
        libc::PR_CAPBSET_READ | libc::PR_CAPBSET_DROP if request.operand(1) > HIGHEST_CAPABILITY => Err(Errno::EINVAL),
        libc::PR_CAPBSET_READ => Ok(Answer::Value((caller.credentials.capabilities.bounding >> request.operand(1) & 1) as i64)),
        libc::PR_CAPBSET_DROP => {
            processes.change(&caller, |credentials| credentials.drop_bounding(request.operand_int(1)))?;
            DONE
        }
        _ => PASS,
    }
}

/// CAP_LAST_CAP (linux/capability.h).
const HIGHEST_CAPABILITY: u64 = 40;

fn ambient(request: &Request<'_>, caller: &Caller) -> Outcome {
    let command = request.operand_int(1) as i32;
    let number = request.operand(2);
    let bit = if command == libc::PR_CAP_AMBIENT_CLEAR_ALL { 0 } else { 1_u64 << number.min(63) };
    if number > HIGHEST_CAPABILITY || request.operand(3) != 0 {
        return Err(Errno::EINVAL);
    }
    let processes = &request.shared.processes;
    match command {
        libc::PR_CAP_AMBIENT_IS_SET => return Ok(Answer::Value((caller.credentials.capabilities.ambient & bit != 0).into())),
        libc::PR_CAP_AMBIENT_RAISE => processes.change(caller, |credentials| {
            let sets = &mut credentials.capabilities;
            if sets.permitted & sets.inheritable & bit == 0 {
                return Err(Errno::EPERM);
            }
            sets.ambient |= bit;
            Ok(())
        })?,
        libc::PR_CAP_AMBIENT_LOWER => processes.change(caller, |credentials| {
            credentials.capabilities.ambient &= !bit;
            Ok(())
        })?,
        libc::PR_CAP_AMBIENT_CLEAR_ALL => processes.change(caller, |credentials| {
            credentials.capabilities.ambient = 0;
            Ok(())
        })?,
        _ => return Err(Errno::EINVAL),
    }
    DONE
}

/// Answers getsockopt(SO_PEERCRED): PostgreSQL, D-Bus and others know their clients by it.
///
/// The kernel remembers the peer of the time of connect, the emulation has the peer's present IDs.
pub fn peer_credentials(request: &Request<'_>) -> Outcome {
    const SIZE: usize = 12;
    if request.argument(1) as i32 != libc::SOL_SOCKET {
        return PASS;
    }
    let processes = &request.shared.processes;
    let caller = request.caller()?;
    let Ok(socket) = processes.copy_descriptor(caller.process, request.argument(0) as i32) else { return PASS };
    let Ok(peer) = getsockopt(&socket.as_fd(), PeerCredentials) else { return PASS };
    if peer.pid() <= 0 {
        return PASS;
    }
    let Some(credentials) = processes.credentials_of(peer.pid() as u32) else { return PASS };
    let mut room = [0; 4];
    request.read(request.argument(4), &mut room)?;
    let length = (u32::from_le_bytes(room) as usize).min(SIZE);
    let fields = [peer.pid() as u32, credentials.uid.effective, credentials.gid.effective];
    let bytes: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
    request.write(request.argument(3), &bytes[..length])?;
    request.write(request.argument(4), &(length as u32).to_le_bytes())?;
    DONE
}
