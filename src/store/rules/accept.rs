//! Intake: one transaction for a batch. Dedupe keys, events, marks, items, closures, due times, dead letters.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use crate::store::rules::tx::params;

use super::books::{Books, NewItem, lane, urgency};
use super::sql;
use super::subject::{Mark, Subject};
use super::young;
use crate::model::{Arrival, Asked, Entry, ItemState, Reason, Receipt, Refused, Topic, hash16, is_collection};
use crate::store::line::Key;
use crate::store::{Place, Result};

mod enter;
mod fetch;
mod line;

use enter::Entered;

pub(super) const INFORMS: i64 = 0;
pub(super) const OPENS: i64 = 1;
pub(super) const CLOSES: i64 = 2;
pub(super) const DROPPED: i64 = 3;

/// 8 bytes of a hash of the id, so that `why` finds it in every source; then 16 of (source, id).
pub(super) fn dedupe_key(source: &str, id: &str) -> Key {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&hash16(b"id", &[id])[..8]);
    key[8..].copy_from_slice(&hash16(b"event", &[source, id]));
    key
}

/// An event that was not here before.
struct Fresh<'e> {
    arrival: &'e Arrival,
    mark: Mark,
    topics: Vec<Topic>,
    opens: bool,
}

pub(super) fn accept(books: &mut Books<'_>, entries: &[Entry], place: &Place) -> Result<Vec<Receipt>> {
    let mut receipts = vec![Receipt::Duplicate; entries.len()];
    let Entered { fresh, begun } = enter::enter(books, entries, place, &mut receipts)?;
    let (subjects, stirred) = mark(books, &fresh, &begun)?;
    fetch::before_items(books, &fresh, &subjects, &stirred)?;
    let mut made = Made { items: Vec::with_capacity(fresh.len()), replaced: Vec::new() };
    for i in in_topic_order(&fresh) {
        for asked in &fresh[i].arrival.asked {
            ask(books, &fresh[i], asked, &subjects, &mut made)?;
        }
    }
    // By mailbox: what is new of mailboxes, digests and their indexes comes page by page, and leaves so. (The rows' own order is
    // the events', all of which are new: they fill the last pages of the table in any order.)
    made.items.sort_unstable_by_key(|item| (item.mailbox, item.event_no));
    // A person who is named twice is asked once.
    made.items.dedup_by_key(|item| (item.mailbox, item.event_no));
    books.add_items(made.items)?;
    for (topic, recipient, older) in made.replaced {
        if let Some(known) = subjects.get(&topic) {
            books.replace_own(&topic, &known.subject, older, recipient)?;
        }
    }
    fetch::before_sweeps(books, &subjects, &stirred)?;
    for topic in &stirred {
        if let Some(Known { subject, .. }) = subjects.get(topic) {
            books.sweep(topic, *subject)?;
            if subject.closer.is_some_and(|(_, no)| books.is_new_event(no)) {
                books.notify_told(topic, subject)?;
            }
        }
    }
    books.forget_walks();
    if !books.tx.is_postgres() {
        young::age(books)?;
    }
    Ok(receipts)
}

pub(super) fn refuse(books: &mut Books<'_>, refused: &Refused) -> Result<Receipt> {
    let no = books.next_letter()?;
    let headers = serde_json::to_string(&refused.headers).unwrap_or_default();
    books.tx.prepare_cached(sql::ADD_LETTER)?.later(params![
        no,
        letter_key(refused),
        refused.source,
        refused.position,
        refused.reason.as_str(),
        refused.detail,
        books.now.0,
        i64::try_from(refused.bytes).unwrap_or(i64::MAX),
        &refused.sha256[..],
        headers,
        refused.body,
        refused.broker_id,
    ])?;
    Ok(Receipt::Refused { reason: refused.reason, detail: refused.detail.clone(), at: None })
}

