//! Intake: one transaction for a batch. Dedupe keys, events, marks, items, closures, due times, dead letters.

use std::collections::HashMap;

use crate::store::rules::tx::params;

use super::books::{Books, NewItem, lane, urgency};
use super::notices::Closing;
use super::sql;
use super::subject::Mark;
use super::young;
use crate::model::{
    Arrival, Asked, Entry, ItemState, OWN_HEADERS, Reason, Receipt, Refused, Topic, hash16, is_collection,
};
use crate::store::line::Key;
use crate::store::{Place, Result};

mod enter;
mod fetch;
mod line;
mod marks;

use marks::{Known, Marks, Topics};

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
    /// What its row says of the events before it, in each of its topics.
    prev: [Option<i64>; 2],
}

pub(super) fn accept(books: &mut Books<'_>, entries: &[Entry], place: &Place) -> Result<Vec<Receipt>> {
    let mut receipts = vec![Receipt::Duplicate; entries.len()];
    let keyed = enter::keyed(entries);
    let before = place.before();
    let (ahead, rest) = enter::split(&keyed, before.as_deref());
    let mut fresh = Vec::with_capacity(keyed.len());
    let mut marks = Marks::default();
    if let Some(before) = &before {
        enter::enter(books, &ahead, Some(before), &mut receipts, &mut fresh)?;
        marks.begin(books, &fresh, &enter::topics(rest.iter().copied().flatten()))?;
    }
    place.turn_here()?;
    for (i, entry) in entries.iter().enumerate() {
        if let Entry::Refused(refused) = entry {
            receipts[i] = refuse(books, refused)?;
        }
    }
    enter::enter(books, &rest, before.as_deref(), &mut receipts, &mut fresh)?;
    if books.tx.is_postgres() {
        place.entered(|| enter::names(&keyed));
    }
    let (subjects, stirred) = marks.finish(books, &fresh)?;
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
    fetch::before_replacing(books, &made.replaced)?;
    for (topic, recipient, older) in made.replaced {
        if let Some(known) = subjects.get(&topic) {
            books.replace_own(&topic, &known.subject, older, recipient)?;
        }
    }
    let closing: HashMap<i64, &Fresh<'_>> =
        fresh.iter().filter(|event| event.mark.closes()).map(|event| (event.mark.no, event)).collect();
    for topics in books.walks(stirred)? {
        fetch::before_sweeps(books, &topics)?;
        for topic in &topics {
            let Some(Known { subject, .. }) = subjects.get(topic) else { continue };
            books.sweep(topic, *subject)?;
            let Some(event) = subject.closer.and_then(|(_, no)| closing.get(&no)) else { continue };
            let told = books.told_before(topic, subject)?;
            if !told.is_empty() {
                books.owe(event.mark.no, told);
                books.know_closing(event.mark.no, Closing::of(event.mark.ver, event.arrival.event.data.as_str()));
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
    // What we say of it, as when it came, is another thing each time.
    headers.retain(|(name, _)| *name != "message-id" && !name.starts_with(OWN_HEADERS));
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
