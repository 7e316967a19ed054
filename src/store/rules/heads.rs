//! Where the living begin in the indexes of what is due and of what is under way (PostgreSQL). What leaves an index there is a
//! dead entry until the next vacuum; and as long as anybody's transaction is older than that, each look that begins at the
//! front reads the row behind every one of them. So the front is looked for now and then, and the looks between begin there.
//!
//! What is set is set from now on, so that it comes behind the front; what does not (another's clock, a window whose time has
//! come before it was made) is found with the next look for it. What this process sets itself is known at once, unless a look
//! comes between that and its commit.

use std::collections::BTreeMap;
use std::time::Duration;

use super::books::Books;
use super::tx::{Row, params};
use super::{Shared, sql};
use crate::model::{DigestState, Priority, Time};
use crate::store::Result;

/// How often the front is looked for at most, and so how late what comes before it may be found ...
const EVERY: Duration = Duration::from_secs(1);
/// ... unless that takes long: of the server's time it gets one part in so many ...
const PART: u32 = 50;
/// ... as far as nothing is found later than that.
const AT_MOST: Duration = Duration::from_secs(10);
/// No look counts for longer than that beyond its time: who has not looked any more knows nothing.
const FRESH: Duration = Duration::from_secs(10);

/// Lanes that one claim looks at: some hundred microseconds. The next one goes on behind them.
pub(super) const LANES_MAX: i64 = 256;

/// What commits after a look was dated so much before it at most, in due times ...
const DUE_BEFORE: Duration = Duration::from_secs(1);
/// ... and in ends of leases and doubts, with clocks that differ by a minute (lifecycle.md): the count of what is reserved of
/// the day must miss none.
const UNTIL_BEFORE: Duration = Duration::from_secs(120);

#[derive(Default)]
pub(super) struct Heads {
    due: [Due; Priority::ALL.len()],
    until: Head,
}

#[derive(Default)]
struct Due {
    head: Head,
    /// The front of each lane; `None`: there are more than a claim looks at.
    lanes: Option<BTreeMap<i64, i64>>,
}

#[derive(Default)]
struct Head(Option<Seen>);

#[derive(Clone, Copy)]
struct Seen {
    from: i64,
    at: Time,
    /// So long it counts.
    counts: Duration,
}

impl Head {
    fn is_old(&self, now: Time) -> bool {
        self.0.is_none_or(|seen| seen.at > now || now.since(seen.at) >= seen.counts)
    }

    /// Nothing that lives is before this.
    fn from(&self, now: Time) -> i64 {
        let fresh = self.0.filter(|seen| seen.at <= now && now.since(seen.at) <= seen.counts + FRESH);
        fresh.map_or(i64::MIN, |seen| seen.from)
    }

    fn found(&mut self, now: Time, before: Duration, (first, took_us): First) {
        let took = Duration::from_micros(u64::try_from(took_us).unwrap_or(0));
        let from = with_margin(first.unwrap_or(i64::MAX), now, before);
        self.0 = Some(Seen { from, at: now, counts: EVERY.max((took * PART).min(AT_MOST)) });
    }

    fn sees(&mut self, at: i64) {
        if let Some(seen) = &mut self.0 {
            seen.from = seen.from.min(at);
        }
    }
}

/// What commits now may come before the first that is there.
fn with_margin(first: i64, now: Time, before: Duration) -> i64 {
    first.min(now.minus(before).0)
}

/// The first that lives, and how long the server looked for it, in microseconds.
type First = (Option<i64>, i64);

fn first(row: &Row<'_>) -> Result<First> {
    Ok((row.get(0)?, row.get(1)?))
}

impl Heads {
    /// A digest is about to be written.
    pub fn sees(&mut self, state: DigestState, priority: Priority, lane: i64, due_at: Time, until: Option<Time>) {
        match state {
            DigestState::Gathering | DigestState::Waiting => {
                let Some(due) = self.due.get_mut(priority as usize) else { return };
                due.head.sees(due_at.0);
                let front = due.head.0.map_or(i64::MIN, |seen| seen.from);
                if let Some(lanes) = due.lanes.as_mut().filter(|_| lane != 0) {
                    lanes.entry(lane).and_modify(|first| *first = due_at.0.min(*first)).or_insert(front);
                    if lanes.len() >= LANES_MAX as usize {
                        due.lanes = None;
                    }
                }
            }
            DigestState::Leased | DigestState::Sending | DigestState::InDoubt => {
                until.iter().for_each(|at| self.until.sees(at.0));
            }
            DigestState::Held | DigestState::Closed => {}
        }
    }

