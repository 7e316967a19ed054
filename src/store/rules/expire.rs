//! What ends by time: leases and doubts.

use std::time::Duration;

use crate::store::rules::tx::{Params, Tx, params};

use super::books::Books;
use super::sql;
use crate::model::{DigestState, ItemState, Priority, Reason, Time};
use crate::store::{Result, Tidied};

/// Digests a turn: a transaction of a few milliseconds.
const TURN: u32 = 200;

/// No limit.
const ALL: i64 = i64::MAX;

/// No retry that was planned by a right clock waits longer: not the longest backoff, nor a mailer's word for a day's
/// quota.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

/// If a clock was ahead for a moment, retries and doubts end as late as if they began now. (Windows are healed by `replan`.)
pub(in crate::store) fn heal(books: &mut Books<'_>) -> Result<()> {
    let latest = books.now.plus(LONGEST_WAIT);
    for priority in Priority::ALL {
        let of = params![priority as i64, latest.0];
        books.tx.prepare_cached(sql::SHORTEN_WAITS)?.execute(of)?;
    }
    for no in numbers(books, sql::DOUBTS, params![ALL])? {
        let mailbox = books.digest(no)?.mailbox;
        let route = books.mailbox(mailbox)?.route.clone();
        let latest = books.now.plus(books.shared.policy.rules(&route).doubt_grace);
        if books.digest(no)?.until.is_some_and(|until| until > latest) {
            books.digest_mut(no)?.until = Some(latest);
        }
    }
    Ok(())
}

/// The worker that gets the lock of a store for one knows that nobody holds a lease any more.
pub(in crate::store) fn take_over(books: &mut Books<'_>) -> Result<()> {
    heal(books)?;
    for no in numbers(books, sql::HELD_BY_OTHERS, params![])? {
        end_lease(books, no)?;
    }
    Ok(())
}

/// What has ended, or with `doubts_now` all doubts: at most a few hundred.
pub(super) fn ended(books: &mut Books<'_>, doubts_now: bool) -> Result<Vec<i64>> {
    let mut ended = numbers(books, sql::ENDED, params![books.now.0, TURN])?;
    if doubts_now {
        ended.extend(numbers(books, sql::DOUBTS, params![TURN])?);
        ended.sort_unstable();
        ended.dedup();
    }
    Ok(ended)
}

pub(super) fn expire(books: &mut Books<'_>, ended: &[i64], doubts_now: bool) -> Result<Tidied> {
    let mut tidied = Tidied { more: ended.len() >= TURN as usize, ..Tidied::default() };
    books.hold(ended.iter().map(|no| books.digest_id(*no)).collect::<Vec<_>>().into_iter())?;
    for no in ended.iter().copied() {
        // Looked up before it was locked, it may be purged, or leased anew: ended under its call, it would be a doubt.
        let now = books.now;
        let Some(digest) = books.digest_if_there(no)? else { continue };
        let runs = digest.until.is_some_and(|until| until > now);
        match digest.state {
            DigestState::Leased | DigestState::Sending if runs => {}
            DigestState::InDoubt if runs && !doubts_now => {}
            DigestState::InDoubt => {
                end_doubt(books, no)?;
                tidied.doubts_ended += 1;
            }
            DigestState::Leased | DigestState::Sending => {
                end_lease(books, no)?;
                tidied.leases_ended += 1;
            }
            _ => {}
        }
    }
    Ok(tidied)
}

/// How long a digest that could not be ended is left alone.
const LATER: Duration = Duration::from_secs(3_600);

/// It could not be ended: tried again later, so that it holds up no other.
pub(super) fn put_off(books: &mut Books<'_>, no: i64) -> Result<()> {
    let until = books.now.plus(LATER);
    books.digest_mut(no)?.until = Some(until);
    Ok(())
}

fn numbers(books: &Books<'_>, statement: &str, of: impl Params) -> Result<Vec<i64>> {
    // By the index of ends, not by sorting all that is busy: what the planner knows of an empty table says otherwise.
    let sorts = |setting: &str| match books.tx.is_postgres() {
        true => books.tx.prepare_cached(setting)?.execute(()).map(drop),
        false => Ok(()),
    };
    sorts(sql::PG_WITHOUT_SORT)?;
    let found = books.tx.prepare_cached(statement)?.query_map(of, |row| row.get(0))?;
    sorts(sql::PG_WITH_SORT)?;
    Ok(found)
}

/// Before begin nothing has happened; after it, nobody knows (`intent`).
fn end_lease(books: &mut Books<'_>, no: i64) -> Result<()> {
    if books.digest(no)?.state == DigestState::Sending {
        return books.doubt(no);
    }
    let now = books.now;
    books.wait(no, now)?;
    books.tidy(no)
}

/// No evidence came: the route's policy decides. What was closed meanwhile is withdrawn (`closure_after_doubt`).
fn end_doubt(books: &mut Books<'_>, no: i64) -> Result<()> {
    let mailbox = books.digest(no)?.mailbox;
    let route = books.mailbox(mailbox)?.route.clone();
    let rules = books.shared.policy.rules(&route);
    let again = rules.resend_in_doubt && books.burned(no)? < rules.attempts_max;
    let end = if rules.resend_in_doubt { Reason::Attempts } else { Reason::Buried };
    let now = books.now;
    books.wait(no, now)?;
    for item in books.open_in(no)? {
        if let Some(reason) = books.is_over(&item)? {
            books.settle(&item, ItemState::Withdrawn, Some(reason))?;
        } else if again {
            books.settle(&item, ItemState::Pending, None)?;
        } else {
            books.settle(&item, ItemState::Dead, Some(end))?;
        }
    }
    books.tidy(no)
}

/// When the next lease or doubt ends.
pub(super) fn next_upkeep(conn: Tx<'_>) -> Result<Option<Time>> {
    Ok(conn.prepare_cached(sql::NEXT_UNTIL)?.query_row((), |row| row.get::<Option<i64>>(0))?.map(Time))
}
