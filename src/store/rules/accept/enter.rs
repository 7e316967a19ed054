//! Events at the door: the dedupe key is looked up by writing it.

use std::collections::HashSet;

use super::super::books::Books;
use super::super::sql;
use super::super::subject::Mark;
use super::{CLOSES, DROPPED, Fresh, INFORMS, OPENS, dedupe_key, refuse};
use crate::model::{Arrival, Effect, Entry, Event, Receipt, RefusedReason, Time, Topic};
use crate::store::Result;
use crate::store::line::{Key, Names};
use crate::store::rules::tx::{Column, params};

/// An event on its way into the store.
struct NewEvent<'e> {
    key: Key,
    arrival: &'e Arrival,
    effect: i64,
    topics: Vec<Topic>,
    /// Its number is given when it is written.
    mark: Mark,
    /// What its row says of the events before it, in each of its topics: not known for sure before its topics are locked.
    prev: [Option<i64>; 2],
}

impl<'e> NewEvent<'e> {
    fn of(key: &Key, arrival: &'e Arrival, now: Time) -> NewEvent<'e> {
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
        NewEvent {
            key: *key,
            arrival,
            effect,
            topics,
            mark: Mark { ver, no: 0, date: date.map(|d| d.0) },
            prev: [None; 2],
        }
    }

    fn is_dropped(&self) -> bool {
        self.effect == DROPPED
    }

    /// What goes on; nothing of one that was dropped at the door.
    fn entered(self) -> Option<Fresh<'e>> {
        let effect = self.effect;
        let NewEvent { arrival, mark, topics, prev, .. } = self;
        (effect != DROPPED).then_some(Fresh { arrival, mark, topics, opens: effect == OPENS, prev })
    }
}

/// An event of a batch, with its key and its place there.
pub(super) type Keyed<'e> = (Key, usize, &'e Arrival);

/// Events with the same key; the first one counts.
type Copies<'k, 'e> = &'k [Keyed<'e>];

/// In the order of the key, so that the unique index is filled page by page; copies in that of the batch.
pub(super) fn keyed(entries: &[Entry]) -> Vec<Keyed<'_>> {
    let events = entries.iter().enumerate().filter_map(|(i, entry)| match entry {
        Entry::Event(arrival) => Some((dedupe_key(&arrival.event.source, &arrival.event.id), i, &**arrival)),
        Entry::Refused(_) => None,
    });
    let mut keyed: Vec<Keyed<'_>> = events.collect();
    keyed.sort_unstable_by_key(|(key, i, _)| (*key, *i));
    keyed
}

/// What may be written while the batch before is on its way, as it has nothing to do with it; and the rest. Who speaks of the
/// same topics is of the rest too: what comes before it there is known then.
pub(super) fn split<'k, 'e>(
    keyed: &'k [Keyed<'e>],
    before: Option<&Names>,
) -> (Vec<Copies<'k, 'e>>, Vec<Copies<'k, 'e>>) {
    keyed.chunk_by(|a, b| a.0 == b.0).partition(|copies| is_alone(copies, before))
}

pub(super) fn names(keyed: &[Keyed<'_>]) -> Names {
    Names { keys: keyed.iter().map(|(key, ..)| *key).collect(), topics: topics(keyed) }
}

/// Of which these speak; sorted.
pub(super) fn topics<'k, 'e: 'k>(keyed: impl IntoIterator<Item = &'k Keyed<'e>>) -> Vec<Topic> {
    let mut topics: Vec<Topic> = keyed.into_iter().flat_map(|(.., arrival)| spoken(arrival)).copied().collect();
    topics.sort_unstable();
    topics
}

fn spoken(arrival: &Arrival) -> &[Topic] {
    match &arrival.event.effect {
        Effect::Informs => &[],
        Effect::Opens { topic, .. } => std::slice::from_ref(topic),
        Effect::Closes { topics } => topics,
    }
}

/// Whether these copies of an event are decided by their key alone, and the batch before has nothing under it.
fn is_alone(copies: Copies<'_, '_>, before: Option<&Names>) -> bool {
    let (Some((key, _, first)), Some(before)) = (copies.first(), before) else { return false };
    first.stale.is_none()
        && first.event.id_counts_for.is_none()
        && before.keys.binary_search(key).is_err()
        && spoken(first).iter().all(|topic| before.topics.binary_search(topic).is_err())
}

/// Writes events, whose fates become receipts; what was not here before becomes `fresh`.
pub(super) fn enter<'e>(
    books: &mut Books<'_>,
    some: &[Copies<'_, 'e>],
    before: Option<&Names>,
    receipts: &mut [Receipt],
    fresh: &mut Vec<Fresh<'e>>,
) -> Result<()> {
    let mut places = Vec::with_capacity(some.len());
    let mut events = Vec::with_capacity(some.len());
    for copies in some {
        for (key, i, arrival) in *copies {
            // A refused one takes no key: a corrected event behind it may reuse the id.
            if let Some(receipt) = turn_away(books, key, arrival)? {
                receipts[*i] = receipt;
                continue;
            }
            places.push(*i);
            events.push(NewEvent::of(key, arrival, books.now));
            break;
        }
    }
    let added = add(books, &mut events, before)?;
    for ((i, event), added) in places.into_iter().zip(events).zip(added) {
        if added {
            receipts[i] = if event.is_dropped() { Receipt::Dropped } else { Receipt::Accepted };
            fresh.extend(event.entered());
        }
    }
    Ok(())
}

