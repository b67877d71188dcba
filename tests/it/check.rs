//! A Dockerfile looked at without a build: its parse tree and what the build checks find.

use std::fs;

use serde_json::{Value, json};

use crate::rig::{Ran, Rig};

#[test]
fn the_parse_tree_needs_no_storage() {
    let rig = Rig::new();
    rig.write("context/Dockerfile", "FROM a\nONBUILD RUN --network=none <<EOF\nx\nEOF\n");
    let text = rig.ok(["build", "--parse-only", "context"]);
    assert_eq!(text, "        1  from \"a\"\n      2-4  onbuild (run --network=none \"<<EOF\")\n           <<EOF\n           | x\n");
    let tree: Value = serde_json::from_str(&rig.ok(["build", "--parse-only", "--format", "json", "context"])).unwrap();
    let node = |cmd: &str, args: &[&str], start_line: usize, end_line: usize| {
        json!({
            "cmd": cmd, "flags": [], "json": false, "args": args, "sub": null, "heredocs": [],
            "start_line": start_line, "end_line": end_line,
        })
    };
    let mut onbuild = node("onbuild", &[], 2, 4);
    onbuild["heredocs"] = json!([{"name": "EOF", "content": "x\n", "expand": true, "chomp": false, "fd": 0}]);
    onbuild["sub"] = node("run", &["<<EOF"], 2, 4);
    onbuild["sub"]["flags"] = json!(["--network=none"]);
    assert_eq!(tree, json!([node("from", &["a"], 1, 1), onbuild]));
    assert!(!fs::exists(rig.storage()).unwrap(), "nothing is stored");
    let error = rig.fails(["build", "--parse-only", "nowhere"]);
    assert!(error.contains("is not a directory"), "{error}");
}

/// The program on a Dockerfile in a context of its own.
fn check(rig: &Rig, dockerfile: &str, options: &[&str]) -> Ran {
    rig.write("context/Dockerfile", dockerfile);
    rig.run(["build", "context"].iter().chain(options))
}

#[test]
fn findings_are_shown_with_line_and_caret() {
    let rig = Rig::new();
    let ran = check(&rig, "FROM scratch AS Base\nCOPY a \\\n  /$b\n", &["--check"]);
    let expected = "warning: StageNameCasing: Stage name 'Base' should be lowercase\n  --> context/Dockerfile:1:17\n   |\n\
                    1  | FROM scratch AS Base\n   |                 ^^^^ Stage names should be lowercase\n\
                    warning: UndefinedVar: Usage of undefined variable '$b'\n  --> context/Dockerfile:3:4\n   |\n\
                    3  |   /$b\n   |    ^^ Variables should be defined before their use\n2 findings\n";
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(1), expected, ""));
    let ran = check(&rig, "FROM scratch AS base\n", &["--call=check"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "no findings\n"));
    assert!(!fs::exists(rig.storage()).unwrap(), "nothing is stored");
}

#[test]
fn findings_are_given_to_programs_as_docker_gives_them() {
    let rig = Rig::new();
    let ran = check(&rig, "FROM scratch\nENV \\\n  a b\n", &["--check", "--format", "json"]);
    assert_eq!(ran.code, Some(1), "{ran}");
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    let expected = json!({
        "warnings": [{
            "ruleName": "LegacyKeyValueFormat",
            "description": "Legacy key/value format with whitespace separator should not be used",
            "detail": "\"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
            "location": {"ranges": [{"start": {"line": 2}, "end": {"line": 3}}]},
            "line": 2, "column": 1,
        }],
        "sources": [{"filename": "context/Dockerfile"}],
    });
    assert_eq!(document, expected);
}

#[test]
fn findings_can_be_errors() {
    let rig = Rig::with_base();
    let text = "# check=error=true\nFROM base\nRUN touch /ran\nCMD x\n";
    let error = rig.fails(["build", "--check=error", "-f", rig.write("Plain", "FROM base\nCMD x\n").to_str().unwrap(), "."]);
    assert!(error.contains("error: the Dockerfile fails build check `JSONArgsRecommended`"), "{error}");
    for options in [&["--check"][..], &["-t", "never"]] {
        let ran = check(&rig, text, options);
        assert_eq!(ran.code, Some(1), "{ran}");
        assert!(
            ran.stderr.contains("error: the Dockerfile fails build check `JSONArgsRecommended`\n  --> context/Dockerfile:4:1"),
            "{ran}"
        );
        assert!(!ran.stderr.contains("RUN touch"), "no step may begin: {ran}");
    }
    let ran = check(&rig, text, &["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=JSONArgsRecommended", "-t", "made"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(!ran.stderr.contains("JSONArgs"), "{ran}");
}

#[test]
fn a_build_says_what_it_finds() {
    let rig = Rig::with_base();
    let ran = check(&rig, "# check=skip=CmdCasing\nFROM base AS Unused\nFROM base\nENV p=$PATH q=$nope\n", &["-t", "made"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let warnings: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
    let expected = [
        "warning: no build check is called `CmdCasing`",
        "warning: context/Dockerfile:2: Stage name 'Unused' should be lowercase (StageNameCasing)",
        "warning: context/Dockerfile:4: Usage of undefined variable '$nope' (UndefinedVar)",
    ];
    assert_eq!(warnings, expected);
}

#[test]
fn what_a_base_sets_is_known() {
    let rig = Rig::with_base();
    rig.build("java", "FROM base\nENV JAVA_HOME=/java\nSHELL [\"/bin/sh\", \"-c\"]\n");
    let ran = check(&rig, "FROM java\nWORKDIR $JAVA_HOME\nCMD x\n", &["--check"]);
    assert_eq!(ran.stdout, "no findings\n", "{ran}");
    let ran = check(&rig, "FROM java\nWORKDIR /$JAVAHOME\n", &["--check"]);
    assert!(ran.stdout.contains("Usage of undefined variable '$JAVAHOME' (did you mean $JAVA_HOME?)"), "{ran}");
}
