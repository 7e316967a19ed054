//! Purge: whole subjects that are final and older than the retention leave together, a bounded number of rows a call.

use std::collections::{BTreeSet, HashSet};
use std::sync::PoisonError;
use std::time::Duration;

use crate::store::rules::tx::{Column, Value, params};

use super::books::Books;
use super::{Shared, sql};
use crate::model::{Time, Topic};
use crate::quota;
use crate::store::{Result, Tidied};

mod seen;

use seen::{Old, Seen, Standing, marks};

/// Events looked at, and events and items deleted, a call (a family that leaves together may be more): a transaction of
/// some ten milliseconds, between two batches of intake.
const LOOK: u32 = 500;
const DELETE: u64 = 2_000;

/// Events of which everything is read together.
const AHEAD: usize = 100;

/// Marks of a topic's past that may stand behind an event that leaves: a few are left behind by each that was displaced.
const BEHIND: usize = 16;

/// Events of one subject that may leave together; longer ones have shed what is no mark before.
const FAMILY: usize = 1_000;

/// Hardly anything is waited for (what `purge/seen.rs` looks at is not), and while it is others wait for what this has locked.
pub(super) const WAITS: Duration = Duration::from_millis(100);

/// Replicas' clocks may differ by so much (lifecycle.md, "Retention").
const CLOCK_ERROR: Duration = Duration::from_secs(60);

/// Where the walk over the oldest rows goes on.
#[derive(Default)]
pub(crate) struct Cursor {
    event: i64,
    digest: i64,
    mailbox: i64,
    /// Where it goes on if somebody has what this call comes to.
    beyond: (i64, i64),
    /// Letters were left over by the call before.
    letters: bool,
}

pub(super) fn purge(books: &mut Books<'_>) -> Result<Tidied> {
    let horizon = books.now.minus(books.shared.limits.retention).minus(CLOCK_ERROR);
    let mut cursor = books.shared.purge_cursor.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut gone, mut purged, mut last) = (HashSet::new(), 0, 0);
    let page = seen::page(books, cursor.event, LOOK)?;
    let young = page.last().is_none_or(|e| is_young(e.received_at, horizon, books.now));
    let first = cursor.event == 0 && cursor.digest == 0;
    let is_last = page.len() < LOOK as usize || young;
    cursor.beyond = (page.last().filter(|_| !is_last).map_or(0, |event| event.no), cursor.digest);
    let mut full = false;
    'page: for part in page.chunks(AHEAD) {
        let mut seen = Seen::ahead(books, part.iter().filter(|event| !gone.contains(&event.no)), horizon)?;
        for event in part {
            full = gone.len() as u64 + purged >= DELETE;
            if full {
                break 'page;
            }
            last = event.no;
            if event.received_at < horizon.0 && !gone.contains(&event.no) {
                for no in leaving(books, &mut seen, event)? {
                    purged += drop_event(books, &mut seen, no)?;
                    gone.insert(no);
                }
            }
        }
    }
    let more_events = full || !is_last;
    cursor.event = if more_events { last } else { 0 };
    let more_digests = drop_digests(books, horizon, &mut cursor)?;
    if first || cursor.letters {
        let letters = books.tx.prepare_cached(sql::DROP_LETTERS)?.execute(params![horizon.0, LOOK])?;
        cursor.letters = letters >= u64::from(LOOK);
    }
    drop_mailboxes(books, horizon, &mut cursor)?;
    Ok(Tidied { purged_items: purged, more: more_events || more_digests || cursor.letters, ..Tidied::default() })
}

/// What was to leave is in somebody's hands: the walk goes on behind it.
pub(super) fn pass_over(shared: &Shared) -> Tidied {
    let mut cursor = shared.purge_cursor.lock().unwrap_or_else(PoisonError::into_inner);
    (cursor.event, cursor.digest) = cursor.beyond;
    Tidied { more: cursor.beyond != (0, 0), ..Tidied::default() }
}

/// Everything behind it is young as well: the walk may end. Not so behind what a clock that was ahead has dated.
fn is_young(at: i64, horizon: Time, now: Time) -> bool {
    (horizon.0..=now.0).contains(&at)
}

