//! Many commands at once in one storage directory.

use std::thread;

use crate::rig::{Ran, Rig, assert_ordinary_user};

#[test]
fn twenty_builds_at_once() {
    assert_ordinary_user();
    let rig = Rig::with_base();
    rig.build("settled", "FROM base\nRUN echo settled >/state\n");
    thread::scope(|scope| {
        let builds: Vec<_> = (0..20)
            .map(|i| {
                let rig = &rig;
                scope.spawn(move || {
                    rig.write(&format!("c{i}/f"), format!("{i}\n"));
                    // Half of the steps are shared by all, half are everyone's own.
                    rig.write(
                        &format!("c{i}/Dockerfile"),
                        format!("FROM base\nRUN echo shared >/shared && seq 1 5000 >/n\nCOPY f /f\nRUN echo {i} >/own\n"),
                    );
                    rig.run(["build", "-t", &format!("many{i}"), &format!("c{i}")])
                })
            })
            .collect();
        let others: Vec<_> = (0..10)
            .map(|_| {
                let rig = &rig;
                scope.spawn(move || {
                    rig.ok(["images", "--format", "json"]);
                    assert_eq!(rig.sh("settled", "cat /state"), "settled\n");
                })
            })
            .collect();
        for other in others {
            other.join().unwrap();
        }
        for build in builds {
            let ran: Ran = build.join().unwrap();
            assert_eq!(ran.code, Some(0), "{ran}");
        }
    });
    for i in 0..20 {
        assert_eq!(rig.sh(&format!("many{i}"), "cat /f /own"), format!("{i}\n{i}\n"));
    }
    rig.assert_healthy();
}

#[test]
fn the_same_build_at_once() {
    let rig = Rig::with_base();
    rig.write("context/Dockerfile", "FROM base\nRUN seq 1 3000 >/a\nRUN seq 1 3000 >/b\n");
    thread::scope(|scope| {
        let all: Vec<_> = (0..6).map(|_| scope.spawn(|| rig.run(["build", "-t", "same", "context"]))).collect();
        for one in all {
            let ran = one.join().unwrap();
            assert_eq!(ran.code, Some(0), "{ran}");
        }
    });
    assert_eq!(rig.sh("same", "head -n 1 /a /b | head -n 2"), "==> /a <==\n1\n");
}

#[test]
fn pruning_while_others_work() {
    let rig = Rig::with_base();
    thread::scope(|scope| {
        let builds: Vec<_> = (0..6)
            .map(|i| {
                let rig = &rig;
                scope.spawn(move || {
                    rig.write(&format!("p{i}/Dockerfile"), format!("FROM base\nRUN echo {i} >/a\nRUN seq 1 2000 >/b\nRUN echo {i} >/c\n"));
                    let ran = rig.run(["build", "-t", &format!("p{i}"), &format!("p{i}")]);
                    assert_eq!(ran.code, Some(0), "{ran}");
                    assert_eq!(rig.sh(&format!("p{i}"), "cat /a /c"), format!("{i}\n{i}\n"));
                })
            })
            .collect();
        let prunes = scope.spawn(|| {
            for _ in 0..8 {
                rig.ok(["prune"]);
            }
        });
        for build in builds {
            build.join().unwrap();
        }
        prunes.join().unwrap();
    });
    rig.assert_healthy();
}

#[test]
fn running_from_an_image_that_is_removed_meanwhile() {
    let rig = Rig::with_base();
    rig.build("leaving", "FROM base\nRUN echo here >/state\n");
    let mut child = rig.start(["run", "leaving", "--", "sh", "-c", "echo ready; sleep 1; cat /state"]);
    let mut ready = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
    rig.ok(["rm", "leaving"]);
    rig.ok(["prune"]);
    let out = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "here\n", "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn copies_at_once() {
    let from = Rig::with_base();
    from.build("one", "FROM base\nRUN seq 1 50000 >/one\n");
    from.build("two", "FROM one\nRUN seq 1 50000 >/two\n");
    from.ok(["save", "-o", "d.tar", "one", "two"]);
    from.ok(["save", "-f", "oci", "-o", "o.tar", "one", "two"]);
    let archives = &["d.tar", "o.tar"].map(|name| from.path(name).display().to_string());
    let rig = Rig::new();
    let rig = &rig;
    thread::scope(|scope| {
        let mut all = Vec::new();
        for round in 0..4 {
            for archive in archives {
                all.push(scope.spawn(move || rig.run(["load", "-i", archive])));
                // One file for all writers: each replaces it as a whole.
                for to in ["oci-archive:shared.tar:shared".to_owned(), format!("oci:layout:{round}")] {
                    all.push(scope.spawn(move || rig.run(["convert", &format!("docker-archive:{}:one", archives[0]), &to])));
                }
            }
        }
        for one in all {
            let ran = one.join().unwrap();
            assert_eq!(ran.code, Some(0), "{ran}");
        }
    });
    assert_eq!(rig.sh("two", "head -n 1 /one; head -n 1 /two"), "1\n1\n");
    for name in ["oci-archive:shared.tar:shared", "oci:layout:0", "oci:layout:3"] {
        rig.ok(["convert", name, "back"]);
        assert_eq!(rig.sh("back", "head -n 1 /one"), "1\n");
    }
    rig.assert_healthy();
}
