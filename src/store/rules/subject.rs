//! Subjects: what is over, by rank and never by arrival (lifecycle.md, "Subject" and "Over").

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use crate::store::rules::tx::{Column, Optional, Row, Value, params};

use super::books::Books;
use super::sql;
use crate::model::{Reason, Topic};
use crate::store::{Result, StoreError};

/// An event's place in the order of its topic, and its wave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Mark {
    /// Time and "closes": the first two parts of the rank.
    pub ver: i64,
    pub no: i64,
    /// Twins share it.
    pub date: Option<i64>,
}

impl Mark {
    /// Openers with one date are one wave; everything else is a wave of its own.
    pub fn same_wave(&self, other: &Mark) -> bool {
        self.no == other.no || (self.date.is_some() && self.date == other.date)
    }

    pub fn closes(&self) -> bool {
        self.ver & 1 == 1
    }
}

#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Subject {
    pub head: i64,
    pub swept: i64,
    pub latest: Mark,
    /// The highest rank of another wave than the latest one's (`both_marks`).
    pub before: Option<Mark>,
    /// The highest closing rank: (ver, no).
    pub closer: Option<(i64, i64)>,
    /// The topic's one dated opener, as long as there is no second: its items say who has one, and `standing` has no row
    /// of anybody.
    pub lone: Option<i64>,
}

impl Subject {
    pub fn read(row: &Row<'_>) -> Result<Subject> {
        let before = match (row.get(5)?, row.get(6)?) {
            (Some(ver), Some(no)) => Some(Mark { ver, no, date: row.get(7)? }),
            _ => None,
        };
        Ok(Subject {
            head: row.get(0)?,
            swept: row.get(1)?,
            latest: Mark { ver: row.get(2)?, no: row.get(3)?, date: row.get(4)? },
            before,
            closer: row.get::<Option<i64>>(8)?.zip(row.get::<Option<i64>>(9)?),
            lone: row.get(10)?,
        })
    }

    /// Its columns, in the order of the statements.
    fn row<'t>(&self, topic: &'t Topic) -> [Value<'t>; 12] {
        let int = |n: Option<i64>| n.map_or(Value::Null, Value::Int);
        [
            Value::Blob(&topic.0),
            Value::Int(self.head),
            Value::Int(self.swept),
            Value::Int(self.latest.ver),
            Value::Int(self.latest.no),
            int(self.latest.date),
            int(self.before.map(|m| m.ver)),
            int(self.before.map(|m| m.no)),
            int(self.before.and_then(|m| m.date)),
            int(self.closer.map(|c| c.0)),
            int(self.closer.map(|c| c.1)),
            int(self.lone),
        ]
    }
}

/// A topic is a hash already; its first bytes are as good as another hash of it.
#[derive(Default)]
pub(in crate::store) struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

type Build = BuildHasherDefault<FirstBytes>;
pub(in crate::store) type TopicMap<T> = HashMap<Topic, T, Build>;
pub(in crate::store) type TopicSet = HashSet<Topic, Build>;

