//! A topic that is deleted and made again: librdkafka would read on from the old one's offset, which the new one may have
//! too. Its id tells the two apart, while it is read, and, noted at each offset that is committed, also over a rebalance, a
//! stop or a kill: the group's offset may be one that was committed before anybody knew of the new topic.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::Consumer;

use super::sought::Sought;
use super::{Client, POLL, Poller, Queue, in_words};
use crate::metrics::kafka as metrics;
use crate::source::kafka::events::{Note, Told, TopicId, written};
use crate::source::kafka::kept::Key;

/// How often the ids are asked for: as often as a topic that is not there is looked for.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// An answer that has not come by then is not waited for: librdkafka itself gives up after a minute.
const ANSWER_WITHIN: Duration = Duration::from_secs(90);
/// Where brokers (or what stands before them) do not tell what a group has noted, or a topic's id, nothing is committed for
/// so long; then offsets are committed as they were without notes. A lag that stays is worse than a topic that is made again.
const TOLD_WITHIN: Duration = Duration::from_secs(60);
/// How long a seek may take: fetches of the partition end first ...
const SEEK_WITHIN: Duration = Duration::from_millis(500);
/// ... and all of a turn: meanwhile nothing is polled, whose least interval is some seconds.
const SEEKS_WITHIN: Duration = Duration::from_secs(2);
/// Who leaves a moment after it came has not heard yet what it may commit: waited for so long, which is a few round trips.
const LAST_WITHIN: Duration = Duration::from_secs(2);

/// When something is asked for: one question waits for its answer at a time.
#[derive(Debug, Default)]
struct Turn(Option<Instant>);

impl Turn {
    fn is_due(&self, now: Instant) -> bool {
        self.0.is_none_or(|at| now >= at)
    }

    fn is_asked(&mut self, now: Instant) {
        self.0 = Some(now + ANSWER_WITHIN);
    }

    /// Or there was nothing to ask for.
    fn is_answered(&mut self, now: Instant) {
        self.0 = Some(now + ASK_EVERY);
    }
}

/// What is known of the topics that are assigned.
#[derive(Debug, Default)]
pub(super) struct Ids {
    known: BTreeMap<String, TopicId>,
    /// The cluster's own id. `None`: not known yet.
    cluster: Option<String>,
    /// Assigned partitions of which is known what the group has: the topic that its offset is of, if that was noted.
    noted: BTreeMap<Key, Option<TopicId>>,
    /// To be read from their beginning, once they are read at all: before that librdkafka can't.
    anew: BTreeSet<Key>,
    /// When a seek there is tried again.
    seek_at: Option<Instant>,
    pub sought: Sought,
    /// Topics that this consumer knew before they were made again: what it gets of them later is to be looked at, too. No more than
    /// are made again while it lives.
    pub remade: BTreeSet<String>,
    /// What is assigned was asked for, and answered.
    is_told: bool,
    /// The first question since something was assigned.
    since: Option<Instant>,
    of_topics: Turn,
    of_notes: Turn,
}

impl Ids {
    /// These are assigned: what they are now is asked for at once.
    pub fn begin(&mut self, keys: &[Key]) {
        for key in keys {
            self.noted.remove(key);
            self.anew.remove(key);
            self.sought.forget(*key);
        }
        (self.is_told, self.since) = (false, None);
        (self.of_topics, self.of_notes) = (Turn::default(), Turn::default());
    }

    /// The answer. Gives the topics that are others by now.
    fn learn(&mut self, now: Instant, found: Vec<(String, TopicId)>) -> Vec<String> {
        self.of_topics.is_answered(now);
        self.is_told = true;
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

    /// Whether the group's offset of this partition is of another topic than it is now. Told once.
    fn is_of_another(&mut self, key: Key, topic: &str) -> bool {
        let (Some(noted), Some(id)) = (self.noted.get_mut(&key), self.known.get(topic)) else { return false };
        noted.replace(*id).is_some_and(|noted| noted != *id)
    }

    /// What was not told in time is not waited for. Gives how many partitions that are.
    fn give_up(&mut self, now: Instant, ours: &[(Key, String)]) -> usize {
        if now.saturating_duration_since(*self.since.get_or_insert(now)) < TOLD_WITHIN {
            return 0;
        }
        let stuck = |(key, topic): &&(Key, String)| !self.anew.contains(key) && !self.may_commit(*key, topic);
        let stuck: Vec<Key> = ours.iter().filter(stuck).map(|(key, _)| *key).collect();
        // Also where nobody answers the question for the ids.
        self.is_told |= !stuck.is_empty();
        self.noted.extend(stuck.iter().map(|key| (*key, None)));
        stuck.len()
    }

    /// Whether an offset may be committed: not over one that may be of another topic, or only once that is known.
    pub fn may_commit(&self, key: Key, topic: &str) -> bool {
        let Some(noted) = self.noted.get(&key) else { return false };
        let is_known = self.known.contains_key(topic);
        // Brokers before 2.8 have no ids.
        !self.anew.contains(&key) && (is_known || (self.is_told && noted.is_none()))
    }

    /// What to commit with an offset.
    pub fn note(&self, topic: &str) -> Option<String> {
        self.known.get(topic).zip(self.cluster.as_ref()).map(|(id, cluster)| written(*id, cluster))
    }
}

impl Poller {
    /// Called at each turn: mostly nothing is due.
    pub(super) fn ask_ids(&mut self, events: &Queue<'_>) {
        let now = Instant::now();
        if self.ids.of_topics.is_due(now) || self.ids.of_notes.is_due(now) {
            self.give_up_on_answers(now);
        }
        if self.ids.of_topics.is_due(now) {
            let topics = self.assigned_topics();
            if topics.is_empty() {
                return;
            }
            self.ids.of_topics.is_asked(now);
            events.ask_ids(&topics);
        }
        if self.ids.of_notes.is_due(now) {
            let unknown: Vec<Key> = self.ours().into_iter().filter(|key| !self.ids.noted.contains_key(key)).collect();
            if unknown.is_empty() {
                return self.ids.of_notes.is_answered(now);
            }
            self.ids.of_notes.is_asked(now);
            events.ask_notes(&self.settings.group, &self.list(unknown.into_iter()));
        }
    }

