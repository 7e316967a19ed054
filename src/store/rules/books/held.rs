//! What delivery reads ahead from PostgreSQL of the digests in its hands: a few questions for a batch, however many mails
//! and items there are. It was read under the locks of subjects and mailboxes, and follows what this transaction changes.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};

use super::super::accept::OPENS;
use super::super::sql;
use super::super::subject::{Mark, Subject, topic};
use super::digests::Digest;
use super::fetched::read_mailbox;
use super::{Books, Item};
use crate::model::{DigestId, DigestState, ItemState, Listed, Topic};
use crate::store::Result;
use crate::store::rules::tx::{Column, Optional, Params, Row, params};

/// An item's key: event and mailbox.
type Key = (i64, i64);

#[derive(Default)]
pub(in crate::store) struct Held {
    /// Of these digests everything below is known: their items that are open or were ever listed.
    digests: HashMap<i64, Vec<Key>>,
    items: HashMap<Key, Item>,
    /// (attempt, outcome) by digest.
    attempts: HashMap<i64, Vec<(i64, i64)>>,
    /// (digest, `left_before`) of the digests in which a held item was listed before a replay.
    before: HashMap<Key, Vec<(i64, Option<i64>)>>,
    events: HashMap<i64, EventRow>,
    /// Mailboxes of which every digest that is not closed is known.
    whole: HashSet<i64>,
    contents: HashMap<i64, Vec<Listed>>,
    pub(in crate::store::rules) paused: Vec<String>,
    pub(in crate::store::rules) suppressed: Option<HashSet<String>>,
}

#[derive(Clone, Copy)]
pub(in crate::store::rules) struct EventRow {
    pub mark: Mark,
    pub opens: bool,
    pub topics: [Option<Topic>; 2],
    pub deadline: Option<i64>,
    expiry: Option<i64>,
}

impl Held {
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

    fn items_of(&self, digest: i64) -> Option<impl Iterator<Item = &Item>> {
        Some(self.digests.get(&digest)?.iter().filter_map(|key| self.items.get(key)))
    }
}

impl Books<'_> {
    /// Holds these digests with their mailboxes and their items' subjects until the end of the transaction, in the order
    /// of locks (subjects by topic, mailboxes by number), and reads what the rules will ask of them. SQLite's one writer
    /// holds everything, and reads each when it is asked for.
    pub fn hold(&mut self, digests: impl Iterator<Item = DigestId>) -> Result<()> {
        if !self.tx.is_postgres() {
            return Ok(());
        }
        let mine: BTreeSet<i64> = digests.filter(|d| d.store == self.shared.store_id).map(|d| d.number).collect();
        let of = Column::ints(mine.iter().copied());
        let subjects =
            self.read(sql::PG_SUBJECTS_OF_DIGESTS, [&of], |row| Ok((Topic(row.get(11)?), Some(Subject::read(row)?))))?;
        self.fetched.subjects.borrow_mut().extend(subjects);
        self.hold_mailboxes(&of)?;
        let items = self.read(sql::PG_ITEMS_OF_DIGESTS, [&of], Item::read)?;
        self.held.digests.extend(mine.iter().map(|no| (*no, vec![])));
        for item in items {
            let key = (item.event_no, item.mailbox);
            if let Some(all) = item.digest.and_then(|no| self.held.digests.get_mut(&no)) {
                all.push(key);
            }
            self.held.items.insert(key, item);
        }
        let events = Column::ints(self.held.items.keys().map(|key| key.0).collect::<BTreeSet<_>>());
        let mailboxes = Column::ints(self.held.items.keys().map(|key| key.1).collect::<BTreeSet<_>>());
        for (key, digest, left_before) in self.read(sql::PG_RELISTED, [&events, &mailboxes], |row| {
            Ok(((row.get(1)?, row.get(2)?), row.get(0)?, row.get(3)?))
        })? {
            self.held.before.entry(key).or_default().push((digest, left_before));
        }
        let tried: BTreeSet<i64> = self.held.before.values().flatten().map(|(no, _)| *no).chain(mine).collect();
        let attempts = self.read(sql::PG_ATTEMPTS, [Column::ints(tried.iter().copied())], |row| {
            Ok((row.get::<i64>(0)?, (row.get(1)?, row.get(2)?)))
        })?;
        self.held.attempts.extend(tried.into_iter().map(|no| (no, vec![])));
        for (no, attempt) in attempts {
            self.held.attempts.entry(no).or_default().push(attempt);
        }
        let rows = self.read(sql::PG_EVENTS, [&events], |row| {
            let (no, ver): (i64, i64) = (row.get(0)?, row.get(1)?);
            Ok((
                no,
                EventRow {
                    mark: Mark { ver, no, date: row.get(5)? },
                    opens: row.get::<i64>(2)? == OPENS,
                    topics: [topic(row, 3)?, topic(row, 4)?],
                    deadline: row.get(6)?,
                    expiry: row.get(7)?,
                },
            ))
        })?;
        self.held.events.extend(rows);
        Ok(())
    }

    /// Mailboxes with all of their digests that are not closed, and the digests asked for in any state.
    pub fn hold_mailboxes(&mut self, digests: &Column) -> Result<()> {
        let mut new = BTreeSet::new();
        for (no, mailbox) in self.read(sql::PG_MAILBOXES_OF_DIGESTS, [digests], read_mailbox)? {
            if self.held.whole.insert(no) {
                new.insert(no);
                self.kept.windows.entry(no).or_insert(None);
                self.kept.numbers.entry(mailbox.route.clone()).or_default().insert(mailbox.recipient.clone(), no);
                self.kept.mailboxes.entry(no).or_insert(mailbox);
            }
        }
        // What this transaction has changed already is known better here than there.
        for digest in self.read(sql::PG_DIGESTS, [digests, &Column::ints(new)], Digest::read)? {
            if let Entry::Vacant(place) = self.kept.digests.entry(digest.no) {
                if digest.is_unfrozen() {
                    self.kept.windows.insert(digest.mailbox, Some(digest.no));
                }
                place.insert(digest);
            }
        }
        Ok(())
    }

    /// What the mails of these digests would list as it is now.
    pub fn hold_contents(&mut self, read: fn(&Row<'_>) -> Result<Listed>) -> Result<()> {
        let of = Column::ints(self.held.digests.keys().copied());
        let listed = self.read(sql::PG_CONTENTS, [&of], |row| Ok((row.get::<i64>(8)?, read(row)?)))?;
        self.held.contents.extend(self.held.digests.keys().map(|no| (*no, vec![])));
        for (no, one) in listed {
            self.held.contents.entry(no).or_default().push(one);
        }
        Ok(())
    }

    fn read<T>(&self, statement: &str, of: impl Params, read: impl FnMut(&Row<'_>) -> Result<T>) -> Result<Vec<T>> {
        self.tx.prepare_cached(statement)?.query_map(of, read)
    }

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

    /// Open items of a mailbox, over its digests.
    pub fn open_of_mailbox(&mut self, mailbox: i64) -> Result<i64> {
        let mine = self.kept.digests.values().filter(|d| d.mailbox == mailbox && d.state != DigestState::Closed);
        let mut open: i64 = mine.map(|d| d.open).sum();
        if !self.held.whole.contains(&mailbox) {
            // The rows of those in the books may say what was.
            let mut window = None;
            self.tx.prepare_cached(sql::OPEN_OF_MAILBOX)?.each([mailbox], |row| {
                let no = row.get(0)?;
                if !self.kept.digests.contains_key(&no) {
                    open += row.get::<i64>(1)?;
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
            None => self.items(sql::OPEN_ITEMS, no),
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
