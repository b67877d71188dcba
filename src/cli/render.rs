//! The only printer: errors, warnings, events, tables.
//!
//! Messages go to standard error, results to standard output. Colours and bars are for terminals only (`NO_COLOR` is honoured by anstream).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::error::{Error, Place, Snippet, escape, quote_path};
use crate::event::{Event, Outcome, Sink};

const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default().bold();
const BLUE: Style = AnsiColor::Blue.on_default().bold();
const GREEN: Style = AnsiColor::Green.on_default().bold();
const CYAN: Style = AnsiColor::Cyan.on_default();
const DIM: Style = Style::new().dimmed();

/// Prints an error under the four labels.
pub fn error(error: &Error) {
    let mut out = anstream::stderr().lock();
    // Nobody is left to tell when standard error is gone.
    let _ = out.write_all(format_error(error).as_bytes());
}

fn format_error(error: &Error) -> String {
    let mut text = format!("{RED}error:{RED:#} {}\n", error.what());
    match error.place() {
        Some(Place::Path(path)) => text.push_str(&format!("  {BLUE}-->{BLUE:#} {}\n", quote_path(path).trim_matches('`'))),
        Some(Place::Name(name)) => text.push_str(&format!("  {BLUE}-->{BLUE:#} {name}\n")),
        Some(Place::Text(snippet)) => text.push_str(&format_snippet(snippet)),
        None => {}
    }
    for cause in error.causes() {
        text.push_str(&format!("{DIM}cause:{DIM:#} {cause}\n"));
    }
    for hint in error.hints() {
        text.push_str(&format!("{GREEN}hint:{GREEN:#} {hint}\n"));
    }
    text
}

/// How much of a step's instruction is shown.
const LONGEST_STEP: usize = 300;

/// How much of a long line is shown around the carets.
const SNIPPET_WIDTH: usize = 120;

fn format_snippet(snippet: &Snippet) -> String {
    let Snippet { file, line, column, text, width, note } = snippet;
    let number = line.to_string();
    let pad = " ".repeat(number.len());
    // Long lines (a megabyte is legal) are cut around the span.
    let start = column.saturating_sub(1).saturating_sub(SNIPPET_WIDTH / 2);
    let shown: String = text.chars().skip(start).take(SNIPPET_WIDTH).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let before = " ".repeat(column.saturating_sub(1).saturating_sub(start));
    let carets = "^".repeat((*width).max(1).min(SNIPPET_WIDTH.saturating_sub(before.len()).max(1)));
    let note = if note.is_empty() { String::new() } else { format!(" {note}") };
    let name: String = file.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    format!(
        "{pad} {BLUE}-->{BLUE:#} {name}:{line}:{column}\n{pad}  {BLUE}|{BLUE:#}\n{BLUE}{number}{BLUE:#}  {BLUE}|{BLUE:#} {shown}\n\
         {pad}  {BLUE}|{BLUE:#} {before}{RED}{carets}{note}{RED:#}\n"
    )
}

/// Prints a warning.
pub fn warning(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{YELLOW}warning:{YELLOW:#} {text}");
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Worth a look.
    Warning,
    /// To be mended.
    Error,
}

/// Prints a finding, which is a result, with its place.
pub fn finding(severity: Severity, what: &str, place: &Place) {
    let label = match severity {
        Severity::Warning => format!("{YELLOW}warning:{YELLOW:#}"),
        Severity::Error => format!("{RED}error:{RED:#}"),
    };
    let snippet = match place {
        Place::Text(snippet) => format_snippet(snippet),
        _ => String::new(),
    };
    let text = format!("{label} {what}\n{snippet}");
    let mut out = anstream::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Prints a line to standard error that is no result.
pub fn note(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// Prints a result. A closed standard output (`| head`) ends the program quietly, one that can't be written with an error.
pub fn result(text: &str) {
    bytes(format!("{text}\n").as_bytes());
}

/// Prints bytes as they are, so that their digest stays what it was.
pub fn bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => {
            error(&Error::os("can't write to standard output", e));
            std::process::exit(1);
        }
    }
}

/// [`result`] for what a template made of strangers' texts: on a terminal, what would steer that is escaped, but for line ends and tabs.
pub fn filled(text: &str) {
    if std::io::stdout().is_terminal() { result(&escape_lines(text)) } else { result(text) }
}

fn escape_lines(text: &str) -> String {
    let cells = |line: &str| line.split('\t').map(escape).collect::<Vec<_>>().join("\t");
    text.split('\n').map(cells).collect::<Vec<_>>().join("\n")
}

/// A table with a header; columns are as wide as their widest cell, the last is not padded. Cells may hold strangers' texts: what would steer a
/// terminal is escaped.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| escape(cell)).collect()).collect();
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        padded.join("   ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut header.iter().copied())];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

/// Bytes for people: `12.3 MB`, base 1000 as docker prints them.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 || value >= 99.95 { format!("{value:.0} {}", UNITS[unit]) } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A duration for people: `0.3s`, `2m05s`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 60.0 { format!("{seconds:.1}s") } else { format!("{}m{:02}s", time.as_secs() / 60, time.as_secs() % 60) }
}

/// How a long command shows what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Progress {
    /// Bars on a terminal, plain lines elsewhere.
    Auto,
    /// Plain lines.
    Plain,
    /// Bars.
    Tty,
    /// Only errors and warnings.
    Quiet,
}