/// The same bytes under the same headers are the same input: in binary mode the event stands in the headers. Not the
/// `message-id`, which is the broker's where the producer gave none, and new with every copy.
fn letter_key(refused: &Refused) -> [u8; 16] {
    let mut headers: Vec<(&str, &str)> = refused.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    headers.retain(|(name, _)| *name != "message-id");
    headers.sort_unstable();
    let texts = headers.iter().flat_map(|(name, value)| [*name, *value]);
    let mut parts = blake3::Hasher::new();
    parts.update(&refused.sha256);
    for text in std::iter::once(refused.source.as_str()).chain(texts) {
        parts.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    let mut key = [0; 16];
    parts.finalize_xof().fill(&mut key);
    key
}

/// A topic of the batch, with all of the batch's marks in it.
struct Known {
    subject: Subject,
    /// Nobody has spoken of it before this one event.
    alone: bool,
}

/// A topic is a hash already; its first bytes are as good as another hash of it.
#[derive(Default)]
struct FirstBytes(u64);

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

type Topics = HashMap<Topic, Known, BuildHasherDefault<FirstBytes>>;

/// Enters all marks before any item is made, so that what is over in the batch already is born withdrawn. `begun`: topics
/// that this batch has begun already. Gives the subjects as they are now, and the topics in which somebody else's items may
/// have to leave.
fn mark(books: &mut Books<'_>, fresh: &[Fresh<'_>], begun: &HashSet<Topic>) -> Result<(Topics, Vec<Topic>)> {
    // Sorted by topic: the lock order of every database, and the page order of this one.
    let mut by_topic: Vec<(Topic, usize)> =
        fresh.iter().enumerate().flat_map(|(i, event)| event.topics.iter().map(move |topic| (*topic, i))).collect();
    by_topic.sort_unstable();
    let mut links: BTreeMap<i64, [Option<i64>; 2]> = BTreeMap::new();
    let mut subjects = Topics::with_capacity_and_hasher(by_topic.len(), BuildHasherDefault::default());
    let mut stirred = Vec::new();
    let firsts: Vec<(Topic, Mark)> =
        by_topic.chunk_by(|a, b| a.0 == b.0).filter_map(|all| all.first()).map(|(t, i)| (*t, fresh[*i].mark)).collect();
    let others: Vec<(Topic, Mark)> = firsts.iter().filter(|(topic, _)| !begun.contains(topic)).copied().collect();
    let mut added = books.new_subjects(&others)?.into_iter();
    let new = firsts.iter().map(|(topic, _)| begun.contains(topic) || added.next().unwrap_or_default());
    fetch::before_marks(books, fresh, &by_topic)?;
    for (of_topic, new) in by_topic.chunk_by(|a, b| a.0 == b.0).zip(new) {
        let Some((topic, first)) = of_topic.first().copied() else { continue };
        if of_topic.len() == 1 && new {
            let mark = fresh[first].mark;
            let subject = Subject { lone: mark.date.map(|_| mark.no), ..books.mark(None, mark)? };
            subjects.insert(topic, Known { subject, alone: true });
            continue;
        }
        let mut subject = if new { None } else { books.subject(&topic)? };
        let lone = lone(books, &topic, subject.as_ref(), of_topic.iter().map(|(_, i)| fresh[*i].mark))?;
        // Twins of the latest end nothing but what their own people have (`replace_own`): no walk.
        let quiet = match &subject {
            Some(before) => of_topic.iter().all(|(_, i)| fresh[*i].mark.same_wave(&before.latest)),
            None => of_topic.len() == 1,
        };
        if !quiet {
            stirred.push(topic);
        }
        for (_, i) in of_topic {
            let event = &fresh[*i];
            if let Some(before) = &subject {
                let place = usize::from(event.topics.first() != Some(&topic));
                links.entry(event.mark.no).or_default()[place] = Some(before.head);
            }
            subject = Some(books.mark(subject, event.mark)?);
        }
        if let Some(subject) = subject {
            let subject = Subject { lone, ..subject };
            books.save_subject(&topic, &subject)?;
            subjects.insert(topic, Known { subject, alone: false });
        }
    }
    for (no, [prev, prev2]) in links {
        books.tx.prepare_cached(sql::LINK_EVENT)?.later(params![no, prev, prev2])?;
    }
    Ok((subjects, stirred))
}

