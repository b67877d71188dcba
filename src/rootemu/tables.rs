//! System call tables: per ABI, which calls root emulation is about.
//!
//! Numbers from linux/arch/x86/entry/syscalls/syscall_{64,32}.tbl and include/uapi/asm-generic/unistd.h (Linux 6.18).
//! Not here: i386's three `oldstat` calls and `socketcall`, which no libc has used since 1997 and 2015; they act natively.

use super::calls::{Call, Identity, Last, Layout, Row, Target, Width};
use crate::sys::seccomp::Abi;

/// The table of an ABI; in no order.
pub fn table(abi: Abi) -> impl Iterator<Item = &'static Row> {
    let own = match abi {
        Abi::X86_64 => X86_64,
        Abi::I386 => I386,
        Abi::Aarch64 => AARCH64,
    };
    own.iter().chain(EVERYWHERE)
}

const fn row(number: u32, call: Call, target: Target, first: u8) -> Row {
    Row { number, call, target, first }
}

const fn simple(number: u32, call: Call) -> Row {
    row(number, call, Target::Nothing, 0)
}

const fn wide(number: u32, call: Identity) -> Row {
    simple(number, Call::Identity(call, Width::Wide))
}

const fn narrow(number: u32, call: Identity) -> Row {
    simple(number, Call::Identity(call, Width::Narrow))
}

const PATH: Target = Target::Path { directory: None, path: 0, last: Last::Follow };
const LINK: Target = Target::Path { directory: None, path: 0, last: Last::Stay };
const FD: Target = Target::Descriptor(0);
const AT: Target = Target::Path { directory: Some(0), path: 1, last: Last::Follow };
const LINK_AT: Target = Target::Path { directory: Some(0), path: 1, last: Last::Stay };
const AT_FLAGS_2: Target = Target::Path { directory: Some(0), path: 1, last: Last::Flags(2) };
const AT_FLAGS_3: Target = Target::Path { directory: Some(0), path: 1, last: Last::Flags(3) };
const AT_FLAGS_4: Target = Target::Path { directory: Some(0), path: 1, last: Last::Flags(4) };
/// symlink(text, path) and symlinkat(text, directory, path).
const SECOND: Target = Target::Path { directory: None, path: 1, last: Last::Stay };
const SECOND_AT: Target = Target::Path { directory: Some(1), path: 2, last: Last::Stay };

/// Calls of Linux 5.1 and later have the same number in every ABI.
const EVERYWHERE: &[Row] = &[
    simple(425, Call::Absent), // io_uring_setup: its operations pass no filter
    row(437, Call::Openat2, AT, 2),
    row(439, Call::AccessWithFlags, AT_FLAGS_3, 2), // faccessat2
    row(452, Call::Chmod, AT_FLAGS_3, 2),           // fchmodat2
    row(463, Call::SetXattrAt, AT_FLAGS_2, 3),
    row(464, Call::GetXattrAt, AT_FLAGS_2, 3),
    row(465, Call::ListXattr, AT_FLAGS_2, 3),   // listxattrat
    row(466, Call::RemoveXattr, AT_FLAGS_2, 3), // removexattrat
];

