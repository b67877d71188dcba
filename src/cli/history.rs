//! `rootling history`.

use serde_json::{Value, json};

use super::describe::Elsewhere;
use super::environment::Environment;
use super::inspect::{place, unknown_format};
use super::pull::RegistryArguments;
use super::render;
use super::template::{self, Template};
use crate::error::{Result, quote};
use crate::oci::{Digest, History, Platform};

#[derive(clap::Args)]
pub struct Arguments {
    /// Name or ID of an image; docker://REF, oci-archive:FILE[:REF] or oci:DIR[:REF] for an image elsewhere, of which no layer is fetched
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Which of a name's images [default: this machine's, else the first]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// How to print: table, json, or a template such as `{{.CreatedBy}}`
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Don't shorten instructions
    #[arg(long)]
    no_trunc: bool,
    /// Print the layers only
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    registry: RegistryArguments,
}

/// How much of an instruction a table shows.
const SHOWN: usize = 80;

/// One instruction.
struct Entry {
    what: History,
    /// Diff ID of the layer it made.
    layer: Option<Digest>,
    /// Of the layer, in bytes: its tar here, its blob elsewhere.
    size: u64,
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let mut entries = match place(&arguments.image)? {
        Ok(name) => here(name, arguments, environment)?,
        Err(place) => there(&Elsewhere::new(place, &arguments.registry, environment)?, arguments)?,
    };
    // The newest first, as docker shows it.
    entries.reverse();
    if arguments.quiet {
        entries.iter().for_each(|entry| render::result(&layer(entry, arguments)));
        return Ok(());
    }
    match arguments.format.as_str() {
        "json" => {
            let list: Vec<_> = entries.iter().map(json_of).collect();
            render::result(&serde_json::to_string_pretty(&list).expect("plain data"));
        }
        "table" => {
            let rows: Vec<Vec<String>> = entries.iter().map(|entry| cells(entry, arguments)).collect();
            render::result(&render::table(&["LAYER", "CREATED", "SIZE", "CREATED BY"], &rows));
        }
        format if template::is_template(format) => {
            let template = Template::new(format)?;
            entries.iter().try_for_each(|entry| template.fill(&fields(entry, arguments)).map(|line| render::filled(&line)))?;
        }
        format => return Err(unknown_format(format, &["table", "json"])),
    }
    Ok(())
}

fn here(name: &str, arguments: &Arguments, environment: &Environment) -> Result<Vec<Entry>> {
    let store = environment.store()?;
    let image = store.load_image(&store.find_platform(name, arguments.platform.as_ref())?)?;
    let sizes = image.config.rootfs.diff_ids.iter().map(|diff_id| Ok(store.layer(diff_id)?.map_or(0, |layer| layer.size)));
    let sizes = sizes.collect::<Result<Vec<u64>>>()?;
    Ok(entries(&image.config.history, image.config.rootfs.diff_ids.iter().map(|diff_id| diff_id.0), sizes))
}

fn there(elsewhere: &Elsewhere, arguments: &Arguments) -> Result<Vec<Entry>> {
    let looked = elsewhere.look()?;
    let image = looked.image(arguments.platform.as_ref());
    let image = image.map_err(|e| e.context(format!("can't show the history of {}", quote(&arguments.image))))?;
    let sizes = image.manifest.layers.iter().map(|layer| layer.size).collect();
    Ok(entries(&image.config.history, image.config.rootfs.diff_ids.iter().map(|diff_id| diff_id.0), sizes))
}

fn entries(history: &[History], diff_ids: impl Iterator<Item = Digest>, sizes: Vec<u64>) -> Vec<Entry> {
    let mut layers = diff_ids.zip(sizes);
    let with_layer = |what: &History| {
        let layer = if what.empty_layer { None } else { layers.next() };
        Entry { what: what.clone(), layer: layer.map(|(layer, _)| layer), size: layer.map_or(0, |(_, size)| size) }
    };
    history.iter().map(with_layer).collect()
}

fn json_of(entry: &Entry) -> Value {
    let Entry { what, layer, size } = entry;
    json!({ "created": what.created, "created_by": what.created_by, "comment": what.comment, "size": size, "diff_id": layer })
}

/// By docker's and podman's names.
fn fields(entry: &Entry, arguments: &Arguments) -> Value {
    json!({
        "ID": layer(entry, arguments),
        "Layer": layer(entry, arguments),
        "Created": entry.what.created,
        "CreatedAt": entry.what.created,
        "CreatedBy": instruction(entry, arguments),
        "Comment": entry.what.comment,
        "Author": entry.what.author,
        "Size": render::size(entry.size),
        "EmptyLayer": entry.what.empty_layer,
    })
}

fn layer(entry: &Entry, arguments: &Arguments) -> String {
    entry.layer.map_or_else(|| "-".to_owned(), |digest| if arguments.no_trunc { digest.to_string() } else { digest.short() })
}

fn instruction(entry: &Entry, arguments: &Arguments) -> String {
    let text = entry.what.created_by.clone().or_else(|| entry.what.comment.clone()).unwrap_or_default().replace(['\n', '\t'], " ");
    match arguments.no_trunc || text.chars().count() <= SHOWN {
        true => text,
        false => text.chars().take(SHOWN - 1).chain(['…']).collect(),
    }
}

fn cells(entry: &Entry, arguments: &Arguments) -> Vec<String> {
    let created = entry.what.created.clone().unwrap_or_default();
    let created = created.get(..19).unwrap_or(&created).replace('T', " ");
    let layer = entry.layer.map_or_else(|| "-".to_owned(), |digest| digest.short());
    vec![layer, created, render::size(entry.size), instruction(entry, arguments)]
}
