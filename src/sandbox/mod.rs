//! One command in a root file system: a plain-data [`Spec`] goes in, a [`Status`] comes out.
//!
//! [`spawn`] starts this program again (`/proc/self/exe`) straight into new namespaces, since a user namespace can't be entered
//! by a threaded process. That process finds the specification on an inherited descriptor ([`reenter`], first statement of
//! `main`), mounts the root file system and becomes the namespace's PID 1 and parent of the command.
//!
//! Not here: images and the storage directory (callers hand over plain paths), what root emulation does ([`Emulator`] is
//! only its seam), reading the environment, printing.

mod attach;
mod command;
mod devices;
mod emulator;
mod enter;
mod explain;
mod foreign;
mod init;
mod limits;
mod mounts;
mod probe;
mod root;
mod socket;
mod spawn;
mod spec;
mod squashfs;
mod status;
mod target;
mod wire;

pub use emulator::{Emulator, Supervision};
pub use enter::reenter;
pub use foreign::interpreters;
pub use limits::Limit;
pub use probe::{Check, Feature, Probe, probe};
pub use socket::Connections;
pub use spawn::{Killer, Running, Stdio, Stream, spawn, spawn_holding};
pub use spec::{Access, Capabilities, Devices, IdMap, Missing, Mount, MountKind, Namespace, Network, Privileges, Process, Root, Spec};
pub use squashfs::{MountedSquashfs, SquashFuse};
pub use status::{Exit, Status};
