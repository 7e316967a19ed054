//! What was received and is not yet deleted or given back: pure bookkeeping, told the time by its caller.
//!
//! A message is *ready* (received, or refused and to be given out again), *out* (in a batch of the loop) or *doomed* (its
//! batch is committed, it is to be deleted). In all three it stays hidden from other receivers.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::source::{Message, Room};

/// Messages held at most. Eight receivers bring some thousand a second, and a commit on a slow disk takes a second; SQS
/// itself lets 120,000 be in flight for all workers of a queue together.
pub const MESSAGES_MAX: usize = 5_000;
/// Bytes of their bodies, about: one call is let through while less is held, and brings no more than is expected of it.
pub const BYTES_MAX: usize = 24 * 1024 * 1024;
/// Messages that one call brings at most (SQS, `ReceiveMessage`).
pub const CALL_MESSAGES: usize = 10;
/// How long a message that was received for the first time is kept hidden while the store is away. Each further receive
/// halves it, down to the queue's own visibility timeout: what comes again and again is left to the queue's redrive policy.
pub const HOLD_MAX: Duration = Duration::from_secs(3_600);

/// A message as it was received.
#[derive(Debug)]
pub struct Taken {
    pub message: Message,
    pub receipt: String,
    /// Of a FIFO queue.
    pub group: Option<String>,
    /// `ApproximateReceiveCount`, from 1.
    pub count: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Ready,
    Out,
    Doomed,
}

#[derive(Debug)]
struct Entry {
    message: Message,
    bytes: usize,
    receipt: String,
    group: Option<String>,
    place: Place,
    /// Others get it from then on.
    hidden_until: Instant,
    extend_at: Instant,
    /// Not extended any more from then on.
    hold_until: Instant,
}

/// What a receiver may bring; to be handed back with what it brought.
#[derive(Debug)]
#[must_use]
pub struct Reserved {
    bytes: usize,
}

#[derive(Debug, Default)]
pub struct Held {
    entries: HashMap<u64, Entry>,
    /// In the order they came, with the moment before which a refused one is not given out again.
    ready: BTreeMap<u64, Option<Instant>>,
    doomed: BTreeSet<u64>,
    /// Of FIFO queues: what is held of each group, in order.
    groups: HashMap<String, BTreeSet<u64>>,
    /// Groups of which messages are in a call that deletes.
    busy: HashSet<String>,
    next: u64,
    bytes: usize,
    reserved: usize,
    reserved_bytes: usize,
    /// The largest body of late: what is expected of a call is ten of them.
    largest: usize,
}

/// How long a message that was received so often may be held.
pub fn hold_for(count: u32, visibility: Duration) -> Duration {
    let halved = HOLD_MAX.checked_div(1u32.checked_shl(count.saturating_sub(1)).unwrap_or(u32::MAX));
    halved.unwrap_or_default().max(visibility)
}

impl Held {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether something waits here to be given out, or back.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// `None`: there is no room for what a call may bring. An empty buffer has always room for one.
    pub fn reserve(&mut self) -> Option<Reserved> {
        let bytes = self.largest.saturating_mul(CALL_MESSAGES);
        let is_empty = self.entries.is_empty() && self.reserved == 0;
        let fits = self.entries.len() + self.reserved + CALL_MESSAGES <= MESSAGES_MAX
            && self.bytes + self.reserved_bytes + bytes <= BYTES_MAX;
        if !fits && !is_empty {
            return None;
        }
        self.reserved += CALL_MESSAGES;
        self.reserved_bytes += bytes;
        Some(Reserved { bytes })
    }

    /// The end of a call, whatever came of it.
    pub fn add(&mut self, now: Instant, reserved: &Reserved, taken: Vec<Taken>, visibility: Duration) {
        self.reserved = self.reserved.saturating_sub(CALL_MESSAGES);
        self.reserved_bytes = self.reserved_bytes.saturating_sub(reserved.bytes);
        if let Some(largest) = taken.iter().map(|t| t.message.body.len()).max() {
            self.largest = largest.max(self.largest - self.largest / 8);
        }
        for Taken { message, receipt, group, count } in taken {
            let key = self.next;
            self.next += 1;
            if let Some(group) = &group {
                self.groups.entry(group.clone()).or_default().insert(key);
            }
            let bytes = message.body.len();
            self.bytes += bytes;
            self.ready.insert(key, None);
            let entry = Entry {
                message,
                bytes,
                receipt,
                group,
                place: Place::Ready,
                hidden_until: now + visibility,
                extend_at: now + visibility / 3,
                hold_until: now + hold_for(count, visibility),
            };
            self.entries.insert(key, entry);
        }
    }

