//! A source that is fed by hand: all of it but librdkafka and the thread around it. For simulations, in which no broker and
//! no thread may have a say; what is told here is what [`super::thread`] tells.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::kept::{Key, Record};
use super::offsets::Progress;
use super::shared::{Shared, State, empty_for};
use super::{KafkaSource, Protocol};
use crate::metrics::kafka as metrics;

/// A partition: topic and number.
pub type Partition = (String, i32);

/// The other end of a [`KafkaSource`]. The source stops with it, as with a thread that broke off.
pub struct Feed {
    shared: Arc<Shared>,
    event_bytes: usize,
}

/// A message of a partition.
#[derive(Clone, Copy, Debug)]
pub struct Fed<'m> {
    pub partition: &'m Partition,
    pub offset: i64,
    pub time_ms: i64,
    pub headers: &'m [(&'m str, &'m str)],
    /// `None`: a tombstone.
    pub value: Option<&'m [u8]>,
}

impl Record for Fed<'_> {
    fn topic(&self) -> &[u8] {
        self.partition.0.as_bytes()
    }

    fn partition(&self) -> i32 {
        self.partition.1
    }

    fn offset(&self) -> i64 {
        self.offset
    }

    fn payload(&self) -> Option<&[u8]> {
        self.value
    }

    fn time_ms(&self) -> Option<i64> {
        Some(self.time_ms)
    }

    fn headers(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.headers.iter().map(|(name, value)| (name.as_bytes(), Some(value.as_bytes())))
    }
}

impl KafkaSource {
    /// A source without a thread, and what feeds it.
    pub fn fed(name: &str, group: &str, event_bytes: usize) -> (KafkaSource, Feed) {
        metrics::touch(name);
        let shared = Arc::new(Shared::default());
        let source = KafkaSource {
            name: name.to_owned(),
            until_idle: false,
            topics: Vec::new(),
            group: group.to_owned(),
            shared: Arc::clone(&shared),
            heard_by: None,
            gone: None,
        };
        (source, Feed { shared, event_bytes })
    }
}

impl Feed {
    pub fn assigned(&self, partitions: &[Partition]) {
        let mut state = self.shared.state();
        state.assign(partitions.iter().map(|(topic, number)| (&**topic, *number)));
        state.note_empty(empty_for(Protocol::Classic));
        state.joined = true;
        drop(state);
        self.shared.news.notify_one();
    }

    /// Given back or lost; what is to be committed before is said before.
    pub fn revoked(&self, partitions: &[Partition]) {
        let mut state = self.shared.state();
        let keys: Vec<Key> = partitions.iter().map(|(topic, number)| (state.topic(topic), *number)).collect();
        state.let_go(&keys);
        state.wait_for_assignment();
        drop(state);
        self.shared.news.notify_one();
    }

    /// Whether there is room for another message.
    pub fn has_room(&self) -> bool {
        !self.shared.state().is_full()
    }

    pub fn message(&self, message: &Fed<'_>) {
        self.shared.push(message, self.event_bytes);
    }

    /// All messages of the partition before this offset have been given.
    pub fn end(&self, partition: &Partition, offset: i64) {
        let mut state = self.shared.state();
        let key = (state.topic(&partition.0), partition.1);
        state.reached(key, offset);
        drop(state);
        self.shared.news.notify_one();
    }

    /// What is settled and was not said yet: a commit with it is under way from here on.
    pub fn to_commit(&self) -> BTreeMap<Partition, i64> {
        self.say(|_, _| true, Progress::to_commit)
    }

    /// What is settled and not known to be heard, before the partitions go.
    pub fn last_commit(&self, partitions: &[Partition]) -> BTreeMap<Partition, i64> {
        let of = |key: Key, topic: &str| partitions.iter().any(|(name, number)| *name == *topic && *number == key.1);
        self.say(of, Progress::last_commit)
    }

    fn say(&self, of: impl Fn(Key, &str) -> bool, due: impl Fn(&Progress) -> Option<i64>) -> BTreeMap<Partition, i64> {
        let mut state = self.shared.state();
        let said = state.say(of, due);
        let partition = |key: Key, state: &State| (state.name(key).to_owned(), key.1);
        said.into_iter().map(|(key, offset)| (partition(key, &state), offset)).collect()
    }

    /// The broker has these offsets.
    pub fn committed(&self, offsets: &BTreeMap<Partition, i64>) {
        self.answered(offsets, Progress::is_committed);
    }

    /// It does not have them, or did not say so.
    pub fn not_committed(&self, offsets: &BTreeMap<Partition, i64>) {
        self.answered(offsets, Progress::commit_failed);
    }

    fn answered(&self, offsets: &BTreeMap<Partition, i64>, tell: impl Fn(&mut Progress, i64)) {
        let mut state = self.shared.state();
        for ((topic, number), offset) in offsets {
            let key = (state.topic(topic), *number);
            if let Some(progress) = state.partitions.get_mut(&key) {
                tell(progress, *offset);
            }
        }
        drop(state);
        self.shared.news.notify_one();
    }

    /// The source is being stopped, or gone.
    pub fn is_stopping(&self) -> bool {
        self.shared.is_stopping()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.news.notify_one();
    }
}
