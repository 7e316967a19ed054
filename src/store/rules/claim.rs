//! Claim and release: leases on what is due; due times.

use std::collections::HashMap;

use crate::store::rules::tx::{Column, Row, Tx, params};

use super::books::{Books, Digest};
use super::{Shared, sql};
use crate::model::{DigestState, Lease, Priority, Time};
use crate::store::{Ask, Leased, Left, Named, Result};

pub(super) mod lanes;
pub(super) mod paused;

/// Leases what is due: urgent first, then by due time. What somebody else has is passed over.
pub(super) fn claim(books: &mut Books<'_>, ask: &Ask) -> Result<Vec<Leased>> {
    let paused = paused(books)?;
    if paused.iter().any(|route| route == "*") {
        return Ok(vec![]);
    }
    let most = u64::from(ask.limit).min(books.second_room()?);
    let (mut taken, mut called) = (Vec::new(), Vec::new());
    for priority in Priority::ALL {
        let more = most - taken.len() as u64;
        let room = more.min(books.day_room(priority, more)?);
        if room == 0 {
            continue;
        }
        let mut numbers = due(books, ask, priority, room as u32, !paused.is_empty())?;
        books.leave_to_answers(&mut numbers);
        books.read_claimed(&numbers)?;
        for no in numbers {
            // The others are due as well, and the next claim's.
            if books.has_placed_much() {
                break;
            }
            let now = books.now;
            let Some(digest) = books.digest_if_there(no)?.filter(|digest| is_due(digest, ask, now)) else { continue };
            let (mailbox, due_at, attempts) = (digest.mailbox, digest.due_at, digest.attempts);
            let route = books.mailbox(mailbox)?.route.clone();
            let Some(leased) = lease(books, no, &route, ask)? else { continue };
            books.reserve_share();
            let audiences = if books.tx.is_postgres() { vec![] } else { audiences(books, leased, &route)? };
            if attempts > 0 {
                called.push(leased);
            }
            taken.push(Leased {
                lease: Lease { digest: books.digest_id(leased), token: books.digest(leased)?.token },
                recipient: books.mailbox(mailbox)?.recipient.clone(),
                route,
                due_at,
                priority,
                audiences,
            });
        }
    }
    let first = first_begun(books, &called)?;
    for one in &mut taken {
        if let Some(begun) = first.get(&one.lease.digest.number) {
            one.due_at = one.due_at.min(*begun);
        }
    }
    if books.tx.is_postgres() {
        let read = |row: &Row<'_>| Ok((row.get::<i64>(3)?, named(row)?));
        let mut asked: HashMap<i64, Vec<Named>> = HashMap::new();
        let found = {
            let digests = Column::ints(taken.iter().map(|one: &Leased| one.lease.digest.number));
            let routes = Column::texts(taken.iter().map(|one| one.route.as_str()));
            books.tx.prepare_cached(sql::PG_AUDIENCES)?.query_map([digests, routes], read)?
        };
        for (no, named) in found {
            asked.entry(no).or_default().push(named);
        }
        for one in &mut taken {
            one.audiences = asked.remove(&one.lease.digest.number).unwrap_or_default();
        }
    }
    Ok(taken)
}

/// When the first attempts of these digests began: they were due then, however long they have waited since.
fn first_begun(books: &Books<'_>, digests: &[i64]) -> Result<HashMap<i64, Time>> {
    let read = |row: &Row<'_>| Ok((row.get(0)?, Time(row.get(1)?)));
    let mut all = Vec::with_capacity(digests.len());
    if books.tx.is_postgres() && !digests.is_empty() {
        all = books.tx.prepare_cached(sql::PG_FIRST_BEGUN)?.query_map([Column::ints(digests.iter().copied())], read)?;
    } else {
        for no in digests {
            all.extend(books.tx.prepare_cached(sql::FIRST_BEGUN)?.query_map([*no], read)?);
        }
    }
    Ok(all.into_iter().collect())
}

