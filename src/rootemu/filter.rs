//! The filter: from the tables and a mode to the rules of a seccomp program.
//!
//! Calls whose arguments show that they need no emulation are let through here, at no cost; everything else is decided by the supervisor.

use super::calls::{Call, Identity, Row, Target};
use super::spec::Mode;
use super::tables;
use crate::sys::graft;
use crate::sys::seccomp::{Abi, Action, Program, Rule, Section, Test};

/// Which calls matter that change no owner or mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Whether the stack holds symlinks or FIFOs with an owner other than root, so that calls which may change their inode number matter.
    pub moves: bool,
    /// Whether the number of what is removed may be used again without a sign ([`super::removal`]).
    pub removals: bool,
    /// Whether a supervisor outlives every thread under the filter. Without one `exit` is an error, which glibc repeats for ever.
    pub exits: bool,
}

/// The program for a mode; it holds a section for every ABI with a table that this machine's kernel may serve.
pub fn program(mode: Mode, watched: Watched) -> Program {
    let abis: &[Abi] = match Abi::native() {
        Some(Abi::X86_64) => &[Abi::X86_64, Abi::I386],
        Some(Abi::I386) => &[Abi::I386],
        Some(Abi::Aarch64) => &[Abi::Aarch64],
        None => &[],
    };
    let sections: Vec<Section> = abis.iter().map(|&abi| Section { abi, rules: rules(abi, mode, watched) }).collect();
    Program::assemble(&sections)
}

fn rules(abi: Abi, mode: Mode, watched: Watched) -> Vec<Rule> {
    tables::table(abi)
        .flat_map(|row| match mode {
            Mode::Consistent => consistent(abi, row, watched),
            Mode::SuccessOnly | Mode::Fakeroot => success_only(row),
            Mode::None => vec![],
        })
        .collect()
}

fn consistent(abi: Abi, row: &Row, watched: Watched) -> Vec<Rule> {
    let notify = |test| Rule { number: row.number, test, action: Action::Notify };
    // What a graft asks by itself ([`graft`]): a directory's descriptor comes first.
    let by_directory = matches!(row.target, Target::Path { directory: Some(0), .. });
    if abi == Abi::X86_64 && by_directory && matches!(row.call, Call::Stat(_) | Call::Statx | Call::GetXattrAt) {
        return vec![Rule { action: Action::Allow, ..notify(Test::High(0, graft::KEY)) }, notify(Test::Always)];
    }
    match row.call {
        Call::Absent => vec![Rule { action: Action::Errno(libc::ENOSYS as u16), ..notify(Test::Always) }],
        Call::Move if !watched.moves => vec![],
        Call::Remove | Call::RemoveDirectory if !watched.removals => vec![],
        Call::Rename | Call::RenameWithFlags if !watched.moves && !watched.removals => vec![],
        Call::Exit if !watched.exits => vec![],
        // Only what may make a new file: O_CREAT, or __O_TMPFILE without O_DIRECTORY's bit, which differs between ABIs.
        Call::Open => vec![notify(Test::AnyBit(row.first, libc::O_CREAT as u32 | TMPFILE))],
        Call::Prctl => PRCTL.iter().map(|&command| notify(Test::Masked(0, u32::MAX, command as u32))).collect(),
        Call::PeerCredentials => vec![notify(Test::Masked(2, u32::MAX, libc::SO_PEERCRED as u32))],
        _ => vec![notify(Test::Always)],
    }
}

/// `__O_TMPFILE` (asm-generic/fcntl.h).
pub const TMPFILE: u32 = 0o20_000_000;

/// The subcommands of prctl that the emulation answers or must know of; others act on the real capabilities, which are the same as the
/// emulated ones or more.
pub const PRCTL: [i32; 6] = [
    libc::PR_SET_KEEPCAPS,
    libc::PR_GET_KEEPCAPS,
    libc::PR_CAP_AMBIENT,
    libc::PR_CAPBSET_READ,
    libc::PR_CAPBSET_DROP,
    libc::PR_SET_SECCOMP,
];

/// Success without effect for what one mapped user can't do. Devices are the only nodes that can't be made.
fn success_only(row: &Row) -> Vec<Rule> {
    const CHARACTER: u32 = libc::S_IFCHR;
    const BLOCK: u32 = libc::S_IFBLK;
    let succeed = |test| Rule { number: row.number, test, action: Action::Errno(0) };
    match row.call {
        Call::Chown(_) | Call::Capset | Call::SelfTest => vec![succeed(Test::Always)],
        Call::Mknod => [CHARACTER, BLOCK].map(|kind| succeed(Test::Masked(row.first, libc::S_IFMT, kind))).to_vec(),
        Call::Identity(
            Identity::SetUid
            | Identity::SetGid
            | Identity::SetReuid
            | Identity::SetRegid
            | Identity::SetResuid
            | Identity::SetResgid
            | Identity::SetFsuid
            | Identity::SetFsgid
            | Identity::SetGroups,
            _,
        ) => vec![succeed(Test::Always)],
        Call::Absent => vec![Rule { action: Action::Errno(libc::ENOSYS as u16), ..succeed(Test::Always) }],
        _ => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::super::calls::Width;
    use super::*;

    #[test]
    fn every_row_of_consistent_mode_has_a_rule() {
        let all = Watched { moves: true, removals: true, exits: true };
        for abi in [Abi::X86_64, Abi::I386, Abi::Aarch64] {
            for row in tables::table(abi) {
                assert!(!consistent(abi, row, all).is_empty(), "{abi:?} {row:?}");
            }
        }
        assert!(program(Mode::Consistent, all).len() < 4096, "the kernel's limit");
    }

    #[test]
    fn success_only_changes_nothing_that_can_be_done() {
        let answered = |call| !success_only(&Row { number: 0, call, target: Target::Nothing, first: 0 }).is_empty();
        for (call, expected) in [
            (Call::Chown(Width::Wide), true),
            (Call::Mknod, true),
            (Call::Chmod, false),
            (Call::Open, false),
            (Call::Statx, false),
            (Call::Identity(Identity::GetUid, Width::Wide), false),
            (Call::Identity(Identity::SetGroups, Width::Wide), true),
        ] {
            assert_eq!(answered(call), expected, "{call:?}");
        }
    }
}
