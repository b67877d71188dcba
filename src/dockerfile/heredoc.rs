//! Here-documents: which words of a RUN, COPY or ADD begin one, and where its text ends.
//!
//! `<<NAME`, `<<-NAME` (tabs before the terminator), `3<<NAME` (a file descriptor). A name with a quote in it (`<<'NAME'`, `<<N"AM"E`) keeps
//! the text from being expanded. Everything is read from the joined line, as BuildKit does, so that a continuation may cut any of it.
//! A blank may stand before the name, as for a shell, if a line that ends the text follows; BuildKit has no such here-document.

use std::ops::Range;
use std::sync::Arc;

use super::ast::Heredoc;
use super::flags::Problem;
use super::spelling::{nearest, quote};
use super::words::{self, Json};

/// The words of a joined line that begin here-documents, each with its text still empty and its range in the line.
pub(super) fn find(line: &str, text_after: &str) -> Result<Vec<(Heredoc, Range<usize>)>, Problem> {
    let mut found = Vec::new();
    if !takes_heredocs(line) {
        return Ok(found);
    }
    // What a shell could not read has no here-documents: a quote that is never closed.
    let Some(ranges) = split(line) else { return Ok(found) };
    let mut ranges = ranges.into_iter().peekable();
    while let Some(range) = ranges.next() {
        let word = &line[range.clone()];
        if !word.contains("<<") {
            continue;
        }
        if let Some(heredoc) = parse(word).map_err(|what| Problem::new(range.clone(), what, "too large"))? {
            found.push((heredoc, range));
        } else if let Some(next) = ranges.peek().cloned()
            && let Some(heredoc) = spaced(word, &line[next.clone()])
            && lines(text_after).any(|candidate| ends(candidate, &heredoc))
        {
            found.push((heredoc, range.start..next.end));
        }
    }
    Ok(found)
}

/// RUN, COPY and ADD, these after ONBUILD too, and not in JSON form.
fn takes_heredocs(line: &str) -> bool {
    let (mut keyword, mut rest) = words::split_keyword(line, 0..line.len());
    if line[keyword.clone()].eq_ignore_ascii_case("onbuild") {
        (keyword, rest) = words::split_keyword(line, rest);
    }
    let takes = ["run", "copy", "add"].iter().any(|name| line[keyword.clone()].eq_ignore_ascii_case(name));
    takes && words::json(&line[words::split_flags(line, rest).1]) == Json::No
}

/// Reads a word as the beginning of a here-document. Leading blanks of a name don't count.
///
/// Errors: a file descriptor that is none.
pub(super) fn parse(word: &str) -> Result<Option<Heredoc>, String> {
    let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let Some(name) = word[digits..].strip_prefix("<<").filter(|name| !name.contains('<')) else { return Ok(None) };
    let (chomp, name) = name.strip_prefix('-').map_or((false, name), |name| (true, name));
    let Some((name, quoted)) = unquote(name.trim()) else { return Ok(None) };
    let fd = match &word[..digits] {
        "" => 0,
        digits => digits.parse().map_err(|_| format!("no file descriptor {}", quote(digits)))?,
    };
    Ok(Some(Heredoc { name, fd, expand: !quoted, chomp, content: Arc::from("") }))
}

/// `<<` or `<<-` alone, followed by a word that can be a name and not a number: `$((1 << 3))` is the shell's.
fn spaced(operator: &str, name: &str) -> Option<Heredoc> {
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    let alone = operator.trim_start_matches(|c: char| c.is_ascii_digit());
    let fits = matches!(alone, "<<" | "<<-") && (plain || name.starts_with(['\'', '"']));
    parse(&format!("{operator}{name}")).ok().flatten().filter(|_| fits)
}

/// A name without quotes and escapes, and whether there were quotes. `None` if it is not one word.
fn unquote(text: &str) -> Option<(String, bool)> {
    let mut name = String::with_capacity(text.len());
    let mut quoted = false;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                quoted = true;
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => name.push(c),
                    }
                }
            }
            '"' => {
                quoted = true;
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => match chars.next()? {
                            c @ ('"' | '$' | '\\') => name.push(c),
                            c => name.extend(['\\', c]),
                        },
                        c => name.push(c),
                    }
                }
            }
            '\\' => name.extend(chars.next()),
            c if c.is_whitespace() => return None,
            c => name.push(c),
        }
    }
    (!name.is_empty()).then_some((name, quoted))
}

