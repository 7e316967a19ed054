//! The connections: so many at most. When all seats are taken, who comes gets that of whoever has been connected the longest
//! without a request, for connections that say nothing must not keep out a probe: the worker would be taken for dead.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Nobody has to go who has been without a request for less: long enough to send one, and for its answer to be read.
const PATIENCE: Duration = Duration::from_millis(500);

/// How soon somebody else is told to go, if the first one still sits there; and how often it is looked who may go.
const LOOK: Duration = Duration::from_millis(100);

pub(super) struct Seats {
    free: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
}

/// Connections without a request, by when that began.
#[derive(Default)]
struct Waiting {
    all: BTreeMap<Key, CancellationToken>,
    next: u64,
    /// When somebody was told to go for the one who waits now.
    told: Option<Instant>,
}

type Key = (Instant, u64);

impl Seats {
    pub fn new(seats: usize) -> Arc<Seats> {
        Arc::new(Seats { free: Arc::new(Semaphore::new(seats)), waiting: Mutex::default() })
    }

    pub fn free(&self) -> usize {
        self.free.available_permits()
    }

    /// Waits for one. Cancel-safe.
    pub async fn take(self: &Arc<Seats>) -> Seat {
        let place = loop {
            if let Ok(place) = self.free.clone().try_acquire_owned() {
                break place;
            }
            self.tell_somebody_to_go();
            tokio::select! {
                // It fails only when it is closed, and nobody closes it.
                Ok(place) = self.free.clone().acquire_owned() => break place,
                () = tokio::time::sleep(LOOK) => {}
            }
        };
        self.waiting().told = None;
        let seat = Seat { seats: self.clone(), key: Mutex::new(None), goes: CancellationToken::new(), _place: place };
        seat.waits();
        seat
    }

    fn tell_somebody_to_go(&self) {
        let mut waiting = self.waiting();
        if waiting.told.is_some_and(|told| told.elapsed() < LOOK) {
            return;
        }
        if let Some(first) = waiting.all.first_entry().filter(|first| first.key().0.elapsed() >= PATIENCE) {
            first.remove().cancel();
            waiting.told = Some(Instant::now());
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's.
pub(super) struct Seat {
    seats: Arc<Seats>,
    /// Its place among those that wait.
    key: Mutex<Option<Key>>,
    goes: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Seat {
    /// Somebody else needs it, and no request is under way: one may have come just then.
    pub async fn has_to_go(&self) {
        self.goes.cancelled().await;
        while self.key().is_none() {
            tokio::time::sleep(PATIENCE).await;
        }
    }

    /// It has a request, and may stay until that is answered.
    pub fn works(&self) {
        if let Some(key) = self.key().take() {
            self.seats.waiting().all.remove(&key);
        }
    }

    pub fn waits(&self) {
        let mut waiting = self.seats.waiting();
        let key = (Instant::now(), waiting.next);
        waiting.next += 1;
        waiting.all.insert(key, self.goes.clone());
        *self.key() = Some(key);
    }

    fn key(&self) -> MutexGuard<'_, Option<Key>> {
        self.key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.works();
    }
}
