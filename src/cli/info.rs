//! `rootling info`: what this machine allows, and the remedy for what it does not.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::environment::Environment;
use super::fakeroot::FakerootArguments;
use super::{Format, fakeroot, render};
use crate::error::Result;
use crate::oci::{Digest, Platform};
use crate::rootemu;
use crate::rootfs::view::{LayerDir, View};
use crate::sandbox::{self, Check, Feature};
use crate::store::{StepRecord, Store, WorkspaceKind};

#[derive(clap::Args)]
pub struct Arguments {
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Tell which fakeroot config is for an image, or for a directory with a root file system (with a `/` in it); without one, which
    /// configs there are
    #[arg(long, value_name = "IMAGE", num_args = 0..=1)]
    fakeroot: Option<Option<String>>,
    #[command(flatten)]
    configs: FakerootArguments,
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    if let Some(image) = &arguments.fakeroot {
        let configs = arguments.configs.configs(environment)?;
        let view = image.as_deref().map(|image| view(image, environment).map(|(view, _store)| (image, view, _store))).transpose()?;
        return fakeroot::print(view.as_ref().map(|(image, view, _)| (*image, view)), &configs, arguments.format);
    }
    let store = environment.store()?;
    let probe = sandbox::probe(store.path());
    let workspace = if probe.works(Feature::Overlay) { "overlay" } else { "copy" };
    match arguments.format {
        Format::Json => {
            let findings: Vec<_> = probe.checks.iter().map(json_of).collect();
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
            let rows: Vec<Vec<String>> = probe.checks.iter().map(cells).collect();
            render::result("");
            render::result(&render::table(&["REQUIREMENT", "WORKS", "DETAIL"], &rows));
        }
    }
    Ok(())
}

/// The tree of an image, or of a directory; the store that holds it, for as long as it is looked at.
fn view(image: &str, environment: &Environment) -> Result<(View, Option<Store>)> {
    let path = Path::new(image);
    if image.contains('/') && path.is_dir() {
        return Ok((View::new(vec![LayerDir { fs: path.to_owned(), record: Arc::default() }]), None));
    }
    let store = environment.store()?;
    let image = store.load_image(&store.find_platform(image, None)?)?;
    let layers = store.stack(&image.config.rootfs.diff_ids)?;
    Ok((View::new(layers), Some(store)))
}

fn json_of(check: &Check) -> serde_json::Value {
    json!({ "name": check.feature.name(), "works": check.works.is_ok(), "reason": check.works.as_ref().err(), "remedy": check.remedy })
}

fn cells(check: &Check) -> Vec<String> {
    let detail: Vec<&str> = check.works.as_ref().err().into_iter().chain(&check.remedy).map(String::as_str).collect();
    vec![check.feature.name().to_owned(), if check.works.is_ok() { "yes" } else { "no" }.to_owned(), detail.join("; ")]
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

/// The mode of root emulation to use: what was asked for, or the filter that answers success where this kernel can't do better.
///
/// Tried once a boot, then remembered; says so when it is not what was asked for.
pub fn emulation(store: Option<&Store>, wanted: rootemu::Mode) -> Result<rootemu::Mode> {
    if wanted != rootemu::Mode::Consistent {
        return Ok(wanted);
    }
    let key = Digest::of(format!("emulation {}", machine()));
    if let Some(store) = store
        && let Some(record) = store.step_get(&key)?
        && record.value == "consistent"
    {
        return Ok(wanted);
    }
    let (mode, error) = rootemu::Emulation::choose();
    if let Some(error) = error {
        let instead =
            if mode == rootemu::Mode::None { "root is not emulated at all" } else { "root's system calls succeed without effect" };
        render::warning(&format!("consistent root emulation does not work here, so {instead}: {error}"));
    } else if let Some(store) = store {
        store.step_put(&key, &StepRecord { layers: Vec::new(), blobs: Vec::new(), value: "consistent".into() })?;
    }
    Ok(mode)
}

/// What a probe's answer holds for: this boot of this machine, for this user (root and others differ).
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    // Inside another container the same boot may allow less.
    let namespace = std::fs::read_link("/proc/self/ns/user").unwrap_or_default();
    format!("{} {} {}", read("/proc/sys/kernel/random/boot_id"), nix::unistd::geteuid(), namespace.display())
}
