//! How the parts of the running worker are: written by it, read by commands beside it.

use crate::store::rules::tx::{Row, Tx, params};

use super::books::Books;
use super::sql;
use crate::model::Time;
use crate::store::desk::PartRow;
use crate::store::{Condition, Result};

pub(super) fn report(books: &mut Books<'_>, conditions: &[Condition]) -> Result<()> {
    books.tx.prepare_cached(sql::CLEAR_CONDITIONS)?.execute(())?;
    for c in conditions {
        let lag = c.lag.map(|n| i64::try_from(n).unwrap_or(i64::MAX));
        books.tx.prepare_cached(sql::ADD_CONDITION)?.execute(params![
            c.part,
            c.name,
            c.state,
            c.detail,
            lag,
            c.since.0,
            books.now.0
        ])?;
    }
    Ok(())
}

/// What the worker last said of one kind of its parts.
pub(super) fn parts(conn: Tx<'_>, part: &str) -> Result<Vec<PartRow>> {
    let mut said = conn.prepare_cached(sql::CONDITIONS)?;
    said.query_map([part], part_row)
}

fn part_row(row: &Row<'_>) -> Result<PartRow> {
    Ok(PartRow {
        name: row.get(0)?,
        state: row.get(1)?,
        detail: row.get::<Option<String>>(2)?.filter(|d| !d.is_empty()),
        lag: row.get::<Option<i64>>(3)?.map(|n| u64::try_from(n).unwrap_or(0)),
        since: Time(row.get(4)?).to_string(),
        at: Time(row.get(5)?).to_string(),
    })
}
