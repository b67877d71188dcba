//! The critical path: the chain of steps that made the build take as long as it did.

use std::time::Duration;

use super::record::Step;

/// How far apart the end of one step and the start of the next may lie when the second did not wait for anything else.
const AT_ONCE: Duration = Duration::from_millis(5);

/// The steps that followed upon each other to the end of the build, first to last.
///
/// Found from the times alone: a step that began right after the one before it in its stage followed that one; a step that began later,
/// or opened its stage, followed whichever ended last before it. So it counts too what waited for a free processor.
pub fn critical(steps: &[Step]) -> Vec<usize> {
    let mut path = Vec::new();
    let mut at = last_of(steps, |_| true);
    while let Some(step) = at {
        path.push(step);
        at = before(steps, step);
    }
    path.reverse();
    path
}

/// The step that `step` followed.
fn before(steps: &[Step], step: usize) -> Option<usize> {
    let start = steps[step].start;
    let earlier = |other: usize| other < step && steps[other].end <= start;
    let in_stage = last_of(steps, |other| earlier(other) && steps[other].stage == steps[step].stage);
    match in_stage {
        Some(other) if start.saturating_sub(steps[other].end) <= AT_ONCE => Some(other),
        _ => last_of(steps, earlier),
    }
}

/// Among the steps that qualify, the one that ended last.
fn last_of(steps: &[Step], qualifies: impl Fn(usize) -> bool) -> Option<usize> {
    (0..steps.len()).filter(|&index| qualifies(index)).max_by_key(|&index| (steps[index].end, index))
}

#[cfg(test)]
mod tests {
    use super::super::record::testing::step;
    use super::*;
    use crate::event::Outcome::Done;

    #[test]
    fn follows_what_each_step_waited_for() {
        // `slow` and `quick` ran at the same time; `last` waited for both.
        let steps = vec![
            step("slow", 1, "FROM x", (0, 1), Done),
            step("quick", 1, "FROM x", (0, 1), Done),
            step("slow", 2, "RUN a", (1, 900), Done),
            step("quick", 2, "RUN b", (2, 300), Done),
            step("quick", 3, "RUN c", (301, 400), Done),
            step("last", 1, "FROM scratch", (901, 902), Done),
            step("last", 2, "COPY --from=slow / /", (903, 1000), Done),
        ];
        assert_eq!(critical(&steps), [0, 2, 5, 6]);
    }

    #[test]
    fn a_step_of_another_stage_that_ends_by_chance_is_not_followed() {
        let steps =
            vec![step("a", 1, "RUN a", (0, 500), Done), step("b", 1, "RUN b", (0, 501), Done), step("a", 2, "RUN c", (502, 900), Done)];
        assert_eq!(critical(&steps), [0, 2]);
    }

    #[test]
    fn nothing_ran() {
        assert_eq!(critical(&[]), Vec::<usize>::new());
    }
}
