//! Digests: which are open, and what is in one.

use crate::store::rules::tx::{Row, Tx, params};

use super::rows::{self, Attempt, ItemRow, limit};
use super::sql;
use crate::model::{DigestState, Time};
use crate::store::desk::{AttemptRow, DigestPage};
use crate::store::rules::Shared;
use crate::store::{Page, Result, Rows, StoreError};

/// What stands for a state in [`sql::DIGESTS`].
const OPEN: i64 = -1;
const DUE: i64 = -2;

pub(super) fn digests(
    conn: Tx<'_>,
    shared: &Shared,
    (state, route, now): (Option<&str>, Option<&str>, Time),
    page: Page,
) -> Result<Rows> {
    let wanted = match state {
        None => OPEN,
        Some("due") => DUE,
        Some(name) => match DigestState::ALL.into_iter().find(|s| s.as_str() == name) {
            Some(state) => state as i64,
            None => {
                let names: Vec<&str> = DigestState::ALL.into_iter().map(DigestState::as_str).collect();
                let said = format!("no such state of a digest; there are: due, {}", names.join(", "));
                return Err(StoreError::Refused(said));
            }
        },
    };
    let most = limit(page);
    let mut found = conn.prepare_cached(sql::DIGESTS)?;
    let read = |row: &Row<'_>| Ok((row.get::<i64>(0)?, rows::digest_row(row, shared, now)?));
    let found: Vec<(i64, _)> = found.query_map(params![page.after, wanted, now.0, route, most], read)?;
    let next = found.last().map(|(no, _)| *no).filter(|_| found.len() >= most as usize);
    Ok(Rows::Digests { rows: found.into_iter().map(|(_, row)| row).collect(), next })
}

pub(super) fn digest(conn: Tx<'_>, shared: &Shared, id: &str, now: Time, page: Page) -> Result<Rows> {
    let Some(no) = rows::digest_number(shared, id) else { return Ok(Rows::Digest(None)) };
    let Some((row, address)) = rows::digest(conn, shared, no, now)? else { return Ok(Rows::Digest(None)) };
    let most = limit(page);
    let mut found = conn.prepare_cached(rows::items_of_digest(conn))?;
    let items: Vec<ItemRow> = found.query_map(params![no, page.after, most], ItemRow::read)?;
    let next = items.last().map(|i| i.event_no).filter(|_| items.len() >= most as usize);
    let attempts = attempts(conn, no)?.into_iter().map(Attempt::row).collect();
    let items = items.into_iter().map(|item| item.ledger(conn, shared)).collect::<Result<_>>()?;
    Ok(Rows::Digest(Some(Box::new(DigestPage { row, address, attempts, items, next }))))
}

/// The last attempts of a digest, oldest first.
pub(super) fn attempts(conn: Tx<'_>, no: i64) -> Result<Vec<Attempt>> {
    let mut found = conn.prepare_cached(sql::ATTEMPTS_OF_DIGEST)?;
    let mut attempts: Vec<Attempt> = found.query_map(params![no, AttemptRow::MAX], Attempt::read)?;
    attempts.reverse();
    Ok(attempts)
}
