//! Open windows planned anew: the cadence, the zones, the calendar or the hold may have changed.

use std::time::Duration;

use super::books::Books;
use super::calls::Engine;
use super::each::HELD_AT_MOST;
use super::sql;
use super::strangers::ALONE;
use crate::model::{DigestState, Time, hash16};
use crate::store::rules::tx::{Optional, Row, Tx, params};
use crate::store::{Planning, Result};

/// What one worker has planned is not planned again so soon by those that plan alike: with a million windows each would read
/// them all. Those that started meanwhile then do it once more, for all of them.
const FRESH: Duration = Duration::from_secs(120);

/// Who says nothing for so long has ended.
const SILENT: Duration = Duration::from_secs(30);

const PLANS: &str = "planning";

/// A file has one worker.
pub(super) fn take(books: &mut Books<'_>, started: Time) -> Result<Planning> {
    let now = books.now;
    if !books.tx.is_postgres() {
        return Ok(Planning::Mine(now));
    }
    let plan = plan(books);
    // A moment so far ahead is from before the clock was set back.
    let free = params![plan, now.0, now.minus(SILENT).0, now.minus(FRESH).0, now.plus(FRESH).0];
    if books.tx.prepare_cached(sql::TAKE_PLANNING)?.execute(free)? > 0 {
        return Ok(Planning::Mine(now));
    }
    let read = |row: &Row<'_>| Ok((row.get::<String>(0)?, row.get::<i64>(1)?));
    let known = books.tx.prepare_cached(sql::PLANNING)?.query_row([&plan], read).optional()?;
    let done = known.is_some_and(|(state, since)| state != PLANS && since >= started.0);
    Ok(if done { Planning::Done } else { Planning::Theirs })
}

pub(super) fn keep(books: &mut Books<'_>, since: Time, done: bool) -> Result<()> {
    if !books.tx.is_postgres() {
        return Ok(());
    }
    let (plan, state) = (plan(books), if done { "ready" } else { PLANS });
    let kept = params![plan, books.now.0, state, since.0];
    books.tx.prepare_cached(sql::KEEP_PLANNING)?.execute(kept).map(drop)
}

/// What this worker's plans depend on, by a hash.
fn plan(books: &Books<'_>) -> String {
    format!("{:032x}", u128::from_be_bytes(hash16(b"plans", &[&books.shared.policy.plans()])))
}

/// The mailbox and the digest of an open window.
type Open = (i64, i64);

/// Open windows, by mailbox.
fn windows(tx: Tx<'_>, cursor: i64, limit: u32) -> Result<Vec<Open>> {
    tx.prepare_cached(sql::WINDOWS_AFTER)?.query_map(params![cursor, limit], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// Plans open windows anew, some behind the mailbox that the cursor names; gives the next cursor. What an operator let go is
/// never held again. Windows of a route that this worker's configuration does not have stay as they are: a worker that has it
/// may have planned them, or hold them.
pub(super) fn replan(books: &mut Books<'_>, cursor: i64, limit: u32) -> Result<Option<i64>> {
    let (windows, next) = if books.tx.is_postgres() {
        to_plan(books, cursor, limit)?
    } else {
        let all = windows(books.tx, cursor, limit)?;
        let next = all.last().map(|(mailbox, _)| *mailbox).filter(|_| all.len() >= limit as usize);
        (all, next)
    };
    books.hold_digests(&windows.iter().map(|(_, no)| *no).collect::<Vec<_>>())?;
    for (mailbox, no) in &windows {
        let route = books.mailbox(*mailbox)?.route.clone();
        if !books.shared.policy.knows(&route) {
            books.shared.tell_unknown(&route);
            continue;
        }
        if books.digest(*no)?.state == DigestState::Held && !books.shared.policy.rules(&route).hold {
            books.set_state(*no, DigestState::Gathering)?;
        }
        books.replan(*no)?;
    }
    Ok(next)
}

/// Those whose plan is not the one that this worker would make, and the next cursor. Most often it is: each worker that
/// starts looks at all windows, and whoever locks a row writes it and keeps others from it.
fn to_plan(books: &Books<'_>, cursor: i64, limit: u32) -> Result<(Vec<Open>, Option<i64>)> {
    let (shared, now) = (books.shared, books.now);
    let all = books.look_at_windows(cursor, limit)?;
    let next = all.last().map(|(window, _)| window.mailbox).filter(|_| all.len() >= limit as usize);
    let mut differ = Vec::new();
    for (window, mailbox) in &all {
        if !shared.policy.knows(&mailbox.route) {
            shared.tell_unknown(&mailbox.route);
            continue;
        }
        let let_go = window.state == DigestState::Held && !shared.policy.rules(&mailbox.route).hold;
        if let_go || !window.is_planned(mailbox, shared, now) {
            differ.push((window.mailbox, window.no));
        }
    }
    Ok((differ, next))
}

/// What somebody else holds keeps the plan that it has.
pub(super) async fn replan_each<E: Engine>(engine: &E, now: Time, cursor: i64, limit: u32) -> Result<Option<i64>> {
    let windows = engine.peek(move |tx, _| windows(tx, cursor, limit)).await?;
    let (mut waited, all) = (Duration::ZERO, windows.len() >= limit as usize);
    for (mailbox, digest) in &windows {
        let before = mailbox - 1;
        if engine.write_within(now, ALONE, move |books| replan(books, before, 1)).await?.is_none() {
            tracing::warn!(digest, "somebody else's transaction holds a window; it is not planned anew");
            engine.shared().strangers().hold(*digest, now);
            waited += ALONE;
        }
        if waited >= HELD_AT_MOST {
            return Ok(Some(*mailbox));
        }
    }
    Ok(windows.last().map(|(mailbox, _)| *mailbox).filter(|_| all))
}
