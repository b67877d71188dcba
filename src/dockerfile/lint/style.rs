//! How the file is written: letters, blank lines, old forms, comments.

use super::rules;
use super::{Finding, Report, Word};
use crate::dockerfile::ast::{Dockerfile, From, Instruction, Kind};

/// Stages can't have these names without hiding what they stand for.
const RESERVED: [&str; 2] = ["context", "scratch"];

/// Looks at every instruction, whatever its stage.
pub(super) fn check(report: &mut Report<'_>) {
    let file = report.file;
    for (i, instruction) in file.instructions.iter().enumerate() {
        continuation(report, instruction);
        match &instruction.kind {
            Kind::From(from) => stage_name(report, instruction, from, &file.instructions[..i]),
            Kind::Arg(pairs) => {
                let names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
                description(report, instruction, &names);
            }
            Kind::Maintainer(_) => {
                let message = "Maintainer instruction is deprecated in favor of using label".to_owned();
                report.add(&rules::MAINTAINER_DEPRECATED, instruction, Word::Name, message);
            }
            _ => {}
        }
    }
    instruction_casing(report);
}

/// Blank lines within an instruction. BuildKit points at the instruction's last line.
fn continuation(report: &mut Report<'_>, instruction: &Instruction) {
    let source = &report.file.source;
    let (first, last) = (instruction.span.first_line, logical_end(report.file, instruction));
    let blank = |number: &usize| source.line(*number).is_empty();
    let Some(empty) = (first + 1..=last).find(blank) else { return };
    let range = source.line_range(last);
    let rule = &rules::NO_EMPTY_CONTINUATION;
    let place = source.place(range.clone(), format!("line {empty} is empty. {}", rule.description));
    let finding = Finding { rule, message: "Empty continuation line".to_owned(), span: source.span(range.clone()), place };
    report.push(finding, range.start, instruction);
}

/// The last line of the instruction itself: without its here-documents, with blank lines that a continuation joins to it at the file's end.
fn logical_end(file: &Dockerfile, instruction: &Instruction) -> usize {
    let documents: usize = instruction.heredocs.iter().map(|heredoc| heredoc.content.lines().count() + 1).sum();
    let last = instruction.span.last_line.saturating_sub(documents).max(instruction.span.first_line);
    let text = file.source.slice(instruction.span);
    let escapes = text.chars().rev().take_while(|c| *c == file.escape).count();
    if instruction.heredocs.is_empty() && escapes == 1 { file.source.lines() } else { last }
}

fn stage_name(report: &mut Report<'_>, instruction: &Instruction, from: &From, before: &[Instruction]) {
    let Some(name) = &from.name else { return };
    if let [_, as_word, written] = instruction.args.as_slice() {
        if written != name {
            report.add(&rules::STAGE_NAME_CASING, instruction, Word::Last(written), format!("Stage name '{written}' should be lowercase"));
        }
        let keyword = &instruction.keyword;
        let matches = match (is_lower(keyword), is_upper(keyword)) {
            (true, _) => is_lower(as_word),
            (_, true) => is_upper(as_word),
            // `From` is inconsistent on its own, and said to be.
            _ => true,
        };
        if !matches {
            let message = format!("'{as_word}' and '{keyword}' keywords' casing do not match");
            report.add(&rules::FROM_AS_CASING, instruction, Word::Last(as_word), message);
        }
        if RESERVED.contains(&name.as_str()) {
            let message = format!("Stage name should not use the same name as reserved stage {name:?}");
            report.add(&rules::RESERVED_STAGE_NAME, instruction, Word::Last(written), message);
        }
        let taken = |other: &Instruction| matches!(&other.kind, Kind::From(other) if other.name.as_ref() == Some(name));
        if before.iter().any(taken) {
            let message = format!("Duplicate stage name {name:?}, stage names should be unique");
            report.add(&rules::DUPLICATE_STAGE_NAME, instruction, Word::Last(written), message);
        }
    }
    description(report, instruction, &[name]);
}

/// The comment above an ARG or a named stage describes it, and begins with its name.
fn description(report: &mut Report<'_>, instruction: &Instruction, names: &[&str]) {
    let rule = &rules::INVALID_DEFINITION_DESCRIPTION;
    if !report.config.runs(rule) {
        return;
    }
    let comments = report.comments_above(instruction);
    let Some(comment) = comments.last() else { return };
    if comment.split(' ').next().is_some_and(|first| names.contains(&first)) {
        return;
    }
    let example = match names {
        [name] => name,
        _ => "<arg_key>",
    };
    let message = format!("Comment for {} should follow the format: `# {example} <description>`", instruction.keyword.to_uppercase());
    report.add(rule, instruction, Word::Name, message);
}

/// All names in capitals or all in small letters, whichever more are.
fn instruction_casing(report: &mut Report<'_>) {
    let first = report.file.instructions.iter().position(|instruction| matches!(instruction.kind, Kind::From(_)));
    let staged = &report.file.instructions[first.unwrap_or(report.file.instructions.len())..];
    let lower = staged.iter().filter(|instruction| is_lower(&instruction.keyword)).count();
    let upper = staged.iter().filter(|instruction| !is_lower(&instruction.keyword) && is_upper(&instruction.keyword)).count();
    let (casing, is_right): (&str, fn(&str) -> bool) = if lower > upper { ("lowercase", is_lower) } else { ("uppercase", is_upper) };
    for instruction in staged.iter().filter(|instruction| !is_right(&instruction.keyword)) {
        let message = format!("Command '{}' should match the case of the command majority ({casing})", instruction.keyword);
        report.add(&rules::CONSISTENT_INSTRUCTION_CASING, instruction, Word::Name, message);
    }
}

fn is_lower(word: &str) -> bool {
    !word.contains(char::is_uppercase)
}

fn is_upper(word: &str) -> bool {
    !word.contains(char::is_lowercase)
}
