//! Where everything in the picture stands: numbers, no drawing.
//!
//! Two parts over one time axis. Above, a lane for each stage with its steps as bars, and the transfers below them; so one sees what ran at
//! the same time. Below, a row for each step with its text, duration and bytes; so one can read what it was.

use std::time::Duration;

use crate::cli::render::{duration, size};
use crate::event::Outcome;

use super::record::{Recording, Step, Transfer};
use super::text::{fit, width};

/// Width of the picture in pixels.
pub const WIDTH: f64 = 1240.0;
/// Where the time axis begins.
pub const LEFT: f64 = 430.0;
/// Where the time axis ends.
pub const RIGHT: f64 = 1070.0;
/// Where the durations end, right-aligned.
pub const DURATIONS: f64 = 1142.0;
/// Where the bytes end, right-aligned.
pub const BYTES: f64 = 1224.0;
/// Space left of everything.
pub const MARGIN: f64 = 16.0;
/// Height of a row of text.
pub const ROW: f64 = 20.0;

/// Height of a lane, and of the bars in it.
const LANE: f64 = 30.0;
const BAR: f64 = 22.0;
const TRANSFER: f64 = 14.0;
const GAP: f64 = 18.0;
/// Above the first lane: the numbers of the axis.
const AXIS: f64 = 24.0;
/// What is shorter is drawn this wide, or it could not be seen.
const NARROWEST: f64 = 2.0;
/// Numbers on the axis at most.
const TICKS: f64 = 9.0;

/// Everything placed. The origin is the top left of the picture's first part.
#[derive(Debug, Default)]
pub struct Picture {
    /// Height in pixels.
    pub height: f64,
    /// The names of lanes and groups.
    pub labels: Vec<Label>,
    /// All bars.
    pub bars: Vec<Bar>,
    /// The rows of the second part.
    pub rows: Vec<Row>,
    /// The marks of the time axis, over the whole height.
    pub ticks: Vec<Tick>,
    /// The critical path from lane to lane: `(x, y)` to `(x, y)`.
    pub links: Vec<((f64, f64), (f64, f64))>,
}

/// A text at the left.
#[derive(Debug)]
pub struct Label {
    /// Its base line.
    pub y: f64,
    /// The text, short enough for its column.
    pub text: String,
}

/// A mark of the time axis.
#[derive(Debug)]
pub struct Tick {
    /// Where.
    pub x: f64,
    /// The time.
    pub text: String,
}

/// What a bar stands for; decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A FROM.
    Base,
    /// A RUN.
    Run,
    /// A COPY or ADD.
    Copy,
    /// A change of the configuration, or a WORKDIR.
    Config,
    /// Any of these, answered from the cache.
    Cached,
    /// Any of these, failed or interrupted.
    Failed,
    /// A download, upload or unpacking.
    Transfer,
}

/// A bar.
#[derive(Debug)]
pub struct Bar {
    /// Left edge.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
    /// What it stands for.
    pub kind: Kind,
    /// Whether it lies on the critical path.
    pub critical: bool,
    /// The text in it; empty where none fits.
    pub text: String,
    /// The whole story, shown by a pointer that rests on it.
    pub title: String,
}

/// A step's row in the second part.
#[derive(Debug)]
pub struct Row {
    /// The base line of its texts.
    pub y: f64,
    /// The step's name, such as `build 3`.
    pub name: String,
    /// Where the instruction begins.
    pub x: f64,
    /// The instruction, cut to its column.
    pub text: String,
    /// The instruction as written.
    pub title: String,
    /// How long it took, or `cached`.
    pub time: String,
    /// Bytes of its layer; empty without one.
    pub bytes: String,
    /// Whether it lies on the critical path.
    pub critical: bool,
}

