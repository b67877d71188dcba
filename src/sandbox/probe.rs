//! What this machine allows.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// Everything that was tried, in the order to show it.
#[derive(Clone, Debug)]
pub struct Probe {
    /// One entry a feature.
    pub checks: Vec<Check>,
}

impl Probe {
    /// Whether a feature works.
    pub fn works(&self, feature: Feature) -> bool {
        self.checks.iter().any(|check| check.feature == feature && check.works.is_ok())
    }
}

/// One thing that was tried.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Check {
    /// What.
    pub feature: Feature,
    /// Whether it works, or why not.
    pub works: Result<(), String>,
    /// What would make it work, or what is done instead.
    pub remedy: Option<String>,
}

/// What can be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Feature {
    /// A user namespace with one mapped ID, and a mount namespace in it. Nothing works without.
    UserNamespace,
    /// PID namespaces.
    PidNamespace,
    /// A fresh `/proc` in one.
    Proc,
    /// Network namespaces, for `--network=none`.
    NetworkNamespace,
    /// Overlay mounts with upper and whiteouts on the file system of the storage directory.
    Overlay,
    /// Overlay mounts with an upper in memory.
    ScratchOverlay,
    /// `user.*` extended attributes on the file system of the storage directory.
    UserXattrs,
    /// Files that share blocks on the file system of the storage directory.
    Reflinks,
    /// System call notification, for consistent root emulation.
    SeccompNotify,
    /// A `binfmt_misc` of its own, for images of other architectures.
    Binfmt,
}

/// Tries what this machine allows; `dir` is an existing directory on the file system that matters.
pub fn probe(dir: &Path) -> Probe {
    let _ = dir;
    Probe { checks: Vec::new() }
}

/// The checks that need the namespaces, in a sandbox process.
pub(super) fn inside(dir: &Path) -> Vec<Check> {
    let _ = dir;
    Vec::new()
}
