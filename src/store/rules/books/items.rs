//! Items: every change of a state passes here, with its count and its digest's.

use crate::store::rules::tx::{Column, Params, Row, params};

use super::super::sql;
use super::Books;
use super::digests::join;
use super::tail::Place;
use crate::model::{ItemState, Reason};
use crate::store::{Result, StoreError};

/// One item's key and place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Item {
    pub event_no: i64,
    pub mailbox: i64,
    pub digest: Option<i64>,
    pub state: ItemState,
    pub left_before: Option<i64>,
}

impl Item {
    pub fn read(row: &Row<'_>) -> Result<Item> {
        Ok(Item {
            event_no: row.get(0)?,
            mailbox: row.get(1)?,
            digest: row.get(2)?,
            state: ItemState::from_number(row.get(3)?).unwrap_or(ItemState::Dead),
            left_before: row.get(4)?,
        })
    }
}

/// Items without a deadline come after all those with one, by age.
pub(in crate::store::rules) const NO_DEADLINE: i64 = 1 << 60;

pub(in crate::store::rules) fn urgency(deadline: Option<i64>, time: i64) -> i64 {
    deadline.unwrap_or_else(|| time.saturating_add(NO_DEADLINE))
}

/// Another replica's purge took the item between the look and the change; its counts are gone with it.
pub(in crate::store::rules) fn purged(event_no: i64, mailbox: i64) -> StoreError {
    StoreError::Unavailable(format!("item it-{event_no}-{mailbox} was purged just now; try again"))
}

/// An item to be: pending, unless it is born final.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct NewItem {
    pub event_no: i64,
    pub mailbox: i64,
    pub urgency: i64,
    /// Of the event's domain.
    pub lane: i64,
    pub born: Option<(ItemState, Reason)>,
}

