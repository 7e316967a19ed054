//! The sends that have begun: those in a call, and those whose moment has not come yet.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

/// So many wait for their moment at most: their mails are rendered, and after a kill nobody knows of them. As many as an
/// account of 1,000/s gets permits for ahead; a faster one has more workers, or loses a little when its store stalls.
const WAITING_MAX: usize = 256;

/// Calls at the same time are bounded by the configuration; sends that wait for their moment do not count as calls, or a
/// fast account would not get its permits far enough ahead to live through a stall of the store.
pub(super) struct Calls {
    lines: Semaphore,
    in_flight: usize,
    waiting: AtomicUsize,
    /// Why none may be made.
    shut: Mutex<Option<Arc<str>>>,
}

impl Calls {
    pub fn new(in_flight: usize) -> Calls {
        Calls { lines: Semaphore::new(in_flight), in_flight, waiting: AtomicUsize::new(0), shut: Mutex::new(None) }
    }

    /// How many more of these `sends` may begin. None while all lines are taken: what waits would come too late.
    pub fn room(&self, sends: usize) -> usize {
        let waiting = self.waiting.load(Ordering::Relaxed);
        let calling = sends.saturating_sub(waiting);
        self.in_flight.saturating_sub(calling).min(WAITING_MAX.saturating_sub(waiting))
    }

    /// Until it is dropped, one waits.
    pub fn waits(self: &Arc<Self>) -> Waits {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waits(self.clone())
    }

    /// The mailer said, in these words, that no mail can leave: those that wait are to make no call of it; or (`None`) one may try
    /// again.
    pub fn shut(&self, why: Option<&str>) {
        *self.shut.lock().unwrap_or_else(PoisonError::into_inner) = why.map(Arc::from);
    }

    pub fn are_shut(&self) -> Option<Arc<str>> {
        self.shut.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A line for one call; `None`: there is none before `by`.
    pub async fn line(&self, by: Instant) -> Option<SemaphorePermit<'_>> {
        timeout_at(by, self.lines.acquire()).await.ok()?.ok()
    }
}

pub(super) struct Waits(Arc<Calls>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_its_moment_takes_no_line_and_is_bounded_itself() {
        let calls = Arc::new(Calls::new(32));
        assert_eq!(calls.room(0), 32);
        let mut waits: Vec<Waits> = (0..100).map(|_| calls.waits()).collect();
        assert_eq!(calls.room(100), 32, "all of them wait");
        assert_eq!(calls.room(110), 22, "ten are in a call");
        assert_eq!(calls.room(132), 0, "what begins now would come too late");
        waits.extend((0..150).map(|_| calls.waits()));
        assert_eq!(calls.room(250), 6);
        drop(waits);
        assert_eq!(calls.room(250), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_does_not_get_free_in_time_is_none() {
        let calls = Calls::new(1);
        let soon = || Instant::now() + std::time::Duration::from_millis(200);
        let line = calls.line(soon()).await;
        assert!(line.is_some());
        assert!(calls.line(soon()).await.is_none());
        drop(line);
        assert!(calls.line(soon()).await.is_some());
    }
}