/// Places everything.
pub fn layout(recording: &Recording, critical: &[usize]) -> Picture {
    let scale = Scale(recording.total.as_secs_f64().max(0.001));
    let mut picture = Picture { ticks: scale.ticks(), ..Picture::default() };
    let mut y = AXIS;
    let mut middles = vec![0.0; recording.steps.len()];
    for (stage, steps) in lanes(&recording.steps) {
        picture.labels.push(Label { y: y + LANE * 0.63, text: lane_name(&stage) });
        let rows = pack(steps.iter().map(|&index| (recording.steps[index].start, recording.steps[index].end)));
        for (&index, &row) in steps.iter().zip(&rows) {
            let top = y + row as f64 * LANE + (LANE - BAR) / 2.0;
            middles[index] = top + BAR / 2.0;
            picture.bars.push(step_bar(&scale, &recording.steps[index], (top, BAR), critical.contains(&index)));
        }
        y += LANE * (1 + rows.iter().max().copied().unwrap_or(0)) as f64;
    }
    y = transfers(&mut picture, &scale, &recording.transfers, y);
    picture.links = links(&scale, recording, critical, &middles);
    picture.height = rows(&mut picture, &scale, recording, critical, y + GAP);
    picture
}

/// Pixels of times, over so many seconds.
struct Scale(f64);

impl Scale {
    fn x(&self, time: Duration) -> f64 {
        LEFT + (RIGHT - LEFT) * (time.as_secs_f64() / self.0).min(1.0)
    }

    /// Left edge and width of an interval.
    fn span(&self, start: Duration, end: Duration) -> (f64, f64) {
        let x = self.x(start).min(RIGHT - NARROWEST);
        (x, (self.x(end) - x).max(NARROWEST))
    }

    /// Marks at round times: 1, 2 or 5 of some power of ten, and whole minutes beyond one.
    fn ticks(&self) -> Vec<Tick> {
        let least = self.0 / TICKS;
        let steps = (-3..=1).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)));
        let step = steps.chain([60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0]).find(|&step| step >= least).unwrap_or(least);
        let count = (self.0 / step) as usize;
        (0..=count).map(|n| Tick { x: self.x(Duration::from_secs_f64(n as f64 * step)), text: axis_time(n as f64 * step, step) }).collect()
    }
}

fn axis_time(seconds: f64, step: f64) -> String {
    match step {
        _ if seconds == 0.0 => "0".into(),
        step if step < 0.1 => format!("{:.0} ms", seconds * 1000.0),
        step if step < 1.0 => format!("{seconds:.1} s"),
        _ if seconds < 60.0 => format!("{seconds:.0} s"),
        _ => format!("{}:{:02} min", seconds as u64 / 60, seconds as u64 % 60),
    }
}

/// The steps of each stage, stages in the order in which they began.
fn lanes(steps: &[Step]) -> Vec<(String, Vec<usize>)> {
    let mut lanes: Vec<(String, Vec<usize>)> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        match lanes.iter_mut().find(|(stage, _)| *stage == step.stage) {
            Some((_, lane)) => lane.push(index),
            None => lanes.push((step.stage.clone(), vec![index])),
        }
    }
    lanes
}

fn lane_name(stage: &str) -> String {
    fit(if stage.is_empty() { "build" } else { stage }, LEFT - 2.0 * MARGIN)
}

/// The row for each interval such that those of one row don't overlap; intervals come in the order of their starts.
fn pack(intervals: impl Iterator<Item = (Duration, Duration)>) -> Vec<usize> {
    let mut ends: Vec<Duration> = Vec::new();
    let place = |(start, end)| {
        let row = ends.iter().position(|&taken| taken <= start).unwrap_or(ends.len());
        if row == ends.len() {
            ends.push(end);
        } else {
            ends[row] = end;
        }
        row
    };
    intervals.map(place).collect()
}

fn step_bar(scale: &Scale, step: &Step, (y, height): (f64, f64), critical: bool) -> Bar {
    let (x, width) = scale.span(step.start, step.end);
    let layer = step.layer.map(|bytes| format!(", layer {}", size(bytes))).unwrap_or_default();
    let path = if critical { ", on the critical path" } else { "" };
    let title = format!("{}\n{}{layer}{path}\nfrom {} to {}", step.text, time(step), taken(step.start), taken(step.end));
    Bar { x, y, width, height, kind: kind(step), critical, text: fit(&step.text, width - 10.0), title }
}