/// The sink behind an open storage directory: prints what is wrong with that, each thing once.
#[derive(Default)]
pub struct Warnings {
    printed: Mutex<BTreeSet<String>>,
}

impl Sink for Warnings {
    fn event(&self, event: Event<'_>) {
        if let Event::Warning(text) = event
            && self.printed.lock().unwrap_or_else(PoisonError::into_inner).insert(text.to_owned())
        {
            warning(text);
        }
    }
}

/// The sink behind every command: turns events into lines and bars.
pub struct Printer {
    bars: Option<MultiProgress>,
    quiet: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    steps: BTreeMap<u64, StepLine>,
    transfers: BTreeMap<u64, Transfer>,
    /// The step whose output was printed last, to name the step again when it changes.
    last: Option<u64>,
}

struct StepLine {
    name: String,
    /// The first line of its instruction.
    text: String,
    /// Whether it was printed.
    shown: bool,
    /// Output without its line end yet.
    partial: Vec<u8>,
}

struct Transfer {
    what: String,
    bar: Option<ProgressBar>,
    done: u64,
}

impl Printer {
    /// A printer for the chosen way.
    pub fn new(progress: Progress) -> Self {
        let terminal = match progress {
            Progress::Auto => std::io::stderr().is_terminal(),
            Progress::Tty => true,
            Progress::Plain | Progress::Quiet => false,
        };
        let bars = terminal.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)));
        Self { bars, quiet: progress == Progress::Quiet, state: Mutex::default() }
    }

    fn line(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| note(text)),
            None => note(text),
        }
    }

    /// Prints a step's first line, once.
    fn show(&self, state: &mut State, id: u64) {
        let Some(step) = state.steps.get_mut(&id).filter(|step| !step.shown) else { return };
        step.shown = true;
        self.line(&format!("{CYAN}[{}]{CYAN:#} {}", step.name, step.text));
        state.last = Some(id);
    }

    fn output(&self, state: &mut State, id: u64, bytes: &[u8]) {
        let Some(step) = state.steps.get_mut(&id) else { return };
        step.partial.extend_from_slice(bytes);
        // A command may write a gigabyte without a line end; memory stays bounded.
        let end = match step.partial.iter().rposition(|&b| b == b'\n') {
            Some(at) => at + 1,
            None if step.partial.len() > 64 << 10 => step.partial.len(),
            None => return,
        };
        let lines: Vec<u8> = step.partial.drain(..end).collect();
        let mut text = String::new();
        if state.last != Some(id) {
            text.push_str(&format!("{DIM}[{}]{DIM:#}\n", step.name));
            state.last = Some(id);
        }
        for line in String::from_utf8_lossy(&lines).lines() {
            text.push_str("  ");
            // A carriage return redraws a line on a terminal; in a log only what it ends as matters.
            text.push_str(line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default());
            text.push('\n');
        }
        self.line(text.trim_end_matches('\n'));
    }

    fn transfer_started(&self, state: &mut State, id: u64, what: &str, total: Option<u64>) {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new(total.unwrap_or(0)));
            let template = match total {
                Some(_) => "  {msg:30!} {bar:30.cyan/dim} {bytes:>11} / {total_bytes:<11} {bytes_per_sec:>12}",
                None => "  {msg:30!} {spinner} {bytes:>11} {bytes_per_sec:>12}",
            };
            bar.set_style(ProgressStyle::with_template(template).expect("a valid template"));
            bar.set_message(what.to_owned());
            bar
        });
        state.transfers.insert(id, Transfer { what: what.to_owned(), bar, done: 0 });
    }

    fn transfer_finished(&self, state: &mut State, id: u64, note: &str) {
        let Some(transfer) = state.transfers.remove(&id) else { return };
        if let Some(bar) = transfer.bar {
            bar.finish_and_clear();
        }
        let size = if transfer.done > 0 { format!(" {}", size(transfer.done)) } else { String::new() };
        let note = if note.is_empty() { String::new() } else { format!(" ({note})") };
        self.line(&format!("  {}{size}{note}", transfer.what));
    }
}