/// What may leave now, starting with this event: nothing; the event alone; or all that is left of its subjects.
///
/// The marks stay until everything of the subject is final and old (`purge_whole`): without them an old request could be
/// sent again. What is no mark leaves before them, oldest first, so that a subject that lives for ever does not grow for
/// ever.
fn leaving(books: &mut Books<'_>, seen: &mut Seen, old: &Old) -> Result<Vec<i64>> {
    if !seen.is_over(books, old)? {
        return Ok(vec![]);
    }
    for (place, topic) in old.topics.iter().enumerate() {
        if let Some(topic) = topic
            && !is_over_behind(books, seen, old.prevs[place], topic)?
        {
            return Ok(vec![]);
        }
    }
    let mut is_mark = false;
    for topic in old.topics.iter().flatten() {
        let Standing::Free(subject) = seen.subject(books, topic)? else { return Ok(vec![]) };
        is_mark |= subject.is_some_and(|s| marks(&s).any(|no| no == old.no));
    }
    if is_mark { family(books, seen, old) } else { Ok(vec![old.no]) }
}

/// Whether everything that is left behind an event is final and old: then nobody walks there any more, and a gap in the
/// chain hides nothing. What is left there is marks: an old closing event may be the highest for years.
fn is_over_behind(books: &Books<'_>, seen: &mut Seen, prev: Option<i64>, topic: &Topic) -> Result<bool> {
    let mut at = prev;
    for _ in 0..BEHIND {
        let Some(old) = at.map(|no| seen.event(books, no)).transpose()?.flatten() else { return Ok(true) };
        if !seen.is_over(books, &old)? {
            return Ok(false);
        }
        at = if old.topics[0] == Some(*topic) { old.prevs[0] } else { old.prevs[1] };
    }
    Ok(false)
}

/// The last events of a subject, and of the subjects that a two-topic closer ties to it: all of them, if all are over.
/// The marks leave with them.
fn family(books: &mut Books<'_>, seen: &mut Seen, first: &Old) -> Result<Vec<i64>> {
    let mut topics: BTreeSet<Topic> = first.topics.iter().flatten().copied().collect();
    let mut events = BTreeSet::from([first.no]);
    let mut todo: Vec<Topic> = topics.iter().copied().collect();
    while let Some(next) = todo.pop() {
        let Standing::Free(subject) = seen.subject(books, &next)? else { return Ok(vec![]) };
        let mut at = subject.map_or(0, |s| s.head);
        // The marks may stand behind a gap.
        for no in subject.iter().flat_map(marks) {
            if let Some(old) = seen.event(books, no)? {
                if !seen.is_over(books, &old)? {
                    return Ok(vec![]);
                }
                events.insert(no);
                todo.extend(old.topics.into_iter().flatten().filter(|topic| topics.insert(*topic)));
            }
        }
        while let Some(old) = if at == 0 { None } else { seen.event(books, at)? } {
            if events.len() > FAMILY || !seen.is_over(books, &old)? {
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
        books.tx.prepare_cached(sql::DROP_STANDING)?.later([&topic.0[..]])?;
        books.drop_subject(topic)?;
        seen.drop_subject(*topic);
    }
    Ok(events.into_iter().collect())
}

/// Items and key leave; the counts move out of the ledger. Gives how many items.
fn drop_event(books: &mut Books<'_>, seen: &mut Seen, no: i64) -> Result<u64> {
    let mut items = 0;
    for (state, n) in seen.drop_event(no) {
        books.uncount(state, n);
        items += u64::try_from(n).unwrap_or(0);
    }
    books.drop_key(no)?;
    books.place_tails_of(no)?;
    for statement in [sql::DROP_ITEMS, sql::DROP_RELISTED, sql::DROP_ASKED, sql::DROP_EVENT] {
        books.tx.prepare_cached(statement)?.later([no])?;
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
    let more = page.len() >= LOOK as usize && !young;
    let next = page.last().filter(|_| more).map_or(0, |(no, ..)| *no);
    cursor.beyond.1 = next;
    let old = page.iter().filter(|(_, _, closed_at)| closed_at.is_some_and(|at| at < horizon.0)).map(|(no, ..)| *no);
    for no in unlisted(books, old.collect())? {
        for statement in [sql::DROP_ATTEMPTS, sql::DROP_DIGEST] {
            books.tx.prepare_cached(statement)?.later([no])?;
        }
    }
    cursor.digest = next;
    Ok(more)
}

/// Those of these digests that no item names.
fn unlisted(books: &Books<'_>, mut old: Vec<i64>) -> Result<Vec<i64>> {
    if old.is_empty() {
        return Ok(old);
    }
    if books.tx.is_postgres() {
        return books.tx.prepare_cached(sql::PG_UNLISTED)?.query_map([Column::ints(old)], |row| row.get(0));
    }
    let mut listed = books.tx.hold(sql::IS_LISTED)?;
    let mut failed = Ok(());
    old.retain(|no| match listed.exists(&[Value::Int(*no)]) {
        Ok(is_listed) => !is_listed,
        Err(why) => {
            failed = Err(why);
            false
        }
    });
    failed.map(|()| old)
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
