//! One transaction's working set: the digests, mailboxes and counts that it touches, each read once and written once.

use crate::store::rules::tx::{Tx, params};

use super::notices::Owed;
use super::{Shared, sql};
use crate::model::{DigestId, ItemState, Time};
use crate::quota::Day;
use crate::store::Result;

mod ahead;
mod air;
mod digests;
mod fetched;
mod held;
mod hot;
mod items;
mod kept;
mod mailboxes;
mod numbers;
pub(super) mod old;
mod quota;
mod tail;

pub(in crate::store) use air::Air;
pub(super) use digests::{Digest, lane};
use fetched::Fetched;
pub(super) use fetched::{Link, Wanted};
use held::Held;
pub(super) use items::{Item, NewItem, purged, urgency};
pub(in crate::store) use kept::{AsOf, Kept};
use mailboxes::Mailbox;
use numbers::Numbers;
use quota::Quota;
pub(super) use quota::{Hold, look as look_at_quota, read as read_quota, used as used_shares};

pub(in crate::store) struct Books<'c> {
    pub(super) tx: Tx<'c>,
    pub(super) shared: &'c Shared,
    pub(super) now: Time,
    numbers_of: Numbers,
    kept: Kept,
    deltas: [i64; ItemState::ALL.len()],
    quota: Option<Quota>,
    day: Option<Day>,
    hot: hot::Hot<'c>,
    /// Shares of the day that this transaction reserves, and that it uses.
    reserved_shares: u64,
    used_shares: i64,
    purged: [i64; ItemState::ALL.len()],
    /// Items of tails that this transaction has placed.
    placed: u64,
    /// What was read ahead.
    pub(super) fetched: Fetched,
    pub(super) held: Held,
    pub(super) owed: Owed,
}

impl<'c> Books<'c> {
    pub fn open(tx: Tx<'c>, shared: &'c Shared, now: Time, kept: Kept) -> Result<Books<'c>> {
        Ok(Books {
            tx,
            shared,
            now,
            numbers_of: Numbers::open(tx)?,
            kept,
            deltas: [0; ItemState::ALL.len()],
            quota: None,
            day: None,
            hot: hot::Hot::default(),
            reserved_shares: 0,
            used_shares: 0,
            purged: [0; ItemState::ALL.len()],
            placed: 0,
            fetched: Fetched::default(),
            held: Held::default(),
            owed: Owed::default(),
        })
    }

    /// Writes what changed, and gives what is known of the rows now. Digests that left the window come first: a mailbox has
    /// one unfrozen digest at any moment.
    pub fn close(mut self) -> Result<Kept> {
        self.tell_owed()?;
        self.write_digests()?;
        self.write_subjects()?;
        self.write_quota()?;
        let mut add = self.tx.prepare_cached(sql::ADD_DELTA)?;
        for (state, n) in self.deltas.iter().enumerate().filter(|(_, n)| **n != 0) {
            add.later(params![state as i64, n])?;
        }
        for (state, n) in self.purged.iter().enumerate().filter(|(_, n)| **n != 0) {
            self.tx.prepare_cached(sql::ADD_PURGED)?.later(params![state as i64, n])?;
        }
        self.numbers_of.close(self.tx)?;
        Ok(self.kept)
    }

    /// A question whose answer an index gives in its order: what the planner of PostgreSQL knows of a table that was empty a
    /// moment ago says that to sort all that is due, or busy, is cheaper.
    pub fn without_sort<T>(&self, ask: impl FnOnce() -> Result<T>) -> Result<T> {
        if !self.tx.is_postgres() {
            return ask();
        }
        self.tx.prepare_cached(sql::PG_WITHOUT_SORT)?.execute(())?;
        let answer = ask()?;
        self.tx.prepare_cached(sql::PG_WITH_SORT)?.execute(())?;
        Ok(answer)
    }

    pub fn digest_id(&self, no: i64) -> DigestId {
        DigestId { store: self.shared.store_id, number: no }
    }
}
