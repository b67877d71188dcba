//! The rules of the house that a compiler can't hold: who may import whom, how long a chapter may be, where `unsafe`,
//! printing and the environment belong. CONTRIBUTING.md gives the reasons.
//!
//! Deliberately a scanner of text and not a parser of Rust: comments, strings and test modules are blanked, the rest is
//! searched line by line.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest file, in lines of code (no blank lines, comments or tests).
const FILE_LINES: usize = 400;
/// Longest function, from its `fn` to its closing brace, in lines of code.
const FUNCTION_LINES: usize = 60;

/// The import table: a layer and what it may name besides itself. Widening it is a decision, to be argued in the commit.
const IMPORTS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("event", &[]),
    ("oci", &[]),
    ("dockerfile", &[]),
    ("sys", &[]),
    ("trust", &[]),
    ("rootfs", &["sys"]),
    ("registry", &[]),
    ("sbom", &["rootfs"]),
    ("sandbox", &["sys"]),
    ("store", &["rootfs", "sys"]),
    // The emulation writes the overrides that `rootfs` defines.
    ("rootemu", &["sandbox", "rootfs", "sys"]),
    ("transfer", &["store", "registry", "rootfs", "trust"]),
    ("build", &["transfer", "rootemu", "sandbox", "store", "registry", "dockerfile", "rootfs", "sbom"]),
    ("cli", &["build", "transfer", "rootemu", "sandbox", "store", "registry", "dockerfile", "rootfs", "trust", "sbom"]),
];

/// What every layer may name, as far as it stands above it in the table.
const EVERYWHERE: &[&str] = &["error", "event", "oci"];

/// A source file, as written and with everything blanked that is not code.
struct Source {
    path: String,
    text: String,
    code: String,
}

impl Source {
    /// The first component below `src`: the layer.
    fn layer(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        below.split('/').next().unwrap_or(below).trim_end_matches(".rs")
    }

    /// Lines of code with their one-based numbers.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(i, l)| (i + 1, l)).filter(|(_, l)| !l.trim().is_empty())
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    collect(&root().join("src"), &mut files);
    files.sort();
    assert!(files.len() > 10, "no sources found below {}", root().display());
    files
        .into_iter()
        .map(|file| {
            let text = fs::read_to_string(&file).unwrap();
            let code = without_tests(&blank(&text));
            Source { path: file.strip_prefix(root()).unwrap().display().to_string(), text, code }
        })
        .collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        // Modules of tests alone (`#[cfg(test)] mod …;` at their parent) are no part of the program.
        if path.file_stem().is_some_and(|stem| ["tests", "stress", "testing"].iter().any(|name| stem == *name)) {
            continue;
        }
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// Replaces comments and the contents of string and character literals by spaces; lines keep their numbers.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut i = 0;
    while i < bytes.len() {
        let end = match bytes[i] {
            b'/' if bytes[i..].starts_with(b"//") => until(bytes, i, b"\n"),
            b'/' if bytes[i..].starts_with(b"/*") => block_comment(bytes, i),
            b'r' | b'b' | b'c' if !word_before(bytes, i) => match raw_string(bytes, i) {
                Some(end) => end,
                None => {
                    i += 1;
                    continue;
                }
            },
            b'"' => string(bytes, i),
            b'\'' => character(bytes, i),
            _ => {
                i += 1;
                continue;
            }
        };
        for byte in &mut out[i..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        i = end.max(i + 1);
    }
    String::from_utf8(out).unwrap()
}

fn until(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    bytes[from..].windows(what.len()).position(|w| w == what).map_or(bytes.len(), |n| from + n)
}

fn block_comment(bytes: &[u8], from: usize) -> usize {
    let (mut depth, mut i) = (0, from);
    while i < bytes.len() {
        if bytes[i..].starts_with(b"/*") {
            (depth, i) = (depth + 1, i + 2);
        } else if bytes[i..].starts_with(b"*/") {
            (depth, i) = (depth - 1, i + 2);
            if depth == 0 {
                return i;
            }
        } else {
            i += 1;
        }
    }
    i
}

fn word_before(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

/// The end of a raw string such as `r#"…"#` or `br"…"` that starts here, if one does.
fn raw_string(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = &bytes[from..];
    let prefix = rest.iter().take_while(|b| b.is_ascii_lowercase()).count();
    if prefix > 2 || !rest[..prefix].contains(&b'r') {
        return None;
    }
    let hashes = rest[prefix..].iter().take_while(|b| **b == b'#').count();
    if rest.get(prefix + hashes) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    Some((until(bytes, from + prefix + hashes + 1, &close) + close.len()).min(bytes.len()))
}

fn string(bytes: &[u8], from: usize) -> usize {
    let mut i = from + 1;
    while i < bytes.len() && bytes[i] != b'"' {
        i += if bytes[i] == b'\\' { 2 } else { 1 };
    }
    (i + 1).min(bytes.len())
}

/// The end of a character literal, or just past the quote of a lifetime.
fn character(bytes: &[u8], from: usize) -> usize {
    if bytes.get(from + 1) == Some(&b'\\') {
        return (until(bytes, from + 3, b"'") + 1).min(bytes.len());
    }
    let limit = bytes.len().min(from + 6);
    match bytes[from + 1..limit].iter().position(|b| *b == b'\'') {
        Some(n) if std::str::from_utf8(&bytes[from + 1..from + 1 + n]).is_ok_and(|s| s.chars().count() == 1) => from + n + 2,
        _ => from + 1,
    }
}

/// Blanks what follows `#[cfg(test)]`: one item, up to the end of its braces or its semicolon.
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some(start) = out.find("#[cfg(test)]") {
        let end = item_end(out.as_bytes(), start);
        let spaces: String = out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &spaces);
    }
    out
}

