//! `rootling history`.

use serde_json::json;

use super::environment::Environment;
use super::{Format, render};
use crate::error::Result;
use crate::oci::Platform;

#[derive(clap::Args)]
pub struct Arguments {
    /// Name or ID of an image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Which of a name's images [default: this machine's, else the first]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Don't shorten instructions
    #[arg(long)]
    no_trunc: bool,
}

/// How much of an instruction a table shows.
const SHOWN: usize = 80;

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let store = environment.store()?;
    let image = store.load_image(&store.find_platform(&arguments.image, arguments.platform.as_ref())?)?;
    let mut layers = image.config.rootfs.diff_ids.iter();
    let mut entries = Vec::new();
    for entry in &image.config.history {
        let layer = if entry.empty_layer { None } else { layers.next() };
        let size = match layer {
            Some(diff_id) => store.layer(diff_id)?.map_or(0, |layer| layer.size),
            None => 0,
        };
        entries.push((entry, layer, size));
    }
    // The newest first, as docker shows it.
    entries.reverse();
    match arguments.format {
        Format::Json => {
            let list: Vec<_> = entries
                .iter()
                .map(|(entry, layer, size)| {
                    json!({ "created": entry.created, "created_by": entry.created_by, "comment": entry.comment, "size": size, "diff_id": layer })
                })
                .collect();
            render::result(&serde_json::to_string_pretty(&list).expect("plain data"));
        }
        Format::Table => {
            let rows: Vec<Vec<String>> = entries
                .iter()
                .map(|(entry, layer, size)| {
                    let created = entry.created.clone().unwrap_or_default();
                    let text = entry.created_by.clone().or_else(|| entry.comment.clone()).unwrap_or_default().replace(['\n', '\t'], " ");
                    let text = if arguments.no_trunc || text.chars().count() <= SHOWN {
                        text
                    } else {
                        text.chars().take(SHOWN - 1).chain(['…']).collect()
                    };
                    let layer = layer.map_or_else(|| "-".to_owned(), |diff_id| diff_id.0.short());
                    vec![layer, created.get(..19).unwrap_or(&created).replace('T', " "), render::size(*size), text]
                })
                .collect();
            render::result(&render::table(&["LAYER", "CREATED", "SIZE", "CREATED BY"], &rows));
        }
    }
    Ok(())
}
