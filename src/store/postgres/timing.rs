//! The server's clock is the clock of all workers: how far it is ahead of this machine's is measured again and again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Error};

use super::schema::number;
use crate::clock::Clock;
use crate::model::Time;

const EVERY: Duration = Duration::from_secs(60);

/// A measurement may be wrong by half of what it took.
const TOO_SLOW: Duration = Duration::from_secs(1);

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
