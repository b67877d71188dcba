//! `rootling prune`.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::environment::Environment;
use super::filter::Filters;
use super::{Format, render};
use crate::build::is_unnamed;
use crate::dockerfile;
use crate::error::{Error, Result, quote};
use crate::oci::Reference;
use crate::store::{Action, ImageRecord, Keep, PruneOptions, Store, Tally};

#[derive(clap::Args)]
pub struct Arguments {
    /// Remove the step cache and cache mounts too
    #[arg(long)]
    cache: bool,
    /// Remove images without name, the step cache, cache mounts and all trees too
    #[arg(long, short)]
    all: bool,
    /// Repeated. until=TIME: of the cache, only what was not used for so long, of images, only older ones; implies `--cache`.
    /// label=NAME[=VALUE], label!=NAME[=VALUE]: of images without name, only those
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Only say what would be removed
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Ask nothing, which is never done
    #[arg(long, short, hide = true)]
    force: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let _ = arguments.force;
    let store = environment.store()?;
    let limit = limit(&arguments.filter)?;
    let gone = if arguments.all { nameless(&store, &arguments.filter)? } else { BTreeSet::new() };
    if !arguments.dry_run {
        for reference in &gone {
            store.remove_image(reference)?;
        }
    }
    let cache = |slack| match limit {
        Some(limit) => Keep::UsedWithin(limit + slack),
        None if arguments.cache || arguments.all => Keep::Nothing,
        None => Keep::All,
    };
    let options = PruneOptions {
        // When a step was used is known to a day.
        steps: cache(DAY),
        trees: if arguments.all { Keep::Nothing } else { Keep::All },
        mounts: cache(Duration::ZERO),
        action: if arguments.dry_run { Action::Estimate } else { Action::Remove },
    };
    let report = store.prune_without(&options, &gone)?;
    let images = Tally { count: gone.len() as u64, bytes: 0 };
    let parts = [
        ("images", images),
        ("layers", report.layers),
        ("blobs", report.blobs),
        ("trees", report.trees),
        ("steps", report.steps),
        ("mounts", report.mounts),
        ("leftovers", report.leftovers),
    ];
    match arguments.format {
        Format::Json => {
            let tally = |tally: Tally| json!({ "count": tally.count, "bytes": tally.bytes });
            let mut object: serde_json::Map<_, _> = parts.iter().map(|(name, part)| ((*name).to_owned(), tally(*part))).collect();
            object.insert("freed".into(), report.freed().into());
            render::result(&serde_json::Value::Object(object).to_string());
        }
        Format::Table => {
            let mut rows: Vec<Vec<String>> =
                parts.iter().map(|(name, part)| vec![(*name).to_owned(), part.count.to_string(), render::size(part.bytes)]).collect();
            // Names take nothing.
            rows[0][2].clear();
            rows.push(vec!["total".to_owned(), String::new(), render::size(report.freed())]);
            let freed = if arguments.dry_run { "WOULD FREE" } else { "FREED" };
            render::result(&render::table(&["REMOVED", "COUNT", freed], &rows));
        }
    }
    Ok(())
}

/// The images without name that the filters allow to go.
fn nameless(store: &Store, filters: &[String]) -> Result<BTreeSet<Reference>> {
    let filters = Filters::read(filters, store)?;
    let mut gone = BTreeSet::new();
    for record in store.images()?.iter().filter(|record| is_unnamed(&record.reference)) {
        let member = record.members().remove(0);
        if filters.hold(store, record, &member)? {
            gone.insert(ImageRecord::clone(record).reference);
        }
    }
    Ok(gone)
}

/// How old `until=24h` lets things get. Labels are for images alone.
fn limit(filters: &[String]) -> Result<Option<Duration>> {
    let mut limit = None;
    for filter in filters {
        let wrong = || {
            Error::input(format!("invalid filter {}", quote(filter)))
                .hint("filters are `until=TIME`, such as until=24h or until=1h30m, and `label=NAME`, `label!=NAME`")
        };
        match filter.split_once('=') {
            Some(("until", time)) => limit = Some(dockerfile::duration(time).ok_or_else(wrong)?),
            Some(("label" | "label!", _)) => {}
            _ => return Err(wrong()),
        }
    }
    Ok(limit)
}
