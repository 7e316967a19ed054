//! What was received and is not yet deleted or given back: pure bookkeeping, told the time by its caller.
//!
//! A message is *ready* (received, or refused and to be given out again), *out* (in a batch of the loop) or *doomed* (its
//! batch is committed, it is to be deleted). In all three it stays hidden from other receivers.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::groups::Groups;
use super::taken::{HIDDEN_MAX, Taken, hold_for};
use crate::source::{Message, Room};

/// Messages held at most. Eight receivers bring some thousand a second, and a commit on a slow disk takes a second; SQS
/// itself lets 120,000 be in flight for all workers of a queue together.
pub const MESSAGES_MAX: usize = 5_000;
/// Bytes of them, about: one call is let through while less is held, and brings no more than is expected of it.
pub const BYTES_MAX: usize = 24 * 1024 * 1024;
/// Messages that one call brings at most (SQS, `ReceiveMessage`).
pub const CALL_MESSAGES: usize = 10;
/// All that is held must be hidden for longer within a third of the visibility timeout, and as long again is left for what
/// fails: eight calls of ten messages at a time, with 100 ms each (SQS of another region; nearby it is 10).
const HIDDEN_IN_100_MS: usize = 80;
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
    /// Not extended any more from then on, unless it is committed.
    hold_until: Instant,
    /// SQS itself hides it no longer than that.
    end: Instant,
    /// Its queue was gone meanwhile: nobody else may have it.
    is_orphan: bool,
}

/// What a receiver may bring; to be handed back with what it brought.
#[derive(Debug)]
#[must_use]
pub struct Reserved {
    bytes: usize,
    /// Nothing was held when the call began: an answer without messages says that nothing waits. Else those that are held
    /// may hide others (of their FIFO groups), or may themselves come again.
    pub was_empty: bool,
}

#[derive(Debug, Default)]
pub struct Held {
    entries: HashMap<u64, Entry>,
    /// In the order they came, with the moment before which a refused one is not given out again.
    ready: BTreeMap<u64, Option<Instant>>,
    doomed: BTreeSet<u64>,
    groups: Groups,
    /// The last word on a batch was that the store is away.
    store_is_away: bool,
    next: u64,
    bytes: usize,
    reserved: usize,
    reserved_bytes: usize,
    /// The largest body of late: what is expected of a call is ten of them.
    largest: usize,
}

