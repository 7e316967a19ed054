//! Dead letters on their way out: what nobody has confirmed yet, and what a broker said of it.

use std::sync::Arc;

use async_trait::async_trait;

use super::Result;
use super::desk::LetterKind;
use crate::model::Time;

/// How much of what waits is read at once. The first letter always comes, however long it is.
#[derive(Clone, Copy, Debug)]
pub struct Portion {
    /// Of refused inputs, and as many of dead items, so that neither holds up the other.
    pub letters: u32,
    /// Bodies and headers of each of the two kinds.
    pub bytes: usize,
}

/// A dead letter as it is forwarded: a refused input with what is kept of its bytes, or a dead item with its event.
#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    /// `in-5`, `it-17-4`, as the desk has it.
    pub id: String,
    pub kind: LetterKind,
    pub reason: String,
    /// What is wrong, or what the last attempt said; may be empty.
    pub detail: String,
    /// The `[[source]]` of an input, the CloudEvents `source` of an item's event.
    pub source: String,
    pub position: String,
    /// The broker's own name of the message that an input came in.
    pub broker_id: Option<String>,
    /// When the input first came, when the item died.
    pub at: Time,
    pub count: u64,
    /// Of the whole input; more than `body` has if it was cut.
    pub bytes: u64,
    /// Of the whole input, or of the body.
    pub sha256: [u8; 32],
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Of an item: whom it was for, and by which route.
    pub asked: Option<(String, String)>,
}

/// What became of a letter that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The broker has confirmed it.
    Forwarded,
    /// It will never be taken, and why.
    Refused(String),
}

#[async_trait]
pub trait Letters: Send + Sync {
    /// Those that wait, inputs first, each kind in the order in which it came; not what was discarded or replayed.
    async fn unforwarded(&self, portion: Portion) -> Result<Vec<Letter>>;
    /// By id, in one transaction. What is gone meanwhile (purged, replayed) is passed over.
    async fn forwarded(&self, now: Time, fates: Arc<Vec<(String, Fate)>>) -> Result<()>;
}
