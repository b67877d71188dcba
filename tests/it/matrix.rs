//! Packages of a real distribution end as under real root: the first of tests/matrix/packages, beside what `tests/setup` found as root.

use std::process::Command;

use crate::rig::{PROGRAM, Rig, assert_ordinary_user, fixture, needs};

#[test]
fn packages_end_as_under_real_root() {
    assert_ordinary_user();
    let (Some(()), Some(_)) = (needs("python3"), fixture("matrix/reference.base.json.gz")) else { return };
    let rig = Rig::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/matrix/debian");
    let mut command = Command::new("python3");
    command.args([script, PROGRAM, "--modes", "consistent", "--first", "--jobs", "2", "--check", "--results"]).arg(rig.path("results"));
    let out = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{stdout}\n{stderr}");
}
