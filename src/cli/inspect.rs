//! `rootling inspect`: images here, and elsewhere without pulling them.

use serde_json::Value;

use super::describe::{self, Described, Elsewhere};
use super::environment::Environment;
use super::pull::RegistryArguments;
use super::render;
use super::template::{self, Template};
use crate::error::{Error, Result, nearest, quote};
use crate::oci::{Platform, Reference};
use crate::store::Store;
use crate::transfer::Place;

#[derive(clap::Args)]
pub struct Arguments {
    /// Names or IDs of images; docker://REF, oci-archive:FILE[:REF] or oci:DIR[:REF] for an image elsewhere, of which no layer is fetched
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Which of a name's images [default: this machine's, else the first]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// `json`: all there is to know; `config` and `manifest`: that document as it is stored; or a template such as `{{.Digest}}`
    #[arg(long, short, value_name = "FORMAT", default_value = "json")]
    format: String,
    /// Print the manifest, or index, as it is stored
    #[arg(long)]
    raw: bool,
    /// Print the config; with `--raw` as it is stored
    #[arg(long)]
    config: bool,
    /// Don't list the tags of the repository
    #[arg(long, short = 'n')]
    no_tags: bool,
    #[command(flatten)]
    registry: RegistryArguments,
}

enum View {
    Json,
    Config,
    PrettyConfig,
    Manifest,
    Raw,
    Template(Template),
}

/// No manifest or config is larger.
const DOCUMENT_LIMIT: u64 = 16 << 20;

/// What is shown of an image.
struct Shown {
    /// For lists and templates.
    json: Value,
    manifest: Vec<u8>,
    /// The manifest, or the index the name stands for.
    root: Vec<u8>,
    config: Vec<u8>,
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let view = view(arguments)?;
    let mut list: Vec<Value> = Vec::new();
    for name in &arguments.images {
        let shown = match place(name)? {
            Ok(name) => here(arguments, environment, name)?,
            Err(place) => {
                let elsewhere = Elsewhere::new(place, &arguments.registry, environment)?;
                // An artifact has a manifest, too, if it has nothing else that is known here.
                if matches!(view, View::Raw) {
                    print_raw(&elsewhere.look()?.bytes);
                    continue;
                }
                there(arguments, &elsewhere, name)?
            }
        };
        match &view {
            View::Config => print_raw(&shown.config),
            View::PrettyConfig => {
                let config: Value = serde_json::from_slice(&shown.config).expect("it was read before");
                render::result(&serde_json::to_string_pretty(&config).expect("plain data"));
            }
            View::Manifest => print_raw(&shown.manifest),
            View::Raw => print_raw(&shown.root),
            View::Template(template) => render::filled(template.fill(&shown.json)?.trim_end_matches('\n')),
            View::Json => list.push(shown.json),
        }
    }
    if let View::Json = view {
        // As skopeo shows one image elsewhere, and docker images here.
        let text = match (&list[..], place(&arguments.images[0])?.is_err()) {
            ([only], true) => serde_json::to_string_pretty(only),
            _ => serde_json::to_string_pretty(&list),
        };
        render::result(&text.expect("plain data"));
    }
    Ok(())
}

/// A name here, or else a place elsewhere.
pub fn place(text: &str) -> Result<std::result::Result<&str, Place>> {
    Ok(match Place::of_source(text)? {
        Some(Place::Storage(_)) => Ok(text.strip_prefix("storage:").unwrap_or(text)),
        Some(place) => Err(place),
        None => Ok(text),
    })
}

fn print_raw(bytes: &[u8]) {
    render::bytes(bytes);
}

fn view(arguments: &Arguments) -> Result<View> {
    match (arguments.raw, arguments.config, arguments.format.as_str()) {
        (true, true, _) | (false, false, "config") => Ok(View::Config),
        (false, true, _) => Ok(View::PrettyConfig),
        (true, false, _) => Ok(View::Raw),
        (_, _, "manifest") => Ok(View::Manifest),
        (_, _, "json") => Ok(View::Json),
        (_, _, format) if template::is_template(format) => Template::new(format).map(View::Template),
        (_, _, format) => Err(unknown_format(format, &["json", "config", "manifest"])),
    }
}

/// A format that is neither a word nor a template.
pub fn unknown_format(format: &str, words: &[&str]) -> Error {
    let error = Error::input(format!("unknown format {}", quote(format)));
    match nearest(format, words.iter().copied()) {
        Some(near) => error.hint(format!("did you mean {}?", quote(near))),
        None => error.hint(format!("use one of {}, or a template such as `{{{{.ID}}}}`", words.join(", "))),
    }
}

fn here(arguments: &Arguments, environment: &Environment, name: &str) -> Result<Shown> {
    let store: Store = environment.store()?;
    let found = store.find_image(name)?;
    if !found.has_image() && arguments.raw && !arguments.config {
        return Ok(Shown {
            json: Value::Null,
            manifest: Vec::new(),
            root: store.read_blob(&found.config, DOCUMENT_LIMIT)?,
            config: Vec::new(),
        });
    }
    let image = store.load_image(&store.find_platform(name, arguments.platform.as_ref())?)?;
    let index = image.record.index.filter(|index| store.has_blob(index).is_ok_and(|there| there.is_some()));
    let names = describe::names(&store, &image.record)?;
    let described = Described {
        manifest: &image.record.manifest,
        document: &image.manifest,
        config: &image.config,
        index,
        digest: image.record.manifest.digest,
        names: &names,
        tags: None,
        size: Some(image.record.size),
    };
    let manifest = store.read_blob(&image.record.manifest.digest, DOCUMENT_LIMIT)?;
    Ok(Shown {
        json: described.json(),
        root: match index.filter(|_| arguments.platform.is_none()) {
            Some(index) => store.read_blob(&index, DOCUMENT_LIMIT)?,
            None => manifest.clone(),
        },
        manifest,
        config: store.read_blob(&image.manifest.config.digest, DOCUMENT_LIMIT)?,
    })
}

fn there(arguments: &Arguments, elsewhere: &Elsewhere, text: &str) -> Result<Shown> {
    let looked = elsewhere.look()?;
    let image = looked.image(arguments.platform.as_ref()).map_err(|e| e.context(format!("can't inspect {}", quote(text))))?;
    // Not every registry lists tags, and nobody needs them who asks for something else.
    let tags = match !arguments.no_tags && (arguments.format == "json" || arguments.format.contains("RepoTags")) {
        true => looked.tags().unwrap_or_else(|error| {
            render::warning(&error.to_string());
            Vec::new()
        }),
        false => Vec::new(),
    };
    let names: Vec<Reference> = elsewhere.name().into_iter().collect();
    let described = Described {
        manifest: &image.descriptor,
        document: &image.manifest,
        config: &image.config,
        index: Some(looked.digest).filter(|digest| *digest != image.descriptor.digest),
        digest: looked.digest,
        names: &names,
        tags: Some(tags),
        size: None,
    };
    Ok(Shown { json: described.json(), root: looked.bytes.clone(), manifest: image.manifest_bytes, config: image.config_bytes })
}