/// The ranges of a line's words, quotes and escapes respected. Here `\` escapes, whatever the directive says. `None` if a quote or a `${` is
/// not closed.
fn split(line: &str) -> Option<Vec<Range<usize>>> {
    let mut words = Vec::new();
    let mut start = None;
    let bytes = line.as_bytes();
    let mut at = 0;
    while let Some(c) = line[at..].chars().next() {
        if c.is_whitespace() {
            words.extend(start.take().map(|start| start..at));
            at += c.len_utf8();
            continue;
        }
        start.get_or_insert(at);
        at = match bytes[at] {
            b'\'' | b'"' => quoted(line, at)?,
            b'\\' => at + 1 + line[at + 1..].chars().next().map_or(0, char::len_utf8),
            b'$' if bytes.get(at + 1) == Some(&b'{') => {
                // White space in it separates all the same.
                let end = braces(line, at)?;
                for (i, c) in line[at..end].char_indices().filter(|(_, c)| c.is_whitespace()) {
                    words.extend(start.take().map(|start| start..at + i).filter(|word| !word.is_empty()));
                    start = Some(at + i + c.len_utf8());
                }
                end
            }
            _ => at + c.len_utf8(),
        };
    }
    words.extend(start.map(|start| start..line.len()));
    Some(words)
}

/// The end of what is quoted from `at` on.
fn quoted(line: &str, at: usize) -> Option<usize> {
    let bytes = line.as_bytes();
    if bytes[at] == b'\'' {
        return line[at + 1..].find('\'').map(|length| at + length + 2);
    }
    let mut at = at + 1;
    loop {
        at = match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'$' if bytes.get(at + 1) == Some(&b'{') => braces(line, at)?,
            b'\\' if matches!(bytes.get(at + 1), Some(b'"' | b'$' | b'\\')) => at + 2,
            _ => at + 1,
        };
    }
}

/// The end of the `${…}` at `at`. Not recursive, since each level would take stack.
fn braces(line: &str, at: usize) -> Option<usize> {
    let bytes = line.as_bytes();
    let mut depth = 0;
    let mut at = at;
    loop {
        at = match bytes.get(at)? {
            b'$' if bytes.get(at + 1) == Some(&b'{') => {
                depth += 1;
                // `${}`, `${{` and `${:` are no variables.
                if matches!(bytes.get(at + 2), None | Some(b'{' | b'}' | b':')) {
                    return None;
                }
                at + 2
            }
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
                at + 1
            }
            b'\'' => at + 2 + line[at + 1..].find('\'')?,
            b'\\' => at + 2,
            _ => at + 1,
        };
    }
}

/// Takes the texts of here-documents off `text`, which begins after the instruction's line, and returns their length.
///
/// Errors: the index of the one that does not end.
pub(super) fn take_texts(heredocs: &mut [(Heredoc, Range<usize>)], text: &str) -> Result<usize, usize> {
    let mut at = 0;
    for (index, (heredoc, _)) in heredocs.iter_mut().enumerate() {
        let start = at;
        loop {
            if at == text.len() {
                return Err(index);
            }
            let end = text[at..].find('\n').map_or(text.len(), |length| at + length + 1);
            let line = &text[at..end];
            if ends(line, heredoc) {
                heredoc.content = Arc::from(&text[start..at]);
                at = end;
                break;
            }
            at = end;
        }
    }
    Ok(at)
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n')
}

fn ends(line: &str, heredoc: &Heredoc) -> bool {
    let line = line.trim_end_matches(['\r', '\n']);
    let line = if heredoc.chomp { line.trim_start_matches('\t') } else { line };
    line == heredoc.name
}