    fn give_up_on_answers(&mut self, now: Instant) {
        let ours: Vec<(Key, String)> = {
            let state = self.shared.state();
            state.partitions.keys().map(|key| (*key, state.name(*key).to_owned())).collect()
        };
        let partitions = self.ids.give_up(now, &ours);
        if partitions > 0 {
            tracing::warn!(
                source = self.settings.name,
                partitions,
                "the brokers do not tell of which topics the group's offsets are; they are committed without that, and a \
                 topic that is deleted and made again while it is not read may be read from the old one's offset"
            );
        }
    }

    /// Before the last commit. What can't be committed then is read again by the next owner.
    pub(super) fn wait_for_answers(&mut self, consumer: &Client, events: &Queue<'_>) {
        let by = Instant::now() + LAST_WITHIN;
        while self.has_unsaid() && Instant::now() < by {
            self.ask_ids(events);
            let Some(event) = events.next(POLL) else { continue };
            if !matches!(event.told(), Told::Message(_) | Told::End { .. }) {
                self.take(consumer, events, &event);
            }
        }
    }

    /// Something is settled, and nobody knows yet whether it may be committed.
    fn has_unsaid(&self) -> bool {
        let state = self.shared.state();
        let is_unsaid = |key: Key| !self.ids.anew.contains(&key) && !self.ids.may_commit(key, state.name(key));
        state.partitions.iter().any(|(key, progress)| progress.last_commit().is_some() && is_unsaid(*key))
    }

    fn ours(&self) -> Vec<Key> {
        self.shared.state().partitions.keys().copied().collect()
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
            let place = self.shared.state().topic(&topic);
            let others: Vec<Key> = self.ours().into_iter().filter(|key| key.0 == place).collect();
            self.is_another(&topic, others);
        }
        self.compare(consumer);
    }

    pub(super) fn learn_notes(&mut self, consumer: &Client, found: Vec<Note>) {
        self.ids.of_notes.is_answered(Instant::now());
        if self.ids.cluster.is_none() {
            // Known since the first metadata: nothing is waited for.
            self.ids.cluster = consumer.client().fetch_cluster_id(Duration::ZERO);
        }
        for note in found {
            let mut state = self.shared.state();
            let key = (state.topic(&note.topic), note.partition);
            let Some(progress) = state.partitions.get_mut(&key) else { continue };
            if let Some(offset) = note.offset {
                progress.had(offset);
            }
            let here = note.of.filter(|(_, cluster)| self.ids.cluster.as_ref() == Some(cluster));
            self.ids.noted.entry(key).or_insert(here.map(|(id, _)| id));
        }
        self.compare(consumer);
    }

    /// What the group has, with what is there.
    fn compare(&mut self, consumer: &Client) {
        let mut others: BTreeMap<String, Vec<Key>> = BTreeMap::new();
        for key in self.ours() {
            let topic = self.shared.state().name(key).to_owned();
            if self.ids.is_of_another(key, &topic) && !self.ids.anew.contains(&key) {
                others.entry(topic).or_default().push(key);
            }
        }
        others.into_iter().for_each(|(topic, keys)| self.is_another(&topic, keys));
        self.begin_again(consumer);
    }

    fn is_another(&mut self, topic: &str, keys: Vec<Key>) {
        tracing::warn!(
            source = self.settings.name,
            topic,
            "the topic was deleted and made again; it is read from its beginning"
        );
        metrics::reset(&self.settings.name);
        self.ids.anew.extend(keys);
        self.ids.remade.insert(topic.to_owned());
    }

