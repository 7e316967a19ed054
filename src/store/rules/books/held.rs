//! What delivery has read ahead from PostgreSQL of the digests in its hands ([`super::ahead`]). It was read under the locks
//! of subjects and mailboxes, and follows what this transaction changes.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::super::sql;
use super::super::subject::Mark;
use super::{Books, Item};
use crate::model::{ItemState, Listed, Topic};
use crate::store::Result;
use crate::store::rules::tx::{Optional, params};

/// An item's key: event and mailbox.
pub(super) type Key = (i64, i64);

#[derive(Default)]
pub(in crate::store) struct Held {
    /// Of these digests everything below is known: their items that are open or were ever listed.
    pub(super) digests: HashMap<i64, Vec<Key>>,
    pub(super) items: HashMap<Key, Item>,
    /// (attempt, outcome) by digest.
    pub(super) attempts: HashMap<i64, Vec<(i64, i64)>>,
    /// (digest, `left_before`) of the digests in which a held item was listed before a replay.
    pub(super) before: HashMap<Key, Vec<(i64, Option<i64>)>>,
    pub(super) events: HashMap<i64, EventRow>,
    /// Mailboxes of which every digest that is not closed is known.
    pub(super) whole: HashSet<i64>,
    pub(super) contents: HashMap<i64, Vec<Listed>>,
    /// Digests whose mailbox somebody else has, and that were not to wait for it.
    pub(in crate::store::rules) busy: BTreeSet<i64>,
    /// Whom these events asked by a route, as named then ...
    pub(super) asked: HashMap<i64, HashMap<String, Vec<String>>>,
    /// ... and who has an item of them, by which route.
    pub(super) people: HashMap<i64, HashSet<(String, String)>>,
    pub(in crate::store::rules) paused: Vec<String>,
    pub(in crate::store::rules) suppressed: Option<HashSet<String>>,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct EventRow {
    pub mark: Mark,
    pub opens: bool,
    pub topics: [Option<Topic>; 2],
    pub deadline: Option<i64>,
    pub(super) expiry: Option<i64>,
}

impl Held {
    /// `None`: that was not read ahead. An event that asked nobody by this route has no names.
    pub fn asked(&self, event_no: i64, route: &str) -> Option<Vec<String>> {
        Some(self.asked.get(&event_no)?.get(route).cloned().unwrap_or_default())
    }

    /// Whether this person has an item of the event by this route. `None`: that was not read ahead.
    pub fn is_there(&self, event_no: i64, recipient: &str, route: &str) -> Option<bool> {
        Some(self.people.get(&event_no)?.contains(&(recipient.to_owned(), route.to_owned())))
    }

    pub fn comes(&mut self, event_no: i64, recipient: &str, route: &str) {
        if let Some(people) = self.people.get_mut(&event_no) {
            people.insert((recipient.to_owned(), route.to_owned()));
        }
    }

    /// An item has changed.
    pub fn follow(&mut self, item: &Item, state: ItemState, left_before: Option<i64>) {
        if let Some(held) = self.items.get_mut(&(item.event_no, item.mailbox)) {
            (held.state, held.left_before) = (state, left_before);
        }
    }

    /// A digest got an item that is not known here.
    pub fn forget(&mut self, digest: i64) {
        self.digests.remove(&digest);
        self.contents.remove(&digest);
    }

    pub fn event(&self, no: i64) -> Option<&EventRow> {
        self.events.get(&no)
    }

    pub(super) fn items_of(&self, digest: i64) -> Option<impl Iterator<Item = &Item>> {
        Some(self.digests.get(&digest)?.iter().filter_map(|key| self.items.get(key)))
    }
}

impl Books<'_> {
    /// Pending items of a digest in the order of its mail, if that was read ahead.
    pub fn held_contents(&mut self, no: i64) -> Option<Vec<Listed>> {
        let mailbox = self.kept.digests.get(&no)?.mailbox;
        let all = self.held.contents.remove(&no)?;
        let pending = |one: &Listed| {
            let item = self.held.items.get(&(one.event_number, mailbox));
            item.is_some_and(|item| item.digest == Some(no) && item.state == ItemState::Pending)
        };
        Some(all.into_iter().filter(pending).collect())
    }

