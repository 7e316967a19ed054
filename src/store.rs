//! The store: what it promises to the loops. `lifecycle` rules are kept inside its transactions, by every database.
//!
//! Five small traits, one for each user: [`Intake`] (ingest loop), [`Delivery`] (deliver loop), [`Upkeep`] (upkeep loop),
//! [`Letters`] (forward loop) and [`Desk`] (the operator's commands). All times are the store's and are passed as an argument; no statement reads a
//! clock. Every call is one transaction, and repeating a call whose answer was lost changes nothing that matters.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::model::{AttemptId, Contents, DigestState, Entry, ItemState, Lease, Person, Priority, Receipt, Share, Time};
use crate::quota::{Day, Terms};

pub mod account;
pub mod desk;
pub mod letters;
pub mod line;
pub mod moving;
pub mod postgres;
mod rules;
pub mod sqlite;

pub use crate::model::Window;
pub use account::{Asking, Ours, Sent, Turn};
pub use desk::{Command, Desk, Page, Query, Report, Rows};
pub use letters::{Fate, Letter, Letters, Portion};
pub use line::{Line, Place};
#[doc(hidden)]
pub use rules::{HOT, hot_of_many};

/// On a store that workers share, answers come first: after a start, after an outage, after somebody else held a digest's
/// rows, no call is taken for lost before this is over. Whoever holds an answer that could not be stored has tried again by
/// then: a try on a connection that fell silent is given up after 33 seconds at most, and the next one comes within 5.
pub const ANSWERS_FIRST: Duration = Duration::from_secs(45);

/// Everything a worker needs of one store.
pub trait Store: Intake + Delivery + Upkeep + Letters + Desk {}
impl<T: Intake + Delivery + Upkeep + Letters + Desk> Store for T {}

/// Who opens a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// A worker. Of SQLite the only one: it takes the lock, and ends what a dead worker left behind.
    Worker,
    /// A command beside running workers.
    Operator,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Worth trying again: busy, connection lost, disk full. Nothing of the call was kept.
    #[error("{0}")]
    Unavailable(String),
    /// Trying again will not help: a corrupt file, a newer schema, a second worker.
    #[error("{0}")]
    Unusable(String),
    /// Trying the same again will not help, other calls may work: rows that contradict themselves.
    #[error("{0}")]
    Broken(String),
    /// The operator asked for something that is not there or not allowed now.
    #[error("{0}")]
    Refused(String),
}

pub type Result<T> = std::result::Result<T, StoreError>;

/// What the routes say about time and patience. Pure: it is asked inside transactions.
pub trait Policy: Send + Sync {
    /// Whether this worker's configuration has the route. Another worker of the store may have it: one of a newer version
    /// of the configuration, or of another deployment.
    fn knows(&self, route: &str) -> bool;
    /// Of a route that is not known: those of a plain digest, which may be wrong for it.
    fn rules(&self, route: &str) -> Rules;
    /// When a digest with this window is due, in the recipient's zone (`None`: the configured default).
    fn due(&self, route: &str, zone: Option<&str>, window: &Window) -> Time;
    /// All that the plans of windows depend on. Two workers of which this is the same plan alike.
    fn plans(&self) -> String;
    /// How long to wait after `burned` counted attempts (1 or more); full jitter that depends on `attempt` alone.
    fn backoff(&self, route: &str, attempt: AttemptId, burned: u32) -> Duration;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub priority: Priority,
    /// Digests of this route gather until an operator releases them.
    pub hold: bool,
    /// A mail lists at most so many; the others move to the next digest.
    pub max_listed: u32,
    /// Counted attempts after which the items are dead (`attempts`).
    pub attempts_max: u32,
    /// Bound on the sum of waits after counted failures, after which the items are dead (`gave_up`).
    pub give_up_after: Duration,
    /// Send again after a doubt that nobody can settle (`true`), or bury it (`false`).
    pub resend_in_doubt: bool,
    /// How long a doubt waits for evidence.
    pub doubt_grace: Duration,
}

/// Bounds that the store enforces while it accepts.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open items a recipient; those above are born `dead(too_many_open)`.
    pub open_items_per_recipient: u32,
    /// How long proof, dedupe keys and dead letters are kept.
    pub retention: Duration,
}

#[async_trait]
pub trait Intake: Send + Sync {
    /// One transaction for all entries: dedupe keys, events, items, closures, due times, dead letters. Receipts come in
    /// the order of the entries, and only once they are durable.
    async fn accept(&self, now: Time, entries: Arc<Vec<Entry>>) -> Result<Vec<Receipt>>;
    /// The same for a batch that stands in a line: it is taken if all those before it were, and after them.
    async fn accept_in_line(&self, now: Time, entries: Arc<Vec<Entry>>, place: Place) -> Result<Vec<Receipt>> {
        place.turn().await?;
        let taken = self.accept(now, entries).await;
        place.ends(taken.is_ok());
        taken
    }
    /// Whether a batch that is handed over before the one before it is durable is done sooner.
    fn works_ahead(&self) -> bool {
        false
    }
    /// How many messages a batch is to have, where so many wait.
    fn batch_messages(&self) -> usize {
        BATCH_MESSAGES
    }
}

