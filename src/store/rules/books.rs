//! One transaction's working set: the digests, mailboxes and counts that it touches, each read once and written once.

use std::collections::HashMap;

use crate::store::rules::tx::{Tx, params};

use super::{Shared, sql};
use crate::model::{DigestId, ItemState, Time};
use crate::store::Result;

mod digests;
mod fetched;
mod hot;
mod items;
mod mailboxes;
mod numbers;
mod quota;

pub(super) use digests::Digest;
use fetched::Fetched;
pub(super) use fetched::{Link, Wanted};
pub(super) use items::{Item, NewItem, purged, urgency};
use mailboxes::Mailbox;
use numbers::Numbers;
use quota::Quota;
pub(super) use quota::read as read_quota;

pub(in crate::store) struct Books<'c> {
    pub(super) tx: Tx<'c>,
    pub(super) shared: &'c Shared,
    pub(super) now: Time,
    numbers_of: Numbers,
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
    /// What was read ahead.
    pub(super) fetched: Fetched,
}

impl<'c> Books<'c> {
    pub fn open(tx: Tx<'c>, shared: &'c Shared, now: Time) -> Result<Books<'c>> {
        Ok(Books {
            tx,
            shared,
            now,
            numbers_of: Numbers::open(tx)?,
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
            fetched: Fetched::default(),
        })
    }

    /// Writes what changed. Digests that left the window come first: a mailbox has one unfrozen digest at any moment.
    pub fn close(mut self) -> Result<()> {
        self.write_digests()?;
        self.write_quota()?;
        let mut add = self.tx.prepare_cached(sql::ADD_DELTA)?;
        for (state, n) in self.deltas.iter().enumerate().filter(|(_, n)| **n != 0) {
            add.later(params![state as i64, n])?;
        }
        for (state, n) in self.purged.iter().enumerate().filter(|(_, n)| **n != 0) {
            self.tx.prepare_cached(sql::ADD_PURGED)?.later(params![state as i64, n])?;
        }
        self.numbers_of.close(self.tx)
    }

    pub fn digest_id(&self, no: i64) -> DigestId {
        DigestId { store: self.shared.store_id, number: no }
    }
}
