//! What to speed up, read off the recording.

use std::time::Duration;

use crate::cli::render::{duration, size};
use crate::event::Outcome;

use super::record::{Recording, Step};
use super::text::fit;

/// What is faster than this is not worth anybody's time.
const WORTH: Duration = Duration::from_millis(500);

/// A step below this share of the build is not named among the slowest.
const SHARE: f64 = 0.05;

/// How many of the slowest steps are named.
const SLOWEST: usize = 3;

/// A layer above this many bytes is named.
const BIG: u64 = 100_000_000;

/// How much of an instruction is repeated, in pixels.
const SHOWN: f64 = 380.0;

/// Programs that fetch the same things again in every build, and where they keep them.
const FETCHERS: &[(&str, &str)] = &[
    ("apt-get install", "/var/cache/apt and /var/lib/apt"),
    ("apt install", "/var/cache/apt and /var/lib/apt"),
    ("dnf install", "/var/cache/dnf"),
    ("yum install", "/var/cache/yum"),
    ("apk add", "/var/cache/apk"),
    ("pip install", "~/.cache/pip"),
    ("pip3 install", "~/.cache/pip"),
    ("npm ci", "~/.npm"),
    ("npm install", "~/.npm"),
    ("cargo build", "/usr/local/cargo/registry and the target directory"),
    ("cargo install", "/usr/local/cargo/registry"),
    ("go build", "~/.cache/go-build and /go/pkg/mod"),
    ("mvn ", "~/.m2"),
];

/// Sentences for the author of the Dockerfile, what gains most first. Never empty.
pub fn advice(recording: &Recording, critical: &[usize]) -> Vec<String> {
    let mut lines = slowest(recording, critical);
    lines.extend(rerun(recording));
    lines.extend(fetchers(recording));
    lines.extend(transfers(recording));
    lines.extend(big_layers(recording));
    lines.extend(slack(recording, critical));
    if lines.is_empty() {
        let cached = recording.steps.iter().filter(|step| step.outcome == Some(Outcome::Cached)).count();
        lines.push(match cached {
            0 => "Nothing here takes long.".into(),
            _ => format!("Nothing here takes long: {cached} of {} steps came from the cache.", recording.steps.len()),
        });
    }
    lines
}

fn name(step: &Step) -> String {
    let place = if step.stage.is_empty() { format!("step {}", step.number) } else { format!("{} {}", step.stage, step.number) };
    format!("[{place}] {}", fit(&step.text, SHOWN))
}

fn share(part: Duration, total: Duration) -> f64 {
    part.as_secs_f64() / total.as_secs_f64().max(f64::MIN_POSITIVE)
}

fn executed(step: &Step) -> bool {
    step.outcome != Some(Outcome::Cached)
}

fn slowest(recording: &Recording, critical: &[usize]) -> Vec<String> {
    let worth = |&index: &usize| {
        let elapsed = recording.steps[index].elapsed();
        executed(&recording.steps[index]) && elapsed >= WORTH && share(elapsed, recording.total) >= SHARE
    };
    let mut steps: Vec<usize> = (0..recording.steps.len()).filter(worth).collect();
    // A long step that nothing waited for gains nothing, so it comes after those on the path.
    steps.sort_by_key(|&index| (!critical.contains(&index), std::cmp::Reverse(recording.steps[index].elapsed())));
    let line = |&index: &usize| {
        let step = &recording.steps[index];
        let percent = 100.0 * share(step.elapsed(), recording.total);
        let path =
            if critical.contains(&index) { "on the critical path" } else { "not on the critical path, so the build did not wait for it" };
        format!("{} took {}, {percent:.0} % of the build; it is {path}.", name(step), duration(step.elapsed()))
    };
    steps.iter().take(SLOWEST).map(line).collect()
}

