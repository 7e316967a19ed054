//! What intake reads ahead, so that a batch costs few questions to a database that is far away.

use super::super::books::{Books, Wanted};
use super::super::subject::Subject;
use super::{Fresh, Topics, nobody};
use crate::model::Topic;
use crate::store::Result;

/// What ranks of equal time are compared by: of the events that share a topic with others.
pub(super) fn before_marks(books: &mut Books<'_>, fresh: &[Fresh<'_>], by_topic: &[(Topic, usize)]) -> Result<()> {
    if !books.tx.is_postgres() {
        return Ok(());
    }
    let mut ranks = Vec::new();
    for of_topic in by_topic.chunk_by(|a, b| a.0 == b.0) {
        let known = of_topic.first().is_some_and(|(topic, _)| books.fetched.subjects.borrow().contains_key(topic));
        if !known && of_topic.len() == 1 {
            continue;
        }
        for (topic, i) in of_topic {
            let Fresh { mark, arrival, .. } = &fresh[*i];
            ranks.push((*topic, *mark));
            let texts = (arrival.event.id.clone(), arrival.event.source.clone());
            books.fetched.ties.borrow_mut().insert(mark.no, texts);
        }
    }
    books.fetch_ties(&ranks)
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
    books.fetch_mailboxes(&wanted, &of(subjects, stirred))?;
    owns.sort_unstable();
    owns.dedup();
    books.fetch_owns(&owns)
}

/// The chains of the topics in which items may have to leave.
pub(super) fn before_sweeps(books: &mut Books<'_>, subjects: &Topics, stirred: &[Topic]) -> Result<()> {
    if books.tx.is_postgres() { books.fetch_walks(&of(subjects, stirred)) } else { Ok(()) }
}

fn of(subjects: &Topics, topics: &[Topic]) -> Vec<(Topic, Subject)> {
    topics.iter().filter_map(|topic| Some((*topic, subjects.get(topic)?.subject))).collect()
}
