//! What `rootling build` says of a Dockerfile without building: its parse tree (`--parse-only`).

use crate::cli::render;
use crate::dockerfile;
use crate::error::{Error, Result};

/// The options.
#[derive(clap::Args)]
pub struct CheckArguments {
    /// Print the Dockerfile's parse tree and build nothing
    #[arg(long)]
    parse_only: bool,
    /// How `--parse-only` prints [default: text]
    #[arg(long, value_enum, value_name = "FORMAT", requires = "parse_only")]
    format: Option<Format>,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl CheckArguments {
    /// Whether the Dockerfile is only to be read.
    pub fn parse_only(&self) -> bool {
        self.parse_only
    }

    /// Prints the parse tree. A stage need not come first, as for BuildKit's parser: instructions alone have a tree too.
    pub fn print_tree(&self, name: &str, source: &[u8]) -> Result<()> {
        let file = dockerfile::parse_fragment(name, source)?;
        match self.format {
            Some(Format::Json) => {
                let tree = dockerfile::tree::json(&file).map_err(|e| Error::new("can't write the parse tree").cause(e))?;
                render::result(&tree);
            }
            _ => render::result(dockerfile::tree::text(&file).trim_end()),
        }
        Ok(())
    }
}
