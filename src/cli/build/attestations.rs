//! `--sbom`, `--provenance` and `--attest`, in buildx's spellings.

use super::attributes::Attributes;
use crate::build::{Attestations, Contents, Detail, Provenance};
use crate::error::{Error, Kind, Result, quote};

#[derive(clap::Args)]
pub struct AttestationArguments {
    /// Attach a list of what is in the image (SPDX)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sbom: Option<String>,
    /// Attach how the image was made (SLSA); with mode=max also build arguments and the Dockerfile
    #[arg(long, value_name = "BOOL|mode=min|mode=max", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    provenance: Option<String>,
    /// The same as --sbom and --provenance: type=sbom, or type=provenance,mode=…,builder-id=URI
    #[arg(long, value_name = "type=TYPE[,…]")]
    attest: Vec<String>,
}

impl AttestationArguments {
    /// What is asked for. As with buildx the short options win.
    pub fn parse(&self) -> Result<Attestations> {
        let mut asked = Attestations::default();
        for text in &self.attest {
            let mut attributes = Attributes::parse("--attest", text)?;
            match attributes.take("type").as_deref() {
                Some("sbom") => asked.contents = contents(&mut attributes)?,
                Some("provenance") => asked.provenance = provenance(&mut attributes)?,
                Some(other) => return Err(attributes.bad(&format!("there is no type {}", quote(other))).hint("use sbom or provenance")),
                None => return Err(attributes.bad("it has no `type=`")),
            }
            attributes.finish()?;
        }
        if let Some(text) = &self.sbom {
            let mut attributes = Attributes::parse("--sbom", &long(text))?;
            asked.contents = contents(&mut attributes)?;
            attributes.finish()?;
        }
        if let Some(text) = &self.provenance {
            let mut attributes = Attributes::parse("--provenance", &long(text))?;
            asked.provenance = provenance(&mut attributes)?;
            attributes.finish()?;
        }
        Ok(asked)
    }
}

/// A mere truth value, or a mode, as attributes.
fn long(text: &str) -> String {
    match text {
        "min" | "max" => format!("mode={text}"),
        text if text.contains('=') => text.to_owned(),
        text => format!("enabled={text}"),
    }
}

fn enabled(attributes: &mut Attributes) -> Result<bool> {
    Ok(attributes.flag("enabled", true)? && !attributes.flag("disabled", false)?)
}

fn contents(attributes: &mut Attributes) -> Result<Option<Contents>> {
    if let Some(generator) = attributes.take("generator") {
        return Err(Error::with_kind(Kind::Unsupported, format!("can't run the generator {}", quote(&generator)))
            .cause("the list is made by this program itself, from the package databases in the image")
            .hint("leave `generator=` out"));
    }
    Ok(enabled(attributes)?.then_some(Contents))
}

fn provenance(attributes: &mut Attributes) -> Result<Option<Provenance>> {
    let detail = match attributes.take("mode").as_deref() {
        None | Some("min") => Detail::Least,
        Some("max") => Detail::Most,
        Some(other) => return Err(attributes.bad(&format!("there is no mode {}", quote(other))).hint("use min or max")),
    };
    match attributes.take("version").as_deref() {
        None | Some("v1") => {}
        Some(other) => return Err(attributes.bad(&format!("version {} is not written", quote(other))).hint("leave it out: it is v1")),
    }
    let builder = attributes.take("builder-id");
    // They say what is recorded of steps that are not recorded here.
    for ignored in ["inline-only", "reproducible"] {
        attributes.take(ignored);
    }
    Ok(enabled(attributes)?.then_some(Provenance { detail, builder }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(sbom: Option<&str>, provenance: Option<&str>, attest: &[&str]) -> Result<(bool, Option<Detail>), String> {
        let arguments = AttestationArguments {
            sbom: sbom.map(str::to_owned),
            provenance: provenance.map(str::to_owned),
            attest: attest.iter().map(|text| (*text).to_owned()).collect(),
        };
        let parsed = arguments.parse().map_err(|e| e.to_string())?;
        Ok((parsed.contents.is_some(), parsed.provenance.map(|provenance| provenance.detail)))
    }

    #[test]
    fn reads_what_buildx_takes() {
        let (least, most) = (Some(Detail::Least), Some(Detail::Most));
        for (sbom, provenance, attest, expected) in [
            (None, None, &[][..], (false, None)),
            (Some("true"), Some("true"), &[], (true, least)),
            (Some("false"), Some("false"), &[], (false, None)),
            (None, Some("max"), &[], (false, most)),
            (None, Some("mode=max"), &[], (false, most)),
            (None, None, &["type=sbom", "type=provenance,mode=max,builder-id=https://x"], (true, most)),
            (None, Some("false"), &["type=provenance,mode=max"], (false, None)),
            (None, None, &["type=provenance,disabled=true"], (false, None)),
        ] {
            assert_eq!(parse(sbom, provenance, attest).unwrap(), expected, "{sbom:?} {provenance:?} {attest:?}");
        }
        for (sbom, provenance, attest, expected) in [
            (Some("generator=docker/scout-sbom-indexer"), None, &[][..], "generator"),
            (None, Some("mode=all"), &[], "no mode `all`"),
            (None, Some("maybe"), &[], "neither true nor false"),
            (None, None, &["type=vex"], "no type `vex`"),
            (None, None, &["mode=max"], "no `type=`"),
        ] {
            let error = parse(sbom, provenance, attest).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
