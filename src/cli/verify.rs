//! `rootling verify`.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::environment::Environment;
use super::pull::RegistryArguments;
use super::render::{self, Printer, Progress};
use super::{Format, count};
use crate::error::Result;
use crate::transfer::Means;
use crate::transfer::verify::{Finding, Outcome, Repair, Report, VerifyRequest, verify};

#[derive(clap::Args)]
pub struct Arguments {
    /// Check only what these images need [default: all there is]
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    /// Put right what is wrong: fetch blobs again, unpack layers again, drop what only saves work, remove what can't be mended
    #[arg(long)]
    repair: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// How to show what happens
    #[arg(long, value_enum, default_value_t = Progress::Auto)]
    progress: Progress,
    #[command(flatten)]
    registry: RegistryArguments,
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<ExitCode> {
    let store = environment.store()?;
    let images = arguments.images.iter().map(|name| store.find_image(name)).collect::<Result<Vec<_>>>()?;
    let (client, printer) = (arguments.registry.client(environment), Printer::new(arguments.progress));
    let means = Means { store: &store, client: &client, sink: &printer };
    let repair = if arguments.repair { Repair::Yes } else { Repair::No };
    let report = verify(&means, &VerifyRequest { images, repair, threads: environment.processors() })?;
    match arguments.format {
        Format::Json => render::result(&serde_json::to_string_pretty(&json_of(&report)).expect("plain data")),
        Format::Table => print(&report),
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(report: &Report) {
    for finding in &report.findings {
        render::result(&text(finding));
    }
    for (diff_id, images) in &report.unproven {
        let names: Vec<String> = images.iter().map(crate::oci::Reference::familiar).collect();
        let of = if names.is_empty() { String::new() } else { format!(" of {}", names.join(", ")) };
        render::note(&format!("not proven: layer {diff_id}{of}: it came from elsewhere and its blob is not here"));
    }
    for path in &report.strangers {
        render::note(&format!("not ours: {}", path.display()));
    }
    let checked = report.checked;
    let things = [(checked.images, "name"), (checked.blobs, "blob"), (checked.layers, "layer"), (checked.trees, "tree")];
    let things: Vec<String> = things.iter().map(|(number, word)| count(*number, word)).collect();
    let wrong = match report.findings.len() {
        0 => "all is well".to_owned(),
        n => format!("{} wrong", count(n as u64, "thing")),
    };
    render::result(&format!("checked {}, {}: {wrong}", things.join(", "), render::size(checked.bytes)));
}

fn text(finding: &Finding) -> String {
    let mut text = format!("{} {}: {}\n  at {}", finding.part.word(), finding.name, finding.what, finding.path.display());
    for line in &finding.details {
        text.push_str(&format!("\n  {line}"));
    }
    if !finding.images.is_empty() {
        let names: Vec<String> = finding.images.iter().map(crate::oci::Reference::familiar).collect();
        text.push_str(&format!("\n  needed by {}", names.join(", ")));
    }
    let (word, how) = outcome(&finding.outcome);
    if !how.is_empty() {
        text.push_str(&format!("\n  {word}: {how}"));
    }
    text
}

fn outcome(outcome: &Outcome) -> (&'static str, &str) {
    match outcome {
        Outcome::Found => ("found", ""),
        Outcome::Mended(how) => ("mended", how),
        Outcome::Dropped(how) => ("dropped", how),
        Outcome::Lost(how) => ("lost", how),
        Outcome::Left(how) => ("not mended", how),
    }
}

fn json_of(report: &Report) -> Value {
    let findings = report.findings.iter().map(|finding| {
        let (word, how) = outcome(&finding.outcome);
        json!({
            "kind": finding.part.word(),
            "name": finding.name,
            "path": finding.path,
            "what": finding.what,
            "details": finding.details,
            "images": finding.images.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "outcome": word,
            "how": how,
        })
    });
    let unproven = report
        .unproven
        .iter()
        .map(|(diff_id, images)| json!({ "layer": diff_id, "images": images.iter().map(ToString::to_string).collect::<Vec<_>>() }));
    let checked = report.checked;
    json!({
        "good": report.is_good(),
        "checked": {
            "images": checked.images, "blobs": checked.blobs, "layers": checked.layers, "trees": checked.trees,
            "records": checked.records, "bytes": checked.bytes,
        },
        "findings": findings.collect::<Vec<_>>(),
        "unproven": unproven.collect::<Vec<_>>(),
        "strangers": report.strangers,
    })
}