/// What a look at the key decides before anything is written: `None`, the event may try.
fn turn_away(books: &mut Books<'_>, key: &Key, arrival: &Arrival) -> Result<Option<Receipt>> {
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
fn add(books: &mut Books<'_>, events: &mut [NewEvent<'_>], before: Option<&Names>) -> Result<Vec<bool>> {
    if books.tx.is_postgres() {
        return add_at_once(books, events, before);
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

/// Events that one statement takes: all their texts stand in memory once more, and again, on their way to the server.
const AT_ONCE: usize = 2_000;

/// Whether the event of each key is known already; `None`: hardly any is, and writing them is the shorter way to know.
fn known(books: &Books<'_>, events: &[NewEvent<'_>]) -> Result<Option<HashSet<Key>>> {
    let look = |events: &[NewEvent<'_>]| -> Result<HashSet<Key>> {
        let keys = Column::blobs(events.iter().map(|e| &e.key));
        Ok(books.tx.prepare_cached(sql::PG_KNOWN_KEYS)?.query_map([keys], |row| row.get(0))?.into_iter().collect())
    };
    if events.len() <= SAMPLE || look(&events[..SAMPLE])?.len() < SAMPLE / 2 {
        return Ok(None);
    }
    look(events).map(Some)
}

/// Says in each row what comes before it in its topics, as far as that can be guessed: to write it later is to write the row
/// once more, with its data. From now on these events are the last of their topics.
fn guess_links<'n, 'e: 'n>(
    books: &Books<'_>,
    events: impl Iterator<Item = &'n mut NewEvent<'e>>,
    before: Option<&Names>,
) -> Result<()> {
    let mut events: Vec<&mut NewEvent<'_>> = events.collect();
    // Who closes a topic was mostly not the first to speak of it.
    let is_known = |topic: &Topic| before.is_some_and(|before| before.topics.binary_search(topic).is_ok());
    let asked = events.iter().flat_map(|e| e.topics.iter().filter(|topic| e.effect == CLOSES || is_known(topic)));
    let mut topics: Vec<Topic> = asked.copied().collect();
    topics.sort_unstable();
    topics.dedup();
    let mut heads = books.heads_of(&topics)?;
    for event in &mut events {
        for (topic, prev) in event.topics.iter().zip(&mut event.prev) {
            *prev = heads.insert(*topic, event.mark.no);
        }
    }
    Ok(())
}

fn add_at_once(books: &mut Books<'_>, all: &mut [NewEvent<'_>], before: Option<&Names>) -> Result<Vec<bool>> {
    let known = known(books, all)?;
    let is_new = |event: &NewEvent<'_>| known.as_ref().is_none_or(|known| !known.contains(&event.key));
    for event in all.iter_mut().filter(|event| is_new(event)) {
        event.mark.no = books.next_event()?;
    }
    guess_links(books, all.iter_mut().filter(|event| is_new(event)), before)?;
    let events: Vec<&NewEvent<'_>> = all.iter().filter(|event| is_new(event)).collect();
    let mut added: HashSet<i64> = HashSet::with_capacity(events.len());
    for some in events.chunks(AT_ONCE) {
        added.extend(add_some(books, some)?);
    }
    // A number of ours is never 0, which is what a known one has.
    Ok(all.iter().map(|e| added.contains(&e.mark.no)).collect())
}

/// Gives the numbers of those that were added.
fn add_some(books: &Books<'_>, events: &[&NewEvent<'_>]) -> Result<Vec<i64>> {
    let ints = |of: &dyn Fn(&NewEvent<'_>) -> Option<i64>| Column::Ints(events.iter().map(|e| of(e)).collect());
    let texts = |of: fn(&Event) -> &str| Column::texts(events.iter().map(|e| of(&e.arrival.event)));
    let topic = |place: usize| Column::Blobs(events.iter().map(|e| e.topics.get(place).map(|t| &t.0[..])).collect());
    books.tx.prepare_cached(sql::PG_ADD_EVENTS)?.query_map(
        params![
            ints(&|e| Some(e.mark.no)),
            Column::blobs(events.iter().map(|e| &e.key)),
            texts(|e| &e.source),
            texts(|e| &e.id),
            texts(|e| &e.kind),
            ints(&|e| Some(e.mark.ver)),
            ints(&|e| Some(e.effect)),
            topic(0),
            topic(1),
            ints(&|e| e.mark.date),
            ints(&|e| e.arrival.event.deadline.map(|t| t.0)),
            ints(&|e| e.arrival.event.expiry.map(|t| t.0)),
            books.now.0,
            Column::Texts(events.iter().map(|e| e.arrival.event.subject_key.as_deref()).collect()),
            texts(|e| e.data.as_str()),
            ints(&|e| e.prev[0]),
            ints(&|e| e.prev[1]),
        ],
        |row| row.get(0),
    )
}