    /// Open items of a mailbox that come with the mails after that of digest `now`: not those that are under way, or were in a
    /// mail that goes again, nor what is held.
    pub fn comes_after(&mut self, now: i64, mailbox: i64) -> Result<i64> {
        let mine = self.kept.digests.values().filter(|d| d.no != now && d.mailbox == mailbox && d.is_to_come());
        let mut open: i64 = mine.map(|d| d.open).sum();
        if !self.held.whole.contains(&mailbox) {
            // The rows of those in the books may say what was.
            let mut window = None;
            self.tx.prepare_cached(sql::OPEN_OF_MAILBOX)?.each([mailbox], |row| {
                let no = row.get(0)?;
                if !self.kept.digests.contains_key(&no) {
                    open += if row.get(3)? { row.get::<i64>(1)? } else { 0 };
                    window = if row.get(2)? { Some(no) } else { window };
                }
                Ok(true)
            })?;
            self.kept.windows.entry(mailbox).or_insert(window);
        }
        Ok(open)
    }

    pub fn item(&self, event_no: i64, mailbox: i64) -> Result<Option<Item>> {
        if let Some(held) = self.held.items.get(&(event_no, mailbox)) {
            return Ok(Some(*held));
        }
        self.tx.query_row(sql::ITEM, params![event_no, mailbox], Item::read).optional()
    }

    /// The items of a digest that are pending or in doubt.
    pub fn open_in(&self, no: i64) -> Result<Vec<Item>> {
        match self.held.items_of(no) {
            Some(items) => Ok(items.filter(|i| i.digest == Some(no) && !i.state.is_final()).copied().collect()),
            None => self.items(sql::OPEN_ITEMS, [no]),
        }
    }

    /// Pending items of a digest that nobody needs to hear of any more.
    pub fn expired_in(&self, no: i64) -> Result<Vec<Item>> {
        let now = self.now.0;
        let Some(items) = self.held.items_of(no) else {
            return self.tx.prepare_cached(sql::EXPIRED_ITEMS)?.query_map(params![no, now], Item::read);
        };
        let expired = |item: &&Item| {
            let expiry = self.held.events.get(&item.event_no).and_then(|event| event.expiry);
            item.digest == Some(no) && item.state == ItemState::Pending && expiry.is_some_and(|expiry| expiry <= now)
        };
        Ok(items.filter(expired).copied().collect())
    }

    /// What attempt `k` listed, as the items are now (`evidence_by_attempt`).
    pub fn listed(&self, no: i64, k: i64) -> Result<Vec<Item>> {
        let in_list = |left_before: Option<i64>| left_before.is_none_or(|left| left > k);
        let Some(items) = self.held.items_of(no) else {
            return self.tx.prepare_cached(sql::LISTED)?.query_map(params![no, k], Item::read);
        };
        let here = items.filter(|i| i.digest == Some(no) && in_list(i.left_before)).copied();
        let once =
            self.held.before.iter().filter(|(_, lists)| lists.iter().any(|(d, left)| *d == no && in_list(*left)));
        let mut all: Vec<Item> = here.chain(once.filter_map(|(key, _)| self.held.items.get(key)).copied()).collect();
        all.sort_unstable_by_key(|item| (item.event_no, item.mailbox));
        all.dedup_by_key(|item| (item.event_no, item.mailbox));
        Ok(all)
    }

    /// What is known of an attempt. `None`: there is no such attempt.
    pub fn attempt(&self, no: i64, k: i64) -> Result<Option<i64>> {
        if let Some(known) = self.held.attempts.get(&no) {
            return Ok(known.iter().find(|(n, _)| *n == k).map(|(_, outcome)| *outcome));
        }
        self.tx.query_row(sql::ATTEMPT, params![no, k], |row| row.get(0)).optional()
    }

    /// More is known of an attempt, or it is new.
    pub fn follow_attempt(&mut self, no: i64, k: i64, outcome: i64) {
        if let Some(known) = self.held.attempts.get_mut(&no) {
            known.retain(|(n, _)| *n != k);
            known.push((k, outcome));
        }
    }

    /// (digest, attempt, outcome) of every attempt that listed the item, as far as that was read ahead.
    pub fn held_outcomes(&self, item: &Item) -> Option<Vec<(i64, i64, i64)>> {
        let key = (item.event_no, item.mailbox);
        let now = self.held.items.get(&key)?;
        let lists = self.held.before.get(&key).into_iter().flatten().copied();
        let mut all = Vec::new();
        for (no, left_before) in now.digest.map(|no| (no, now.left_before)).into_iter().chain(lists) {
            let attempts = self.held.attempts.get(&no)?.iter();
            let listed = attempts.filter(|(n, _)| left_before.is_none_or(|left| *n < left));
            all.extend(listed.map(|(n, outcome)| (no, *n, *outcome)));
        }
        Some(all)
    }
}
