//! The proof of notification, item by item.

use crate::store::rules::tx::{Params, Tx};

use super::rows::{ItemRow, limit};
use super::sql;
use crate::model::Time;
use crate::store::rules::Shared;
use crate::store::{Page, Result, Rows};

pub(super) fn ledger(
    conn: Tx<'_>,
    shared: &Shared,
    since: Option<Time>,
    recipient: Option<&str>,
    page: Page,
) -> Result<Rows> {
    let of = |rows| (page.after, since.map(|t| t.0), recipient, rows);
    let (items, next) = items(conn, sql::LEDGER, of, page)?;
    let rows = items.into_iter().map(|item| item.ledger(conn, shared)).collect::<Result<_>>()?;
    Ok(Rows::Ledger { rows, next })
}

/// So many rows are asked for beyond a page, for the rest of its last event's; most events have fewer people.
const BEYOND: i64 = 500;

/// A page of items in the order of their events. It ends with a whole event, so that the event's number is the cursor:
/// it may be longer than asked for by the items of one event, which `limits.recipients_per_event` bounds. `of`: the values of the
/// statement, for so many rows at most; a database may send all of them, whether they are read or not.
pub(super) fn items<P: Params>(
    conn: Tx<'_>,
    statement: &str,
    of: impl Fn(i64) -> P,
    page: Page,
) -> Result<(Vec<ItemRow>, Option<i64>)> {
    let most = i64::from(limit(page));
    let mut rows = most + BEYOND;
    loop {
        let (mut items, mut next) = (Vec::<ItemRow>::new(), None);
        conn.prepare_cached(statement)?.each(of(rows), |row| {
            if let Some(last) = items.last().filter(|_| items.len() as i64 >= most)
                && row.get::<i64>(0)? != last.event_no
            {
                next = Some(last.event_no);
                return Ok(false);
            }
            items.push(ItemRow::read(row)?);
            Ok(true)
        })?;
        if next.is_some() || (items.len() as i64) < rows {
            return Ok((items, next));
        }
        rows = rows.saturating_mul(4);
    }
}
