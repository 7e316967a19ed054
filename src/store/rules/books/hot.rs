//! The statements that intake runs once an event or an item. They are held open for the whole transaction: finding one in
//! the connection's cache and clearing it costs as much as a small insert.

use rusqlite::{CachedStatement, Params, Transaction};

use super::super::sql;
use super::Books;
use crate::store::Result;

#[derive(Default)]
pub(super) struct Hot<'c> {
    event: Option<CachedStatement<'c>>,
    asked: Option<CachedStatement<'c>>,
    subject: Option<CachedStatement<'c>>,
    own: Option<CachedStatement<'c>>,
    item: Option<CachedStatement<'c>>,
}

/// Rows that it changed.
fn execute<'c>(
    held: &mut Option<CachedStatement<'c>>,
    tx: &'c Transaction<'c>,
    text: &str,
    params: impl Params,
) -> Result<usize> {
    let statement = match held {
        Some(statement) => statement,
        None => held.insert(tx.prepare_cached(text)?),
    };
    Ok(statement.execute(params)?)
}

impl Books<'_> {
    pub fn add_event(&mut self, params: impl Params) -> Result<usize> {
        execute(&mut self.hot.event, self.tx, sql::ADD_EVENT, params)
    }

    pub fn add_asked(&mut self, params: impl Params) -> Result<usize> {
        execute(&mut self.hot.asked, self.tx, sql::ADD_ASKED, params)
    }

    pub fn add_subject(&mut self, params: impl Params) -> Result<usize> {
        execute(&mut self.hot.subject, self.tx, sql::ADD_SUBJECT, params)
    }

    pub fn save_own(&mut self, params: impl Params) -> Result<usize> {
        execute(&mut self.hot.own, self.tx, sql::SAVE_OWN, params)
    }

    pub(super) fn insert_item(&mut self, params: impl Params) -> Result<usize> {
        execute(&mut self.hot.item, self.tx, sql::ADD_ITEM, params)
    }
}
