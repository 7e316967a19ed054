//! How long a failed attempt waits.

use std::time::Duration;

/// Exponential backoff with full jitter: attempts that failed together do not come back together, and no wait is longer
/// than `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait after the first counted attempt; it doubles with each further one.
    pub first: Duration,
    pub max: Duration,
}

/// The shortest wait: a retry at the very moment of the failure would be none.
const LEAST: Duration = Duration::from_millis(1);

impl Backoff {
    /// The wait after `burned` counted attempts (0 counts as 1): evenly spread over 1 ms to `first * 2^(burned - 1)`, at
    /// most `max`, in whole microseconds. It depends on the arguments alone, so that a run can be replayed; `seed` is the
    /// attempt's id, so that no two attempts share their luck.
    pub fn wait(&self, seed: &[u8], burned: u32) -> Duration {
        let doubled = 2u32.checked_pow(burned.saturating_sub(1)).and_then(|by| self.first.checked_mul(by));
        let longest = doubled.unwrap_or(Duration::MAX).min(self.max);
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        // 1 ms is among the choices even where `max` is shorter.
        let choices = micros(longest).saturating_sub(micros(LEAST)).saturating_add(1);
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"backoff");
        hasher.update(seed);
        let mut eight = [0; 8];
        hasher.finalize_xof().fill(&mut eight);
        // The upper half of the product is even over 0..choices to within choices / 2^64.
        let chosen = (u128::from(u64::from_le_bytes(eight)) * u128::from(choices)) >> 64;
        LEAST + Duration::from_micros(u64::try_from(chosen).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn backoff() -> impl Strategy<Value = Backoff> {
        (0u64..10_000_000_000, 0u64..10_000_000_000)
            .prop_map(|(f, m)| Backoff { first: Duration::from_micros(f), max: Duration::from_micros(m) })
    }

    proptest! {
        #[test]
        fn a_wait_lies_between_a_millisecond_and_its_bound(b in backoff(), seed: Vec<u8>, burned: u32) {
            let wait = b.wait(&seed, burned);
            let bound = b.first.saturating_mul(2u32.saturating_pow(burned.saturating_sub(1))).min(b.max).max(LEAST);
            prop_assert!(wait >= LEAST && wait <= bound, "{wait:?} of {bound:?}");
        }

        #[test]
        fn the_same_attempt_waits_the_same_each_time_it_is_asked(b in backoff(), seed: Vec<u8>, burned: u32) {
            prop_assert_eq!(b.wait(&seed, burned), b.wait(&seed, burned));
        }

        #[test]
        fn extreme_settings_do_not_panic(f: u64, m: u64, burned: u32) {
            let b = Backoff { first: Duration::new(f, 999_999_999), max: Duration::new(m, 999_999_999) };
            prop_assert!(b.wait(b"1f2e3d4c-5k.1", burned) >= LEAST);
        }
    }

    #[test]
    fn many_attempts_are_spread_evenly_over_the_whole_range() {
        let b = Backoff { first: Duration::from_secs(10), max: Duration::from_secs(3_600) };
        let mut tenths = [0u32; 10];
        for n in 0..10_000u32 {
            let wait = b.wait(format!("1f2e3d4c-5k.{n}").as_bytes(), 1);
            tenths[((wait.as_micros() - 1) / 1_000_000) as usize] += 1;
        }
        // 1,000 expected in each; 5 standard deviations are 150.
        assert!(tenths.iter().all(|n| (850..=1_150).contains(n)), "{tenths:?}");
    }

    #[test]
    fn the_bound_doubles_up_to_the_maximum() {
        let b = Backoff { first: Duration::from_secs(10), max: Duration::from_secs(60) };
        let longest =
            |burned| (0..2_000u32).map(|n| b.wait(&n.to_le_bytes(), burned)).max().unwrap_or_default().as_secs_f64();
        for (burned, bound) in [(0, 10.0), (1, 10.0), (2, 20.0), (3, 40.0), (4, 60.0), (40, 60.0)] {
            assert!(longest(burned) <= bound && longest(burned) > bound * 0.98, "after {burned}");
        }
    }
}
