//! Events from topics of Apache Kafka.
//!
//! One thread owns the consumer and polls it for as long as the source lives, also while nobody takes anything: then the
//! partitions are paused, so that a store that is away for an hour costs no rebalance. It fills one batch; the loop takes
//! it whenever it asks and something is there ([`shared`]). What is out is kept until it is settled, since a refused batch
//! is given out again without the broker. An offset is committed only once everything before it is settled ([`offsets`]).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::{ClientContext, Statistics};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::aws::Identity;
use crate::kafka::Cluster;
use crate::kafka::iam::Tokens;
use crate::metrics::kafka as metrics;
use crate::model::Receipt;
use crate::source::{Ack, Batch, Health, Room, Source, SourceError};

mod condition;
mod events;
pub mod feed;
mod kept;
mod offsets;
pub mod probe;
mod settings;
mod shared;
mod stats;
mod thread;

use shared::{Shared, State};

/// What a batch holds at most, of the loop's room: two are under way in the loop, one fills here, and librdkafka has its
/// queue beside them. Larger ones are cheaper for the store, but the process may have 128 MB, and 1,000 messages more of
/// half a kilobyte are 8 MB.
const BATCH: Room = Room { messages: 6_000, bytes: 4 * 1024 * 1024 };

/// The first batch fills before the loop has said how many it takes: some take no more than these.
const FIRST: Room = Room { messages: 4_500, ..BATCH };

/// A run to the end waits so long for the group to hear where it ended: longer than a coordinator takes to move.
const HEARD_WITHIN: Duration = Duration::from_secs(20);

/// Under this target librdkafka's own lines stand in the log.
const LOG: &str = "librdkafka";

/// How a group shares out its partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// The members decide, by `partition.assignment.strategy`.
    #[default]
    Classic,
    /// The broker decides (KIP-848).
    Consumer,
}

/// What the source is made with.
#[derive(Clone, Debug)]
pub struct Settings {
    pub name: String,
    pub cluster: Cluster,
    /// Names, or patterns that begin with `^`.
    pub topics: Vec<String>,
    pub group: String,
    /// Static membership.
    pub instance_id: Option<String>,
    pub protocol: Protocol,
    /// A longer value is handed on cut, see [`crate::source::TRUNCATED`].
    pub event_bytes: usize,
    /// Who signs in, with [`Cluster::iam`].
    pub identity: Identity,
    /// The source ends where its partitions ended when they were assigned.
    pub until_idle: bool,
}

/// The source of kind `kafka`.
pub struct KafkaSource {
    name: String,
    until_idle: bool,
    topics: Vec<String>,
    group: String,
    shared: Arc<Shared>,
    /// Of a run that is at its end: by then the group must have heard of it.
    heard_by: Option<Instant>,
    /// The thread says that it is gone.
    gone: Option<oneshot::Receiver<()>>,
}

/// librdkafka's callbacks of a client whose events are read by [`events`]: only what comes while it is closed.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, line: &str) {
        thread::log_line(level as i32, facility, line);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
        tracing::debug!(target: LOG, %error, reason, "while closing");
    }
}

impl ConsumerContext for Quiet {}

impl KafkaSource {
    /// Starts the thread, which connects; nothing is waited for. Inside of a runtime.
    ///
    /// # Errors
    /// [`SourceError::Fatal`]: librdkafka does not take the settings, or cannot read a file that they name.
    pub fn open(settings: Settings) -> Result<KafkaSource, SourceError> {
        let name = settings.name.clone();
        let fatal = |why: String| SourceError::Fatal(format!("source {name}: {why}"));
        metrics::touch(&name);
        let consumer: BaseConsumer<Quiet> =
            settings.client().create_with_context(Quiet).map_err(|e| fatal(thread::in_words(&e)))?;
        let shared = Arc::new(Shared::default());
        let (tell, gone) = oneshot::channel();
        let (until_idle, topics, group) = (settings.until_idle, settings.topics.clone(), settings.group.clone());
        let tokens = settings.cluster.iam.then(|| Tokens::keep(settings.identity.clone()));
        let poller = thread::Poller::new(settings, tokens, Arc::clone(&shared));
        std::thread::Builder::new()
            .name(format!("source {name}"))
            .spawn(move || poller.run(consumer, tell))
            .map_err(|e| fatal(format!("no thread to poll its topics: {e}")))?;
        Ok(KafkaSource { name, until_idle, topics, group, shared, heard_by: None, gone: Some(gone) })
    }

    /// Whether a run to the end would wait for something that only a person changes: a topic that nobody makes, a
    /// password, a permission.
    fn is_hopeless(&self, state: &State) -> bool {
        let missing = state.condition.missing_topics();
        let no_topic = !missing.is_empty() && missing.iter().all(|topic| self.topics.contains(topic));
        (!state.joined && (no_topic || state.condition.is_refused() || state.condition.is_late())) || state.is_stuck()
    }