/// Large batches make each page of the store's indexes be written once for many events; beside SQLite, larger ones than this took
/// more memory than a worker is to have.
pub const BATCH_MESSAGES: usize = 4_500;

/// What could still leave, if a claim found nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// There is a window, or a retry whose wait is over: the account has no room for it, or somebody has its rows this moment.
    pub is_due: bool,
    /// When the first of the other retries is due.
    pub retry_at: Option<Time>,
}

/// What a claim may take.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub limit: u32,
    pub lease: Duration,
    /// `run --until-idle`: every window counts as due; hold, pause and retry times still hold.
    pub everything: bool,
}

/// Who plans the open windows anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planning {
    /// This worker, since now.
    Mine(Time),
    /// Another one that plans alike does, or did just before this one started: this one asks again in a while.
    Theirs,
    /// Another one that plans alike did since this one started, and none that plans otherwise meanwhile.
    Done,
}

/// A digest that was claimed, with what must be looked up before it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Leased {
    pub lease: Lease,
    pub route: String,
    pub recipient: String,
    /// When it was due first: before its first attempt, if it had one.
    pub due_at: Time,
    pub priority: Priority,
    /// For each item whose audience may have changed: whom it asked.
    pub audiences: Vec<Named>,
}

/// Whom an event asked by this digest's route, as named then.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    pub event_number: i64,
    pub references: Vec<String>,
    pub except: Option<String>,
}

/// The last gate's ticket: a lease, and what was looked up for it just now.
#[derive(Clone, Debug, PartialEq)]
pub struct Intent {
    pub lease: Lease,
    /// The recipient, as the directory knows them now.
    pub recipient: Person,
    /// The recipient's domain may be mailed.
    pub domain_allowed: bool,
    /// Whom each of [`Leased::audiences`] names now, without its `except`.
    pub audiences: Vec<(i64, Vec<Person>)>,
    /// The call has started, and ended, within this after the begin: the lease has to run as long.
    pub send_within: Duration,
    /// How long a begin takes here lately: a permit for a moment that is over before the answer is known helps nobody.
    pub lead: Duration,
    /// It waits for whoever has its rows. Else, where that costs the others of its list nothing, it is [`Begun::Busy`].
    pub waits: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Begun {
    /// The attempt is written: call in time (see [`Intent::send_within`]), then `learn` the answer.
    Send(Box<Contents>),
    /// Nothing was left to send; the digest is closed.
    Empty,
    /// The lease is over, or somebody else's.
    Lost,
    /// The kill switch is on; the digest waits, nothing is burned.
    Paused,
    /// No rate slot is free before this time; try again under the same lease.
    NoRate(Time),
    /// Somebody else holds its rows for now: nothing was begun, and a permit that was drawn for it perishes; try again under the
    /// same lease.
    Later,
    /// Somebody else has its rows this moment, and it was not to wait: nothing was begun and nothing used; try again at once
    /// under the same lease, and wait.
    Busy,
}

/// What is known of an attempt. `unknown < refused`; `unknown < accepted < failed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The server took it, under this id; or an SES event says so.
    Accepted { message_id: Option<String> },
    /// Certainly not sent; worth trying again. Burns an attempt.
    Retryable { detail: String },
    /// Certainly not sent; come back later. Burns nothing. `share`: the bound of the account's quota that was reached, if
    /// that is why.
    Throttled { retry_in: Duration, share: Option<Share>, detail: String },
    /// Certainly not sent and will never be. Burns all attempts.
    Permanent { detail: String },
    /// The call never started: too late, or these items can't be rendered (they are dead, the others go again).
    NotCalled { unrenderable: Vec<i64>, detail: String },
    /// Nobody knows.
    Ambiguous { detail: String },
    /// It was accepted and then bounced or rejected (SES events).
    Failed { detail: String },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    pub attempt: AttemptId,
    pub answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// It settled the attempt.
    Settled,
    /// It was known, or something that outranks it was.
    Known,
    /// No such attempt: purged, or another deployment's.
    Unknown,
    /// Somebody else holds its rows for now: keep it and say it again. Until then this worker's store lets no time run out
    /// for its digest.
    Held,
}

