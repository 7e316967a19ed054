//! The pace of one process. The store's permits already keep the account's rate; this spreads the calls of a replica that
//! stalled, so that it does not make up for it in a burst that the server would refuse.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

/// A mail takes so many cells: governor knows whole cells only, and what is tolerated is less than a mail.
const CELLS: u32 = 16;

/// A timer rings up to a millisecond late, a busy machine some more; without this, every such lateness would add up.
const TOLERANCE: Duration = Duration::from_millis(4);

/// Faster than the permits come (which use 0.994 of the rate), so that what was late catches up; slower than the server.
const USED: f64 = 0.998;

type Limiter = RateLimiter<NotKeyed, InMemoryState, Monotonic, NoOpMiddleware<Nanos>>;

/// tokio's clock, which tests can pause; governor's own waiting could not be.
#[derive(Clone, Debug)]
struct Monotonic(Instant);

impl Clock for Monotonic {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
}

/// Shared by all sends of a process. Without a rate, everybody's turn is now.
#[derive(Default)]
pub struct Pace {
    limiter: Mutex<Option<Set>>,
}

struct Set {
    terms: (f64, u32),
    limiter: Arc<Limiter>,
}

impl Pace {
    /// The account's rate and burst; `None`: as fast as can be. The same again changes nothing.
    pub fn set(&self, per_second: Option<f64>, burst: u32) {
        let mut set = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        let terms = per_second.map(|rate| (rate, burst));
        if set.as_ref().map(|s| s.terms) != terms {
            *set = terms.and_then(|terms| Some(Set { terms, limiter: Arc::new(limiter(terms)?) }));
        }
    }

    /// Waits for the next turn; `false`: there is none before `by`.
    pub async fn turn(&self, by: Instant) -> bool {
        let limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|s| s.limiter.clone());
        let Some(limiter) = limiter else { return Instant::now() <= by };
        let cells = NonZeroU32::new(CELLS).unwrap_or(NonZeroU32::MIN);
        loop {
            match limiter.check_n(cells) {
                Ok(Ok(())) => return Instant::now() <= by,
                Ok(Err(later)) => {
                    let wait = later.wait_time_from(limiter.clock().now());
                    let at = Instant::now() + wait;
                    if at > by {
                        return false;
                    }
                    tokio::time::sleep_until(at).await;
                }
                // More cells than the burst holds: it holds those of a mail by construction.
                Err(_) => return false,
            }
        }
    }
}

fn limiter((per_second, burst): (f64, u32)) -> Option<Limiter> {
    let cell = Duration::try_from_secs_f64(1.0 / (per_second * USED * f64::from(CELLS))).ok()?;
    let spare = TOLERANCE.as_nanos().checked_div(cell.as_nanos())?;
    let holds = CELLS.saturating_mul(burst.max(1)).saturating_add(u32::try_from(spare).ok()?);
    let quota = Quota::with_period(cell)?.allow_burst(NonZeroU32::new(holds)?);
    Some(RateLimiter::direct_with_clock(quota, Monotonic(Instant::now())))
}
