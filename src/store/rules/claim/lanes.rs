//! Fairness while more is due than can leave: each domain's digests stand in a lane of their own, and the lanes take turns,
//! so that a hundred thousand digests of one domain hold up nobody else's.

use std::sync::PoisonError;

use super::super::books::Books;
use super::super::sql;
use crate::model::Priority;
use crate::store::Result;
use crate::store::rules::tx::{Column, params};

/// Lanes that one claim looks at: some hundred microseconds. The next one goes on behind them.
const LANES_MAX: i64 = 256;

/// The lane behind which the next claim of each priority looks on; `None`: from the first one.
#[derive(Default)]
pub(in crate::store::rules) struct Turns([Option<i64>; Priority::ALL.len()]);

/// At most `limit` digests that are due. As long as all of them fit, in the order of their due time; else the earliest
/// one, an equal part of each lane, and what room is left again by due time.
pub(in crate::store::rules) fn due(books: &Books<'_>, priority: Priority, limit: usize) -> Result<Vec<i64>> {
    let (of, now) = (priority as i64, books.now.0);
    let one_more = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let number = |row: &crate::store::rules::tx::Row<'_>| row.get::<i64>(0);
    let mut by_time = books.tx.prepare_cached(sql::DUE)?.query_map(params![of, now, one_more], number)?;
    if by_time.len() <= limit {
        return Ok(by_time);
    }
    let lanes = next_lanes(books, priority)?;
    if lanes.len() > 1 {
        // The earliest one keeps its place, or what has no lane would never leave.
        let kept = usize::from(limit > 1);
        let each = (limit - kept).div_ceil(lanes.len());
        let mut taken: Vec<i64> = by_time.iter().take(kept).copied().collect();
        if books.tx.is_postgres() {
            let of_lanes = params![of, Column::ints(lanes), now, each as i64];
            taken.extend(books.tx.prepare_cached(sql::PG_DUE_OF_LANES)?.query_map(of_lanes, number)?);
        } else {
            for lane in lanes {
                let of_lane = params![of, lane, now, each as i64];
                taken.extend(books.tx.prepare_cached(sql::DUE_OF_LANE)?.query_map(of_lane, number)?);
            }
        }
        taken.append(&mut by_time);
        by_time = taken;
    }
    let mut seen = std::collections::HashSet::new();
    by_time.retain(|no| seen.len() < limit && seen.insert(*no));
    Ok(by_time)
}

/// The lanes whose turn it is and of which something is due.
fn next_lanes(books: &Books<'_>, priority: Priority) -> Result<Vec<i64>> {
    let mut turns = books.shared.turns.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(turn) = turns.0.get_mut(priority as usize) else { return Ok(vec![]) };
    let mut found = Vec::new();
    let (mut last, mut seen) = (None, 0);
    let of = params![priority as i64, turn.unwrap_or(i64::MIN), books.now.0, LANES_MAX];
    books.tx.prepare_cached(sql::LANES)?.each(of, |row| {
        let lane: i64 = row.get(0)?;
        (last, seen) = (Some(lane), row.get(1)?);
        if row.get(2)? {
            found.push(lane);
        }
        Ok(true)
    })?;
    *turn = last.filter(|_| seen >= LANES_MAX);
    Ok(found)
}
