//! Dockerfile to image: the cache, root emulation as later steps and receivers see it, errors with their place.

use std::fs;

use crate::rig::{Rig, assert_ordinary_user, fixture};

#[test]
fn owners_and_modes_are_seen_again_everywhere() {
    assert_ordinary_user();
    let rig = Rig::with_base();
    rig.build(
        "owners",
        "FROM base\n\
         RUN touch /f /g && chown 33:44 /f && stat -c %u:%g /f >/same-run && chmod 4711 /g && mkdir /closed && chmod 0 /closed\n\
         RUN stat -c '%u:%g %a' /f /g /closed >/next-run\n\
         RUN ln -s /f /link && chown -h 7:8 /link && stat -c %u:%g /link >/link-owner\n",
    );
    assert_eq!(rig.sh("owners", "cat /same-run"), "33:44\n");
    assert_eq!(rig.sh("owners", "cat /next-run"), "33:44 644\n0:0 4711\n0:0 0\n");
    assert_eq!(rig.sh("owners", "cat /link-owner"), "7:8\n");
    let tar = rig.path("owners.tar");
    rig.ok(["export", "owners", "-o", tar.to_str().unwrap()]);
    let list = listing(&tar);
    for wanted in ["-rw-r--r-- 33/44 f", "-rws--x--x 0/0 g", "d--------- 0/0 closed/", "lrwxrwxrwx 7/8 link"] {
        assert!(list.contains(wanted), "no `{wanted}` in\n{list}");
    }
}

/// `tar -tv` with mode, owner and name only.
pub fn listing(tar: &std::path::Path) -> String {
    let out = std::process::Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(tar).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let line = |l: &str| {
        let words: Vec<&str> = l.split_whitespace().collect();
        format!("{} {} {}\n", words[0], words[1], words[5].trim_start_matches("./"))
    };
    text.lines().map(line).collect()
}

#[test]
fn two_exports_are_equal() {
    let rig = Rig::with_base();
    rig.build("twice", "FROM base\nRUN mkdir /d && echo x >/d/x && ln /d/x /d/y\n");
    let (one, two) = (rig.path("one.tar"), rig.path("two.tar"));
    rig.ok(["export", "twice", "-o", one.to_str().unwrap()]);
    rig.ok(["export", "twice", "-o", two.to_str().unwrap()]);
    assert_eq!(fs::read(one).unwrap(), fs::read(two).unwrap());
}

#[test]
fn the_cache_follows_content_and_not_times() {
    let rig = Rig::with_base();
    let dockerfile = "FROM base\nCOPY f /f\nRUN cat /proc/sys/kernel/random/uuid >/mark\n";
    rig.write("context/f", "one");
    rig.build("cached", dockerfile);
    let first = rig.sh("cached", "cat /mark");
    rig.build("cached", dockerfile);
    assert_eq!(rig.sh("cached", "cat /mark"), first, "nothing changed, so nothing may run");
    rig.write("context/f", "one");
    rig.build("cached", dockerfile);
    assert_eq!(rig.sh("cached", "cat /mark"), first, "the same content with another time is the same");
    rig.write("context/f", "two");
    rig.build("cached", dockerfile);
    let second = rig.sh("cached", "cat /mark");
    assert_ne!(second, first, "changed content must run again");
    rig.write("context/f", "one");
    rig.build("cached", dockerfile);
    assert_eq!(rig.sh("cached", "cat /mark"), first, "the old content finds the old result");
    let file = rig.path("Dockerfile.cached");
    rig.ok(["build", "--no-cache", "-t", "cached", "-f", file.to_str().unwrap(), rig.path("context").to_str().unwrap()]);
    assert_ne!(rig.sh("cached", "cat /mark"), first, "--no-cache must run");
}

#[test]
fn a_layer_may_be_there_twice() {
    let rig = Rig::with_base();
    rig.write("context/f", "f");
    rig.build("again", "FROM base\nCOPY f /f\nRUN rm /f\nCOPY f /f\nRUN cat /f && rm /f\nCOPY f /f\n");
    assert_eq!(rig.sh("again", "cat /f"), "f");
}

