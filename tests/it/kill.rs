//! SIGKILL at any moment: storage works afterwards, an image is absent or whole, leftovers are swept.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::registry::{Registry, push_sample};
use crate::rig::{Ran, Rig, assert_ordinary_user, fixture, needs};

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
fn killed_loads() {
    let from = Rig::with_base();
    from.build("one", "FROM base\nRUN seq 1 90000 >/one\n");
    from.build("two", "FROM one\nRUN seq 1 90000 >/two\n");
    for (format, file) in [("docker-archive", "both.tar.gz"), ("oci-archive", "both.tar")] {
        from.ok(["save", "-f", format, "-o", file, "one", "two"]);
        let archive = from.path(file).display().to_string();
        kill_all_along(&Rig::new, &["load", "-i", &archive], &|rig| {
            assert_eq!(rig.sh("two", "head -n 1 /one; head -n 1 /two"), "1\n1\n");
            assert_eq!(rig.sh("one", "head -n 1 /one"), "1\n");
        });
    }
}

/// What a killed writer leaves beside its place goes with the next one.
#[test]
fn killed_copies_to_directories() {
    let fresh = || {
        let rig = Rig::with_base();
        rig.build("app", "FROM base\nRUN mkdir /d && for i in $(seq 1 400); do seq 1 50 >/d/$i; done\n");
        rig
    };
    kill_all_along(&fresh, &["push", "app", "local:tree"], &|rig| {
        let names = std::fs::read_dir(rig.path("")).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
        let left: Vec<String> = names.filter(|name| name.starts_with(".tree")).collect();
        assert!(left.is_empty(), "left: {left:?}");
        assert_eq!(std::fs::read_dir(rig.path("tree/d")).unwrap().count(), 400);
        // For the next attempt, which wants no directory there.
        std::fs::remove_dir_all(rig.path("tree")).unwrap();
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

/// SIGKILL of the process that supervises a RUN and its root emulation: an error of the step, soon, and nothing is committed.
#[test]
fn killed_supervisors() {
    let rig = Rig::with_base();
    rig.write("context/Dockerfile", "FROM base\nRUN touch /begun && while stat /begun >/dev/null; do :; done\n");
    let child = rig.start(["build", "-t", "killed", "context"]);
    let until = Instant::now() + Duration::from_secs(30);
    let sandbox = loop {
        // It runs in a PID namespace of its own and has started the command.
        match children(child.id()).into_iter().find(|&pid| is_sandbox(pid) && !children(pid).is_empty()) {
            Some(pid) => break pid,
            None if Instant::now() > until => panic!("no sandbox process was started"),
            None => sleep(Duration::from_millis(10)),
        }
    };
    sleep(Duration::from_millis(200));
    assert!(Command::new("kill").args(["-KILL", &sandbox.to_string()]).status().unwrap().success());
    let ran = Ran::of(child.wait_with_output().unwrap(), "build".into());
    assert!(ran.code.is_some_and(|code| code != 0), "{ran}");
    for expected in ["error: the sandbox process ended before the command\n", "\ncause: killed by signal 9\n"] {
        assert!(ran.stderr.contains(expected), "{ran}");
    }
    assert!(!rig.ok(["images"]).contains("killed"), "an image was made");
    rig.assert_healthy();
    assert_swept(&rig);
}

fn children(process: u32) -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return vec![] };
    let lists = threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()).collect()
}

fn is_sandbox(process: u32) -> bool {
    std::fs::read(format!("/proc/{process}/cmdline")).is_ok_and(|line| line.starts_with(b"rootling-sandbox"))
}

#[test]
fn killed_exports_in_isula_builds_forms() {
    let rig = Rig::with_base();
    for i in 0..100 {
        rig.write(&format!("context/tree/{i}"), format!("{i}\n").repeat(2000));
    }
    rig.build("app", "FROM base\nCOPY tree /tree\n");
    let to = rig.path("out");
    for (line, parts, entrance) in [
        (&["export", "--with-spec", "out", "app"][..], 2, &["import", "--with-spec", "out", "again"][..]),
        (&["save", "--base", "base", "--dest", "out", "app"], 3, &["load", "--dir", "out", "--input", "app"]),
    ] {
        let started = Instant::now();
        rig.ok(line);
        let whole = started.elapsed();
        std::fs::remove_dir_all(&to).unwrap();
        for n in 0..KILLS {
            let mut child = rig.start(line);
            sleep(whole * n / KILLS);
            let _ = child.kill();
            child.wait().unwrap();
            // There is nothing of that name, or all.
            if !to.exists() {
                rig.ok(line);
            }
            assert!(std::fs::read_dir(&to).unwrap().count() >= parts, "{line:?}");
            rig.ok(entrance);
            std::fs::remove_dir_all(&to).unwrap();
        }
        assert_swept(&rig);
    }
}