    /// Reads from its beginning what is another one by now. Until that is so nothing of it is committed: with the new id a
    /// commit would say that what is before the old offset was read.
    pub(super) fn begin_again(&mut self, consumer: &Client) {
        let now = Instant::now();
        if self.ids.anew.is_empty() || self.ids.seek_at.is_some_and(|at| now < at) {
            return;
        }
        self.ids.seek_at = None;
        for key in std::mem::take(&mut self.ids.anew) {
            if now.elapsed() > SEEKS_WITHIN {
                self.ids.anew.insert(key);
                continue;
            }
            let topic = {
                let state = self.shared.state();
                match state.partitions.get(&key) {
                    // Another member's by now.
                    None => continue,
                    Some(progress) if !progress.has_begun() => {
                        self.ids.anew.insert(key);
                        self.ids.sought.waits(key, now);
                        continue;
                    }
                    Some(_) => state.name(key).to_owned(),
                }
            };
            // Waited for: librdkafka tells nobody of a seek that fails later. What was read before it does not come any more.
            match consumer.seek(&topic, key.1, Offset::Beginning, SEEK_WITHIN) {
                Ok(()) => {
                    self.shared.state().start_over(key);
                    self.ids.sought.add(key, now);
                }
                Err(e) => {
                    let (partition, error) = (key.1, in_words(&e));
                    tracing::warn!(
                        source = self.settings.name,
                        topic,
                        partition,
                        error,
                        "it can't be read from there yet"
                    );
                    self.ids.anew.insert(key);
                    self.ids.seek_at = Some(now + ASK_EVERY);
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
        let (mut turn, now) = (Turn::default(), Instant::now());
        assert!(turn.is_due(now));
        turn.is_asked(now);
        assert!(!turn.is_due(now + ASK_EVERY) && turn.is_due(now + ANSWER_WITHIN));
        turn.is_answered(now + ASK_EVERY);
        assert!(!turn.is_due(now + ASK_EVERY) && turn.is_due(now + ASK_EVERY * 2));
    }

    #[test]
    fn an_offset_of_the_topic_that_was_deleted_is_none_of_the_one_that_is_there() {
        let (mut ids, now) = (Ids::default(), Instant::now());
        let [old, same, unsaid] = [(0, 0), (0, 1), (0, 2)];
        ids.begin(&[old, same, unsaid]);
        assert!(!ids.may_commit(same, "a"), "nobody knows what the group has");
        ids.noted.extend([(old, Some((1, 0))), (same, Some((2, 0))), (unsaid, None)]);
        assert!(!ids.may_commit(unsaid, "a"), "nobody knows what is there");
        ids.learn(now, found(&[("a", 2)]));
        assert!(ids.is_of_another(old, "a") && !ids.is_of_another(old, "a"), "told once");
        assert!(!ids.is_of_another(same, "a") && !ids.is_of_another(unsaid, "a"));
        ids.anew.insert(old);
        assert!(!ids.may_commit(old, "a") && ids.may_commit(same, "a") && ids.may_commit(unsaid, "a"));
        ids.begin(&[old]);
        assert!(!ids.may_commit(old, "a") && ids.may_commit(same, "a"));
    }

    #[test]
    fn where_brokers_have_no_ids_offsets_are_committed_all_the_same() {
        let mut ids = Ids::default();
        ids.noted.insert((0, 0), None);
        ids.learn(Instant::now(), Vec::new());
        assert!(ids.may_commit((0, 0), "a"));
        assert_eq!(ids.note("a"), None);
    }

    #[test]
    fn brokers_that_do_not_tell_hold_up_commits_for_a_minute_at_most() {
        let (mut ids, now) = (Ids::default(), Instant::now());
        let ours = [((0, 0), "a".to_owned()), ((0, 1), "a".to_owned())];
        ids.begin(&[(0, 0), (0, 1)]);
        assert_eq!(ids.give_up(now, &ours), 0);
        // The group's offset of one of them says a topic's id, and nobody says what is there.
        ids.noted.insert((0, 1), Some((1, 0)));
        assert_eq!(ids.give_up(now + TOLD_WITHIN / 2, &ours), 0);
        assert!(ours.iter().all(|(key, topic)| !ids.may_commit(*key, topic)));
        assert_eq!(ids.give_up(now + TOLD_WITHIN, &ours), 2);
        assert!(ours.iter().all(|(key, topic)| ids.may_commit(*key, topic)));
        assert_eq!(ids.give_up(now + TOLD_WITHIN * 2, &ours), 0, "told once");
        ids.begin(&[(0, 1)]);
        assert_eq!(ids.give_up(now + TOLD_WITHIN * 2, &ours), 0, "what comes later has its own time");
        assert!(!ids.may_commit((0, 1), "a"));
        assert_eq!(ids.give_up(now + TOLD_WITHIN * 3, &ours), 2);
    }
}
