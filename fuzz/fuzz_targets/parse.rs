//! Any bytes as a Dockerfile and as a `.dockerignore`: a tree or an error whose place can be shown, findings that can be shown too, and values
//! that expand or say why not.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use rootling::dockerfile::ast::{Dockerfile, Instruction, Kind};
use rootling::dockerfile::expand::{Mode, expand};
use rootling::dockerfile::ignore::{Ignore, Matched};
use rootling::dockerfile::lint::{Base, Config, Facts};
use rootling::dockerfile::{lint, parse, parse_fragment, tree};
use rootling::error::Place;
use rootling::oci::Platform;

fuzz_target!(|data: &[u8]| {
    match parse("Dockerfile", data) {
        Ok(file) => {
            findings(&file);
            tree::text(&file);
            tree::json(&file).expect("a tree");
            for instruction in &file.instructions {
                check(file.source.text(), file.escape, instruction);
            }
        }
        Err(error) => assert!(matches!(error.place(), Some(Place::Text(snippet)) if snippet.column <= snippet.text.chars().count() + 1)),
    }
    ignore(data);
});

/// Whatever the file, the build checks end, and each finding can be shown.
fn findings(file: &Dockerfile) {
    let config = Config::parse("experimental=all").expect("a configuration");
    let _ = lint::configuration(file);
    let arguments = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let platform = Platform::linux("amd64", None);
    let base = |name: &str, _: &Platform| if name.len() % 2 == 0 { Base::Bare } else { Base::Unknown };
    let ignore = Ignore::parse(".dockerignore", b"*\n!a*").expect("patterns");
    let ignore = Some(&ignore);
    let facts = Facts { arguments: &arguments, globals: &arguments, platform: &platform, stages: None, ignore, base: &base };
    for finding in lint::lint(file, &config, &facts) {
        assert!(finding.span.first_line <= finding.span.last_line);
        assert!(matches!(&finding.place, Place::Text(snippet) if snippet.column <= snippet.text.chars().count() + 1));
    }
}

fn check(text: &str, escape: char, instruction: &Instruction) {
    let span = instruction.span;
    assert!(text.is_char_boundary(span.start) && text.is_char_boundary(span.end) && span.first_line <= span.last_line);
    let lookup = |name: &str| (name.len() % 2 == 0).then(|| name.repeat(2));
    for argument in &instruction.args {
        for mode in [Mode::Word, Mode::Words, Mode::Heredoc] {
            if let Err(error) = expand(argument, escape, &lookup, mode) {
                assert!(argument.is_char_boundary(error.at));
            }
        }
    }
    match &instruction.kind {
        // What an image records for its children must be readable there: by the same rules, if the escape character is the usual one.
        Kind::Onbuild(onbuild) if escape == '\\' => {
            if let Err(error) = parse_fragment("trigger", onbuild.trigger.as_bytes()) {
                panic!("{:?}: {error}", onbuild.trigger);
            }
        }
        Kind::Run(run) => {
            run.invocation();
        }
        _ => {}
    }
}

/// Asking for a path and asking for its parents first must agree, and nothing that is kept may lie in a skipped directory.
fn ignore(data: &[u8]) {
    let Ok(ignore) = Ignore::parse(".dockerignore", data) else { return };
    for path in ["a", "a/b", "a/b/c", "src/main.rs", "dir/file.txt", ".git/x"] {
        let mut matched = Matched::default();
        let mut skipped = false;
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let prefix = &path[..end];
            matched = ignore.matches_in(prefix, &matched);
            assert_eq!(matched.ignored(), ignore.matches(prefix), "{prefix}");
            assert!(!skipped || matched.ignored(), "{prefix}");
            skipped |= matched.ignored() && ignore.can_skip(prefix);
        }
    }
}
