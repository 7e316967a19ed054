//! Messages as they were read, packed: a few large buffers for thousands of messages, since the thread that reads them
//! has a microsecond for each, and since a batch must be kept until it is settled.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::model::{DEAD_LETTER_BYTES, RefusedReason, Time};
use crate::source::{Message, Room, TRUNCATED, UNREADABLE};

/// A partition: place of the topic's name in [`super::shared::State`]'s list, and the partition's number.
pub(super) type Key = (usize, i32);

/// A message as it is read; it lives no longer than that.
pub(super) trait Record {
    fn topic(&self) -> &[u8];
    fn partition(&self) -> i32;
    fn offset(&self) -> i64;
    /// `None`: null.
    fn payload(&self) -> Option<&[u8]>;
    /// Milliseconds since 1970: when it was produced, or appended, as the topic has it.
    fn time_ms(&self) -> Option<i64>;
    /// Values may be null.
    fn headers(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)>;
}

/// What a batch is made of, or will be.
#[derive(Debug, Default)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    headers: Vec<(Range<usize>, Range<usize>)>,
    entries: Vec<Entry>,
    /// Those before it were given out already.
    first: usize,
    /// Of bodies and headers of what is left.
    size: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    key: Key,
    epoch: u64,
    number: u64,
    /// Where its span begins, see [`super::offsets`].
    from: i64,
    offset: i64,
    time_ms: Option<i64>,
    body: Range<usize>,
    headers: Range<usize>,
    /// What makes it a dead letter before anybody reads it. Rare.
    fault: Option<Box<Fault>>,
}

#[derive(Clone, Debug)]
enum Fault {
    TooLong { bytes: u64, sha256: [u8; 32] },
    Headers { reason: RefusedReason, what: String },
}

/// What was read without one missing, of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub key: Key,
    pub epoch: u64,
    pub from: i64,
    pub to: i64,
}

/// Where a message stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub key: Key,
    pub epoch: u64,
    pub from: i64,
    /// Counts what was read, over all partitions.
    pub number: u64,
}

/// The headers that mean something: all others are left out, so none of them can pass for one of ours.
fn means_something(name: &[u8]) -> bool {
    let begins = |with: &[u8]| name.get(..with.len()).is_some_and(|head| head.eq_ignore_ascii_case(with));
    begins(b"ce_")
        || begins(b"ce-")
        || [&b"content-type"[..], b"message-id", b"idempotency-key"].iter().any(|n| name.eq_ignore_ascii_case(n))
}

/// CloudEvents has eight attributes, and an extension is not there to carry data: a message with more is no event, and
/// looking through all of them would hold up its partition.
const HEADERS_MAX: usize = 100;
const HEADERS_MAX_BYTES: usize = 64 * 1024;