    fn comes_to(&mut self, priority: Priority, now: Time, lanes: &[(i64, i64)]) {
        let Some(known) = self.due.get_mut(priority as usize).and_then(|due| due.lanes.as_mut()) else { return };
        for (lane, first) in lanes {
            if let Some(known) = known.get_mut(lane) {
                *known = with_margin(*first, now, DUE_BEFORE);
            }
        }
    }
}

impl Books<'_> {
    /// Looks for the front of what is due, if it is time to.
    pub fn look_for_due(&self, priority: Priority) -> Result<()> {
        if !self.tx.is_postgres() || !self.shared.heads(|heads| heads.due[priority as usize].head.is_old(self.now)) {
            return Ok(());
        }
        let of = priority as i64;
        let (due, took_us) = self.tx.query_row(sql::PG_FIRST_DUE, [of], first)?;
        let mut lanes = BTreeMap::new();
        let mut lanes_took_us = 0;
        // Nothing of any lane is before the first of all.
        let from = due.unwrap_or(i64::MAX);
        let of_lanes = params![of, i64::MIN, self.now.0, LANES_MAX, from];
        self.without_sort(|| {
            self.tx.prepare_cached(sql::PG_LANES)?.each(of_lanes, |row| {
                lanes.insert(row.get(0)?, with_margin(row.get(3)?, self.now, DUE_BEFORE));
                lanes_took_us = row.get(4)?;
                Ok(true)
            })
        })?;
        self.shared.heads(|heads| {
            let known = &mut heads.due[priority as usize];
            known.head.found(self.now, DUE_BEFORE, (due, took_us + lanes_took_us));
            known.lanes = Some(lanes).filter(|lanes| lanes.len() < LANES_MAX as usize);
        });
        Ok(())
    }

    /// The same of what is under way.
    pub fn look_for_until(&self) -> Result<()> {
        if !self.tx.is_postgres() || !self.shared.heads(|heads| heads.until.is_old(self.now)) {
            return Ok(());
        }
        let found = self.tx.query_row(sql::PG_FIRST_UNTIL, (), first)?;
        self.shared.heads(|heads| heads.until.found(self.now, UNTIL_BEFORE, found));
        Ok(())
    }
}

impl Shared {
    /// Nothing of this priority that lives is due before then.
    pub fn due_from(&self, priority: Priority, now: Time) -> i64 {
        self.heads(|heads| heads.due[priority as usize].head.from(now))
    }

    /// The same as it was last seen, for a question just behind a claim.
    pub fn due_front(&self, priority: Priority) -> i64 {
        self.heads(|heads| heads.due[priority as usize].head.0.map_or(i64::MIN, |seen| seen.from))
    }

    /// Nothing that is under way or in doubt ends before then.
    pub fn until_from(&self, now: Time) -> i64 {
        self.heads(|heads| heads.until.from(now))
    }

    /// The same as it was last seen, for a question just behind a look for what has ended.
    pub fn until_front(&self) -> i64 {
        self.heads(|heads| heads.until.0.map_or(i64::MIN, |seen| seen.from))
    }

    /// The lanes, each with where it begins; `None`: nobody knows.
    pub fn lanes_from(&self, priority: Priority) -> Option<Vec<(i64, i64)>> {
        self.heads(|heads| {
            heads.due[priority as usize].lanes.as_ref().map(|all| all.iter().map(|(l, f)| (*l, *f)).collect())
        })
    }

