//! The nouns of owlpost, shared by every part. No I/O and no clock in here.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

mod data;
mod id;
mod state;
mod time;

pub use data::{Data, Shown};
pub use id::{AttemptId, DigestId, NotAnId};
pub use state::{DigestState, ItemState, Reason};
pub use time::Time;

/// What an event does to its subject (`events.md`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Touches no subject.
    Informs,
    /// Opens the topic, or replaces what is open in it. Two openers with the same `date` are twins: one replaces the
    /// other only for the people it names. Without a date, every opener replaces all before it.
    Opens { topic: Topic, date: Option<Time> },
    /// Ends what lower ranks opened in these topics (`renewed` and `removed` have two).
    Closes { topics: Vec<Topic> },
}

/// What a subject's row stands for: 128 bits of a cryptographic hash over its length-prefixed parts, so that no
/// producer can choose a text that lands on somebody else's subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(pub [u8; 16]);

impl Topic {
    pub fn of(parts: &[&str]) -> Topic {
        Topic(hash16(b"topic", parts))
    }
}

/// 128 bits over a purpose and length-prefixed parts.
pub fn hash16(purpose: &[u8], parts: &[&str]) -> [u8; 16] {
    // In one piece where it fits, as nearly all do: a hasher that takes pieces has two kilobytes of state to set up.
    let mut whole = [0; 512];
    let length = purpose.len() + parts.iter().map(|part| size_of::<u64>() + part.len()).sum::<usize>();
    let hash = match whole.get_mut(..length) {
        Some(whole) => {
            let mut rest = &mut *whole;
            let mut put = |bytes: &[u8]| {
                let (here, after) = std::mem::take(&mut rest).split_at_mut(bytes.len());
                here.copy_from_slice(bytes);
                rest = after;
            };
            put(purpose);
            for part in parts {
                put(&(part.len() as u64).to_le_bytes());
                put(part.as_bytes());
            }
            blake3::hash(whole)
        }
        None => {
            let mut hasher = blake3::Hasher::new();
            hasher.update(purpose);
            for part in parts {
                hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
            }
            hasher.finalize()
        }
    };
    let mut out = [0; 16];
    out.copy_from_slice(&hash.as_bytes()[..16]);
    out
}

/// One access event, in the shape of CloudEvents 1.0, whatever envelope or dialect it came in.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// CloudEvents `source`, or the `origin` of the source it came from. (`source`, `id`) is the dedupe key.
    pub source: String,
    pub id: String,
    /// Set where `id` is made of the content (a `Notification` over HTTP without a key): the same text again counts as a
    /// copy for so long, and after it as somebody asking again.
    pub id_counts_for: Option<Duration>,
    /// CloudEvents `type`, for example `io.athenz.membership.requested.v1`.
    pub kind: String,
    /// `None`: the producer gave none; the ingest loop stamps it with strictly rising receipt times.
    pub time: Option<Time>,
    /// CloudEvents extension `expirytime`: after it nobody needs to hear.
    pub expiry: Option<Time>,
    /// The moment that the recipient must not miss (`expires_at`, `review_by`): orders a mail, and `before_deadline`.
    pub deadline: Option<Time>,
    /// `data.recipients`: principals and role or group references. `None`: the route's audience applies.
    pub recipients: Option<Vec<String>>,
    pub effect: Effect,
    /// What the event is about, readable, e.g. `membership/sports/role/writers/user.joe/add`; also of informing events.
    pub subject_key: Option<String>,
    /// Who asks, of a request for a membership: nobody is to approve their own.
    pub asker: Option<String>,
    /// `data.domain`, if it is a text: the domains take turns while more is due than can leave.
    pub domain: Option<String>,
    /// Data that is no object stands in it under `"value"`.
    pub data: Data,
}

/// Who should get mail, as a directory tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// For example `user.alice`.
    pub principal: String,
    /// `None`: nobody knows one; the item ends as `dead(no_address)`.
    pub address: Option<String>,
    /// IANA time zone; `None`: the configured default.
    pub zone: Option<String>,
    /// BCP 47; `None`: the configured default.
    pub language: Option<String>,
}

