//! The server's clock is the clock of all workers: how far it is ahead of this machine's is measured again and again, and
//! each transaction that may write sees whether that is still so. A machine whose clock is set, or that stood still, would
//! end the leases of others, or have leases that are over for them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Error};

use super::schema::number;
use crate::clock::Clock;
use crate::model::Time;

const EVERY: Duration = Duration::from_secs(60);

/// A measurement may be wrong by half of what it took.
const TOO_SLOW: Duration = Duration::from_secs(1);

/// As far as this clock may be off before a transaction goes by the server's word: far more than clocks drift apart between two
/// measurements, and far less than a lease's margins.
const APART: Duration = Duration::from_millis(250);

pub(super) struct Timing {
    clock: Arc<dyn Clock>,
    measured: Mutex<Instant>,
    /// As it was told to the clock.
    ahead_us: Mutex<i64>,
}

impl Timing {
    pub fn new(clock: Arc<dyn Clock>) -> Timing {
        Timing { clock, measured: Mutex::new(Instant::now()), ahead_us: Mutex::new(0) }
    }

    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// Whether it is time to measure; says so to one who asks.
    pub fn is_old(&self) -> bool {
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        let old = measured.elapsed() >= EVERY;
        if old {
            *measured = Instant::now();
        }
        old
    }

    /// What the server's clock said between `asked` and now. Given back if this clock turns out to be off; it is set right
    /// then.
    pub fn heard(&self, server_us: i64, asked: Instant) -> Option<Time> {
        // Of transactions that find it at once, the first says so to the clock.
        let mut ahead = self.ahead_us.lock().unwrap_or_else(PoisonError::into_inner);
        // In this order: who is stopped in between takes it for a long way, not for a wrong clock.
        let mine = self.clock.now();
        let took = asked.elapsed();
        let off_us = server_us - mine.minus(took / 2).0;
        if off_us.unsigned_abs() <= (APART + took).as_micros() as u64 {
            return None;
        }
        let follows = ahead.saturating_add(off_us);
        self.clock.follow(follows);
        // Not every clock follows a server's (`Clock::follow`).
        if self.clock.ahead_us() != follows {
            return None;
        }
        *ahead = follows;
        tracing::warn!(
            off_ms = off_us / 1_000,
            "this machine's clock was set, or stood still; the store's is the one that counts"
        );
        Some(Time(server_us))
    }

    /// The answer was read half way between question and answer.
    pub async fn measure(&self, client: &Client) -> Result<(), Error> {
        // Asked in one round trip: preparing it first would count as half of the way.
        const READ: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8";
        let asked = self.clock.now();
        let server = number(client, READ).await?;
        let answered = self.clock.now();
        // A slow answer says too little; the next one, or the one before, says more.
        let Some(server) = server.filter(|_| answered.since(asked) <= TOO_SLOW) else { return Ok(()) };
        let middle = asked.0 + (answered.0 - asked.0) / 2;
        let mut ahead = self.ahead_us.lock().unwrap_or_else(PoisonError::into_inner);
        *ahead = ahead.saturating_add(server - middle);
        self.clock.follow(*ahead);
        Ok(())
    }
}
