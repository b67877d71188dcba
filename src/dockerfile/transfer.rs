//! `COPY` and `ADD`: sources, here-documents among them, destination and flags.

use super::ast::{Add, Copy, CopySource, Heredoc, Kind, Transfer};
use super::flags::Problem;
use super::heredoc;
use super::instruction::{Arguments, Parts, flags, list};

/// Reads the arguments and flags.
pub(super) fn read(parts: &Parts<'_>, heredocs: &[Heredoc]) -> Result<(Arguments, Kind), Problem> {
    let flags = flags(parts)?;
    let (arguments, mut found) = list(parts)?;
    let keyword = parts.keyword;
    let destination = match found.pop() {
        Some(word) if !found.is_empty() => word,
        _ => {
            let problem = parts.rest_problem(format!("{keyword} needs at least one source and a destination"), "no destination");
            return Err(problem.hint(format!("for example `{keyword} file /directory/`")));
        }
    };
    let mut inline = heredocs.iter().peekable();
    let mut sources = Vec::with_capacity(found.len());
    for word in found {
        let name = heredoc_name(&word.text).filter(|_| !arguments.json);
        let source = inline.next_if(|heredoc| name.as_ref().is_some_and(|name| *name == heredoc.name));
        sources.push(source.map_or(CopySource::Path(word.text), |heredoc| CopySource::Inline(heredoc.clone())));
    }
    if !arguments.json && heredoc_name(&destination.text).is_some() {
        return Err(Problem::new(destination.range, format!("{keyword} can't write to a here-document"), "expected a destination"));
    }
    if inline.next().is_some() {
        let problem = parts.rest_problem(format!("{keyword} can't take this here-document"), "its name must have no white space");
        return Err(problem.hint("write `<<NAME` without white space, and the destination after it"));
    }
    let text = |name: &str| flags.value(name).map(str::to_string);
    let transfer = Transfer {
        sources,
        destination: destination.text,
        chown: text("chown"),
        chmod: text("chmod"),
        link: flags.switch("link").unwrap_or(false),
        excludes: flags.all("exclude").map(|(value, _)| value.to_string()).collect(),
    };
    let kind = if keyword == "COPY" {
        Kind::Copy(Box::new(Copy { transfer, from: text("from"), parents: flags.switch("parents").unwrap_or(false) }))
    } else {
        let keep_git_dir = flags.switch("keep-git-dir").unwrap_or(false);
        Kind::Add(Box::new(Add { transfer, checksum: text("checksum"), keep_git_dir, unpack: flags.switch("unpack") }))
    };
    Ok((arguments, kind))
}

/// The here-document's name if a word begins one.
fn heredoc_name(word: &str) -> Option<String> {
    heredoc::parse(word).ok().flatten().map(|heredoc| heredoc.name)
}
