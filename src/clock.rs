//! Time as the store tells it. Loops and pure code are handed a [`Time`]; nothing else reads a clock.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use crate::model::Time;

/// The store's clock: SQLite's is this machine's, PostgreSQL's is its server's.
pub trait Clock: Send + Sync {
    fn now(&self) -> Time;

    /// The store's server is so many microseconds ahead of this machine (or behind: below zero).
    fn follow(&self, _ahead_us: i64) {}

    /// As it was last told to [`Clock::follow`].
    fn ahead_us(&self) -> i64 {
        0
    }
}

/// So far this machine's clock may be from the store's before anybody is told. Nothing depends on it: all go by the store's.
/// But whoever reads its logs is led astray, and what proves who we are has a time in it.
const APART: Duration = Duration::from_secs(1);

/// That the two clocks are apart, in words; `None`: not by much.
pub fn apart(ahead_us: i64) -> Option<String> {
    let by = Duration::from_micros(ahead_us.unsigned_abs());
    let this_is = if ahead_us > 0 { "behind" } else { "ahead of" };
    (by >= APART).then(|| {
        format!(
            "this machine's clock is {:.1} s {this_is} the store's; the store's is the one that counts, so nothing is late or \
             early, but look at this machine's time synchronization",
            by.as_secs_f64()
        )
    })
}

/// The machine's wall clock, by the store's server where there is one. A jump of more than [`JUMP_MS`] against the monotonic clock is logged once: due times
/// follow the wall clock, and an operator wants to know why everything came at once, or late.
pub struct SystemClock {
    last: Mutex<(Time, Instant)>,
    ahead_us: AtomicI64,
}

const JUMP_MS: i64 = 5_000;

impl SystemClock {
    pub fn new() -> SystemClock {
        SystemClock { last: Mutex::new((wall(), Instant::now())), ahead_us: AtomicI64::new(0) }
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Time {
        let (now, mono) = (wall(), Instant::now());
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let expected = last.0.plus(mono.duration_since(last.1));
        let off_ms = (now.0 - expected.0) / 1_000;
        if off_ms.abs() > JUMP_MS {
            tracing::warn!(
                jump_ms = off_ms,
                "the system clock jumped; due times follow it, unless the store has a server, whose clock counts"
            );
        }
        *last = (now, mono);
        Time(now.0.saturating_add(self.ahead_us.load(Ordering::Relaxed)))
    }

    fn follow(&self, ahead_us: i64) {
        self.ahead_us.store(ahead_us, Ordering::Relaxed);
    }

    fn ahead_us(&self) -> i64 {
        self.ahead_us.load(Ordering::Relaxed)
    }
}

fn wall() -> Time {
    Time::from(jiff::Timestamp::now())
}

/// Tokio's clock, which tests can pause and move, on top of a given start.
pub struct VirtualClock {
    start: Time,
    began: tokio::time::Instant,
}

impl VirtualClock {
    pub fn starting_at(start: Time) -> VirtualClock {
        VirtualClock { start, began: tokio::time::Instant::now() }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Time {
        self.start.plus(self.began.elapsed())
    }
}
