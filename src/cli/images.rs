//! `rootling images`.

use serde_json::json;

use super::environment::Environment;
use super::{Format, render};
use crate::build::is_unnamed;
use crate::error::Result;
use crate::store::ImageRecord;

#[derive(clap::Args)]
pub struct Arguments {
    /// Only images whose name or ID begins like this
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Print IDs only
    #[arg(long, short)]
    quiet: bool,
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let Some(store) = environment.existing_store()? else {
        return print(arguments, &[]);
    };
    let mut images = store.images()?;
    if let Some(wanted) = &arguments.name {
        let id = wanted.strip_prefix("sha256:").unwrap_or(wanted);
        images.retain(|image| {
            let name = image.reference.familiar();
            name.starts_with(wanted.as_str())
                || image.reference.to_string().starts_with(wanted.as_str())
                || image.config.hex().starts_with(id)
        });
    }
    // Newest first.
    images.sort_by(|a, b| (&b.created, &a.reference).cmp(&(&a.created, &b.reference)));
    print(arguments, &images)
}

fn print(arguments: &Arguments, images: &[ImageRecord]) -> Result<()> {
    if arguments.quiet {
        images.iter().for_each(|image| render::result(&image.config.short()));
        return Ok(());
    }
    match arguments.format {
        Format::Json => {
            let list: Vec<_> = images.iter().map(json_of).collect();
            render::result(&serde_json::to_string_pretty(&list).expect("plain data"));
        }
        Format::Table => {
            let rows: Vec<Vec<String>> = images.iter().map(cells).collect();
            render::result(&render::table(&["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"], &rows));
        }
    }
    Ok(())
}

/// Repository and tag; `<none>` where there is none.
fn name(image: &ImageRecord) -> (String, String) {
    let none = || "<none>".to_owned();
    if is_unnamed(&image.reference) {
        return (none(), none());
    }
    (image.reference.familiar_repository(), image.reference.tag().map_or_else(none, str::to_owned))
}

fn json_of(image: &ImageRecord) -> serde_json::Value {
    let (repository, tag) = name(image);
    json!({
        "reference": image.reference.to_string(),
        "repository": repository,
        "tag": tag,
        "id": image.config,
        "digest": image.manifest.digest,
        "created": image.created,
        "size": image.size,
        "platform": image.platform.to_string(),
    })
}

fn cells(image: &ImageRecord) -> Vec<String> {
    let (repository, tag) = name(image);
    let created = image.created.clone().unwrap_or_default();
    let created = created.get(..19).unwrap_or(&created).replace('T', " ");
    vec![repository, tag, image.config.short(), created, render::size(image.size)]
}
