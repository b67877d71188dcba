//! The corpus: what rootling builds is what buildah and Docker build and the reference says, apart from the differences in doc/differences.md.

use std::process::Command;

use crate::rig::{PROGRAM, assert_ordinary_user, fixture, needs};

#[test]
fn the_corpus_agrees_with_all_that_is_known_of_it() {
    assert_ordinary_user();
    let (Some(()), Some(_), Some(_)) = (needs("python3"), fixture("reference/from-scratch"), fixture("fixtures/base.tar")) else { return };
    let compare = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compare/compare");
    let out = Command::new("python3").args([compare, "check", "--rootling", PROGRAM]).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{stderr}\n{stdout}");
    eprintln!("{stdout}");
}
