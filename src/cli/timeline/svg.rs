//! The picture as SVG: one element, styled by classes, in light and dark.

use std::fmt::Write;

use crate::event::Outcome;

use super::layout::{BYTES, Bar, DURATIONS, Kind, LEFT, MARGIN, Picture, RIGHT, ROW, WIDTH, taken};
use super::record::Recording;
use super::text::{escape, width};

/// Colours stand twice, since not every viewer of SVG knows variables.
const STYLE: &str = include_str!("timeline.css");

/// Space around the title, and above the list of advice.
const TITLE: f64 = 96.0;
const LEGEND: f64 = 34.0;

/// A file of its own: title, picture, legend and advice.
pub fn document(recording: &Recording, picture: &Picture, advice: &[String], name: &str) -> String {
    let lines: Vec<String> = advice.iter().flat_map(|line| wrap(line)).collect();
    let height = TITLE + picture.height + LEGEND + 40.0 + lines.len() as f64 * ROW + MARGIN;
    let mut out = String::new();
    let _ = write!(
        out,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
         width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\">\n<title>{}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"page\" width=\"100%\" height=\"100%\"/>\n",
        escape(name)
    );
    let _ = writeln!(out, "<text class=\"title\" x=\"{MARGIN}\" y=\"34\">{}</text>", escape(name));
    let _ = writeln!(out, "<text class=\"soft\" x=\"{MARGIN}\" y=\"58\">{}</text>", escape(&summary(recording)));
    let _ = writeln!(out, "<g transform=\"translate(0 {TITLE})\">\n{}</g>", inner(picture));
    let mut y = TITLE + picture.height + LEGEND;
    let _ = writeln!(out, "<text class=\"heading\" x=\"{MARGIN}\" y=\"{y:.0}\">What to speed up</text>", y = y + 26.0);
    y += 30.0;
    for line in &lines {
        y += ROW;
        let _ = writeln!(out, "<text x=\"{MARGIN}\" y=\"{y:.0}\">{}</text>", escape(line));
    }
    out.push_str("</svg>\n");
    out
}

/// The picture alone, as an element of a page.
pub fn element(picture: &Picture, name: &str) -> String {
    let height = picture.height + LEGEND;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\">\n<title>{}</title>\n\
         <style>{STYLE}</style>\n{}</svg>\n",
        escape(name),
        inner(picture)
    )
}

/// The build in one line.
pub fn summary(recording: &Recording) -> String {
    let of = |outcome| recording.steps.iter().filter(|step| step.outcome == Some(outcome)).count();
    let failed = if of(Outcome::Failed) > 0 { ", failed" } else { "" };
    let plural = |count: usize, one: &str| if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") };
    let steps = plural(recording.steps.len(), "step");
    format!("{} in all, {steps}, {} from the cache{failed}", taken(recording.total), of(Outcome::Cached))
}

fn inner(picture: &Picture) -> String {
    let mut out = String::new();
    for tick in &picture.ticks {
        let _ = writeln!(out, "<path class=\"grid\" d=\"M{x:.1} 20V{:.1}\"/>", picture.height, x = tick.x);
        let _ = writeln!(out, "<text class=\"soft middle\" x=\"{:.1}\" y=\"12\">{}</text>", tick.x, tick.text);
    }
    let _ = writeln!(
        out,
        "<text class=\"soft end\" x=\"{DURATIONS}\" y=\"12\">time</text><text class=\"soft end\" x=\"{BYTES}\" y=\"12\">layer</text>"
    );
    for label in &picture.labels {
        let _ = writeln!(out, "<text class=\"lane\" x=\"{MARGIN}\" y=\"{:.1}\">{}</text>", label.y, escape(&label.text));
    }
    for bar in &picture.bars {
        write_bar(&mut out, bar);
    }
    for &((x1, y1), (x2, y2)) in &picture.links {
        let _ = writeln!(out, "<path class=\"link\" d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\"/>");
    }
    for row in &picture.rows {
        let critical = if row.critical { " critical" } else { "" };
        let _ = writeln!(
            out,
            "<g class=\"row{critical}\"><title>{}</title><text class=\"soft\" x=\"{MARGIN}\" y=\"{y:.1}\">{}</text>\
             <text x=\"{:.1}\" y=\"{y:.1}\">{}</text><text class=\"end\" x=\"{DURATIONS}\" y=\"{y:.1}\">{}</text>\
             <text class=\"end\" x=\"{BYTES}\" y=\"{y:.1}\">{}</text></g>",
            escape(&row.title),
            escape(&row.name),
            row.x,
            escape(&row.text),
            escape(&row.time),
            escape(&row.bytes),
            y = row.y
        );
    }
    legend(&mut out, picture.height + 22.0);
    out
}

fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Base => "base",
        Kind::Run => "run",
        Kind::Copy => "copy",
        Kind::Config => "config",
        Kind::Cached => "cached",
        Kind::Failed => "failed",
        Kind::Transfer => "transfer",
    }
}

fn write_bar(out: &mut String, bar: &Bar) {
    let Bar { x, y, width, height, .. } = bar;
    let radius = (width / 3.0).min(3.0);
    let _ = write!(
        out,
        "<g><title>{}</title><rect class=\"{}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"{radius:.1}\"/>",
        escape(&bar.title),
        class(bar.kind)
    );
    if bar.critical {
        let _ = write!(out, "<path class=\"link\" d=\"M{x:.1} {:.1}H{:.1}\"/>", y + height + 1.5, x + width);
    }
    if !bar.text.is_empty() {
        let on = if bar.kind == Kind::Cached { "" } else { " class=\"on\"" };
        let _ = write!(out, "<text{on} x=\"{:.1}\" y=\"{:.1}\">{}</text>", x + 5.0, y + height / 2.0 + 4.0, escape(&bar.text));
    }
    out.push_str("</g>\n");
}

/// What the colours mean, and the line of the critical path.
fn legend(out: &mut String, y: f64) {
    let kinds =
        [(Kind::Base, "FROM"), (Kind::Run, "RUN"), (Kind::Copy, "COPY, ADD"), (Kind::Config, "other"), (Kind::Cached, "from the cache")];
    let mut x = LEFT;
    for (kind, text) in kinds.into_iter().chain([(Kind::Transfer, "transfer"), (Kind::Failed, "failed")]) {
        let _ = write!(out, "<rect class=\"{}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\" rx=\"2\"/>", class(kind), y - 10.0);
        let _ = writeln!(out, "<text class=\"soft\" x=\"{:.1}\" y=\"{y:.1}\">{text}</text>", x + 17.0);
        x += 17.0 + width(text) + 14.0;
    }
    let (left, right) = (RIGHT + 24.0, RIGHT + 44.0);
    let _ = writeln!(out, "<path class=\"link\" d=\"M{left:.1} {:.1}H{right:.1}\"/>", y - 4.0);
    let _ = writeln!(out, "<text class=\"soft\" x=\"{:.1}\" y=\"{y:.1}\">critical path</text>", right + 6.0);
}

/// A sentence in lines as wide as the picture.
fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec!["•".to_owned()];
    for word in text.split_whitespace() {
        if width(lines.last().expect("at least one line")) + width(word) + 20.0 > WIDTH - 2.0 * MARGIN {
            lines.push(" ".into());
        }
        let line = lines.last_mut().expect("at least one line");
        line.push(' ');
        line.push_str(word);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::record::testing::{recording, step};
    use super::super::{Form, draw};
    use crate::event::Outcome::Done;

    #[test]
    fn hostile_text_stays_text() {
        let text = "RUN echo '</title></text><script>alert(1)</script>' && echo \"<!--\" \u{7}\u{202e}";
        let recording = recording(vec![step("<b>&\"", 1, text, (0, 900), Done)]);
        for form in [Form::Svg, Form::Html] {
            let document = draw(&recording, "a<b>&'c", form);
            assert!(!document.contains("<script") && !document.contains("<b>") && !document.contains("<!--"), "{document}");
            assert!(!document.contains(['\u{7}', '\u{202e}']) && document.contains("a&lt;b&gt;&amp;&#39;c"));
        }
    }

    #[test]
    fn nothing_is_fetched() {
        let document = draw(&recording(vec![step("", 1, "FROM a", (0, 900), Done)]), "x", Form::Html);
        let outside = document.replace("http://www.w3.org/2000/svg", "");
        assert!(!outside.contains("http") && !outside.contains("url(") && !outside.contains("@import") && !outside.contains(" src="));
    }
}
