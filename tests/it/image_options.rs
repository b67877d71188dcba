//! Options on the image: labels, annotations, squashing, dry runs, failed stages kept.

use serde_json::Value;

use crate::rig::{Rig, assert_ordinary_user};

fn inspect(rig: &Rig, name: &str) -> Value {
    let list: Value = serde_json::from_str(&rig.ok(["inspect", name])).unwrap();
    list[0].clone()
}

fn build(rig: &Rig, name: &str, dockerfile: &str, options: &[&str]) -> crate::rig::Ran {
    let file = rig.write(&format!("Dockerfile.{name}"), dockerfile);
    rig.write("context/x", "x");
    let context = rig.path("context").display().to_string();
    let mut words = vec!["build", "--progress", "plain", "-t", name, "-f", file.to_str().unwrap()];
    words.extend(options);
    words.push(&context);
    rig.run(words)
}

#[test]
fn labels_and_annotations() {
    let rig = Rig::with_base();
    let options = ["--label", "a=cli", "--label", "empty", "--annotation", "org.note=n", "--annotation", "manifest:two=2"];
    let ran = build(&rig, "notes", "FROM base\nLABEL a=file b=file\n", &options);
    assert_eq!(ran.code, Some(0), "{ran}");
    let image = inspect(&rig, "notes");
    assert_eq!(image["config"]["Labels"], serde_json::json!({"a": "cli", "b": "file", "empty": ""}));
    assert_eq!(image["manifest"]["annotations"], serde_json::json!({"org.note": "n", "two": "2"}));
    let ran = build(&rig, "notes", "FROM base\n", &["--annotation", "nothing"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("it has no `=`") || ran.stderr.contains("invalid annotation"), "{ran}");
}

/// Owners, modes, links, types, deletions and replacements, over several layers.
const BUSY: &str = "FROM base\n\
    RUN mkdir -p /d/e /gone && echo a >/d/a && echo b >/d/e/b && ln /d/a /d/hard && chown 33:33 /d/a && echo old >/file && ln -s x /link\n\
    RUN rm -rf /d/e /gone && mkdir /d/e && echo c >/d/e/c && chmod 700 /d\n\
    RUN rm /d/hard /link && mkdir /link && chmod 4755 /d/a && rm /file && mkdir /file && echo new >/file/new && rm /bin/seq\n";

#[test]
fn squashing_changes_the_number_of_layers_and_nothing_else() {
    assert_ordinary_user();
    let rig = Rig::with_base();
    let layers = |name: &str| inspect(&rig, name)["rootfs"]["diff_ids"].as_array().unwrap().len();
    let mut trees = Vec::new();
    for (name, options, expected) in
        [("kept", &[][..], 4), ("squashed", &["--squash"], 2), ("no-layers", &["--layers=false"], 2), ("all", &["--squash-all"], 1)]
    {
        let ran = build(&rig, name, BUSY, options);
        assert_eq!(ran.code, Some(0), "{ran}");
        assert_eq!(layers(name), expected, "{name}");
        let tar = rig.path("tree.tar");
        rig.ok(["export", name, "-o", tar.to_str().unwrap()]);
        trees.push((name, std::fs::read(&tar).unwrap()));
        let history = inspect(&rig, name)["history"].as_array().unwrap().iter().filter(|h| h["empty_layer"] != true).count();
        assert_eq!(history, expected, "{name}: one entry of the history a layer");
    }
    for (name, tree) in &trees[1..] {
        assert!(*tree == trees[0].1, "{name} has another tree");
    }
}

#[test]
fn a_dry_run_does_nothing_and_tells_what_would_be_done() {
    let rig = Rig::with_base();
    let dockerfile = "FROM base AS a\nRUN touch /a\nFROM base\nCOPY x /x\nCOPY --from=a /a /\nRUN touch /z\n";
    let before = rig.ok(["images"]);
    let ran = build(&rig, "dry", dockerfile, &["--dry-run"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_eq!(ran.stderr.matches("would be executed").count(), 4, "{ran}");
    assert_eq!(rig.ok(["images"]), before);
    assert_eq!(build(&rig, "dry", dockerfile, &[]).code, Some(0));
    rig.write("context/x", "y");
    let file = rig.path("Dockerfile.dry");
    let ran = rig.run(["build", "--progress", "plain", "--dry-run", "-f", file.to_str().unwrap(), rig.path("context").to_str().unwrap()]);
    assert_eq!(ran.stderr.matches("would be executed").count(), 3, "{ran}");
    let ran = build(&rig, "dry", "FROM not.here.invalid/image\nRUN true\n", &["--dry-run"]);
    assert!(ran.code == Some(0) && ran.stderr.contains("is not in storage"), "{ran}");
}

#[test]
fn a_failed_stage_is_kept_for_its_user() {
    let rig = Rig::with_base();
    let dockerfile = "FROM base\nARG NAME=arg\nWORKDIR /work\nRUN echo before >/work/f && echo half >half && exit 9\n";
    let ran = build(&rig, "broken", dockerfile, &["--keep-failed"]);
    assert_eq!(ran.code, Some(9), "{ran}");
    let hint = ran.stderr.lines().find(|line| line.starts_with("hint: look around: `rootling ")).unwrap_or_else(|| panic!("{ran}"));
    let command = hint.trim_start_matches("hint: look around: `rootling ").trim_end_matches('`');
    let words: Vec<&str> = command.split_whitespace().chain(["--", "sh", "-c", "cat half && echo $NAME && pwd"]).collect();
    assert_eq!(rig.ok(words), "half\narg\n/work\n");
    let ran = build(&rig, "broken", dockerfile, &[]);
    assert!(ran.code == Some(9) && !ran.stderr.contains("look around"), "{ran}");
}
