//! Addresses that must not be mailed.

use crate::store::rules::tx::{Tx, params};

use super::sql;
use crate::model::Time;
use crate::store::desk::Suppression;
use crate::store::{Page, Result, Rows};

/// By address; the cursor is how many were read.
pub(super) fn suppressions(conn: Tx<'_>, page: Page) -> Result<Rows> {
    let skip = page.after.max(0);
    let mut found = conn.prepare_cached(sql::SUPPRESSIONS)?;
    let rows: Vec<Suppression> = found.query_map(params![page.limit, skip], |row| {
        Ok(Suppression { address: row.get(0)?, reason: row.get(1)?, since: Time(row.get(2)?).to_string() })
    })?;
    let next = (rows.len() == page.limit as usize).then_some(skip + i64::from(page.limit));
    Ok(Rows::Suppressions { rows, next })
}
