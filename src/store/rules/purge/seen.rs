//! What a purge has read. PostgreSQL is asked for many events together, and nobody is waited for: what somebody else has in
//! his hands stays for the next walk. What was found to be over is locked, so that nobody opens it again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::store::rules::tx::{Column, Optional, Row, params};

use super::super::books::Books;
use super::super::sql;
use super::super::subject::{Subject, topic};
use crate::model::{ItemState, Time, Topic};
use crate::store::Result;

/// Steps along the chains of subjects that are read ahead; what is longer is read one by one.
const STEPS: usize = 4;

/// Items that are locked together, if they are of several events: a call deletes half as many.
const ITEMS_MAX: i64 = 4_000;

/// An event as the walk sees it.
#[derive(Clone, Copy)]
pub(super) struct Old {
    pub no: i64,
    pub ver: i64,
    pub received_at: i64,
    pub topics: [Option<Topic>; 2],
    pub prevs: [Option<i64>; 2],
}

/// How many items of an event are in each state.
type States = Vec<(ItemState, i64)>;

#[derive(Clone, Copy)]
pub(super) enum Standing {
    /// It is locked; `None`: nobody has spoken of the topic.
    Free(Option<Subject>),
    /// Somebody else has it.
    Busy,
}

pub(super) struct Seen {
    horizon: Time,
    /// `None`: it is not there any more.
    events: HashMap<i64, Option<Old>>,
    /// `None`: some of them are open, young, or in somebody's hands.
    items: HashMap<i64, Option<States>>,
    subjects: HashMap<Topic, Standing>,
}

/// The events after this one, by number.
pub(super) fn page(books: &Books<'_>, after: i64, limit: u32) -> Result<Vec<Old>> {
    books.tx.prepare_cached(sql::EVENTS_AFTER)?.query_map(params![after, limit], read)
}

/// The events that a subject is remembered by.
pub(super) fn marks(s: &Subject) -> impl Iterator<Item = i64> + use<> {
    [Some(s.latest.no), s.before.map(|m| m.no), s.closer.map(|c| c.1)].into_iter().flatten()
}

fn read(row: &Row<'_>) -> Result<Old> {
    Ok(Old {
        no: row.get(0)?,
        ver: row.get(1)?,
        received_at: row.get(2)?,
        topics: [topic(row, 3)?, topic(row, 4)?],
        prevs: [row.get(5)?, row.get(6)?],
    })
}