/// `sports:role.admin` and `sports:group.leads` are collections whose members change; anything else is a principal.
pub fn is_collection(reference: &str) -> bool {
    reference.split_once(':').is_some_and(|(_, rest)| rest.starts_with("role.") || rest.starts_with("group."))
}

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    Urgent,
    #[default]
    Normal,
    Bulk,
}

/// Which bound of the account's quota a mail server says is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// The rate per second: again in seconds, and slower.
    Second,
    /// What the account may send in 24 hours: again in minutes.
    Day,
}

impl Priority {
    pub const ALL: [Priority; 3] = [Priority::Urgent, Priority::Normal, Priority::Bulk];
}

/// One route's claim on an event: whom it asks, and who that is right now.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub route: Arc<str>,
    /// As the event or the route names them; looked up again before the mail leaves if any is a collection.
    pub references: Vec<String>,
    /// Whom they resolve to now, each once, without `except`. Shared: most events of a batch ask the same people.
    pub people: Vec<Arc<Person>>,
    /// A principal who must not be asked: nobody approves their own request.
    pub except: Option<String>,
}

/// An event with everything that `accept` needs to make it durable in one transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    pub event: Event,
    /// `event.time`, or the receipt time that stands for it.
    pub time: Time,
    pub asked: Vec<Asked>,
    /// Set if the event is older than the retention (rule `too_old`) or asks too many people: what to refuse, unless the
    /// key is known.
    pub stale: Option<Box<Refused>>,
}

impl Arrival {
    /// An arrival that asks nobody yet.
    pub fn new(event: Event, time: Time) -> Arrival {
        Arrival { event, time, asked: vec![], stale: None }
    }
}

/// Input that can't become an event: kept as a dead letter with its reason and its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// Name of the `[[source]]`.
    pub source: String,
    /// Where it stood, for a person: `events.ndjson line 12 (byte 3455)`, `topic 3 offset 12`, `POST /v1/events item 4`.
    pub position: String,
    pub reason: RefusedReason,
    /// What is wrong and where, e.g. `data.member: expected a string, found a number (column 141)`. Never the value itself.
    pub detail: String,
    /// At most [`DEAD_LETTER_BYTES`]; the rest is only counted and hashed.
    pub body: Vec<u8>,
    pub bytes: u64,
    pub sha256: [u8; 32],
    /// What is needed to read the bytes again: content type, `ce_*` headers, the producer's id.
    pub headers: Vec<(String, String)>,
    /// The broker's own name of the message it came in (`topic/partition/offset`); `None`: the wire has none.
    pub broker_id: Option<String>,
}

/// Most bytes of an event's text that is a key of the store: PostgreSQL's indexes take 2,704 of all of a row's keys.
pub const KEY_BYTES: usize = 2_048;

/// What owlpost says of a message stands in headers of such a name. Nobody else's are let in under it.
pub const OWN_HEADERS: &str = "x-owlpost-";

/// The first bytes of a refused input that are kept (contract: `dead-letters`).
pub const DEAD_LETTER_BYTES: usize = 64 * 1024;

/// Why an input was refused. Also the metric label and what `dead-letters list --reason` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefusedReason {
    NotJson,
    NotUtf8,
    TooLarge,
    TooDeep,
    MissingAttribute,
    WrongType,
    UnknownSpecversion,
    UnknownFormat,
    InTheFuture,
    TooOld,
    TooManyRecipients,
}