/// The steps of each stage that ran again because one before them changed.
fn rerun(recording: &Recording) -> Vec<String> {
    // Where nothing came from the cache this was the first build, and order explains nothing.
    if recording.steps.iter().all(executed) {
        return Vec::new();
    }
    let mut lines = Vec::new();
    for stage in stages(recording) {
        let steps: Vec<&Step> = recording.steps.iter().filter(|step| step.stage == stage && makes_layer(step)).collect();
        // A stage whose base ran again ran because of that.
        if parent(recording, &stage)
            .is_some_and(|parent| recording.steps.iter().any(|s| s.stage == parent && makes_layer(s) && executed(s)))
        {
            continue;
        }
        let Some(first) = steps.iter().position(|step| executed(step)) else { continue };
        let after = &steps[first + 1..];
        let lost: Duration = after.iter().filter(|step| executed(step)).map(|step| step.elapsed()).sum();
        if lost >= WORTH {
            let (steps, ran) = if after.len() == 1 { ("step", "ran") } else { ("steps", "ran") };
            lines.push(format!(
                "{} was not in the cache, so the {} {steps} after it {ran} again ({}). What they don't need can move below them, or be copied in part.",
                name(steps_at(recording, &stage, first)),
                after.len(),
                duration(lost),
            ));
        }
    }
    lines
}

/// The stage that a stage starts from, if it starts from one.
fn parent(recording: &Recording, stage: &str) -> Option<String> {
    let from = recording.steps.iter().find(|step| step.stage == stage && step.instruction() == "FROM")?;
    let base = from.text.split_whitespace().skip(1).find(|word| !word.starts_with("--"))?;
    // With several platforms a stage's name has the platform before it.
    let prefix = stage.rsplit_once(' ').map_or("", |(prefix, _)| prefix);
    stages(recording).into_iter().find(|name| {
        let (its_prefix, own) = name.rsplit_once(' ').unwrap_or(("", name));
        its_prefix == prefix && own.eq_ignore_ascii_case(base)
    })
}

fn steps_at<'a>(recording: &'a Recording, stage: &str, position: usize) -> &'a Step {
    let mut steps = recording.steps.iter().filter(|step| step.stage == stage && makes_layer(step));
    steps.nth(position).expect("a position among these steps")
}

/// Whether a step is one that the cache answers for.
fn makes_layer(step: &Step) -> bool {
    matches!(step.instruction().as_str(), "RUN" | "COPY" | "ADD")
}

fn stages(recording: &Recording) -> Vec<String> {
    let mut stages: Vec<String> = Vec::new();
    for step in &recording.steps {
        if !stages.contains(&step.stage) {
            stages.push(step.stage.clone());
        }
    }
    stages
}

fn fetchers(recording: &Recording) -> Vec<String> {
    let slow = |step: &&Step| executed(step) && step.elapsed() >= WORTH && share(step.elapsed(), recording.total) >= SHARE;
    let mut lines = Vec::new();
    for step in recording.steps.iter().filter(slow) {
        let text = step.text.split_whitespace().collect::<Vec<_>>().join(" ");
        let fetcher = FETCHERS.iter().find(|(command, _)| text.contains(command));
        if let Some((command, places)) = fetcher.filter(|_| !text.contains("type=cache")) {
            let command = command.trim();
            lines.push(format!(
                "{}: `{command}` fetches everything anew; `RUN --mount=type=cache` on {places} keeps it between builds.",
                name(step)
            ));
        }
    }
    lines
}

fn transfers(recording: &Recording) -> Option<String> {
    let bytes: u64 = recording.transfers.iter().map(|transfer| transfer.bytes).sum();
    let start = recording.transfers.iter().filter(|transfer| transfer.bytes > 0).map(|transfer| transfer.start).min()?;
    let end = recording.transfers.iter().filter(|transfer| transfer.bytes > 0).map(|transfer| transfer.end).max()?;
    let time = end.saturating_sub(start);
    let worth = time >= WORTH && share(time, recording.total) >= SHARE;
    worth.then(|| {
        format!(
            "{} were moved in {}; a base that is pulled once is in the storage directory for the next build.",
            size(bytes),
            duration(time)
        )
    })
}

fn big_layers(recording: &Recording) -> Option<String> {
    let made = recording.steps.iter().filter(|step| makes_layer(step));
    let biggest = made.max_by_key(|step| step.layer).filter(|step| step.layer >= Some(BIG))?;
    Some(format!("{} makes the largest layer, {}.", name(biggest), size(biggest.layer.unwrap_or_default())))
}

