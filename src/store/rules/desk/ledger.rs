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
    let of = (page.after, since.map(|t| t.0), recipient);
    let (items, next) = items(conn, sql::LEDGER, of, page)?;
    let rows = items.into_iter().map(|item| item.ledger(conn, shared)).collect::<Result<_>>()?;
    Ok(Rows::Ledger { rows, next })
}

/// A page of items in the order of their events. It ends with a whole event, so that the event's number is the cursor:
/// it may be longer than asked for by the items of one event, which `limits.recipients_per_event` bounds.
pub(super) fn items(conn: Tx<'_>, statement: &str, of: impl Params, page: Page) -> Result<(Vec<ItemRow>, Option<i64>)> {
    let most = limit(page) as usize;
    let mut found = conn.prepare_cached(statement)?;
    let (mut items, mut next) = (Vec::<ItemRow>::new(), None);
    found.each(of, |row| {
        if let Some(last) = items.last().filter(|_| items.len() >= most)
            && row.get::<i64>(0)? != last.event_no
        {
            next = Some(last.event_no);
            return Ok(false);
        }
        items.push(ItemRow::read(row)?);
        Ok(true)
    })?;
    Ok((items, next))
}
