//! The kernel, as thin safe calls: the only `unsafe` of the crate, and no policy.

pub mod capability;
pub mod fs;
pub mod graft;
pub mod mount;
pub mod namespace;
pub mod network;
pub mod notify;
pub mod process;
pub mod seccomp;