/// Stages that ran beside the critical path.
fn slack(recording: &Recording, critical: &[usize]) -> Option<String> {
    let on_path: Vec<&str> = critical.iter().map(|&index| recording.steps[index].stage.as_str()).collect();
    let busy = |stage: &String| recording.steps.iter().filter(|s| s.stage == *stage).map(Step::elapsed).sum::<Duration>() >= WORTH;
    let beside: Vec<String> = stages(recording).into_iter().filter(|stage| !on_path.contains(&stage.as_str()) && busy(stage)).collect();
    (!beside.is_empty()).then(|| format!("Nothing waited for {}: making that faster does not make the build faster.", beside.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::super::path;
    use super::super::record::testing::{recording, step};
    use super::*;
    use crate::event::Outcome::{Cached, Done};

    #[track_caller]
    fn check(steps: Vec<Step>, expected: &[&str]) {
        let recording = recording(steps);
        let lines = advice(&recording, &path::critical(&recording.steps));
        assert_eq!(lines.len(), expected.len(), "{lines:#?}");
        for (line, part) in lines.iter().zip(expected) {
            assert!(line.contains(part), "no {part:?} in {lines:#?}");
        }
    }

    #[test]
    fn quick_builds_need_none() {
        check(Vec::new(), &["Nothing here takes long."]);
        check(vec![step("", 1, "FROM x", (0, 3), Done), step("", 2, "RUN a", (3, 4), Cached)], &["1 of 2 steps came from the cache"]);
    }

    #[test]
    fn long_steps_on_the_path_come_first() {
        let steps = vec![
            step("slow", 1, "RUN make", (0, 3000), Done),
            step("beside", 1, "RUN long test", (1, 2900), Done),
            step("last", 1, "RUN link", (3001, 4000), Done),
        ];
        let expected =
            ["[slow 1] RUN make took 3.0s, 75 % of the build; it is on", "[last 1]", "did not wait for it", "Nothing waited for beside"];
        check(steps, &expected);
    }

    #[test]
    fn a_changed_step_is_blamed_for_what_ran_after_it() {
        let steps = vec![
            step("", 1, "FROM x", (0, 1), Done),
            step("", 2, "RUN old", (1, 2), Cached),
            step("", 3, "COPY . /app", (2, 10), Done),
            step("", 4, "ENV A=b", (10, 11), Done),
            step("", 5, "RUN build", (11, 900), Done),
        ];
        check(
            steps,
            &["[step 5] RUN build took 0.9s", "[step 3] COPY . /app was not in the cache, so the 1 step after it ran again (0.9s)"],
        );
    }

    #[test]
    fn a_stage_on_a_changed_stage_is_not_blamed() {
        let steps = vec![
            step("one", 1, "FROM x AS one", (0, 1), Done),
            step("one", 2, "RUN old", (1, 2), Cached),
            step("one", 3, "COPY . /app", (2, 10), Done),
            step("two", 1, "FROM --platform=linux/amd64 One AS two", (10, 11), Done),
            step("two", 2, "COPY a b", (11, 12), Done),
            step("two", 3, "RUN build", (12, 900), Done),
        ];
        check(steps, &["[two 3] RUN build took 0.9s"]);
    }

    #[test]
    fn package_managers_without_a_cache_are_named() {
        let slow = vec![step("", 1, "RUN apt-get update && \\\n apt-get  install -y gcc", (0, 9000), Done)];
        check(slow, &["took 9.0s", "`apt-get install` fetches everything anew"]);
        let mounted = vec![step("", 1, "RUN --mount=type=cache,target=/var/cache/apt apt-get install -y gcc", (0, 9000), Done)];
        check(mounted, &["took 9.0s"]);
    }

    #[test]
    fn big_layers_are_named() {
        let step = Step { layer: Some(250_000_000), ..step("", 1, "COPY data /", (0, 100), Done) };
        check(vec![step], &["largest layer, 250 MB"]);
    }
}