#[test]
fn several_names_and_iidfile() {
    let rig = Rig::with_base();
    rig.write("context/Dockerfile", "FROM base\nRUN echo x >/x\n");
    let iid = rig.path("iid");
    rig.ok(["build", "-t", "one", "-t", "two:v2", "--iidfile", iid.to_str().unwrap(), rig.path("context").to_str().unwrap()]);
    assert!(fs::read_to_string(iid).unwrap().starts_with("sha256:"));
    assert_eq!(rig.sh("one", "cat /x"), rig.sh("two:v2", "cat /x"));
}

#[test]
fn dockerfile_on_stdin() {
    let rig = Rig::with_base();
    rig.write("context/f", "from the context");
    let dockerfile = rig.write("stdin", "FROM base\nCOPY f /f\n");
    let status = rig
        .command(["build", "-t", "stdin", "-f", "-", rig.path("context").to_str().unwrap()])
        .stdin(fs::File::open(dockerfile).unwrap())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(rig.sh("stdin", "cat /f"), "from the context");
}

#[test]
fn a_failing_run_passes_its_status_and_keeps_what_was_done() {
    let rig = Rig::with_base();
    let ran = rig.try_build("failing", "FROM base\nRUN cat /proc/sys/kernel/random/uuid >/mark\nRUN exit 42\n");
    assert_eq!(ran.code, Some(42), "{ran}");
    assert!(ran.stderr.contains("Dockerfile.failing:3"), "the place is missing: {ran}");
    assert!(!rig.ok(["images"]).contains("failing"), "a failed build must not name an image");
}

#[test]
fn errors_name_their_place() {
    let rig = Rig::with_base();
    let check = |dockerfile: &str, wanted: &[&str]| {
        let ran = rig.try_build("wrong", dockerfile);
        assert!(ran.code.is_some_and(|c| c != 0), "{dockerfile:?} should fail: {ran}");
        for word in wanted {
            assert!(ran.stderr.contains(word), "no {word:?} for {dockerfile:?}: {ran}");
        }
    };
    check("FROM base\nRUNN true\n", &["error: ", "Dockerfile.wrong:2:1", "hint: did you mean `RUN`"]);
    check("RUN true\n", &["error: ", "Dockerfile.wrong:1"]);
    check("FROM base\nCOPY no-such-file /\n", &["error: ", "no-such-file", "Dockerfile.wrong:2"]);
    check("FROM base\nCOPY --from=nowhere /a /b\n", &["error: ", "nowhere"]);
    check("FROM base\nRUN <<EOF\nnever ended\n", &["error: ", "EOF", "Dockerfile.wrong:2"]);
    check("FROM base\nENV\n", &["error: ", "ENV", "Dockerfile.wrong:2"]);
    check("", &["error: "]);
}

#[test]
fn network_installs_on_plain_debian() {
    let Some(debian) = fixture("fixtures/debian.tar") else { return };
    let rig = Rig::new();
    rig.ok(["import", debian.to_str().unwrap(), "debian:12"]);
    rig.build(
        "database",
        "FROM debian:12\n\
         RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends postgresql nginx openssh-server\n\
         RUN stat -c %U /var/lib/postgresql/15/main >/owner\n",
    );
    assert_eq!(rig.sh("database", "cat /owner"), "postgres\n");
    let tar = rig.path("database.tar");
    rig.ok(["export", "database", "-o", tar.to_str().unwrap()]);
    let list = listing(&tar);
    assert!(list.lines().any(|l| l.starts_with("-rwsr-xr-x 0/0 ") && l.ends_with("usr/bin/passwd")), "/usr/bin/passwd is not setuid");
    assert!(
        list.lines().any(|l| l.starts_with("drwx------ ") && !l.contains(" 0/0 ") && l.ends_with("postgresql/15/main/")),
        "the cluster is not postgres'"
    );
}

