//! What to run and in what: plain data that crosses the process boundary as JSON. No I/O.
//!
//! Paths and strings may hold any bytes; they are written as JSON strings where they are UTF-8 and as arrays of numbers
//! otherwise ([`super::wire::bytes`]).

use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::limits::Limit;
use super::wire;
use crate::oci::ImagePath;

/// One command, its root file system and its surroundings: all a sandbox needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// The root file system.
    pub root: Root,
    /// Who the caller is inside.
    pub id_map: IdMap,
    /// Mounts beyond `/proc`, `/sys` and `/dev`, done in this order.
    pub mounts: Vec<Mount>,
    /// The command.
    pub process: Process,
    /// The host name inside; `None` keeps the host's and makes no UTS namespace.
    pub hostname: Option<String>,
    /// Network access.
    pub network: Network,
    /// Processes seen inside. With [`Namespace::Private`] everything the command leaves behind is killed; with
    /// [`Namespace::Host`] and no emulation the command takes the sandbox's own place and nothing watches it.
    pub pid: Namespace,
    /// System V IPC and POSIX message queues.
    pub ipc: Namespace,
    /// What `/dev` holds.
    pub devices: Devices,
    /// The most the command may hold within its user namespace.
    pub capabilities: Capabilities,
    /// Whether programs with a setuid bit or file capabilities may raise the command's privileges.
    pub privileges: Privileges,
    /// Interpreters of foreign programs: lines as written to `binfmt_misc`'s `register`, with the flag `F` and interpreters of the
    /// host. They hold inside only. Needs Linux 6.7 and a private PID namespace, else there is a notice.
    pub binfmt: Vec<String>,
    /// Root emulation, in the words of the [`super::Emulator`].
    pub emulation: Option<Value>,
}

/// The root file system.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Root {
    /// An overlay whose changes stay in `upper`. Both directories are on one file system and fresh; `fsync` inside does
    /// nothing (`volatile`), since an upper that did not live to be committed is thrown away.
    Overlay {
        /// Layer trees, the top one first; at least one.
        #[serde(with = "wire::list")]
        lowers: Vec<PathBuf>,
        /// Where changes go.
        #[serde(with = "wire::bytes")]
        upper: PathBuf,
        /// Overlayfs' work directory.
        #[serde(with = "wire::bytes")]
        work: PathBuf,
    },
    /// A stack of layers nobody can write to.
    ReadOnly {
        /// Layer trees, the top one first; at least one.
        #[serde(with = "wire::list")]
        lowers: Vec<PathBuf>,
    },
    /// A stack of layers whose changes live in memory and vanish with the command.
    Scratch {
        /// Layer trees, the top one first; at least one.
        #[serde(with = "wire::list")]
        lowers: Vec<PathBuf>,
        /// An empty directory on disk for kernels before 6.6, whose tmpfs lacks the xattrs an upper needs. The caller
        /// removes what is in it afterwards.
        #[serde(with = "wire::option")]
        disk: Option<PathBuf>,
    },
    /// A plain directory.
    Directory {
        /// The directory.
        #[serde(with = "wire::bytes")]
        path: PathBuf,
        /// Whether the command may change it.
        access: Access,
    },
}

impl Root {
    /// How many layers it has.
    pub(super) fn layers(&self) -> usize {
        match self {
            Self::Overlay { lowers, .. } | Self::ReadOnly { lowers } | Self::Scratch { lowers, .. } => lowers.len(),
            Self::Directory { .. } => 1,
        }
    }
}

/// Whether something may be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Every write fails with `EROFS`.
    ReadOnly,
    /// Writes are limited by permissions only.
    ReadWrite,
}

/// The one user and the one group that exist inside; both stand for the caller's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// The caller's user ID inside.
    pub inside_uid: u32,
    /// The caller's group ID inside.
    pub inside_gid: u32,
}

impl IdMap {
    /// The caller is root inside: what builds use.
    pub const ROOT: Self = Self { inside_uid: 0, inside_gid: 0 };
}

/// Something mounted into the root file system.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mount {
    /// Where; symlinks of the image are followed inside the image, never out of it.
    #[serde(with = "wire::bytes")]
    pub target: ImagePath,
    /// What.
    pub kind: MountKind,
    /// Whether the command may write to it.
    pub access: Access,
    /// What to do when the target does not exist.
    pub missing: Missing,
}