fn kind(step: &Step) -> Kind {
    match (step.outcome, step.instruction().as_str()) {
        (Some(Outcome::Cached), _) => Kind::Cached,
        (Some(Outcome::Failed | Outcome::Stopped) | None, _) => Kind::Failed,
        (_, "FROM") => Kind::Base,
        (_, "RUN") => Kind::Run,
        (_, "COPY" | "ADD") => Kind::Copy,
        _ => Kind::Config,
    }
}

/// How long a step took, in words.
pub fn time(step: &Step) -> String {
    let taken = taken(step.elapsed());
    match step.outcome {
        Some(Outcome::Cached) => "cached".into(),
        Some(Outcome::Failed) => format!("✗ {taken}"),
        Some(Outcome::Stopped) => "stopped".into(),
        _ => taken,
    }
}

/// A duration, in milliseconds where seconds would say nothing.
pub fn taken(time: Duration) -> String {
    if time < Duration::from_secs(1) { format!("{} ms", time.as_millis()) } else { duration(time) }
}

/// Places the transfers below `y`; returns where they end.
fn transfers(picture: &mut Picture, scale: &Scale, transfers: &[Transfer], y: f64) -> f64 {
    if transfers.is_empty() {
        return y;
    }
    picture.labels.push(Label { y: y + TRANSFER, text: "downloads and other transfers".into() });
    let rows = pack(transfers.iter().map(|transfer| (transfer.start, transfer.end)));
    for (transfer, &row) in transfers.iter().zip(&rows) {
        let (x, bar_width) = scale.span(transfer.start, transfer.end);
        let bytes = if transfer.bytes > 0 { format!(" {}", size(transfer.bytes)) } else { String::new() };
        let text = format!("{}{bytes}", transfer.what);
        let shown = if width(&text) <= bar_width - 10.0 { text.clone() } else { String::new() };
        let (y, height) = (y + 4.0 + row as f64 * (TRANSFER + 3.0), TRANSFER);
        let title = format!("{text}\n{} {}", transfer.note, taken(transfer.end.saturating_sub(transfer.start)));
        picture.bars.push(Bar { x, y, width: bar_width, height, kind: Kind::Transfer, critical: false, text: shown, title });
    }
    y + 4.0 + (1 + rows.iter().max().copied().unwrap_or(0)) as f64 * (TRANSFER + 3.0)
}

fn links(scale: &Scale, recording: &Recording, critical: &[usize], middles: &[f64]) -> Vec<((f64, f64), (f64, f64))> {
    let crosses = |pair: &&[usize]| middles[pair[0]] != middles[pair[1]];
    let link = |pair: &[usize]| {
        let (from, to) = (&recording.steps[pair[0]], &recording.steps[pair[1]]);
        ((scale.x(from.end), middles[pair[0]]), (scale.x(to.start), middles[pair[1]]))
    };
    critical.windows(2).filter(crosses).map(link).collect()
}

/// Places a row for each step below `y`; returns where they end.
fn rows(picture: &mut Picture, scale: &Scale, recording: &Recording, critical: &[usize], y: f64) -> f64 {
    let mut y = y;
    for (stage, steps) in lanes(&recording.steps) {
        for index in steps {
            let step = &recording.steps[index];
            let name = if stage.is_empty() { step.number.to_string() } else { format!("{} {}", fit(&stage, 140.0), step.number) };
            let x = MARGIN + width(&name) + 10.0;
            picture.rows.push(Row {
                y: y + ROW * 0.7,
                x,
                text: fit(&step.text, LEFT - x - 12.0),
                name,
                title: step.text.clone(),
                time: time(step),
                bytes: step.layer.map(size).unwrap_or_default(),
                critical: critical.contains(&index),
            });
            let bar = step_bar(scale, step, (y + 4.0, ROW - 8.0), critical.contains(&index));
            picture.bars.push(Bar { text: String::new(), ..bar });
            y += ROW;
        }
    }
    y
}

