//! A Dockerfile's text to its tree. The only file that names pest; the language is `grammar/dockerfile.pest`.
//!
//! The grammar finds logical lines, `heredoc` the here-documents they begin, `instruction` reads each line, and here stands what concerns the file as
//! a whole: encoding, directives, and that a stage comes first. The first error ends it.

use pest::Parser as _;
use pest::iterators::Pair;

use super::ast::{Directive, Dockerfile, Heredoc, Instruction, Kind};
use super::flags::Problem;
use super::heredoc;
use super::instruction::{self, Statement};
use super::source::Source;
use super::spelling::quote;
use super::words::Joined;
use crate::error::{Error, Result};

#[derive(pest_derive::Parser)]
#[grammar = "grammar/dockerfile.pest"]
struct Grammar;

/// What stands for a byte that is no UTF-8.
const REPLACED: char = char::REPLACEMENT_CHARACTER;

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
    let lossy = std::str::from_utf8(source).is_err();
    let source = decode(name, source)?;
    let mut reader = Reader { source: &source, lossy, escape: '\\', directives: Vec::new(), instructions: Vec::new() };
    reader.read()?;
    let Reader { escape, directives, instructions, .. } = reader;
    if instructions.is_empty() {
        let end = source.text().len();
        let error = source.error(end..end, format!("no instructions in {}", quote(name)), "the file ends here");
        return Err(error.hint("the smallest Dockerfile is `FROM image`"));
    }
    Ok(Dockerfile { source, escape, directives, instructions })
}

/// Takes the byte order mark off. Bytes that are no UTF-8 become U+FFFD: old files have names in comments in their writer's own encoding.
/// What is executed may hold none, see `Reader::check_utf8`.
fn decode(name: &str, bytes: &[u8]) -> Result<Source> {
    let text = String::from_utf8_lossy(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes));
    let nul = text.find('\0');
    let source = Source::new(name, text);
    match nul {
        Some(at) => Err(source.error(at..at + 1, format!("{} holds a NUL byte", quote(name)), "NUL").hint("is it really a text file?")),
        None => Ok(source),
    }
}

/// The grammar takes every text, so this is a defect of ours; it is reported like an error of the file.
fn unreadable(source: &Source, start: usize, error: &pest::error::Error<Rule>) -> Error {
    let at = start
        + match error.location {
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

/// What the grammar says of a file, read from its start to its end.
struct Reader<'a> {
    source: &'a Source,
    /// Whether bytes that were no UTF-8 had to be replaced.
    lossy: bool,
    escape: char,
    directives: Vec<Directive>,
    instructions: Vec<Instruction>,
}

/// One logical line.
struct Line<'a> {
    joined: Joined<'a>,
    start: usize,
    /// Where what follows it begins.
    end: usize,
}

impl<'a> Reader<'a> {
    /// The grammar stops after a line that may begin here-documents: their texts are taken here, and it goes on after them.
    fn read(&mut self) -> Result<()> {
        let mut at = self.grammar(Rule::prologue, 0)?;
        loop {
            at = self.simple(at)?;
            if at >= self.source.text().len() {
                return Ok(());
            }
            at = self.grammar(if self.escape == '\\' { Rule::after_backslash } else { Rule::after_backtick }, at)?;
        }
    }

    /// Reads what a rule takes from `at` on; returns where what follows it begins.
    fn grammar(&mut self, rule: Rule, at: usize) -> Result<usize> {
        let text = &self.source.text()[at..];
        let pairs = Grammar::parse(rule, text).map_err(|error| unreadable(self.source, at, &error))?;
        let mut end = at + pairs.peek().map_or(text.len(), |whole| whole.as_span().end());
        for pair in pairs.flat_map(Pair::into_inner) {
            end = end.max(self.pair(pair, at)?);
        }
        Ok(end)
    }

    /// Reads the lines from `at` on that are an instruction each and nothing else, as the grammar's rule `whole` would, but in a tenth of the
    /// time; those with here-documents too, for each of which the grammar would have to begin anew.
    fn simple(&mut self, mut at: usize) -> Result<usize> {
        let text = self.source.text();
        while at < text.len() {
            let end = text[at..].find('\n').map_or(text.len(), |length| at + length + 1);
            let line = &text[at..end];
            if line == "\n" {
                at = end;
                continue;
            }
            if !line.starts_with(|c: char| c.is_ascii_alphabetic()) || line.contains(['\\', '`']) {
                break;
            }
            let whole = Line { joined: Joined::whole(line.trim_end(), at), start: at, end };
            at = if line.contains("<<") { self.stop(&whole)? } else { self.instruction(&whole, Vec::new(), 0)? };
        }
        Ok(at)
    }

