//! `rootling prune`.

use serde_json::json;

use super::environment::Environment;
use super::{Format, render};
use crate::build::is_unnamed;
use crate::error::Result;
use crate::store::{Action, Keep, PruneOptions, Tally};

#[derive(clap::Args)]
pub struct Arguments {
    /// Remove the step cache too
    #[arg(long)]
    cache: bool,
    /// Remove images without name, the step cache and all trees too
    #[arg(long, short)]
    all: bool,
    /// Only say what would be removed
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let store = environment.store()?;
    if arguments.all && !arguments.dry_run {
        for image in store.images()?.iter().filter(|image| is_unnamed(&image.reference)) {
            store.remove_image(&image.reference)?;
        }
    }
    let kept = |given: bool| if given { Keep::Nothing } else { Keep::All };
    let report = store.prune(&PruneOptions {
        steps: kept(arguments.cache || arguments.all),
        trees: kept(arguments.all),
        mounts: kept(arguments.cache || arguments.all),
        action: if arguments.dry_run { Action::Estimate } else { Action::Remove },
    })?;
    let parts = [("layers", report.layers), ("blobs", report.blobs), ("trees", report.trees), ("steps", report.steps)];
    match arguments.format {
        Format::Json => {
            let tally = |tally: Tally| json!({ "count": tally.count, "bytes": tally.bytes });
            let mut object: serde_json::Map<_, _> = parts.iter().map(|(name, part)| ((*name).to_owned(), tally(*part))).collect();
            object.insert("freed".into(), report.freed().into());
            render::result(&serde_json::Value::Object(object).to_string());
        }
        Format::Table => {
            let rows: Vec<Vec<String>> =
                parts.iter().map(|(name, part)| vec![(*name).to_owned(), part.count.to_string(), render::size(part.bytes)]).collect();
            let freed = if arguments.dry_run { "WOULD FREE" } else { "FREED" };
            render::result(&render::table(&["REMOVED", "COUNT", freed], &rows));
        }
    }
    Ok(())
}
