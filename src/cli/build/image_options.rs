//! Options on the image itself: labels, annotations, times, number of layers.

use crate::build::{Additions, Annotation, Layers};
use crate::error::{Error, Result, quote};
use crate::rootfs::meta::Times;

#[derive(clap::Args)]
pub struct ImageArguments {
    /// Label for the image; wins over the Dockerfile's
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Annotation on the manifest, or `index:NAME=VALUE` on the index of a build for several platforms
    #[arg(long, value_name = "[PLACE:]NAME=VALUE")]
    annotation: Vec<Annotation>,
    /// Time of the image and of every file in its new layers, in seconds since 1970
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, conflicts_with = "build_static")]
    timestamp: Option<i64>,
    /// As isula-build has it: `build-time=YYYY-MM-DD HH:MM:SS` (UTC) is `--timestamp` for people
    #[arg(long, value_name = "build-time=TIME")]
    build_static: Vec<String>,
    /// Make one layer of all that the Dockerfile adds to its base image
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true, action = clap::ArgAction::Set)]
    squash: bool,
    /// Make one layer of all layers, the base image's too
    #[arg(long)]
    squash_all: bool,
    /// `--layers=false` is `--squash`, as buildah users know it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
    layers: bool,
}

impl ImageArguments {
    /// What the image gets.
    pub fn additions(&self) -> Result<Additions> {
        let pair = |text: &String| match text.split_once('=') {
            Some(("", _)) => Err(Error::input(format!("`--label {text}` has no name"))),
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Ok((text.clone(), String::new())),
        };
        let layers = match (self.squash_all, self.squash || !self.layers) {
            (true, _) => Layers::SquashAll,
            (false, true) => Layers::SquashNew,
            (false, false) => Layers::Kept,
        };
        let labels = self.label.iter().map(pair).collect::<Result<_>>()?;
        Ok(Additions { labels, annotations: self.annotation.clone(), layers })
    }

    /// What becomes of times: an option wins over the build argument [`EPOCH`].
    pub fn times(&self, epoch: Option<&str>) -> Result<Times> {
        let mut fixed = self.timestamp;
        for option in &self.build_static {
            fixed = Some(build_time(option)?);
        }
        if let Some(seconds) = fixed {
            return Ok(Times::Exactly(seconds));
        }
        let Some(text) = epoch.filter(|text| !text.is_empty()) else { return Ok(Times::Kept) };
        let bad = |_| Error::input(format!("{EPOCH} is {}", quote(text))).hint("it must be a number of seconds since 1970-01-01 UTC");
        text.trim().parse().map(Times::NoLaterThan).map_err(bad)
    }
}

/// The variable and build argument by which builds agree on a time (reproducible-builds.org).
pub const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// `build-time=2023-01-01 00:00:00` in seconds since 1970.
fn build_time(option: &str) -> Result<i64> {
    let hint = "write `--build-static build-time='2023-01-01 00:00:00'`; the time is UTC";
    let bad = |what: String| Error::input(what).hint(hint);
    let (name, time) = option.split_once('=').ok_or_else(|| bad(format!("`--build-static` needs `NAME=VALUE`, not {}", quote(option))))?;
    if name != "build-time" {
        return Err(bad(format!("`--build-static` knows `build-time` only, not {}", quote(name))));
    }
    let parsed = jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", time).and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC));
    parsed.map(|time| time.timestamp().as_second()).map_err(|e| bad(format!("{} is not a time", quote(time))).cause(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_times() {
        for (text, expected) in [
            ("build-time=1970-01-01 00:00:10", Some(10)),
            ("build-time=2020-05-23 10:55:33", Some(1_590_231_333)),
            ("build-time=2020-05-23", None),
            ("build-time=2020-13-23 10:55:33", None),
            ("time=2020-05-23 10:55:33", None),
            ("build-time", None),
        ] {
            assert_eq!(build_time(text).ok(), expected, "{text}");
        }
    }
}
