//! What the thread that reads and the loop that asks share: a batch that fills, batches that are out, and how far each
//! partition is. All of it is bounded by the loop's room: at most one batch fills beside those that are out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Protocol;
use super::condition::Condition;
use super::kept::{Kept, Key, Place, Record};
use super::offsets::Progress;
use crate::source::Room;

/// A member without partitions may be one that gets some in a moment: while a group shares them out anew, and with
/// KIP-848 at the beginning. After so long others have all of them.
const EMPTY_FOR: Duration = Duration::from_secs(10);
/// With KIP-848 a newcomer is in the group, with nothing, while a member that died still holds its partitions: until its
/// session ends. The broker decides that; its default is 45 seconds.
const EMPTY_FOR_CONSUMER: Duration = Duration::from_secs(60);

pub(super) fn empty_for(protocol: Protocol) -> Duration {
    match protocol {
        Protocol::Classic => EMPTY_FOR,
        Protocol::Consumer => EMPTY_FOR_CONSUMER,
    }
}

pub(super) struct Shared {
    state: Mutex<State>,
    /// Something is there for the loop.
    pub news: Notify,
    /// A batch was taken: there is room again.
    taken: Condvar,
    stopping: AtomicBool,
}

pub(super) struct State {
    /// Every topic that was assigned so far; [`Key`]s point here. As many as the subscription ever fitted.
    pub topics: Vec<Arc<str>>,
    /// What is assigned now.
    pub partitions: BTreeMap<Key, Progress>,
    /// Counts assignments of partitions: what was read under another one is not ours any more.
    pub epoch: u64,
    /// Messages that are not settled, when librdkafka last said it; `None`: not yet.
    pub lag: Option<u64>,
    /// The last one looked up: messages of one topic follow each other.
    last_topic: usize,
    pub filling: Kept,
    /// Refused, to be given out before anything new, but not before its time.
    pub again: VecDeque<Kept>,
    pub not_before: Option<Instant>,
    /// Given out and not settled, in order.
    pub out: VecDeque<(u64, Kept)>,
    pub next_batch: u64,
    pub room: Room,
    pub condition: Condition,
    /// Nothing heals it.
    pub fatal: Option<String>,
    /// An assignment, perhaps of nothing, has come.
    pub joined: bool,
    /// Nothing is assigned: when that counts as having nothing to do.
    idle_at: Option<std::time::Instant>,
    /// The next message's number, see [`Place`].
    next_number: u64,
    /// The thread is gone.
    pub ended: bool,
}

/// Why a wait for room ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    Room,
    Full,
    Stopping,
}

impl Default for Shared {
    fn default() -> Shared {
        let state = State {
            topics: Vec::new(),
            partitions: BTreeMap::new(),
            epoch: 0,
            lag: None,
            last_topic: 0,
            filling: Kept::default(),
            again: VecDeque::new(),
            not_before: None,
            out: VecDeque::new(),
            next_batch: 0,
            room: super::FIRST,
            condition: Condition::default(),
            fatal: None,
            joined: false,
            idle_at: None,
            next_number: 0,
            ended: false,
        };
        Shared {
            state: Mutex::new(state),
            news: Notify::new(),
            taken: Condvar::new(),
            stopping: AtomicBool::new(false),
        }
    }
}

impl Shared {
    /// The state is whole at every moment, so a panic elsewhere does not spoil it.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.taken.notify_all();
        self.news.notify_one();
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// The loop took what was there.
    pub fn took(&self) {
        self.taken.notify_all();
    }

    /// For the thread: waits until there is room for messages, `within` at most.
    pub fn wait_for_room(&self, within: Duration) -> Wait {
        let mut state = self.state();
        let by = std::time::Instant::now() + within;
        while state.is_full() && !self.is_stopping() {
            let left = by.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return Wait::Full;
            }
            state = self.taken.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if self.is_stopping() { Wait::Stopping } else { Wait::Room }
    }

    /// Keeps a message. `true`: there is no room for another.
    pub fn push(&self, record: &impl Record, event_bytes: usize) -> bool {
        let mut state = self.state();
        let was_empty = state.filling.is_empty();
        let full = state.push(record, event_bytes);
        drop(state);
        if was_empty {
            self.news.notify_one();
        }
        full
    }
}

impl State {
    pub fn is_full(&self) -> bool {
        self.filling.fills(self.room)
    }

    /// The place of a topic's name; a new one is added.
    pub fn topic(&mut self, name: &str) -> usize {
        self.topics.iter().position(|known| **known == *name).unwrap_or_else(|| {
            self.topics.push(Arc::from(name));
            self.topics.len() - 1
        })
    }

    pub fn name(&self, key: Key) -> &str {
        self.topics.get(key.0).map_or("", |name| name)
    }

    fn push(&mut self, record: &impl Record, event_bytes: usize) -> bool {
        if self.topics.get(self.last_topic).is_none_or(|known| known.as_bytes() != record.topic()) {
            self.last_topic = self.topic(&String::from_utf8_lossy(record.topic()));
        }
        let key = (self.last_topic, record.partition());
        let offset = record.offset();
        // librdkafka gives no message of a partition that it has let go.
        let Some(mut progress) = self.partitions.get_mut(&key) else { return self.is_full() };
        if progress.leaves(offset) {
            return self.is_full();
        }
        let from = match progress.read(offset) {
            Ok(from) => from,
            Err(_) => {
                self.rewound(key);
                let Some(anew) = self.partitions.get_mut(&key) else { return self.is_full() };
                progress = anew;
                // A new one has nothing to be before.
                progress.read(offset).unwrap_or(offset)
            }
        };
        let epoch = progress.epoch;
        let place = Place { key, epoch, from, number: self.next_number };
        self.next_number += 1;
        self.filling.push(record, place, event_bytes);
        self.condition.read(key);
        self.is_full()
    }

