//! Numbers of new rows: never used twice, not even after a purge. SQLite's one writer counts in one row; in PostgreSQL
//! many transactions take them from sequences, and a number that is not used leaves a gap.

use std::collections::VecDeque;
use std::ops::Range;

use super::super::sql;
use super::Books;
use crate::store::Result;
use crate::store::rules::tx::{Dialect, Tx, params};

/// What one step of `event_no` stands for (its migration says the same).
const BLOCK: i64 = 16_384;

/// Digest numbers that are taken at once, at most.
const HANDFUL: i64 = 512;

pub(super) enum Numbers {
    Row { next: Row, first_event: i64, dirty: bool },
    Sequences(Sequences),
}

#[derive(Clone, Copy)]
pub(super) struct Row {
    event: i64,
    digest: i64,
    letter: i64,
    mails_sent: i64,
}

#[derive(Default)]
pub(super) struct Sequences {
    /// What is left of the last block ...
    events: Range<i64>,
    /// ... and all blocks of this transaction, as far as they are used.
    used: Vec<Range<i64>>,
    digests: VecDeque<i64>,
    /// So many digests were made: the next handful is as large.
    made: i64,
    mails_sent: i64,
}

impl Numbers {
    pub fn open(tx: Tx<'_>) -> Result<Numbers> {
        if tx.dialect() == Dialect::Postgres {
            return Ok(Numbers::Sequences(Sequences::default()));
        }
        let next = tx.query_row(sql::META, (), |row| {
            Ok(Row { event: row.get(1)?, digest: row.get(2)?, letter: row.get(3)?, mails_sent: row.get(4)? })
        })?;
        Ok(Numbers::Row { next, first_event: next.event, dirty: false })
    }

    pub fn close(&self, tx: Tx<'_>) -> Result<()> {
        match self {
            Numbers::Row { next, dirty: true, .. } => {
                let of = params![next.event, next.digest, next.letter, next.mails_sent];
                tx.prepare_cached(sql::SAVE_META)?.execute(of)?;
            }
            Numbers::Sequences(Sequences { mails_sent, .. }) if *mails_sent > 0 => {
                tx.prepare_cached(sql::ADD_MAILS)?.later([*mails_sent])?;
            }
            _ => {}
        }
        Ok(())
    }
}

impl Books<'_> {
    pub fn next_event(&mut self) -> Result<i64> {
        match &mut self.numbers_of {
            Numbers::Row { next, dirty, .. } => {
                *dirty = true;
                next.event += 1;
                Ok(next.event - 1)
            }
            Numbers::Sequences(s) => {
                if s.events.is_empty() {
                    let first: i64 = self.tx.query_row(sql::EVENT_BLOCK, (), |row| row.get(0))?;
                    s.events = first..first + BLOCK;
                    s.used.push(first..first);
                }
                let no = s.events.start;
                s.events.start += 1;
                if let Some(used) = s.used.last_mut() {
                    used.end = no + 1;
                }
                Ok(no)
            }
        }
    }

    /// Gives back the number taken last: the event turned out to be a copy.
    pub fn untake_event(&mut self) {
        match &mut self.numbers_of {
            Numbers::Row { next, .. } => next.event -= 1,
            Numbers::Sequences(s) => {
                s.events.start -= 1;
                if let Some(used) = s.used.last_mut() {
                    used.end -= 1;
                }
            }
        }
    }

    /// Whether this transaction made the event.
    pub fn is_new_event(&self, no: i64) -> bool {
        match &self.numbers_of {
            Numbers::Row { first_event, .. } => no >= *first_event,
            Numbers::Sequences(s) => s.used.iter().any(|used| used.contains(&no)),
        }
    }

    /// The number of this transaction's first event, and the one behind its last (SQLite, where they follow each other).
    pub fn new_events(&self) -> (i64, i64) {
        match &self.numbers_of {
            Numbers::Row { next, first_event, .. } => (*first_event, next.event),
            Numbers::Sequences(_) => (0, 0),
        }
    }

    pub(super) fn next_digest(&mut self) -> Result<i64> {
        match &mut self.numbers_of {
            Numbers::Row { next, dirty, .. } => {
                *dirty = true;
                next.digest += 1;
                Ok(next.digest - 1)
            }
            Numbers::Sequences(s) => {
                if s.digests.is_empty() {
                    let more = s.made.clamp(1, HANDFUL);
                    s.digests.extend(
                        self.tx.prepare_cached(sql::DIGEST_NUMBERS)?.query_map([more], |row| row.get::<i64>(0))?,
                    );
                }
                s.made += 1;
                match s.digests.pop_front() {
                    Some(no) => Ok(no),
                    None => Ok(self.tx.query_row(sql::DIGEST_NUMBERS, [1i64], |row| row.get(0))?),
                }
            }
        }
    }

    pub fn next_letter(&mut self) -> Result<i64> {
        match &mut self.numbers_of {
            Numbers::Row { next, dirty, .. } => {
                *dirty = true;
                next.letter += 1;
                Ok(next.letter - 1)
            }
            Numbers::Sequences(_) => Ok(self.tx.query_row(sql::LETTER_NUMBER, (), |row| row.get(0))?),
        }
    }

    pub fn count_mail(&mut self) {
        match &mut self.numbers_of {
            Numbers::Row { next, dirty, .. } => (next.mails_sent, *dirty) = (next.mails_sent + 1, true),
            Numbers::Sequences(s) => s.mails_sent += 1,
        }
    }
}