#[async_trait]
pub trait Delivery: Send + Sync {
    /// Leases what is due, urgent first, then by due time, and reserves a share of the day's quota for each; no more than
    /// the account lets leave in about a second, so that what is urgent never waits long behind it. Freezes the list; what is above `max_listed` moves on.
    async fn claim(&self, now: Time, ask: &Ask) -> Result<Vec<Leased>>;
    /// What the sending account may send, and, if it has answered, what was sent. Until
    /// this was called once in the store's life, nothing is claimed for an account with a quota.
    async fn account(&self, now: Time, terms: Terms, sent: Option<Sent>) -> Result<()>;
    /// Whether this worker is the one to ask the account now: of several, one does, and the others use what it stored.
    async fn take_turn(&self, now: Time, turn: Turn) -> Result<Asking>;
    /// The last gate before the calls, each mail for itself: one that can't begin ([`StoreError::Broken`]) is
    /// [`Begun::Lost`] and holds up no other. Answers come in the order of the intents.
    async fn begin(&self, now: Time, mails: Arc<Vec<Intent>>) -> Result<Vec<Begun>>;
    /// Answers and evidence alike, in the order given, each for itself: what can't be taken is [`Learned::Unknown`].
    async fn learn(&self, now: Time, evidence: Arc<Vec<Evidence>>) -> Result<Vec<Learned>>;
    /// Gives unused leases back. Those that are lost already are passed over, and those whose rows somebody else holds: they
    /// end by themselves.
    async fn release(&self, now: Time, leases: Arc<Vec<Lease>>) -> Result<()>;
    /// Whether two of these calls at once are done sooner than one after the other.
    fn works_side_by_side(&self) -> bool {
        false
    }
    /// How many digests this worker has to see through: those in its hands (leased, in a call, or in doubt since), and those
    /// whose lease or doubt is over, whoever had them. What is in another worker's hands is not.
    async fn under_way(&self, now: Time) -> Result<u64>;
    /// What a run to the end may still send, of routes that are not paused. Nothing is locked.
    async fn left(&self, now: Time) -> Result<Left>;
    /// The next moment at which a claim could find something, now or later.
    async fn next_due(&self, ask: &Ask) -> Result<Option<Time>>;
}

/// What one turn of upkeep found to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tidied {
    pub leases_ended: u64,
    pub doubts_ended: u64,
    pub purged_items: u64,
    /// There is more; come again soon.
    pub more: bool,
}

#[async_trait]
pub trait Upkeep: Send + Sync {
    /// Ends leases and doubts whose time is over (`doubts_now`: and this worker's doubts at once), in a bounded number.
    async fn expire(&self, now: Time, doubts_now: bool) -> Result<Tidied>;
    /// Ends this worker's doubts at once, and nothing else.
    async fn end_own_doubts(&self, now: Time) -> Result<Tidied>;
    /// Before the first [`Upkeep::replan`]: whose it is. A worker that plans alike may have just done it; what it began before
    /// `started` does not count, since others went on to plan otherwise.
    async fn take_planning(&self, now: Time, started: Time) -> Result<Planning>;
    /// The worker whose it is `since` then says from time to time that it goes on, and at the end that it is done.
    async fn keep_planning(&self, now: Time, since: Time, done: bool) -> Result<()>;
    /// Computes due times anew, e.g. after a changed cadence: at most `limit` digests after `cursor`. `None`: done.
    async fn replan(&self, now: Time, cursor: i64, limit: u32) -> Result<Option<i64>>;
    /// Deletes whole subjects that are final and older than the retention, a bounded number of rows a call.
    async fn purge(&self, now: Time) -> Result<Tidied>;
    /// Rolls up the ledger's delta rows, gives free pages back, moves the log into the file.
    async fn compact(&self, now: Time) -> Result<()>;
    /// The earliest moment at which upkeep has something to do.
    async fn next_upkeep(&self) -> Result<Option<Time>>;
    /// The figures that the gauges show; cheap at any size.
    async fn gauges(&self, now: Time) -> Result<Gauges>;
    /// How the worker's parts are, for commands beside it; what an earlier report said is forgotten.
    async fn report(&self, now: Time, conditions: Arc<Vec<Condition>>) -> Result<()>;
}

/// How a part of the worker is: a source, the forwarding of dead letters, the mailer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `source`, `forwarding` or `mailer`.
    pub part: &'static str,
    pub name: String,
    /// `ready`, `down` or `ended`.
    pub state: &'static str,
    /// Why it is down, else empty.
    pub detail: String,
    /// Messages that wait in front of a source; `None`: nobody knows.
    pub lag: Option<u64>,
    /// In this state since then.
    pub since: Time,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gauges {
    pub items: [u64; 6],
    /// Capped at [`Gauges::CAP`] a state, so that a million open digests cost nothing.
    pub digests: [u64; 7],
    pub due: u64,
    /// Of what may leave: what is due behind a pause is not counted.
    pub oldest_due_at: Option<Time>,
    /// Pauses that are set: of everything, and of single routes. What is due behind one counts as due.
    pub pauses: u64,
    pub dead_letters: u64,
    /// Dead letters that could be forwarded and are not yet, dead items among them; capped likewise, each kind.
    pub unforwarded: u64,
    pub size_bytes: u64,
    /// `None`: the mailer has no account with a quota, or nobody has asked the account yet.
    pub quota: Option<QuotaGauges>,
}

/// The account's quota as it stands, in recipients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuotaGauges {
    pub terms: Terms,
    pub day: Day,
    /// The part of the rate that is used after a server said "too fast"; 1: all of it.
    pub factor: f64,
}

impl Gauges {
    pub const CAP: u64 = 10_000;

    pub fn item(&self, state: ItemState) -> u64 {
        self.items[state as usize]
    }

    pub fn digest(&self, state: DigestState) -> u64 {
        self.digests[state as usize]
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) if e.is_cancelled() => Err(StoreError::Unavailable("the process is stopping".into())),
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}