/// The topic's one dated opener, if it still has no second with the marks that it gets now.
fn lone(
    books: &mut Books<'_>,
    topic: &Topic,
    before: Option<&Subject>,
    marks: impl Iterator<Item = Mark>,
) -> Result<Option<i64>> {
    let mut dated = marks.filter(|mark| mark.date.is_some()).map(|mark| mark.no);
    match (before.map(|s| s.lone), dated.next()) {
        (None, first) => Ok(first.filter(|_| dated.next().is_none())),
        (Some(lone), None) => Ok(lone),
        (Some(lone), Some(_)) => {
            if let Some(lone) = lone {
                books.stand_all(topic, lone)?;
            }
            Ok(None)
        }
    }
}

/// The events by their topic, so that what is kept of people in a topic is filled page by page.
fn in_topic_order(fresh: &[Fresh<'_>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..fresh.len()).collect();
    order.sort_unstable_by_key(|i| (fresh[*i].topics.first(), *i));
    order
}

/// What a batch will write of its items.
struct Made<'e> {
    items: Vec<NewItem>,
    /// (topic, recipient, event): this person's items of that earlier twin are replaced.
    replaced: Vec<(Topic, &'e str, i64)>,
}

/// The items of one event by one route.
fn ask<'e>(
    books: &mut Books<'_>,
    event: &Fresh<'e>,
    asked: &'e Asked,
    subjects: &Topics,
    made: &mut Made<'e>,
) -> Result<()> {
    let event_no = event.mark.no;
    let urgency = urgency(event.arrival.event.deadline.map(|d| d.0), event.arrival.time.0);
    let lane = lane(event.arrival.event.domain.as_deref());
    if asked.references.iter().any(|r| is_collection(r)) {
        let names = serde_json::to_string(&asked.references).unwrap_or_default();
        books.add_asked(params![event_no, &*asked.route, names, asked.except])?;
    }
    let topic = event.topics.first().filter(|_| event.opens);
    let known = topic.and_then(|topic| Some((topic, subjects.get(topic)?)));
    let lone = known.is_some_and(|(_, known)| known.subject.lone == Some(event_no));
    if asked.people.is_empty() && !asked.references.is_empty() {
        // A named audience that is nobody: one item, so that somebody sees it (`nobody_is_dead`).
        let nobody = nobody(&asked.references);
        if let Some(topic) = topic.filter(|_| !lone) {
            // A replay asks whether it is over, as of anybody's.
            books.stand(topic, &nobody, event.mark)?;
        }
        let mailbox = books.mailbox_of(&nobody, &asked.route, None)?;
        let born = Some((ItemState::Dead, Reason::Unreachable));
        made.items.push(NewItem { event_no, mailbox, urgency, lane, born });
        return Ok(());
    }
    for person in &asked.people {
        let recipient = person.principal.as_str();
        let mailbox = books.mailbox_of(recipient, &asked.route, person.zone.as_deref())?;
        let mut born = None;
        match known {
            Some((_, known)) if known.alone => {}
            Some((topic, known)) => {
                let over = books.over(&known.subject, topic, event.mark, recipient)?;
                born = over.map(|reason| (ItemState::Withdrawn, reason));
                if !lone && let Some(older) = books.stand(topic, recipient, event.mark)? {
                    made.replaced.push((*topic, recipient, older));
                }
            }
            None => {}
        }
        made.items.push(NewItem { event_no, mailbox, urgency, lane, born });
    }
    Ok(())
}

/// The ledger's name for an audience that is nobody: what was named, cut to a bound.
pub(super) fn nobody(references: &[String]) -> String {
    let mut text = references.join(", ");
    if let Some((cut, _)) = text.char_indices().nth(200) {
        text.truncate(cut);
    }
    text
}
