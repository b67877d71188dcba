//! The parse tree as programs and people read it: every instruction in the terms of BuildKit's parser, nothing expanded.
//!
//! What an instruction means is not here; that is `ast`'s [`Kind`].

use std::fmt::Write as _;

use serde::Serialize;

use super::ast::{Dockerfile, Heredoc, Instruction, Kind};

/// One instruction as BuildKit's parser leaves it.
#[derive(Serialize)]
struct Node<'a> {
    cmd: String,
    flags: &'a [String],
    json: bool,
    args: &'a [String],
    sub: Option<Box<Node<'a>>>,
    heredocs: Vec<Inline<'a>>,
    start_line: usize,
    end_line: usize,
}

#[derive(Serialize)]
struct Inline<'a> {
    name: &'a str,
    content: &'a str,
    expand: bool,
    chomp: bool,
    fd: u32,
}

/// The tree as a JSON list in file order. Every field is always there: `cmd` (in lower case), `flags`, `json` (the list form), `args`,
/// `sub` (the instruction of an `ONBUILD`, else null), `heredocs` (`name`, `content`, `expand`, `chomp`, `fd`), `start_line` and
/// `end_line`, counted from one. The here-documents of an `ONBUILD` are its own, as in BuildKit, and not its instruction's.
pub fn json(file: &Dockerfile) -> serde_json::Result<String> {
    let nodes: Vec<Node<'_>> = file.instructions.iter().map(|instruction| node(instruction, &instruction.heredocs)).collect();
    serde_json::to_string_pretty(&nodes)
}

/// The tree for people: a line for each instruction with its line numbers, its here-documents below.
pub fn text(file: &Dockerfile) -> String {
    let mut text = String::new();
    for instruction in &file.instructions {
        let lines = match (instruction.span.first_line, instruction.span.last_line) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let _ = writeln!(text, "{lines:>9}  {}", line(instruction));
        for heredoc in &instruction.heredocs {
            let dash = if heredoc.chomp { "-" } else { "" };
            let quote = if heredoc.expand { "" } else { "'" };
            let _ = writeln!(text, "{:>9}  <<{dash}{quote}{}{quote}", "", heredoc.name);
            for line in heredoc.content.lines() {
                let _ = writeln!(text, "{:>9}  | {}", "", line.escape_debug());
            }
        }
    }
    text
}

fn node<'a>(instruction: &'a Instruction, heredocs: &'a [Heredoc]) -> Node<'a> {
    let inline = |heredoc: &'a Heredoc| Inline {
        name: &heredoc.name,
        content: &heredoc.content,
        expand: heredoc.expand,
        chomp: heredoc.chomp,
        fd: heredoc.fd,
    };
    Node {
        cmd: instruction.keyword.to_lowercase(),
        flags: &instruction.flags,
        json: instruction.json,
        args: &instruction.args,
        sub: sub(instruction).map(|sub| Box::new(node(sub, &[]))),
        heredocs: heredocs.iter().map(inline).collect(),
        start_line: instruction.span.first_line,
        end_line: instruction.span.last_line,
    }
}

fn sub(instruction: &Instruction) -> Option<&Instruction> {
    match &instruction.kind {
        Kind::Onbuild(onbuild) => Some(&onbuild.instruction),
        _ => None,
    }
}

fn line(instruction: &Instruction) -> String {
    let mut text = instruction.keyword.to_lowercase();
    for flag in &instruction.flags {
        let _ = write!(text, " {}", flag.escape_debug());
    }
    if let Some(sub) = sub(instruction) {
        let _ = write!(text, " ({})", line(sub));
    }
    let words: Vec<String> = instruction.args.iter().map(|word| format!("{word:?}")).collect();
    match instruction.json {
        true => text + " [" + &words.join(", ") + "]",
        false if words.is_empty() => text,
        false => text + " " + &words.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::parsed;
    use super::*;

    const FILE: &str = "From a AS b\nRUN --network=none cat <<-'X' \\\n  && true\n\tc\n\tX\nCMD [\"a\", \"b c\"]\nONBUILD add --link x y\nENV a=$b c=\"d\"\n";

    #[test]
    fn programs_get_every_field() {
        let list: serde_json::Value = serde_json::from_str(&json(&parsed(FILE)).expect("JSON")).expect("JSON");
        let node = |cmd: &str, flags: &[&str], json: bool, args: &[&str], start_line: usize, end_line: usize| {
            serde_json::json!({
                "cmd": cmd, "flags": flags, "json": json, "args": args, "sub": null, "heredocs": [],
                "start_line": start_line, "end_line": end_line,
            })
        };
        let mut expected = vec![
            node("from", &[], false, &["a", "AS", "b"], 1, 1),
            node("run", &["--network=none"], false, &["cat <<-'X'   && true"], 2, 5),
            node("cmd", &[], true, &["a", "b c"], 6, 6),
            node("onbuild", &[], false, &[], 7, 7),
            node("env", &[], false, &["a", "$b", "=", "c", "\"d\"", "="], 8, 8),
        ];
        expected[1]["heredocs"] = serde_json::json!([{"name": "X", "content": "\tc\n", "expand": false, "chomp": true, "fd": 0}]);
        expected[3]["sub"] = node("add", &["--link"], false, &["x", "y"], 7, 7);
        assert_eq!(list, serde_json::Value::Array(expected));
    }

    #[test]
    fn people_get_lines() {
        let expected = [
            "        1  from \"a\" \"AS\" \"b\"",
            "      2-5  run --network=none \"cat <<-'X'   && true\"",
            "           <<-'X'",
            "           | \\tc",
            "        6  cmd [\"a\", \"b c\"]",
            "        7  onbuild (add --link \"x\" \"y\")",
            "        8  env \"a\" \"$b\" \"=\" \"c\" \"\\\"d\\\"\" \"=\"",
        ];
        assert_eq!(text(&parsed(FILE)), expected.join("\n") + "\n");
    }
}