/// As the statements that look for it say.
fn is_due(digest: &Digest, ask: &Ask, now: Time) -> bool {
    match digest.state {
        DigestState::Gathering => ask.everything || digest.due_at <= now,
        DigestState::Waiting => ask.everything && digest.attempts == 0 || digest.due_at <= now,
        _ => false,
    }
}

fn paused(books: &Books<'_>) -> Result<Vec<String>> {
    let mut all = books.tx.prepare_cached(sql::PAUSED)?;
    let routes = all.query_map((), |row| row.get(0))?;
    Ok(routes)
}

/// With some routes paused, those are stepped over: they must not use up the limit of the others.
fn due(books: &mut Books<'_>, ask: &Ask, priority: Priority, limit: u32, some_paused: bool) -> Result<Vec<i64>> {
    let statement = match (ask.everything, some_paused) {
        (false, false) => return lanes::due(books, priority, limit as usize),
        (true, false) => sql::ANY_DUE,
        (false, true) => return paused::due(books, priority, limit as usize),
        (true, true) => sql::ANY_DUE_UNPAUSED,
    };
    let mut due = books.tx.prepare_cached(statement)?;
    let numbers = due.query_map(params![priority as i64, books.now.0, limit], |row| row.get(0))?;
    Ok(numbers)
}

/// Freezes a digest for good. Of one that holds more than a mail lists, the most urgent items go into a digest that is made
/// for them and is leased instead; the others stay where they are. (Moving the few keeps a claim cheap however many wait;
/// nobody has seen the digest's number yet: it is a window, or one that was released and never called.)
/// `None`: somebody else has all of them.
fn lease(books: &mut Books<'_>, no: i64, route: &str, ask: &Ask) -> Result<Option<i64>> {
    let rules = books.shared.policy.rules(route);
    let (is_unseen, open, mailbox) = {
        let digest = books.digest(no)?;
        (digest.attempts == 0, digest.open, digest.mailbox)
    };
    let most = i64::from(rules.max_listed.max(1));
    let leased = if is_unseen && open > most { split(books, no, mailbox, rules.priority, most)? } else { Some(no) };
    let Some(leased) = leased else { return Ok(None) };
    books.set_state(leased, DigestState::Leased)?;
    let until = books.now.plus(ask.lease);
    let digest = books.digest_mut(leased)?;
    digest.token += 1;
    digest.until = Some(until);
    let token = digest.token;
    books.shared.own().leased(leased, token);
    Ok(Some(leased))
}

fn split(books: &mut Books<'_>, from: i64, mailbox: i64, priority: Priority, most: i64) -> Result<Option<i64>> {
    books.place_tail(from)?;
    let urgent = most_urgent(books, from, most)?;
    if urgent.is_empty() {
        return Ok(None);
    }
    let into = books.new_digest(mailbox, DigestState::Leased, priority)?;
    for (event_no, urgency) in &urgent {
        books.tx.prepare_cached(sql::MOVE_ITEM)?.later(params![event_no, mailbox, into])?;
        books.joins(into, *urgency)?;
    }
    let Digest { first_at, due_at, lane, .. } = *books.digest(from)?;
    let moved = books.digest_mut(into)?;
    (moved.first_at, moved.due_at, moved.lane) = (first_at, due_at, lane);
    books.digest_mut(from)?.open -= urgent.len() as i64;
    // The rest keeps its gap to the mail that leaves now, although that has not begun yet.
    books.assume_sent(mailbox)?;
    books.recount(from)?;
    Ok(Some(into))
}

