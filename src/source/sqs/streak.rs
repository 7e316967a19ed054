//! Failures in a row, of calls that are made side by side: one outage fails all of them, and counts once.

use std::time::Duration;

use tokio::time::Instant;

/// The first and the longest wait after a call that failed; in between it doubles.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streak {
    count: u32,
    last: Option<Instant>,
}

impl Streak {
    /// Whether it counts: a call that began before the last failure which counted tells nothing new.
    pub fn fail(&mut self, began: Instant, now: Instant) -> bool {
        if self.last.is_some_and(|last| began < last) {
            return false;
        }
        self.count = self.count.saturating_add(1);
        self.last = Some(now);
        true
    }

    pub fn count(self) -> u32 {
        self.count
    }

    /// How long to wait now: zero without a failure. Half of the wait is chance: workers that failed together do not come
    /// back together.
    pub fn backoff(self) -> Duration {
        let Some(before) = self.count.checked_sub(1) else { return Duration::ZERO };
        let doubled = BACKOFF.0.saturating_mul(1u32.checked_shl(before).unwrap_or(u32::MAX));
        jittered(doubled.min(BACKOFF.1))
    }
}

/// From half of `longest` to all of it.
pub fn jittered(longest: Duration) -> Duration {
    longest.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_differ() {
        assert_eq!(Streak::default().backoff(), Duration::ZERO);
        for count in [1, 2, 5, 9, 40, u32::MAX] {
            let wait = Streak { count, last: None }.backoff();
            assert!(wait >= BACKOFF.0 / 2 && wait <= BACKOFF.1, "{count}: {wait:?}");
        }
        let waits: std::collections::BTreeSet<Duration> =
            (0..20).map(|_| Streak { count: 20, last: None }.backoff()).collect();
        assert!(waits.len() > 1);
    }

    #[test]
    fn what_fails_together_counts_once() {
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        let mut streak = Streak::default();
        let counted = (1..=8).filter(|n| streak.fail(began, began + second * *n)).count();
        assert_eq!((counted, streak.count()), (1, 1));
        assert!(streak.fail(began + second * 2, began + second * 3), "a call that was made after it");
        assert_eq!(streak.count(), 2);
    }
}