const X86_64: &[Row] = &[
    row(2, Call::Open, PATH, 1),
    row(4, Call::Stat(Layout::X86_64), PATH, 1),
    row(5, Call::Stat(Layout::X86_64), FD, 1),
    row(6, Call::Stat(Layout::X86_64), LINK, 1),
    row(21, Call::Access, PATH, 1),
    simple(49, Call::Bind),
    simple(55, Call::PeerCredentials), // getsockopt
    row(59, Call::Exec, PATH, 1),
    row(82, Call::Rename, LINK, 1), // rename
    row(83, Call::Mkdir, LINK, 1),
    row(84, Call::RemoveDirectory, LINK, 1),
    row(85, Call::Creat, PATH, 1),
    row(86, Call::Move, LINK, 1),   // link
    row(87, Call::Remove, LINK, 1), // unlink
    row(88, Call::Symlink, SECOND, 0),
    row(90, Call::Chmod, PATH, 1),
    row(91, Call::Chmod, FD, 1),
    row(92, Call::Chown(Width::Wide), PATH, 1),
    row(93, Call::Chown(Width::Wide), FD, 1),
    row(94, Call::Chown(Width::Wide), LINK, 1),
    wide(102, Identity::GetUid),
    wide(104, Identity::GetGid),
    wide(105, Identity::SetUid),
    wide(106, Identity::SetGid),
    wide(107, Identity::GetEuid),
    wide(108, Identity::GetEgid),
    wide(113, Identity::SetReuid),
    wide(114, Identity::SetRegid),
    wide(115, Identity::GetGroups),
    wide(116, Identity::SetGroups),
    wide(117, Identity::SetResuid),
    wide(118, Identity::GetResuid),
    wide(119, Identity::SetResgid),
    wide(120, Identity::GetResgid),
    wide(122, Identity::SetFsuid),
    wide(123, Identity::SetFsgid),
    simple(125, Call::Capget),
    simple(126, Call::Capset),
    row(132, Call::Move, PATH, 1), // utime
    row(133, Call::Mknod, LINK, 1),
    simple(155, Call::View), // pivot_root
    simple(157, Call::Prctl),
    simple(161, Call::View), // chroot
    row(188, Call::SetXattr, PATH, 1),
    row(189, Call::SetXattr, LINK, 1),
    row(190, Call::SetXattr, FD, 1),
    row(191, Call::GetXattr, PATH, 1),
    row(192, Call::GetXattr, LINK, 1),
    row(193, Call::GetXattr, FD, 1),
    row(194, Call::ListXattr, PATH, 1),
    row(195, Call::ListXattr, LINK, 1),
    row(196, Call::ListXattr, FD, 1),
    row(197, Call::RemoveXattr, PATH, 1),
    row(198, Call::RemoveXattr, LINK, 1),
    row(199, Call::RemoveXattr, FD, 1),
    simple(60, Call::Exit),
    simple(231, Call::Exit),       // exit_group
    simple(246, Call::SelfTest),   // kexec_load
    row(235, Call::Move, PATH, 1), // utimes
    row(257, Call::Open, AT, 2),
    row(258, Call::Mkdir, LINK_AT, 2),
    row(259, Call::Mknod, LINK_AT, 2),
    row(260, Call::Chown(Width::Wide), AT_FLAGS_4, 2),
    row(261, Call::Move, AT, 2), // futimesat
    row(262, Call::Stat(Layout::X86_64), AT_FLAGS_3, 2),
    row(263, Call::Remove, LINK_AT, 2), // unlinkat
    row(264, Call::Rename, LINK_AT, 2), // renameat
    row(265, Call::Move, LINK_AT, 2),   // linkat
    row(266, Call::Symlink, SECOND_AT, 0),
    row(268, Call::Chmod, AT, 2),
    row(269, Call::Access, AT, 2),               // faccessat
    simple(272, Call::View),                     // unshare
    row(280, Call::Move, LINK_AT, 2),            // utimensat
    simple(308, Call::View),                     // setns
    row(316, Call::RenameWithFlags, LINK_AT, 2), // renameat2
    simple(317, Call::Restrict),                 // seccomp
    row(322, Call::Exec, AT_FLAGS_4, 2),
    row(332, Call::Statx, AT_FLAGS_2, 2),
];

