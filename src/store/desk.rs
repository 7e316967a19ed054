//! The operator's side of the store: what can be asked, what can be done.

use async_trait::async_trait;
use serde::Serialize;

use super::Result;
use crate::model::Time;

#[async_trait]
pub trait Desk: Send + Sync {
    /// Reads beside a running worker; changes nothing.
    async fn read(&self, query: &Query, page: Page) -> Result<Rows>;
    async fn act(&self, now: Time, command: &Command) -> Result<Report>;
}

/// Rows after a cursor, so that a listing of any length is read in bounded steps.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    pub after: i64,
    pub limit: u32,
}

impl Page {
    pub const FIRST: Page = Page { after: i64::MIN, limit: 1_000 };
}

#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    Status {
        now: Time,
    },
    /// Recounts the ledger from the items, and checks what must hold between the rows.
    Verify,
    /// `state`: a state's name, or `due`: gathering or waiting, and their time has come. `None`: all but closed.
    Digests {
        state: Option<String>,
        route: Option<String>,
        now: Time,
    },
    /// One digest with its attempts and a page of its items.
    Digest {
        id: String,
        now: Time,
    },
    DeadLetters {
        kind: Option<LetterKind>,
        /// Of a refused input or of a dead item: both have names of their own.
        reason: Option<String>,
        /// An input's `[[source]]`, or the CloudEvents `source` of a dead item's event.
        source: Option<String>,
        /// Inputs that came, items that died, at this time or later.
        since: Option<Time>,
        /// Inputs that were discarded or replayed, too.
        discarded: bool,
    },
    DeadLetter {
        id: String,
    },
    Ledger {
        /// Accepted or settled at this time or later: an export each day misses no outcome.
        since: Option<Time>,
        /// A principal.
        recipient: Option<String>,
    },
    /// An event id, recipient, digest id or message id.
    Why {
        id: String,
        now: Time,
    },
    /// Addresses that must not be mailed; `Page::after` is how many were read.
    Suppressions,
}

