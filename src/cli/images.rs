//! `rootling images`.

use serde_json::json;

use super::environment::Environment;
use super::{Format, render};
use crate::error::Result;

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
    let store = environment.store()?;
    let mut rows = Vec::new();
    for record in store.images()? {
        let image = match store.load_image(&record) {
            Ok(image) => image,
            // One broken image must not hide the others.
            Err(error) => {
                render::warning(&error.to_string());
                continue;
            }
        };
        let name =
            record.reference.as_ref().map(|reference| (reference.familiar_repository(), reference.tag().unwrap_or("<none>").to_owned()));
        let (repository, tag) = name.unwrap_or_else(|| ("<none>".into(), "<none>".into()));
        let id = image.id();
        if let Some(wanted) = &arguments.name
            && !format!("{repository}:{tag}").starts_with(wanted.as_str())
            && !id.hex().starts_with(wanted.trim_start_matches("sha256:"))
        {
            continue;
        }
        let size: u64 = store.image_size(&image)?;
        rows.push((image.config.created.clone().unwrap_or_default(), repository, tag, id, record.manifest, size, image.config.platform()));
    }
    // Newest first.
    rows.sort_by(|a, b| (&b.0, &a.1, &a.2).cmp(&(&a.0, &b.1, &b.2)));
    if arguments.quiet {
        rows.iter().for_each(|row| render::result(&row.3.short()));
        return Ok(());
    }
    match arguments.format {
        Format::Json => {
            let list: Vec<_> = rows
                .iter()
                .map(|(created, repository, tag, id, digest, size, platform)| {
                    json!({ "repository": repository, "tag": tag, "id": id, "digest": digest, "created": created, "size": size, "platform": platform.to_string() })
                })
                .collect();
            render::result(&serde_json::to_string_pretty(&list).expect("plain data"));
        }
        Format::Table => {
            let cells = |(created, repository, tag, id, _, size, _): &(
                String,
                String,
                String,
                crate::oci::Digest,
                crate::oci::Digest,
                u64,
                crate::oci::Platform,
            )| {
                let created = created.get(..19).unwrap_or(created).replace('T', " ");
                vec![repository.clone(), tag.clone(), id.short(), created, render::size(*size)]
            };
            let table: Vec<Vec<String>> = rows.iter().map(cells).collect();
            render::result(&render::table(&["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"], &table));
        }
    }
    Ok(())
}