/// What comparisons and strangers found, one Dockerfile and one command's output each.
#[test]
fn found_by_strangers() {
    let rig = Rig::with_base();
    rig.write("context/a.txt", "a\n");
    for (name, dockerfile, command, expected) in [
        ("empty-from", "FROM base\nCOPY --from= a.txt /x\n", "cat /x", "a\n"),
        (
            "trigger-from-stage",
            "FROM base AS src\nRUN echo made >/f\nFROM base AS ob\nONBUILD COPY --from=src /f /got\nFROM ob\n",
            "cat /got",
            "made\n",
        ),
        ("arguments-in-order", "FROM base\nARG A=1 B=$A\nRUN echo $B >/x\n", "cat /x", "1\n"),
        ("same-name-twice", "FROM base AS s\nRUN echo 1 >/x\nFROM base AS s\nRUN echo 2 >/x\nFROM s\n", "cat /x", "2\n"),
        ("number-is-its-group", "FROM base\nUSER 4711\nWORKDIR /w\nUSER 0\nRUN stat -c %u:%g /w >/x\n", "cat /x", "4711:4711\n"),
        ("primary-group-listed", "FROM base\nUSER 12:34\nRUN id -G >/tmp/x\nUSER 0\nRUN cp /tmp/x /x\n", "cat /x", "34\n"),
        ("unset-workdir", "FROM base\nWORKDIR /w\nWORKDIR $UNSET\nRUN pwd >/x\n", "cat /x", "/w\n"),
    ] {
        rig.build(name, dockerfile);
        assert_eq!(rig.sh(name, command), expected, "{name}");
    }
    for (name, dockerfile, message) in [
        ("run-on-scratch", "FROM scratch\nRUN ls /\n", "can't execute `/bin/sh`"),
        ("workdir-on-file", "FROM base\nWORKDIR /etc/passwd\n", "is not a directory"),
        ("several-sources", "FROM base\nRUN true\nCOPY a.txt a.txt /x\n", "several sources need a directory"),
    ] {
        let ran = rig.try_build(name, dockerfile);
        assert!(ran.code != Some(0) && ran.stderr.contains(message) && ran.stderr.contains("--> "), "{name}: {ran}");
    }
}

#[test]
fn a_file_that_changes_while_a_step_reads_it_answers_for_nothing() {
    let rig = Rig::with_base();
    rig.write("context/d/a", "AAAA\n");
    // The step itself waits until the file was changed beside it.
    let dockerfile =
        "FROM base\nRUN --mount=type=bind,source=d,target=/d while ! test -e /meet/changed; do sleep 0.05; done; cat /d/a >/got\n";
    let file = rig.write("Dockerfile.changing", dockerfile);
    let (context, meeting) = (rig.path("context").display().to_string(), rig.path("meeting"));
    fs::create_dir(&meeting).unwrap();
    let bind = format!("{}:/meet", meeting.display());
    let words = ["build", "--bind", &bind, "-t", "changing", "-f", file.to_str().unwrap(), &context];
    let child = rig.start(words);
    std::thread::sleep(std::time::Duration::from_secs(2));
    rig.write("context/d/a", "BBBB\n");
    fs::write(meeting.join("changed"), "").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("changed while a step read them"), "{said}");
    assert_eq!(rig.sh("changing", "cat /got"), "BBBB\n");
    rig.write("context/d/a", "AAAA\n");
    rig.ok(words);
    assert_eq!(rig.sh("changing", "cat /got"), "AAAA\n");
}

#[test]
fn a_step_finds_its_own_host() {
    let rig = Rig::with_base();
    rig.build("host", "FROM base\nRUN cat /etc/hosts >/seen; cat /proc/sys/kernel/hostname >/name\n");
    let name = rig.sh("host", "cat /name");
    assert!(rig.sh("host", "cat /seen").lines().any(|line| line.split_whitespace().nth(1) == Some(name.trim())), "{name}");
}
