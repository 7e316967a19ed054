//! Fairness while more is due than can leave: each domain's digests stand in a lane of their own, and the lanes take turns,
//! so that a hundred thousand digests of one domain hold up nobody else's.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use super::super::books::Books;
use super::super::heads::LANES_MAX;
use super::super::{Shared, sql};
use crate::model::Priority;
use crate::store::Result;
use crate::store::rules::tx::{Column, Row, params};

/// The lane whose turn it was last in each priority: the next claim begins behind it. `None`: with the first one.
#[derive(Default)]
pub(in crate::store::rules) struct Turns {
    last: [Option<i64>; Priority::ALL.len()],
    /// Claims of one digest.
    alone: u64,
    /// So many more claims of each priority take it for granted that more is due than fits.
    crowded: [u8; Priority::ALL.len()],
}

/// How long a crowd is taken for granted. (The look costs what a claim of so many digests reads besides. What is taken for a
/// crowd and is none fits all the same; only the order within that claim is another.)
const CROWD_LASTS: u8 = 8;

/// Of claims of one digest each, as a very slow account makes them, one in so many goes by due time: what has no lane would
/// never leave else.
const ALONE_BY_TIME: u64 = 4;

/// At most `limit` digests that are due. As long as all of them fit, in the order of their due time; else the earliest
/// one, an equal part of each lane, and what room is left again by due time.
pub(in crate::store::rules) fn due(books: &mut Books<'_>, priority: Priority, limit: usize) -> Result<Vec<i64>> {
    books.look_for_due(priority)?;
    if limit == 1 && books.shared.goes_by_time() {
        return by_time(books, priority, 1);
    }
    let limit_and_one = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let mut found = if is_crowded(books, priority, limit_and_one)? {
        vec![]
    } else {
        let found = by_time(books, priority, limit_and_one)?;
        if found.len() <= limit {
            return Ok(found);
        }
        found
    };
    let Look { due: mut lanes, last, is_whole } = next_lanes(books, priority)?;
    books.shared.has_had_its_turn(priority, last);
    // One lane alone may leave by due time, unless others were not looked at.
    if lanes.len() > 1 || (lanes.len() == 1 && !is_whole) {
        // The earliest one keeps its place, or what has no lane would never leave.
        let kept = usize::from(limit > 1);
        let each = (limit - kept).div_ceil(lanes.len()).max(1);
        let served = (limit - kept).div_ceil(each);
        if served < lanes.len() {
            lanes.truncate(served);
            books.shared.has_had_its_turn(priority, lanes.last().copied());
        }
        if found.is_empty() && kept > 0 {
            found = by_time(books, priority, 1)?;
        }
        let rest = found.split_off(kept.min(found.len()));
        found.extend(of_lanes(books, priority, lanes, each as i64)?);
        found.extend(rest);
    }
    only_once(&mut found, limit);
    if found.len() < limit {
        books.shared.was_crowded(priority, false);
        found.extend(by_time(books, priority, limit_and_one)?);
        only_once(&mut found, limit);
    }
    Ok(found)
}

fn only_once(found: &mut Vec<i64>, limit: usize) {
    let mut seen = std::collections::HashSet::new();
    found.retain(|no| seen.len() < limit && seen.insert(*no));
}

fn number(row: &Row<'_>) -> Result<i64> {
    row.get(0)
}

/// More is due than fits: looked at before anything is locked, as what a claim looks at it locks, and not all of it leaves.
/// (SQLite locks nothing.)
fn is_crowded(books: &Books<'_>, priority: Priority, limit_and_one: i64) -> Result<bool> {
    if !books.tx.is_postgres() {
        return Ok(false);
    }
    if books.shared.is_still_crowded(priority) {
        return Ok(true);
    }
    let of = params![priority as i64, books.now.0, limit_and_one, books.shared.due_from(priority, books.now)];
    let n: i64 = books.tx.prepare_cached(sql::PG_CROWDED)?.query_row(of, number)?;
    let is_crowded = n >= limit_and_one;
    books.shared.was_crowded(priority, is_crowded);
    Ok(is_crowded)
}

fn by_time(books: &Books<'_>, priority: Priority, most: i64) -> Result<Vec<i64>> {
    let from = books.shared.due_from(priority, books.now);
    books.tx.prepare_cached(sql::DUE)?.query_map(params![priority as i64, books.now.0, most, from], number)
}

