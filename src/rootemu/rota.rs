//! Who receives notifications, and who answers them.
//!
//! As long as a notification is not received, a signal can take it back: the caller's call then fails with EINTR unless the signal's handler is
//! one that restarts calls, and no program expects EINTR from stat (dash takes it for "there is no such file"). So while callers crowd, one
//! thread only receives, what it can't answer itself waits in a queue, and others answer.
//!
//! To wake a thread costs more than most answers. So while there is no crowd, the thread that receives also answers, and wakes nobody. Only
//! one receives at any time, since the kernel wakes all who wait for notifications.
//!
//! A handler can wait for long: for a file of a FUSE server, which may itself be a process of the step that needs an answer. So when nothing is
//! answered for some time though somebody asks, one thread more is started, and for long nobody answers who receives ([`Rota::look`]).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;

use crate::sys::notify::{self, Listener, Notification};

/// How long a crowd is believed to last, in notifications.
const CROWD: u32 = 32;
/// The same when a handler has waited for long, so that another may. Not for ever: perhaps this machine only had no time for us.
const WARY: u32 = 5000;
/// More threads than these are not started, however many wait.
const MOST_THREADS: usize = 64;
/// Threads that wait in the kernel when all is over are called this often.
const CALL: Duration = Duration::from_millis(5);

/// The rota of one supervisor.
pub struct Rota<'s> {
    listener: &'s Listener,
    state: Mutex<State>,
    change: Condvar,
    /// Notifications answered.
    answered: AtomicU64,
}

/// Threads are known by their number.
#[derive(Default)]
struct State {
    queue: VecDeque<Notification>,
    members: Vec<u32>,
    receiver: Option<u32>,
    answering: usize,
    /// How many may answer at once while callers crowd.
    limit: usize,
    /// Who called last.
    last: u32,
    /// For how many more notifications a crowd is believed to be there.
    crowd: u32,
    over: bool,
    failed: bool,
}

/// What [`Rota::look`] remembers from one time to the next.
#[derive(Default)]
pub struct Look {
    answered: u64,
    waited: bool,
}

/// A thread's place in the rota. Dropped, the thread has left it.
pub struct Duty<'r> {
    rota: &'r Rota<'r>,
    thread: u32,
    receives: bool,
    /// Is one of those who answer while another receives.
    answers: bool,
    /// Left because there is nothing more to do, not by failure or panic.
    regular: bool,
}

impl<'s> Rota<'s> {
    /// A rota by which `limit` threads answer at once; one more receives.
    pub fn new(listener: &'s Listener, limit: usize) -> Self {
        let state = Mutex::new(State { limit, ..State::default() });
        Self { listener, state, change: Condvar::new(), answered: AtomicU64::new(0) }
    }

    /// How many threads there should be.
    pub fn size(&self) -> usize {
        self.lock().limit + 1
    }

