//! The page around the picture: title, advice as a list, the steps as a table that can be searched and copied.

use std::fmt::Write;

use crate::cli::render::size;

use super::layout::{Picture, time};
use super::record::Recording;
use super::svg;
use super::text::escape;

const STYLE: &str = include_str!("page.css");

/// The whole page.
pub fn page(recording: &Recording, picture: &Picture, advice: &[String], name: &str) -> String {
    let mut out = String::new();
    let title = escape(name);
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>{title}</h1>\n<p>{}</p>\n<figure>\n{}</figure>\n<h2>What to speed up</h2>\n<ul>\n",
        escape(&svg::summary(recording)),
        svg::element(picture, name)
    );
    for line in advice {
        let _ = writeln!(out, "<li>{}</li>", escape(line));
    }
    out.push_str(
        "</ul>\n<details>\n<summary>All steps</summary>\n<table>\n<tr><th>stage<th>step<th>instruction<th>began<th>time<th>layer</tr>\n",
    );
    for step in &recording.steps {
        let _ = writeln!(
            out,
            "<tr><td>{}<td>{}<td><pre>{}</pre><td>{:.2} s<td>{}<td>{}</tr>",
            escape(&step.stage),
            step.number,
            escape(&step.text),
            step.start.as_secs_f64(),
            time(step),
            step.layer.map(size).unwrap_or_default()
        );
    }
    out.push_str("</table>\n</details>\n</body>\n</html>\n");
    out
}
