//! Large and hostile files. None may take more than linear time or stack; the test run would not end.

use super::super::{parse, parse_fragment};
use super::parsed;

const MEGABYTE: usize = 1 << 20;

#[test]
fn a_megabyte_of_ordinary_instructions() {
    let block = "# a comment\nRUN --mount=type=cache,target=/c apt-get update && \\\n    # another\n    apt-get install -y \"a b\" 'c d' \\\n\n    e\n\
                 ENV A=\"x y\" B=$A\nCOPY --from=base --chown=1:2 a b /c/\nCMD [\"a\", \"b\"]\n";
    let text = "FROM a AS base\n".to_string() + &block.repeat(MEGABYTE / block.len());
    assert_eq!(parsed(&text).instructions.len(), 1 + 4 * (MEGABYTE / block.len()));
}

#[test]
fn a_hundred_thousand_instructions() {
    let text = "FROM a\n".to_string() + &"RUN x\n".repeat(100_000);
    assert_eq!(parsed(&text).instructions.len(), 100_001);
    let text = "FROM a\n".to_string() + &"RUN cat <<A <<B\na\nA\nb\nB\n".repeat(50_000);
    assert_eq!(parsed(&text).instructions.len(), 50_001);
}

#[test]
fn long_lines() {
    const LONG: usize = 100_000;
    for unit in [
        "x",
        " ",
        "a ",
        "\\",
        "\\ ",
        "`",
        "'",
        "\"",
        "\"\\",
        "'\\",
        "$",
        "${",
        "<",
        "<<",
        "<<E",
        "<<E ",
        "<<'",
        "<<''",
        "<<\"E\"F ",
        "1<<",
        "[",
        "[\"\",",
        "\\\\ ",
        "\\\n",
        "\\\n#\n",
        "\\ \n\n",
        "--a ",
        "--a='",
        "=",
        "a= ",
        "\r",
        "\u{a0}",
        "\t\\\n",
        "é",
        "\\\r\n",
    ] {
        let long = unit.repeat(LONG / unit.len());
        for start in ["", "RUN ", "RUN --mount=", "ENV a="] {
            // Right or wrong: it must come to an end.
            let _ = parse_fragment("Dockerfile", format!("{start}{long}").as_bytes());
        }
    }
}

#[test]
fn many_bad_heredocs() {
    for unit in ["RUN <<\n", "RUN <<<E\n", "RUN '<<E'\n", "RUN <<''\n", "RUN a<<E\n", "RUN << 1\n", "COPY x<<E y\n"] {
        let text = "FROM a\n".to_string() + &unit.repeat(100_000);
        assert_eq!(parsed(&text).instructions.len(), 100_001, "{unit:?}");
    }
    // The first that does not end takes the rest of the file.
    assert!(parse("Dockerfile", ("FROM a\n".to_string() + &"RUN <<E\n".repeat(100_000)).as_bytes()).is_err());
}

#[test]
fn a_megabyte_of_heredoc() {
    let body = "echo line of a script \\\n# no comment\n".repeat(MEGABYTE / 38);
    let file = parsed(&format!("FROM a\nRUN <<EOF\n{body}EOF\nRUN <<-EOF\n\t{body}\t\tEOF\n"));
    assert_eq!(file.instructions[1].heredocs[0].content.as_ref(), body);
}
