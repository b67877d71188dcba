//! Cache mounts among many builds: shared, private, locked; killed in the middle; never half filled.

use std::fs;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use crate::rig::{Ran, Rig, assert_ordinary_user};

/// Long enough for a slow machine, short enough to end a test that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

fn dockerfile(rig: &Rig, name: &str, text: &str) -> Vec<String> {
    rig.write(&format!("{name}/Dockerfile"), text);
    ["build", "--progress", "plain", "-t", name, name].map(str::to_owned).to_vec()
}

fn entry(rig: &Rig) -> serde_json::Value {
    let listed: serde_json::Value = serde_json::from_str(&rig.ok(["cache", "--format", "json"])).unwrap();
    listed["mounts"].as_array().and_then(|mounts| mounts.first().cloned()).unwrap_or_default()
}

#[track_caller]
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[track_caller]
fn finish(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let ran = Ran::of(output, "a build".into());
    assert_eq!(ran.code, Some(0), "{ran}");
    ran.stderr
}

#[test]
fn locked_steps_take_turns() {
    assert_ordinary_user();
    let rig = Rig::with_base();
    let builds: Vec<Child> = (0..8)
        .map(|n| {
            // Without a lock two would read the same number.
            let step = "n=$(cat /c/n 2>/dev/null || echo 0); sleep 0.1; echo $((n + 1)) >/c/n";
            rig.start(dockerfile(
                &rig,
                &format!("b{n}"),
                &format!("FROM base\nRUN --mount=type=cache,target=/c,sharing=locked : {n}; {step}\n"),
            ))
        })
        .collect();
    for build in builds {
        finish(build);
    }
    let read = dockerfile(&rig, "read", "FROM base\nRUN --mount=type=cache,target=/c,sharing=locked cat /c/n\n");
    assert!(finish(rig.start(read)).contains("  8\n"));
    assert_eq!((&entry(&rig)["directories"], &entry(&rig)["inUse"]), (&1.into(), &false.into()));
}

#[test]
fn locks_of_several_caches_never_cross() {
    let rig = Rig::with_base();
    let (a, b) = ("--mount=type=cache,target=/a,sharing=locked", "--mount=type=cache,target=/b,sharing=locked");
    let builds: Vec<Child> = (0..6)
        .map(|n| {
            let (first, second) = if n % 2 == 0 { (a, b) } else { (b, a) };
            rig.start(dockerfile(&rig, &format!("b{n}"), &format!("FROM base\nRUN {first} {second} : {n}; sleep 0.1\n")))
        })
        .collect();
    for build in builds {
        finish(build);
    }
}