    /// As many as there is room for, in their order; at least one, since a message above the room must go as well. Of a
    /// group, nothing passes a message that waits.
    pub fn give(&mut self, now: Instant, room: Room) -> Option<(Vec<u64>, Vec<Message>)> {
        let (mut keys, mut bytes) = (Vec::new(), 0usize);
        let mut blocked: HashSet<&str> = HashSet::new();
        for (key, not_before) in &self.ready {
            let Some(entry) = self.entries.get(key) else { continue };
            let group = entry.group.as_deref();
            if not_before.is_some_and(|at| at > now) || group.is_some_and(|g| blocked.contains(g)) {
                blocked.extend(group);
                continue;
            }
            bytes = bytes.saturating_add(entry.bytes);
            if !keys.is_empty() && (keys.len() >= room.messages || bytes > room.bytes) {
                break;
            }
            keys.push(*key);
        }
        let mut messages = Vec::with_capacity(keys.len());
        for key in &keys {
            self.ready.remove(key);
            if let Some(entry) = self.entries.get_mut(key) {
                entry.place = Place::Out;
                // Kept, since it is given out again if the store is away.
                messages.push(entry.message.clone());
            }
        }
        (!keys.is_empty()).then_some((keys, messages))
    }

    /// When the first refused message may be given out again.
    pub fn next_due(&self) -> Option<Instant> {
        self.ready.values().filter_map(|at| *at).min()
    }

    /// They are committed.
    pub fn doom(&mut self, keys: &[u64]) {
        for key in keys {
            let Some(entry) = self.entries.get_mut(key) else { continue };
            entry.place = Place::Doomed;
            // Nobody needs its text any more.
            self.bytes = self.bytes.saturating_sub(std::mem::take(&mut entry.bytes));
            entry.message.body = Vec::new();
            entry.message.headers = Vec::new();
            self.doomed.insert(*key);
        }
    }

    /// They are given out again, but not before `at`; those that others get by now are forgotten. How many that were.
    pub fn refuse(&mut self, now: Instant, keys: &[u64], at: Instant) -> usize {
        let mut over = 0;
        for key in keys {
            match self.entries.get_mut(key) {
                Some(entry) if entry.hidden_until > now => {
                    entry.place = Place::Ready;
                    self.ready.insert(*key, Some(at));
                }
                Some(_) => {
                    self.forget(*key);
                    over += 1;
                }
                None => {}
            }
        }
        over
    }

    /// What to delete in one call, in order: (key, receipt). Of a group only what nothing earlier is held of, and in one
    /// call at a time. They stay held until [`Held::forget`] or [`Held::delete_again`].
    pub fn to_delete(&mut self, most: usize) -> Vec<(u64, String)> {
        let mut chosen = Vec::new();
        let mut of_group: HashMap<String, usize> = HashMap::new();
        for key in &self.doomed {
            if chosen.len() == most {
                break;
            }
            let Some(entry) = self.entries.get(key) else { continue };
            if let Some(group) = &entry.group {
                let before = of_group.get(group).copied().unwrap_or(0);
                let is_next = self.groups.get(group).and_then(|keys| keys.iter().nth(before)) == Some(key);
                if self.busy.contains(group) || !is_next {
                    continue;
                }
                of_group.insert(group.clone(), before + 1);
            }
            chosen.push((*key, entry.receipt.clone()));
        }
        chosen.iter().for_each(|(key, _)| {
            self.doomed.remove(key);
        });
        self.busy.extend(of_group.into_keys());
        chosen
    }

    /// Whether [`Held::to_delete`] would give anything.
    pub fn has_to_delete(&self) -> bool {
        self.doomed.iter().any(|key| match self.entries.get(key).and_then(|e| e.group.as_ref()) {
            Some(group) => !self.busy.contains(group) && self.groups.get(group).and_then(BTreeSet::first) == Some(key),
            None => true,
        })
    }

    /// A call that deletes is over: these of its keys are to be tried again. Their groups are free for the next.
    pub fn delete_again(&mut self, keys: &[u64]) {
        for key in keys {
            if let Some(group) = self.entries.get(key).and_then(|e| e.group.as_ref()) {
                self.busy.remove(group);
            }
            if self.entries.contains_key(key) {
                self.doomed.insert(*key);
            }
        }
    }

