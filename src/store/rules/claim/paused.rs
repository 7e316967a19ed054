//! What a claim finds while some routes are paused: all that is due is looked at in its order, and what is paused is stepped
//! over.

use std::collections::HashSet;
use std::sync::PoisonError;

use super::super::books::Books;
use super::super::sql;
use crate::model::Priority;
use crate::store::Result;
use crate::store::rules::tx::{Column, Params, params};

/// Digests that a claim looks at in one direction while routes are paused: some milliseconds (on SQLite under the writer's
/// lock).
const STEPS: u32 = 5_000;

/// Digests that are looked up to be locked, at least: a claim of one or two does not ask for each that somebody else has.
const LOCKED_AT_ONCE: usize = 100;

/// Where a claim of each priority goes on if so much waits for a resume that it can't look at all of it: (due time,
/// number). `None`: from the start.
#[derive(Default)]
pub(in crate::store::rules) struct Steps([Option<(i64, i64)>; Priority::ALL.len()]);

/// By due time, as long as no more is paused than one claim may step over. Else each claim goes on where the last one
/// ended, round and round, and looks at what became due last, so that a paused route of any size holds up nobody.
pub(super) fn due(books: &Books<'_>, priority: Priority, limit: usize) -> Result<Vec<i64>> {
    books.look_for_due(priority)?;
    let front = books.shared.due_from(priority, books.now);
    let mut steps = books.shared.steps.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(cursor) = steps.0.get_mut(priority as usize) else { return Ok(vec![]) };
    let (of, now) = (priority as i64, books.now.0);
    let from = cursor.filter(|(due_at, _)| *due_at <= now);
    // Where others may have what is found, all that is looked at counts until enough of it is locked.
    let most = if books.tx.is_postgres() { usize::MAX } else { limit };
    let mut look = Look { limit: most, found: Vec::new(), known: HashSet::new(), seen: 0, last: from };
    let mut more = true;
    if let Some((due_at, no)) = from {
        more = look.step(books, sql::DUE_AT, params![of, due_at, no, STEPS])?;
    }
    if more {
        let after = from.map_or(i64::MIN, |(due_at, _)| due_at).max(front.saturating_sub(1));
        more = look.step(books, sql::DUE_AFTER, params![of, after, now, STEPS - look.seen])?;
    }
    let bounded = from.is_some() || look.seen >= STEPS;
    *cursor = look.last.filter(|_| bounded && !(more && look.seen < STEPS));
    let forward = look.found.len();
    if bounded {
        look.step(books, sql::LAST_DUE, params![of, now, STEPS])?;
    }
    if !books.tx.is_postgres() {
        return Ok(look.found.into_iter().map(|(_, no)| no).collect());
    }
    let taken = take(books, &look.found, limit)?;
    if bounded
        && taken.len() >= limit
        && let Some(last) = taken.last().and_then(|no| look.found[..forward].iter().find(|(_, of)| of == no))
    {
        // What is behind it is the next claim's.
        *cursor = Some(*last);
    }
    Ok(taken)
}

/// Of what was only looked at, the first `limit` that nobody has. What is paused is nobody's to lock: there may be thousands,
/// and intake adds to them. (PostgreSQL)
fn take(books: &Books<'_>, found: &[(i64, i64)], limit: usize) -> Result<Vec<i64>> {
    let mut taken: Vec<i64> = Vec::new();
    let mut rest = found;
    while taken.len() < limit && !rest.is_empty() {
        let more = limit - taken.len();
        let (some, others) = rest.split_at(more.max(LOCKED_AT_ONCE).min(rest.len()));
        let numbers = Column::ints(some.iter().map(|(_, no)| *no));
        taken.extend::<Vec<i64>>(
            books.tx.prepare_cached(sql::PG_LOCK_DUE)?.query_map(params![numbers, more as i64], |row| row.get(0))?,
        );
        rest = others;
    }
    Ok(taken)
}

struct Look {
    limit: usize,
    /// (due time, number).
    found: Vec<(i64, i64)>,
    known: HashSet<i64>,
    seen: u32,
    /// (due time, number) of the last one that was looked at.
    last: Option<(i64, i64)>,
}

impl Look {
    /// Takes what may leave of the statement's digests. `false`: there is no room for more.
    fn step(&mut self, books: &Books<'_>, statement: &str, of: impl Params) -> Result<bool> {
        let mut room = true;
        books.tx.prepare_cached(statement)?.each(of, |row| {
            let (no, due_at, paused): (i64, i64, bool) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if !paused && !self.known.contains(&no) {
                if self.found.len() >= self.limit {
                    room = false;
                    return Ok(false);
                }
                self.known.insert(no);
                self.found.push((due_at, no));
            }
            (self.seen, self.last) = (self.seen + 1, Some((due_at, no)));
            Ok(true)
        })?;
        Ok(room)
    }
}