impl Sink for Printer {
    fn event(&self, event: Event<'_>) {
        // A panic elsewhere must not silence the rest.
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Event::Warning(text) = event {
            return match &self.bars {
                Some(bars) => bars.suspend(|| warning(text)),
                None => warning(text),
            };
        }
        if self.quiet {
            return;
        }
        match event {
            Event::Warning(_) => {}
            Event::Note(text) => self.line(text),
            Event::StepStarted { id, stage, number, total, text } => {
                let name = if stage.is_empty() { format!("{number}/{total}") } else { format!("{stage} {number}/{total}") };
                let first: String = text.lines().next().unwrap_or_default().chars().take(LONGEST_STEP).collect();
                let more = if first.len() < text.trim_end().len() { " …" } else { "" };
                let text = format!("{first}{more}");
                state.steps.insert(id, StepLine { name, text, shown: false, partial: Vec::new() });
            }
            Event::StepExecuting { id } => self.show(&mut state, id),
            Event::StepOutput { id, bytes, .. } => self.output(&mut state, id, bytes),
            Event::StepFinished { id, outcome, elapsed, .. } => {
                if state.steps.get(&id).is_some_and(|step| !step.partial.is_empty()) {
                    self.output(&mut state, id, b"\n");
                }
                // One line is enough for what was not executed.
                if !matches!(outcome, Outcome::Cached | Outcome::Planned) {
                    self.show(&mut state, id);
                }
                let Some(step) = state.steps.remove(&id) else { return };
                match outcome {
                    Outcome::Cached => self.line(&format!("{DIM}[{}] cached: {}{DIM:#}", step.name, step.text)),
                    // Instant steps say enough by being there.
                    Outcome::Done | Outcome::Unsettled if elapsed < Duration::from_millis(500) => {}
                    Outcome::Done | Outcome::Unsettled => self.line(&format!("{DIM}[{}] {}{DIM:#}", step.name, duration(elapsed))),
                    Outcome::Planned => self.line(&format!("{YELLOW}[{}] would be executed:{YELLOW:#} {}", step.name, step.text)),
                    Outcome::Stopped => self.line(&format!("{DIM}[{}] stopped{DIM:#}", step.name)),
                    Outcome::Failed => self.line(&format!("{RED}[{}] failed{RED:#}", step.name)),
                }
            }
            Event::TransferStarted { id, what, total } => self.transfer_started(&mut state, id, what, total),
            Event::TransferAdvanced { id, done } => {
                if let Some(transfer) = state.transfers.get_mut(&id) {
                    transfer.done = done;
                    if let Some(bar) = &transfer.bar {
                        bar.set_position(done);
                    }
                }
            }
            Event::TransferFinished { id, note } => self.transfer_finished(&mut state, id, note),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, expected) in [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (123_456_789, "123 MB"), (1_500_000_000, "1.5 GB")] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn tables_do_not_steer_terminals() {
        let cell = "\u{1b}]0;evil\u{7}\u{9b}2J\u{202e}é".to_owned();
        assert_eq!(table(&["A", "B"], &[vec![cell, "b".into()]]).lines().nth(1), Some("\\u{1b}]0;evil\\u{7}\\u{9b}2J\\u{202e}é   b"));
        assert_eq!(escape_lines("a\tb\n\u{1b}[2J"), "a\tb\n\\u{1b}[2J");
    }

    #[test]
    fn errors_have_four_labels() {
        let snippet = Snippet {
            file: "Dockerfile".into(),
            line: 7,
            column: 1,
            text: "RUNN apt-get update".into(),
            width: 4,
            note: "expected an instruction".into(),
        };
        let error = Error::input("unknown instruction `RUNN`").at(Place::Text(Box::new(snippet))).cause("why").hint("did you mean `RUN`?");
        let plain = anstream::adapter::strip_str(&format_error(&error)).to_string();
        assert_eq!(
            plain,
            "error: unknown instruction `RUNN`\n  --> Dockerfile:7:1\n   |\n7  | RUNN apt-get update\n   | ^^^^ expected an instruction\ncause: why\nhint: did you mean `RUN`?\n"
        );
    }

    #[test]
    fn long_lines_are_cut_around_the_span() {
        let text = format!("{}BAD{}", "x".repeat(5000), "y".repeat(5000));
        let snippet = Snippet { file: "D".into(), line: 1, column: 5001, text, width: 3, note: String::new() };
        let plain = anstream::adapter::strip_str(&format_snippet(&snippet)).to_string();
        assert!(plain.contains("BAD") && plain.len() < 500, "{plain}");
    }
}
