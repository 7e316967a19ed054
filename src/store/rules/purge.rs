//! Purge: whole subjects that are final and older than the retention leave together, a bounded number of rows a call.

use std::collections::{BTreeSet, HashSet};
use std::sync::PoisonError;
use std::time::Duration;

use crate::store::rules::tx::{Optional, Row, params};

use super::books::Books;
use super::sql;
use super::subject::topic;
use crate::model::{ItemState, Time, Topic};
use crate::quota;
use crate::store::{Result, Tidied};

/// Events looked at, and events and items deleted, a call (a family that leaves together may be more): a transaction of
/// some ten milliseconds, between two batches of intake.
const LOOK: u32 = 500;
const DELETE: u64 = 2_000;

/// Marks of a topic's past that may stand behind an event that leaves: a few are left behind by each that was displaced.
const BEHIND: usize = 16;

/// Events of one subject that may leave together; longer ones have shed what is no mark before.
const FAMILY: usize = 1_000;

/// Replicas' clocks may differ by so much (lifecycle.md, "Retention").
const CLOCK_ERROR: Duration = Duration::from_secs(60);

/// Where the walk over the oldest rows goes on.
#[derive(Default)]
pub(crate) struct Cursor {
    event: i64,
    digest: i64,
    mailbox: i64,
    /// Letters were left over by the call before.
    letters: bool,
}

pub(super) fn purge(books: &mut Books<'_>) -> Result<Tidied> {
    let horizon = books.now.minus(books.shared.limits.retention).minus(CLOCK_ERROR);
    let mut cursor = books.shared.purge_cursor.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut gone, mut purged, mut last) = (HashSet::new(), 0, 0);
    let page = page(books, cursor.event)?;
    let young = page.last().is_none_or(|e| is_young(e.received_at, horizon, books.now));
    let first = cursor.event == 0 && cursor.digest == 0;
    let mut full = false;
    for event in &page {
        full = gone.len() as u64 + purged >= DELETE;
        if full {
            break;
        }
        last = event.no;
        if event.received_at < horizon.0 && !gone.contains(&event.no) {
            for no in leaving(books, event, horizon)? {
                purged += drop_event(books, no)?;
                gone.insert(no);
            }
        }
    }
    let more_events = full || (page.len() >= LOOK as usize && !young);
    cursor.event = if more_events { last } else { 0 };
    let more_digests = drop_digests(books, horizon, &mut cursor)?;
    if first || cursor.letters {
        let letters = books.tx.prepare_cached(sql::DROP_LETTERS)?.execute(params![horizon.0, LOOK])?;
        cursor.letters = letters >= u64::from(LOOK);
    }
    drop_mailboxes(books, horizon, &mut cursor)?;
    Ok(Tidied { purged_items: purged, more: more_events || more_digests || cursor.letters, ..Tidied::default() })
}

/// Everything behind it is young as well: the walk may end. Not so behind what a clock that was ahead has dated.
fn is_young(at: i64, horizon: Time, now: Time) -> bool {
    (horizon.0..=now.0).contains(&at)
}

/// An event as the walk sees it.
struct Old {
    no: i64,
    ver: i64,
    received_at: i64,
    topics: [Option<Topic>; 2],
    prevs: [Option<i64>; 2],
}

fn read_old(row: &Row<'_>) -> Result<Old> {
    Ok(Old {
        no: row.get(0)?,
        ver: row.get(1)?,
        received_at: row.get(2)?,
        topics: [topic(row, 3)?, topic(row, 4)?],
        prevs: [row.get(5)?, row.get(6)?],
    })
}

fn page(books: &Books<'_>, after: i64) -> Result<Vec<Old>> {
    let mut old = books.tx.prepare_cached(sql::EVENTS_AFTER)?;
    let rows = old.query_map(params![after, LOOK], read_old)?;
    Ok(rows)
}

fn event(books: &Books<'_>, no: i64) -> Result<Option<Old>> {
    books.tx.prepare_cached(sql::EVENT_TO_PURGE)?.query_row([no], read_old).optional()
}