#[derive(Clone, Debug)]
pub enum Rows {
    Status(Box<Status>),
    Verified(Box<Verified>),
    Digests {
        rows: Vec<DigestRow>,
        next: Option<i64>,
    },
    Digest(Option<Box<DigestPage>>),
    DeadLetters {
        rows: Vec<DeadLetterRow>,
        next: Option<i64>,
    },
    DeadLetter(Option<Box<DeadLetter>>),
    Ledger {
        rows: Vec<LedgerRow>,
        next: Option<i64>,
    },
    /// `None`: nothing has that id.
    Why(Option<Box<History>>),
    Suppressions {
        rows: Vec<Suppression>,
        next: Option<i64>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LetterKind {
    Input,
    Item,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ledger {
    pub items: u64,
    pub pending: u64,
    pub in_doubt: u64,
    pub delivered: u64,
    pub withdrawn: u64,
    pub suppressed: u64,
    pub dead: u64,
}

/// Open digests by state. `due` ones are counted in `gathering` or `waiting` as well.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DigestCounts {
    pub gathering: u64,
    pub due: u64,
    pub held: u64,
    pub leased: u64,
    pub sending: u64,
    pub waiting: u64,
    pub in_doubt: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Status {
    pub store_id: String,
    pub schema_version: u32,
    pub size_bytes: u64,
    pub ledger: Ledger,
    /// Items that the retention has taken away since the store was made; not in `ledger`.
    pub purged: Ledger,
    pub digests: DigestCounts,
    pub mails: Mails,
    /// Refused inputs that nobody discarded; dead items are `ledger.dead`.
    pub dead_letters: u64,
    /// Refused inputs and dead items that no broker has confirmed; of interest where dead letters are forwarded.
    pub unforwarded: u64,
    /// The sources as the worker last saw them; empty before one ran.
    pub sources: Vec<PartRow>,
    /// The forwarding of dead letters likewise. `None`: they are not forwarded.
    pub forwarding: Option<PartRow>,
    /// Whether mails can leave, by each worker that sends some.
    pub mailers: Vec<PartRow>,
    pub quota: Quota,
    /// Of what may leave, not of what is due behind a pause.
    pub oldest_due_at: Option<String>,
    /// Routes that are stopped; `*`: all.
    pub paused: Vec<String>,
}

/// A part of the worker, as it last said itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PartRow {
    pub name: String,
    /// `ready`, `down` or `ended`.
    pub state: String,
    /// Why it is down.
    pub detail: Option<String>,
    /// Messages that wait in front of a source; `None`: nobody knows.
    pub lag: Option<u64>,
    /// In this state since then ...
    pub since: String,
    /// ... and last looked at then: long ago, no worker is running.
    pub at: String,
}

/// The sender account's bounds and where they stand, in recipients. `null`: without a bound.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Quota {
    pub per_second: Option<f64>,
    pub per_day: Option<u64>,
    /// Mails that left, or may have left, in the last 24 hours.
    pub used_24h: u64,
    /// Claimed and not settled yet.
    pub reserved: u64,
    /// What others sent from the same account, when it was last asked.
    pub external_24h: u64,
    /// The part of `per_second` that is used after the server said "too fast"; 1: all of it.
    pub slowed_to: f64,
}

impl Default for Quota {
    fn default() -> Quota {
        Quota { per_second: None, per_day: None, used_24h: 0, reserved: 0, external_24h: 0, slowed_to: 1.0 }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Mails {
    pub sent: u64,
}

/// The ledger as counted along the way, beside what a recount finds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Verified {
    pub counted: Ledger,
    pub recounted: Ledger,
    /// Promises that a look at the rows finds broken, in words; empty is good.
    pub differences: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DigestRow {
    pub id: String,
    pub state: String,
    pub route: String,
    pub recipient: String,
    pub priority: String,
    /// Gathering or waiting, and its time has come.
    pub due: bool,
    /// All that are in it, whatever became of them ...
    pub items: u64,
    /// ... and those that are pending or in doubt.
    pub open: u64,
    /// Of gathering and waiting ones.
    pub due_at: Option<String>,
    /// When a lease or a doubt ends.
    pub until: Option<String>,
    pub attempts: u32,
    pub opened_at: String,
    pub closed_at: Option<String>,
}

/// A digest, its last attempts (at most [`AttemptRow::MAX`]), and a page of its items.
#[derive(Clone, Debug, PartialEq)]
pub struct DigestPage {
    pub row: DigestRow,
    /// Where the last attempt went.
    pub address: Option<String>,
    pub attempts: Vec<AttemptRow>,
    pub items: Vec<LedgerRow>,
    pub next: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttemptRow {
    pub attempt: u32,
    pub begun_at: String,
    /// `unknown`, `refused`, `accepted` or `failed`.
    pub outcome: String,
    pub settled_at: Option<String>,
    pub message_id: Option<String>,
    pub detail: Option<String>,
}

impl AttemptRow {
    /// Throttled attempts burn nothing, so a digest may have any number of them.
    pub const MAX: u32 = 1_000;
}

/// Contract: `dead-letters --json`. For an item, `position` names event, recipient and route.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeadLetterRow {
    pub id: String,
    pub kind: LetterKind,
    pub reason: String,
    pub source: String,
    pub position: String,
    pub first_at: String,
    pub count: u64,
    pub bytes: u64,
    pub truncated: bool,
    /// A broker has confirmed it.
    pub forwarded_at: Option<String>,
    /// Why no broker will ever take it.
    pub forward_error: Option<String>,
    pub detail: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    pub row: DeadLetterRow,
    /// Of a refused input, in hexadecimal.
    pub sha256: Option<String>,
    /// Of a refused input: its first bytes. An event's data is not shown.
    pub body: Vec<u8>,
    /// What is needed to read the bytes again.
    pub headers: Vec<(String, String)>,
    pub last_at: String,
    /// Hidden since then: discarded, or replayed.
    pub discarded_at: Option<String>,
    /// Of a dead item: its line in the ledger.
    pub item: Option<LedgerRow>,
}

/// Contract: `ledger`, the proof of notification.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LedgerRow {
    pub source: String,
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub subject_key: Option<String>,
    pub recipient: String,
    pub address: Option<String>,
    pub route: String,
    pub state: String,
    pub reason: Option<String>,
    pub digest: Option<String>,
    pub message_id: Option<String>,
    pub accepted_at: String,
    pub settled_at: Option<String>,
}

/// Contract: `why --json`: what the id names, and everything that happened to it, in the order of time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct History {
    pub id: String,
    /// `event`, `recipient`, `digest` or `message`.
    pub kind: String,
    /// The events of that id; of a recipient, digest or message: its items.
    pub matches: Vec<Match>,
    /// Only the latest are told of: there are more.
    #[serde(rename = "truncated", skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
    pub history: Vec<Step>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Match {
    pub source: Option<String>,
    pub id: String,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub subject_key: Option<String>,
    pub state: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Step {
    pub at: String,
    pub what: String,
    pub reason: Option<String>,
    pub route: Option<String>,
    pub recipient: Option<String>,
    pub digest: Option<String>,
    pub attempt: Option<u32>,
    pub message_id: Option<String>,
}

/// An address that must not be mailed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Suppression {
    /// In lower case.
    pub address: String,
    pub reason: String,
    pub since: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Held digests become due now.
    Release {
        digest: Option<String>,
        route: Option<String>,
    },
    /// Gathering or waiting digests become due now; refused on leased, sending and in-doubt ones.
    SendNow {
        digest: String,
    },
    /// Dead items go back to pending in a new digest. Refused inputs are replayed through the front door and then
    /// marked with `Replayed`.
    ReplayItems {
        ids: Vec<String>,
    },
    Replayed {
        ids: Vec<String>,
    },
    Discard {
        ids: Vec<String>,
    },
    /// No mail to these addresses from now on. What is no address is refused.
    Suppress {
        addresses: Vec<String>,
        reason: String,
    },
    Unsuppress {
        addresses: Vec<String>,
    },
    /// `None`: everything.
    Pause {
        route: Option<String>,
    },
    Resume {
        route: Option<String>,
    },
}

/// What came of a command: how many it changed, and for each that it did not, why.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    pub changed: u64,
    pub refused: Vec<String>,
}
