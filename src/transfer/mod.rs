//! Images between places: registries, rootfs tarballs and directories, programs of this machine, exported tarballs.

mod host;
mod pipe;
