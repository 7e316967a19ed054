//! Digests that somebody else was seen to hold: a long transaction of another program, a server process that froze. They are
//! tried last, and for a moment only, so that they hold up no other.
//!
//! Whoever has the answer of such a digest's call could not store it either. So when its lease has ended meanwhile, it gets a
//! respite from the moment that its rows are free: ended at once, what was accepted would be a doubt first, and sent again.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::each::Kind;
use crate::model::Time;
use crate::store::ANSWERS_FIRST;

/// How long a list waits for a row: more than other workers' transactions take, and than the server needs to see a deadlock.
const LIST: Duration = Duration::from_secs(2);

/// The same while somebody is known to hold something: he may hold more of it. Other workers' transactions take less, but for
/// the largest batches.
const LIST_AMONG_STRANGERS: Duration = Duration::from_secs(1);

/// And one of them by itself.
pub const ALONE: Duration = Duration::from_millis(100);

/// One that was seen held already: only whether it still is.
pub const KNOWN: Duration = Duration::from_millis(10);

/// So long lists are impatient after something was seen held.
const LATELY: Duration = Duration::from_secs(30);

/// Remembered at most, some hundred kilobytes. What is not remembered holds up its list again, and gets no respite.
const MOST: usize = 16_384;

/// What was not seen held for a day is somebody else's by now.
const FORGET: Duration = Duration::from_secs(86_400);

/// By digest: when it was last seen held.
#[derive(Debug, Default)]
pub(in crate::store) struct Strangers {
    seen: HashMap<i64, Time>,
    last: Option<Time>,
    /// The last one that a list of each kind has tried.
    tried: BTreeMap<Kind, i64>,
}

impl Strangers {
    /// Somebody has it.
    pub fn hold(&mut self, digest: i64, now: Time) {
        if self.seen.len() >= MOST {
            self.seen.retain(|_, at| now.since(*at) < FORGET);
        }
        if self.seen.len() < MOST {
            self.seen.insert(digest, now);
        }
        self.last = Some(now);
    }

    /// Nobody has it any more.
    pub fn free(&mut self, digest: i64) {
        self.seen.remove(&digest);
    }

    pub fn have(&self, digest: i64) -> bool {
        self.seen.contains_key(&digest)
    }

    pub fn count(&self) -> usize {
        self.seen.len()
    }

    /// Where the next list of this kind goes on behind.
    pub fn last_tried(&self, kind: Kind) -> i64 {
        self.tried.get(&kind).copied().unwrap_or(i64::MIN)
    }

    pub fn tries(&mut self, kind: Kind, digest: i64) {
        self.tried.insert(kind, digest);
    }

    fn were_here_lately(&self, now: Time) -> bool {
        self.last.is_some_and(|at| now.since(at) < LATELY)
    }

    pub fn wait(&self, now: Time) -> Duration {
        if self.were_here_lately(now) { LIST_AMONG_STRANGERS } else { LIST }
    }

    /// Until when one that was just found free is left to whoever has its answer.
    pub fn respite(&self, digest: i64, now: Time) -> Option<Time> {
        self.have(digest).then(|| now.plus(ANSWERS_FIRST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_are_held_the_memory_of_it_is_bounded() {
        let mut strangers = Strangers::default();
        let day = |n: i64| Time(n * 86_400_000_000);
        (0..i64::try_from(MOST).unwrap()).for_each(|no| strangers.hold(no, day(0)));
        strangers.hold(-1, day(0));
        assert!(!strangers.have(-1) && strangers.were_here_lately(day(0)));
        strangers.hold(-1, day(2));
        assert!(strangers.have(-1) && strangers.count() == 1);
    }
}