    /// Deleted, given back, or lost to another receiver.
    pub fn forget(&mut self, key: u64) {
        self.ready.remove(&key);
        self.doomed.remove(&key);
        let Some(entry) = self.entries.remove(&key) else { return };
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        if let Some(group) = entry.group
            && let Some(keys) = self.groups.get_mut(&group)
        {
            keys.remove(&key);
            if entry.place == Place::Doomed {
                self.busy.remove(&group);
            }
            if keys.is_empty() {
                self.groups.remove(&group);
            }
        }
    }

    /// What is to be hidden for longer now: (key, receipt).
    pub fn to_extend(&self, now: Instant) -> Vec<(u64, String)> {
        let due = |e: &Entry| e.extend_at <= now && now < e.hold_until && now < e.hidden_until;
        let mut due: Vec<_> =
            self.entries.iter().filter(|(_, e)| due(e)).map(|(key, e)| (*key, e.receipt.clone())).collect();
        due.sort_unstable_by_key(|(key, _)| *key);
        due
    }

    pub fn extended(&mut self, key: u64, now: Instant, visibility: Duration) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.hidden_until = now + visibility;
            entry.extend_at = now + visibility / 3;
        }
    }

    /// It is another receiver's by now.
    pub fn lost(&mut self, key: u64, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.hidden_until = now;
        }
    }

    /// Forgets what waits here and is not hidden any more: it comes again. What came behind it in its group goes back too,
    /// or it would overtake: (key, receipt).
    pub fn expire(&mut self, now: Instant) -> (usize, Vec<(u64, String)>) {
        let over: Vec<u64> = self
            .ready
            .keys()
            .filter(|key| self.entries.get(key).is_some_and(|e| e.hidden_until <= now))
            .copied()
            .collect();
        let mut behind = BTreeSet::new();
        for key in &over {
            let group = self.entries.get(key).and_then(|e| e.group.as_ref()).and_then(|g| self.groups.get(g));
            behind.extend(group.into_iter().flat_map(|keys| keys.range(key + 1..)).copied());
        }
        for key in &over {
            self.forget(*key);
        }
        let back = behind.into_iter().filter(|key| self.ready.contains_key(key));
        let back: Vec<_> = back.filter_map(|key| Some((key, self.entries.get(&key)?.receipt.clone()))).collect();
        back.iter().for_each(|(key, _)| self.forget(*key));
        (over.len(), back)
    }

    /// All that waits here, to be given back: (key, receipt). Forgotten with this.
    pub fn take_ready(&mut self) -> Vec<(u64, String)> {
        let keys: Vec<u64> = self.ready.keys().copied().collect();
        let taken = keys.iter().filter_map(|key| Some((*key, self.entries.get(key)?.receipt.clone()))).collect();
        keys.into_iter().for_each(|key| self.forget(key));
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VISIBLE: Duration = Duration::from_secs(30);
    const ROOMY: Room = Room { messages: 100, bytes: 1_000_000 };

    fn taken(n: usize, group: Option<&str>, bytes: usize) -> Taken {
        let message = Message {
            position: format!("queue q message {n}"),
            broker_id: Some(n.to_string()),
            headers: Vec::new(),
            body: vec![b'x'; bytes],
            time: None,
        };
        Taken { message, receipt: format!("r{n}"), group: group.map(str::to_owned), count: 1 }
    }

    fn held(now: Instant, groups: &[Option<&str>]) -> Held {
        let mut held = Held::default();
        let reserved = held.reserve().unwrap();
        let taken = groups.iter().enumerate().map(|(n, group)| taken(n, *group, 10)).collect();
        held.add(now, &reserved, taken, VISIBLE);
        held
    }

    fn keys(of: &[(u64, String)]) -> Vec<u64> {
        of.iter().map(|(key, _)| *key).collect()
    }

    #[test]
    fn what_is_held_is_bounded_in_messages_and_in_bytes() {
        let now = Instant::now();
        let mut held = Held::default();
        let mut calls = 0;
        while let Some(reserved) = held.reserve() {
            held.add(now, &reserved, (0..10).map(|n| taken(n, None, 10)).collect(), VISIBLE);
            calls += 1;
        }
        assert_eq!(calls, MESSAGES_MAX / CALL_MESSAGES);
        let mut held = Held::default();
        let mut calls = 0;
        while let Some(reserved) = held.reserve() {
            held.add(now, &reserved, (0..10).map(|n| taken(n, None, 1024 * 1024)).collect(), VISIBLE);
            calls += 1;
        }
        assert_eq!(calls, 2, "20 MiB are held, and another 10 are expected of the next call");
        let all = held.give(now, Room { messages: 100, bytes: usize::MAX }).unwrap().0;
        held.doom(&all);
        assert!(held.reserve().is_some(), "what is committed takes no memory");
    }

    #[test]
    fn calls_under_way_count_as_what_they_may_bring() {
        let mut held = Held::default();
        let under_way: Vec<Reserved> = std::iter::from_fn(|| held.reserve()).collect();
        assert_eq!(under_way.len(), MESSAGES_MAX / CALL_MESSAGES);
        held.add(Instant::now(), &under_way[0], Vec::new(), VISIBLE);
        assert!(held.reserve().is_some());
    }

    #[test]
    fn a_refused_message_blocks_its_group_and_no_other() {
        let now = Instant::now();
        let mut held = held(now, &[Some("a"), Some("b"), Some("a"), Some("c")]);
        let (first, _) = held.give(now, Room { messages: 2, bytes: 1_000 }).unwrap();
        assert_eq!(first, [0, 1]);
        let later = now + Duration::from_secs(5);
        held.refuse(now, &first, later);
        assert_eq!(held.give(now, ROOMY).unwrap().0, [3]);
        assert!(held.give(now, ROOMY).is_none());
        assert_eq!(held.next_due(), Some(later));
        assert_eq!(held.give(later, ROOMY).unwrap().0, [0, 1, 2], "in their order");
    }

    #[test]
    fn a_group_is_deleted_in_its_order_in_one_call_at_a_time() {
        let now = Instant::now();
        let mut held = held(now, &[Some("a"), Some("a"), Some("b"), Some("a")]);
        let (all, _) = held.give(now, ROOMY).unwrap();
        // The first of a is refused: nothing behind it is deleted.
        held.doom(&all[1..]);
        held.refuse(now, &all[..1], now);
        assert_eq!(keys(&held.to_delete(10)), [2]);
        held.forget(2);
        let (first, _) = held.give(now, ROOMY).unwrap();
        held.doom(&first);
        assert_eq!(keys(&held.to_delete(2)), [0, 1]);
        assert!(held.to_delete(10).is_empty(), "3 waits for the call under way");
        held.forget(0);
        held.delete_again(&[1]);
        assert_eq!(keys(&held.to_delete(10)), [1, 3]);
        held.forget(1);
        held.forget(3);
        assert!(held.is_empty() && held.groups.is_empty() && held.busy.is_empty());
    }

    #[test]
    fn what_is_held_is_hidden_for_longer_until_its_time_is_over() {
        let now = Instant::now();
        let mut held = held(now, &[None]);
        assert!(held.to_extend(now + Duration::from_secs(9)).is_empty());
        let mut at = now + VISIBLE / 3;
        while let [(key, _)] = held.to_extend(at)[..] {
            held.extended(key, at, VISIBLE);
            at += VISIBLE / 3;
        }
        assert!(at - now >= HOLD_MAX && at - now < HOLD_MAX + VISIBLE);
        assert_eq!(held.expire(at).0, 0);
        assert_eq!(held.expire(at + VISIBLE).0, 1);
        assert!(held.is_empty());
    }

    #[test]
    fn what_came_often_is_not_held_for_longer_than_the_queue_says() {
        assert_eq!(hold_for(1, VISIBLE), HOLD_MAX);
        assert_eq!(hold_for(2, VISIBLE), HOLD_MAX / 2);
        assert_eq!(hold_for(8, VISIBLE), VISIBLE);
        assert_eq!(hold_for(4_000_000_000, VISIBLE), VISIBLE);
        assert_eq!(hold_for(0, VISIBLE), HOLD_MAX);
    }

    #[test]
    fn what_is_behind_a_lost_message_of_a_group_goes_back() {
        let now = Instant::now();
        let mut held = held(now, &[Some("a"), Some("b"), Some("a"), None]);
        held.lost(0, now);
        let (over, back) = held.expire(now);
        assert_eq!((over, keys(&back)), (1, vec![2]));
        assert_eq!(held.give(now, ROOMY).unwrap().0, [1, 3]);
    }

    #[test]
    fn a_batch_that_is_refused_when_others_have_it_is_forgotten() {
        let now = Instant::now();
        let mut held = held(now, &[None, None]);
        let (all, _) = held.give(now, ROOMY).unwrap();
        held.lost(0, now);
        assert_eq!(held.refuse(now, &all, now), 1);
        assert_eq!(held.take_ready(), [(1, "r1".to_owned())]);
        assert!(held.is_empty());
    }
}
