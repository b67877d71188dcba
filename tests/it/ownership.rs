//! Owners, modes, devices and attributes outlive the step that made them: in the next one, in other stages, in caches, and in what leaves; where the
//! storage's file system holds extended attributes, and where it does not.
//!
//! The latter is a FUSE file system (bindfs), which refuses them and gives the numbers of inodes to the next files at once.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::registry::Registry;
use crate::rig::{Rig, assert_ordinary_user, needs};

const BASE: &str = "host:sh,ls,cat,cp,mv,rm,rmdir,ln,mkdir,touch,chmod,chown,stat,id,echo,find,mkfifo,mknod,seq,sleep,true,false,\
    setfattr,getfattr,setcap,getcap,setfacl,getfacl";

/// A rig on a file system with extended attributes, and one without.
fn both() -> Option<[(&'static str, Rig); 2]> {
    assert_ordinary_user();
    for program in ["python3", "setfattr", "setcap", "setfacl"] {
        needs(program)?;
    }
    let rigs = [("with attributes", Rig::new()), ("without attributes", Rig::on_fuse("--xattr-none")?)];
    // From one tar, so that both have the same.
    rigs[0].1.ok(["import", BASE, "base"]);
    rigs[0].1.ok(["export", "base", "-o", "base.tar"]);
    let base = rigs[0].1.path("base.tar");
    rigs[1].1.ok(["import", base.to_str().unwrap(), "base"]);
    Some(rigs)
}

/// Every kind of thing with every kind of attribute.
const EVERYTHING: &str = "mkdir -p /d/e && cd /d && echo 1 >one && echo 2 >e/two && ln one hard && ln -s one soft && mkfifo pipe && \
    mknod null c 1 3 && mknod disk b 8 1 && cp /bin/true cap && mkdir locked && echo x >locked/x && \
    chown 33:44 one && chmod 6750 one && chown -h 5:6 soft && chown 7:8 pipe e && chmod 600 pipe && chown 0:6 disk && chmod 660 disk && \
    setfacl -m u:33:rw,g:44:r e/two && setfacl -d -m g:44:rx e && setcap cap_net_raw+ep cap && setfattr -n user.x -v y one && setfattr -n trusted.t -v z e && setfattr -h -n trusted.s -v s soft && \
    chown 65534:65534 locked/x && chmod 0 locked/x locked && setfattr -n user.bytes -v 0x00ff5c e";

const SEEN: &str = "(cd /d && stat -c '%n %u:%g %a %F' . * e/* locked/x && getcap cap && getfattr -h -d -m '^(user|trusted)' -e hex . one e soft && getfacl -n e e/two)";

const FACTS: [&str; 17] = [
    "\"d/cap\" xattr security.capability=0100000200200000",
    "\"d/disk\" owner=0:6",
    "\"d/e\" owner=7:8",
    "\"d/e\" xattr system.posix_acl_default=",
    "\"d/e/two\" xattr system.posix_acl_access=",
    "\"d/e\" xattr trusted.t=7a",
    "\"d/e/two\" owner=0:0",
    "\"d/e\" xattr user.bytes=00ff5c",
    "\"d/locked\" mode=0000",
    "\"d/locked/x\" mode=0000",
    "\"d/locked/x\" owner=65534:65534",
    "\"d/one\" mode=6750",
    "\"d/one\" owner=33:44",
    "\"d/one\" xattr user.x=79",
    "\"d/pipe\" owner=7:8",
    "\"d/soft\" owner=5:6",
    "\"d/soft\" xattr trusted.s=73",
];

/// Checks that lists of facts are the same.
#[track_caller]
fn assert_same(facts: &[(String, String)]) {
    for other in &facts[1..] {
        let only = |a: &str, b: &str| a.lines().filter(|line| !b.lines().any(|l| l == *line)).map(str::to_owned).collect::<Vec<_>>();
        let differences = [only(&facts[0].1, &other.1), only(&other.1, &facts[0].1)];
        assert!(facts[0].1 == other.1, "{} and {} differ: {differences:#?}", facts[0].0, other.0);
    }
}

/// The same, and that they are what [`EVERYTHING`] makes.
#[track_caller]
fn assert_everything(facts: &[(String, String)]) {
    for fact in FACTS {
        assert!(facts[0].1.contains(fact), "{}: no {fact} in\n{}", facts[0].0, facts[0].1);
    }
    assert_same(facts);
}

#[test]
fn the_next_step_and_every_way_out_see_all() {
    let Some(rigs) = both() else { return };
    let mut facts = Vec::new();
    for (kind, rig) in &rigs {
        let first = rig.build("first", &format!("FROM base\nRUN {EVERYTHING} && {SEEN} >/seen\nRUN {SEEN} >/again\n"));
        assert_eq!(rig.sh("first", "cat /seen"), rig.sh("first", "cat /again"), "{kind}: {first}");
        assert_eq!(rig.ok(["run", "--root-emulation", "first", "--", "sh", "-c", SEEN]), rig.sh("first", "cat /seen"), "{kind}");
        let tree = rig.ok(["path", "first"]);
        assert_eq!(rig.ok(["run", "--root-emulation", tree.trim(), "--", "sh", "-c", SEEN]), rig.sh("first", "cat /seen"), "{kind}");
        // Without the step's own time stamps in it.
        rig.build("out", &format!("FROM base\nRUN {EVERYTHING}\nRUN echo later >/later\n"));
        facts.push((format!("{kind}, exported"), rig.facts("out")));
        rig.build("copied", "FROM out AS from\nFROM base\nCOPY --from=from /d /d\nCOPY --from=from /later /later\n");
        facts.push((format!("{kind}, copied"), rig.facts("copied")));
        for (number, place) in ["oci-archive:out.tar:out", "docker-archive:docker.tar:out"].iter().enumerate() {
            rig.ok(["push", "out", place]);
            let image = format!("back{number}");
            rig.build(&image, &format!("FROM {place}\n"));
            facts.push((format!("{kind}, by {place}"), rig.facts(&image)));
        }
        rig.write("context/Dockerfile", format!("FROM base\nRUN {EVERYTHING}\nRUN echo later >/later\n"));
        rig.ok(["build", "--squash-all", "-t", "squashed", "context"]);
        facts.push((format!("{kind}, squashed"), rig.facts("squashed")));
        rig.ok(["build", "-o", "type=tar,dest=rootfs.tar", "context"]);
        rig.ok(["import", "rootfs.tar", "imported"]);
        facts.push((format!("{kind}, imported"), rig.facts("imported")));
    }
    let without_config = |facts: &String| facts.lines().filter(|line| line.starts_with('"')).map(|line| format!("{line}\n")).collect();
    assert_everything(&facts.iter().map(|(name, facts)| (name.clone(), without_config(facts))).collect::<Vec<_>>());
}

#[test]
fn registries_carry_all_between_both() {
    let (Some(()), Some(rigs)) = (needs("docker-registry"), both()) else { return };
    let registry = Registry::start();
    let mut facts = Vec::new();
    for (number, (kind, rig)) in rigs.iter().enumerate() {
        let name = format!("{}/made{number}:latest", registry.address);
        rig.build("made", &format!("FROM base\nRUN {EVERYTHING}\n"));
        rig.ok(["push", "made", &name]);
        for (other_kind, other) in &rigs {
            other.ok(["pull", &name]);
            facts.push((format!("from {kind} to {other_kind}"), other.facts(&name)));
        }
    }
    assert_everything(&facts);
}

#[test]
fn a_step_that_moves_and_replaces_leaves_what_is_true() {
    let Some(rigs) = both() else { return };
    let dockerfile = format!(
        "FROM base\nRUN {EVERYTHING}\n\
         RUN mkdir /n && mv /d /n/d && cd /n/d && rm soft && ln -s x soft && rm one && touch one && rm -r e && mkdir e && mv pipe p\n\
         RUN cd /n/d && rm disk && mknod disk c 5 5 && mv null one && chown 0:0 locked/x && touch -h soft\n\
         RUN rm -rf /n/d/locked && mkdir -m 0 /n/d/locked && seq 1 300 | while read i; do echo $i >/n/$i; done && chown -R 3:3 /n && mv /n /m\n"
    );
    let built = |(kind, rig): &(&str, Rig)| {
        rig.build("moved", &dockerfile);
        ((*kind).to_owned(), rig.facts("moved"))
    };
    let facts: Vec<(String, String)> = rigs.iter().map(built).collect();
    assert_same(&facts);
    let facts = &facts[0].1;
    for fact in
        ["\"m/d/cap\" owner=3:3", "\"m/d/one\" type=char", "\"m/d/soft\" owner=3:3", "\"m/d/locked\" mode=0000", "\"m/299\" owner=3:3"]
    {
        assert!(facts.contains(fact), "{fact}:\n{facts}");
    }
    assert!(!facts.contains("xattr trusted"), "{facts}");
    assert!(!facts.contains("xattr security"), "chown takes capabilities away:\n{facts}");
}

#[test]
fn owners_outlive_steps_without_emulation() {
    let Some(rigs) = both() else { return };
    for (kind, rig) in &rigs {
        rig.write("context/first/Dockerfile", format!("FROM base\nRUN {EVERYTHING}\n"));
        rig.ok(["build", "-t", "first", "context/first"]);
        rig.write("context/second/Dockerfile", "FROM first\nRUN mv /d/e /d/f && rm /d/soft && ln -s y /d/soft && echo >/new\n");
        rig.ok(["build", "--root-emulation", "none", "-t", "second", "context/second"]);
        let facts = rig.facts("second");
        for fact in
            ["\"d/one\" owner=33:44", "\"d/one\" mode=6750", "\"d/disk\" type=block", "\"d/pipe\" owner=7:8", "\"d/soft\" owner=0:0"]
        {
            assert!(facts.contains(fact), "{kind}: no {fact} in\n{facts}");
        }
    }
}

#[test]
fn users_of_every_spelling() {
    let Some(rigs) = both() else { return };
    let accounts = "printf 'root:x:0:0::/root:/bin/sh\\napp:x:33:44::/srv:/bin/sh\\n' >/etc/passwd && \
        printf 'root:x:0:\\napps:x:44:\\nmore:x:55:app,other\\nwww:x:66:\\n' >/etc/group && chmod 1777 /tmp";
    for (kind, rig) in &rigs {
        rig.build("accounts", &format!("FROM base\nRUN mkdir -p /etc /tmp && {accounts}\n"));
        for (number, (user, ids, groups)) in [
            ("app", "33:44", "44 55"),
            ("33", "33:44", "44 55"),
            ("app:www", "33:66", "66"),
            ("33:77", "33:77", "77"),
            ("4711", "4711:0", "0"),
            ("4711:12", "4711:12", "12"),
            ("0:55", "0:55", "55"),
        ]
        .into_iter()
        .enumerate()
        {
            let name = format!("user{number}");
            let script =
                "id -u >/tmp/id && id -g >>/tmp/id && id -G >>/tmp/id && mkdir /tmp/d && ln -s x /tmp/l && mkfifo /tmp/p && touch /tmp/d/f";
            rig.build(&name, &format!("FROM accounts\nUSER {user}\nRUN {script}\n"));
            let (uid, gid) = ids.split_once(':').unwrap();
            assert_eq!(rig.ok(["run", &name, "--", "cat", "/tmp/id"]), format!("{uid}\n{gid}\n{groups}\n"), "{kind}: {user}");
            let seen = rig.ok(["run", &name, "--", "stat", "-c", "%u:%g", "/tmp/d", "/tmp/l", "/tmp/p", "/tmp/d/f", "/tmp/id"]);
            assert_eq!(seen, format!("{ids}\n").repeat(5), "{kind}: {user}");
            let facts = rig.facts(&name);
            for path in ["tmp/d", "tmp/l", "tmp/p", "tmp/d/f"] {
                assert!(facts.contains(&format!("\"{path}\" owner={ids}")), "{kind}: {user}: {path}\n{facts}");
            }
        }
        let refused = rig.try_build("none", "FROM accounts\nUSER nobody\nRUN true\n");
        assert!(refused.code != Some(0) && refused.stderr.contains("unknown user"), "{refused}");
    }
}

#[test]
fn caches_keep_all() {
    let Some(rigs) = both() else { return };
    for (kind, rig) in &rigs {
        let cache = "RUN --mount=type=cache,target=/d/";
        let step = |name: &str, script: &str| {
            rig.build(name, &format!("FROM base\n{cache} {script}\n"));
        };
        let everything = EVERYTHING.replacen("mkdir -p /d/e", "mkdir /d/e", 1);
        step("made", &format!("{everything} && {SEEN} >/seen"));
        step("seen", &format!("{SEEN} >/seen"));
        assert_eq!(rig.sh("made", "cat /seen"), rig.sh("seen", "cat /seen"), "{kind}");
        // A failing step has written what it has written.
        let failed =
            rig.try_build("failed", &format!("FROM base\n{cache} cd /d && mv soft moved && mv e/ f && rm pipe && touch pipe && false\n"));
        assert_ne!(failed.code, Some(0));
        step("moved", "cd /d && stat -c '%n %u:%g' moved f pipe >/seen && chown -h 1:1 moved");
        assert_eq!(rig.sh("moved", "cat /seen"), "moved 5:6\nf 7:8\npipe 0:0\n", "{kind}");
        // The same cache at two places, and one in a layer that has files under the same name.
        rig.build(
            "twice",
            "FROM base\nRUN mkdir /d && ln -s x /d/moved && chown -h 8:8 /d/moved\n\
             RUN --mount=type=cache,target=/d/ --mount=type=cache,target=/other,id=/d stat -c %u /d/moved /other/moved >/seen; ln -s y /other/new; chown -h 2:2 /other/new\n\
             RUN --mount=type=cache,target=/d/ stat -c %u /d/moved /d/new >>/seen\n\
             RUN stat -c %u /d/moved >>/seen\n",
        );
        assert_eq!(rig.sh("twice", "cat /seen"), "1\n1\n1\n2\n8\n", "{kind}");
        // Nothing in storage is out of its owner's reach.
        let storage = rig.behind();
        let out = Command::new("find").arg(storage).args(["-type", "d", "!", "-perm", "-700"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), "", "{kind}");
        assert!(out.status.success(), "{kind}: {}", String::from_utf8_lossy(&out.stderr));
    }
}

#[test]
fn killed_builds_leave_good_storage() {
    let Some(rigs) = both() else { return };
    let (_, rig) = &rigs[1];
    rig.write(
        "context/Dockerfile",
        format!("FROM base\nRUN {EVERYTHING}\nRUN --mount=type=cache,target=/c touch /c/x && chown 4 /c/x && mv /d /n && sleep 0.3\n"),
    );
    let build = ["build", "--no-cache", "-t", "killed", "context"];
    let start = Instant::now();
    rig.ok(build);
    let whole = start.elapsed();
    for n in 1..6 {
        let mut child = rig.start(build);
        sleep(whole * n / 6);
        let _ = child.kill();
        child.wait().unwrap();
        sleep(Duration::from_millis(50));
        rig.ok(["prune"]);
        let facts = rig.facts("killed");
        assert!(facts.contains("\"n/one\" owner=33:44") && facts.contains("\"n/disk\" type=block"), "{facts}");
    }
    rig.ok(build);
    rig.ok(["rm", "killed"]);
    rig.ok(["prune", "--cache"]);
}

#[test]
fn what_lies_where_no_attributes_are_is_said() {
    let Some(rig) = Rig::on_fuse("--xattr-none") else { return };
    let info = rig.ok(["info"]);
    assert!(info.contains("kept in each layer's `record` file"), "{info}");
}

#[test]
fn long_reports_arrive() {
    assert_ordinary_user();
    let rig = Rig::with_base();
    rig.build("links", "FROM base\nRUN mkdir /links && ln -s $(seq 1 12000) /links && chown -hR 5:6 /links && mv /links /moved\n");
    let seen = rig.ok(["run", "--root-emulation", "links", "--", "stat", "-c", "%u:%g", "/moved/1", "/moved/12000", "/moved"]);
    assert_eq!(seen, "5:6\n".repeat(3));
}
