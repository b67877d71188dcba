//! `tests/dockerfiles/*.Dockerfile` against the trees beside them. `BLESS=1` writes the trees anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::super::ast::{Dockerfile, Instruction, Kind};
use super::super::lint::{self, Base, Facts};
use super::report;
use crate::oci::Platform;

#[test]
fn corpus() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dockerfiles");
    let bless = std::env::var_os("BLESS").is_some();
    let mut files: Vec<_> = fs::read_dir(&directory).expect("the corpus").map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "Dockerfile"));
    files.sort();
    assert!(files.len() >= 60, "the corpus is not whole: {} files", files.len());
    let mut wrong = Vec::new();
    for path in files {
        let tree = tree(&fs::read(&path).expect("a file"));
        let expected = path.with_extension("tree");
        if bless {
            fs::write(&expected, tree).expect("writing a tree");
        } else if fs::read_to_string(&expected).unwrap_or_default() != tree {
            wrong.push(format!("{}:\n{tree}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{} trees differ (BLESS=1 accepts them)\n{}", wrong.len(), wrong.join("\n"));
}

fn tree(source: &[u8]) -> String {
    let file = match super::super::parse("Dockerfile", source) {
        Ok(file) => file,
        Err(error) => return report(&error),
    };
    let mut out = String::new();
    for directive in &file.directives {
        let _ = writeln!(out, "{}: # {}={}", directive.span.first_line, directive.name, directive.value);
    }
    for instruction in &file.instructions {
        dump(&mut out, instruction, 0);
    }
    findings(&mut out, &file);
    out
}

/// What the build checks say when nothing is known of the surroundings.
fn findings(out: &mut String, file: &Dockerfile) {
    let config = match lint::configuration(file) {
        Ok(config) => config,
        Err(error) => return out.push_str(&report(&error)),
    };
    let none = BTreeMap::new();
    let platform = Platform::linux("amd64", None);
    let base = |_: &str, _: &Platform| Base::Unknown;
    let facts = Facts { arguments: &none, globals: &none, platform: &platform, stages: None, ignore: None, base: &base };
    for finding in lint::lint(file, &config, &facts) {
        let _ = writeln!(out, "{}: {}: {}", finding.span.first_line, finding.rule.name, finding.message);
    }
}

fn dump(out: &mut String, instruction: &Instruction, depth: usize) {
    let indent = "  ".repeat(depth);
    let Instruction { span, keyword, flags, json, args, heredocs, kind, .. } = instruction;
    let form = if *json { " json" } else { "" };
    let _ = writeln!(out, "{indent}{}-{}: {keyword}{form} {flags:?} {args:?}", span.first_line, span.last_line);
    for heredoc in heredocs.iter().filter(|_| depth == 0) {
        let _ = writeln!(out, "{indent}  <<{} fd={} expand={} chomp={}", heredoc.name, heredoc.fd, heredoc.expand, heredoc.chomp);
        for line in heredoc.content.split_inclusive('\n') {
            let _ = writeln!(out, "{indent}  | {line:?}");
        }
    }
    match kind {
        Kind::Onbuild(onbuild) => {
            let _ = writeln!(out, "{indent}  trigger {:?}", onbuild.trigger);
            dump(out, &onbuild.instruction, depth + 1);
        }
        Kind::Run(run) => {
            let _ = writeln!(out, "{indent}  = {:?}", run.invocation());
            for mount in &run.mounts {
                match mount.resolve(&mut |value| Ok(value.to_string())) {
                    Ok(mount) => {
                        let _ = writeln!(out, "{indent}  {mount:?}");
                    }
                    Err(error) => {
                        let _ = writeln!(out, "{indent}  mount {:?}: {error}", mount.raw);
                    }
                }
            }
            if run.network != Default::default() || run.security != Default::default() || !run.devices.is_empty() {
                let _ = writeln!(out, "{indent}  {:?} {:?} {:?}", run.network, run.security, run.devices);
            }
        }
        kind => {
            let _ = writeln!(out, "{indent}  = {kind:?}");
        }
    }
}