#[test]
fn shared_steps_meet_and_private_ones_do_not() {
    let rig = Rig::with_base();
    let meet = |sharing: &str, me: &str, other: &str| {
        let wait = format!(
            "touch /c/{me}; i=0; while [ ! -e /c/{other} ] && [ $i -lt 600 ]; do sleep 0.05; i=$((i + 1)); done; [ -e /c/{other} ]"
        );
        let name = format!("{sharing}-{me}");
        rig.start(dockerfile(&rig, &name, &format!("FROM base\nRUN --mount=type=cache,target=/c,id={sharing},sharing={sharing} {wait}\n")))
    };
    let both = [meet("shared", "one", "two"), meet("shared", "two", "one")];
    both.into_iter().for_each(|build| drop(finish(build)));
    rig.ok(["prune", "--cache"]);

    let mount = "--mount=type=cache,target=/c,sharing=private";
    let first = rig.start(dockerfile(&rig, "first", &format!("FROM base\nRUN {mount} touch /c/first; sleep 60\n")));
    wait_for("the first step", || entry(&rig)["inUse"] == true);
    let second = finish(rig.start(dockerfile(&rig, "second", &format!("FROM base\nRUN {mount} ls /c; touch /c/second; echo seen\n"))));
    assert!(second.contains("  seen\n") && !second.contains("  first\n"), "{second}");
    assert_eq!(entry(&rig)["directories"], 2);
    end(first);
    wait_for("the first step's end", || entry(&rig)["inUse"] == false);
    // A directory that is free is used again, before another is made.
    let third = finish(rig.start(dockerfile(&rig, "third", &format!("FROM base\nRUN {mount} ls /c; echo seen again\n"))));
    assert!(third.contains("  first\n") ^ third.contains("  second\n"), "{third}");
    assert_eq!(entry(&rig)["directories"], 2);
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_killed_step_gives_its_cache_back() {
    let rig = Rig::with_base();
    let mount = "--mount=type=cache,target=/c,sharing=locked";
    for round in 0..3 {
        let child = rig.start(dockerfile(&rig, "killed", &format!("FROM base\nRUN {mount} touch /c/started{round}; sleep 300\n")));
        wait_for("the step", || {
            let path = rig.storage().join("cache/mounts");
            let trees = fs::read_dir(path).into_iter().flatten().flatten();
            trees.into_iter().any(|cache| cache.path().join(format!("0/fs/started{round}")).exists())
        });
        end(child);
        let next = dockerfile(
            &rig,
            "next",
            &format!("FROM base\nRUN {mount} : {round}; ls /c; chown 3:4 /c/started{round}; stat -c %u:%g /c/started*\n"),
        );
        let output = finish(rig.start(next));
        assert!(output.contains(&format!("  started{round}\n")) && output.contains("  3:4\n"), "{output}");
    }
    assert_eq!(entry(&rig)["directories"], 1);
    rig.assert_healthy();
}

#[test]
fn first_content_is_whole_or_absent() {
    let rig = Rig::with_base();
    let make = "FROM base AS first\nRUN mkdir /out && for i in $(seq 300); do echo $i >/out/$i; done\n";
    finish(rig.start(dockerfile(&rig, "warm", make)));
    let take = format!("{make}FROM base\nRUN --mount=type=cache,target=/c,from=first,source=/out set -- /c/*; echo $#; [ $# = 300 ]\n");
    let arguments = dockerfile(&rig, "take", &take);
    let started = Instant::now();
    finish(rig.start(arguments.clone()));
    let whole = started.elapsed();
    for n in 0..10 {
        rig.ok(["prune", "--cache"]);
        finish(rig.start(dockerfile(&rig, "warm", make)));
        let mut child = rig.start(arguments.clone());
        thread::sleep(whole * n / 10);
        let _ = child.kill();
        child.wait().unwrap();
        finish(rig.start(arguments.clone()));
    }
    rig.assert_healthy();
}

#[test]
fn pruned_beside_builds() {
    let rig = Rig::with_base();
    thread::scope(|scope| {
        let builds: Vec<_> = (0..4)
            .map(|n| {
                let rig = &rig;
                scope.spawn(move || {
                    for round in 0..3 {
                        let text =
                            format!("FROM base\nRUN --mount=type=cache,target=/c,sharing=locked : {n} {round}; echo x >/c/f && cat /c/f\n");
                        finish(rig.start(dockerfile(rig, &format!("p{n}"), &text)));
                    }
                })
            })
            .collect();
        let prunes = scope.spawn(|| {
            for _ in 0..10 {
                rig.ok(["prune", "--cache"]);
            }
        });
        builds.into_iter().for_each(|build| build.join().unwrap());
        prunes.join().unwrap();
    });
    rig.assert_healthy();
}

#[test]
fn only_old_caches_go_with_a_filter() {
    let rig = Rig::with_base();
    finish(rig.start(dockerfile(&rig, "kept", "FROM base\nRUN --mount=type=cache,target=/c echo x >/c/f; echo y >/layer\n")));
    rig.ok(["prune", "--cache", "--filter", "until=24h"]);
    let listed = rig.ok(["cache"]);
    assert!(listed.contains("/c") && listed.contains("step"), "{listed}");
    assert!(rig.fails(["prune", "--filter", "until=soon"]).contains("soon"));
    assert!(rig.fails(["prune", "--filter", "size=x"]).contains("until"));
    thread::sleep(Duration::from_millis(1100));
    let dry = rig.ok(["prune", "--filter", "until=1s", "--dry-run", "--format", "json"]);
    let dry: serde_json::Value = serde_json::from_str(&dry).unwrap();
    assert_eq!(dry["mounts"]["count"], 1, "{dry}");
    rig.ok(["prune", "--filter", "until=1s"]);
    assert_eq!(entry(&rig), serde_json::Value::Null);
}
