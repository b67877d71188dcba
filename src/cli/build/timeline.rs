//! `--timeline FILE`: where the picture of a build goes.

use std::path::PathBuf;

use crate::build::Request;
use crate::cli::timeline::{Form, Recording, draw};
use crate::error::{Error, Result, quote_path};

#[derive(clap::Args)]
pub struct TimelineArguments {
    /// Draw the build over time, with what to speed up, into FILE.html or FILE.svg
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,
}

impl TimelineArguments {
    /// Says before a long build what would be wrong after it.
    pub fn check(&self) -> Result<()> {
        let Some(path) = &self.timeline else { return Ok(()) };
        self.form()?;
        // The directory is what is usually wrong; the file itself is only touched when there is something to write.
        match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) if !parent.is_dir() => {
                Err(Error::input(format!("can't write {}", quote_path(path))).cause(format!("{} is not a directory", quote_path(parent))))
            }
            _ => Ok(()),
        }
    }

    /// Writes the picture, if one was asked for; also of a build that failed.
    pub fn write(&self, recording: &Recording, request: &Request) -> Result<()> {
        let Some(path) = &self.timeline else { return Ok(()) };
        std::fs::write(path, draw(recording, &title(request), self.form()?)).map_err(|e| Error::io("write", path, e))
    }

    fn form(&self) -> Result<Form> {
        let path = self.timeline.as_deref().unwrap_or("".as_ref());
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("html" | "htm") => Ok(Form::Html),
            Some("svg") => Ok(Form::Svg),
            _ => Err(Error::input(format!("`--timeline` can't tell what to write to {}", quote_path(path)))
                .hint("end the name in .html or .svg")),
        }
    }
}

fn title(request: &Request) -> String {
    match request.tags.first() {
        Some(tag) => format!("Build of {}", tag.familiar()),
        None => format!("Build of {}", request.name),
    }
}
