//! A Dockerfile looked at without a build: its parse tree.

use std::fs;

use serde_json::{Value, json};

use crate::rig::Rig;

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
