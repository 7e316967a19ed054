//! The pace of one process. The store's permits already keep the account's rate; this spreads the calls of a replica that
//! stalled, so that it does not make up for it in a burst that the server would refuse.
//!
//! Two bounds: calls come evenly, or while something is made up for a little closer; and of as many calls as the server
//! takes in a second, the last one comes more than a second after the first. The second bound alone would let a second's
//! worth leave at once, the first alone would either lose what a stall cost or go beyond what the server takes.

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

mod recent;

use recent::Recent;

/// A mail takes at least so many cells: governor knows whole cells only, and what is tolerated is less than a mail.
const CELLS_MIN: f64 = 16.0;

/// A cell is at most so long: what is tolerated is some of them, also of a slow rate.
const CELL_MAX: Duration = Duration::from_millis(1);

/// A timer rings up to a millisecond late, a busy machine some more; without this, every such lateness would add up.
const TOLERANCE: Duration = Duration::from_millis(2);

/// A timer rings so late by its own make.
const TICK: Duration = Duration::from_millis(1);

/// So much closer calls come while they make up for a stall: a tenth of a second in each. The closer, the more of them come
/// early at a server that is a few milliseconds late with others.
const CATCHES_UP: f64 = 1.1;

/// So much of the rate more than the permits use counts within a second, so that what was late catches up; still less than
/// the server allows, whose clock and network are its own.
const SPARE: f64 = 0.001;

/// Slower or faster is none (once a day, a microsecond between two): arithmetic stays finite.
const RATES: (f64, f64) = (1.0 / 86_400.0, 1_000_000.0);

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
    set: Mutex<Option<Set>>,
    recent: Mutex<Recent>,
    /// Who came first goes first: where all wait for the same moment, some would lose each race until they are too late.
    first: tokio::sync::Mutex<()>,
}

/// Of one call, for what is said of it afterwards.
#[derive(Clone, Copy, Debug)]
pub struct Turn(Option<u64>);

#[derive(Clone)]
struct Set {
    terms: (f64, u32),
    limiter: Arc<Limiter>,
    /// Of one mail.
    cells: NonZeroU32,
    /// So many calls ...
    most: usize,
    /// ... in so long.
    span: Duration,
}

impl Pace {
    /// The account's rate and burst; `None`: as fast as can be. The same again changes nothing.
    pub fn set(&self, per_second: Option<f64>, burst: u32) {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let terms = per_second.map(|rate| (rate, burst));
        if set.as_ref().map(|s| s.terms) != terms {
            *set = terms.and_then(Set::new);
        }
    }

    /// Waits for the next turn; `None`: there is none before `by`.
    pub async fn turn(&self, by: Instant) -> Option<Turn> {
        let mut planned = Instant::now();
        let _first = tokio::time::timeout_at(by, self.first.lock()).await.ok()?;
        loop {
            let now = Instant::now();
            if now > by {
                return None;
            }
            match self.take(now, planned) {
                Ok(turn) => return Some(turn),
                Err(at) if at > by => return None,
                Err(at) => planned = at,
            }
            tokio::time::sleep_until(planned).await;
        }
    }

    /// `Err`: when to ask again. The terms are read anew each time: they may have changed while somebody waited.
    fn take(&self, now: Instant, planned: Instant) -> Result<Turn, Instant> {
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Nothing is counted that nobody would forget.
        let Some(set) = set else { return Ok(Turn(None)) };
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        match set.next(&mut recent, now) {
            Some(at) => Err(at),
            // What a timer is late by must not be waited for again in each second that follows.
            None => Ok(Turn(Some(recent.add(if now - planned <= TICK { planned } else { now })))),
        }
    }

    /// The server's answer to this call took so long.
    pub fn answered(&self, turn: Turn, took: Duration) {
        if let Some(no) = turn.0 {
            self.recent.lock().unwrap_or_else(PoisonError::into_inner).answered(no, took);
        }
    }
}

impl Set {
    /// `None`: so fast that there is nothing to pace.
    fn new(terms: (f64, u32)) -> Option<Set> {
        let (per_second, burst) = terms;
        if per_second >= RATES.1 {
            return None;
        }
        // Also of what is no rate.
        let per_second = per_second.max(RATES.0);
        let burst = burst.max(1);
        // Casted floats saturate.
        let second = per_second.max(1.0) as u32;
        let span = Duration::try_from_secs_f64(f64::from(second) / (per_second * (used(per_second) + SPARE))).ok()?;
        let mail_s = 1.0 / (per_second * CATCHES_UP);
        let cells = (mail_s / CELL_MAX.as_secs_f64()).ceil().max(CELLS_MIN);
        let cell = Duration::try_from_secs_f64(mail_s / cells).ok()?;
        let cells = cells as u32;
        let spare = TOLERANCE.as_nanos().checked_div(cell.as_nanos())?;
        let holds = cells.saturating_mul(burst).saturating_add(u32::try_from(spare).ok()?);
        let quota = Quota::with_period(cell)?.allow_burst(NonZeroU32::new(holds)?);
        Some(Set {
            terms,
            limiter: Arc::new(RateLimiter::direct_with_clock(quota, Monotonic(Instant::now()))),
            cells: NonZeroU32::new(cells)?,
            most: second.saturating_add(burst - 1) as usize,
            span,
        })
    }

