//! Ending what runs when something else has failed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Kind, Result};
use crate::event::next_id;
use crate::sandbox::{Killer, Running};

const STOPPED: &str = "stopped, since another stage failed";

/// Asks everything that belongs to one build to end.
#[derive(Default)]
pub struct Stop {
    stopped: AtomicBool,
    running: Mutex<BTreeMap<u64, Killer>>,
}

/// A command that is killed on [`Stop::stop`] until this is dropped.
pub struct Watched<'a> {
    stop: &'a Stop,
    id: u64,
}

impl Stop {
    /// Kills what runs; nothing new begins.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.running.lock().unwrap_or_else(PoisonError::into_inner).values().for_each(Killer::kill);
    }

    /// Whether it was asked.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// The error of what was ended because of it.
    pub fn error() -> Error {
        Error::with_kind(Kind::Interrupted, STOPPED)
    }

    /// Whether an error says no more than that something else failed.
    pub fn is_own(error: &Error) -> bool {
        error.kind() == Kind::Interrupted && error.what() == STOPPED
    }

    /// An error if it was asked.
    pub fn check(&self) -> Result<()> {
        if self.is_stopped() { Err(Self::error()) } else { Ok(()) }
    }

    /// Lets a command be killed.
    pub fn watch(&self, running: &Running) -> Result<Watched<'_>> {
        let id = next_id();
        let killer = running.killer()?;
        let mut watched = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked just now, before it could be seen here.
        if self.is_stopped() {
            killer.kill();
        }
        watched.insert(id, killer);
        Ok(Watched { stop: self, id })
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.stop.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
