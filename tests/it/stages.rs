//! Stages: independent ones run at the same time, unneeded ones not at all, a failure ends the others.

use std::time::{Duration, Instant};

use crate::rig::{Rig, assert_ordinary_user};

#[test]
fn independent_stages_run_at_the_same_time() {
    assert_ordinary_user();
    let rig = Rig::with_base();
    rig.write("context/x", "x");
    // Each waits for a file that the other writes into a directory both see: one after the other they would never end.
    let meeting = rig.path("meeting");
    std::fs::create_dir(&meeting).unwrap();
    let dockerfile = |own: &str, other: &str| {
        format!("FROM base AS {own}\nRUN touch /meet/{own} && while ! test -e /meet/{other}; do sleep 0.05; done && touch /{own}\n")
    };
    let text = dockerfile("a", "b") + &dockerfile("b", "a") + "FROM base\nCOPY --from=a /a /\nCOPY --from=b /b /\n";
    let file = rig.write("Dockerfile.meet", text);
    let bind = format!("{}:/meet", meeting.display());
    let context = rig.path("context").display().to_string();
    rig.ok(["build", "--jobs", "2", "--bind", &bind, "-t", "met", "-f", file.to_str().unwrap(), &context]);
    assert_eq!(rig.sh("met", "ls /a /b"), "/a\n/b\n");
}

#[test]
fn a_failure_ends_the_others() {
    let rig = Rig::with_base();
    let dockerfile = "FROM base AS slow\nRUN sleep 600\nFROM base AS broken\nRUN sleep 0.5; exit 7\nFROM base\nCOPY --from=slow /f /\nCOPY --from=broken /f /\n";
    let file = rig.write("Dockerfile.broken", dockerfile);
    let start = Instant::now();
    let ran = rig.run(["build", "--jobs", "2", "-f", file.to_str().unwrap(), "."]);
    assert_eq!(ran.code, Some(7), "{ran}");
    assert!(ran.stderr.contains("Dockerfile.broken:4:1") && ran.stderr.contains("exit status 7"), "{ran}");
    assert!(start.elapsed() < Duration::from_secs(300), "the other stage went on");
    rig.assert_healthy();
}

#[test]
fn one_stage_at_a_time_is_enough() {
    let rig = Rig::with_base();
    let dockerfile =
        "FROM base AS unneeded\nRUN exit 1\nFROM base AS a\nRUN touch /a\nFROM a AS b\nRUN touch /b\nFROM base\nCOPY --from=b /a /b /\n";
    let file = rig.write("Dockerfile.chain", dockerfile);
    rig.ok(["build", "--jobs", "1", "-t", "chain", "-f", file.to_str().unwrap(), "."]);
    assert_eq!(rig.sh("chain", "ls /a /b"), "/a\n/b\n");
}

#[test]
fn triggers_of_a_base_may_copy_from_a_stage() {
    let rig = Rig::with_base();
    rig.build("trigger", "FROM base\nONBUILD COPY --from=tool /tool /\nONBUILD RUN echo triggered >/trace\n");
    rig.build("triggered", "FROM base AS tool\nRUN echo tool >/tool\nFROM trigger\n");
    assert_eq!(rig.sh("triggered", "cat /tool /trace"), "tool\ntriggered\n");
}

#[test]
fn a_trigger_that_names_its_own_stage_or_a_later_one_is_an_error() {
    let rig = Rig::with_base();
    rig.build("trigger", "FROM base\nONBUILD COPY --from=later /f /\n");
    for dockerfile in ["FROM trigger AS later\n", "FROM trigger AS first\nFROM base AS later\nCOPY --from=first /bin/sh /\n"] {
        for extra in [&[][..], &["--dry-run"]] {
            let file = rig.write("Dockerfile.self", dockerfile);
            let words = ["build", "-f", file.to_str().unwrap()].into_iter().chain(extra.iter().copied()).chain(["."]);
            let error = rig.fails(words.collect::<Vec<_>>());
            assert!(error.contains("stage `later` is not built before this one"), "{error}");
        }
    }
}

#[test]
fn the_error_is_the_first_failures_own() {
    let rig = Rig::with_base();
    let dockerfile = "FROM base AS a\nRUN exit 5\nFROM base AS b\nCOPY --from=a /x /x\nFROM base AS c\nCOPY --from=a /x /x\n\
                      FROM base\nCOPY --from=b /x /\nCOPY --from=c /x /\n";
    let file = rig.write("Dockerfile.first", dockerfile);
    for _ in 0..10 {
        let ran = rig.run(["build", "--jobs", "4", "-f", file.to_str().unwrap(), "."]);
        assert!(ran.code == Some(5) && ran.stderr.contains("exit status 5"), "{ran}");
    }
}

#[test]
fn a_trigger_can_not_wait_for_itself_by_number() {
    let rig = Rig::with_base();
    rig.build("trigger", "FROM base\nONBUILD COPY --from=0 /bin/sh /z\n");
    let file = rig.write("Dockerfile.number", "FROM trigger\n");
    let error = rig.fails(["build", "-f", file.to_str().unwrap(), "."]);
    assert!(error.contains("is not built before this one"), "{error}");
}
