//! A Dockerfile's text to its tree. The only file that names pest; the language is `grammar/dockerfile.pest`.
//!
//! The grammar finds logical lines and here-documents, `instruction` reads each line, and here stands what concerns the file as
//! a whole: encoding, directives, and that a stage comes first. The first error ends it.

use std::sync::Arc;

use pest::Parser as _;
use pest::iterators::Pair;

use super::ast::{Directive, Dockerfile, Heredoc, Instruction, Kind};
use super::flags::Problem;
use super::instruction::{self, Statement};
use super::source::{Source, Span};
use super::spelling::{nearest, quote};
use super::words::Joined;
use crate::error::{Error, Result};

#[derive(pest_derive::Parser)]
#[grammar = "grammar/dockerfile.pest"]
struct Grammar;

/// Reads a Dockerfile. `name` is what errors call it.
pub fn parse(name: &str, source: &[u8]) -> Result<Dockerfile> {
    let file = parse_fragment(name, source)?;
    let is_arg = |instruction: &&Instruction| matches!(instruction.kind, Kind::Arg(_));
    match file.instructions.iter().find(|instruction| !is_arg(instruction)) {
        Some(Instruction { kind: Kind::From(_), .. }) => Ok(file),
        Some(other) => {
            let range = other.span.start..other.span.start + other.keyword.len();
            let error = file.source.error(range, "the first instruction must be FROM", "belongs to no stage");
            Err(error.hint("start with `FROM image`, or `FROM scratch` for an empty one; only ARG may stand before it"))
        }
        None => {
            let range = file.instructions.last().map_or(0..0, |last| last.span.start..last.span.start + last.keyword.len());
            Err(file.source.error(range, format!("no FROM in {}", quote(name)), "no stage follows").hint("add `FROM image`"))
        }
    }
}

/// Reads instructions that need no `FROM` before them: the `ONBUILD` triggers of a base image, changes of an existing one.
pub fn parse_fragment(name: &str, source: &[u8]) -> Result<Dockerfile> {
    let source = decode(name, source)?;
    let mut directives = Vec::new();
    let mut instructions = Vec::new();
    let mut escape = '\\';
    let pairs = Grammar::parse(Rule::dockerfile, source.text()).map_err(|error| unreadable(&source, &error))?;
    for pair in pairs.flat_map(Pair::into_inner) {
        match pair.as_rule() {
            Rule::directive | Rule::escape_directive => {
                let directive = read_directive(&source, pair, &directives)?;
                if directive.name == "escape" {
                    escape = if directive.value == "`" { '`' } else { '\\' };
                }
                directives.push(directive);
            }
            Rule::instruction => instructions.push(read_instruction(&source, pair, escape)?),
            _ => {}
        }
    }
    if instructions.is_empty() {
        let end = source.text().len();
        let error = source.error(end..end, format!("no instructions in {}", quote(name)), "the file ends here");
        return Err(error.hint("the smallest Dockerfile is `FROM image`"));
    }
    Ok(Dockerfile { source, escape, directives, instructions })
}

/// Takes the byte order mark off and refuses what is no text.
fn decode(name: &str, bytes: &[u8]) -> Result<Source> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let at = error.valid_up_to();
            let source = Source::new(name, String::from_utf8_lossy(bytes));
            // Up to the broken byte the lossy text is the same.
            let error = source.error(at..at + 1, format!("{} is not UTF-8", quote(name)), format!("byte 0x{:02x}", bytes[at]));
            return Err(error.hint("save the file as UTF-8"));
        }
    };
    let source = Source::new(name, text);
    match text.find('\0') {
        Some(at) => Err(source.error(at..at + 1, format!("{} holds a NUL byte", quote(name)), "NUL").hint("is it really a text file?")),
        None => Ok(source),
    }
}

/// The grammar takes every text, so this is a defect of ours; it is reported like an error of the file.
fn unreadable(source: &Source, error: &pest::error::Error<Rule>) -> Error {
    let at = match error.location {
        pest::error::InputLocation::Pos(at) | pest::error::InputLocation::Span((at, _)) => at,
    };
    source.error(at..at + 1, format!("can't read {}", quote(source.name())), error.variant.message().into_owned())
}

fn read_directive(source: &Source, pair: Pair<'_, Rule>, before: &[Directive]) -> Result<Directive> {
    let span = pair.as_span();
    let text = span.as_str().trim();
    let range = span.start() + (span.as_str().len() - span.as_str().trim_start().len())..span.start();
    let range = range.start..range.start + text.len();
    let (name, value) = text.trim_start_matches('#').split_once('=').unwrap_or((text, ""));
    let directive = Directive { name: name.trim().to_ascii_lowercase(), value: value.trim().to_string(), span: source.span(range.clone()) };
    if before.iter().any(|other| other.name == directive.name) {
        return Err(source.error(range, format!("directive `{}` is given twice", directive.name), "can be given once"));
    }
    if directive.name == "escape" && !matches!(directive.value.as_str(), "\\" | "`") {
        let what = format!("directive `escape` can't be {}", quote(&directive.value));
        return Err(source.error(range, what, "must be \\ or `"));
    }
    Ok(directive)
}

