//! `--filter`, as docker and podman write it: which images are meant.

use jiff::Timestamp;

use crate::build::is_unnamed;
use crate::dockerfile::{self, glob::Glob};
use crate::error::{Error, Result, nearest, quote};
use crate::oci::Reference;
use crate::store::{ImageRecord, Member, Store};

/// Conditions that all must hold; of several `reference=` one is enough.
#[derive(Debug, Default)]
pub struct Filters {
    references: Vec<Glob>,
    others: Vec<Filter>,
}

#[derive(Debug)]
enum Filter {
    Label { name: String, value: Option<String>, wanted: bool },
    Dangling(bool),
    Before(Timestamp),
    Since(Timestamp),
    Id(String),
}

const KEYS: [&str; 10] = ["reference", "label", "label!", "dangling", "before", "since", "after", "until", "id", "digest"];

impl Filters {
    /// Reads filters; images they name are looked up.
    pub fn read(texts: &[String], store: &Store) -> Result<Self> {
        let mut filters = Self::default();
        for text in texts {
            let wrong = |why: &str| Error::input(format!("invalid filter {}", quote(text))).cause(why);
            let (key, value) = text.split_once('=').ok_or_else(|| wrong("it has no `=`").hint("a filter reads `reference=debian*`"))?;
            let of_image = |name: &str| -> Result<Timestamp> {
                let record = store.find_image(name)?;
                created(record.created.as_deref()).ok_or_else(|| wrong("that image does not say when it was made"))
            };
            filters.others.push(match key {
                "reference" => {
                    filters.references.push(Glob::new(value)?);
                    continue;
                }
                "label" | "label!" => {
                    let (name, content) = value.split_once('=').map_or((value, None), |(name, content)| (name, Some(content.to_owned())));
                    Filter::Label { name: name.to_owned(), value: content, wanted: key == "label" }
                }
                "dangling" => Filter::Dangling(yes_or_no(value).ok_or_else(|| wrong("write `dangling=true` or `dangling=false`"))?),
                "before" => Filter::Before(of_image(value)?),
                "since" | "after" => Filter::Since(of_image(value)?),
                "until" => {
                    Filter::Before(time(value).ok_or_else(|| wrong("that is no time").hint("write `24h`, or 2026-01-31T12:00:00Z"))?)
                }
                "id" | "digest" => Filter::Id(value.strip_prefix("sha256:").unwrap_or(value).to_owned()),
                _ => {
                    let error = wrong(&format!("there is no filter {}", quote(key)));
                    return Err(match nearest(key, KEYS) {
                        Some(near) => error.hint(format!("did you mean `{near}=`?")),
                        None => error.hint(format!("there are {}", KEYS.join(", "))),
                    });
                }
            });
        }
        Ok(filters)
    }

    /// Whether an image of a name is meant.
    pub fn hold(&self, store: &Store, record: &ImageRecord, member: &Member) -> Result<bool> {
        if !self.references.is_empty() && !self.references.iter().any(|glob| names(&record.reference).iter().any(|name| glob.matches(name)))
        {
            return Ok(false);
        }
        for filter in &self.others {
            let at = || created(member.created.as_deref());
            let holds = match filter {
                Filter::Dangling(wanted) => is_unnamed(&record.reference) == *wanted,
                Filter::Before(time) => at().is_some_and(|at| at < *time),
                Filter::Since(time) => at().is_some_and(|at| at > *time),
                Filter::Id(id) => {
                    [member.config, member.manifest.digest].iter().chain(&record.index).any(|d| d.hex().starts_with(id.as_str()))
                }
                Filter::Label { name, value, wanted } => {
                    record.has_image() && (labelled(store, record, member, name, value.as_deref())? == *wanted)
                }
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn labelled(store: &Store, record: &ImageRecord, member: &Member, name: &str, value: Option<&str>) -> Result<bool> {
    let config = store.unnamed_image(&record.reference, &member.manifest)?.config;
    Ok(config.config.labels.get(name).is_some_and(|there| value.is_none_or(|value| value == there)))
}

/// What a pattern may match of a name: docker's and the full form, with and without tag.
fn names(reference: &Reference) -> [String; 4] {
    let full = reference.to_string();
    let repository = format!("{}/{}", reference.registry(), reference.repository());
    [reference.familiar_repository(), reference.familiar(), repository, full]
}

/// Whether a pattern is for a name as people write it; its `*` matches across `/`, as in ch-image's `delete`.
pub fn matches_anywhere(pattern: &Glob, reference: &Reference) -> bool {
    !is_unnamed(reference) && names(reference)[..2].iter().any(|name| pattern.matches(name.replace('/', "%")))
}

/// A pattern for [`matches_anywhere`].
pub fn pattern_anywhere(text: &str) -> Result<Glob> {
    Glob::new(&text.replace('/', "%"))
}

fn yes_or_no(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// When an image was made.
pub fn created(text: Option<&str>) -> Option<Timestamp> {
    text?.parse().ok()
}

/// `24h` ago, seconds since 1970, a date, or a time.
pub fn time(text: &str) -> Option<Timestamp> {
    if let Some(ago) = dockerfile::duration(text) {
        return Timestamp::now().checked_sub(jiff::SignedDuration::try_from(ago).ok()?).ok();
    }
    let seconds = text.parse::<i64>().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    let date = || text.parse::<jiff::civil::Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|day| day.timestamp());
    seconds.or_else(|| text.parse().ok()).or_else(date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let check = |text: &str, expected: &str| assert_eq!(time(text).unwrap().to_string(), expected, "{text}");
        check("86400", "1970-01-02T00:00:00Z");
        check("2026-01-31", "2026-01-31T00:00:00Z");
        check("2026-01-31T12:00:00+01:00", "2026-01-31T11:00:00Z");
        assert!(time("1h30m").unwrap() < Timestamp::now() && time("soon").is_none());
    }

    #[test]
    fn patterns() {
        let reference: Reference = "registry.example/team/app:1".parse().unwrap();
        for (pattern, expected) in [("*", true), ("*/app", true), ("registry.example/*:1", true), ("app*", false), ("*:2", false)] {
            assert_eq!(matches_anywhere(&pattern_anywhere(pattern).unwrap(), &reference), expected, "{pattern}");
        }
    }
}
