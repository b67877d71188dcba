//! A listener between a build and its printer that notes what happened when.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::event::{Event, Outcome, Sink};

/// Passes every event on and notes steps and transfers, with times from a clock that only goes forward.
pub struct Recorder<'a> {
    next: &'a dyn Sink,
    start: Instant,
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    steps: Vec<Step>,
    transfers: Vec<Transfer>,
    /// Where the step or transfer of an event's number stands.
    places: BTreeMap<u64, usize>,
}

/// All that happened; times count from the start of the build.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// In the order in which they began.
    pub steps: Vec<Step>,
    /// In the order in which they began.
    pub transfers: Vec<Transfer>,
    /// How long everything took.
    pub total: Duration,
}

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    /// The stage, empty where there is one only.
    pub stage: String,
    /// Position in the stage, from 1.
    pub number: usize,
    /// The instruction as written.
    pub text: String,
    /// When it began.
    pub start: Duration,
    /// When it ended; the end of the build if it did not end by itself.
    pub end: Duration,
    /// How it ended; `None` if the build ended first.
    pub outcome: Option<Outcome>,
    /// Bytes of the layer it made or found.
    pub layer: Option<u64>,
}

/// One download, upload or unpacking.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// What was moved.
    pub what: String,
    /// When it began.
    pub start: Duration,
    /// When it ended; the end of the build if it did not end by itself.
    pub end: Duration,
    /// Bytes moved.
    pub bytes: u64,
    /// How it ended, such as `already here`; empty while under way.
    pub note: String,
}

impl Step {
    /// How long it took.
    pub fn elapsed(&self) -> Duration {
        self.end.saturating_sub(self.start)
    }

    /// The instruction's name in capitals.
    pub fn instruction(&self) -> String {
        self.text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase()
    }
}

impl<'a> Recorder<'a> {
    /// Starts the clock. Every event goes on to `next`.
    pub fn new(next: &'a dyn Sink) -> Self {
        Self { next, start: Instant::now(), noted: Mutex::default() }
    }

    /// Stops the clock: what has not ended by now ends now.
    pub fn finish(self) -> Recording {
        let total = self.start.elapsed();
        let mut noted = self.noted.into_inner().unwrap_or_else(PoisonError::into_inner);
        noted.steps.iter_mut().filter(|step| step.outcome.is_none()).for_each(|step| step.end = total);
        noted.transfers.iter_mut().filter(|transfer| transfer.note.is_empty()).for_each(|transfer| transfer.end = total);
        Recording { steps: noted.steps, transfers: noted.transfers, total }
    }
}

impl Sink for Recorder<'_> {
    fn event(&self, event: Event<'_>) {
        let now = self.start.elapsed();
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).note(now, &event);
        self.next.event(event);
    }
}

impl Noted {
    fn note(&mut self, now: Duration, event: &Event<'_>) {
        match *event {
            Event::StepStarted { id, stage, number, text, .. } => {
                self.places.insert(id, self.steps.len());
                let (stage, text) = (stage.to_owned(), text.trim().to_owned());
                self.steps.push(Step { stage, number, text, start: now, end: now, outcome: None, layer: None });
            }
            Event::StepFinished { id, outcome, layer, .. } => {
                if let Some(step) = self.places.get(&id).and_then(|&place| self.steps.get_mut(place)) {
                    (step.end, step.outcome, step.layer) = (now, Some(outcome), layer);
                }
            }
            Event::TransferStarted { id, what, .. } => {
                self.places.insert(id, self.transfers.len());
                self.transfers.push(Transfer { what: what.to_owned(), start: now, end: now, bytes: 0, note: String::new() });
            }
            Event::TransferAdvanced { id, done } => {
                if let Some(transfer) = self.places.get(&id).and_then(|&place| self.transfers.get_mut(place)) {
                    transfer.bytes = done;
                }
            }
            Event::TransferFinished { id, note } => {
                if let Some(transfer) = self.places.get(&id).and_then(|&place| self.transfers.get_mut(place)) {
                    transfer.end = now;
                    transfer.note = if note.is_empty() { "done" } else { note }.to_owned();
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
pub mod testing {
    use super::{Outcome, Recording, Step};
    use std::time::Duration;

    /// A step of the stage from `start` to `end`, in milliseconds.
    pub fn step(stage: &str, number: usize, text: &str, (start, end): (u64, u64), outcome: Outcome) -> Step {
        let (start, end) = (Duration::from_millis(start), Duration::from_millis(end));
        Step { stage: stage.into(), number, text: text.into(), start, end, outcome: Some(outcome), layer: None }
    }

    /// A recording of these steps that ends with the last of them.
    pub fn recording(steps: Vec<Step>) -> Recording {
        let total = steps.iter().map(|step| step.end).max().unwrap_or_default();
        Recording { steps, transfers: Vec::new(), total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Silent;

    #[test]
    fn notes_steps_and_transfers_and_closes_what_is_open() {
        let recorder = Recorder::new(&Silent);
        recorder.event(Event::StepStarted { id: 1, stage: "a", number: 2, total: 3, text: "RUN x\n" });
        recorder.event(Event::TransferStarted { id: 2, what: "layer", total: Some(9) });
        recorder.event(Event::TransferAdvanced { id: 2, done: 9 });
        recorder.event(Event::TransferFinished { id: 2, note: "" });
        recorder.event(Event::StepFinished { id: 1, outcome: Outcome::Done, elapsed: Duration::ZERO, layer: Some(512) });
        recorder.event(Event::StepStarted { id: 3, stage: "a", number: 3, total: 3, text: "RUN y" });
        let recording = recorder.finish();
        let [first, second] = &recording.steps[..] else { panic!("{recording:?}") };
        assert_eq!((first.number, first.text.as_str(), first.layer), (2, "RUN x", Some(512)));
        assert_eq!((second.outcome, second.end), (None, recording.total));
        assert_eq!((recording.transfers[0].bytes, recording.transfers[0].note.as_str()), (9, "done"));
    }
}
