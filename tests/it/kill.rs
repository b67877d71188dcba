//! SIGKILL at any moment: storage works afterwards, an image is absent or whole, leftovers are swept.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::registry::{Registry, push_sample};
use crate::rig::{Rig, assert_ordinary_user, fixture, needs};

/// How often each kind of work is killed, at moments spread over its whole length.
const KILLS: u32 = 12;

/// Runs `arguments` once to learn how long they take, then kills them at `KILLS` moments, each time in a fresh state.
fn kill_all_along(fresh: &dyn Fn() -> Rig, arguments: &[&str], check: &dyn Fn(&Rig)) {
    let rig = fresh();
    let started = Instant::now();
    rig.ok(arguments);
    let whole = started.elapsed();
    check(&rig);
    for n in 0..KILLS {
        let rig = fresh();
        let mut child = rig.start(arguments);
        sleep(whole * n / KILLS);
        let _ = child.kill();
        child.wait().unwrap();
        rig.assert_healthy();
        // The same work again must succeed on what the dead one left.
        rig.ok(arguments);
        check(&rig);
        assert_swept(&rig);
    }
}

/// Nothing unfinished is left once a later command has run.
fn assert_swept(rig: &Rig) {
    rig.ok(["images"]);
    let left: Vec<_> =
        std::fs::read_dir(rig.storage().join("tmp")).map(|d| d.flatten().map(|e| e.file_name()).collect()).unwrap_or_default();
    assert!(left.is_empty(), "left in tmp/: {left:?}");
}

#[test]
fn killed_builds() {
    assert_ordinary_user();
    let fresh = || {
        let rig = Rig::with_base();
        for i in 0..200 {
            rig.write(&format!("context/tree/{}/{i}", i % 7), format!("{i}\n").repeat(200));
        }
        rig.write("context/Dockerfile", "FROM base\nRUN seq 1 20000 >/numbers && chown 3:4 /numbers\nCOPY tree /tree\nRUN mkdir /d && cp -r /tree /d && chmod 0 /d/tree/1\n");
        rig
    };
    let context = "context";
    kill_all_along(&fresh, &["build", "-t", "killed", context], &|rig| {
        let script = "find /d/tree -maxdepth 1 -name '1*'; stat -c %u:%g /numbers";
        assert_eq!(rig.ok(["run", "--root-emulation", "killed", "--", "sh", "-c", script]), "/d/tree/1\n3:4\n");
    });
}

#[test]
fn killed_imports() {
    let Some(tar) = fixture("fixtures/base.tar") else { return };
    let tar = tar.to_str().unwrap().to_owned();
    kill_all_along(&Rig::new, &["import", &tar, "imported"], &|rig| {
        assert!(rig.sh("imported", "cat /etc/os-release").contains("ID=corpus"));
    });
}

#[test]
fn killed_pulls() {
    if needs("docker-registry").is_none() || needs("skopeo").is_none() {
        return;
    }
    let registry = Registry::start();
    let reference = push_sample(&registry, "killed", 4);
    kill_all_along(&Rig::new, &["pull", &reference], &|rig| {
        assert_eq!(rig.ok(["run", &reference, "--", "/bin/busybox", "cat", "/layer3/name"]), "layer 3\n");
    });
}

#[test]
fn killed_prunes() {
    let fresh = || {
        let rig = Rig::with_base();
        rig.build("one", "FROM base\nRUN seq 1 20000 >/one\n");
        rig.build("two", "FROM one\nRUN seq 1 20000 >/two\n");
        rig.ok(["rm", "two"]);
        rig
    };
    kill_all_along(&fresh, &["prune"], &|rig| {
        assert_eq!(rig.sh("one", "head -n 1 /one"), "1\n");
    });
}

#[test]
fn killed_commands_leave_no_processes() {
    let rig = Rig::with_base();
    let marker = format!("985{}", std::process::id());
    rig.write("context/Dockerfile", format!("FROM base\nRUN sleep {marker} & sleep {marker}\n"));
    let mut child = rig.start(["build", "-t", "x", "context"]);
    let pattern = format!("^sleep {marker}");
    let running = || !Command::new("pgrep").args(["-f", &pattern]).output().unwrap().stdout.is_empty();
    let started = Instant::now();
    while !running() {
        assert!(started.elapsed() < Duration::from_secs(30), "the RUN never started");
        sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    while running() {
        assert!(started.elapsed() < Duration::from_secs(60), "processes of a killed build live on");
        sleep(Duration::from_millis(20));
    }
    rig.assert_healthy();
}