    /// What can be told at once. `None`: wait.
    fn now(&mut self, room: Room) -> Option<Result<Option<Batch>, SourceError>> {
        let room = Room { messages: room.messages.min(BATCH.messages), bytes: room.bytes.min(BATCH.bytes) };
        let mut state = self.shared.state();
        state.room = room;
        if let Some(why) = &state.fatal {
            return Some(Err(SourceError::Fatal(format!("source {}: {why}", self.name))));
        }
        if self.shared.is_stopping() {
            return Some(Ok(None));
        }
        if state.ended {
            return Some(Err(SourceError::Fatal(format!("source {}: its thread broke off", self.name))));
        }
        let from = match state.again.front_mut() {
            Some(refused) => refused,
            None => &mut state.filling,
        };
        let kept = from.take(room);
        state.again.retain(|refused| !refused.is_empty());
        if kept.is_empty() {
            if !state.is_at_end() {
                // Partitions came or went: the brokers have their time anew.
                self.heard_by = None;
            }
            if self.until_idle && state.is_at_end() {
                if state.is_heard() {
                    return Some(Ok(None));
                }
                let by = *self.heard_by.get_or_insert_with(|| Instant::now() + HEARD_WITHIN);
                let why = || {
                    let (name, group, seconds) = (&self.name, &self.group, HEARD_WITHIN.as_secs());
                    format!(
                        "source {name}: everything is kept, but the brokers did not take the offsets of source.group \
                         {group:?} within {seconds} seconds; the log says why"
                    )
                };
                return (Instant::now() >= by).then(|| Err(SourceError::Fatal(why())));
            }
            if self.until_idle && self.is_hopeless(&state) {
                let why = state.condition.words().unwrap_or_default();
                return Some(Err(SourceError::Fatal(format!("source {}: {why}", self.name))));
            }
            return None;
        }
        self.heard_by = None;
        let ack = Ack { batch: state.next_batch, epoch: state.epoch };
        state.next_batch += 1;
        let topics = state.topics.clone();
        drop(state);
        self.shared.took();
        let messages = kept.messages(&topics);
        self.shared.state().out.push_back((ack.batch, kept));
        Some(Ok(Some(Batch { messages, ack })))
    }
}

#[async_trait]
impl Source for KafkaSource {
    fn name(&self) -> &str {
        &self.name
    }

    /// Cancel-safe: nothing is awaited between taking and handing out.
    async fn next(&mut self, room: Room) -> Result<Option<Batch>, SourceError> {
        loop {
            let not_before = self.shared.state().not_before;
            if let Some(at) = not_before {
                tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = self.shared.news.notified() => {
                        // Perhaps a stop, perhaps only a message: what was refused goes first.
                        if !self.shared.is_stopping() && self.shared.state().fatal.is_none() {
                            continue;
                        }
                    }
                }
                self.shared.state().not_before = None;
            }
            if let Some(now) = self.now(room) {
                return now;
            }
            self.shared.news.notified().await;
        }
    }

    async fn ack(&mut self, ack: Ack, _receipts: &[Vec<Receipt>]) {
        let mut state = self.shared.state();
        if let Some(kept) = state.take_out(ack.batch) {
            state.settle(&kept);
        }
        drop(state);
        // A run to the end may be there now.
        self.shared.news.notify_one();
    }

    async fn refuse(&mut self, ack: Ack, retry_in: Duration) {
        let mut state = self.shared.state();
        if let Some(kept) = state.take_out(ack.batch) {
            state.refused(kept);
            state.not_before = Some(Instant::now() + retry_in);
            state.forget_lost();
        }
    }

    /// Commits what is settled and leaves the group. A broker that does not answer is left behind at `by`: what was not
    /// committed is read again, and the store knows it.
    async fn stop(&mut self, by: Instant) {
        self.shared.stop();
        if let Some(gone) = self.gone.take()
            && tokio::time::timeout_at(by, gone).await.is_err()
        {
            tracing::warn!(source = self.name, "the brokers did not answer in time; left without saying good-bye");
        }
        let mut state = self.shared.state();
        (state.filling, state.not_before) = (Default::default(), None);
        state.again.clear();
        state.out.clear();
    }

    fn lag(&self) -> Option<u64> {
        self.shared.state().lag
    }

    fn health(&self) -> Health {
        let state = self.shared.state();
        if self.shared.is_stopping() || (self.until_idle && state.is_at_end() && state.is_heard()) {
            return Health::Ended;
        }
        match state.fatal.clone().or_else(|| state.condition.words()) {
            Some(why) => Health::Down(why),
            None => Health::Ready,
        }
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.shared.stop();
    }
}
