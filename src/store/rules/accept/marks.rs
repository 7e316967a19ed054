//! The marks that a batch enters into its topics, before any item is made: so what is over in the batch already is born
//! withdrawn.

use std::collections::BTreeMap;

use super::super::books::Books;
use super::super::sql;
use super::super::subject::{Mark, Subject, TopicMap};
use super::{Fresh, fetch};
use crate::model::Topic;
use crate::store::rules::tx::params;
use crate::store::{Result, StoreError};

/// A topic of the batch, with all of the batch's marks in it.
pub(super) struct Known {
    pub subject: Subject,
    /// Nobody has spoken of it before this one event.
    pub alone: bool,
}

pub(super) type Topics = TopicMap<Known>;

/// A topic, and the place of an event that speaks of it.
pub(super) type Spoken = (Topic, usize);

#[derive(Default)]
pub(super) struct Marks {
    /// As they are now.
    subjects: Topics,
    /// In which somebody else's items may have to leave.
    stirred: Vec<Topic>,
    /// The events before an event, in each of its topics; by its place.
    links: BTreeMap<usize, [Option<i64>; 2]>,
    /// What `begin` left.
    waiting: Vec<Spoken>,
    /// So many events it has seen.
    seen: usize,
}

impl Marks {
    /// While the batch before is on its way, which speaks of none of these: enters the marks of topics that nobody has spoken of,
    /// and of which nothing is to come (`of_rest`: the topics of the batch's other events, sorted). Topics that are known already are
    /// neither changed nor locked: that has an order, and comes in its turn.
    pub fn begin(&mut self, books: &mut Books<'_>, fresh: &[Fresh<'_>], of_rest: &[Topic]) -> Result<()> {
        let is_whole = |of_topic: &&[Spoken]| of_rest.binary_search(&of_topic[0].0).is_err();
        let all = by_topic(fresh, 0);
        let (whole, waiting): (Vec<_>, Vec<_>) = all.chunk_by(|a, b| a.0 == b.0).partition(is_whole);
        self.seen = fresh.len();
        let subjects = fold_all(books, fresh, &whole)?;
        let added = books.add_subjects(&subjects)?;
        self.waiting.extend(waiting.into_iter().flatten());
        for ((of_topic, (topic, subject)), new) in whole.into_iter().zip(subjects).zip(added) {
            if new {
                self.know_new(fresh, topic, subject, of_topic);
            } else {
                self.waiting.extend(of_topic);
            }
        }
        Ok(())
    }

    /// Enters all that is not entered yet.
    pub fn finish(mut self, books: &mut Books<'_>, fresh: &[Fresh<'_>]) -> Result<(Topics, Vec<Topic>)> {
        let mut rest = std::mem::take(&mut self.waiting);
        rest.extend(by_topic(fresh, self.seen));
        rest.sort_unstable();
        let by_topic: Vec<&[Spoken]> = rest.chunk_by(|a, b| a.0 == b.0).collect();
        let subjects = fold_all(books, fresh, &by_topic)?;
        let added = books.new_subjects(&subjects)?;
        let known = by_topic.iter().zip(&added).filter(|(_, new)| !**new).map(|(of_topic, _)| *of_topic);
        fetch::before_marks(books, fresh, known)?;
        for ((of_topic, (topic, subject)), new) in by_topic.into_iter().zip(subjects).zip(added) {
            if new {
                self.know_new(fresh, topic, subject, of_topic);
            } else {
                self.know_more(books, fresh, topic, of_topic)?;
            }
        }
        for (i, event) in fresh.iter().enumerate() {
            let prev = self.links.get(&i).copied().unwrap_or_default();
            if prev != event.prev {
                books.tx.prepare_cached(sql::LINK_EVENT)?.later(params![event.mark.no, prev[0], prev[1]])?;
            }
        }
        Ok((self.subjects, self.stirred))
    }

    /// In a new topic all items are this batch's: what is over is born so, and nothing has to leave.
    fn know_new(&mut self, fresh: &[Fresh<'_>], topic: Topic, subject: Subject, of_topic: &[Spoken]) {
        for (a, b) in of_topic.iter().zip(&of_topic[1..]) {
            self.link(fresh, b.1, &topic, fresh[a.1].mark.no);
        }
        self.subjects.insert(topic, Known { subject, alone: of_topic.len() == 1 });
    }

    fn know_more(
        &mut self,
        books: &mut Books<'_>,
        fresh: &[Fresh<'_>],
        topic: Topic,
        of_topic: &[Spoken],
    ) -> Result<()> {
        let Some(known) = books.subject(&topic)? else {
            return Err(StoreError::Unavailable("a subject vanished under its lock".into()));
        };
        let marks = || of_topic.iter().map(|(_, i)| fresh[*i].mark);
        let lone = lone(books, &topic, known.lone, marks())?;
        // Twins of the latest end nothing but what their own people have (`replace_own`): no walk.
        if marks().any(|mark| !mark.same_wave(&known.latest)) {
            self.stirred.push(topic);
        }
        let mut subject = known;
        for (_, i) in of_topic {
            self.link(fresh, *i, &topic, subject.head);
            subject = books.mark(Some(subject), fresh[*i].mark)?;
        }
        let subject = Subject { lone, ..subject };
        books.save_subject(&topic, &subject)?;
        self.subjects.insert(topic, Known { subject, alone: false });
        Ok(())
    }

    fn link(&mut self, fresh: &[Fresh<'_>], i: usize, topic: &Topic, prev: i64) {
        let place = usize::from(fresh[i].topics.first() != Some(topic));
        self.links.entry(i).or_default()[place] = Some(prev);
    }
}

/// What the events from this place on speak of; sorted.
fn by_topic(fresh: &[Fresh<'_>], from: usize) -> Vec<Spoken> {
    let events = fresh.iter().enumerate().skip(from);
    let mut all: Vec<Spoken> =
        events.flat_map(|(i, event)| event.topics.iter().map(move |topic| (*topic, i))).collect();
    all.sort_unstable();
    all
}

/// Each topic as it is if nobody has spoken of it before.
fn fold_all(books: &Books<'_>, fresh: &[Fresh<'_>], by_topic: &[&[Spoken]]) -> Result<Vec<(Topic, Subject)>> {
    fetch::texts_of_twins(books, fresh, by_topic);
    by_topic.iter().map(|of_topic| fold(books, fresh, of_topic)).collect()
}

fn fold(books: &Books<'_>, fresh: &[Fresh<'_>], of_topic: &[Spoken]) -> Result<(Topic, Subject)> {
    let (topic, first) = of_topic[0];
    let mut subject = books.mark(None, fresh[first].mark)?;
    for (_, i) in &of_topic[1..] {
        subject = books.mark(Some(subject), fresh[*i].mark)?;
    }
    let mut dated = of_topic.iter().map(|(_, i)| fresh[*i].mark).filter(|mark| mark.date.is_some());
    let lone = dated.next().map(|mark| mark.no).filter(|_| dated.next().is_none());
    Ok((topic, Subject { lone, ..subject }))
}

/// The topic's one dated opener, if it still has no second with the marks that it gets now.
fn lone(
    books: &mut Books<'_>,
    topic: &Topic,
    before: Option<i64>,
    mut marks: impl Iterator<Item = Mark>,
) -> Result<Option<i64>> {
    if !marks.any(|mark| mark.date.is_some()) {
        return Ok(before);
    }
    if let Some(lone) = before {
        books.stand_all(topic, lone)?;
    }
    Ok(None)
}
