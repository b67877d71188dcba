//! `rootling prune`.

use serde_json::json;

use super::environment::Environment;
use super::{Format, render};
use crate::error::Result;
use crate::store::PruneOptions;

#[derive(clap::Args)]
pub struct Arguments {
    /// Remove the step cache too
    #[arg(long)]
    cache: bool,
    /// Remove unnamed images and the step cache too
    #[arg(long, short)]
    all: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let store = environment.store()?;
    let report = store.prune(&PruneOptions { cache: arguments.cache || arguments.all, unnamed: arguments.all })?;
    match arguments.format {
        Format::Json => render::result(
            &json!({ "blobs": report.blobs, "layers": report.layers, "trees": report.trees, "records": report.records, "bytes": report.bytes }).to_string(),
        ),
        Format::Table => render::result(&format!(
            "removed {} blobs, {} layers, {} trees, {} records: {}",
            report.blobs,
            report.layers,
            report.trees,
            report.records,
            render::size(report.bytes)
        )),
    }
    Ok(())
}