impl RefusedReason {
    pub const ALL: [RefusedReason; 11] = [
        RefusedReason::NotJson,
        RefusedReason::NotUtf8,
        RefusedReason::TooLarge,
        RefusedReason::TooDeep,
        RefusedReason::MissingAttribute,
        RefusedReason::WrongType,
        RefusedReason::UnknownSpecversion,
        RefusedReason::UnknownFormat,
        RefusedReason::InTheFuture,
        RefusedReason::TooOld,
        RefusedReason::TooManyRecipients,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            RefusedReason::NotJson => "not_json",
            RefusedReason::NotUtf8 => "not_utf8",
            RefusedReason::TooLarge => "too_large",
            RefusedReason::TooDeep => "too_deep",
            RefusedReason::MissingAttribute => "missing_attribute",
            RefusedReason::WrongType => "wrong_type",
            RefusedReason::UnknownSpecversion => "unknown_specversion",
            RefusedReason::UnknownFormat => "unknown_format",
            RefusedReason::InTheFuture => "in_the_future",
            RefusedReason::TooOld => "too_old",
            RefusedReason::TooManyRecipients => "too_many_recipients",
        }
    }
}

/// What one message of a source became, ready for `accept`.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    Event(Box<Arrival>),
    Refused(Box<Refused>),
}

/// What `accept` made of an entry, in the order of the entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receipt {
    Accepted,
    Duplicate,
    /// Beyond its `expirytime`: the key is kept, nobody is asked.
    Dropped,
    Refused {
        reason: RefusedReason,
        detail: String,
        /// Where it stood in its message, for who sent it; the store does not know.
        at: Option<Position>,
    },
}

/// Which of the things that a sender put into a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The item of an array, or the line that is not blank, from 0.
    pub index: usize,
    /// The row of an Athenz notification, from 1.
    pub row: Option<usize>,
}

/// A digest that is ours for a while. An answer with an old token has lost the lease, but is still evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub digest: DigestId,
    pub token: i64,
}

/// What is known about the open digest of one recipient and route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub first_at: Time,
    pub last_at: Time,
    pub items: u32,
    /// The earliest deadline among the items.
    pub deadline: Option<Time>,
    /// When the previous digest of this recipient and route began to be sent.
    pub previous_at: Option<Time>,
}

/// An item as a mail lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The store's number of the event; names the item together with the digest's recipient and route.
    pub event_number: i64,
    pub source: String,
    pub id: String,
    pub kind: String,
    pub time: Time,
    pub deadline: Option<Time>,
    pub subject_key: Option<String>,
    pub data: serde_json::Map<String, serde_json::Value>,
    /// There are more members of it.
    pub data_cut: bool,
}

/// What a mail is made of: the digest and the items of one attempt, most urgent first.
#[derive(Clone, Debug, PartialEq)]
pub struct Contents {
    pub attempt: AttemptId,
    pub route: String,
    pub recipient: Person,
    pub items: Vec<Listed>,
    /// The items, and those of this recipient and route that come with the next mails: "50 of 212".
    pub open_total: u64,
    /// When the attempt began, by the store's clock: the mail's `Date`.
    pub at: Time,
    /// The call may start from this moment on, within a slot (`quota::SLOT`); `at` where there is no quota.
    pub call_at: Time,
}

/// A mail, ready for any mailer. Header values hold no line breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    pub from: String,
    pub reply_to: Option<String>,
    /// One bare address (`addr-spec`, RFC 5322).
    pub to: String,
    pub subject: String,
    pub html: String,
    pub text: String,
    /// Further headers: `X-Owlpost-Digest`, `Auto-Submitted`, threading.
    pub headers: Vec<(String, String)>,
    pub date: Time,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_the_same_in_one_piece_and_in_many() {
        for length in [0, 1, 100, 479, 480, 481, 482, 2_000] {
            let long = "x".repeat(length);
            let parts = ["a", long.as_str(), ""];
            let mut hasher = blake3::Hasher::new();
            hasher.update(b"event");
            for part in parts {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part.as_bytes());
            }
            assert_eq!(hash16(b"event", &parts), hasher.finalize().as_bytes()[..16], "{length}");
        }
        assert_ne!(hash16(b"event", &["ab", "c"]), hash16(b"event", &["a", "bc"]), "where a part ends counts");
    }
}
