//! `rootling inspect`.

use serde_json::{Value, json};

use super::environment::Environment;
use super::render;
use crate::error::Result;
use crate::oci::Platform;

#[derive(clap::Args)]
pub struct Arguments {
    /// Names or IDs of images
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Which of a name's images [default: this machine's, else the first]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// `json` prints a list of all there is to know; `config` and `manifest` print that document as it is stored
    #[arg(long, value_enum, default_value_t = View::Json)]
    format: View,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum View {
    Json,
    Config,
    Manifest,
}

/// No manifest or config is larger.
const DOCUMENT_LIMIT: u64 = 16 << 20;

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let store = environment.store()?;
    let mut list: Vec<Value> = Vec::new();
    for name in &arguments.images {
        let image = store.load_image(&store.find_platform(name, arguments.platform.as_ref())?)?;
        match arguments.format {
            View::Config => render::result(&String::from_utf8_lossy(&store.read_blob(&image.manifest.config.digest, DOCUMENT_LIMIT)?)),
            View::Manifest => render::result(&String::from_utf8_lossy(&store.read_blob(&image.record.manifest.digest, DOCUMENT_LIMIT)?)),
            View::Json => {
                let named = store.images()?.into_iter().filter(|record| record.manifest.digest == image.record.manifest.digest);
                let names: Vec<String> = named.map(|record| record.reference.to_string()).collect();
                list.push(json!({
                    "id": image.record.config,
                    "digest": image.record.manifest.digest,
                    "names": names,
                    "created": image.config.created,
                    "author": image.config.author,
                    "platform": image.config.platform().to_string(),
                    "architecture": image.config.architecture,
                    "os": image.config.os,
                    "size": image.record.size,
                    "config": image.config.config,
                    "rootfs": image.config.rootfs,
                    "history": image.config.history,
                    "manifest": image.manifest,
                }));
            }
        }
    }
    if arguments.format == View::Json {
        render::result(&serde_json::to_string_pretty(&list).expect("plain data"));
    }
    Ok(())
}
