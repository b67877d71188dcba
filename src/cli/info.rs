//! `rootling info`: what this machine allows, and the remedy for what it does not.

use serde_json::json;

use super::environment::Environment;
use super::{Format, render};
use crate::error::Result;
use crate::oci::{Digest, Platform};
use crate::sandbox::{self, Feature};
use crate::store::{StepRecord, Store, WorkspaceKind};

#[derive(clap::Args)]
pub struct Arguments {
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let store = environment.store()?;
    let probe = sandbox::probe(&store.path());
    let workspace = if probe.works(Feature::Overlay) { "overlay" } else { "copy" };
    match arguments.format {
        Format::Json => {
            let findings: Vec<_> = probe
                .findings
                .iter()
                .map(
                    |finding| json!({ "name": finding.name, "works": finding.works(), "detail": finding.detail, "remedy": finding.remedy }),
                )
                .collect();
            let info = json!({
                "version": env!("CARGO_PKG_VERSION"),
                "platform": Platform::host().to_string(),
                "storage": environment.storage()?,
                "workspace": workspace,
                "requirements": findings,
            });
            render::result(&serde_json::to_string_pretty(&info).expect("plain data"));
        }
        Format::Table => {
            render::result(&format!("storage    {}", environment.storage()?.display()));
            render::result(&format!("platform   {}", Platform::host()));
            render::result(&format!("workspace  {workspace}"));
            let rows: Vec<Vec<String>> = probe
                .findings
                .iter()
                .map(|finding| {
                    let remedy = if finding.remedy.is_empty() { String::new() } else { format!("; {}", finding.remedy) };
                    vec![
                        finding.name.to_owned(),
                        if finding.works() { "yes" } else { "no" }.to_owned(),
                        format!("{}{remedy}", finding.detail),
                    ]
                })
                .collect();
            render::result("");
            render::result(&render::table(&["REQUIREMENT", "WORKS", "DETAIL"], &rows));
        }
    }
    Ok(())
}

fn name(feature: Feature) -> &'static str {
    match feature {
        Feature::UserNamespace => "user namespaces",
        Feature::PidNamespace => "PID namespaces",
        Feature::Proc => "fresh /proc",
        Feature::NetworkNamespace => "network namespaces",
        Feature::Overlay => "overlay on the storage directory",
        Feature::ScratchOverlay => "overlay in memory",
        Feature::UserXattrs => "user xattrs on the storage directory",
        Feature::Reflinks => "reflinks on the storage directory",
        Feature::SeccompNotify => "seccomp user notification",
        Feature::Binfmt => "binfmt_misc of one's own",
    }
}

/// How trees are mounted here: probed once a boot and machine, then remembered in the storage directory.
///
/// `$ROOTLING_WORKSPACE` exists for tests: both kinds must give the same images.
pub fn workspace(store: &Store, environment: &Environment) -> Result<WorkspaceKind> {
    match environment.variable("ROOTLING_WORKSPACE") {
        Some("overlay") => return Ok(WorkspaceKind::Overlay),
        Some("copy") => return Ok(WorkspaceKind::Copy),
        _ => {}
    }
    let key = Digest::of(format!("workspace {}", machine()));
    if let Some(record) = store.step_get(&key)? {
        return Ok(if record.value == "overlay" { WorkspaceKind::Overlay } else { WorkspaceKind::Copy });
    }
    let overlay = sandbox::probe(store.path()).works(Feature::Overlay);
    let (kind, name) = if overlay { (WorkspaceKind::Overlay, "overlay") } else { (WorkspaceKind::Copy, "copy") };
    store.step_put(&key, &StepRecord { layers: Vec::new(), blobs: Vec::new(), value: name.into() })?;
    Ok(kind)
}

/// What a probe's answer holds for: this boot of this machine, for this user (root and others differ).
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    // Inside another container the same boot may allow less.
    let namespace = std::fs::read_link("/proc/self/ns/user").unwrap_or_default();
    format!("{} {} {}", read("/proc/sys/kernel/random/boot_id"), nix::unistd::geteuid(), namespace.display())
}