fn item_end(bytes: &[u8], from: usize) -> usize {
    // The attribute's own brackets and those of `[u8; 4]` in a signature must not end the item.
    let (mut depth, mut brackets) = (0usize, 0usize);
    for (i, byte) in bytes.iter().enumerate().skip(from) {
        match byte {
            b'[' | b'(' => brackets += 1,
            b']' | b')' => brackets = brackets.saturating_sub(1),
            b'{' => depth += 1,
            b'}' if depth <= 1 => return i + 1,
            b'}' => depth -= 1,
            b';' if depth == 0 && brackets == 0 => return i + 1,
            _ => {}
        }
    }
    bytes.len()
}

/// The modules of this crate that a piece of code names, with the line: `crate::x`, `use crate::{x, y}`.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut offset = 0;
    while let Some(at) = source.code[offset..].find("crate::") {
        let start = offset + at;
        offset = start + "crate::".len();
        if word_before(source.code.as_bytes(), start) || source.code[..start].ends_with('$') {
            continue;
        }
        let line = source.code[..start].matches('\n').count() + 1;
        found.extend(heads(&source.code[offset..]).into_iter().map(|name| (line, name)));
    }
    found
}

/// The first path component of each path in a use tree.
fn heads(tree: &str) -> Vec<String> {
    let word = |s: &str| s.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    if !tree.starts_with('{') {
        return vec![word(tree)];
    }
    let (mut depth, mut names, mut start) = (0, Vec::new(), 1);
    for (i, c) in tree.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => {
                names.push(word(&tree[start..]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 1 => {
                names.push(word(&tree[start..]));
                start = i + 1;
            }
            _ => {}
        }
    }
    names.retain(|n| !n.is_empty());
    names
}

/// Panics with all complaints at once, so that one run shows the whole work.
fn report(rule: &str, complaints: Vec<String>) {
    assert!(complaints.is_empty(), "{rule}:\n  {}\n", complaints.join("\n  "));
}

/// Complains about every line of code that contains one of the words, except in layers that may.
fn forbid(rule: &str, words: &[&str], allowed: &[&str]) {
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|s| !allowed.contains(&s.layer())) {
        for (number, line) in source.lines() {
            for word in words {
                let whole = line.match_indices(word).any(|(at, _)| !word_before(line.as_bytes(), at));
                if whole {
                    complaints.push(format!("{}:{number}: {}", source.path, line.trim()));
                }
            }
        }
    }
    report(rule, complaints);
}

#[test]
fn layers_look_down_only() {
    let table: BTreeMap<_, _> = IMPORTS.iter().copied().collect();
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|s| !["lib", "main"].contains(&s.layer())) {
        let Some(allowed) = table.get(source.layer()) else {
            complaints.push(format!("{}: `{}` is not in the import table", source.path, source.layer()));
            continue;
        };
        for (line, name) in imports(source) {
            if name != source.layer() && !EVERYWHERE.contains(&name.as_str()) && !allowed.contains(&name.as_str()) {
                complaints.push(format!("{}:{line}: `{}` must not name `{name}`", source.path, source.layer()));
            }
        }
    }
    report("imports against the table", complaints);
}

#[test]
fn the_import_table_has_no_cycle() {
    for (i, (layer, allowed)) in IMPORTS.iter().enumerate() {
        for name in *allowed {
            let at =
                IMPORTS.iter().position(|(l, _)| l == name).unwrap_or_else(|| panic!("`{layer}` may name `{name}`, which is no layer"));
            assert!(at < i, "`{name}` must stand above `{layer}` in the table");
        }
    }
}

#[test]
fn files_are_chapters() {
    let long = sources()
        .iter()
        .map(|s| (s.lines().count(), s.path.clone()))
        .filter(|(n, _)| *n > FILE_LINES)
        .map(|(n, p)| format!("{p}: {n} lines of code"))
        .collect();
    report(&format!("files of more than {FILE_LINES} lines of code"), long);
}

