//! Dockerfile text to tree: the whole language of BuildKit's Dockerfile reference (syntax 1.x), and `.dockerignore`.
//!
//! No files are read here and nothing is planned or run. `parse` turns text into the tree of `ast`, whose values are expanded
//! later by `expand`, when variables are known. `ignore` and `glob` decide which paths a context or a `COPY` takes.

pub mod ast;
mod duration;
pub mod expand;
mod flags;
pub mod glob;
mod healthcheck;
mod heredoc;
pub mod ignore;
mod instruction;
pub mod lint;
mod mount;
mod parse;
mod shell_pattern;
pub mod source;
mod spelling;
mod transfer;
pub mod tree;
mod words;

pub use duration::parse as duration;
pub use mount::{comma_fields, size};
pub use parse::{parse, parse_fragment};

#[cfg(test)]
mod tests;
