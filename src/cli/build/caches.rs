//! `--cache-from`, `--cache-to` and `--no-cache-filter`: steps from and for other machines, in buildx's spellings.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::build::{Built, Caches, Explain, Inline};
use crate::error::{Error, Kind, Result, nearest, quote};
use crate::event::{Event, Sink};
use crate::oci::Reference;
use crate::store::Store;
use crate::transfer::{self, Client, DEFAULT_TAG, Packing, StepPlace};

use super::attributes::Attributes;

#[derive(clap::Args)]
pub struct CacheArguments {
    /// Take steps from elsewhere: type=registry,ref=NAME, type=local,src=DIR, or a NAME; may be repeated
    #[arg(long, value_name = "CACHE")]
    cache_from: Vec<String>,
    /// Keep steps elsewhere: type=registry,ref=NAME, type=local,dest=DIR (each with mode=min|max), type=inline, or a NAME
    #[arg(long, value_name = "CACHE")]
    cache_to: Vec<String>,
    /// Execute every step of these stages
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Say why each step that is executed is: what changed since it was executed last
    #[arg(long)]
    explain: bool,
}

/// Where steps go.
#[derive(Debug, PartialEq)]
struct Export {
    place: StepPlace,
    mode: Mode,
    packing: Packing,
    on_error: OnError,
}

#[derive(Debug, PartialEq)]
enum Mode {
    /// Steps whose layers are in the image.
    Min,
    /// All.
    Max,
}

#[derive(Debug, PartialEq)]
enum OnError {
    Fail,
    Warn,
}

/// All exports of a build.
pub struct Exports(Vec<Export>);

impl CacheArguments {
    /// Whether steps are explained.
    pub fn explain(&self) -> Explain {
        if self.explain { Explain::Yes } else { Explain::No }
    }

    /// Reads the options.
    pub fn parse(&self) -> Result<(Caches, Exports)> {
        let from = self.cache_from.iter().map(|text| import(text)).collect::<Result<Vec<_>>>()?;
        let (mut exports, mut inline) = (Vec::new(), Inline::No);
        for text in &self.cache_to {
            match export(text)? {
                Some(export) => exports.push(export),
                None => inline = Inline::Yes,
            }
        }
        let fresh: BTreeSet<String> = self.no_cache_filter.iter().filter(|name| !name.is_empty()).cloned().collect();
        Ok((Caches { from, inline, fresh }, Exports(exports)))
    }
}

impl Exports {
    /// Writes the steps of a finished build.
    pub fn save(&self, store: &Store, client: &Client, built: &Built, sink: &dyn Sink) -> Result<()> {
        for export in &self.0 {
            let steps = match export.mode {
                Mode::Min => &built.own_steps,
                Mode::Max => &built.steps,
            };
            let saved = transfer::save_steps(store, client, steps, &export.place, export.packing, sink)
                .map_err(|e| e.context(format!("can't keep the cache in {}", export.place)));
            match (saved, &export.on_error) {
                (Err(error), OnError::Warn) if error.kind() != Kind::Interrupted => sink.event(Event::Warning(&error.to_string())),
                (saved, _) => drop(saved?),
            }
        }
        Ok(())
    }
}

fn import(text: &str) -> Result<StepPlace> {
    if !text.contains('=') {
        return Ok(StepPlace::Registry(text.parse()?));
    }
    let mut attributes = Attributes::parse("--cache-from", text)?;
    let place = match attributes.take("type").as_deref() {
        Some("registry") => StepPlace::Registry(reference(&mut attributes)?),
        Some("local") => layout(&mut attributes, "src")?,
        other => return Err(unknown(&attributes, other)),
    };
    attributes.finish()?;
    Ok(place)
}

/// `None` for the image itself.
fn export(text: &str) -> Result<Option<Export>> {
    let usual = |place| Export { place, mode: Mode::Min, packing: Packing::default(), on_error: OnError::Fail };
    if !text.contains('=') {
        return Ok(Some(usual(StepPlace::Registry(text.parse()?))));
    }
    let mut attributes = Attributes::parse("--cache-to", text)?;
    let place = match attributes.take("type").as_deref() {
        Some("registry") => Some(StepPlace::Registry(reference(&mut attributes)?)),
        Some("local") => Some(layout(&mut attributes, "dest")?),
        Some("inline") => None,
        other => return Err(unknown(&attributes, other)),
    };
    let mode = match attributes.take("mode").as_deref() {
        None | Some("min") => Mode::Min,
        Some("max") => Mode::Max,
        Some(other) => return Err(attributes.bad(&format!("mode {} is neither min nor max", quote(other)))),
    };
    let packing = super::outputs::packing(&mut attributes)?;
    let on_error = if attributes.flag("ignore-error", false)? { OnError::Warn } else { OnError::Fail };
    // Steps are always an OCI image manifest, and layers made here are compressed once.
    for done in ["oci-mediatypes", "image-manifest", "force-compression"] {
        attributes.take(done);
    }
    attributes.finish()?;
    Ok(place.map(|place| Export { mode, packing, on_error, ..usual(place) }))
}

fn reference(attributes: &mut Attributes) -> Result<Reference> {
    attributes.take("ref").ok_or_else(|| attributes.bad("it has no `ref=`"))?.parse()
}

fn layout(attributes: &mut Attributes, key: &'static str) -> Result<StepPlace> {
    let directory = attributes.take(key).filter(|directory| !directory.is_empty());
    let directory = PathBuf::from(directory.ok_or_else(|| attributes.bad(&format!("it has no `{key}=`")))?);
    let tag = attributes.take("tag").unwrap_or_else(|| DEFAULT_TAG.into());
    Ok(StepPlace::Layout { directory, tag })
}

fn unknown(attributes: &Attributes, kind: Option<&str>) -> Error {
    let Some(kind) = kind else { return attributes.bad("it has no `type=`") };
    let error = attributes.bad(&format!("there is no type {}", quote(kind)));
    match nearest(kind, ["registry", "local", "inline"]) {
        Some(near) => error.hint(format!("did you mean {}?", quote(near))),
        None => error.hint("use registry, local or inline: those of one company's services are not known here"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_places() {
        let layout = |directory: &str, tag: &str| StepPlace::Layout { directory: directory.into(), tag: tag.into() };
        for (text, expected) in [
            ("h/a:c", StepPlace::Registry("h/a:c".parse().unwrap())),
            ("type=registry,ref=h/a:c", StepPlace::Registry("h/a:c".parse().unwrap())),
            ("type=local,src=/d", layout("/d", "latest")),
            ("type=local,src=d,tag=x", layout("d", "x")),
        ] {
            assert_eq!(import(text).unwrap(), expected, "{text}");
            let text = text.replace("src=", "dest=");
            assert_eq!(export(&format!("{text}{}", if text.contains('=') { ",mode=max" } else { "" })).unwrap().unwrap().place, expected);
        }
        assert_eq!(export("type=inline").unwrap(), None);
    }

    #[test]
    fn refuses_others() {
        for (text, expected) in [
            ("type=local", "no `dest=`"),
            ("type=gha", "no type `gha`"),
            ("type=registry,ref=h/a,mode=all", "neither min nor max"),
            ("type=registry,ref=h/a,md=max", "unknown attribute `md`"),
            ("ref=h/a", "no `type=`"),
        ] {
            let error = export(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