/// Messages held at most, of a queue that hides them for so long.
fn messages_max(visibility: Duration) -> usize {
    let rounds = usize::try_from(visibility.as_millis() / 300).unwrap_or(usize::MAX);
    rounds.saturating_mul(HIDDEN_IN_100_MS).min(MESSAGES_MAX)
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

    /// `None`: there is no room for what a call may bring. An empty buffer has always room for one; so it has while the
    /// store is away, and then for no more: each message that is received only to wait comes nearer to the queue's
    /// dead-letter queue.
    pub fn reserve(&mut self, visibility: Duration) -> Option<Reserved> {
        let bytes = self.largest.saturating_mul(CALL_MESSAGES);
        let is_empty = self.entries.is_empty() && self.reserved == 0;
        let fits = !self.store_is_away
            && self.entries.len() + self.reserved + CALL_MESSAGES <= messages_max(visibility)
            && self.bytes + self.reserved_bytes + bytes <= BYTES_MAX;
        if !fits && !is_empty {
            return None;
        }
        self.reserved += CALL_MESSAGES;
        self.reserved_bytes += bytes;
        Some(Reserved { bytes, was_empty: self.entries.is_empty() })
    }

    /// The end of a call, whatever came of it.
    pub fn add(&mut self, now: Instant, reserved: &Reserved, taken: Vec<Taken>, visibility: Duration) {
        self.reserved = self.reserved.saturating_sub(CALL_MESSAGES);
        self.reserved_bytes = self.reserved_bytes.saturating_sub(reserved.bytes);
        if let Some(largest) = taken.iter().map(Taken::bytes).max() {
            self.largest = largest.max(self.largest - self.largest / 8);
        }
        for one in taken {
            let key = self.next;
            self.next += 1;
            let bytes = one.bytes();
            let Taken { message, receipt, group, count } = one;
            if let Some(group) = &group {
                self.groups.add(group, key);
            }
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
                end: now + HIDDEN_MAX,
                is_orphan: false,
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

    /// When the first refused message may be given out again. Of a group that is the first one's time: another's may be
    /// over, and it waits all the same.
    pub fn next_due(&self) -> Option<Instant> {
        let mut groups: HashSet<&str> = HashSet::new();
        let mut is_first = |key: &u64| match self.entries.get(key).and_then(|entry| entry.group.as_deref()) {
            Some(group) => groups.insert(group),
            None => true,
        };
        self.ready.iter().filter(|(key, _)| is_first(key)).filter_map(|(_, at)| *at).min()
    }

    /// They are committed.
    pub fn doom(&mut self, keys: &[u64]) {
        self.store_is_away = false;
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

    /// The store is away: they are given out again, but not before `at`. Those that others may get by now stay in their
    /// places until [`Held::expire`], so that nothing of their groups overtakes them.
    pub fn refuse(&mut self, keys: &[u64], at: Instant) {
        self.store_is_away = true;
        for key in keys {
            if let Some(entry) = self.entries.get_mut(key) {
                entry.place = Place::Ready;
                self.ready.insert(*key, Some(at));
            }
        }
    }

    /// The queue is gone: whether it comes back with what is held, nobody knows. So nothing of it is left to the queue.
    pub fn orphan(&mut self) {
        self.entries.values_mut().for_each(|entry| entry.is_orphan = true);
    }

    /// What to delete in one call, in order: (key, receipt). Of a group only what nothing earlier is held of, and in one
    /// call at a time. They stay held until [`Held::forget`] or [`Held::delete_again`].
    pub fn begin_deletes(&mut self, most: usize) -> Vec<(u64, String)> {
        let mut chosen = Vec::new();
        let mut of_group: HashMap<String, usize> = HashMap::new();
        for key in &self.doomed {
            if chosen.len() == most {
                break;
            }
            let Some(entry) = self.entries.get(key) else { continue };
            if let Some(group) = &entry.group {
                let before = of_group.get(group).copied().unwrap_or(0);
                if !self.groups.is_next(group, *key, before) {
                    continue;
                }
                of_group.insert(group.clone(), before + 1);
            }
            chosen.push((*key, entry.receipt.clone()));
        }
        chosen.iter().for_each(|(key, _)| {
            self.doomed.remove(key);
        });
        self.groups.begin(of_group.into_keys());
        chosen
    }

    /// Whether [`Held::begin_deletes`] would give anything.
    pub fn has_to_delete(&self) -> bool {
        self.doomed.iter().any(|key| match self.entries.get(key).and_then(|e| e.group.as_ref()) {
            Some(group) => self.groups.is_next(group, *key, 0),
            None => true,
        })
    }

    /// A call that deletes is over: these of its keys are to be tried again. Their groups are free for the next.
    pub fn delete_again(&mut self, keys: &[u64]) {
        for key in keys {
            if let Some(group) = self.entries.get(key).and_then(|e| e.group.as_ref()) {
                self.groups.end(group);
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
        if let Some(group) = entry.group {
            self.groups.remove(&group, key);
            if entry.place == Place::Doomed {
                self.groups.end(&group);
            }
        }
    }

    /// What is to be hidden for longer now, for so long: (key, receipt), those with the least time left first. What is
    /// committed, as long as SQS lets us.
    pub fn to_extend(&self, now: Instant, visibility: Duration, most: usize) -> Vec<(u64, String)> {
        let due = |e: &Entry| {
            let may_be_held = now < e.hold_until || e.place == Place::Doomed;
            e.extend_at <= now && may_be_held && now < e.hidden_until && now + visibility <= e.end
        };
        let mut due: Vec<(Instant, u64, &str)> =
            self.entries.iter().filter(|(_, e)| due(e)).map(|(key, e)| (e.hidden_until, *key, &*e.receipt)).collect();
        due.sort_unstable();
        due.into_iter().take(most).map(|(_, key, receipt)| (key, receipt.to_owned())).collect()
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
            .filter(|key| self.entries.get(key).is_some_and(|e| e.hidden_until <= now && !e.is_orphan))
            .copied()
            .collect();
        let mut behind = BTreeSet::new();
        for key in &over {
            if let Some(group) = self.entries.get(key).and_then(|e| e.group.as_ref()) {
                behind.extend(self.groups.behind(group, *key));
            }
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
mod tests;