impl Seen {
    /// With all that is likely to be asked of these events.
    pub fn ahead<'o>(books: &Books<'_>, events: impl Iterator<Item = &'o Old>, horizon: Time) -> Result<Seen> {
        let events = events.map(|old| (old.no, Some(*old))).collect();
        let mut seen = Seen { horizon, events, items: HashMap::new(), subjects: HashMap::new() };
        if !books.tx.is_postgres() {
            return Ok(seen);
        }
        for _ in 0..STEPS {
            let aged: Vec<Old> = seen.events.values().flatten().filter(|old| seen.has_aged(old)).copied().collect();
            seen.read_items(books, aged.iter().map(|old| old.no))?;
            let over = aged.iter().filter(|old| matches!(seen.items.get(&old.no), Some(Some(_))));
            let over: Vec<Old> = over.copied().collect();
            seen.read_subjects(books, over.iter().flat_map(|old| old.topics).flatten())?;
            let behind = over.iter().flat_map(|old| old.prevs).flatten();
            let beside =
                over.iter().flat_map(|old| old.topics).flatten().filter_map(|topic| match seen.subjects[&topic] {
                    Standing::Free(subject) => subject,
                    Standing::Busy => None,
                });
            let beside = beside.flat_map(|s| marks(&s).chain([s.head])).filter(|no| *no != 0);
            let next: BTreeSet<i64> = behind.chain(beside).filter(|no| !seen.events.contains_key(no)).collect();
            if next.is_empty() {
                break;
            }
            seen.read_events(books, next)?;
        }
        seen.look_again(books)?;
        Ok(seen)
    }

    /// What had no items was not locked: under the lock of its subject it is looked at once more.
    fn look_again(&mut self, books: &Books<'_>) -> Result<()> {
        let without = self.items.iter().filter(|(_, states)| states.as_ref().is_some_and(Vec::is_empty));
        let of = Column::ints(without.map(|(no, _)| *no).collect::<BTreeSet<_>>());
        if of.len() > 0 {
            let read = |row: &Row<'_>| row.get::<i64>(0);
            let found = books.tx.prepare_cached(sql::PG_OVER_AND_OLD)?.query_map(params![of, self.horizon.0], read)?;
            self.items.extend(found.into_iter().map(|no| (no, None)));
        }
        Ok(())
    }

    pub fn event(&mut self, books: &Books<'_>, no: i64) -> Result<Option<Old>> {
        if !self.events.contains_key(&no) {
            self.read_events(books, BTreeSet::from([no]))?;
        }
        Ok(self.events.get(&no).copied().flatten())
    }

    /// Final, and older than the horizon by its own time, its arrival and its settlement.
    pub fn is_over(&mut self, books: &Books<'_>, old: &Old) -> Result<bool> {
        if !self.has_aged(old) {
            return Ok(false);
        }
        if !self.items.contains_key(&old.no) {
            self.read_items(books, [old.no].into_iter())?;
        }
        Ok(matches!(self.items.get(&old.no), Some(Some(_))))
    }

    pub fn subject(&mut self, books: &Books<'_>, topic: &Topic) -> Result<Standing> {
        if !self.subjects.contains_key(topic) {
            self.read_subjects(books, [*topic].into_iter())?;
        }
        Ok(self.subjects.get(topic).copied().unwrap_or(Standing::Busy))
    }

    /// Gives what its items were.
    pub fn drop_event(&mut self, no: i64) -> States {
        self.events.insert(no, None);
        self.items.remove(&no).flatten().unwrap_or_default()
    }

    pub fn drop_subject(&mut self, topic: Topic) {
        self.subjects.insert(topic, Standing::Free(None));
    }

    fn has_aged(&self, old: &Old) -> bool {
        old.received_at < self.horizon.0 && old.ver >> 1 < self.horizon.0
    }

    fn read_events(&mut self, books: &Books<'_>, numbers: BTreeSet<i64>) -> Result<()> {
        self.events.extend(numbers.iter().map(|no| (*no, None)));
        let found = if books.tx.is_postgres() {
            books.tx.prepare_cached(sql::PG_EVENTS_TO_PURGE)?.query_map([Column::ints(numbers)], read)?
        } else {
            let mut one = books.tx.prepare_cached(sql::EVENT_TO_PURGE)?;
            let found = numbers.into_iter().map(|no| one.query_row([no], read).optional());
            found.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect()
        };
        self.events.extend(found.into_iter().map(|old| (old.no, Some(old))));
        Ok(())
    }

    fn read_items(&mut self, books: &Books<'_>, events: impl Iterator<Item = i64>) -> Result<()> {
        let unknown: BTreeSet<i64> = events.filter(|no| !self.items.contains_key(no)).collect();
        if !books.tx.is_postgres() {
            for no in unknown {
                let open = books.tx.prepare_cached(sql::OPEN_OR_YOUNG)?.exists(params![no, self.horizon.0])?;
                let states = if open { None } else { Some(states_of(books, no)?) };
                self.items.insert(no, states);
            }
            return Ok(());
        }
        if unknown.is_empty() {
            return Ok(());
        }
        // First a look: what is open is none of a purge's business, and is not locked.
        let of = Column::ints(unknown.iter().copied());
        let mut missing: BTreeMap<i64, i64> = unknown.iter().map(|no| (*no, 0)).collect();
        let looked = books.tx.prepare_cached(sql::PG_OVER_AND_OLD)?.query_map(params![of, self.horizon.0], |row| {
            Ok((row.get::<i64>(0)?, row.get::<i64>(1)?, row.get::<bool>(2)?))
        })?;
        for (no, n, is_over) in looked {
            if is_over {
                missing.insert(no, n);
            } else {
                missing.remove(&no);
                self.items.insert(no, None);
            }
        }
        let mut rows = 0;
        missing.retain(|_, n| {
            let fits = rows == 0 || rows + *n <= ITEMS_MAX;
            rows += if fits { *n } else { 0 };
            fits
        });
        let of = Column::ints(missing.keys().copied());
        let free = books.tx.prepare_cached(sql::PG_LOCK_EVENTS_TO_PURGE)?.query_map([of], |row| row.get::<i64>(0))?;
        let free: HashSet<i64> = free.into_iter().collect();
        self.items.extend(missing.keys().map(|no| (*no, free.contains(no).then(Vec::new))));
        missing.retain(|no, _| free.contains(no));
        missing.retain(|_, n| *n > 0);
        if missing.is_empty() {
            return Ok(());
        }
        let of = Column::ints(missing.keys().copied());
        let locked =
            books.tx.prepare_cached(sql::PG_LOCK_ITEMS_TO_PURGE)?.query_map(params![of, self.horizon.0], |row| {
                Ok((row.get::<i64>(0)?, row.get::<i64>(1)?, row.get::<i64>(2)?, row.get::<bool>(3)?))
            })?;
        for (no, state, n, is_over) in locked {
            missing.entry(no).and_modify(|left| *left -= n);
            match (self.items.get_mut(&no), ItemState::from_number(state)) {
                (Some(Some(states)), Some(state)) if is_over => states.push((state, n)),
                _ => drop(self.items.insert(no, None)),
            }
        }
        for (no, _) in missing.into_iter().filter(|(_, left)| *left > 0) {
            self.items.insert(no, None);
        }
        Ok(())
    }

    fn read_subjects(&mut self, books: &Books<'_>, topics: impl Iterator<Item = Topic>) -> Result<()> {
        let unknown: BTreeSet<Topic> = topics.filter(|topic| !self.subjects.contains_key(topic)).collect();
        if !books.tx.is_postgres() {
            for topic in unknown {
                self.subjects.insert(topic, Standing::Free(books.subject(&topic)?));
            }
            return Ok(());
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let of = Column::blobs(unknown.iter().map(|topic| &topic.0));
        let found = books
            .tx
            .prepare_cached(sql::PG_FREE_SUBJECTS)?
            .query_map([&of], |row| Ok((Topic(row.get(11)?), Subject::read(row)?)))?;
        self.subjects.extend(found.into_iter().map(|(topic, s)| (topic, Standing::Free(Some(s)))));
        let missing = || unknown.iter().filter(|topic| !self.subjects.contains_key(topic));
        let of = Column::blobs(missing().map(|topic| &topic.0));
        if of.len() > 0 {
            let busy: BTreeSet<Topic> = books
                .tx
                .prepare_cached(sql::PG_KNOWN_SUBJECTS)?
                .query_map([&of], |row| Ok(Topic(row.get(0)?)))?
                .into_iter()
                .collect();
            let absent = |topic: &Topic| if busy.contains(topic) { Standing::Busy } else { Standing::Free(None) };
            let missing: Vec<(Topic, Standing)> = missing().map(|topic| (*topic, absent(topic))).collect();
            self.subjects.extend(missing);
        }
        Ok(())
    }
}

fn states_of(books: &Books<'_>, no: i64) -> Result<States> {
    let states = books
        .tx
        .prepare_cached(sql::STATES_OF_EVENT)?
        .query_map([no], |row| Ok((ItemState::from_number(row.get(0)?), row.get(1)?)))?;
    Ok(states.into_iter().filter_map(|(state, n)| Some((state?, n))).collect())
}