/// What is mounted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum MountKind {
    /// A file or directory of the host, with all mounts below it.
    Bind {
        /// Its path; symlinks are followed.
        #[serde(with = "wire::bytes")]
        source: PathBuf,
    },
    /// A path inside a stack of layers. Writes, where allowed, are dropped when the command has ended.
    Stack {
        /// Layer trees, the top one first; at least one.
        #[serde(with = "wire::list")]
        lowers: Vec<PathBuf>,
        /// What to take of the stack; the root for all of it.
        #[serde(with = "wire::bytes")]
        path: ImagePath,
        /// An empty directory for what is written, which the caller removes afterwards; `None` to keep it in memory.
        #[serde(with = "wire::option")]
        changes: Option<PathBuf>,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Its limit in bytes; `None` for the kernel's (half of the memory).
        size: Option<u64>,
        /// Permissions of its root directory.
        mode: u32,
    },
    /// A file in memory.
    File {
        /// What is in it.
        #[serde(with = "wire::bytes")]
        content: Vec<u8>,
        /// Its permissions.
        mode: u32,
    },
    /// A socket in memory whose connections the caller accepts.
    Socket {
        /// Which of the descriptors given to [`super::spawn_holding`] is the channel to the caller ([`super::Connections::channel`]).
        channel: usize,
        /// Its permissions.
        mode: u32,
    },
}

/// What to do about a mount target that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Missing {
    /// Make it, without a trace in the image: in a layer of its own, or removed afterwards if still untouched.
    Create,
    /// Leave the mount out.
    Skip,
    /// End with an error.
    Fail,
}

/// The command itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments. A program without slash is looked for in the `PATH` of `env`, inside.
    #[serde(with = "wire::list")]
    pub argv: Vec<OsString>,
    /// The whole environment, `NAME=VALUE`.
    #[serde(with = "wire::list")]
    pub env: Vec<OsString>,
    /// The working directory; it must exist.
    #[serde(with = "wire::bytes")]
    pub cwd: ImagePath,
    /// The file mode creation mask; `None` keeps the caller's.
    pub umask: Option<u32>,
    /// Resource limits other than the caller's.
    pub limits: Vec<Limit>,
}

/// Whether a namespace is the sandbox's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespace {
    /// Its own.
    Private,
    /// The caller's.
    Host,
}

/// Network access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// The caller's.
    Host,
    /// A loopback device only.
    None,
}

/// What `/dev` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Devices {
    /// The few devices every program expects, and pseudoterminals of its own.
    Minimal,
    /// All of the host's: GPUs, InfiniBand.
    Host,
}

/// Whether executing a file may raise privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Privileges {
    /// As always on Unix. `sudo` and `su` refuse to work otherwise; there is nothing to gain beyond the user namespace.
    Raisable,
    /// `no_new_privs` is set.
    Fixed,
}

/// A set of capabilities, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities(u64);

/// Names by number, without `CAP_`; see capabilities(7).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What Docker leaves a container: moby, `oci/caps/defaults.go`.
const DOCKER: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

impl Capabilities {
    /// No capability.
    pub const NONE: Self = Self(0);
    /// Every capability, also those younger than this program.
    pub const ALL: Self = Self(u64::MAX);

    /// The 14 capabilities Docker leaves a container.
    pub fn docker() -> Self {
        DOCKER.iter().filter_map(|name| Self::named(name)).fold(Self::NONE, Self::with)
    }

    /// The set a name stands for: `CHOWN`, `cap_chown`, `ALL`. `None` for an unknown name.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.to_ascii_uppercase();
        if name == "ALL" {
            return Some(Self::ALL);
        }
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        NAMES.iter().position(|known| *known == name).map(|number| Self(1 << number))
    }

    /// All names, for messages, without `CAP_`.
    pub fn names() -> &'static [&'static str] {
        &NAMES
    }

    /// This set and the other.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without the other.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The set as the kernel's bit mask.
    pub fn mask(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_by_name() {
        for (name, expected) in
            [("CHOWN", Some(1)), ("cap_chown", Some(1)), ("CAP_BPF", Some(1 << 39)), ("all", Some(u64::MAX)), ("CAP_", None)]
        {
            assert_eq!(Capabilities::named(name).map(Capabilities::mask), expected, "{name}");
        }
        // The mask every `docker run` shows as CapBnd in /proc/self/status.
        assert_eq!(Capabilities::docker().mask(), 0xa804_25fb);
    }

    #[test]
    fn any_bytes_survive_json() {
        use std::os::unix::ffi::OsStringExt;
        let odd = OsString::from_vec(b"a\xff/\n\"".to_vec());
        let process = Process {
            argv: vec![odd.clone(), "plain".into()],
            env: vec![],
            cwd: ImagePath::clean(b"/\xfe"),
            umask: Some(0o22),
            limits: vec![],
        };
        let json = serde_json::to_string(&process).unwrap();
        assert!(json.contains("\"plain\""), "{json}");
        let back: Process = serde_json::from_str(&json).unwrap();
        assert_eq!((back.argv, back.cwd), (vec![odd, "plain".into()], process.cwd));
    }
}
