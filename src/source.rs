//! Sources: where messages come from. A source hands out batches and is told, once the store has committed, to
//! acknowledge them; it decodes nothing.

use std::time::Duration;

use async_trait::async_trait;

pub use crate::model::OWN_HEADERS as OWN;
use crate::model::{Receipt, Time};

pub mod file;
pub mod http;
pub mod kafka;
pub mod sqs;

/// Header of a message that is only the beginning of a line or value longer than `limits.event_bytes`:
/// `<bytes of the whole>;<SHA-256 of the whole, hex>`.
pub const TRUNCATED: &str = "x-owlpost-truncated";

/// Header of a message that can't be read whatever its body is: `<reason, as in a dead letter>;<what is wrong>`.
pub const UNREADABLE: &str = "x-owlpost-unreadable";

/// Only dead letters have it: when the message came, by its broker or else by this machine. Replayed, what has no time of its own
/// is as old as that.
pub const TIME: &str = "x-owlpost-time";

/// Only dead letters have it, of one row of a notification: `message-id` is the row's own, with its number.
pub const ROW: &str = "x-owlpost-row";

/// One message as the wire gave it.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// For a person: `POST /v1/events`, `events.ndjson line 12 (byte 3455)`, `topic events partition 3 offset 12`.
    pub position: String,
    /// The broker's own id of this delivery, stable over redelivery (`topic/partition/offset`, SQS `MessageId`, file
    /// name, byte offset and hash). `None`: the wire has none (HTTP).
    pub broker_id: Option<String>,
    /// Lower-case names. `content-type` and `ce_*`/`ce-*` among them, if given.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The broker's time of the message, for events without one.
    pub time: Option<Time>,
}

impl Message {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Names a batch to the source that gave it. `epoch` is the assignment it was read under (Kafka); acks of an old one
/// are dropped by the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    pub batch: u64,
    pub epoch: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    pub messages: Vec<Message>,
    pub ack: Ack,
}

/// How much the loop can take now.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub messages: usize,
    pub bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    Ready,
    /// Nothing comes in until this is over; in words for `/readyz` and `status`.
    Down(String),
    /// At its end; nothing more will come.
    Ended,
}

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Try again after a while.
    #[error("{0}")]
    Unavailable(String),
    /// Will not heal by itself: the source is left, and opened again after a while.
    #[error("{0}")]
    Fatal(String),
}

#[async_trait]
pub trait Source: Send {
    fn name(&self) -> &str;
    /// Waits for messages. `None`: at its end. Cancel-safe: what a dropped call had read comes with the next one.
    /// A source may have several batches out; they are settled in the order they were given.
    async fn next(&mut self, room: Room) -> Result<Option<Batch>, SourceError>;
    /// The store has committed everything that follows from the batch: one receipt a message, in order (a message of
    /// several events has the receipts of all of them).
    async fn ack(&mut self, ack: Ack, receipts: &[Vec<Receipt>]);
    /// The store is away: give the batch out again after `retry_in`, or tell its sender to.
    async fn refuse(&mut self, ack: Ack, retry_in: Duration);
    /// Takes nothing new, finishes what is acknowledged, and leaves by then.
    async fn stop(&mut self, by: tokio::time::Instant);
    fn health(&self) -> Health;
    /// Messages that wait in front of it, not yet handed out or not yet acknowledged; `None`: it does not know.
    fn lag(&self) -> Option<u64> {
        None
    }
}
