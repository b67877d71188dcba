//! Rootling builds, stores, runs and ships OCI container images without root, daemon or subuid.
//!
//! The modules in reading order, lowest layer first; each imports only what stands above it here (held by `tests/tidy.rs`).

pub mod error;
pub mod event;
pub mod oci;

pub mod dockerfile;
pub mod sys;
pub mod trust;

pub mod rootfs;

pub mod registry;
pub mod sandbox;
pub mod sbom;
pub mod store;

pub mod rootemu;

pub mod transfer;

pub mod build;

pub mod cli;
