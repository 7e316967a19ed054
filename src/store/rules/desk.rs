//! The operator's desk: what can be read of the store. Every answer is one consistent look, in bounded pages.

use crate::store::rules::tx::Tx;

use super::books::look_at_quota;
use super::{Shared, sql as worker};
use crate::model::{DigestState, ItemState, Priority, Time};
use crate::store::{Gauges, Page, Query, QuotaGauges, Result, Rows};

mod digests;
mod ledger;
mod letters;
mod oldest;
mod rows;
mod sql;
mod status;
mod suppressions;
mod verify;
mod why;

pub(super) fn read(conn: Tx<'_>, shared: &Shared, query: &Query, page: Page) -> Result<Rows> {
    match query {
        Query::Status { now } => Ok(Rows::Status(Box::new(status::status(conn, shared, *now)?))),
        Query::Verify => Ok(Rows::Verified(Box::new(verify::verify(conn, shared)?))),
        Query::Digests { state, route, now } => {
            digests::digests(conn, shared, (state.as_deref(), route.as_deref(), *now), page)
        }
        Query::Digest { id, now } => digests::digest(conn, shared, id, *now, page),
        Query::DeadLetters { kind, reason, source, since, discarded } => {
            let (reason, source) = (reason.as_deref(), source.as_deref());
            let wanted = letters::Wanted { kind: *kind, reason, source, since: *since, discarded: *discarded };
            letters::letters(conn, &wanted, page)
        }
        Query::DeadLetter { id } => Ok(Rows::DeadLetter(letters::letter(conn, shared, id)?)),
        Query::Ledger { since, recipient } => ledger::ledger(conn, shared, *since, recipient.as_deref(), page),
        Query::Suppressions => suppressions::suppressions(conn, page),
        Query::Why { id, now } => Ok(Rows::Why(why::why(conn, shared, id, *now)?.map(Box::new))),
    }
}

/// For the gauges: a state with more than [`Gauges::CAP`] digests is not counted to its end.
pub(super) fn gauges(conn: Tx<'_>, shared: &Shared, now: Time) -> Result<Gauges> {
    figures(conn, shared, now, Gauges::CAP as i64)
}

/// Counts digests up to `cap` a state.
fn figures(conn: Tx<'_>, shared: &Shared, now: Time, cap: i64) -> Result<Gauges> {
    let mut gauges = Gauges { items: counts(conn)?.map(rows::count), ..Gauges::default() };
    for state in DigestState::ALL.into_iter().filter(|s| *s != DigestState::Closed) {
        // As the partial indexes are written, so that each count reads no more than its cap.
        let from = shared.until_from(now);
        let n: i64 = match state {
            DigestState::Leased | DigestState::Sending | DigestState::InDoubt => {
                conn.prepare_cached(&worker::count_state(state))?.query_row([cap, from], |row| row.get(0))?
            }
            _ => conn.prepare_cached(&worker::count_state(state))?.query_row([cap], |row| row.get(0))?,
        };
        gauges.digests[state as usize] = rows::count(n);
    }
    for priority in Priority::ALL {
        let of = (priority as i64, now.0);
        let n: i64 = conn
            .prepare_cached(worker::COUNT_DUE)?
            .query_row((of.0, of.1, cap, shared.due_from(priority, now)), |row| row.get(0))?;
        gauges.due += rows::count(n);
    }
    let paused = conn.prepare_cached(worker::PAUSED)?.query_map((), |row| row.get::<String>(0))?;
    gauges.pauses = paused.len() as u64;
    gauges.oldest_due_at = oldest::leaving(conn, shared, now, &paused)?;
    gauges.dead_letters = rows::count(conn.prepare_cached(worker::OPEN_LETTERS)?.query_row([cap], |row| row.get(0))?);
    gauges.unforwarded =
        rows::count(conn.prepare_cached(worker::COUNT_UNFORWARDED)?.query_row([cap], |row| row.get(0))?);
    gauges.size_bytes = conn.size_bytes()?;
    if let Some((quota, day)) =
        shared.account.as_deref().map(|account| look_at_quota(conn, shared, account, now)).transpose()?.flatten()
    {
        gauges.quota = Some(QuotaGauges { terms: quota.terms, day, factor: quota.rate.factor(now) });
    }
    Ok(gauges)
}

/// Items by state, as counted along the way.
fn counts(conn: Tx<'_>) -> Result<[i64; ItemState::ALL.len()]> {
    by_state(conn, worker::COUNTS)
}

fn by_state(conn: Tx<'_>, statement: &str) -> Result<[i64; ItemState::ALL.len()]> {
    let mut found = [0; ItemState::ALL.len()];
    let mut counts = conn.prepare_cached(statement)?;
    counts.each((), |row| {
        if let Some(state) = ItemState::from_number(row.get(0)?) {
            found[state as usize] = row.get(1)?;
        }
        Ok(true)
    })?;
    Ok(found)
}
