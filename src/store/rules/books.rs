//! One transaction's working set: the digests, mailboxes and counts that it touches, each read once and written once.

use std::collections::HashMap;

use rusqlite::{Transaction, params};

use super::{Shared, sql};
use crate::model::{DigestId, ItemState, Time};
use crate::store::Result;

mod digests;
mod hot;
mod items;
mod mailboxes;
mod quota;

pub(super) use digests::Digest;
pub(super) use items::{Item, urgency};
use mailboxes::Mailbox;
use quota::Quota;
pub(super) use quota::read as read_quota;

#[derive(Clone, Copy)]
struct Meta {
    next_event: i64,
    next_digest: i64,
    next_letter: i64,
    mails_sent: i64,
}

pub(super) struct Books<'c> {
    pub tx: &'c Transaction<'c>,
    pub shared: &'c Shared,
    pub now: Time,
    meta: Meta,
    meta_dirty: bool,
    digests: HashMap<i64, Digest>,
    /// The unfrozen digest of a mailbox; `None`: known to have none.
    windows: HashMap<i64, Option<i64>>,
    mailboxes: HashMap<i64, Mailbox>,
    /// Route, then recipient: looked up by borrowed text.
    numbers: HashMap<String, HashMap<String, i64>>,
    /// Open items of a recipient, counted on first sight.
    open: HashMap<String, i64>,
    deltas: [i64; ItemState::ALL.len()],
    quota: Option<Quota>,
    hot: hot::Hot<'c>,
    /// Shares of the day that this transaction uses.
    used_shares: i64,
    purged: [i64; ItemState::ALL.len()],
}

impl<'c> Books<'c> {
    pub fn open(tx: &'c Transaction<'c>, shared: &'c Shared, now: Time) -> Result<Books<'c>> {
        let meta = tx.prepare_cached(sql::META)?.query_row([], |row| {
            Ok(Meta {
                next_event: row.get(1)?,
                next_digest: row.get(2)?,
                next_letter: row.get(3)?,
                mails_sent: row.get(4)?,
            })
        })?;
        Ok(Books {
            tx,
            shared,
            now,
            meta,
            meta_dirty: false,
            digests: HashMap::new(),
            windows: HashMap::new(),
            mailboxes: HashMap::new(),
            numbers: HashMap::new(),
            open: HashMap::new(),
            deltas: [0; ItemState::ALL.len()],
            quota: None,
            hot: hot::Hot::default(),
            used_shares: 0,
            purged: [0; ItemState::ALL.len()],
        })
    }

    /// Writes what changed. Digests that left the window come first: a mailbox has one unfrozen digest at any moment.
    pub fn close(mut self) -> Result<()> {
        self.write_digests()?;
        self.write_quota()?;
        let mut add = self.tx.prepare_cached(sql::ADD_DELTA)?;
        for (state, n) in self.deltas.iter().enumerate().filter(|(_, n)| **n != 0) {
            add.execute(params![state as i64, n])?;
        }
        for (state, n) in self.purged.iter().enumerate().filter(|(_, n)| **n != 0) {
            self.tx.prepare_cached(sql::ADD_PURGED)?.execute(params![state as i64, n])?;
        }
        if self.meta_dirty {
            let m = self.meta;
            self.tx.prepare_cached(sql::SAVE_META)?.execute(params![
                m.next_event,
                m.next_digest,
                m.next_letter,
                m.mails_sent
            ])?;
        }
        Ok(())
    }

    pub fn digest_id(&self, no: i64) -> DigestId {
        DigestId { store: self.shared.store_id, number: no }
    }

    /// The number that the next event will get.
    pub fn peek_event(&self) -> i64 {
        self.meta.next_event
    }

    pub fn next_event(&mut self) -> i64 {
        self.meta_dirty = true;
        self.meta.next_event += 1;
        self.meta.next_event - 1
    }

    /// Gives back the number taken last: the event turned out to be a copy.
    pub fn untake_event(&mut self) {
        self.meta.next_event -= 1;
    }

    pub fn next_letter(&mut self) -> i64 {
        self.meta_dirty = true;
        self.meta.next_letter += 1;
        self.meta.next_letter - 1
    }

    pub fn count_mail(&mut self) {
        self.meta_dirty = true;
        self.meta.mails_sent += 1;
    }
}