    /// Reads one pair of a text that begins at `at`; returns where what follows it begins.
    fn pair(&mut self, pair: Pair<'a, Rule>, at: usize) -> Result<usize> {
        match pair.as_rule() {
            Rule::directive | Rule::escape_directive => {
                let directive = read_directive(self.source, pair, &self.directives)?;
                if directive.name == "escape" {
                    self.escape = if directive.value == "`" { '`' } else { '\\' };
                }
                self.directives.push(directive);
                Ok(0)
            }
            Rule::whole | Rule::instruction => self.instruction(&line_of(pair, at), Vec::new(), 0),
            Rule::stop => self.stop(&line_of(pair, at)),
            _ => Ok(0),
        }
    }

    /// A line that may begin here-documents.
    fn stop(&mut self, line: &Line<'a>) -> Result<usize> {
        let joined = &line.joined;
        let after = &self.source.text()[line.end..];
        let mut heredocs = heredoc::find(&joined.text, after).map_err(|problem| self.error(joined, problem))?;
        let length = heredoc::take_texts(&mut heredocs, after).map_err(|index| {
            let (heredoc, range) = &heredocs[index];
            self.error(joined, heredoc::unterminated(heredoc, range.clone(), after))
        })?;
        self.instruction(line, heredocs.into_iter().map(|(heredoc, _)| heredoc).collect(), length)
    }

    /// An instruction of one logical line and the `length` bytes after it that its here-documents take.
    fn instruction(&mut self, line: &Line<'a>, heredocs: Vec<Heredoc>, length: usize) -> Result<usize> {
        let joined = &line.joined;
        let end = line.end + length;
        let text = self.source.text()[line.start..end].trim_end();
        // What is left of a continuation that nothing follows.
        if joined.text.trim().is_empty() {
            return Ok(end);
        }
        let span = self.source.span(line.start..line.start + text.len());
        let statement = Statement { joined, heredocs, span, escape: self.escape };
        let instruction = instruction::read(statement).map_err(|problem| self.error(joined, problem))?;
        // BuildKit writes U+FFFD into the config for an author's name too.
        if self.lossy && !matches!(instruction.kind, Kind::Maintainer(_)) {
            self.check_utf8(line, length)?;
        }
        self.instructions.push(instruction);
        Ok(end)
    }

    /// Refuses an instruction or here-documents with bytes that are no UTF-8.
    fn check_utf8(&self, line: &Line<'a>, length: usize) -> Result<()> {
        let replaced = |text: &str| text.find(REPLACED).map(|at| at..at + REPLACED.len_utf8());
        let in_line = replaced(&line.joined.text).map(|range| line.joined.locate(&range));
        let after = &self.source.text()[line.end..line.end + length];
        let Some(range) = in_line.or_else(|| replaced(after).map(|range| line.end + range.start..line.end + range.end)) else {
            return Ok(());
        };
        let what = format!("{} is not UTF-8", quote(self.source.name()));
        Err(self.source.error(range, what, "no UTF-8").hint("save the file as UTF-8; only comments may be in another encoding"))
    }

    fn error(&self, joined: &Joined<'_>, problem: Problem) -> Error {
        let Problem { range, what, note, hint } = problem;
        let error = self.source.error(joined.locate(&range), what, note);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// A line without its continuations.
fn line_of<'a>(pair: Pair<'a, Rule>, at: usize) -> Line<'a> {
    let whole = pair.as_span();
    let (text, from) = (whole.as_str(), at + whole.start());
    let end = at + whole.end();
    if pair.as_rule() == Rule::whole {
        return Line { joined: Joined::whole(text.trim_end(), from), start: from, end };
    }
    let mut pieces = Vec::new();
    let mut start = 0;
    for inner in pair.into_inner().filter(|inner| inner.as_rule() == Rule::continuation) {
        let span = inner.as_span();
        pieces.push((from + start, &text[start..span.start() - whole.start()]));
        start = span.end() - whole.start();
    }
    pieces.push((from + start, text[start..].trim_end()));
    Line { joined: Joined::of(&pieces), start: from, end }
}
