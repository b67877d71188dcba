//! Same input, same digest: two storage directories, at two times, give one manifest.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::rig::{Ran, Rig, assert_ordinary_user};

/// Dockerfiles with RUN steps whose output does not depend on the time but for what the build can put right.
const DOCKERFILES: [&str; 10] = [
    "FROM base\nRUN touch /now && mkdir -p /a/b/c\n",
    "FROM base\nRUN echo x >/f && chown 33:33 /f && chmod 4755 /f\nRUN mv /f /g\n",
    "FROM base\nWORKDIR /made/here\nRUN echo y >y\nWORKDIR deeper\n",
    "FROM base\nCOPY . /context/\nRUN cp -r /context /copy\n",
    "FROM base\nRUN <<EOF\nmkdir /many\nfor i in $(seq 1 50); do echo $i >/many/$i; done\nEOF\n",
    "FROM base AS one\nRUN echo 1 >/one\nFROM base AS two\nRUN echo 2 >/two\nFROM base\nCOPY --from=two /two /\nCOPY --from=one /one /\nRUN ls /one /two >/both\n",
    "FROM base\nRUN rm /bin/seq && ln -s nowhere /link && chown -h 7:7 /link && mkfifo /pipe\n",
    "FROM base\nCOPY <<one <<two /files/\na\none\nb\ntwo\nRUN cat /files/one /files/two >/files/three\n",
    "FROM base\nARG SOURCE_DATE_EPOCH\nRUN echo $SOURCE_DATE_EPOCH >/epoch && env >/environment\n",
    "FROM base\nENV A=1\nLABEL l=1\nRUN mkdir -m 1777 /sticky && touch /sticky/f && ln /sticky/f /sticky/g\nUSER 5:6\nRUN id -u >/tmp/id 2>/dev/null || true\n",
];

const EPOCH: &str = "1700000000";

fn build(rig: &Rig, number: usize, options: &[&str]) -> Ran {
    let file = rig.write(&format!("Dockerfile.{number}"), DOCKERFILES[number]);
    let context = rig.path("context").display().to_string();
    let name = format!("image{number}");
    let mut words = vec!["build", "-t", &name, "-f", file.to_str().unwrap()];
    words.extend(options);
    words.push(&context);
    let mut command = rig.command(words);
    command.env("SOURCE_DATE_EPOCH", EPOCH);
    Ran::of(command.output().unwrap(), format!("{command:?}"))
}

fn digest(rig: &Rig, number: usize) -> String {
    let list: Value = serde_json::from_str(&rig.ok(["inspect", &format!("image{number}")])).unwrap();
    list[0]["digest"].as_str().unwrap().to_owned()
}

/// A base whose own times are the same everywhere, and a context whose times are not.
fn rig(base: &std::path::Path) -> Rig {
    let rig = Rig::new();
    rig.ok(["import", base.to_str().unwrap(), "base"]);
    rig.write("context/a/file", "a");
    rig.write("context/b", "b");
    rig
}

#[test]
fn two_storage_directories_agree() {
    assert_ordinary_user();
    let first = Rig::with_base();
    let tar = first.path("base.tar");
    first.ok(["export", "base", "-o", tar.to_str().unwrap()]);
    let one = rig(&tar);
    for (number, _) in DOCKERFILES.iter().enumerate() {
        let ran = build(&one, number, &[]);
        assert_eq!(ran.code, Some(0), "{ran}");
    }
    // Long enough for every time stamp of a file to differ by seconds.
    std::thread::sleep(Duration::from_secs(2));
    let two = rig(&tar);
    for (number, dockerfile) in DOCKERFILES.iter().enumerate() {
        let ran = build(&two, number, &["--jobs", "1"]);
        assert_eq!(ran.code, Some(0), "{ran}");
        assert_eq!(digest(&one, number), digest(&two, number), "{dockerfile}");
    }
    // And once more without the cache.
    for (number, dockerfile) in DOCKERFILES.iter().enumerate() {
        let before = digest(&two, number);
        assert_eq!(build(&two, number, &["--no-cache"]).code, Some(0));
        assert_eq!(before, digest(&two, number), "{dockerfile}");
    }
}

#[test]
fn times_are_what_was_asked_for() {
    let rig = Rig::with_base();
    let dockerfile = "FROM base\nRUN touch -d '2001-01-01 00:00:00Z' /old && touch /new\nWORKDIR /w\nCOPY x /x\n";
    rig.write("context/x", "x");
    Command::new("touch").args(["-d", "2002-02-02 00:00:00Z"]).arg(rig.path("context/x")).status().unwrap();
    let file = rig.write("Dockerfile.times", dockerfile);
    let context = rig.path("context").display().to_string();
    let times = |options: &[&str], epoch: Option<&str>| {
        let mut words = vec!["build", "-t", "times", "-f", file.to_str().unwrap()];
        words.extend(options);
        words.push(&context);
        let mut command = rig.command(words);
        if let Some(epoch) = epoch {
            command.env("SOURCE_DATE_EPOCH", epoch);
        }
        let ran = Ran::of(command.output().unwrap(), format!("{command:?}"));
        assert_eq!(ran.code, Some(0), "{ran}");
        let list: Value = serde_json::from_str(&rig.ok(["inspect", "times"])).unwrap();
        (list[0]["created"].as_str().unwrap().to_owned(), rig.sh("times", "stat -c %Y /old /new /w /x"))
    };
    let (created, seen) = times(&[], Some(EPOCH));
    assert_eq!((created.as_str(), seen.as_str()), ("2023-11-14T22:13:20Z", "978307200\n1700000000\n1700000000\n1012608000\n"));
    let (created, seen) = times(&["--timestamp", "1000"], Some(EPOCH));
    assert_eq!((created.as_str(), seen.as_str()), ("1970-01-01T00:16:40Z", "1000\n1000\n1000\n1000\n"));
    let (created, seen) = times(&["--build-static", "build-time=2020-05-23 10:55:33"], None);
    assert_eq!((created.as_str(), seen.as_str()), ("2020-05-23T10:55:33Z", "1590231333\n1590231333\n1590231333\n1590231333\n"));
    for bad in [["--build-static", "build-time=yesterday"], ["--build-static", "when=1"]] {
        let error = rig.fails(["build", bad[0], bad[1], "-f", file.to_str().unwrap(), &context]);
        assert!(error.contains("build-time"), "{error}");
    }
}
