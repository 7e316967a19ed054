//! A topic that is deleted and made again while it is read: librdkafka would read on from the old one's offset, which the
//! new one may have too. Its id tells the two apart.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::Consumer;

use super::{Client, Poller, Queue, in_words};
use crate::metrics;
use crate::source::kafka::events::TopicId;
use crate::source::kafka::kept::Key;

/// How often the ids are asked for: as often as a topic that is not there is looked for.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// An answer that has not come by then is not waited for: librdkafka itself gives up after a minute.
const ANSWER_WITHIN: Duration = Duration::from_secs(90);

/// What is known of the topics that are assigned.
#[derive(Debug, Default)]
pub(super) struct Ids {
    known: BTreeMap<String, TopicId>,
    /// The next question; later while one waits for its answer.
    next: Option<Instant>,
}

impl Ids {
    /// Something new is assigned: what it is now is asked for at once.
    pub fn ask_soon(&mut self) {
        self.next = None;
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.next.is_none_or(|at| now >= at);
        if is_due {
            self.next = Some(now + ANSWER_WITHIN);
        }
        is_due
    }

    /// The answer. Gives the topics that are others by now.
    fn learn(&mut self, now: Instant, found: Vec<(String, TopicId)>) -> Vec<String> {
        self.next = Some(now + ASK_EVERY);
        let is_another = |(name, id): (String, TopicId)| {
            let before = self.known.insert(name.clone(), id);
            before.is_some_and(|before| before != id).then_some(name)
        };
        found.into_iter().filter_map(is_another).collect()
    }

    /// Of what is not assigned any more nothing is known: another member reads it.
    fn keep(&mut self, topics: &[String]) {
        self.known.retain(|name, _| topics.contains(name));
    }
}

impl Poller {
    pub(super) fn ask_ids(&mut self, events: &Queue<'_>) {
        let topics = self.assigned_topics();
        if !topics.is_empty() && self.ids.is_due(Instant::now()) {
            events.ask_ids(&topics);
        }
    }

    fn assigned_topics(&self) -> Vec<String> {
        let state = self.shared.state();
        let mut places: Vec<usize> = state.partitions.keys().map(|key| key.0).collect();
        places.dedup();
        places.into_iter().map(|place| state.name((place, 0)).to_owned()).collect()
    }

    /// A topic that is another one is read from its beginning: the store knows what was read of it already.
    pub(super) fn learn_ids(&mut self, consumer: &Client, found: Vec<(String, TopicId)>) {
        self.ids.keep(&self.assigned_topics());
        for topic in self.ids.learn(Instant::now(), found) {
            tracing::warn!(
                source = self.settings.name,
                topic,
                "the topic was deleted and made again; it is read from its beginning"
            );
            metrics::kafka_reset(&self.settings.name);
            let keys: Vec<Key> = {
                let mut state = self.shared.state();
                let place = state.topic(&topic);
                let keys: Vec<Key> = state.partitions.keys().filter(|key| key.0 == place).copied().collect();
                keys.iter().for_each(|key| state.begin_again(*key));
                keys
            };
            for (_, partition) in keys {
                // Without waiting: an error comes as an event, and what does not begin again is what it was without this.
                if let Err(e) = consumer.seek(&topic, partition, Offset::Beginning, Duration::ZERO) {
                    let error = in_words(&e);
                    tracing::warn!(source = self.settings.name, topic, partition, error, "it can't be read from there");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(all: &[(&str, i64)]) -> Vec<(String, TopicId)> {
        all.iter().map(|(name, id)| ((*name).to_owned(), (*id, 0))).collect()
    }

    #[test]
    fn a_topic_with_another_id_is_another_and_told_once() {
        let (mut ids, now) = (Ids::default(), Instant::now());
        assert!(ids.learn(now, found(&[("a", 1), ("b", 2)])).is_empty());
        // While it is deleted nothing is known of it.
        assert!(ids.learn(now, found(&[("b", 2)])).is_empty());
        assert_eq!(ids.learn(now, found(&[("a", 3), ("b", 2)])), ["a"]);
        assert!(ids.learn(now, found(&[("a", 3)])).is_empty());
        ids.keep(&["b".to_owned()]);
        assert!(ids.learn(now, found(&[("a", 4), ("b", 2)])).is_empty(), "it was another member's meanwhile");
    }

    #[test]
    fn one_question_waits_at_a_time() {
        let (mut ids, now) = (Ids::default(), Instant::now());
        assert!(ids.is_due(now) && !ids.is_due(now + ASK_EVERY));
        ids.learn(now + ASK_EVERY, Vec::new());
        assert!(!ids.is_due(now + ASK_EVERY) && ids.is_due(now + ASK_EVERY * 2));
        ids.ask_soon();
        assert!(ids.is_due(now + ASK_EVERY * 2));
    }
}
