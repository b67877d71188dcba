//! `rootling prune`.

use std::time::Duration;

use serde_json::json;

use super::environment::Environment;
use super::{Format, render};
use crate::build::is_unnamed;
use crate::dockerfile;
use crate::error::{Error, Result, quote};
use crate::store::{Action, Keep, PruneOptions, Tally};

#[derive(clap::Args)]
pub struct Arguments {
    /// Remove the step cache and cache mounts too
    #[arg(long)]
    cache: bool,
    /// Remove images without name, the step cache, cache mounts and all trees too
    #[arg(long, short)]
    all: bool,
    /// Of the cache, remove only what was not used for so long; implies `--cache`
    #[arg(long, value_name = "until=TIME")]
    filter: Option<String>,
    /// Only say what would be removed
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let store = environment.store()?;
    if arguments.all && !arguments.dry_run {
        for image in store.images()?.iter().filter(|image| is_unnamed(&image.reference)) {
            store.remove_image(&image.reference)?;
        }
    }
    let limit = arguments.filter.as_deref().map(until).transpose()?;
    let cache = |slack| match limit {
        Some(limit) => Keep::UsedWithin(limit + slack),
        None if arguments.cache || arguments.all => Keep::Nothing,
        None => Keep::All,
    };
    let report = store.prune(&PruneOptions {
        // When a step was used is known to a day.
        steps: cache(DAY),
        trees: if arguments.all { Keep::Nothing } else { Keep::All },
        mounts: cache(Duration::ZERO),
        action: if arguments.dry_run { Action::Estimate } else { Action::Remove },
    })?;
    let parts =
        [("layers", report.layers), ("blobs", report.blobs), ("trees", report.trees), ("steps", report.steps), ("mounts", report.mounts)];
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

/// `until=24h`, as docker writes it.
fn until(filter: &str) -> Result<Duration> {
    let wrong = || {
        Error::input(format!("invalid filter {}", quote(filter))).hint("the one filter is `until=TIME`, such as until=24h or until=1h30m")
    };
    dockerfile::duration(filter.strip_prefix("until=").ok_or_else(wrong)?).ok_or_else(wrong)
}
