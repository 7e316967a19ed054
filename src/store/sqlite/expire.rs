//! What ends by time: leases and doubts.

use rusqlite::{Connection, params};

use super::books::Books;
use super::sql;
use crate::model::{DigestState, ItemState, Reason, Time};
use crate::store::{Result, Tidied};

/// Digests a turn: a transaction of a few milliseconds.
const TURN: u32 = 200;

/// The worker that gets the lock knows that nobody holds a lease any more.
pub(super) fn take_over(books: &mut Books<'_>) -> Result<()> {
    for no in numbers(books, sql::HELD_BY_OTHERS, params![])? {
        end_lease(books, no)?;
    }
    Ok(())
}

pub(super) fn expire(books: &mut Books<'_>, doubts_now: bool) -> Result<Tidied> {
    let mut tidied = Tidied::default();
    let mut ended = numbers(books, sql::ENDED, params![books.now.0, TURN])?;
    if doubts_now {
        ended.extend(numbers(books, sql::DOUBTS, params![TURN])?);
        ended.sort_unstable();
        ended.dedup();
    }
    tidied.more = ended.len() >= TURN as usize;
    for no in ended {
        if books.digest(no)?.state == DigestState::InDoubt {
            end_doubt(books, no)?;
            tidied.doubts_ended += 1;
        } else {
            end_lease(books, no)?;
            tidied.leases_ended += 1;
        }
    }
    Ok(tidied)
}

fn numbers(books: &Books<'_>, statement: &str, of: impl rusqlite::Params) -> Result<Vec<i64>> {
    let mut found = books.tx.prepare_cached(statement)?;
    let rows = found.query_map(of, |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(rows)
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
    for item in books.items(sql::OPEN_ITEMS, no)? {
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
pub(super) fn next_upkeep(conn: &Connection) -> Result<Option<Time>> {
    Ok(conn.prepare_cached(sql::NEXT_UNTIL)?.query_row([], |row| row.get::<_, Option<i64>>(0))?.map(Time))
}