    /// Partitions have come, with what is new to say about them.
    pub fn assign<'n>(&mut self, list: impl Iterator<Item = (&'n str, i32)>) -> Vec<Key> {
        self.epoch += 1;
        let epoch = self.epoch;
        let mut keys = Vec::new();
        for (topic, partition) in list {
            let key = (self.topic(topic), partition);
            self.partitions.insert(key, Progress::new(epoch));
            self.condition.found(topic);
            keys.push(key);
        }
        self.condition.joined();
        // The group's coordinator is a broker.
        self.condition.answered();
        keys
    }

    /// Partitions are another member's by now, and what was read of them with them.
    pub fn let_go(&mut self, keys: &[Key]) {
        for key in keys {
            self.partitions.remove(key);
            self.condition.gone(*key);
        }
        self.forget_lost();
    }

    /// The offset that is `due` of each partition; from here on it counts as said.
    pub fn say(&mut self, of: impl Fn(Key, &str) -> bool, due: impl Fn(&Progress) -> Option<i64>) -> Vec<(Key, i64)> {
        let State { partitions, topics: names, .. } = self;
        partitions
            .iter_mut()
            .filter(|(key, _)| of(**key, names.get(key.0).map_or("", |name| name)))
            .filter_map(|(key, progress)| {
                let offset = due(progress)?;
                progress.commits(offset);
                Some((*key, offset))
            })
            .collect()
    }

    /// The log of a partition begins again.
    fn rewound(&mut self, key: Key) {
        let (topic, partition) = (self.name(key), key.1);
        tracing::warn!(topic, partition, "the partition begins again before what was read; it is read from there");
        self.epoch += 1;
        if let Some(progress) = self.partitions.get_mut(&key) {
            *progress = progress.anew(self.epoch);
        }
    }

    /// The partition is to be read from its beginning. What was read of it is handed on, but it can't be committed any more.
    pub fn start_over(&mut self, key: Key) {
        self.epoch += 1;
        if let Some(progress) = self.partitions.get_mut(&key) {
            *progress = progress.over(self.epoch);
        }
    }

    /// All messages before `end` were given.
    pub fn reached(&mut self, key: Key, end: i64) {
        let Some(progress) = self.partitions.get_mut(&key) else { return };
        if progress.reached(end).is_err() {
            self.rewound(key);
            if let Some(progress) = self.partitions.get_mut(&key) {
                // A new one has nothing to be before.
                let _ = progress.reached(end);
            }
        }
    }

    /// Drops what waits and belongs to nobody here any more: its new owner reads it.
    pub fn forget_lost(&mut self) {
        let partitions = &self.partitions;
        let is_ours = |key: Key, epoch: u64| partitions.get(&key).is_some_and(|progress| epoch >= progress.since);
        self.filling.retain(is_ours);
        self.again.iter_mut().for_each(|kept| kept.retain(is_ours));
        self.again.retain(|kept| !kept.is_empty());
    }

    /// A batch is durable: the offsets of partitions that are still ours move on.
    pub fn settle(&mut self, kept: &Kept) {
        for stretch in kept.stretches() {
            if let Some(progress) = self.partitions.get_mut(&stretch.key).filter(|p| p.epoch == stretch.epoch) {
                progress.settle(stretch.from, stretch.to);
            }
        }
    }

    pub fn take_out(&mut self, batch: u64) -> Option<Kept> {
        let at = self.out.iter().position(|(number, _)| *number == batch)?;
        self.out.remove(at).map(|(_, kept)| kept)
    }

    /// Puts back what was refused: before all that was read after it, since several batches may be out or back.
    pub fn refused(&mut self, kept: Kept) {
        let at = self.again.partition_point(|other| other.number() < kept.number());
        self.again.insert(at, kept);
    }

    /// To be called when partitions have come or gone: without any, this consumer has nothing to do after `empty_for`.
    pub fn note_empty(&mut self, empty_for: Duration) {
        match self.partitions.is_empty() {
            true => drop(self.idle_at.get_or_insert_with(|| std::time::Instant::now() + empty_for)),
            false => self.idle_at = None,
        }
    }

    /// All partitions were given back, to be shared out anew.
    pub fn wait_for_assignment(&mut self) {
        self.idle_at = None;
    }

    /// Whether a run that goes no further than the ends at its start is done: this consumer's partitions are. Others are
    /// other consumers' work.
    pub fn is_at_end(&self) -> bool {
        self.is_at_end_but(|_| false)
    }

    /// Whether the group knows of all of that.
    pub fn is_heard(&self) -> bool {
        self.partitions.values().all(Progress::is_heard)
    }

    /// Whether it is done with all that can be read, but some can't.
    pub fn is_stuck(&self) -> bool {
        self.condition.is_unreadable() && self.is_at_end_but(|key| self.condition.cant_read(key))
    }

    fn is_at_end_but(&self, is_left_out: impl Fn(Key) -> bool) -> bool {
        let is_idle = self.idle_at.is_some_and(|at| std::time::Instant::now() >= at);
        self.joined
            && (is_idle || !self.partitions.is_empty())
            && self.filling.is_empty()
            && self.again.is_empty()
            && self.out.is_empty()
            && self.partitions.iter().all(|(key, progress)| progress.is_at_end() || is_left_out(*key))
    }
}