impl Kept {
    pub fn len(&self) -> usize {
        self.entries.len() - self.first
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Of its first message; those of other batches are all lower, or all higher.
    pub fn number(&self) -> u64 {
        self.entries.get(self.first).map_or(0, |entry| entry.number)
    }

    /// Whether a message more would be more than there is room for. There is always room for one.
    pub fn fills(&self, room: Room) -> bool {
        !self.is_empty() && (self.len() >= room.messages || self.size >= room.bytes)
    }

    /// Above `event_bytes` only the beginning is kept, with length and hash of the whole.
    pub fn push(&mut self, record: &impl Record, place: Place, event_bytes: usize) {
        let mut fault = None;
        let headers = self.headers.len();
        let from = self.bytes.len();
        // A null value is a tombstone whatever its headers say, so it has none (CloudEvents Kafka binding, 3.2).
        if record.payload().is_some() {
            fault = self.push_headers(record, headers);
        }
        let payload = record.payload().unwrap_or_default();
        let start = self.bytes.len();
        if payload.len() > event_bytes {
            self.bytes.extend_from_slice(&payload[..payload.len().min(DEAD_LETTER_BYTES)]);
            fault = Some(Fault::TooLong { bytes: payload.len() as u64, sha256: Sha256::digest(payload).into() });
        } else {
            self.bytes.extend_from_slice(payload);
        }
        self.size += self.bytes.len() - from;
        self.entries.push(Entry {
            key: place.key,
            epoch: place.epoch,
            number: place.number,
            from: place.from,
            offset: record.offset(),
            time_ms: record.time_ms(),
            body: start..self.bytes.len(),
            headers: headers..self.headers.len(),
            fault: fault.map(Box::new),
        });
    }

    /// Headers of the message whose first one is at `first`. A header that stands there twice with different values, or
    /// whose value is no UTF-8, is left out, and the message is refused: nobody can tell which was meant.
    fn push_headers(&mut self, record: &impl Record, first: usize) -> Option<Fault> {
        let mut fault = None;
        let mut bytes = 0;
        for (name, value) in record.headers() {
            // A null value is an attribute that is not set.
            let Some(value) = value.filter(|_| means_something(name)) else { continue };
            bytes += name.len() + value.len();
            if self.headers.len() - first >= HEADERS_MAX || bytes > HEADERS_MAX_BYTES {
                // The first ones stay with the refused message: they say whose it is.
                let what =
                    format!("more than {HEADERS_MAX} attributes in headers, or {HEADERS_MAX_BYTES} bytes of them");
                return Some(Fault::Headers { reason: RefusedReason::TooLarge, what });
            }
            // Checked above to begin with ASCII; a name of another kind can't be looked up, so it says nothing.
            let Ok(name_text) = std::str::from_utf8(name) else { continue };
            if std::str::from_utf8(value).is_err() {
                let what = format!("the value of header {} is not UTF-8", shown(name_text));
                fault.get_or_insert(Fault::Headers { reason: RefusedReason::NotUtf8, what });
                continue;
            }
            let twin = self.headers[first..].iter().position(|(n, _)| self.bytes[n.clone()].eq_ignore_ascii_case(name));
            if let Some(twin) = twin {
                let at = first + twin;
                if self.bytes[self.headers[at].1.clone()] != *value {
                    let what = format!("header {} stands there twice, with different values", shown(name_text));
                    fault.get_or_insert(Fault::Headers { reason: RefusedReason::UnknownFormat, what });
                    self.headers.remove(at);
                }
                continue;
            }
            let at = self.bytes.len();
            self.bytes.extend(name.iter().map(u8::to_ascii_lowercase));
            let middle = self.bytes.len();
            self.bytes.extend_from_slice(value);
            self.headers.push((at..middle, middle..self.bytes.len()));
        }
        fault
    }

    /// As many as there is room for, from the front; at least one, since one above the room must go as well.
    pub fn take(&mut self, room: Room) -> Kept {
        let (mut count, mut size) = (0, 0);
        for entry in &self.entries[self.first..] {
            let more = size + self.size_of(entry);
            if count > 0 && (count >= room.messages || more > room.bytes) {
                break;
            }
            (count, size) = (count + 1, more);
        }
        let middle = self.first + count;
        if self.len() - count > count {
            // The larger part stays where it is.
            let taken = self.part(self.first..middle);
            (self.first, self.size) = (middle, self.size - size);
            return taken;
        }
        let rest = self.part(middle..self.entries.len());
        self.entries.truncate(middle);
        self.size = size;
        let mut taken = std::mem::replace(self, rest);
        // Batches follow each other that are alike: the next is not copied as it grows ...
        self.bytes.reserve_exact(room_beside(taken.bytes.len(), self.bytes.len()));
        self.headers.reserve_exact(room_beside(taken.headers.len(), self.headers.len()));
        self.entries.reserve_exact(room_beside(taken.entries.len(), self.entries.len()));
        // ... and this one, which is kept until it is settled, holds no room that it does not need.
        taken.bytes.shrink_to_fit();
        taken.headers.shrink_to_fit();
        taken.entries.shrink_to_fit();
        taken
    }

    /// A copy of some of the messages, with buffers of its own.
    fn part(&self, range: Range<usize>) -> Kept {
        let mut part = Kept::default();
        for entry in &self.entries[range] {
            let first = part.headers.len();
            for (name, value) in &self.headers[entry.headers.clone()] {
                let (name, value) = (part.copy(&self.bytes[name.clone()]), part.copy(&self.bytes[value.clone()]));
                part.headers.push((name, value));
            }
            let body = part.copy(&self.bytes[entry.body.clone()]);
            let headers = first..part.headers.len();
            part.size += self.size_of(entry);
            part.entries.push(Entry { body, headers, ..entry.clone() });
        }
        part
    }

    fn copy(&mut self, bytes: &[u8]) -> Range<usize> {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        at..self.bytes.len()
    }

    fn size_of(&self, entry: &Entry) -> usize {
        let headers = self.headers[entry.headers.clone()].iter().map(|(name, value)| name.len() + value.len());
        entry.body.len() + headers.sum::<usize>()
    }

    /// Forgets the messages of partitions that are no longer this consumer's.
    pub fn retain(&mut self, is_ours: impl Fn(Key, u64) -> bool) {
        self.entries.drain(..self.first);
        self.first = 0;
        self.entries.retain(|entry| is_ours(entry.key, entry.epoch));
        self.size = self.entries.iter().map(|entry| self.size_of(entry)).sum();
        if self.entries.is_empty() {
            *self = Kept::default();
        }
    }

    /// What it settles, once it is durable.
    pub fn stretches(&self) -> Vec<Stretch> {
        let mut all: Vec<Stretch> = Vec::new();
        // Messages of one partition mostly follow each other; partitions are few.
        let mut last = 0;
        for entry in &self.entries[self.first..] {
            let goes_on = |s: &Stretch| s.key == entry.key && s.epoch == entry.epoch && s.to == entry.from;
            if !all.get(last).is_some_and(goes_on) {
                last = all.iter().position(goes_on).unwrap_or(all.len());
            }
            match all.get_mut(last) {
                Some(stretch) => stretch.to = entry.offset + 1,
                None => {
                    all.push(Stretch { key: entry.key, epoch: entry.epoch, from: entry.from, to: entry.offset + 1 })
                }
            }
        }
        all
    }

    /// `topics`: the names that keys point to.
    pub fn messages(&self, topics: &[Arc<str>]) -> Vec<Message> {
        self.entries[self.first..].iter().map(|entry| self.message(entry, topics)).collect()
    }

    fn message(&self, entry: &Entry, topics: &[Arc<str>]) -> Message {
        let (topic, partition, offset) = (topics.get(entry.key.0).map_or("", |name| name), entry.key.1, entry.offset);
        let mut headers = Vec::with_capacity(entry.headers.len() + usize::from(entry.fault.is_some()));
        headers.extend(self.headers[entry.headers.clone()].iter().map(|(n, v)| (self.text(n), self.text(v))));
        match entry.fault.as_deref() {
            Some(Fault::TooLong { bytes, sha256 }) => {
                let mut value = format!("{bytes};");
                for byte in sha256 {
                    // Writing to a String can't fail.
                    let _ = write!(value, "{byte:02x}");
                }
                headers.push((TRUNCATED.to_owned(), value));
            }
            Some(Fault::Headers { reason, what }) => {
                headers.push((UNREADABLE.to_owned(), format!("{};{what}", reason.as_str())));
            }
            None => {}
        }
        let mut broker_id = String::with_capacity(topic.len() + 24);
        // Writing to a String can't fail.
        let _ = write!(broker_id, "{topic}/{partition}/{offset}");
        let mut position = String::with_capacity(topic.len() + 48);
        let _ = write!(position, "topic {topic} partition {partition} offset {offset}");
        Message {
            position,
            broker_id: Some(broker_id),
            headers,
            body: self.bytes[entry.body.clone()].to_vec(),
            time: entry.time_ms.map(|ms| Time(ms.saturating_mul(1_000))),
        }
    }

    /// Checked to be UTF-8 when it was read.
    fn text(&self, range: &Range<usize>) -> String {
        String::from_utf8_lossy(&self.bytes[range.clone()]).into_owned()
    }
}

/// What a buffer that holds `now` needs to hold what the last one held, and an eighth more.
fn room_beside(last: usize, now: usize) -> usize {
    (last + last / 8).saturating_sub(now)
}

/// Names come from outside: one is only repeated if it is short and plain.
fn shown(name: &str) -> &str {
    let plain = name.len() <= 40 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if plain { name } else { "ce_…" }
}
