//! Things that are allowed but probably not meant. Misspelt names are errors and belong to `flags` and `instruction`.
//!
//! A small start: BuildKit's build checks, by the names it gives them, come later.

use super::ast::{Command, Dockerfile, Instruction, Kind};
use super::source::Span;

/// One remark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// BuildKit's name of the check.
    pub check: &'static str,
    /// What is not as it should be.
    pub what: String,
    /// The instruction.
    pub span: Span,
}

/// Looks at a whole file.
pub fn lint(file: &Dockerfile) -> Vec<Remark> {
    file.instructions.iter().filter_map(remark).collect()
}

fn remark(instruction: &Instruction) -> Option<Remark> {
    let (check, what) = match &instruction.kind {
        Kind::Maintainer(_) => {
            ("MaintainerDeprecated", "MAINTAINER is deprecated, use LABEL org.opencontainers.image.authors=…".to_string())
        }
        Kind::Cmd(Command::Shell(text)) | Kind::Entrypoint(Command::Shell(text)) if text.starts_with('[') && text.ends_with(']') => {
            ("JSONArgsRecommended", format!("{} looks like JSON but is not, so the shell runs it", instruction.keyword.to_uppercase()))
        }
        Kind::Env(_) | Kind::Label(_) if instruction.args.get(2).is_some_and(String::is_empty) => {
            ("LegacyKeyValueFormat", format!("write {} name=value, with an equals sign", instruction.keyword.to_uppercase()))
        }
        _ => return None,
    };
    Some(Remark { check, what, span: instruction.span })
}
