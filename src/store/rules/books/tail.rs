//! What joins a window stands in its tail, each item with the one before it, until somebody asks for the window's items (SQLite).
//!
//! The index of a digest's items would be the dearest part of intake: a batch's items fall on all its pages. Items of the tail
//! are not in it; they come to it together, those of one digest to one place, when the digest leaves. The first item of a
//! window is in it at once: it stands at the index's end, and most windows get no second one.

use crate::store::rules::tx::params;

use super::super::sql;
use super::{Books, Item};
use crate::store::Result;

/// Items of a tail at most: placing them takes some three milliseconds.
const TAIL_MAX: i64 = 1_000;

/// So many items are placed in a transaction, and what is left of one tail more, before it should end: others wait for it.
const PLACED_MAX: u64 = 20_000;

/// Where a new item stands on SQLite: in the index of its digest's items, or in the window's tail behind an event's (0: as the first).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub digest: Option<i64>,
    pub behind: Option<i64>,
}

impl Books<'_> {
    /// Where the next item of a window will stand.
    pub(super) fn place(&mut self, no: i64) -> Result<Place> {
        let has_tails = !self.tx.is_postgres();
        if self.digest(no)?.tail_items >= TAIL_MAX {
            self.place_tail(no)?;
        }
        let digest = self.digest(no)?;
        Ok(match digest.open {
            _ if !has_tails => Place::default(),
            0 => Place { digest: Some(no), behind: None },
            _ => Place { digest: None, behind: Some(digest.tail.unwrap_or(0)) },
        })
    }

    /// The digest that an item is in. One that is open and names none is in its window's tail.
    pub fn home(&mut self, item: &Item) -> Result<Option<i64>> {
        match item.digest {
            None if !item.state.is_final() => self.window(item.mailbox),
            known => Ok(known),
        }
    }

    /// Items of an event are about to leave: those behind them in a tail must still be found.
    pub fn place_tails_of(&mut self, event_no: i64) -> Result<()> {
        if self.tx.is_postgres() {
            return Ok(());
        }
        let tails = self.tx.prepare_cached(sql::LITE_TAILS_OF_EVENT)?.query_map([event_no], |row| row.get(0))?;
        tails.into_iter().try_for_each(|no: i64| self.place_tail(no))
    }

    /// The tail's items are in the index from here on.
    pub fn place_tail(&mut self, no: i64) -> Result<()> {
        let digest = self.digest(no)?;
        let (mailbox, Some(tail)) = (digest.mailbox, digest.tail) else { return Ok(()) };
        let mut at = tail;
        while at != 0 {
            let Some(behind) = self.behind(at, mailbox)? else {
                // Nobody else's mail waits for it.
                tracing::error!(
                    digest = %self.digest_id(no),
                    "an item that waits in this digest names none before it: `owlpost status --verify` lists what is lost to it"
                );
                break;
            };
            self.place_item(params![at, mailbox, no])?;
            self.placed += 1;
            at = behind;
        }
        let digest = self.digest_mut(no)?;
        (digest.tail, digest.tail_items) = (None, 0);
        Ok(())
    }

    /// Whether this transaction has placed so much that others should have their turn.
    pub fn has_placed_much(&self) -> bool {
        self.placed >= PLACED_MAX
    }
}
