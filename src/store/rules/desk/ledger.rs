//! The proof of notification, item by item.

use rusqlite::{Connection, Params};

use super::rows::{ItemRow, limit};
use super::sql;
use crate::model::Time;
use crate::store::sqlite::Shared;
use crate::store::{Page, Result, Rows};

pub(super) fn ledger(
    conn: &Connection,
    shared: &Shared,
    since: Option<Time>,
    recipient: Option<&str>,
    page: Page,
) -> Result<Rows> {
    let of = (page.after, since.map(|t| t.0), recipient);
    let (items, next) = items(conn, sql::LEDGER, of, page)?;
    let rows = items.into_iter().map(|item| item.ledger(conn, shared)).collect::<Result<_>>()?;
    Ok(Rows::Ledger { rows, next })
}

/// A page of items in the order of their events. It ends with a whole event, so that the event's number is the cursor:
/// it may be longer than asked for by the items of one event, which `limits.recipients_per_event` bounds.
pub(super) fn items(
    conn: &Connection,
    statement: &str,
    of: impl Params,
    page: Page,
) -> Result<(Vec<ItemRow>, Option<i64>)> {
    let most = limit(page) as usize;
    let mut found = conn.prepare_cached(statement)?;
    let mut rows = found.query(of)?;
    let mut items: Vec<ItemRow> = Vec::new();
    while let Some(row) = rows.next()? {
        if let Some(last) = items.last().filter(|_| items.len() >= most)
            && row.get::<_, i64>(0)? != last.event_no
        {
            let next = last.event_no;
            return Ok((items, Some(next)));
        }
        items.push(ItemRow::read(row)?);
    }
    Ok((items, None))
}