#[cfg(test)]
mod tests {
    use super::super::record::testing::{recording, step};
    use super::*;
    use crate::event::Outcome::{Cached, Done, Failed};

    fn two_stages() -> Recording {
        recording(vec![
            step("one", 1, "FROM a", (0, 100), Done),
            step("two", 1, "RUN b", (0, 500), Cached),
            step("one", 2, "RUN c", (100, 1000), Failed),
        ])
    }

    #[test]
    fn stages_have_lanes_of_their_own_over_one_axis() {
        let picture = layout(&two_stages(), &[0, 2]);
        let lane: Vec<(f64, f64, f64, Kind)> = picture.bars[..3].iter().map(|bar| (bar.x, bar.width, bar.y, bar.kind)).collect();
        let second = |fraction: f64| LEFT + (RIGHT - LEFT) * fraction;
        assert_eq!(lane[0], (second(0.0), 64.0, 28.0, Kind::Base));
        assert_eq!(lane[1], (second(0.1), 576.0, 28.0, Kind::Failed));
        assert_eq!(lane[2], (second(0.0), 320.0, 58.0, Kind::Cached));
        assert_eq!(picture.labels.iter().map(|l| l.text.as_str()).collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(
            picture.rows.iter().map(|r| (r.name.as_str(), r.critical)).collect::<Vec<_>>(),
            [("one 1", true), ("one 2", true), ("two 1", false)]
        );
        assert!(picture.bars.iter().all(|bar| bar.y + bar.height <= picture.height && bar.x + bar.width <= RIGHT + 0.1));
    }

    #[test]
    fn steps_of_one_name_at_the_same_time_get_rows_and_so_do_transfers() {
        let mut recording = recording(vec![step("s", 1, "RUN a", (0, 500), Done), step("s", 1, "RUN a", (100, 900), Done)]);
        assert_ne!(layout(&recording, &[]).bars[0].y, layout(&recording, &[]).bars[1].y);
        let transfer = |start, end| Transfer {
            what: "layer".into(),
            start: Duration::from_millis(start),
            end: Duration::from_millis(end),
            bytes: 7,
            note: "done".into(),
        };
        recording.transfers = vec![transfer(0, 100), transfer(50, 200), transfer(100, 300)];
        let picture = layout(&recording, &[]);
        let tops: Vec<f64> = picture.bars.iter().filter(|bar| bar.kind == Kind::Transfer).map(|bar| bar.y).collect();
        assert_eq!((tops[0] == tops[2], tops[0] == tops[1]), (true, false));
    }

    #[test]
    fn the_path_crosses_lanes() {
        let steps = vec![step("a", 1, "RUN a", (0, 500), Done), step("b", 1, "RUN b", (500, 1000), Done)];
        assert_eq!(layout(&recording(steps), &[0, 1]).links, [((750.0, 39.0), (750.0, 69.0))]);
    }

    #[test]
    fn instant_and_empty_builds_can_be_drawn() {
        assert!(layout(&Recording::default(), &[]).bars.is_empty());
        let picture = layout(&recording(vec![step("", 1, "FROM a", (0, 0), Done)]), &[0]);
        assert_eq!(picture.bars[0].width, NARROWEST);
        assert_eq!(picture.labels[0].text, "build");
    }

    #[test]
    fn axis_marks_are_round() {
        for (seconds, last, count) in
            [(0.05, "50 ms", 6), (0.9, "0.9 s", 10), (7.0, "7 s", 8), (61.0, "1:00 min", 7), (4000.0, "60:00 min", 7)]
        {
            let ticks = Scale(seconds).ticks();
            assert_eq!((ticks.last().unwrap().text.as_str(), ticks.len()), (last, count), "{seconds}");
        }
    }
}