/// What is wrong with a here-document that does not end, by what stands after it.
pub(super) fn unterminated(heredoc: &Heredoc, range: Range<usize>, text: &str) -> Problem {
    let name = heredoc.name.as_str();
    let what = format!("the here-document {} does not end", quote(name));
    let problem = Problem::new(range, what, format!("no line that is just {} follows", quote(name)));
    // What usually went wrong can be seen: the terminator is there, but indented, or the name swallowed what follows it.
    if text.lines().any(|line| line.trim() == name) {
        return problem
            .hint("the terminator must stand alone on its line, without white space around it (with `<<-`, tabs may precede it)");
    }
    if let Some(end) = name.find(['>', '|', ';', '&', ')']).filter(|end| *end > 0) {
        return problem.hint(format!("put a space after `{}`: a name goes on until the next one", &name[..end]));
    }
    // A shorter name would be like anything.
    let like = text.lines().map(str::trim).filter(|line| name.len() > 2 && !line.is_empty() && line.len() < name.len() + 3);
    match nearest(name, like.take(1000)) {
        Some(near) => problem.hint(format!("is {} meant to end it?", quote(near))),
        None => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read() {
        for (word, expected) in [
            ("<<EOF", Some(("EOF", 0, true, false))),
            ("<<-EOF", Some(("EOF", 0, true, true))),
            ("3<<E", Some(("E", 3, true, false))),
            ("<<'E F'", Some(("E F", 0, false, false))),
            ("<<\"EOF\"", Some(("EOF", 0, false, false))),
            ("<<E\"O\"F", Some(("EOF", 0, false, false))),
            ("<<\"a\\\"b\\c\"", Some(("a\"b\\c", 0, false, false))),
            ("<<\\EOF", Some(("EOF", 0, true, false))),
            ("<<$E", Some(("$E", 0, true, false))),
            ("<<--E", Some(("-E", 0, true, true))),
            ("<<EOF>/x", Some(("EOF>/x", 0, true, false))),
            ("<<", None),
            ("<<-", None),
            ("<<<E", None),
            ("<<''", None),
            ("<<'E", None),
            ("a<<E", None),
            ("<E", None),
        ] {
            let heredoc = parse(word).expect(word);
            let read = heredoc.as_ref().map(|heredoc| (heredoc.name.as_str(), heredoc.fd, heredoc.expand, heredoc.chomp));
            assert_eq!(read, expected, "{word}");
        }
        assert_eq!(parse("99999999999<<E"), Err("no file descriptor `99999999999`".to_owned()));
    }

    #[test]
    fn lines_are_searched() {
        let text = "E\nx y\n";
        for (line, expected) in [
            ("RUN cat <<A <<B", &["A", "B"][..]),
            ("copy <<A <<\"B C\" /x", &["A", "B C"]),
            ("ONBUILD add --chown=1 <<A /x", &["A"]),
            ("RUN cat << E", &["E"]),
            ("RUN cat <<- 'x y' && true", &["x y"]),
            ("RUN cat << F", &[]),
            ("RUN cat << 1", &[]),
            ("RUN \"<<A\" '<<B' \\<<C a<<D", &[]),
            ("RUN <<A it's", &[]),
            ("RUN <<A ${", &[]),
            ("RUN <<A ${}", &[]),
            ("RUN <<A ${x:-a}", &["A"]),
            ("RUN ${x:-\"a <<A\"}", &[]),
            ("RUN [\"<<A\"]", &[]),
            ("RUN [\"<<A\"] <<B", &[]),
            ("ENV a=<<A", &[]),
            ("ONBUILD ONBUILD RUN <<A", &[]),
        ] {
            let found = find(line, text).expect(line);
            let names: Vec<&str> = found.iter().map(|(heredoc, _)| heredoc.name.as_str()).collect();
            assert_eq!(names, expected, "{line}");
        }
        assert_eq!(find("RUN a <<B c", "").expect("right")[0].1, 6..9);
    }

    #[test]
    fn texts_are_taken() {
        let mut heredocs = find("RUN <<A <<-B <<C", "").expect("right");
        let text = "a\nA \nA\r\n\tb\n\tB\nC";
        assert_eq!(take_texts(&mut heredocs, text), Ok(text.len()));
        let contents: Vec<&str> = heredocs.iter().map(|(heredoc, _)| heredoc.content.as_ref()).collect();
        assert_eq!(contents, ["a\nA \n", "\tb\n", ""]);
        assert_eq!(take_texts(&mut heredocs, "A\n\tB\nc\n"), Err(2));
    }
}
