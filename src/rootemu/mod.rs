//! Root emulation: system call tables, filter, supervisor.
//!
//! One user ID is mapped, so the kernel refuses everything that needs a second one. In *consistent* mode a seccomp filter hands such calls, and
//! those that would show the difference, to a supervisor in the step's own namespaces, which keeps what was asked for in
//! the files' extended attributes and in its memory and answers accordingly. What a call has set the next call sees, and the next step, and
//! the packed layer. It is no security boundary: a process that wants to be lied to less can find ways.
//!
//! In the order of a call: [`calls`] say what calls mean and [`tables`] which there are, [`filter`] which of them are handed over;
//! [`supervisor`] takes one (by [`rota`]) and finds its [`request`], its caller among [`processes`], and its file by [`paths`]; [`stat`], [`owner`], [`access`], [`create`], [`xattr`],
//! [`identity`] and [`exec`] answer it. What a file is believed to be is in [`attributes`] and [`kept`] (by [`overrides`], or [`inodes`] where attributes
//! can't be, which [`removal`] keeps right, and [`report`] passes on to the layer's record); what a process is believed to be is in
//! [`credentials`]. [`graft`] makes programs that ask about many files ask less.
//! [`fakeroot`] is the other way, a program in the image that does it.

mod access;
mod attributes;
pub mod calls;
mod create;
pub mod credentials;
mod emulation;
mod exec;
pub mod fakeroot;
pub mod filter;
mod graft;
mod identity;
mod inodes;
mod kept;
mod links;
mod lists;
mod overrides;
mod owner;
mod paths;
mod processes;
mod procfs;
mod removal;
mod report;
mod request;
mod rota;
mod spec;
mod stat;
mod supervisor;
pub mod tables;
mod xattr;

pub use crate::rootfs::meta::Override;
pub use emulation::Emulation;
pub use spec::{EmulationSpec, Mode, Report, User};