    /// Adds the calling thread.
    pub fn enter(&self) -> Duty<'_> {
        let thread = notify::this_thread();
        self.lock().members.push(thread);
        Duty { rota: self, thread, receives: false, answers: false, regular: false }
    }

    /// Whether a thread has failed, so that calls may be left without answer.
    pub fn has_failed(&self) -> bool {
        self.lock().failed
    }

    /// To be called regularly: makes room for one thread more when those there are do not come back.
    pub fn look(&self, last: &mut Look) {
        let answered = self.answered.load(Ordering::Relaxed);
        let unreceived = self.listener.is_ready();
        let mut state = self.lock();
        let waits = unreceived || !state.queue.is_empty();
        let stuck = waits && last.waited && last.answered == answered;
        *last = Look { answered, waited: waits && !stuck };
        if stuck && state.limit + 1 < MOST_THREADS {
            state.limit += 1;
            state.crowd = WARY;
            if unreceived {
                state.receiver = None;
            }
            self.change.notify_all();
        }
    }

    /// Ends everyone's duty. Returns when all have left.
    pub fn end(&self) {
        let mut state = self.lock();
        state.over = true;
        self.change.notify_all();
        while !state.members.is_empty() {
            let (next, waited) = self.change.wait_timeout(state, CALL).unwrap_or_else(PoisonError::into_inner);
            state = next;
            if waited.timed_out() {
                state.members.iter().for_each(|&thread| notify::interrupt(thread));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a thread without duty does next.
enum Part {
    Answer(Notification),
    Receive,
    Leave,
}

impl Duty<'_> {
    /// The next notification to answer; waits for one. `None`: the thread shall leave.
    pub fn next(&mut self) -> Result<Option<Notification>, Errno> {
        loop {
            if !self.receives {
                match self.take_part() {
                    Part::Answer(note) => return Ok(Some(note)),
                    Part::Receive => {}
                    Part::Leave => break,
                }
            }
            match self.keep() {
                Some(note) => return Ok(Some(note)),
                None if !self.receives => continue,
                None => {}
            }
            match self.rota.listener.receive() {
                Ok(note) => self.enqueue(note),
                // Called by the end; or any other signal.
                Err(Errno::EINTR) if !self.rota.lock().over => {}
                // The caller was killed; or it was the last.
                Err(Errno::ENOENT) if !self.rota.listener.is_dead() => {}
                Err(Errno::EINTR | Errno::ENOENT) => break,
                Err(error) => return Err(error),
            }
        }
        self.regular = true;
        Ok(None)
    }

    /// To be called when a notification has been answered.
    pub fn answered(&mut self) {
        self.rota.answered.fetch_add(1, Ordering::Relaxed);
        if self.answers {
            self.answers = false;
            self.rota.lock().answering -= 1;
        }
    }

    /// Receives everything that waits, so that no signal takes it back. To be called before an answer that will cause a signal.
    pub fn receive_waiting(&self) {
        // If somebody else receives it is done anyway.
        while self.receives && self.rota.listener.is_ready() {
            let Ok(note) = self.rota.listener.receive() else { return };
            let mut state = self.rota.lock();
            state.queue.push_back(note);
            state.crowd = state.crowd.max(CROWD);
        }
    }

    fn take_part(&mut self) -> Part {
        let rota = self.rota;
        let mut state = rota.lock();
        loop {
            if state.over {
                return Part::Leave;
            }
            if let Some(note) = state.take() {
                self.answers = true;
                return Part::Answer(note);
            }
            if state.receiver.is_none() {
                state.receiver = Some(self.thread);
                self.receives = true;
                return Part::Receive;
            }
            state = rota.change.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn enqueue(&self, note: Notification) {
        let mut state = self.rota.lock();
        let same = state.last == note.thread;
        state.last = note.thread;
        state.queue.push_back(note);
        state.crowd = match state.crowd {
            0 if !same && self.rota.listener.is_ready() => CROWD,
            crowd => crowd.saturating_sub(1),
        };
    }

    /// What a receiver takes for itself of what it has received: everything while it is alone. In a crowd, what it takes makes another thread
    /// receive, and it takes nothing while enough others answer.
    fn keep(&mut self) -> Option<Notification> {
        let mut state = self.rota.lock();
        if state.receiver != Some(self.thread) {
            self.receives = false;
            return None;
        }
        if state.crowd == 0 && state.answering == 0 {
            return state.queue.pop_front();
        }
        let note = state.take()?;
        (self.answers, self.receives) = (true, false);
        state.receiver = None;
        self.rota.change.notify_one();
        Some(note)
    }
}

impl State {
    /// The next to be answered, unless enough threads answer.
    fn take(&mut self) -> Option<Notification> {
        if self.answering >= self.limit {
            return None;
        }
        let note = self.queue.pop_front()?;
        self.answering += 1;
        Some(note)
    }
}

impl Drop for Duty<'_> {
    fn drop(&mut self) {
        let mut state = self.rota.lock();
        state.members.retain(|&thread| thread != self.thread);
        state.answering -= usize::from(self.answers);
        if state.receiver == Some(self.thread) {
            state.receiver = None;
        }
        state.failed |= !self.regular;
        self.rota.change.notify_all();
    }
}
