//! The sending account's quota: how many recipients a second and in any 24 hours. Pure arithmetic; the numbers that it
//! needs between two calls stand in one row of the store, so that all who send share them.
//!
//! The rate is a GCRA (ITU-T I.371): one theoretical arrival time, no timers. A permit names the moment from which its
//! call may start and perishes [`SLOT`] later, so no window of any length sees more calls than
//! `burst + rate * (length + slot)`. Permits are never given back; shares of the day are.

use std::time::Duration;

use crate::model::{Priority, Time};

/// A call starts within this from the moment that its permit names, or not at all.
pub const SLOT: Duration = Duration::from_millis(200);

/// Permits are given out so far ahead, so that one transaction serves several mails of a fast account, and a store that
/// stalls for as long costs a slow one no slot.
pub const AHEAD: Duration = Duration::from_millis(250);

/// The first call after a silence comes late to the server: its connection must be made, and its transaction is not written
/// yet. Those that follow wait for so long more, or the one a second later would come too early; at most for as long as one
/// call takes.
const FIRST_LATE: Duration = Duration::from_millis(50);

/// The part of the rate that is used: the server counts with a clock and a network of its own. A call that is so much later
/// on its way than the one a second after it makes that one come too early. A slow account leaves more free: one refusal
/// is worth seconds to it. And so does a fast one: a moment's delay holds up more calls.
pub fn used(per_second: f64) -> f64 {
    match per_second {
        _ if per_second < SLOW_BELOW => 0.991,
        _ if per_second < FAST_FROM => 0.994,
        _ => 0.9928,
    }
}

/// Where half a microsecond is at most a thousandth, and at least a five-thousandth.
const EXACT_US: (f64, f64) = (500.0, 2_500.0);

/// Calls a second.
const SLOW_BELOW: f64 = 100.0;
const FAST_FROM: f64 = 1_000.0;

/// A server that says "too fast" is believed: the rate falls by what so many mails are of a second's worth, so that some
/// mails too early, which come together, cost about as much as they were worth; at most by a tenth ...
const HEED_MAILS: f64 = 2.0;
const HEED_LEAST: f64 = 0.004;
const HEED_MOST: f64 = 0.1;
/// ... and never by more than [`HEED_MOST`] in this time, since many calls in flight hear the same thing at once: a server
/// that means it has the rate down to a tenth in half a minute ...
const HEED: Duration = Duration::from_secs(1);
/// ... never below this part ...
const SLOWEST: f64 = 0.1;
/// ... and grows back evenly, from nothing to all within this.
const RECOVERS_IN: Duration = Duration::from_secs(60);

/// A used share counts for so long (SES: "any 24-hour period").
pub const WINDOW: Duration = Duration::from_secs(86_400);

/// What may be sent, in recipients.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// `None`: as fast as can be.
    pub per_second: Option<f64>,
    /// In any 24 hours; `None`: without a bound.
    pub per_day: Option<u64>,
    /// May leave at once after a silence; at least 1.
    pub burst: u32,
    /// The part of `per_day` that only urgent mails may use.
    pub urgent_reserve: f64,
}

/// Where the rate stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// The theoretical arrival time: when the next call would come if all came evenly.
    pub tat: Time,
    /// The part of the rate that a server which said "too fast" was granted at `slowed_at`.
    pub factor: f64,
    pub slowed_at: Time,
}

impl Rate {
    pub const FULL: Rate = Rate { tat: Time::MIN, factor: 1.0, slowed_at: Time::MIN };

    /// The part of the rate that is used now.
    pub fn factor(&self, now: Time) -> f64 {
        if self.slowed_at > now {
            // The clock was set back; that is no reason to be slow until it is where it was.
            return 1.0;
        }
        let recovered = now.since(self.slowed_at).as_secs_f64() / RECOVERS_IN.as_secs_f64();
        (self.factor + recovered).clamp(SLOWEST, 1.0)
    }

    /// Recipients a second now; `None`: without a bound.
    pub fn per_second(&self, terms: &Terms, now: Time) -> Option<f64> {
        terms.per_second.map(|rate| rate * self.factor(now))
    }

    /// A permit for one call. `Ok`: it may start from then on, for [`SLOT`]. `Err`: none is free before then. What has
    /// become of `self` is to be kept in both cases.
    pub fn take(&mut self, terms: &Terms, now: Time) -> Result<Time, Time> {
        let Some(per_second) = self.per_second(terms, now) else { return Ok(now) };
        let interval = interval(per_second, self.tat);
        // Of the whole rate: to be slowed down must not save up more than before.
        let whole = self::interval(terms.per_second.unwrap_or(per_second), self.tat);
        let tolerance = whole.saturating_mul(terms.burst.saturating_sub(1));
        // A worker never sets it further ahead than this; others ask by clocks of their own, and some wait for their turn.
        // Further than any of that: the clock was set back, and would else stop all mail until it is where it was.
        let most = now.plus(AHEAD).plus(tolerance).plus(interval);
        let tat = if self.tat > most.plus(CLOCK_ERROR) { most } else { self.tat };
        // Kept also if there is no permit, or the wait would begin anew with each question.
        self.tat = tat;
        let from = tat.minus(tolerance).max(now);
        let latest = now.plus(AHEAD);
        if from > latest {
            return Err(from.minus(AHEAD));
        }
        // An account with a burst counts by more than even calls.
        let is_first = tat < now && tolerance.is_zero();
        let late = if is_first { FIRST_LATE.min(interval) } else { Duration::ZERO };
        self.tat = tat.max(from).plus(interval).plus(late);
        Ok(from)
    }

