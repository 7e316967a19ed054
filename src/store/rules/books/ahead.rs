//! Delivery reads ahead from PostgreSQL: a few questions for a batch, however many mails and items there are. SQLite's one
//! writer holds everything, and reads each row when it is asked for.
//!
//! Locks are taken in one order (subjects by topic, mailboxes by number), and what is read under them stays.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};

use super::super::accept::OPENS;
use super::super::closure::UNKNOWN;
use super::super::sql;
use super::super::subject::{Mark, Subject, topic};
use super::air::Call;
use super::digests::Digest;
use super::fetched::read_mailbox;
use super::held::EventRow;
use super::mailboxes::Mailbox;
use super::{Books, Item};
use crate::model::{Data, DigestId, ItemState, Listed, Shown, Time, Topic};
use crate::store::Result;
use crate::store::rules::tx::{Column, Params, Row, params};

/// A digest and its attempt's outcome.
type Attempt = (i64, (i64, i64));

impl Books<'_> {
    /// Holds digests to settle them, with their items' subjects and their mailboxes.
    pub fn hold(&mut self, digests: impl Iterator<Item = DigestId>) -> Result<()> {
        if !self.tx.is_postgres() {
            return Ok(());
        }
        let mine: BTreeSet<i64> = digests.filter(|d| d.store == self.shared.store_id).map(|d| d.number).collect();
        let mut calls: HashMap<i64, Call> = {
            let mut air = self.shared.air();
            mine.iter().filter_map(|no| Some((*no, air.take(*no)?))).collect()
        };
        let unknown: Vec<i64> = mine.iter().filter(|no| !calls.contains_key(no)).copied().collect();
        let topics = calls.values().flat_map(|call| &call.listed).filter_map(|(_, event)| event.topics[0]);
        self.hold_subjects(&unknown, topics.collect())?;
        self.hold_mailboxes(&mine.iter().copied().collect::<Vec<_>>())?;
        self.read_digests(&mine)?;
        calls.retain(|no, call| self.kept.digests.get(no).is_some_and(|digest| call.is(digest)));
        let others: Vec<i64> = mine.into_iter().filter(|no| !calls.contains_key(no)).collect();
        for (no, call) in calls {
            self.know_call(no, call);
        }
        self.read_lists(&others)
    }

    /// Holds digests to begin their calls. `first`: those that were never called. Nobody was told of what they list, so that
    /// no subject has a say whatever becomes of it. `if_free`: those of them that are left alone while somebody has them.
    pub fn hold_to_begin(
        &mut self,
        first: &[i64],
        again: &[i64],
        mut if_free: BTreeSet<i64>,
        read: fn(&Row<'_>) -> Result<Listed>,
    ) -> Result<()> {
        let again_too: BTreeSet<i64> = again.iter().copied().collect();
        {
            // Whose mailbox is not known is looked up under its lock.
            let air = self.shared.air();
            if_free.retain(|no| !again_too.contains(no) && air.mailbox_of(*no).is_some());
        }
        let mut first: BTreeSet<i64> = first.iter().copied().filter(|no| !again_too.contains(no)).collect();
        self.hold_subjects(again, BTreeSet::new())?;
        let to_wait_for: Vec<i64> = first.iter().filter(|no| !if_free.contains(no)).chain(again).copied().collect();
        // Last, what is not waited for: who waits for a mailbox has none that comes behind it.
        let mut mailboxes = self.hold_mailboxes(&to_wait_for)?;
        mailboxes.extend(self.hold_free_mailboxes(&if_free)?);
        first.retain(|no| !self.held.busy.contains(no));
        let all: Vec<i64> = first.iter().chain(again).copied().collect();
        self.read_whole(&mailboxes)?;
        self.read_lists(again)?;
        // The lease says that it is the first; the row says whether others called since.
        let is_first = |no: &i64| self.kept.digests.get(no).is_none_or(|digest| digest.attempts == 0);
        let (first, called): (BTreeSet<i64>, BTreeSet<i64>) = first.into_iter().partition(is_first);
        self.read_lists(&called.into_iter().collect::<Vec<_>>())?;
        self.held.digests.extend(first.iter().map(|no| (*no, vec![])));
        self.held.attempts.extend(first.iter().map(|no| (*no, vec![])));
        self.held.contents.extend(all.iter().map(|no| (*no, vec![])));
        let of = Column::ints(all.iter().copied());
        let read = |row: &Row<'_>| Ok((read(row)?, pending(row)?, event(row)?, row.get::<bool>(16)?));
        let listed = self.read(sql::PG_CONTENTS, [&of], read)?;
        let mut large: HashMap<i64, Shown> = HashMap::new();
        for (mut one, item, event, is_large) in listed {
            let Some(no) = item.digest else { continue };
            if is_large {
                let data = match large.entry(item.event_no) {
                    Entry::Occupied(known) => known.get().clone(),
                    Entry::Vacant(new) => {
                        let mut data = self.tx.prepare_cached(sql::EVENT_DATA)?;
                        new.insert(data.query_row([item.event_no], |row| Ok(Data::shown(&row.get::<String>(0)?)))?)
                            .clone()
                    }
                };
                (one.data, one.data_cut) = (data.members, data.cut);
            }
            self.held.contents.entry(no).or_default().push(one);
            if first.contains(&no) {
                let key = (item.event_no, item.mailbox);
                self.held.digests.entry(no).or_default().push(key);
                self.held.items.insert(key, item);
                self.held.events.insert(item.event_no, event);
            }
        }
        Ok(())
    }

    /// What a begin asks of events whose audience may have changed: there may be hundreds of people in each.
    pub fn read_audiences(&mut self, events: &BTreeSet<i64>) -> Result<()> {
        if !self.tx.is_postgres() || events.is_empty() {
            return Ok(());
        }
        let of = Column::ints(events.iter().copied());
        let asked = self
            .read(sql::PG_ASKED, [&of], |row| Ok((row.get::<i64>(0)?, row.get::<String>(1)?, row.get::<String>(2)?)))?;
        let people = self.read(sql::PG_WHO_HAS, [&of], |row| Ok((row.get::<i64>(0)?, (row.get(1)?, row.get(2)?))))?;
        self.held.asked.extend(events.iter().map(|no| (*no, HashMap::new())));
        self.held.people.extend(events.iter().map(|no| (*no, HashSet::new())));
        for (event_no, route, names) in asked {
            let names = serde_json::from_str(&names).unwrap_or_default();
            self.held.asked.entry(event_no).or_default().insert(route, names);
        }
        for (event_no, person) in people {
            self.held.people.entry(event_no).or_default().insert(person);
        }
        Ok(())
    }

    /// The mailboxes of digests, to change those alone.
    pub fn hold_digests(&mut self, digests: &[i64]) -> Result<()> {
        if !self.tx.is_postgres() {
            return Ok(());
        }
        self.hold_mailboxes(digests)?;
        self.read_digests(&digests.iter().copied().collect())
    }

    /// Digests that a claim has locked, with their mailboxes.
    pub fn read_claimed(&mut self, digests: &[i64]) -> Result<()> {
        let unknown = digests.iter().copied().filter(|no| !self.kept.digests.contains_key(no));
        let of = Column::ints(unknown);
        if self.tx.is_postgres() && of.len() > 0 {
            self.read_due(sql::PG_CLAIMED, [&of])?;
        }
        Ok(())
    }

    /// The same, as a statement has just locked them; gives their numbers.
    pub fn read_due(&mut self, statement: &str, of: impl Params) -> Result<Vec<i64>> {
        let due = self.read(statement, of, with_mailbox)?;
        let mut numbers = Vec::with_capacity(due.len());
        let mut air = self.shared.air();
        for (digest, mailbox) in due {
            numbers.push(digest.no);
            air.claimed(digest.no, digest.mailbox);
            self.kept.mailboxes.entry(digest.mailbox).or_insert(mailbox);
            self.kept.digests.entry(digest.no).or_insert(digest);
        }
        Ok(numbers)
    }

    /// Windows of the mailboxes behind this one, as they are now: nothing is held.
    pub fn look_at_windows(&self, after: i64, limit: u32) -> Result<Vec<(Digest, Mailbox)>> {
        self.read(sql::PG_WINDOWS_AFTER, params![after, limit], with_mailbox)
    }

    fn hold_subjects(&mut self, digests: &[i64], topics: BTreeSet<Topic>) -> Result<()> {
        if digests.is_empty() && topics.is_empty() {
            return Ok(());
        }
        let of = [Column::ints(digests.iter().copied()), Column::blobs(topics.iter().map(|topic| &topic.0))];
        let subjects =
            self.read(sql::PG_SUBJECTS_OF_DIGESTS, of, |row| Ok((Topic(row.get(11)?), Some(Subject::read(row)?))))?;
        self.fetched.subjects.borrow_mut().extend(subjects);
        Ok(())
    }

    /// Gives their numbers.
    fn hold_mailboxes(&mut self, digests: &[i64]) -> Result<Vec<i64>> {
        if digests.is_empty() {
            return Ok(vec![]);
        }
        let (known, unknown) = self.shared.air().mailboxes_of(digests);
        let of = [Column::ints(unknown), Column::ints(known)];
        let held = self.read(sql::PG_MAILBOXES_OF_DIGESTS, of, read_mailbox)?;
        Ok(self.know_mailboxes(held))
    }

    /// The same without a wait: digests whose mailbox somebody has are busy.
    fn hold_free_mailboxes(&mut self, digests: &BTreeSet<i64>) -> Result<Vec<i64>> {
        if digests.is_empty() {
            return Ok(vec![]);
        }
        let of: Vec<(i64, i64)> = {
            let air = self.shared.air();
            digests.iter().filter_map(|no| Some((*no, air.mailbox_of(*no)?))).collect()
        };
        let mailboxes: BTreeSet<i64> = of.iter().map(|(_, mailbox)| *mailbox).collect();
        let held = self.read(sql::PG_FREE_MAILBOXES, [Column::ints(mailboxes)], read_mailbox)?;
        let free = self.know_mailboxes(held);
        let is_free: HashSet<i64> = free.iter().copied().collect();
        self.held.busy.extend(of.iter().filter(|(_, mailbox)| !is_free.contains(mailbox)).map(|(no, _)| *no));
        Ok(free)
    }

    fn know_mailboxes(&mut self, held: Vec<(i64, Mailbox)>) -> Vec<i64> {
        let mut all = Vec::with_capacity(held.len());
        for (no, mailbox) in held {
            all.push(no);
            self.kept.numbers.entry(mailbox.route.clone()).or_default().insert(mailbox.recipient.clone(), no);
            self.kept.mailboxes.entry(no).or_insert(mailbox);
        }
        all
    }

    pub(super) fn read_digests(&mut self, digests: &BTreeSet<i64>) -> Result<()> {
        if digests.is_empty() {
            return Ok(());
        }
        let of = Column::ints(digests.iter().copied());
        let found = self.read(sql::PG_DIGESTS_ALONE, [&of], Digest::read)?;
        self.know_digests(found);
        Ok(())
    }

    /// All digests of these mailboxes that are not closed.
    fn read_whole(&mut self, mailboxes: &[i64]) -> Result<()> {
        for no in mailboxes {
            if self.held.whole.insert(*no) {
                self.kept.windows.entry(*no).or_insert(None);
            }
        }
        let found = self.read(sql::PG_DIGESTS, [Column::ints(mailboxes.iter().copied())], Digest::read)?;
        self.know_digests(found);
        Ok(())
    }

    fn know_digests(&mut self, found: Vec<Digest>) {
        for digest in found {
            // What this transaction has changed already is known better here than there.
            if let Entry::Vacant(place) = self.kept.digests.entry(digest.no) {
                if digest.is_unfrozen() {
                    self.kept.windows.insert(digest.mailbox, Some(digest.no));
                }
                place.insert(digest);
            }
        }
    }

    fn know_call(&mut self, no: i64, call: Call) {
        self.held.attempts.insert(no, vec![(1, UNKNOWN)]);
        let mut keys = Vec::with_capacity(call.listed.len());
        for (item, event) in call.listed {
            let key = (item.event_no, item.mailbox);
            keys.push(key);
            self.held.items.insert(key, item);
            self.held.events.insert(item.event_no, event);
        }
        self.held.digests.insert(no, keys);
    }

    /// What these digests list or have listed, what is known of their events, and everything that was tried.
    fn read_lists(&mut self, digests: &[i64]) -> Result<()> {
        let of = Column::ints(digests.iter().copied());
        let items = if digests.is_empty() { vec![] } else { self.read(sql::PG_ITEMS_OF_DIGESTS, [&of], Item::read)? };
        self.held.digests.extend(digests.iter().map(|no| (*no, vec![])));
        for item in items {
            let key = (item.event_no, item.mailbox);
            // One that was replayed out of these may be on the list of a call that is known, which is complete.
            let here = item.digest.filter(|no| digests.contains(no));
            if let Some(all) = here.and_then(|no| self.held.digests.get_mut(&no)) {
                all.push(key);
            }
            self.held.items.insert(key, item);
        }
        if self.held.items.is_empty() {
            return Ok(());
        }
        let keys: BTreeSet<(i64, i64)> = self.held.items.keys().copied().collect();
        let of = [Column::ints(keys.iter().map(|key| key.0)), Column::ints(keys.iter().map(|key| key.1))];
        for (key, digest, left_before) in
            self.read(sql::PG_RELISTED, of, |row| Ok(((row.get(1)?, row.get(2)?), row.get(0)?, row.get(3)?)))?
        {
            self.held.before.entry(key).or_default().push((digest, left_before));
        }
        let listed = self.held.before.values().flatten().map(|(no, _)| *no);
        let tried: BTreeSet<i64> = listed.chain(digests.iter().copied()).collect();
        self.read_attempts(tried)?;
        let events: BTreeSet<i64> = keys.iter().map(|key| key.0).collect();
        let events = Column::ints(events.into_iter().filter(|no| self.held.event(*no).is_none()));
        if events.len() > 0 {
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
        }
        Ok(())
    }

    fn read_attempts(&mut self, mut tried: BTreeSet<i64>) -> Result<()> {
        tried.retain(|no| !self.held.attempts.contains_key(no));
        if tried.is_empty() {
            return Ok(());
        }
        let of = Column::ints(tried.iter().copied());
        let found: Vec<Attempt> =
            self.read(sql::PG_ATTEMPTS, [&of], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
        self.held.attempts.extend(tried.into_iter().map(|no| (no, vec![])));
        for (no, attempt) in found {
            self.held.attempts.entry(no).or_default().push(attempt);
        }
        Ok(())
    }

    fn read<T>(&self, statement: &str, of: impl Params, read: impl FnMut(&Row<'_>) -> Result<T>) -> Result<Vec<T>> {
        self.tx.prepare_cached(statement)?.query_map(of, read)
    }
}

/// An item that a mail lists, and its event, as the contents tell of them.
fn pending(row: &Row<'_>) -> Result<Item> {
    Ok(Item {
        event_no: row.get(0)?,
        mailbox: row.get(9)?,
        digest: row.get(8)?,
        state: ItemState::Pending,
        left_before: row.get(10)?,
    })
}

fn event(row: &Row<'_>) -> Result<EventRow> {
    Ok(EventRow {
        mark: Mark { ver: row.get(4)?, no: row.get(0)?, date: row.get(14)? },
        opens: row.get::<i64>(11)? == OPENS,
        topics: [topic(row, 12)?, topic(row, 13)?],
        deadline: row.get(5)?,
        expiry: row.get(15)?,
    })
}

/// A digest's row with its mailbox behind it.
fn with_mailbox(row: &Row<'_>) -> Result<(Digest, Mailbox)> {
    let previous_at = row.get::<Option<i64>>(20)?.map(Time);
    let mailbox = Mailbox { recipient: row.get(17)?, route: row.get(18)?, zone: row.get(19)?, previous_at };
    Ok((Digest::read(row)?, mailbox))
}