    /// A claim has come to the first of these lanes.
    pub fn comes_to(&self, priority: Priority, now: Time, lanes: &[(i64, i64)]) {
        self.heads(|heads| heads.comes_to(priority, now, lanes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_800_000_000_000_000);

    fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn found(first: Option<i64>, took_us: i64) -> Head {
        let mut head = Head::default();
        head.found(NOW, DUE_BEFORE, (first, took_us));
        head
    }

    #[test]
    fn the_front_is_the_first_that_lives_and_never_later_than_what_may_commit_now() {
        assert_eq!(found(Some(NOW.minus(s(60)).0), 0).from(NOW), NOW.minus(s(60)).0);
        assert_eq!(found(Some(NOW.plus(s(60)).0), 0).from(NOW), NOW.minus(DUE_BEFORE).0);
        assert_eq!(found(None, 0).from(NOW), NOW.minus(DUE_BEFORE).0);
        let mut head = found(None, 0);
        head.sees(NOW.minus(s(30)).0);
        head.sees(NOW.0);
        assert_eq!(head.from(NOW), NOW.minus(s(30)).0, "what is set here is known at once");
        // A clock that is a minute behind, and a commit that takes as long.
        let mut under_way = Head::default();
        under_way.found(NOW, UNTIL_BEFORE, (Some(NOW.plus(s(300)).0), 0));
        assert_eq!(under_way.from(NOW), NOW.minus(s(120)).0);
    }

    /// Where a look steps over a million dead entries, it costs no more than a part of the server's time; but nothing is found
    /// much later because of that.
    #[test]
    fn a_look_counts_for_a_second_or_for_fifty_times_as_long_as_it_took_and_for_ten_at_most() {
        for (took_us, counts) in [(0, s(1)), (19_000, s(1)), (100_000, s(5)), (20_000_000, s(10))] {
            let head = found(None, took_us);
            assert!(!head.is_old(NOW.plus(counts - Duration::from_millis(1))), "{took_us}");
            assert!(head.is_old(NOW.plus(counts)), "{took_us}");
        }
    }

    #[test]
    fn nothing_is_known_after_a_long_silence_or_a_clock_that_is_set_back() {
        let head = found(None, 0);
        assert_ne!(head.from(NOW.plus(s(11))), i64::MIN);
        for now in [NOW.plus(s(12)), NOW.minus(s(1))] {
            assert_eq!((head.from(now), head.is_old(now)), (i64::MIN, true));
        }
        assert_eq!((Head::default().from(NOW), Head::default().is_old(NOW)), (i64::MIN, true));
    }

    #[test]
    fn a_lane_that_is_new_is_known_at_once_and_too_many_are_nobodys() {
        let mut heads = Heads::default();
        let due = &mut heads.due[Priority::Normal as usize];
        due.head = found(Some(NOW.0), 0);
        due.lanes = Some(BTreeMap::from([(1, NOW.0)]));
        let front = NOW.minus(s(1)).0;
        let mut waits = |lane, due_at: Time| {
            heads.sees(DigestState::Waiting, Priority::Normal, lane, due_at, None);
            heads.due[Priority::Normal as usize].lanes.clone()
        };
        waits(1, NOW.plus(s(1)));
        waits(2, NOW.plus(s(5)));
        waits(3, NOW.minus(s(5)));
        waits(2, NOW.minus(s(4)));
        let lanes = [(1, NOW.0), (2, NOW.minus(s(4)).0.min(front)), (3, NOW.minus(s(5)).0)];
        assert_eq!(waits(0, NOW), Some(BTreeMap::from(lanes)));
        assert!((4..LANES_MAX).all(|lane| waits(lane, NOW).is_some() == (lane < LANES_MAX)));
        assert_eq!(waits(LANES_MAX, NOW), None);
        heads.sees(DigestState::Leased, Priority::Normal, 1, NOW.minus(s(90)), Some(NOW));
        assert_eq!(heads.due[Priority::Normal as usize].head.from(NOW), NOW.minus(s(5)).0, "what is leased is not due");
    }

    /// Of a lane whose first digest is due tomorrow another worker may have one that is due now.
    #[test]
    fn a_lane_begins_no_later_than_what_may_commit_now() {
        let mut heads = Heads::default();
        heads.due[Priority::Normal as usize].lanes = Some(BTreeMap::from([(1, 0), (2, 0)]));
        let (tomorrow, old) = (NOW.plus(s(86_400)).0, NOW.minus(s(60)).0);
        heads.comes_to(Priority::Normal, NOW, &[(1, tomorrow), (2, old), (3, old)]);
        let lanes = BTreeMap::from([(1, NOW.minus(DUE_BEFORE).0), (2, old)]);
        assert_eq!(heads.due[Priority::Normal as usize].lanes, Some(lanes));
    }
}