const AARCH64: &[Row] = &[
    row(5, Call::SetXattr, PATH, 1),
    row(6, Call::SetXattr, LINK, 1),
    row(7, Call::SetXattr, FD, 1),
    row(8, Call::GetXattr, PATH, 1),
    row(9, Call::GetXattr, LINK, 1),
    row(10, Call::GetXattr, FD, 1),
    row(11, Call::ListXattr, PATH, 1),
    row(12, Call::ListXattr, LINK, 1),
    row(13, Call::ListXattr, FD, 1),
    row(14, Call::RemoveXattr, PATH, 1),
    row(15, Call::RemoveXattr, LINK, 1),
    row(16, Call::RemoveXattr, FD, 1),
    row(33, Call::Mknod, LINK_AT, 2),
    row(34, Call::Mkdir, LINK_AT, 2),
    row(35, Call::Remove, LINK_AT, 2), // unlinkat
    row(36, Call::Symlink, SECOND_AT, 0),
    row(37, Call::Move, LINK_AT, 2),   // linkat
    row(38, Call::Rename, LINK_AT, 2), // renameat
    row(48, Call::Access, AT, 2),      // faccessat
    simple(41, Call::View),            // pivot_root
    simple(51, Call::View),            // chroot
    row(52, Call::Chmod, FD, 1),
    row(53, Call::Chmod, AT, 2),
    row(54, Call::Chown(Width::Wide), AT_FLAGS_4, 2),
    row(55, Call::Chown(Width::Wide), FD, 1),
    row(56, Call::Open, AT, 2),
    row(79, Call::Stat(Layout::Generic), AT_FLAGS_3, 2),
    row(80, Call::Stat(Layout::Generic), FD, 1),
    row(88, Call::Move, LINK_AT, 2), // utimensat
    simple(90, Call::Capget),
    simple(91, Call::Capset),
    simple(93, Call::Exit),
    simple(94, Call::Exit),      // exit_group
    simple(97, Call::View),      // unshare
    simple(104, Call::SelfTest), // kexec_load
    wide(143, Identity::SetRegid),
    wide(144, Identity::SetGid),
    wide(145, Identity::SetReuid),
    wide(146, Identity::SetUid),
    wide(147, Identity::SetResuid),
    wide(148, Identity::GetResuid),
    wide(149, Identity::SetResgid),
    wide(150, Identity::GetResgid),
    wide(151, Identity::SetFsuid),
    wide(152, Identity::SetFsgid),
    wide(158, Identity::GetGroups),
    wide(159, Identity::SetGroups),
    simple(167, Call::Prctl),
    wide(174, Identity::GetUid),
    wide(175, Identity::GetEuid),
    wide(176, Identity::GetGid),
    wide(177, Identity::GetEgid),
    simple(200, Call::Bind),
    simple(209, Call::PeerCredentials), // getsockopt
    row(221, Call::Exec, PATH, 1),
    simple(268, Call::View),                     // setns
    row(276, Call::RenameWithFlags, LINK_AT, 2), // renameat2
    row(281, Call::Exec, AT_FLAGS_4, 2),
    row(291, Call::Statx, AT_FLAGS_2, 2),
];

