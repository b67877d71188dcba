//! Stages that stand on each other, several at a time.
//!
//! Each job is done once, by whoever needs it first; the others wait for it. Jobs need earlier jobs only, so nobody waits in a circle.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};

use super::stop::Stop;

/// The jobs of one build and what came of them.
pub struct Schedule<T> {
    cells: Mutex<Vec<Cell<T>>>,
    changed: Condvar,
}

enum Cell<T> {
    Waiting,
    Running,
    Done(T),
    Failed,
}

/// One job that is wanted for its own sake.
pub struct Job {
    /// Its number.
    pub number: usize,
    /// What it will ask for, as far as is known; less than all costs only time.
    pub needs: BTreeSet<usize>,
}

impl<T: Clone + Send> Schedule<T> {
    /// So many jobs, numbered from zero.
    pub fn new(count: usize) -> Self {
        Self { cells: Mutex::new((0..count).map(|_| Cell::Waiting).collect()), changed: Condvar::new() }
    }

    /// What came of a job; does it here if nobody has begun with it.
    ///
    /// Errors: the work's own, once; whoever asks for a job that failed elsewhere gets [`Stop::error`].
    pub fn result(&self, number: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut cells = self.lock();
        loop {
            match &cells[number] {
                Cell::Done(result) => return Ok(result.clone()),
                Cell::Failed => return Err(Stop::error()),
                Cell::Waiting => break,
                Cell::Running => cells = self.changed.wait(cells).unwrap_or_else(PoisonError::into_inner),
            }
        }
        cells[number] = Cell::Running;
        drop(cells);
        let begun = Begun { schedule: self, number };
        let result = work();
        if let Ok(result) = &result {
            self.lock()[number] = Cell::Done(result.clone());
        }
        drop(begun);
        result
    }

    /// Does all jobs, at most `width` at a time, earlier ones first. The first error stops the others and is returned.
    pub fn run(&self, jobs: &[Job], width: usize, stop: &Stop, work: &(dyn Fn(usize) -> Result<T> + Sync)) -> Result<()> {
        let taken = Mutex::new(BTreeSet::new());
        let first_error: Mutex<Option<Error>> = Mutex::new(None);
        let worker = || {
            while let Some(number) = self.next(jobs, &taken, stop) {
                if let Err(error) = self.result(number, || work(number)) {
                    // Who waited for what failed hears of it before whoever it failed for has said why.
                    if Stop::is_own(&error) {
                        continue;
                    }
                    let mut first = first_error.lock().unwrap_or_else(PoisonError::into_inner);
                    if !stop.is_stopped() {
                        first.get_or_insert(error);
                    }
                    stop.stop();
                    drop(first);
                    // Whoever holds the lock has yet to look, or waits already.
                    drop(self.lock());
                    self.changed.notify_all();
                }
            }
        };
        match jobs.len().min(width) {
            // A thread of its own would be a thread more in every build of one stage.
            0 | 1 => worker(),
            workers => std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(worker)))),
        }
        match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None if stop.is_stopped() => Err(Stop::error()),
            None => Ok(()),
        }
    }

    /// The first job nobody has taken and whose needs are met; waits for one. `None` when there is none any more.
    fn next(&self, jobs: &[Job], taken: &Mutex<BTreeSet<usize>>, stop: &Stop) -> Option<usize> {
        let mut cells = self.lock();
        loop {
            if stop.is_stopped() {
                return None;
            }
            let mut taken_jobs = taken.lock().unwrap_or_else(PoisonError::into_inner);
            let mut open = jobs.iter().filter(|job| !taken_jobs.contains(&job.number)).peekable();
            open.peek()?;
            // Where a need has failed, whoever did it is about to stop all.
            if let Some(job) = open.find(|job| job.needs.iter().all(|need| matches!(cells[*need], Cell::Done(_)))) {
                let number = job.number;
                taken_jobs.insert(number);
                return Some(number);
            }
            drop(taken_jobs);
            cells = self.changed.wait(cells).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Cell<T>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A job under way; dropped without a result it has failed, also when its work panicked.
struct Begun<'a, T> {
    schedule: &'a Schedule<T>,
    number: usize,
}

impl<T> Drop for Begun<'_, T> {
    fn drop(&mut self) {
        let cell = &mut self.schedule.cells.lock().unwrap_or_else(PoisonError::into_inner)[self.number];
        if matches!(cell, Cell::Running) {
            *cell = Cell::Failed;
        }
        self.schedule.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn job(number: usize, needs: &[usize]) -> Job {
        Job { number, needs: needs.iter().copied().collect() }
    }

    #[test]
    fn independent_jobs_run_at_the_same_time_and_each_once() {
        let schedule = Schedule::new(4);
        let jobs = [job(0, &[]), job(1, &[]), job(3, &[0, 1])];
        // Neither of the first two ends before both have begun.
        let (both, count) = (Barrier::new(2), AtomicUsize::new(0));
        schedule
            .run(&jobs, 2, &Stop::default(), &|number| {
                count.fetch_add(1, Ordering::SeqCst);
                if number < 2 {
                    both.wait();
                    return Ok(number);
                }
                // 2 was not asked for by itself, 3 found out that it needs it.
                let sum: usize = (0..3).map(|n| schedule.result(n, || Ok(10)).unwrap()).sum();
                Ok(sum)
            })
            .unwrap();
        assert_eq!(schedule.result(3, || panic!("done already")).unwrap(), 11);
        assert_eq!(count.into_inner(), 3);
    }

    #[test]
    fn the_first_error_stops_the_rest() {
        for width in [1, 4] {
            let schedule = Schedule::new(3);
            let jobs = [job(0, &[]), job(1, &[0]), job(2, &[1])];
            let error = schedule.run(&jobs, width, &Stop::default(), &|number| {
                assert_eq!(number, 0, "the others need it");
                Err::<(), _>(Error::new("broken"))
            });
            assert_eq!(error.unwrap_err().what(), "broken");
        }
    }
}