/// What may leave now, starting with this event: nothing; the event alone; or all that is left of its subjects.
///
/// The marks stay until everything of the subject is final and old (`purge_whole`): without them an old request could be
/// sent again. What is no mark leaves before them, oldest first, so that a subject that lives for ever does not grow for
/// ever.
fn leaving(books: &mut Books<'_>, old: &Old, horizon: Time) -> Result<Vec<i64>> {
    if !is_over(books, old, horizon)? {
        return Ok(vec![]);
    }
    for (place, topic) in old.topics.iter().enumerate() {
        if let Some(topic) = topic
            && !is_over_behind(books, old.prevs[place], topic, horizon)?
        {
            return Ok(vec![]);
        }
    }
    let mut is_mark = false;
    for topic in old.topics.iter().flatten() {
        if let Some(s) = books.subject(topic)? {
            let marks = [Some(s.latest.no), s.before.map(|m| m.no), s.closer.map(|c| c.1)];
            is_mark |= marks.contains(&Some(old.no));
        }
    }
    if is_mark { family(books, old, horizon) } else { Ok(vec![old.no]) }
}

/// Whether everything that is left behind an event is final and old: then nobody walks there any more, and a gap in the
/// chain hides nothing. What is left there is marks: an old closing event may be the highest for years.
fn is_over_behind(books: &Books<'_>, prev: Option<i64>, topic: &Topic, horizon: Time) -> Result<bool> {
    let mut at = prev;
    for _ in 0..BEHIND {
        let Some(old) = at.map(|no| event(books, no)).transpose()?.flatten() else { return Ok(true) };
        if !is_over(books, &old, horizon)? {
            return Ok(false);
        }
        at = if old.topics[0] == Some(*topic) { old.prevs[0] } else { old.prevs[1] };
    }
    Ok(false)
}

/// Final, and older than the horizon by its own time, its arrival and its settlement.
fn is_over(books: &Books<'_>, old: &Old, horizon: Time) -> Result<bool> {
    if old.received_at >= horizon.0 || old.ver >> 1 >= horizon.0 {
        return Ok(false);
    }
    if books.tx.is_postgres() {
        // Nobody opens again what is about to leave.
        books.tx.prepare_cached(sql::PG_LOCK_ITEMS_OF_EVENT)?.query_map([old.no], |_| Ok(()))?;
    }
    Ok(!books.tx.prepare_cached(sql::OPEN_OR_YOUNG)?.exists(params![old.no, horizon.0])?)
}

/// The last events of a subject, and of the subjects that a two-topic closer ties to it: all of them, if all are over.
/// The marks leave with them.
fn family(books: &mut Books<'_>, first: &Old, horizon: Time) -> Result<Vec<i64>> {
    let mut topics: BTreeSet<Topic> = first.topics.iter().flatten().copied().collect();
    let mut events = BTreeSet::from([first.no]);
    let mut todo: Vec<Topic> = topics.iter().copied().collect();
    while let Some(next) = todo.pop() {
        let subject = books.subject(&next)?;
        let mut at = subject.map_or(0, |s| s.head);
        // The marks may stand behind a gap.
        let marks = subject.map(|s| [Some(s.latest.no), s.before.map(|m| m.no), s.closer.map(|c| c.1)]);
        for no in marks.into_iter().flatten().flatten() {
            if let Some(old) = event(books, no)? {
                if !is_over(books, &old, horizon)? {
                    return Ok(vec![]);
                }
                events.insert(no);
                todo.extend(old.topics.into_iter().flatten().filter(|topic| topics.insert(*topic)));
            }
        }
        while let Some(old) = if at == 0 { None } else { event(books, at)? } {
            if events.len() > FAMILY || !is_over(books, &old, horizon)? {
                return Ok(vec![]);
            }
            events.insert(at);
            for topic in old.topics.into_iter().flatten() {
                if topics.insert(topic) {
                    todo.push(topic);
                }
            }
            at = if old.topics[0] == Some(next) { old.prevs[0] } else { old.prevs[1] }.unwrap_or(0);
        }
    }
    for topic in &topics {
        books.tx.prepare_cached(sql::DROP_STANDING)?.execute([&topic.0[..]])?;
        books.drop_subject(topic)?;
    }
    Ok(events.into_iter().collect())
}

