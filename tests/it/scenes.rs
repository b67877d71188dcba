//! Real programs and packages in RUN: what they print and leave is what real root gets in a chroot.
//!
//! The scenes are scripts in `tests/matrix/scenes`; `tests/setup` plays them as real root. These are the quick ones whose packages are in the
//! base that it makes; `make matrix-programs` plays all of them, and with other builders, too (doc/matrix.md).

use std::process::Command;

use crate::rig::{PROGRAM, assert_ordinary_user, fixture, needs};

#[test]
fn programs_print_and_leave_what_they_do_under_real_root() {
    assert_ordinary_user();
    let (Some(()), Some(_), Some(_)) = (needs("python3"), fixture("fixtures/world.tar"), fixture("reference/scenes/files.json")) else {
        return;
    };
    let scene = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/matrix/scene");
    let out = Command::new("python3").args([scene, "check", "--subset", "--rootling", PROGRAM]).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{stderr}\n{stdout}");
    eprintln!("{stdout}");
}