const I386: &[Row] = &[
    simple(1, Call::Exit),
    row(5, Call::Open, PATH, 1),
    row(8, Call::Creat, PATH, 1),
    row(9, Call::Move, LINK, 1),    // link
    row(10, Call::Remove, LINK, 1), // unlink
    row(11, Call::Exec, PATH, 1),
    row(14, Call::Mknod, LINK, 1),
    row(15, Call::Chmod, PATH, 1),
    row(16, Call::Chown(Width::Narrow), LINK, 1),
    narrow(23, Identity::SetUid),
    narrow(24, Identity::GetUid),
    row(30, Call::Move, PATH, 1), // utime
    row(33, Call::Access, PATH, 1),
    row(38, Call::Rename, LINK, 1), // rename
    row(39, Call::Mkdir, LINK, 1),
    row(40, Call::RemoveDirectory, LINK, 1),
    narrow(46, Identity::SetGid),
    narrow(47, Identity::GetGid),
    narrow(49, Identity::GetEuid),
    narrow(50, Identity::GetEgid),
    simple(61, Call::View), // chroot
    narrow(70, Identity::SetReuid),
    narrow(71, Identity::SetRegid),
    narrow(80, Identity::GetGroups),
    narrow(81, Identity::SetGroups),
    row(83, Call::Symlink, SECOND, 0),
    row(94, Call::Chmod, FD, 1),
    row(95, Call::Chown(Width::Narrow), FD, 1),
    row(106, Call::Stat(Layout::I386), PATH, 1),
    row(107, Call::Stat(Layout::I386), LINK, 1),
    row(108, Call::Stat(Layout::I386), FD, 1),
    narrow(138, Identity::SetFsuid),
    narrow(139, Identity::SetFsgid),
    narrow(164, Identity::SetResuid),
    narrow(165, Identity::GetResuid),
    narrow(170, Identity::SetResgid),
    narrow(171, Identity::GetResgid),
    simple(172, Call::Prctl),
    row(182, Call::Chown(Width::Narrow), PATH, 1),
    simple(184, Call::Capget),
    simple(185, Call::Capset),
    row(195, Call::Stat(Layout::I386Large), PATH, 1),
    row(196, Call::Stat(Layout::I386Large), LINK, 1),
    row(197, Call::Stat(Layout::I386Large), FD, 1),
    row(198, Call::Chown(Width::Wide), LINK, 1),
    wide(199, Identity::GetUid),
    wide(200, Identity::GetGid),
    wide(201, Identity::GetEuid),
    wide(202, Identity::GetEgid),
    wide(203, Identity::SetReuid),
    wide(204, Identity::SetRegid),
    wide(205, Identity::GetGroups),
    wide(206, Identity::SetGroups),
    row(207, Call::Chown(Width::Wide), FD, 1),
    wide(208, Identity::SetResuid),
    wide(209, Identity::GetResuid),
    wide(210, Identity::SetResgid),
    wide(211, Identity::GetResgid),
    row(212, Call::Chown(Width::Wide), PATH, 1),
    wide(213, Identity::SetUid),
    wide(214, Identity::SetGid),
    wide(215, Identity::SetFsuid),
    wide(216, Identity::SetFsgid),
    simple(217, Call::View), // pivot_root
    row(226, Call::SetXattr, PATH, 1),
    row(227, Call::SetXattr, LINK, 1),
    row(228, Call::SetXattr, FD, 1),
    row(229, Call::GetXattr, PATH, 1),
    row(230, Call::GetXattr, LINK, 1),
    row(231, Call::GetXattr, FD, 1),
    row(232, Call::ListXattr, PATH, 1),
    row(233, Call::ListXattr, LINK, 1),
    row(234, Call::ListXattr, FD, 1),
    row(235, Call::RemoveXattr, PATH, 1),
    row(236, Call::RemoveXattr, LINK, 1),
    row(237, Call::RemoveXattr, FD, 1),
    simple(252, Call::Exit),       // exit_group
    row(271, Call::Move, PATH, 1), // utimes
    simple(283, Call::SelfTest),   // kexec_load
    row(295, Call::Open, AT, 2),
    row(296, Call::Mkdir, LINK_AT, 2),
    row(297, Call::Mknod, LINK_AT, 2),
    row(298, Call::Chown(Width::Wide), AT_FLAGS_4, 2),
    row(299, Call::Move, AT, 2), // futimesat
    row(300, Call::Stat(Layout::I386Large), AT_FLAGS_3, 2),
    row(301, Call::Remove, LINK_AT, 2), // unlinkat
    row(302, Call::Rename, LINK_AT, 2), // renameat
    row(303, Call::Move, LINK_AT, 2),   // linkat
    row(304, Call::Symlink, SECOND_AT, 0),
    row(306, Call::Chmod, AT, 2),
    row(307, Call::Access, AT, 2),               // faccessat
    simple(310, Call::View),                     // unshare
    row(320, Call::Move, LINK_AT, 2),            // utimensat
    simple(346, Call::View),                     // setns
    row(353, Call::RenameWithFlags, LINK_AT, 2), // renameat2
    row(358, Call::Exec, AT_FLAGS_4, 2),
    simple(361, Call::Bind),
    simple(365, Call::PeerCredentials), // getsockopt
    row(383, Call::Statx, AT_FLAGS_2, 2),
    row(412, Call::Move, LINK_AT, 2), // utimensat with 64 bit times
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_number_stands_twice() {
        for abi in [Abi::X86_64, Abi::I386, Abi::Aarch64] {
            let numbers: Vec<u32> = table(abi).map(|row| row.number).collect();
            assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), numbers.len(), "{abi:?}");
            assert!(numbers.iter().all(|&n| n < 512), "{abi:?}: the dispatcher's array has 512 places");
        }
    }

    /// The numbers of the ABI we are compiled for are those of libc.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn numbers_are_those_of_libc() {
        let find = |number: i64| table(Abi::X86_64).find(|row| i64::from(row.number) == number).map(|row| (row.call, row.target));
        for (number, expected) in [
            (libc::SYS_open, (Call::Open, PATH)),
            (libc::SYS_openat, (Call::Open, AT)),
            (libc::SYS_openat2, (Call::Openat2, AT)),
            (libc::SYS_creat, (Call::Creat, PATH)),
            (libc::SYS_stat, (Call::Stat(Layout::X86_64), PATH)),
            (libc::SYS_lstat, (Call::Stat(Layout::X86_64), LINK)),
            (libc::SYS_fstat, (Call::Stat(Layout::X86_64), FD)),
            (libc::SYS_newfstatat, (Call::Stat(Layout::X86_64), AT_FLAGS_3)),
            (libc::SYS_statx, (Call::Statx, AT_FLAGS_2)),
            (libc::SYS_chown, (Call::Chown(Width::Wide), PATH)),
            (libc::SYS_lchown, (Call::Chown(Width::Wide), LINK)),
            (libc::SYS_fchown, (Call::Chown(Width::Wide), FD)),
            (libc::SYS_fchownat, (Call::Chown(Width::Wide), AT_FLAGS_4)),
            (libc::SYS_access, (Call::Access, PATH)),
            (libc::SYS_faccessat, (Call::Access, AT)),
            (libc::SYS_faccessat2, (Call::AccessWithFlags, AT_FLAGS_3)),
            (libc::SYS_chmod, (Call::Chmod, PATH)),
            (libc::SYS_fchmod, (Call::Chmod, FD)),
            (libc::SYS_fchmodat, (Call::Chmod, AT)),
            (libc::SYS_fchmodat2, (Call::Chmod, AT_FLAGS_3)),
            (libc::SYS_mkdir, (Call::Mkdir, LINK)),
            (libc::SYS_mkdirat, (Call::Mkdir, LINK_AT)),
            (libc::SYS_mknod, (Call::Mknod, LINK)),
            (libc::SYS_mknodat, (Call::Mknod, LINK_AT)),
            (libc::SYS_bind, (Call::Bind, Target::Nothing)),
            (libc::SYS_symlink, (Call::Symlink, SECOND)),
            (libc::SYS_symlinkat, (Call::Symlink, SECOND_AT)),
            (libc::SYS_setresuid, (Call::Identity(Identity::SetResuid, Width::Wide), Target::Nothing)),
            (libc::SYS_getresgid, (Call::Identity(Identity::GetResgid, Width::Wide), Target::Nothing)),
            (libc::SYS_setgroups, (Call::Identity(Identity::SetGroups, Width::Wide), Target::Nothing)),
            (libc::SYS_setfsuid, (Call::Identity(Identity::SetFsuid, Width::Wide), Target::Nothing)),
            (libc::SYS_capset, (Call::Capset, Target::Nothing)),
            (libc::SYS_prctl, (Call::Prctl, Target::Nothing)),
            (libc::SYS_lsetxattr, (Call::SetXattr, LINK)),
            (libc::SYS_fgetxattr, (Call::GetXattr, FD)),
            (libc::SYS_llistxattr, (Call::ListXattr, LINK)),
            (libc::SYS_removexattr, (Call::RemoveXattr, PATH)),
            (libc::SYS_execveat, (Call::Exec, AT_FLAGS_4)),
            (libc::SYS_exit_group, (Call::Exit, Target::Nothing)),
            (libc::SYS_getsockopt, (Call::PeerCredentials, Target::Nothing)),
            (libc::SYS_unshare, (Call::View, Target::Nothing)),
            (libc::SYS_rename, (Call::Rename, LINK)),
            (libc::SYS_renameat, (Call::Rename, LINK_AT)),
            (libc::SYS_unlink, (Call::Remove, LINK)),
            (libc::SYS_unlinkat, (Call::Remove, LINK_AT)),
            (libc::SYS_rmdir, (Call::RemoveDirectory, LINK)),
            (libc::SYS_renameat2, (Call::RenameWithFlags, LINK_AT)),
            (libc::SYS_utimensat, (Call::Move, LINK_AT)),
            (libc::SYS_io_uring_setup, (Call::Absent, Target::Nothing)),
            (libc::SYS_seccomp, (Call::Restrict, Target::Nothing)),
            (libc::SYS_kexec_load, (Call::SelfTest, Target::Nothing)),
        ] {
            assert_eq!(find(number), Some(expected), "number {number}");
        }
    }
}