    /// When to ask again; `None`: it is this call's turn.
    fn next(&self, recent: &mut Recent, now: Instant) -> Option<Instant> {
        recent.forget(now, self.span);
        let room_at = recent.back(self.most).map(|at| at + self.span);
        if room_at.is_some_and(|at| at > now) {
            return room_at;
        }
        match self.limiter.check_n(self.cells) {
            Ok(Ok(())) => None,
            Ok(Err(later)) => Some(now + later.wait_time_from(self.limiter.clock().now())),
            // More cells than the burst holds: it holds those of a mail by construction.
            Err(_) => Some(now + self.span),
        }
    }
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
                assert!(pace.turn(slot + Duration::from_millis(200)).await.is_some(), "call {n} of {per_second}/s");
                latest = latest.max(Instant::now() - slot);
            }
            assert!(latest < Duration::from_millis(10), "{latest:?} late at {per_second}/s");
        }
    }

    /// A machine with other work, a disk that is slow for a moment: what that costs is made up for, and a server that
    /// counts each second refuses none.
    #[tokio::test(start_paused = true)]
    async fn what_stalls_cost_is_made_up_for_within_the_rate() {
        for (per_second, seconds) in [(14.0_f64, 60.0), (14.9, 60.0), (100.0, 10.0), (500.0, 10.0), (2_000.0, 10.0)] {
            let pace = Arc::new(Pace::default());
            pace.set(Some(per_second), 1);
            let every = Duration::from_secs_f64(1.0 / (per_second * used(per_second)));
            let begun = Instant::now() + Duration::from_millis(10);
            let stalls = tokio::spawn(async {
                loop {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    tokio::time::advance(Duration::from_millis(15)).await;
                }
            });
            let mut calls = tokio::task::JoinSet::new();
            for n in 0..(per_second * seconds) as u32 {
                let (pace, slot) = (pace.clone(), begun + every * n);
                calls.spawn(async move {
                    tokio::time::sleep_until(slot).await;
                    pace.turn(slot + Duration::from_millis(200)).await.map(|_| Instant::now())
                });
            }
            let turns = calls.join_all().await;
            stalls.abort();
            let late = turns.iter().filter(|turn| turn.is_none()).count();
            assert_eq!(late, 0, "of {} calls at {per_second}/s", turns.len());
            let mut turns: Vec<Instant> = turns.into_iter().flatten().collect();
            turns.sort_unstable();
            let most = per_second as usize;
            for calls in turns.windows(most + 1) {
                let apart = calls[most] - calls[0];
                assert!(apart.as_secs_f64() > most as f64 / per_second, "more than {most} calls within {apart:?}");
            }
        }
    }

    /// What the account may send can change at any time; those who wait already go by the new terms.
    #[tokio::test(start_paused = true)]
    async fn who_waits_goes_by_the_terms_of_the_moment() {
        let pace = Arc::new(Pace::default());
        pace.set(Some(1.0), 1);
        let begun = Instant::now();
        let (far, soon) = (begun + Duration::from_secs(600), begun + Duration::from_secs(5));
        assert!(pace.turn(far).await.is_some(), "the first one");
        let calls: Vec<_> = (0..50).map(|_| pace.turn(far)).collect();
        let change = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            pace.set(Some(1_000.0), 1);
        };
        let (turns, ()) = tokio::join!(futures_util::future::join_all(calls), change);
        assert!(turns.iter().all(Option::is_some) && Instant::now() < soon, "{:?}", begun.elapsed());
        pace.set(None, 1);
        assert!(pace.turn(Instant::now()).await.is_some(), "no rate, no wait");
    }

    /// One that gave up, or came too late, takes nothing from those behind it.
    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_not_made_takes_no_turn() {
        for per_second in [0.5, 1.0] {
            let pace = Arc::new(Pace::default());
            pace.set(Some(per_second), 1);
            let far = Instant::now() + Duration::from_secs(600);
            assert!(pace.turn(far).await.is_some());
            let first = Instant::now();
            let wait = Duration::from_secs_f64(1.0 / per_second);
            assert!(tokio::time::timeout(wait / 2, pace.turn(far)).await.is_err(), "it gave up");
            tokio::time::sleep(wait * 2).await;
            assert!(pace.turn(Instant::now() - Duration::from_millis(1)).await.is_none(), "its time was over");
            let now = Instant::now();
            assert!(
                pace.turn(far).await.is_some() && Instant::now() == now,
                "the next one waits for nobody: {:?}",
                first.elapsed()
            );
        }
    }

    /// Whatever a configuration or an account says: slow is slow, and nothing breaks.
    #[tokio::test(start_paused = true)]
    async fn what_is_no_rate_is_as_slow_as_can_be() {
        for per_second in [0.0, -1.0, f64::NAN, 1e-19] {
            let pace = Pace::default();
            pace.set(Some(per_second), 1);
            assert!(pace.turn(Instant::now()).await.is_some(), "the first one at {per_second}");
            assert!(
                pace.turn(Instant::now() + Duration::from_secs(3_600)).await.is_none(),
                "an hour later at {per_second}"
            );
        }
        for per_second in [1e6, 1e300, f64::INFINITY] {
            let pace = Pace::default();
            pace.set(Some(per_second), 1);
            for _ in 0..100 {
                assert!(pace.turn(Instant::now()).await.is_some(), "{per_second}");
            }
        }
    }

    /// What was late is made up for over a second in which there is always somebody who waits.
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
                let in_time = pace.turn(slot + Duration::from_millis(200)).await.is_some();
                (asked, Instant::now(), in_time)
            });
        }
        let mut turns = calls.join_all().await;
        assert!(turns.iter().all(|(_, _, in_time)| *in_time), "a call is too late");
        turns.sort_by_key(|(asked, _, _)| *asked);
        assert!(turns.is_sorted_by_key(|(_, turn, _)| *turn), "a call was overtaken");
    }

    /// A network that holds calls up for a moment, and a server that counts them when they come.
    #[tokio::test(start_paused = true)]
    async fn calls_that_were_held_up_on_their_way_make_those_a_second_later_wait() {
        for per_second in [14.0_f64, 500.0] {
            let pace = Arc::new(Pace::default());
            pace.set(Some(per_second), 1);
            let every = Duration::from_secs_f64(1.0 / (per_second * used(per_second)));
            let begun = Instant::now();
            let mut calls = tokio::task::JoinSet::new();
            for n in 0..(per_second * 20.0) as u32 {
                let (pace, slot) = (pace.clone(), begun + every * n);
                calls.spawn(async move {
                    tokio::time::sleep_until(slot).await;
                    let turn = pace.turn(slot + Duration::from_millis(200)).await?;
                    let called = Instant::now();
                    // Each third second there is a moment in which nothing gets through.
                    let into = (called - begun).as_millis() as u64 % 3_000;
                    let held = if (1_000..1_080).contains(&into) { 1_080 - into } else { 0 };
                    tokio::time::sleep(Duration::from_millis(held + 1)).await;
                    let counted = Instant::now();
                    pace.answered(turn, called.elapsed());
                    Some(counted)
                });
            }
            let mut counted: Vec<Instant> = calls.join_all().await.into_iter().flatten().collect();
            assert!(counted.len() as f64 >= per_second * 20.0 * 0.998, "{} of {per_second}/s", counted.len());
            counted.sort_unstable();
            let most = per_second as usize;
            let early = counted.windows(most + 1).filter(|of| of[most] - of[0] <= Duration::from_secs(1)).count();
            assert_eq!(early, 0, "of {} at {per_second}/s", counted.len());
        }
    }

    /// Some answers of a real server take many times as long as others, for reasons of their own.
    #[tokio::test(start_paused = true)]
    async fn answers_that_are_late_one_by_one_cost_nearly_nothing_of_the_rate() {
        for (per_second, seconds) in [(100.0_f64, 40.0), (500.0, 20.0)] {
            let pace = Arc::new(Pace::default());
            pace.set(Some(per_second), 1);
            let every = Duration::from_secs_f64(1.0 / (per_second * used(per_second)));
            let begun = Instant::now();
            let mut calls = tokio::task::JoinSet::new();
            for n in 0..(per_second * seconds) as u32 {
                let (pace, slot) = (pace.clone(), begun + every * n);
                calls.spawn(async move {
                    tokio::time::sleep_until(slot).await;
                    let turn = pace.turn(slot + Duration::from_millis(200)).await?;
                    let called = Instant::now();
                    let late = n.wrapping_mul(2_654_435_761) % 20 == 7;
                    tokio::time::sleep(Duration::from_millis(if late { 400 } else { 20 })).await;
                    pace.answered(turn, called.elapsed());
                    Some(())
                });
            }
            let asked = per_second * seconds;
            let called = calls.join_all().await.into_iter().flatten().count() as f64;
            assert!(called >= asked * 0.98, "{called} of {asked} at {per_second}/s");
        }
    }
}
