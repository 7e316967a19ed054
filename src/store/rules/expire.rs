//! What ends by time: leases and doubts.

use std::time::Duration;

use crate::store::rules::tx::{Column, Params, Tx, params};

use super::books::Books;
use super::{Shared, own, sql};
use crate::model::{DigestState, ItemState, Lease, Priority, Reason, Time};
use crate::store::{Result, Tidied};

/// Digests a turn: a transaction of a few milliseconds.
const TURN: u32 = 200;

/// No retry that was planned by a right clock waits longer: not the longest backoff, nor a mailer's word for a day's
/// quota.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

/// So many of those are planned at a start: a transaction of some hundred milliseconds. The others at the next one.
const HEALED_MAX: u32 = 1_000;

/// If a clock was ahead for a moment, retries and doubts end as late as if they began now. (Windows are healed by `replan`.)
pub(in crate::store) fn heal(books: &mut Books<'_>) -> Result<()> {
    let latest = books.now.plus(LONGEST_WAIT);
    for priority in Priority::ALL {
        let of = params![priority as i64, latest.0];
        books.tx.prepare_cached(sql::SHORTEN_WAITS)?.execute(of)?;
        // What was never called has a plan instead, as a window has.
        let of = params![priority as i64, latest.0, HEALED_MAX];
        let far = books.tx.prepare_cached(sql::NOT_CALLED_AFTER)?.query_map(of, |row| row.get::<i64>(0))?;
        for no in far {
            let digest = books.digest(no)?;
            if digest.state == DigestState::Waiting && digest.attempts == 0 && digest.due_at > latest {
                books.recount(no)?;
            }
        }
    }
    let (policy, now) = (&books.shared.policy, books.now);
    let doubts = books.tx.prepare_cached(sql::DOUBTS_AND_ROUTES)?.query_map((), |row| {
        let route: String = row.get(2)?;
        // How long a doubt of an unknown route may wait, a worker that has it knows.
        let grace = if policy.knows(&route) { policy.rules(&route).doubt_grace } else { LONGEST_WAIT };
        let latest = now.plus(grace);
        Ok((row.get::<i64>(0)?, row.get::<Option<i64>>(1)?.is_some_and(|until| until > latest.0), latest))
    })?;
    // No other is locked: somebody may hold it, and a start does not wait for that.
    for (no, _, latest) in doubts.into_iter().filter(|(_, too_long, _)| *too_long) {
        let is_doubt = books.digest(no)?.state == DigestState::InDoubt;
        if is_doubt && books.digest(no)?.until.is_some_and(|until| until > latest) {
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

/// What became of one that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Lease,
    Doubt,
    /// It goes on.
    Not,
    /// Somebody else has its rows.
    Held,
    Broken,
}

/// What has ended, or with `doubts_now` this worker's doubts too: at most a few hundred.
pub(super) fn ended(books: &mut Books<'_>, doubts_now: bool) -> Result<Vec<i64>> {
    books.look_for_until()?;
    let shared = books.shared;
    // Beyond those that nothing can be done about now.
    let besides = shared.strangers().count() + shared.own().answers();
    let most = TURN.saturating_add(u32::try_from(besides).unwrap_or(u32::MAX));
    let mut ended = numbers(books, sql::ENDED, params![books.now.0, most, shared.until_from(books.now)])?;
    if doubts_now {
        ended.extend(own_doubts(books)?);
        ended.sort_unstable();
        ended.dedup();
    }
    // Its answer is known here: the end of its time would be a doubt about what is none.
    let own = shared.own();
    ended.retain(|no| !own.has_answer(*no));
    // Those that were seen held are tried one by one, within a bound of their own; the others make one transaction.
    let (strangers, mut usual) = (shared.strangers(), 0);
    ended.retain(|no| {
        let strange = strangers.have(*no);
        usual += u32::from(!strange);
        strange || usual <= TURN
    });
    Ok(ended)
}

/// Shortly before the end of a lease: longer than upkeep's longest pause between two looks.
const SOON: Duration = Duration::from_secs(10);

/// Calls of others whose lease is about to end, on a store that is shared. (Those of a worker that lives have ended long ago.)
pub(super) fn ends_soon(books: &mut Books<'_>) -> Result<Vec<i64>> {
    if !books.tx.is_postgres() {
        return Ok(vec![]);
    }
    let (from, to) = (books.now.0, books.now.plus(SOON).0);
    let mut soon = numbers(books, sql::PG_ENDS_SOON, params![from, to, TURN])?;
    let own = books.shared.own();
    soon.retain(|no| !own.has_answer(*no));
    Ok(soon)
}

pub(super) fn own_doubts(books: &mut Books<'_>) -> Result<Vec<i64>> {
    if !books.tx.is_postgres() {
        return numbers(books, sql::DOUBTS, params![TURN]);
    }
    let mine = own::under_way(books.tx, books.shared)?;
    let doubts = mine.into_iter().filter(|(_, state)| *state == DigestState::InDoubt).map(|(no, _)| no);
    let own = books.shared.own();
    Ok(doubts.filter(|no| !own.has_answer(*no)).take(TURN as usize).collect())
}

/// Everything that an answer would need too: what is held in its way must not look free here.
pub(super) fn lock(books: &mut Books<'_>, ended: &[i64]) -> Result<()> {
    if books.tx.is_postgres() && !ended.is_empty() {
        books.tx.prepare_cached(sql::PG_HOLD_TABLES)?.execute(())?;
    }
    books.hold(ended.iter().map(|no| books.digest_id(*no)).collect::<Vec<_>>().into_iter())?;
    if books.tx.is_postgres() && !ended.is_empty() {
        let of = Column::ints(ended.iter().copied());
        let rows = [
            sql::PG_HOLD_DIGESTS,
            sql::PG_HOLD_ITEMS,
            sql::PG_HOLD_RELISTED,
            sql::PG_HOLD_ATTEMPTS,
            sql::PG_HOLD_STANDINGS,
        ];
        for hold in rows {
            books.tx.prepare_cached(hold)?.query_map([&of], |_| Ok(()))?;
        }
    }
    Ok(())
}

/// Ends one whose time is over.
pub(super) fn end(books: &mut Books<'_>, no: &i64) -> Result<Ended> {
    expire(books, *no, false)
}

/// The same, or a doubt whatever its time.
pub(super) fn end_now(books: &mut Books<'_>, no: &i64) -> Result<Ended> {
    expire(books, *no, true)
}

fn expire(books: &mut Books<'_>, no: i64, doubts_now: bool) -> Result<Ended> {
    // Looked up before it was locked, it may be purged, or leased anew: ended under its call, it would be a doubt.
    let now = books.now;
    let Some(digest) = books.digest_if_there(no)? else { return Ok(Ended::Not) };
    let (state, token, runs) = (digest.state, digest.token, digest.until.is_some_and(|until| until > now));
    match state {
        DigestState::Leased | DigestState::Sending if runs => return Ok(Ended::Not),
        DigestState::InDoubt if runs && !doubts_now => return Ok(Ended::Not),
        DigestState::Leased | DigestState::Sending | DigestState::InDoubt => {}
        _ => return Ok(Ended::Not),
    }
    let lease = Lease { digest: books.digest_id(no), token };
    if state != DigestState::Leased && books.shared.own().is_unheard(lease) {
        // The call was never made, and this process alone knows.
        own::look_up(books, &lease)?;
        return Ok(Ended::Lease);
    }
    if state != DigestState::Leased
        && let Some(until) = books.shared.strangers().respite(no, now)
    {
        books.digest_mut(no)?.until = Some(until);
        return Ok(Ended::Not);
    }
    if state == DigestState::InDoubt {
        if is_for_another(books, no)? {
            // Not ours to end, whoever ended its lease: a run to the end does not wait for it.
            books.shared.own().leaves(no);
            let ended = books.digest(no)?.until.unwrap_or(now);
            if ended.plus(ANOTHER_ENDS) <= now {
                books.digest_mut(no)?.until = Some(now.plus(ANOTHER_LOOKS));
            }
            return Ok(Ended::Not);
        }
        end_doubt(books, no)?;
        return Ok(Ended::Doubt);
    }
    if state == DigestState::Sending {
        // Whoever called is gone: from here on the doubt is in our hands.
        books.shared.own().leased(no, token);
    }
    end_lease(books, no)?;
    Ok(Ended::Lease)
}

/// What a turn came to.
pub(super) fn tidied(all: &[Ended]) -> Tidied {
    let count = |of: Ended| all.iter().filter(|one| **one == of).count() as u64;
    let (leases_ended, doubts_ended) = (count(Ended::Lease), count(Ended::Doubt));
    Tidied { leases_ended, doubts_ended, more: leases_ended + doubts_ended >= TURN.into(), ..Tidied::default() }
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
    books.without_sort(|| books.tx.prepare_cached(statement)?.query_map(of, |row| row.get(0)))
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

/// Before a doubt of an unknown route is put off, a worker that knows it has had time to end it: each looks at least once in
/// 5 s.
const ANOTHER_ENDS: Duration = Duration::from_secs(10);
/// Then it is put off for so long, so that it does not stand before what others wait for.
const ANOTHER_LOOKS: Duration = Duration::from_secs(60);

/// Whether a doubt is left to a worker that knows what its route does in doubt: for a day after its grace, which is longer
/// than a change of configuration takes to reach all workers of a store.
fn is_for_another(books: &mut Books<'_>, no: i64) -> Result<bool> {
    let mailbox = books.digest(no)?.mailbox;
    let route = books.mailbox(mailbox)?.route.clone();
    if books.shared.policy.knows(&route) || !books.tx.is_postgres() {
        return Ok(false);
    }
    books.shared.tell_unknown(&route);
    let begun: Option<i64> = books.tx.prepare_cached(sql::LAST_BEGUN)?.query_row([no], |row| row.get(0))?;
    let patience = books.shared.policy.rules(&route).doubt_grace.saturating_add(LONGEST_WAIT);
    Ok(begun.is_some_and(|begun| Time(begun).plus(patience) > books.now))
}

/// No evidence came: the route's policy decides. Of a route that nobody knows any more none is sent again: perhaps that was
/// promised. What is sent again waits as after any failure: a server in trouble is not called by all at once, and again and again.
/// What was closed meanwhile is withdrawn (`closure_after_doubt`).
fn end_doubt(books: &mut Books<'_>, no: i64) -> Result<()> {
    let mailbox = books.digest(no)?.mailbox;
    let route = books.mailbox(mailbox)?.route.clone();
    let rules = books.shared.policy.rules(&route);
    let resends = rules.resend_in_doubt && books.shared.policy.knows(&route);
    let (wait, end) = if resends { books.backs_off(no)? } else { (Duration::ZERO, Some(Reason::Buried)) };
    let due_at = books.now.plus(wait);
    books.wait(no, due_at)?;
    for item in books.open_in(no)? {
        if let Some(reason) = books.is_over(&item)? {
            books.settle(&item, ItemState::Withdrawn, Some(reason))?;
        } else if let Some(reason) = end {
            books.settle(&item, ItemState::Dead, Some(reason))?;
        } else {
            books.settle(&item, ItemState::Pending, None)?;
        }
    }
    books.tidy(no)
}

/// When the next lease or doubt ends.
pub(super) fn next_upkeep(conn: Tx<'_>, shared: &Shared) -> Result<Option<Time>> {
    Ok(conn
        .prepare_cached(sql::NEXT_UNTIL)?
        .query_row([shared.until_front()], |row| row.get::<Option<i64>>(0))?
        .map(Time))
}
