//! Some things at the same time; the first that fails ends the others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::Result;

/// Works on all items, `at_once` at a time, in their order. Work under way can see that another has failed.
pub(super) fn each<T: Send>(items: Vec<T>, at_once: usize, work: impl Fn(T, &AtomicBool) -> Result<()> + Sync) -> Result<()> {
    let workers = items.len().min(at_once);
    let queue = Mutex::new(items.into_iter());
    let (stop, first_error) = (AtomicBool::new(false), Mutex::new(None));
    let run = || {
        while !stop.load(Ordering::Relaxed) {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(item) = next else { return };
            if let Err(error) = work(item, &stop) {
                stop.store(true, Ordering::Relaxed);
                first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(run))));
    first_error.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
