//! `rootling version`.

use super::{Format, render};

#[derive(clap::Args)]
pub struct Arguments {
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub fn execute(arguments: &Arguments) {
    let version = env!("CARGO_PKG_VERSION");
    match arguments.format {
        Format::Table => render::result(&format!("rootling {version}")),
        Format::Json => render::result(&serde_json::json!({ "version": version, "storage_format": crate::store::VERSION }).to_string()),
    }
}
