//! `rootling cache`.

use std::time::SystemTime;

use serde_json::json;

use super::environment::Environment;
use super::{Format, render};
use crate::error::Result;

#[derive(clap::Args)]
pub struct Arguments {
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let Some(store) = environment.existing_store()? else {
        if arguments.format == Format::Json {
            render::result(&json!({ "mounts": [], "steps": [] }).to_string());
        }
        return Ok(());
    };
    let (mounts, steps) = (store.cache_mounts()?, store.steps()?);
    match arguments.format {
        Format::Json => {
            let mounts: Vec<_> = mounts
                .iter()
                .map(|mount| {
                    json!({
                        "key": mount.key, "id": mount.record.id, "from": mount.record.from, "directories": mount.directories,
                        "bytes": mount.bytes, "used": time(mount.used), "inUse": mount.in_use,
                    })
                })
                .collect();
            let steps: Vec<_> = steps
                .iter()
                .map(|step| json!({ "key": step.key, "layers": step.record.layers, "bytes": step.bytes, "used": time(step.used), "result": step.record.value }))
                .collect();
            render::result(&json!({ "mounts": mounts, "steps": steps }).to_string());
        }
        Format::Table => {
            let mut rows: Vec<Vec<String>> = mounts
                .iter()
                .map(|mount| {
                    let from = mount.record.from.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
                    let used = if mount.in_use { "now".to_owned() } else { time(mount.used) };
                    vec!["mount".to_owned(), format!("{}{from}", mount.record.id), render::size(mount.bytes), used]
                })
                .collect();
            rows.extend(
                steps.iter().map(|step| vec!["step".to_owned(), step.key.short().to_string(), render::size(step.bytes), time(step.used)]),
            );
            render::result(&render::table(&["KIND", "NAME", "SIZE", "LAST USED"], &rows));
        }
    }
    Ok(())
}

/// To the second, in UTC.
fn time(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).ok().and_then(|at| at.round(jiff::Unit::Second).ok()).map(|at| at.to_string()).unwrap_or_default()
}
