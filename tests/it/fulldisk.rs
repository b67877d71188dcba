//! A full disk: one clear error, no broken image, and all works again once there is room.
//!
//! The full disk is a tmpfs of a few megabytes, mounted in a user and mount namespace of the test's own.

use std::process::Command;

use crate::rig::{PROGRAM, Ran, Rig, assert_ordinary_user, fixture, needs};

/// Runs a shell script with `$P` the program on a storage directory in a tmpfs of so many megabytes at `$D`.
fn on_small_disk(rig: &Rig, megabytes: u32, script: &str) -> Ran {
    let disk = rig.path("disk");
    std::fs::create_dir_all(&disk).unwrap();
    let script = format!(
        "set -u; D={disk}; mount -t tmpfs -o size={megabytes}m tmpfs $D\n\
         P() {{ {PROGRAM} --storage $D/storage \"$@\"; }}\n\
         cd {scratch}\n{script}\n",
        disk = disk.display(),
        scratch = rig.path("").display(),
    );
    let out = Command::new("unshare").args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]).output().unwrap();
    Ran::of(out, script)
}

/// Fails the script unless the last command ended with exactly one error that speaks of space.
const ONE_ERROR: &str = "\
    [ $? != 0 ] || { echo 'it should have failed'; exit 1; }
    [ $(grep -c '^error: ' err) = 1 ] || { echo 'not one error:'; cat err; exit 1; }
    grep -qi 'no space\\|full\\|ENOSPC' err || { echo 'no word about space:'; cat err; exit 1; }
    ! grep -q panicked err || { cat err; exit 1; }
    [ \"$(P images --format json | tr -d ' \\n')\" = \"$BEFORE\" ] || { echo 'images changed:'; P images; exit 1; }";

#[test]
fn importing_onto_a_full_disk() {
    assert_ordinary_user();
    let (Some(tar), Some(())) = (fixture("fixtures/base.tar"), needs("unshare")) else { return };
    let rig = Rig::new();
    let ran = on_small_disk(
        &rig,
        3,
        &format!("BEFORE=$(P images --format json | tr -d ' \\n'); P import {} base 2>err\n{ONE_ERROR}\nP images", tar.display()),
    );
    assert_eq!(ran.code, Some(0), "{ran}");
}

#[test]
fn building_on_a_full_disk() {
    let (Some(tar), Some(())) = (fixture("fixtures/base.tar"), needs("unshare")) else { return };
    let rig = Rig::new();
    rig.write("context/big", vec![7; 24 << 20]);
    rig.write("context/Dockerfile.copy", "FROM base\nCOPY big /big\n");
    rig.write("context/Dockerfile.run", "FROM base\nRUN dd if=/dev/urandom of=/big bs=1M count=24\n");
    rig.write("context/Dockerfile.small", "FROM base\nRUN echo small >/small\n");
    let ran = on_small_disk(
        &rig,
        20,
        &format!(
            "P import {} base || exit 1; BEFORE=$(P images --format json | tr -d ' \\n')\n\
             P build -t copied -f context/Dockerfile.copy context 2>err\n{ONE_ERROR}\n\
             P build -t made -f context/Dockerfile.run context >out 2>err; [ $? != 0 ] || exit 1\n\
             P images | grep made && exit 1\n\
             P build -t small -f context/Dockerfile.small context || {{ echo 'no room for a small build afterwards'; df $D; exit 1; }}\n\
             [ \"$(P run small -- cat /small)\" = small ]",
            tar.display()
        ),
    );
    assert_eq!(ran.code, Some(0), "{ran}");
}

#[test]
fn loading_and_saving_on_a_full_disk() {
    let (Some(tar), Some(())) = (fixture("fixtures/base.tar"), needs("unshare")) else { return };
    let rig = Rig::new();
    rig.ok(["import", tar.to_str().unwrap(), "base"]);
    rig.ok(["save", "-f", "oci", "-o", "a.tar", "base"]);
    rig.ok(["save", "-o", "d.tar", "base"]);
    for archive in ["a.tar", "d.tar"] {
        let script = format!("BEFORE=$(P images --format json | tr -d ' \\n'); P load -i {archive} 2>err\n{ONE_ERROR}");
        let ran = on_small_disk(&rig, 3, &script);
        assert_eq!(ran.code, Some(0), "{archive}: {ran}");
    }
    let ran = on_small_disk(
        &rig,
        16,
        &format!(
            "P load -i d.tar || exit 1; BEFORE=$(P images --format json | tr -d ' \\n')\n\
             dd if=/dev/zero of=$D/fill bs=1M 2>/dev/null\n\
             P save base -o $D/out.tar 2>err\n{ONE_ERROR}\n\
             [ ! -e $D/out.tar ] || {{ echo 'half an archive was left'; exit 1; }}\n\
             P convert base oci:$D/layout 2>err\n{ONE_ERROR}\n\
             [ ! -e $D/layout/index.json ] || {{ echo 'half a layout has an index'; exit 1; }}\n\
             rm -r $D/fill $D/layout; P save base -o $D/out.tar || exit 1"
        ),
    );
    assert_eq!(ran.code, Some(0), "{ran}");
}

#[test]
fn exporting_onto_a_full_disk() {
    let (Some(tar), Some(())) = (fixture("fixtures/base.tar"), needs("unshare")) else { return };
    let rig = Rig::new();
    let ran = on_small_disk(
        &rig,
        12,
        &format!(
            "P import {} base || exit 1; BEFORE=$(P images --format json | tr -d ' \\n')\n\
             dd if=/dev/zero of=$D/fill bs=1M 2>/dev/null\n\
             P export base -o $D/out.tar 2>err\n{ONE_ERROR}\n\
             [ ! -e $D/out.tar ] || {{ echo 'half an archive was left'; exit 1; }}\n\
             rm $D/fill; P export base -o $D/storage/../out.tar || exit 1",
            tar.display()
        ),
    );
    assert_eq!(ran.code, Some(0), "{ran}");
}

#[test]
fn a_cache_mount_that_fills_the_disk() {
    let (Some(tar), Some(())) = (fixture("fixtures/base.tar"), needs("unshare")) else { return };
    let rig = Rig::new();
    rig.write("context/Dockerfile.big", "FROM base\nRUN --mount=type=cache,target=/c dd if=/dev/urandom of=/c/big bs=1M count=40\n");
    rig.write("context/Dockerfile.first", "FROM base AS first\nFROM base\nRUN --mount=type=cache,target=/c,from=first true\n");
    rig.write("context/Dockerfile.small", "FROM base\nRUN --mount=type=cache,target=/c echo small >/c/small; cp /c/small /small\n");
    let ran = on_small_disk(
        &rig,
        20,
        &format!(
            "P import {} base || exit 1; BEFORE=$(P images --format json | tr -d ' \\n')\n\
             P build -t big -f context/Dockerfile.big context >out 2>err; [ $? != 0 ] || exit 1\n\
             P images | grep big && exit 1\n\
             P build -t first -f context/Dockerfile.first context 2>err\n{ONE_ERROR}\n\
             P cache | grep /c >/dev/null || {{ echo 'the cache is not listed'; exit 1; }}\n\
             P prune --cache || exit 1; P cache | grep /c && exit 1\n\
             P build -t small -f context/Dockerfile.small context || {{ echo 'no room for a small build afterwards'; df $D; exit 1; }}\n\
             [ \"$(P run small -- cat /small)\" = small ]",
            tar.display()
        ),
    );
    assert_eq!(ran.code, Some(0), "{ran}");
}
