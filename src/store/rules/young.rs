//! On SQLite what is looked up by a hash is young first: a small table takes it, all of whose pages stay in the cache. Part
//! after part of all hashes moves on to the old table, in order, so that many rows share the pages that they come to.
//!
//! A hash falls on any page. Were there one table, a batch of intake would have nearly as many pages to write as it has events;
//! so it has the young table's, and those of one part of the old one.

use super::books::Books;
use super::books::old::{self, PARTS, Table};
use super::sql;
use crate::model::Topic;
use crate::store::line::Key;
use crate::store::rules::tx::{Optional, params};
use crate::store::{Result, StoreError};

/// A part moves on each time that so many events have come in. The young tables hold what comes in half a round: some
/// 32,000 rows, 3 MB.
pub const YOUNG_EVENTS: usize = 2_048;

/// Longer than every hash, so that it is behind all of them.
const END: [u8; 25] = [0xff; 25];

/// The event numbers of a batch say which parts move on: whoever writes the next one goes on where this one ended, also after
/// a restart, and also if this one is taken back.
pub(super) fn age(books: &mut Books<'_>) -> Result<()> {
    let (first, next) = books.new_events();
    let every = i64::try_from(books.shared.young_events.max(1)).unwrap_or(i64::MAX);
    // As many as there are at most, however large the batch is.
    for step in (first / every + 1..=next / every).take(PARTS as usize) {
        move_on(books, step.rem_euclid(i64::from(PARTS)) as u32)?;
    }
    Ok(())
}

fn move_on(books: &mut Books<'_>, part: u32) -> Result<()> {
    let tx = books.tx;
    let old = books.old()?;
    let begin = |part: u32| (part * (0x1_0000 / PARTS)) as u16;
    let from = begin(part).to_be_bytes();
    let next = begin(part + 1).to_be_bytes();
    let to = if part + 1 < PARTS { &next[..] } else { &END[..] };
    for (table, statements) in [(Table::Keys, &sql::LITE_AGE_KEYS), (Table::Topics, &sql::LITE_AGE_SUBJECTS)] {
        if old.is_known(table, part) {
            tx.prepare_cached(statements.young)?.each(params![&from[..], to], |row| {
                old.put(table, &row.get::<Vec<u8>>(0)?);
                Ok(true)
            })?;
        }
        for statement in [statements.insert, statements.delete] {
            tx.prepare_cached(statement)?.execute(params![&from[..], to])?;
        }
        if old.is_unknown(table, part) {
            let mut rows = Vec::new();
            tx.prepare_cached(statements.old)?.each(params![&from[..], to], |row| {
                rows.extend(old::bits(&row.get::<Vec<u8>>(0)?));
                Ok(rows.len() <= old::ROWS_MAX)
            })?;
            old.learn(table, part, &rows);
        }
    }
    Ok(())
}

impl Books<'_> {
    /// Number and arrival of the event that has this key.
    pub fn event_of(&self, key: &Key) -> Result<Option<(i64, i64)>> {
        let find = if self.tx.is_postgres() { sql::PG_EVENT_BY_KEY } else { sql::LITE_EVENT_BY_KEY };
        self.tx.prepare_cached(find)?.query_row([&key[..]], |row| Ok((row.get(0)?, row.get(1)?))).optional()
    }

    /// An event steps aside: its key is another's from now on.
    pub fn rename_event(&mut self, no: i64, key: &Key, id: &str) -> Result<()> {
        self.drop_key(no)?;
        self.tx.prepare_cached(sql::RENAME_EVENT)?.execute(params![no, &key[..], id])?;
        if !self.tx.is_postgres() && !self.add_key(key, no)? {
            return Err(StoreError::Broken(format!(
                "event {no} steps aside for one that asks again, twice in a microsecond"
            )));
        }
        Ok(())
    }

    pub fn drop_key(&self, no: i64) -> Result<()> {
        if !self.tx.is_postgres() {
            for statement in [sql::LITE_DROP_YOUNG_KEY, sql::LITE_DROP_OLD_KEY] {
                self.tx.prepare_cached(statement)?.execute([no])?;
            }
        }
        Ok(())
    }

    pub fn drop_subject(&self, topic: &Topic) -> Result<()> {
        self.fetched.unsaved.borrow_mut().remove(topic);
        let lite = &[sql::LITE_DROP_YOUNG_SUBJECT, sql::LITE_DROP_OLD_SUBJECT][..];
        for statement in if self.tx.is_postgres() { &[sql::PG_DROP_SUBJECT][..] } else { lite } {
            self.tx.prepare_cached(statement)?.later([&topic.0[..]])?;
        }
        Ok(())
    }
}