/// (event, urgency) of the most urgent items: deadline, then age, then rank, so that arrival decides nothing.
fn most_urgent(books: &Books<'_>, digest: i64, most: i64) -> Result<Vec<(i64, i64)>> {
    let mut first = books.tx.prepare_cached(sql::URGENT_ITEMS)?;
    let mut urgent: Vec<(i64, i64)> =
        first.query_map(params![digest, most + 1], |row| Ok((row.get(0)?, row.get(2)?)))?;
    let Some(edge) = urgent.get(most as usize).map(|(_, urgency)| *urgency) else { return Ok(urgent) };
    if urgent.get(most as usize - 1).is_none_or(|(_, urgency)| *urgency != edge) {
        urgent.truncate(most as usize);
        return Ok(urgent);
    }
    // A tie over the edge, of thousands perhaps: those of the same urgency go by rank.
    urgent.retain(|(_, urgency)| *urgency != edge);
    let room = most as usize - urgent.len();
    let mut ranked = books.tx.prepare_cached(sql::URGENT_BY_RANK)?;
    let ranked: Vec<i64> = ranked.query_map(params![digest, edge, room as i64], |row| row.get(0))?;
    urgent.extend(ranked.into_iter().map(|no| (no, edge)));
    Ok(urgent)
}

/// Whom the items asked, where that may have changed since.
fn audiences(books: &Books<'_>, digest: i64, route: &str) -> Result<Vec<Named>> {
    books.tx.prepare_cached(sql::AUDIENCES)?.query_map(params![digest, route], named)
}

fn named(row: &Row<'_>) -> Result<Named> {
    let names: String = row.get(1)?;
    Ok(Named {
        event_number: row.get(0)?,
        references: serde_json::from_str(&names).unwrap_or_default(),
        except: row.get(2)?,
    })
}

/// Mailboxes in the order of locks.
pub(super) fn lock(books: &mut Books<'_>, leases: &[Lease]) -> Result<()> {
    let mine = leases.iter().filter(|lease| lease.digest.store == books.shared.store_id);
    books.hold_digests(&mine.map(|lease| lease.digest.number).collect::<Vec<_>>())
}

/// Gives an unused lease back; a lost one is passed over.
pub(super) fn release(books: &mut Books<'_>, lease: Lease) -> Result<()> {
    if books.held_under(lease)?.is_some() {
        let now = books.now;
        books.wait(lease.digest.number, now)?;
        books.tidy(lease.digest.number)?;
    }
    Ok(())
}

impl Books<'_> {
    /// Leaves out that of which an answer is known here and not stored yet: it may have been accepted.
    fn leave_to_answers(&self, numbers: &mut Vec<i64>) {
        let own = self.shared.own();
        numbers.retain(|no| !own.has_answer(*no));
    }

    /// The digest, if this very lease still runs (`fence_begin`); not if it ended, was taken by another, or was purged.
    pub fn held_under(&mut self, lease: Lease) -> Result<Option<&Digest>> {
        let no = lease.digest.number;
        if lease.digest.store != self.shared.store_id {
            return Ok(None);
        }
        let Some(digest) = self.digest_if_there(no)? else { return Ok(None) };
        let runs = digest.state == DigestState::Leased && digest.token == lease.token;
        Ok(Some(digest).filter(|_| runs))
    }
}

pub(super) fn left(conn: Tx<'_>, now: Time) -> Result<Left> {
    let mut left = Left::default();
    for priority in Priority::ALL {
        let of = params![priority as i64, now.0];
        left.is_due = left.is_due || conn.prepare_cached(sql::LEFT_DUE)?.exists(of)?;
        let retry_at: Option<i64> = conn.prepare_cached(sql::LEFT_RETRY)?.query_row(of, |row| row.get(0))?;
        left.retry_at = left.retry_at.into_iter().chain(retry_at.map(Time)).min();
    }
    Ok(left)
}

pub(super) fn next_due(conn: Tx<'_>, shared: &Shared, ask: &Ask) -> Result<Option<Time>> {
    let mut next: Option<i64> = None;
    for priority in Priority::ALL {
        let of = [priority as i64];
        if ask.everything && conn.prepare_cached(sql::ANY_WINDOW)?.exists(of)? {
            return Ok(Some(Time::MIN));
        }
        let at: Option<i64> = match ask.everything {
            true => conn.prepare_cached(sql::NEXT_RETRY)?.query_row(of, |row| row.get(0))?,
            false => {
                let of = (priority as i64, shared.due_front(priority));
                conn.prepare_cached(sql::NEXT_DUE)?.query_row(of, |row| row.get(0))?
            }
        };
        next = match (next, at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    Ok(next.map(Time))
}
