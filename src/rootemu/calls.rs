//! What a system call means to root emulation, and where its arguments stand. The calls themselves are in [`super::tables`].

/// What a call means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// chown: owner, group.
    Chown(Width),
    /// chmod: mode.
    Chmod,
    /// stat into this structure: buffer.
    Stat(Layout),
    /// statx: flags, mask, buffer.
    Statx,
    /// access: mode.
    Access,
    /// faccessat2: mode, flags.
    AccessWithFlags,
    /// open: flags, mode.
    Open,
    /// openat2: structure, its size.
    Openat2,
    /// creat: mode.
    Creat,
    /// mkdir: mode.
    Mkdir,
    /// mknod: mode, device.
    Mknod,
    /// symlink; the link's text is argument 0.
    Symlink,
    /// bind, which makes a socket's name: socket, address, its length.
    Bind,
    /// setxattr: name, value, size, flags.
    SetXattr,
    /// setxattrat: name, structure.
    SetXattrAt,
    /// getxattr: name, value, size.
    GetXattr,
    /// getxattrat: name, structure.
    GetXattrAt,
    /// listxattr: list, size.
    ListXattr,
    /// removexattr: name.
    RemoveXattr,
    /// One of the calls on a process's user and group IDs.
    Identity(Identity, Width),
    /// capget: header, data.
    Capget,
    /// capset: header, data.
    Capset,
    /// prctl, its subcommands on capabilities.
    Prctl,
    /// getsockopt, asked for SO_PEERCRED.
    PeerCredentials,
    /// execve.
    Exec,
    /// exit, exit_group.
    Exit,
    /// A call that may give the process another root or mount namespace.
    View,
    /// seccomp, by which a process may give up calls.
    Restrict,
    /// A call that can give a symlink or FIFO another inode number (copy-up): link, utime.
    Move,
    /// rename, renameat: the same, and what has the new name may go.
    Rename,
    /// renameat2: flags after both names.
    RenameWithFlags,
    /// unlink; unlinkat: flags.
    Remove,
    /// rmdir.
    RemoveDirectory,
    /// Would get around the filter; does not exist.
    Absent,
    /// Used by the self-test only.
    SelfTest,
}

/// The calls on a process's user and group IDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Identity {
    GetUid,
    GetEuid,
    GetGid,
    GetEgid,
    GetResuid,
    GetResgid,
    GetGroups,
    SetUid,
    SetGid,
    SetReuid,
    SetRegid,
    SetResuid,
    SetResgid,
    SetFsuid,
    SetFsgid,
    SetGroups,
}

/// How wide user and group IDs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 16 bit: the first generation of i386 calls.
    Narrow,
    /// 32 bit.
    Wide,
}

/// The structures that stat calls fill in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `struct stat` of x86-64.
    X86_64,
    /// `struct stat` of asm-generic (aarch64).
    Generic,
    /// `struct stat64` of i386.
    I386Large,
    /// `struct stat` of i386.
    I386,
}

/// Which file a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// None.
    Nothing,
    /// The descriptor in this argument.
    Descriptor(u8),
    /// A path.
    Path {
        /// The argument with the directory it is relative to; the working directory if there is none.
        directory: Option<u8>,
        /// The argument with the path.
        path: u8,
        /// Whether a symlink at its end is followed.
        last: Last,
    },
}

/// What happens to a symlink at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// It is followed.
    Follow,
    /// It is the target.
    Stay,
    /// AT_SYMLINK_NOFOLLOW in this argument decides; AT_EMPTY_PATH is honoured, too.
    Flags(u8),
}

/// One line of a table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The call's number.
    pub number: u32,
    /// What it means.
    pub call: Call,
    /// Which file it is about.
    pub target: Target,
    /// The first of the arguments named at [`Call`].
    pub first: u8,
}