impl Books<'_> {
    pub fn subject(&self, topic: &Topic) -> Result<Option<Subject>> {
        if let Some(unsaved) = self.fetched.unsaved.borrow().get(topic) {
            return Ok(Some(*unsaved));
        }
        if let Some(known) = self.fetched.subjects.borrow().get(topic) {
            return Ok(*known);
        }
        self.tx.prepare_cached(sql::SUBJECT)?.query_row([&topic.0[..]], Subject::read).optional()
    }

    /// Reads and locks many at once, in the order given; SQLite reads each when it is asked for.
    fn fetch_subjects(&self, topics: &[Topic]) -> Result<()> {
        if !self.tx.is_postgres() || topics.is_empty() {
            return Ok(());
        }
        let mut known = self.fetched.subjects.borrow_mut();
        known.extend(topics.iter().map(|topic| (*topic, None)));
        let found = self
            .tx
            .prepare_cached(sql::PG_SUBJECTS)?
            .query_map([Column::blobs(topics.iter().map(|t| &t.0))], |row| {
                Ok((Topic(row.get(11)?), Some(Subject::read(row)?)))
            })?;
        known.extend(found);
        Ok(())
    }

    /// The last event of each that is known, as of now: nothing is locked (PostgreSQL).
    pub fn heads_of(&self, topics: &[Topic]) -> Result<TopicMap<i64>> {
        if topics.is_empty() {
            return Ok(TopicMap::default());
        }
        let of = [Column::blobs(topics.iter().map(|topic| &topic.0))];
        let found =
            self.tx.prepare_cached(sql::PG_HEADS)?.query_map(of, |row| Ok((Topic(row.get(0)?), row.get(1)?)))?;
        Ok(found.into_iter().collect())
    }

    /// On PostgreSQL once for a transaction, at its end: it often changes again, and each write is a new row there.
    pub fn save_subject(&self, topic: &Topic, s: &Subject) -> Result<()> {
        if self.tx.is_postgres() {
            self.fetched.unsaved.borrow_mut().insert(*topic, *s);
            return Ok(());
        }
        self.write_subject(sql::LITE_SAVE_SUBJECT, topic, s)
    }

    /// Those that were saved, as they are now; in the order of their locks.
    pub(super) fn write_subjects(&self) -> Result<()> {
        let unsaved = self.fetched.unsaved.take();
        unsaved.iter().try_for_each(|(topic, subject)| self.write_subject(sql::PG_SAVE_SUBJECT, topic, subject))
    }

    fn write_subject(&self, save: &'static str, topic: &Topic, subject: &Subject) -> Result<()> {
        self.tx.prepare_cached(save)?.later(subject.row(topic))
    }

    /// Rank: time, closes, id, source; text compared as bytes. The texts are only read when the rest is equal.
    pub fn compare(&self, a: (i64, i64), b: (i64, i64)) -> Result<Ordering> {
        if a.0 != b.0 || a.1 == b.1 {
            return Ok(a.0.cmp(&b.0));
        }
        // A purged event has no texts any more; what is compared with it is as old, and its items are final.
        let texts = |no: i64| -> Result<Option<(String, String)>> {
            if let Some(known) = self.fetched.ties.borrow().get(&no) {
                return Ok(Some(known.clone()));
            }
            self.tx.prepare_cached(sql::EVENT_TIE)?.query_row([no], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        };
        Ok(texts(a.1)?.cmp(&texts(b.1)?))
    }

    /// Enters a mark into the subject. Marks are written even if there is nothing to close (`tombstone`).
    pub fn mark(&self, subject: Option<Subject>, event: Mark) -> Result<Subject> {
        let closer = event.closes().then_some((event.ver, event.no));
        let Some(mut s) = subject else {
            return Ok(Subject { head: event.no, swept: 0, latest: event, before: None, closer, lone: None });
        };
        if self.compare((event.ver, event.no), (s.latest.ver, s.latest.no))? == Ordering::Greater {
            if !event.same_wave(&s.latest) {
                s.before = Some(s.latest);
            }
            s.latest = event;
        } else if !event.same_wave(&s.latest) {
            let higher = match s.before {
                None => true,
                Some(b) => self.compare((event.ver, event.no), (b.ver, b.no))? == Ordering::Greater,
            };
            if higher {
                s.before = Some(event);
            }
        }
        if let Some(mine) = closer {
            let higher = match s.closer {
                None => true,
                Some(c) => self.compare(mine, c)? == Ordering::Greater,
            };
            if higher {
                s.closer = Some(mine);
            }
        }
        s.head = event.no;
        Ok(s)
    }

    /// Whether an opener's item of this person is over, and why.
    pub fn over(&self, s: &Subject, topic: &Topic, opener: Mark, recipient: &str) -> Result<Option<Reason>> {
        let mut ended = s.latest.no != opener.no && !s.latest.same_wave(&opener);
        if let Some(before) = s.before.filter(|b| !ended && !b.same_wave(&opener)) {
            ended = self.compare((before.ver, before.no), (opener.ver, opener.no))? == Ordering::Greater;
        }
        if ended {
            let decided = s.closer.is_some_and(|c| c.0 > opener.ver);
            return Ok(Some(if decided { Reason::Decided } else { Reason::Replaced }));
        }
        // Of a lone opener nobody has a later twin.
        if opener.date.is_some()
            && s.lone.is_none()
            && let Some(own) = self.own(topic, recipient)?
            && self.compare(own, (opener.ver, opener.no))? == Ordering::Greater
        {
            return Ok(Some(Reason::Replaced));
        }
        Ok(None)
    }

    /// The highest dated opener of the topic that has an item for this person.
    fn own(&self, topic: &Topic, recipient: &str) -> Result<Option<(i64, i64)>> {
        if let Some(known) = self.fetched.owns.borrow().get(topic).and_then(|of| of.get(recipient)) {
            return Ok(*known);
        }
        let found = self
            .tx
            .prepare_cached(sql::STANDING)?
            .query_row(params![&topic.0[..], recipient], |row| {
                Ok(row.get::<Option<i64>>(0)?.zip(row.get::<Option<i64>>(1)?))
            })
            .optional()?;
        Ok(found.flatten())
    }

    /// Remembers that this person has an item of a dated opener (`twin_replaces_own`). Gives the event that it replaces
    /// for them; what that one replaced has left before.
    pub fn stand(&mut self, topic: &Topic, recipient: &str, opener: Mark) -> Result<Option<i64>> {
        if opener.date.is_none() {
            return Ok(None);
        }
        let own = self.own(topic, recipient)?;
        let higher = match own {
            None => true,
            Some(own) => self.compare((opener.ver, opener.no), own)? == Ordering::Greater,
        };
        if !higher {
            return Ok(None);
        }
        if let Some(known) = self.fetched.owns.borrow_mut().get_mut(topic).and_then(|of| of.get_mut(recipient)) {
            *known = Some((opener.ver, opener.no));
        }
        self.save_own(params![&topic.0[..], recipient, opener.ver, opener.no])?;
        Ok(own.map(|(_, no)| no).filter(|no| *no != opener.no))
    }

    /// The topic gets a second dated opener: from now on the standing of each person is a row. (If the first is of this very batch,
    /// its people come later.)
    pub fn stand_all(&self, topic: &Topic, lone: i64) -> Result<()> {
        self.tx.prepare_cached(sql::STAND_ALL)?.later(params![&topic.0[..], lone])
    }

    /// Enters topics of which nobody has spoken, sorted by topic. `false`: it is known already, and nothing was written; then
    /// it is locked, in that same order (`lock_subject`).
    pub fn new_subjects(&mut self, all: &[(Topic, Subject)]) -> Result<Vec<bool>> {
        if !self.tx.is_postgres() {
            return all.iter().map(|(topic, subject)| self.add_subject(topic, subject.row(topic))).collect();
        }
        let added = self.add_subjects(all)?;
        let known: Vec<Topic> =
            all.iter().zip(&added).filter(|(_, new)| !**new).map(|((topic, _), _)| *topic).collect();
        self.fetch_subjects(&known)?;
        let here = self.fetched.subjects.borrow();
        if known.iter().any(|topic| here.get(topic).is_none_or(Option::is_none)) {
            // Known to the first statement and gone for the second: two workers would both begin it, and the marks of one be
            // lost.
            return Err(StoreError::Unavailable("a subject left with a purge just now; the batch comes again".into()));
        }
        Ok(added)
    }

    /// The same without a lock on those that are known.
    pub fn add_subjects(&self, all: &[(Topic, Subject)]) -> Result<Vec<bool>> {
        if all.is_empty() {
            return Ok(vec![]);
        }
        let ints = |of: fn(&Subject) -> Option<i64>| Column::Ints(all.iter().map(|(_, s)| of(s)).collect());
        let added = self.tx.prepare_cached(sql::PG_ADD_SUBJECTS)?.query_map(
            params![
                Column::blobs(all.iter().map(|(topic, _)| &topic.0)),
                ints(|s| Some(s.head)),
                ints(|s| Some(s.latest.ver)),
                ints(|s| Some(s.latest.no)),
                ints(|s| s.latest.date),
                ints(|s| s.before.map(|m| m.ver)),
                ints(|s| s.before.map(|m| m.no)),
                ints(|s| s.before.and_then(|m| m.date)),
                ints(|s| s.closer.map(|c| c.0)),
                ints(|s| s.closer.map(|c| c.1)),
                ints(|s| s.lone),
            ],
            |row| Ok(Topic(row.get(0)?)),
        )?;
        let added: TopicSet = added.into_iter().collect();
        Ok(all.iter().map(|(topic, _)| added.contains(topic)).collect())
    }

    /// Reads an event's mark and topics again: (mark, opens, topics).
    pub fn event_mark(&self, no: i64) -> Result<(Mark, bool, [Option<Topic>; 2])> {
        if let Some(held) = self.held.event(no) {
            return Ok((held.mark, held.opens, held.topics));
        }
        Ok(self.tx.prepare_cached(sql::EVENT_MARK)?.query_row([no], |row| {
            let mark = Mark { ver: row.get(0)?, no, date: row.get(4)? };
            Ok((mark, row.get::<i64>(1)? == super::accept::OPENS, [topic(row, 2)?, topic(row, 3)?]))
        })?)
    }
}

pub(super) fn topic(row: &Row<'_>, column: usize) -> Result<Option<Topic>> {
    Ok(row.get::<Option<[u8; 16]>>(column)?.map(Topic))
}