fn read_instruction(source: &Source, pair: Pair<'_, Rule>, escape: char) -> Result<Instruction> {
    let line = read_line(source, pair)?;
    let joined = Joined::of(&line.pieces);
    let statement = Statement { joined: &joined, heredocs: line.heredocs, span: line.span, escape };
    instruction::read(statement).map_err(|Problem { range, what, note, hint }| {
        let error = source.error(joined.locate(&range), what, note);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    })
}

/// What the grammar says of one instruction.
struct Line<'a> {
    pieces: Vec<(usize, &'a str)>,
    heredocs: Vec<Heredoc>,
    span: Span,
}

fn read_line<'a>(source: &Source, pair: Pair<'a, Rule>) -> Result<Line<'a>> {
    let whole = pair.as_span();
    let text = whole.as_str();
    let mut line = Line { pieces: Vec::new(), heredocs: Vec::new(), span: Span::default() };
    let mut words = Vec::new();
    let mut bodies = 0;
    let mut start = whole.start();
    let mut end = None;
    for inner in pair.into_inner() {
        let span = inner.as_span();
        match inner.as_rule() {
            Rule::continuation => {
                line.pieces.push((start, &text[start - whole.start()..span.start() - whole.start()]));
                start = span.end();
            }
            Rule::heredoc => {
                line.heredocs.push(read_heredoc(source, inner)?);
                words.push(span);
            }
            Rule::mixed_heredoc => return Err(mixed_heredoc(source, span)),
            Rule::too_many_heredocs => {
                let extra = words.last().map_or(0..0, |span| span.start()..span.end());
                return Err(source.error(extra, format!("{} here-documents in one instruction", words.len()), "at most 10"));
            }
            Rule::unterminated => {
                let word = words.get(bodies).copied().unwrap_or(whole);
                return Err(unterminated(source, word, &line.heredocs[bodies.min(line.heredocs.len() - 1)].name));
            }
            rule if is_body(rule) => {
                end.get_or_insert(span.start());
                if let Some(heredoc) = line.heredocs.get_mut(bodies) {
                    heredoc.content = Arc::from(span.as_str());
                }
                bodies += 1;
            }
            _ => {}
        }
    }
    let line_end = end.unwrap_or(whole.end()).max(start);
    let last = text[start - whole.start()..line_end - whole.start()].trim_end();
    line.pieces.push((start, last));
    line.span = source.span(whole.start()..whole.start() + text.trim_end().len());
    Ok(line)
}

fn is_body(rule: Rule) -> bool {
    matches!(
        rule,
        Rule::body_1
            | Rule::body_2
            | Rule::body_3
            | Rule::body_4
            | Rule::body_5
            | Rule::body_6
            | Rule::body_7
            | Rule::body_8
            | Rule::body_9
            | Rule::body_10
    )
}

fn read_heredoc(source: &Source, pair: Pair<'_, Rule>) -> Result<Heredoc> {
    let span = pair.as_span();
    let mut heredoc = Heredoc { name: String::new(), fd: 0, expand: true, chomp: false, content: Arc::from("") };
    for inner in pair.into_inner() {
        match inner.as_rule() {
            Rule::fd if !inner.as_str().is_empty() => {
                heredoc.fd = inner.as_str().parse().map_err(|_| {
                    source.error(span.start()..span.end(), format!("no file descriptor {}", quote(inner.as_str())), "too large")
                })?;
            }
            Rule::tabs => heredoc.chomp = true,
            Rule::bare_name => heredoc.name = inner.as_str().to_string(),
            Rule::quoted_name_1 | Rule::quoted_name_2 => {
                heredoc.expand = false;
                heredoc.name = inner.as_str().to_string();
            }
            _ => {}
        }
    }
    Ok(heredoc)
}

fn mixed_heredoc(source: &Source, span: pest::Span<'_>) -> Error {
    let what = format!("can't read the here-document's name {}", quote(span.as_str().trim_start_matches(['<', '-'])));
    if span.as_str().contains('\n') {
        return source.error(span.start()..span.end(), what, "can't be cut by a continuation");
    }
    let error = source.error(span.start()..span.end(), what, "quotes must be around the whole name");
    error.hint("quote the whole name to keep variables from being expanded (`<<\"EOF\"`), or nothing of it (`<<EOF`)")
}

fn unterminated(source: &Source, word: pest::Span<'_>, name: &str) -> Error {
    let what = format!("the here-document {} does not end", quote(name));
    let error = source.error(word.start()..word.end(), what, format!("no line that is just {} follows", quote(name)));
    let after = source.text()[word.end()..].lines().skip(1);
    // What usually went wrong can be seen: the terminator is there, but indented, or the name swallowed what follows it.
    if after.clone().any(|line| line.trim() == name) {
        return error.hint("the terminator must stand alone on its line, without white space around it (with `<<-`, tabs may precede it)");
    }
    if let Some(end) = name.find(['>', '|', ';', '&', ')']).filter(|end| *end > 0) {
        return error.hint(format!("put a space after `{}`: a name goes on until the next one", &name[..end]));
    }
    // A shorter name would be like anything.
    let like = after.map(str::trim).filter(|line| name.len() > 2 && !line.is_empty() && line.len() < name.len() + 3);
    match nearest(name, like.take(1000)) {
        Some(near) => error.hint(format!("is {} meant to end it?", quote(near))),
        None => error,
    }
}