fn of_lanes(books: &mut Books<'_>, priority: Priority, lanes: Vec<i64>, each: i64) -> Result<Vec<i64>> {
    let (of, now) = (priority as i64, books.now.0);
    if books.tx.is_postgres() {
        let front = books.shared.due_from(priority, books.now);
        let known: BTreeMap<i64, i64> = books.shared.lanes_from(priority).into_iter().flatten().collect();
        let from = Column::ints(lanes.iter().map(|lane| known.get(lane).copied().unwrap_or(front)));
        let of_lanes = params![of, Column::ints(lanes), now, each, from];
        return books.read_due(sql::PG_DUE_OF_LANES, of_lanes);
    }
    let mut found = Vec::new();
    for lane in lanes {
        found.extend(books.tx.prepare_cached(sql::DUE_OF_LANE)?.query_map(params![of, lane, now, each], number)?);
    }
    Ok(found)
}

/// What a claim has seen of the lanes.
struct Look {
    /// Those whose turn it is and of which something is due, round and round.
    due: Vec<i64>,
    /// The one that was looked at last.
    last: Option<i64>,
    /// No lane was left out.
    is_whole: bool,
}

fn next_lanes(books: &Books<'_>, priority: Priority) -> Result<Look> {
    let turn = books.shared.turn(priority);
    if let Some(known) = books.shared.lanes_from(priority) {
        return known_lanes(books, priority, known, turn.unwrap_or(i64::MIN));
    }
    let mut lanes = Walk::default();
    lanes.go(books, priority, turn.unwrap_or(i64::MIN), LANES_MAX)?;
    let mut seen = lanes.seen;
    if let Some(turn) = turn
        && seen < LANES_MAX
    {
        let mut first = Walk::default();
        first.go(books, priority, i64::MIN, LANES_MAX - seen)?;
        seen += first.seen;
        lanes.due.extend(first.due.into_iter().filter(|lane| *lane <= turn));
        lanes.last = first.last.filter(|last| *last <= turn).or(Some(turn));
    }
    Ok(Look { due: lanes.due, last: lanes.last, is_whole: seen < LANES_MAX })
}

/// The same where all lanes are known.
fn known_lanes(books: &Books<'_>, priority: Priority, known: Vec<(i64, i64)>, turn: i64) -> Result<Look> {
    if known.is_empty() {
        return Ok(Look { due: vec![], last: None, is_whole: true });
    }
    let (lanes, from) = (Column::ints(known.iter().map(|of| of.0)), Column::ints(known.iter().map(|of| of.1)));
    let read = |row: &Row<'_>| Ok((row.get::<i64>(0)?, row.get::<Option<i64>>(1)?));
    let found =
        books.tx.prepare_cached(sql::PG_FIRST_OF_LANES)?.query_map(params![priority as i64, lanes, from], read)?;
    let mut found: Vec<(i64, i64)> = found.into_iter().filter_map(|(lane, first)| Some((lane, first?))).collect();
    books.shared.comes_to(priority, books.now, &found);
    found.sort_unstable_by_key(|(lane, _)| (*lane <= turn, *lane));
    let last = found.last().map(|(lane, _)| *lane);
    let due = found.into_iter().filter(|(_, first)| *first <= books.now.0).map(|(lane, _)| lane).collect();
    Ok(Look { due, last, is_whole: true })
}

#[derive(Default)]
struct Walk {
    due: Vec<i64>,
    last: Option<i64>,
    seen: i64,
}

impl Walk {
    fn go(&mut self, books: &Books<'_>, priority: Priority, after: i64, most: i64) -> Result<()> {
        let of = (priority as i64, after, books.now.0, most);
        let each = |row: &Row<'_>| {
            let lane: i64 = row.get(0)?;
            (self.last, self.seen) = (Some(lane), row.get(1)?);
            if row.get(2)? {
                self.due.push(lane);
            }
            Ok(true)
        };
        if !books.tx.is_postgres() {
            return books.tx.prepare_cached(sql::LANES)?.each(of, each);
        }
        let from = books.shared.due_from(priority, books.now);
        books.without_sort(|| books.tx.prepare_cached(sql::PG_LANES)?.each(params![of.0, of.1, of.2, of.3, from], each))
    }
}

impl Shared {
    fn turn(&self, priority: Priority) -> Option<i64> {
        let turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.last.get(priority as usize).copied().flatten()
    }

    fn has_had_its_turn(&self, priority: Priority, lane: Option<i64>) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.last.get_mut(priority as usize) {
            *turn = lane;
        }
    }

    fn is_still_crowded(&self, priority: Priority) -> bool {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(more) = turns.crowded.get_mut(priority as usize).filter(|more| **more > 0) else { return false };
        *more -= 1;
        true
    }

    fn was_crowded(&self, priority: Priority, is: bool) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(more) = turns.crowded.get_mut(priority as usize) {
            *more = if is { CROWD_LASTS - 1 } else { 0 };
        }
    }

    fn goes_by_time(&self) -> bool {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.alone = turns.alone.wrapping_add(1);
        turns.alone.is_multiple_of(ALONE_BY_TIME)
    }
}
