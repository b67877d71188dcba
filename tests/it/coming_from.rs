//! `doc/coming-from.md`: each line of its tables executed once, and nothing of the others missing in them.

use std::path::Path;
use std::process::Command;

use crate::rig::{PROGRAM, assert_ordinary_user, skip};

#[test]
fn every_line_of_the_tables_works() {
    assert_ordinary_user();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/coming-from");
    let out = Command::new(script).arg(PROGRAM).output().unwrap();
    if out.status.code() == Some(77) {
        return skip(&String::from_utf8_lossy(&out.stderr)).unwrap_or_default();
    }
    assert!(out.status.success(), "{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
}
