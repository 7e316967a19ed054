//! Events at the door: the dedupe key is looked up by writing it.

use std::collections::HashSet;

use super::super::books::Books;
use super::super::sql;
use super::super::subject::Mark;
use super::{CLOSES, DROPPED, Fresh, INFORMS, Key, OPENS, dedupe_key, refuse};
use crate::model::{Arrival, Effect, Receipt, RefusedReason, Time, Topic};
use crate::store::Result;
use crate::store::rules::tx::{Column, params};

/// An event on its way into the store.
pub(super) struct NewEvent<'e> {
    key: Key,
    arrival: &'e Arrival,
    effect: i64,
    topics: Vec<Topic>,
    /// Its number is given when it is written.
    mark: Mark,
}

impl<'e> NewEvent<'e> {
    pub fn of(key: &Key, arrival: &'e Arrival, now: Time) -> NewEvent<'e> {
        let event = &arrival.event;
        let (effect, topics, date) = match &event.effect {
            _ if event.expiry.is_some_and(|expiry| expiry <= now) => (DROPPED, vec![], None),
            Effect::Informs => (INFORMS, vec![], None),
            Effect::Opens { topic, date } => (OPENS, vec![*topic], *date),
            Effect::Closes { topics } => {
                // Each once, or the topic's chain would bite its own tail.
                let mut topics = topics.clone();
                topics.dedup();
                (CLOSES, topics, None)
            }
        };
        let ver = arrival.time.0.saturating_mul(2) + i64::from(effect == CLOSES);
        NewEvent { key: *key, arrival, effect, topics, mark: Mark { ver, no: 0, date: date.map(|d| d.0) } }
    }

    pub fn is_dropped(&self) -> bool {
        self.effect == DROPPED
    }

    /// What goes on; nothing of one that was dropped at the door.
    pub fn entered(self) -> Option<Fresh<'e>> {
        let opens = self.effect == OPENS;
        (!self.is_dropped()).then_some(Fresh { arrival: self.arrival, mark: self.mark, topics: self.topics, opens })
    }
}

/// What a look at the key decides before anything is written: `None`, the event may try.
pub(super) fn turn_away(books: &mut Books<'_>, key: &Key, arrival: &Arrival) -> Result<Option<Receipt>> {
    let event = &arrival.event;
    if arrival.stale.is_none() && event.id_counts_for.is_none() {
        return Ok(None);
    }
    let known = books.event_of(key)?;
    match (known, &arrival.stale, event.id_counts_for) {
        (None, Some(refused), _) => return refuse(books, refused).map(Some),
        // Somebody asks again: it is no copy of what was taken, and its audience has grown too large.
        (Some((_, received_at)), Some(refused), Some(counts_for))
            if refused.reason == RefusedReason::TooManyRecipients
                && Time(received_at).plus(counts_for) <= books.now =>
        {
            return refuse(books, refused).map(Some);
        }
        (Some((no, received_at)), None, Some(counts_for)) if Time(received_at).plus(counts_for) <= books.now => {
            let id = format!("{}@{}", event.id, Time(received_at));
            let aside = dedupe_key(&event.source, &id);
            books.rename_event(no, &aside, &id)?;
        }
        _ => {}
    }
    Ok(None)
}

/// Writes events whose keys are new; `false`: a copy.
pub(super) fn add(books: &mut Books<'_>, events: &mut [NewEvent<'_>]) -> Result<Vec<bool>> {
    if books.tx.is_postgres() {
        return add_at_once(books, events);
    }
    events.iter_mut().map(|new| add_one(books, new)).collect()
}

fn add_one(books: &mut Books<'_>, new: &mut NewEvent<'_>) -> Result<bool> {
    new.mark.no = books.next_event()?;
    if !books.add_key(&new.key, new.mark.no)? {
        books.untake_event();
        return Ok(false);
    }
    let (event, now) = (&new.arrival.event, books.now.0);
    books.add_event(params![
        new.mark.no,
        &new.key[..],
        event.source,
        event.id,
        event.kind,
        new.mark.ver,
        new.effect,
        new.topics.first().map(|t| &t.0[..]),
        new.topics.get(1).map(|t| &t.0[..]),
        new.mark.date,
        event.deadline.map(|t| t.0),
        event.expiry.map(|t| t.0),
        now,
        event.subject_key,
        new.arrival.event.data.as_str(),
    ])?;
    Ok(true)
}

/// So many of a batch's events tell whether most of them are copies. Their keys are hashes: the first are as good as any.
const SAMPLE: usize = 64;

/// Whether the event of each key is known already; `None`: hardly any is, and writing them is the shorter way to know.
fn known(books: &Books<'_>, events: &[NewEvent<'_>]) -> Result<Option<HashSet<Key>>> {
    let look = |events: &[NewEvent<'_>]| -> Result<HashSet<Key>> {
        let keys = Column::blobs(events.iter().map(|e| e.key));
        Ok(books.tx.prepare_cached(sql::PG_KNOWN_KEYS)?.query_map([keys], |row| row.get(0))?.into_iter().collect())
    };
    if events.len() <= SAMPLE || look(&events[..SAMPLE])?.len() < SAMPLE / 2 {
        return Ok(None);
    }
    look(events).map(Some)
}

fn add_at_once(books: &mut Books<'_>, all: &mut [NewEvent<'_>]) -> Result<Vec<bool>> {
    let known = known(books, all)?;
    let is_new = |event: &NewEvent<'_>| known.as_ref().is_none_or(|known| !known.contains(&event.key));
    for event in all.iter_mut().filter(|event| is_new(event)) {
        event.mark.no = books.next_event()?;
    }
    let events: Vec<&NewEvent<'_>> = all.iter().filter(|event| is_new(event)).collect();
    if events.is_empty() {
        return Ok(vec![false; all.len()]);
    }
    let events = &events;
    let ints = |of: &dyn Fn(&NewEvent<'_>) -> Option<i64>| Column::Ints(events.iter().map(|e| of(e)).collect());
    let texts = |of: &dyn Fn(&NewEvent<'_>) -> Option<String>| Column::Texts(events.iter().map(|e| of(e)).collect());
    let topic =
        |place: usize| Column::Blobs(events.iter().map(|e| e.topics.get(place).map(|t| t.0.to_vec())).collect());
    let added = books.tx.prepare_cached(sql::PG_ADD_EVENTS)?.query_map(
        params![
            ints(&|e| Some(e.mark.no)),
            Column::Blobs(events.iter().map(|e| Some(e.key.to_vec())).collect()),
            texts(&|e| Some(e.arrival.event.source.clone())),
            texts(&|e| Some(e.arrival.event.id.clone())),
            texts(&|e| Some(e.arrival.event.kind.clone())),
            ints(&|e| Some(e.mark.ver)),
            ints(&|e| Some(e.effect)),
            topic(0),
            topic(1),
            ints(&|e| e.mark.date),
            ints(&|e| e.arrival.event.deadline.map(|t| t.0)),
            ints(&|e| e.arrival.event.expiry.map(|t| t.0)),
            books.now.0,
            texts(&|e| e.arrival.event.subject_key.clone()),
            texts(&|e| Some(e.arrival.event.data.as_str().to_owned())),
        ],
        |row| row.get::<i64>(0),
    )?;
    // A number of ours is never 0, which is what a known one has.
    let added: HashSet<i64> = added.into_iter().collect();
    Ok(all.iter().map(|e| added.contains(&e.mark.no)).collect())
}