impl Books<'_> {
    /// The items of new events: none of them is there yet.
    pub fn add_items(&mut self, items: Vec<NewItem>) -> Result<()> {
        if !self.tx.is_postgres() {
            for item in items {
                let born = self.born(item.mailbox, item.born)?;
                self.add_item(item.event_no, item.mailbox, item.urgency, Some(item.lane), born)?;
            }
            return Ok(());
        }
        let mut rows = Vec::with_capacity(items.len());
        for item in items {
            let born = self.born(item.mailbox, item.born)?;
            let window = if born.is_none() { Some(self.gather(item.mailbox)?) } else { None };
            let state = born.map_or(ItemState::Pending, |(state, _)| state);
            self.deltas[state as usize] += 1;
            if let Some(no) = window {
                let now = self.now;
                self.enter_lane(no, item.event_no, Some(item.lane))?;
                join(self.digest_mut(no)?, item.urgency, now);
                self.count_open(item.mailbox, 1);
            }
            rows.push((item, window, state, born));
        }
        if rows.is_empty() {
            return Ok(());
        }
        let now = self.now.0;
        self.tx.prepare_cached(sql::PG_ADD_ITEMS)?.later(params![
            Column::ints(rows.iter().map(|r| r.0.event_no)),
            Column::ints(rows.iter().map(|r| r.0.mailbox)),
            Column::Ints(rows.iter().map(|r| r.1).collect()),
            Column::ints(rows.iter().map(|r| r.2 as i64)),
            Column::Ints(rows.iter().map(|r| r.3.map(|(_, reason)| reason as i64)).collect()),
            Column::ints(rows.iter().map(|r| r.0.urgency)),
            Column::Ints(rows.iter().map(|r| r.3.map(|_| now)).collect()),
        ])
    }

    /// Open items of a mailbox's recipient over all routes, those of this transaction included.
    pub fn open_items(&mut self, mailbox: i64) -> Result<i64> {
        self.mailbox(mailbox)?;
        let Some(recipient) = self.kept.mailboxes.get(&mailbox).map(|m| m.recipient.as_str()) else { return Ok(0) };
        if let Some(n) = self.kept.open.get(recipient) {
            return Ok(*n);
        }
        let n: i64 = self.tx.prepare_cached(sql::OPEN_OF_RECIPIENT)?.query_row([recipient], |row| row.get(0))?;
        self.kept.open.insert(recipient.to_owned(), n);
        Ok(n)
    }

    /// How a new item begins: pending (`None`), but dead for one who has too many open items already.
    pub fn born(&mut self, mailbox: i64, born: Option<(ItemState, Reason)>) -> Result<Option<(ItemState, Reason)>> {
        let too_many = born.is_none() && self.has_too_many(mailbox)?;
        Ok(if too_many { Some((ItemState::Dead, Reason::TooManyOpen)) } else { born })
    }

    pub fn has_too_many(&mut self, mailbox: i64) -> Result<bool> {
        let limit = i64::from(self.shared.limits.open_items_per_recipient);
        Ok(self.open_items(mailbox)? >= limit)
    }

    /// A new item: pending in its window, or born final. `false`: it was there already (callers that expect that look
    /// with `has_item` first, since the window is made before).
    pub fn add_item(
        &mut self,
        event_no: i64,
        mailbox: i64,
        urgency: i64,
        lane: Option<i64>,
        born: Option<(ItemState, Reason)>,
    ) -> Result<bool> {
        // Only looked up for a pending one: nothing gathers for what is over.
        let window = if born.is_none() { Some(self.gather(mailbox)?) } else { None };
        let (state, reason, settled) = match born {
            Some((state, reason)) => (state, Some(reason as i64), Some(self.now.0)),
            None => (ItemState::Pending, None, None),
        };
        let place = window.map_or(Ok(Place::default()), |no| self.place(no))?;
        let added = if self.tx.is_postgres() {
            self.insert_item(params![event_no, mailbox, window, state as i64, reason, urgency, settled])?
        } else {
            let Place { digest, behind } = place;
            self.insert_item(params![event_no, mailbox, digest, state as i64, reason, urgency, settled, behind])?
        } == 1;
        if added {
            self.deltas[state as usize] += 1;
        }
        if let Some(no) = window {
            let now = self.now;
            self.held.forget(no);
            if added {
                self.enter_lane(no, event_no, lane)?;
                let digest = self.digest_mut(no)?;
                if place.behind.is_some() {
                    (digest.tail, digest.tail_items) = (Some(event_no), digest.tail_items + 1);
                }
                join(digest, urgency, now);
            }
            if added {
                self.count_open(mailbox, 1);
            } else {
                self.tidy(no)?;
            }
        }
        Ok(added)
    }

    fn count_open(&mut self, mailbox: i64, change: i64) {
        match self.kept.mailboxes.get(&mailbox) {
            Some(known) => {
                if let Some(open) = self.kept.open.get_mut(&known.recipient) {
                    *open += change;
                }
            }
            // Whose it is costs more to look up than to count anew whoever is asked next.
            None => self.kept.open.clear(),
        }
    }

    pub fn has_item(&self, event_no: i64, mailbox: i64) -> Result<bool> {
        self.tx.prepare_cached(sql::ITEM)?.exists(params![event_no, mailbox])
    }

    /// A final item is pending again; its row is written by the caller.
    pub fn reopened(&mut self, mailbox: i64, from: ItemState) {
        self.count_open(mailbox, 1);
        self.deltas[from as usize] -= 1;
        self.deltas[ItemState::Pending as usize] += 1;
    }

    /// Purged rows leave the counts; how many they were is kept.
    pub fn uncount(&mut self, state: ItemState, n: i64) {
        self.deltas[state as usize] -= n;
        self.purged[state as usize] += n;
    }

    /// Every change of an item's state passes here, with its count and its digest's.
    pub fn put(&mut self, item: &Item, state: ItemState, reason: Option<Reason>) -> Result<()> {
        if item.state == state {
            return Ok(());
        }
        let mut left_before = item.left_before;
        let home = self.home(item)?;
        if let Some(no) = home {
            let leaves = !item.state.is_final() && state.is_final();
            let returns = item.state.is_final() && !state.is_final();
            let digest = self.digest_mut(no)?;
            digest.open += i64::from(returns) - i64::from(leaves);
            // The attempts so far have listed it; whatever becomes of it, no later one of this digest does.
            if leaves {
                left_before = Some(digest.attempts + 1);
            }
            if leaves && digest.is_unfrozen() {
                (digest.replan, digest.recount) = (true, true);
            }
        }
        let settled = state.is_final().then_some(self.now.0);
        let (no, mailbox, reason) = (item.event_no, item.mailbox, reason.map(|r| r as i64));
        if home == item.digest {
            let settle = params![no, mailbox, state as i64, reason, left_before, settled];
            self.settle_item(settle)?;
        } else {
            let settle = params![no, mailbox, state as i64, reason, left_before, settled, home];
            self.tx.prepare_cached(sql::LITE_SETTLE_IN_TAIL)?.later(settle)?;
        }
        self.held.follow(item, state, left_before);
        self.deltas[item.state as usize] -= 1;
        self.deltas[state as usize] += 1;
        match (item.state.is_final(), state.is_final()) {
            (false, true) => self.count_open(item.mailbox, -1),
            (true, false) => self.count_open(item.mailbox, 1),
            _ => {}
        }
        Ok(())
    }

    /// The items of an event that are not final, as they stay until this transaction ends. (One that is final is opened again by
    /// nobody who has not locked its subject.)
    pub fn open_of_event(&self, no: i64) -> Result<Vec<Item>> {
        if let Some(known) = self.fetched.items.get(&no) {
            return Ok(known.clone());
        }
        if self.tx.is_postgres() {
            self.tx.prepare_cached(sql::PG_LOCK_MAILBOXES_OF_EVENT)?.query_map([no], |_| Ok(()))?;
        }
        self.items(sql::OPEN_OF_EVENT, [no])
    }

    /// Those of them that are this person's.
    pub fn open_of_person(&self, no: i64, recipient: &str) -> Result<Vec<Item>> {
        if let Some(known) = self.fetched.replaced.get(&no).and_then(|of| of.get(recipient)) {
            return Ok(known.clone());
        }
        if self.tx.is_postgres() {
            self.tx.prepare_cached(sql::PG_LOCK_MAILBOXES_OF_PERSON)?.query_map(params![no, recipient], |_| Ok(()))?;
        }
        let mut all = self.items(sql::ITEMS_OF_PERSON, params![no, recipient])?;
        all.retain(|item| !item.state.is_final());
        Ok(all)
    }

    pub fn items(&self, statement: &str, of: impl Params) -> Result<Vec<Item>> {
        self.tx.prepare_cached(statement)?.query_map(of, Item::read)
    }

    /// Puts a pending item into another digest (the rest of a claim, a replay), whose window it joins.
    pub fn joins(&mut self, digest_no: i64, urgency: i64) -> Result<()> {
        let now = self.now;
        join(self.digest_mut(digest_no)?, urgency, now);
        Ok(())
    }
}
