//! Tests of the language as a whole; each part has its own beside it.

mod corpus;
mod mounts;
mod size;

use super::ast::Dockerfile;
use crate::error::{Error, Place};

/// Parses what must be right.
pub(super) fn parsed(text: &str) -> Dockerfile {
    match super::parse("Dockerfile", text.as_bytes()) {
        Ok(file) => file,
        Err(error) => panic!("{text:?}: {}", report(&error)),
    }
}

/// An error as the user sees it, without colours.
fn report(error: &Error) -> String {
    let mut text = format!("error: {}\n", error.what());
    if let Some(Place::Text(snippet)) = error.place() {
        let number = snippet.line.to_string();
        let margin = " ".repeat(number.len());
        let indent = " ".repeat(snippet.column - 1);
        text += &format!("{margin}--> {}:{}:{}\n{margin} |\n", snippet.file, snippet.line, snippet.column);
        text += &format!("{number} | {}\n{margin} | {indent}{} {}", snippet.text, "^".repeat(snippet.width), snippet.note);
        text = text.trim_end().to_string() + "\n";
    }
    for cause in error.causes() {
        text += &format!("cause: {cause}\n");
    }
    for hint in error.hints() {
        text += &format!("hint: {hint}\n");
    }
    text
}
