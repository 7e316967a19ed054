//! The statements that intake runs once an event or an item. They are held open for the whole transaction: finding one in
//! the connection's cache and clearing it costs as much as a small insert.

use super::super::sql;
use super::Books;
use crate::store::Result;
use crate::store::rules::tx::{Held, Params, Tx, Value};

#[derive(Default)]
pub(super) struct Hot<'c> {
    event: Option<Box<dyn Held + 'c>>,
    known: Option<Box<dyn Held + 'c>>,
    asked: Option<Box<dyn Held + 'c>>,
    subject: Option<Box<dyn Held + 'c>>,
    own: Option<Box<dyn Held + 'c>>,
    item: Option<Box<dyn Held + 'c>>,
}

/// Rows that it changed.
fn execute<'c>(
    held: &mut Option<Box<dyn Held + 'c>>,
    tx: Tx<'c>,
    text: &'static str,
    params: impl Params,
) -> Result<u64> {
    hold(held, tx, text)?.execute(&params.values())
}

fn hold<'h, 'c>(
    held: &'h mut Option<Box<dyn Held + 'c>>,
    tx: Tx<'c>,
    text: &'static str,
) -> Result<&'h mut Box<dyn Held + 'c>> {
    match held {
        Some(statement) => Ok(statement),
        None => Ok(held.insert(tx.hold(text)?)),
    }
}

impl Books<'_> {
    pub fn add_event(&mut self, params: impl Params) -> Result<u64> {
        execute(&mut self.hot.event, self.tx, sql::ADD_EVENT, params)
    }

    pub fn knows_event(&mut self, key: &[u8]) -> Result<bool> {
        hold(&mut self.hot.known, self.tx, sql::EVENT_BY_KEY)?.exists(&[Value::Blob(key)])
    }

    pub fn add_asked(&mut self, params: impl Params) -> Result<u64> {
        execute(&mut self.hot.asked, self.tx, sql::ADD_ASKED, params)
    }

    pub fn add_subject(&mut self, params: impl Params) -> Result<u64> {
        execute(&mut self.hot.subject, self.tx, sql::ADD_SUBJECT, params)
    }

    pub fn save_own(&mut self, params: impl Params) -> Result<u64> {
        execute(&mut self.hot.own, self.tx, sql::SAVE_OWN, params)
    }

    pub(super) fn insert_item(&mut self, params: impl Params) -> Result<u64> {
        execute(&mut self.hot.item, self.tx, sql::ADD_ITEM, params)
    }
}