/// Items and key leave; the counts move out of the ledger. Gives how many items.
fn drop_event(books: &mut Books<'_>, no: i64) -> Result<u64> {
    let states: Vec<(i64, i64)> = {
        let mut states = books.tx.prepare_cached(sql::STATES_OF_EVENT)?;
        states.query_map([no], |row| Ok((row.get(0)?, row.get(1)?)))?
    };
    let mut items = 0;
    for (state, n) in states {
        if let Some(state) = ItemState::from_number(state) {
            books.uncount(state, n);
        }
        items += u64::try_from(n).unwrap_or(0);
    }
    books.drop_key(no)?;
    for statement in [sql::DROP_ITEMS, sql::DROP_RELISTED, sql::DROP_ASKED, sql::DROP_EVENT] {
        books.tx.prepare_cached(statement)?.execute([no])?;
    }
    Ok(items)
}

/// Closed digests whose items are gone, with their attempts.
fn drop_digests(books: &Books<'_>, horizon: Time, cursor: &mut Cursor) -> Result<bool> {
    let page: Vec<(i64, i64, Option<i64>)> = {
        let mut after = books.tx.prepare_cached(sql::DIGESTS_AFTER)?;
        after.query_map(params![cursor.digest, LOOK], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
    };
    let young = page.last().is_none_or(|(_, opened_at, _)| is_young(*opened_at, horizon, books.now));
    for (no, _, closed_at) in &page {
        let old = closed_at.is_some_and(|at| at < horizon.0);
        if old && !books.tx.prepare_cached(sql::IS_LISTED)?.exists([no])? {
            for statement in [sql::DROP_ATTEMPTS, sql::DROP_DIGEST] {
                books.tx.prepare_cached(statement)?.execute([no])?;
            }
        }
    }
    let more = page.len() >= LOOK as usize && !young;
    cursor.digest = if more { page.last().map_or(0, |(no, ..)| *no) } else { 0 };
    Ok(more)
}

/// Mailboxes that nothing refers to any more: a page a call, round and round, since there is no hurry.
fn drop_mailboxes(books: &Books<'_>, horizon: Time, cursor: &mut Cursor) -> Result<()> {
    let mut after = books.tx.prepare_cached(sql::MAILBOXES_AFTER)?;
    let of = params![cursor.mailbox, LOOK];
    let (last, n): (Option<i64>, u32) = after.query_row(of, |row| Ok((row.get(0)?, row.get(1)?)))?;
    if let Some(last) = last {
        let page = params![cursor.mailbox, last, horizon.0];
        if books.tx.is_postgres() {
            // What seems to be unused is locked, and looked at again: a batch may be writing its first digest.
            let unused = books.tx.prepare_cached(sql::PG_LOCK_UNUSED_MAILBOXES)?.query_map(page, |row| row.get(0))?;
            for no in unused {
                let no: i64 = no;
                books.tx.prepare_cached(sql::DROP_MAILBOXES)?.execute(params![no - 1, no, horizon.0])?;
            }
        } else {
            books.tx.prepare_cached(sql::DROP_MAILBOXES)?.execute(page)?;
        }
    }
    cursor.mailbox = last.filter(|_| n >= LOOK).unwrap_or(0);
    Ok(())
}

/// The insert-only counts become one row a state.
pub(super) fn roll_up(books: &mut Books<'_>) -> Result<()> {
    let statements = if books.tx.is_postgres() {
        [sql::PG_ROLL_UP, sql::PG_ROLL_UP_MAILS]
    } else {
        [sql::ROLL_UP, sql::CLEAR_DELTAS]
    };
    for statement in statements {
        books.tx.prepare_cached(statement)?.execute(())?;
    }
    // Twice the window: a clock that is set back must not find them gone.
    let old = quota::first_minute(books.now.minus(quota::WINDOW));
    books.tx.prepare_cached(sql::FORGET_SHARES)?.execute([old])?;
    Ok(())
}
