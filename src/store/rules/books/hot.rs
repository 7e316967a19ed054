//! The statements that intake runs once an event or an item. They are held open for the whole transaction: finding one in
//! the connection's cache and clearing it costs as much as a small insert.

use std::sync::MutexGuard;

use super::super::sql;
use super::Books;
use super::old::{Old, Table};
use crate::model::Topic;
use crate::store::Result;
use crate::store::rules::tx::{Held, Params, Tx, Value};

#[derive(Default)]
pub(super) struct Hot<'c> {
    /// Had for the whole transaction: there is one writer.
    old: Option<MutexGuard<'c, Old>>,
    event: Option<Box<dyn Held + 'c>>,
    old_key: Option<Box<dyn Held + 'c>>,
    key: Option<Box<dyn Held + 'c>>,
    asked: Option<Box<dyn Held + 'c>>,
    old_subject: Option<Box<dyn Held + 'c>>,
    subject: Option<Box<dyn Held + 'c>>,
    own: Option<Box<dyn Held + 'c>>,
    item: Option<Box<dyn Held + 'c>>,
    settled: Option<Box<dyn Held + 'c>>,
    behind: Option<Box<dyn Held + 'c>>,
    placed: Option<Box<dyn Held + 'c>>,
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
    /// What the old tables lack, as this transaction sees them (SQLite).
    pub fn old(&mut self) -> Result<&mut Old> {
        match &mut self.hot.old {
            Some(old) => Ok(old),
            free => {
                let others = self.tx.query_row(sql::LITE_OTHERS, (), |row| row.get(0))?;
                let old = free.insert(self.shared.old());
                old.as_of(others);
                Ok(old)
            }
        }
    }

    pub fn add_event(&mut self, params: impl Params) -> Result<u64> {
        execute(&mut self.hot.event, self.tx, sql::LITE_ADD_EVENT, params)
    }

    /// `false`: the key of an event that is known.
    pub fn add_key(&mut self, key: &[u8], no: i64) -> Result<bool> {
        let is_old = !self.old()?.lacks(Table::Keys, key)
            && hold(&mut self.hot.old_key, self.tx, sql::LITE_IN_OLD_KEY)?.exists(&[Value::Blob(key)])?;
        Ok(!is_old && execute(&mut self.hot.key, self.tx, sql::LITE_ADD_KEY, (key, no))? == 1)
    }

    pub fn add_asked(&mut self, params: impl Params) -> Result<()> {
        if self.tx.is_postgres() {
            return self.tx.prepare_cached(sql::ADD_ASKED)?.later(params);
        }
        execute(&mut self.hot.asked, self.tx, sql::ADD_ASKED, params).map(drop)
    }

    /// `false`: it is known. `params` begin with the topic.
    pub fn add_subject(&mut self, topic: &Topic, params: impl Params) -> Result<bool> {
        let is_old = !self.old()?.lacks(Table::Topics, &topic.0)
            && hold(&mut self.hot.old_subject, self.tx, sql::LITE_IN_OLD_SUBJECT)?.exists(&[Value::Blob(&topic.0)])?;
        Ok(!is_old && execute(&mut self.hot.subject, self.tx, sql::LITE_ADD_SUBJECT, params)? == 1)
    }

    pub fn save_own(&mut self, params: impl Params) -> Result<()> {
        if self.tx.is_postgres() {
            return self.tx.prepare_cached(sql::SAVE_OWN)?.later(params);
        }
        execute(&mut self.hot.own, self.tx, sql::SAVE_OWN, params).map(drop)
    }

    pub(super) fn settle_item(&mut self, params: impl Params) -> Result<()> {
        if self.tx.is_postgres() {
            return self.tx.prepare_cached(sql::SETTLE_ITEM)?.later(params);
        }
        execute(&mut self.hot.settled, self.tx, sql::SETTLE_ITEM, params).map(drop)
    }

    /// The event of the item before this one in a window's tail.
    pub(super) fn behind(&mut self, event_no: i64, mailbox: i64) -> Result<Option<i64>> {
        let of = [Value::Int(event_no), Value::Int(mailbox)];
        hold(&mut self.hot.behind, self.tx, sql::LITE_BEHIND)?.number(&of)
    }

    pub(super) fn place_item(&mut self, params: impl Params) -> Result<()> {
        execute(&mut self.hot.placed, self.tx, sql::LITE_PLACE_ITEM, params).map(drop)
    }

    pub(super) fn insert_item(&mut self, params: impl Params) -> Result<u64> {
        let add = if self.tx.is_postgres() { sql::PG_ADD_ITEM } else { sql::LITE_ADD_ITEM };
        execute(&mut self.hot.item, self.tx, add, params)
    }
}
