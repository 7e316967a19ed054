//! The calls of the last second, as the server may have counted them.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

/// An answer that took so many times as long as usual was late on its way, or its call was: nobody knows.
const LATE: u32 = 2;

/// What is usual follows what nearly all answers take: it rises with each that takes longer, and falls with the others,
/// so that one in some seventy takes longer. A few that are held up together are no new habit; a server that has become
/// slow is one after some two hundred. What was far too long falls faster.
const RISES: f64 = 1.02;
const FALLS: f64 = 0.9997;
const FAR: u32 = 4;
const FALLS_FAST: f64 = 0.97;

/// Timers and schedulers are no better.
const LEAST: Duration = Duration::from_millis(1);

/// No more than a second takes: what is older is forgotten.
#[derive(Default)]
pub(super) struct Recent {
    /// When each was counted at the latest, as far as is known, in that order: one that was late holds up nobody before
    /// the calls that it came among.
    counted: BTreeSet<(Instant, u64)>,
    /// The same by number.
    calls: HashMap<u64, Instant>,
    next: u64,
    usual: Option<Duration>,
    /// The first answer of all, until the second one tells whether it was late: its call made the connection.
    first: Option<(u64, Duration)>,
}

impl Recent {
    /// Forgets what was counted more than `span` ago.
    pub fn forget(&mut self, now: Instant, span: Duration) {
        while let Some((_, no)) = self.counted.first().copied().filter(|(at, _)| *at + span <= now) {
            self.counted.pop_first();
            self.calls.remove(&no);
        }
    }

    /// When the call was counted that `most` ones are from, itself among them.
    pub fn back(&self, most: usize) -> Option<Instant> {
        // At the start, and after a rate that was higher, there are others; else it is the first one.
        let skip = self.counted.len().checked_sub(most)?;
        self.counted.iter().nth(skip).map(|(at, _)| *at)
    }

    pub fn add(&mut self, at: Instant) -> u64 {
        let no = self.next;
        self.next += 1;
        self.counted.insert((at, no));
        self.calls.insert(no, at);
        no
    }

    /// A call whose answer took longer than usual may have been counted so much later.
    pub fn answered(&mut self, no: u64, took: Duration) {
        let took = took.max(LEAST);
        let usual = match (self.usual, self.first.take()) {
            (None, _) => {
                self.first = Some((no, took));
                took
            }
            (Some(_), Some((first, late))) if late > took * LATE => {
                self.was_late(first, late - took);
                took
            }
            (Some(usual), _) => usual,
        };
        if took > usual * LATE {
            self.was_late(no, took - usual);
        }
        let by = match took {
            _ if took > usual => RISES,
            _ if took < usual / FAR => FALLS_FAST,
            _ => FALLS,
        };
        self.usual = Some(usual.mul_f64(by).max(LEAST));
    }

    fn was_late(&mut self, no: u64, by: Duration) {
        if let Some(at) = self.calls.get_mut(&no)
            && self.counted.remove(&(*at, no))
        {
            *at += by;
            self.counted.insert((*at, no));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_moves_its_call_and_a_usual_one_does_not() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        for _ in 0..3 {
            let no = recent.add(now);
            recent.answered(no, ms(10));
        }
        assert_eq!(recent.back(1), Some(now));
        let late = recent.add(now);
        let usual = recent.add(now);
        recent.answered(usual, ms(12));
        recent.answered(late, ms(60));
        assert_eq!(recent.back(2), Some(now), "all others are where they were");
        let moved = recent.back(1).unwrap() - now;
        assert!(ms(48) < moved && moved < ms(51), "{moved:?}");
        recent.forget(now + ms(1_000), ms(1_000));
        assert_eq!((recent.back(1), recent.back(2)), (Some(now + moved), None), "it is the only one that still counts");
    }

    /// A new worker takes over from one that leaves: the second after its first call must not have one too many.
    #[tokio::test(start_paused = true)]
    async fn the_call_that_made_the_connection_was_late_as_the_second_one_tells() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        let (first, second) = (recent.add(now), recent.add(now));
        recent.answered(first, ms(40));
        assert_eq!(recent.back(1), Some(now), "nobody knows yet what is usual");
        recent.answered(second, ms(10));
        assert_eq!((recent.back(1), recent.back(2)), (Some(now + ms(30)), Some(now)));
        let third = recent.add(now);
        recent.answered(third, ms(15));
        assert_eq!(recent.back(2), Some(now), "ten is usual");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_forgotten_is_not_moved() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        let old = recent.add(now);
        recent.answered(old, ms(1));
        recent.forget(now + ms(1_000), ms(1_000));
        let new = recent.add(now + ms(1_000));
        recent.answered(old, ms(900));
        assert_eq!((recent.back(1), recent.back(2)), (Some(now + ms(1_000)), None));
        assert_eq!((old, new), (0, 1));
    }

    /// A server far away, whose answers take what they take, costs nothing of the rate.
    #[tokio::test(start_paused = true)]
    async fn a_server_that_has_become_slow_is_usual_soon_and_so_is_one_that_is_fast_again() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        let mut moved = |took: Duration, calls: u32| {
            (0..calls)
                .filter(|_| {
                    let no = recent.add(now);
                    recent.answered(no, took);
                    recent.calls.get(&no) != Some(&now)
                })
                .count()
        };
        assert_eq!(moved(ms(2), 100), 0);
        let until_usual = moved(ms(200), 500);
        assert!((1..300).contains(&until_usual), "{until_usual}");
        assert_eq!(moved(ms(2), 500), 0);
        assert!(moved(ms(200), 1) == 1, "two milliseconds are usual again");
    }
}
