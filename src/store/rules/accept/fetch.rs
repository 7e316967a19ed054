//! What intake reads ahead, so that a batch costs few questions to a database that is far away.

use super::super::books::{Books, Wanted};
use super::super::subject::Subject;
use super::marks::{Spoken, Topics};
use super::{Fresh, nobody};
use crate::model::Topic;
use crate::store::Result;

/// What ranks of equal time are compared by: of the events that share a topic within the batch.
pub(super) fn texts_of_twins(books: &Books<'_>, fresh: &[Fresh<'_>], by_topic: &[&[Spoken]]) {
    if books.tx.is_postgres() {
        let twins = by_topic.iter().filter(|of_topic| of_topic.len() > 1);
        know_texts(books, fresh, twins.copied().flatten());
    }
}

/// The same of events whose topic is known already, and of what is known of it.
pub(super) fn before_marks<'s>(
    books: &mut Books<'_>,
    fresh: &[Fresh<'_>],
    known: impl Iterator<Item = &'s [Spoken]>,
) -> Result<()> {
    if !books.tx.is_postgres() {
        return Ok(());
    }
    let known: Vec<&Spoken> = known.flatten().collect();
    know_texts(books, fresh, known.iter().copied());
    let ranks: Vec<_> = known.into_iter().map(|(topic, i)| (*topic, fresh[*i].mark)).collect();
    books.fetch_ties(&ranks)
}

fn know_texts<'s>(books: &Books<'_>, fresh: &[Fresh<'_>], spoken: impl Iterator<Item = &'s Spoken>) {
    let mut ties = books.fetched.ties.borrow_mut();
    for (_, i) in spoken {
        let event = &fresh[*i].arrival.event;
        ties.insert(fresh[*i].mark.no, (event.id.clone(), event.source.clone()));
    }
}

/// Mailboxes in the order of their locks, with their windows; what people have in the topics of new openers.
pub(super) fn before_items(
    books: &mut Books<'_>,
    fresh: &[Fresh<'_>],
    subjects: &Topics,
    stirred: &[Topic],
) -> Result<()> {
    if !books.tx.is_postgres() || fresh.is_empty() {
        return Ok(());
    }
    let names: Vec<(&str, String)> = fresh
        .iter()
        .flat_map(|event| &event.arrival.asked)
        .filter(|asked| asked.people.is_empty() && !asked.references.is_empty())
        .map(|asked| (&*asked.route, nobody(&asked.references)))
        .collect();
    let mut wanted = Wanted::new();
    wanted.extend(names.iter().map(|(route, name)| ((*route, name.as_str()), None)));
    let mut owns = Vec::new();
    for event in fresh {
        let dated = event.topics.first().filter(|_| event.opens && event.mark.date.is_some());
        let told = dated.filter(|topic| subjects.get(topic).is_some_and(|known| !known.alone));
        for asked in &event.arrival.asked {
            for person in &asked.people {
                let zone = wanted.entry((&*asked.route, person.principal.as_str())).or_default();
                *zone = zone.or(person.zone.as_deref());
                owns.extend(told.map(|topic| (*topic, person.principal.as_str())));
            }
        }
    }
    owns.sort_unstable();
    owns.dedup();
    books.fetch_owns(&owns)?;
    // What a later twin may replace: the subjects are locked, so that it stays so.
    let replaced: Vec<(i64, &str)> = {
        let known = books.fetched.owns.borrow();
        let own = |(topic, who): &(Topic, &'_ str)| known.get(topic)?.get(*who).copied().flatten();
        owns.iter().filter_map(|one| Some((own(one)?.1, one.1))).collect()
    };
    books.fetch_mailboxes(&wanted, &replaced, &of(subjects, stirred))
}

/// What the replaced twins left to these people.
pub(super) fn before_replacing(books: &mut Books<'_>, replaced: &[(Topic, &str, i64)]) -> Result<()> {
    if !books.tx.is_postgres() || replaced.is_empty() {
        return Ok(());
    }
    books.fetch_replaced(&replaced.iter().map(|(topic, who, older)| (*older, *topic, *who)).collect::<Vec<_>>())
}

/// What has to leave in these topics, perhaps.
pub(super) fn before_sweeps(books: &mut Books<'_>, topics: &[Topic]) -> Result<()> {
    if books.tx.is_postgres() { books.fetch_walks(topics) } else { Ok(()) }
}

fn of(subjects: &Topics, topics: &[Topic]) -> Vec<(Topic, Subject)> {
    topics.iter().filter_map(|topic| Some((*topic, subjects.get(topic)?.subject))).collect()
}