    /// The server said that this was too fast.
    pub fn slow_down(&mut self, terms: &Terms, now: Time) {
        // Without a rate of our own the server's is unknown.
        let by = terms.per_second.map_or(HEED_MOST, |rate| (HEED_MAILS / rate).clamp(HEED_LEAST, HEED_MOST));
        let again_in = HEED.mul_f64(by / HEED_MOST);
        if self.factor < 1.0 && self.slowed_at <= now && now.since(self.slowed_at) < again_in {
            return;
        }
        self.factor = (self.factor(now) * (1.0 - by)).max(SLOWEST);
        self.slowed_at = now;
    }
}

/// Clocks of workers that share an account differ by no more, a wait for the store's locks among it (lifecycle.md).
const CLOCK_ERROR: Duration = Duration::from_secs(60);

/// Between two calls of an even stream, the earlier at `tat`, in whole microseconds. Rounded up, that would cost a fast account a
/// part of its rate: there some are rounded down, as many as bring the mean to what it is, and half a microsecond between two calls
/// is far less than what is left free.
fn interval(per_second: f64, tat: Time) -> Duration {
    let us = 1_000_000.0 / (per_second * used(per_second));
    let is_up = f64::from(chance(tat)) < us.fract() * f64::from(u32::MAX);
    let us = if (EXACT_US.0..EXACT_US.1).contains(&us) && !is_up { us.floor() } else { us.ceil() };
    // A rate that is no rate (zero, NaN) is as slow as can be: once a day. Casting saturates.
    Duration::from_micros(if us.is_finite() && us >= 1.0 { (us as u64).min(86_400_000_000) } else { 86_400_000_000 })
}

/// A number that looks random and depends on this moment alone (the finalizer of SplitMix64).
fn chance(at: Time) -> u32 {
    let mut z = at.0 as u64;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z >> 32) as u32
}

/// Where the rolling 24 hours stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Day {
    /// Ours: sent, or nobody knows.
    pub used: u64,
    /// Ours: claimed, and not settled yet. However old, it still counts.
    pub reserved: u64,
    /// What others sent from the same account.
    pub external: u64,
}

impl Day {
    /// How many more mails of this priority may be claimed.
    pub fn room(&self, terms: &Terms, priority: Priority) -> u64 {
        let Some(per_day) = terms.per_day else { return u64::MAX };
        let kept = match priority {
            Priority::Urgent => 0,
            // Rounded up: even a small quota keeps something back for what is urgent.
            Priority::Normal | Priority::Bulk => (per_day as f64 * terms.urgent_reserve.clamp(0.0, 1.0)).ceil() as u64,
        };
        per_day.saturating_sub(kept).saturating_sub(self.used + self.reserved + self.external)
    }
}

/// The minute in which a share was used; shares of a minute leave the window together, with the last of them.
pub fn minute(at: Time) -> i64 {
    at.0.div_euclid(60_000_000)
}

/// Minutes before this one are out of the window.
pub fn first_minute(now: Time) -> i64 {
    minute(now.minus(WINDOW))
}

/// Shares that leave the window so soon after the account was asked count as what it says of others, not as ours: it may have
/// let go of them already, would hide as many mails of others, and they would make room once more when they leave. (Until the next
/// answer is here, the minute that they stand in among it, and some more.)
const EDGE: Duration = Duration::from_secs(180);

/// The first minute whose shares count as ours, beside what the account said of others when it was asked. (Asked at a moment that
/// is still to come: the clock was set back, and what is used from now on counts all the same; some may count twice.)
pub fn counted_from(now: Time, asked_at: Time) -> i64 {
    first_minute(now).max(first_minute(asked_at.min(now).plus(EDGE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_800_000_000_000_000);

    #[test]
    fn what_is_used_from_now_on_counts_whenever_the_account_was_asked() {
        let edge = minute(NOW.minus(WINDOW).plus(EDGE));
        assert_eq!(counted_from(NOW, NOW), edge);
        assert_eq!(counted_from(NOW, NOW.minus(Duration::from_secs(600))), first_minute(NOW), "nothing is at the edge");
        assert_eq!(counted_from(NOW, Time(0)), first_minute(NOW), "never asked");
        assert_eq!(counted_from(NOW, NOW.plus(2 * WINDOW)), edge, "the clock was set back");
    }
}
