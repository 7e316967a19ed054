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

use crate::quota::used;

/// A mail takes at least so many cells: governor knows whole cells only, and what is tolerated is less than a mail.
const CELLS_MIN: f64 = 16.0;

/// A cell is at most so long: what is tolerated is some of them, also of a slow rate.
const CELL_MAX: Duration = Duration::from_millis(1);

/// A timer rings up to a millisecond late, a busy machine some more; without this, every such lateness would add up. With
/// more than a few, a server that counts each second would see one call too many in some.
const TOLERANCE: Duration = Duration::from_millis(2);

/// So much of the rate more than the permits use, so that what was late catches up; still less than the server allows.
const CATCHES_UP: f64 = 0.002;

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
    /// Who came first goes first: where all wait for the same moment, some would lose each race until they are too late.
    queue: tokio::sync::Mutex<()>,
}

struct Set {
    terms: (f64, u32),
    limiter: Arc<Limiter>,
    /// Of one mail.
    cells: NonZeroU32,
}

impl Pace {
    /// The account's rate and burst; `None`: as fast as can be. The same again changes nothing.
    pub fn set(&self, per_second: Option<f64>, burst: u32) {
        let mut set = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        let terms = per_second.map(|rate| (rate, burst));
        if set.as_ref().map(|s| s.terms) != terms {
            *set = terms.and_then(|terms| {
                let (limiter, cells) = limiter(terms)?;
                Some(Set { terms, limiter: Arc::new(limiter), cells })
            });
        }
    }

    /// Waits for the next turn; `false`: there is none before `by`.
    pub async fn turn(&self, by: Instant) -> bool {
        let of_mail = {
            let set = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
            set.as_ref().map(|s| (s.limiter.clone(), s.cells))
        };
        let Some((limiter, cells)) = of_mail else { return Instant::now() <= by };
        let Ok(_first) = tokio::time::timeout_at(by, self.queue.lock()).await else { return false };
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

/// With how many cells a mail takes.
fn limiter((per_second, burst): (f64, u32)) -> Option<(Limiter, NonZeroU32)> {
    let mail_s = 1.0 / (per_second * (used(per_second) + CATCHES_UP));
    let cells = (mail_s / CELL_MAX.as_secs_f64()).ceil().max(CELLS_MIN);
    let cell = Duration::try_from_secs_f64(mail_s / cells).ok()?;
    // A casted float saturates.
    let cells = cells as u32;
    let spare = TOLERANCE.as_nanos().checked_div(cell.as_nanos())?;
    let holds = cells.saturating_mul(burst.max(1)).saturating_add(u32::try_from(spare).ok()?);
    let quota = Quota::with_period(cell)?.allow_burst(NonZeroU32::new(holds)?);
    Some((RateLimiter::direct_with_clock(quota, Monotonic(Instant::now())), NonZeroU32::new(cells)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Permits name moments to the microsecond; timers ring in whole milliseconds.
    #[tokio::test(start_paused = true)]
    async fn calls_whose_timers_ring_late_do_not_get_later_and_later() {
        for per_second in [1.0, 14.0, 50.0, 499.0] {
            let pace = Pace::default();
            pace.set(Some(per_second), 1);
            let (begun, every) = (
                Instant::now() + Duration::from_millis(10),
                Duration::from_secs_f64(1.0 / (per_second * used(per_second))),
            );
            let mut latest = Duration::ZERO;
            for n in 0..2_000 {
                let slot = begun + every * n;
                tokio::time::sleep_until(slot).await;
                assert!(pace.turn(slot + Duration::from_millis(200)).await, "call {n} of {per_second}/s");
                latest = latest.max(Instant::now() - slot);
            }
            assert!(latest < Duration::from_millis(10), "{latest:?} late at {per_second}/s");
        }
    }

    /// What was late is caught up slowly, so that for seconds there is always somebody who waits.
    #[tokio::test(start_paused = true)]
    async fn after_a_stall_the_call_that_came_first_goes_first() {
        let pace = Arc::new(Pace::default());
        pace.set(Some(500.0), 1);
        let (begun, every) = (Instant::now(), Duration::from_secs_f64(1.0 / (500.0 * used(500.0))));
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..2_000 {
            let (pace, slot) = (pace.clone(), begun + every * n);
            calls.spawn(async move {
                tokio::time::sleep_until(slot.max(begun + Duration::from_millis(50))).await;
                let asked = Instant::now();
                let in_time = pace.turn(slot + Duration::from_millis(200)).await;
                (asked, Instant::now(), in_time)
            });
        }
        let mut turns = calls.join_all().await;
        assert!(turns.iter().all(|(_, _, in_time)| *in_time), "a call is too late");
        turns.sort_by_key(|(asked, _, _)| *asked);
        assert!(turns.is_sorted_by_key(|(_, turn, _)| *turn), "a call was overtaken");
    }
}