#[test]
fn functions_fit_a_page() {
    let mut complaints = Vec::new();
    for source in sources() {
        let mut offset = 0;
        while let Some(at) = source.code[offset..].find("fn ") {
            let start = offset + at;
            offset = start + 3;
            if word_before(source.code.as_bytes(), start) {
                continue;
            }
            let body = &source.code[start..item_end(source.code.as_bytes(), start)];
            let lines = body.lines().filter(|l| !l.trim().is_empty()).count();
            if lines >= FUNCTION_LINES {
                let name: String = body[3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                complaints.push(format!("{}:{}: `{name}`: {lines} lines", source.path, source.code[..start].matches('\n').count() + 1));
            }
        }
    }
    report(&format!("functions of {FUNCTION_LINES} lines of code or more"), complaints);
}

#[test]
fn unsafe_lives_in_sys_and_gives_reasons() {
    let mut complaints = Vec::new();
    for source in sources() {
        let written: Vec<&str> = source.text.lines().collect();
        for (number, line) in source.lines() {
            let Some(at) = line.find("unsafe") else { continue };
            if word_before(line.as_bytes(), at) || line[at + 6..].starts_with('_') {
                continue;
            }
            if source.layer() != "sys" {
                complaints.push(format!("{}:{number}: `unsafe` outside src/sys", source.path));
            } else if !reasoned(&written, number) {
                complaints.push(format!("{}:{number}: `unsafe` without a SAFETY comment", source.path));
            }
        }
    }
    report("unsafe code", complaints);
}

/// Whether a SAFETY comment stands on the line or right above it (attributes and the start of the statement between).
fn reasoned(lines: &[&str], number: usize) -> bool {
    let from = number.saturating_sub(6);
    lines[from..number].iter().any(|l| l.contains("SAFETY:") || l.contains("# Safety"))
}

#[test]
fn only_cli_prints() {
    forbid("printing outside src/cli", &["println!", "print!", "eprintln!", "eprint!", "io::stdout(", "io::stderr("], &["cli", "main"]);
}

#[test]
fn only_cli_reads_the_environment() {
    forbid(
        "the environment, read outside src/cli",
        &["env::var", "env::vars", "env::home_dir", "env::current_dir", "std::env::args"],
        // The sandbox asks for argument zero alone: whether it is the sandbox.
        &["cli", "main", "sandbox"],
    );
}

#[test]
fn only_main_exits() {
    forbid("leaving the process from below", &["process::exit"], &["cli", "main", "sandbox"]);
}

#[test]
fn nothing_is_left_to_do() {
    forbid("unfinished code", &["todo!", "unimplemented!", "dbg!", "FIXME", "XXX"], &[]);
}

#[test]
fn one_module_names_each_big_library() {
    let owners = [("pest", "src/dockerfile/parse.rs"), ("reqwest", "src/registry/"), ("tokio", "src/registry/"), ("clap", "src/cli/")];
    let mut complaints = Vec::new();
    for source in sources() {
        for (number, line) in source.lines() {
            for (library, owner) in owners {
                let named = line.match_indices(library).any(|(at, _)| {
                    let rest = &line[at + library.len()..];
                    !word_before(line.as_bytes(), at) && (rest.starts_with("::") || rest.starts_with("_derive::"))
                });
                if named && !source.path.starts_with(owner) && source.layer() != "main" {
                    complaints.push(format!("{}:{number}: `{library}` belongs to {owner}", source.path));
                }
            }
        }
    }
    report("libraries named outside their module", complaints);
}

#[test]
fn modules_say_their_job() {
    let silent = sources().iter().filter(|s| s.layer() != "main" && !s.text.starts_with("//! ")).map(|s| s.path.clone()).collect();
    report("files that do not start with `//! `", silent);
}

#[test]
fn no_machine_paths() {
    let mut complaints = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            for path in ["/root/", "/home/user", ".cargo/bin"] {
                if line.contains(path) && !source.path.ends_with("tests.rs") && !line.contains("test") {
                    complaints.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
                }
            }
        }
    }
    report("paths of one machine", complaints);
}

/// The scanner itself.
#[test]
fn blanking() {
    let check = |input: &str, expected: &str| assert_eq!(blank(input), expected, "{input}");
    check("a // b\nc", "a     \nc");
    check("a /* { /* x */ */ b", &format!("a {} b", " ".repeat(15)));
    check("f(\"}\\\"\") + 1", "f(     ) + 1");
    check("r#\"a\"b\"# x", &format!("{} x", " ".repeat(8)));
    check("('{', '\\'', 'a)", "(   ,     ,  a)");
    check("fn f<'a>(x: &'a str) {}", "fn f< a>(x: & a str) {}");
    check("for_r\"x\"", "for_r   ");
    assert_eq!(heads("{error::{Error, Result}, oci, store::layout};"), ["error", "oci", "store"]);
    assert_eq!(heads("sys::fs::open"), ["sys"]);
    assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests { fn x() {} }\nb").split_whitespace().collect::<String>(), "ab");
}
