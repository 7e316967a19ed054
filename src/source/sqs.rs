//! Events from Amazon SQS: long polls by several receivers, deletes only after the commit.
//!
//! - **Held messages stay hidden.** From its receive to its delete a message's visibility is extended at a third of the
//!   queue's timeout, whether it waits here, is being committed, or is being deleted. So a store that is away for a while
//!   costs no second delivery.
//! - **But not for ever.** A message that was received for the first time is held for an hour at most
//!   ([`taken::HOLD_MAX`]); each further receive halves that, down to the queue's own timeout. Then it runs out as the
//!   queue is configured, the queue's redrive policy counts, and its dead-letter queue gets what came too often. Nothing is
//!   ever purged or moved from here. Bad input does not come to that: it is a dead letter of the store, and deleted.
//! - **At a stop** what was not committed is given back at once (visibility 0).
//! - **A FIFO queue's groups keep their order**: a group is given out and deleted in order, and a refused message holds up
//!   its own group only.
//! - **While the store is away** nothing more is received than the ten messages that find out whether it still is: each
//!   receive counts against the queue's `maxReceiveCount`.
//! - **A delete that fails** is tried again; in the end the message is let go, comes again and counts as a duplicate. Where
//!   the right to delete is missing, nothing is let go and nothing more is received until it is granted.
//! - **A queue that goes away** takes nothing with it that is held: it is committed from here.
//!
//! Tasks: the receivers ([`receive`]), one that deletes ([`settle`]), one that extends and one that looks after the queue
//! ([`keep`]). They share a bounded buffer ([`held`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::aws::Identity;
use crate::aws::queue::{self, Caller, Named};
use crate::metrics::sqs as metrics;
use crate::model::Receipt;
use crate::source::{Ack, Batch, Health, Room, Source, SourceError};

mod groups;
mod held;
mod keep;
mod message;
pub mod probe;
mod receive;
mod settle;
mod shared;
mod streak;
mod taken;

use shared::Shared;

/// Receivers at most, if the configuration does not say: as much as one worker's store takes of a queue nearby.
pub const RECEIVERS_MAX: u32 = 8;
/// How long a call that waits for messages may go on at a stop when nothing moves: one that brings some takes milliseconds.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// Time kept at a stop for giving back what is left.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(5);

/// What the source is made with.
#[derive(Clone, Debug)]
pub struct Options {
    pub identity: Identity,
    pub endpoint_url: Option<String>,
    pub queue: Named,
    pub receivers_max: u32,
    /// A longer body is handed on cut, see [`crate::source::TRUNCATED`].
    pub event_bytes: usize,
    /// Ends after two empty polls with nothing outstanding; a queue that can't be read ends it with an error.
    pub until_idle: bool,
}

/// The source of kind `sqs`.
pub struct SqsSource {
    shared: Arc<Shared>,
    /// Given out and not settled.
    out: VecDeque<(u64, Vec<u64>)>,
    next_batch: u64,
    tasks: Vec<JoinHandle<()>>,
    has_ended: bool,
}

impl SqsSource {
    /// Starts its tasks; a queue that is not there yet, or not reachable, is looked for until it is.
    ///
    /// # Errors
    /// [`SourceError::Fatal`]: no region is known.
    pub async fn open(name: &str, options: Options) -> Result<SqsSource, SourceError> {
        let wait = if options.until_idle { receive::WAIT_UNTIL_IDLE } else { receive::WAIT };
        let endpoint = options.endpoint_url.as_deref();
        let caller = queue::caller(options.identity.clone(), endpoint, &options.queue, wait)
            .await
            .map_err(|why| SourceError::Fatal(format!("source {name}: {why}")))?;
        Ok(SqsSource::with(name, options, caller))
    }

    /// The same, by clients that are there already. Inside of a runtime.
    pub fn with(name: &str, options: Options, caller: Caller) -> SqsSource {
        metrics::touch(name);
        let shared = Arc::new(Shared::new(name, options, caller));
        let tasks = vec![
            tokio::spawn(keep::queue(Arc::clone(&shared))),
            tokio::spawn(keep::visibility(Arc::clone(&shared))),
            tokio::spawn(settle::delete(Arc::clone(&shared))),
        ];
        SqsSource { shared, out: VecDeque::new(), next_batch: 0, tasks, has_ended: false }
    }

    fn settled(&mut self, ack: Ack) -> Option<Vec<u64>> {
        let at = self.out.iter().position(|(batch, _)| *batch == ack.batch)?;
        self.out.remove(at).map(|(_, keys)| keys)
    }

    /// Gives back what waits here, so that others get it at once.
    async fn give_back(&self, by: Instant) {
        let (ready, queue) = {
            let mut state = self.shared.state();
            let ready = state.held.take_ready();
            metrics::in_flight(&self.shared.name, state.held.len());
            (ready, state.queue.clone())
        };
        if let Some(queue) = queue
            && !ready.is_empty()
        {
            let within = by.saturating_duration_since(Instant::now()).clamp(Duration::from_secs(1), GIVE_BACK_WITHIN);
            let giving = settle::hide(&self.shared, &queue, ready, Duration::ZERO, within);
            // What is not given back in time comes again when its visibility runs out.
            let _ = tokio::time::timeout(within, giving).await;
        }
    }
}

impl Drop for SqsSource {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        self.shared.abandon.cancel();
        self.shared.changed.notify_waiters();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

#[async_trait]
impl Source for SqsSource {
    fn name(&self) -> &str {
        &self.shared.name
    }

    /// Cancel-safe: the receivers are tasks, and nothing is awaited between taking from the buffer and handing it out.
    async fn next(&mut self, room: Room) -> Result<Option<Batch>, SourceError> {
        enum Found {
            Batch(Vec<u64>, Vec<crate::source::Message>),
            Trouble(SourceError),
            End,
        }
        let shared = Arc::clone(&self.shared);
        let until_idle = shared.options.until_idle;
        let look = |state: &mut shared::State| {
            if shared.stop.is_cancelled() || self.has_ended {
                return Ok(Found::End);
            }
            if let Some(trouble) = state.tell() {
                return Ok(Found::Trouble(trouble));
            }
            match state.held.give(Instant::now(), room) {
                Some((keys, messages)) => Ok(Found::Batch(keys, messages)),
                None if until_idle && state.is_idle() => Ok(Found::End),
                None => Err(state.held.next_due()),
            }
        };
        match shared.when(&shared.arrived, look).await {
            Found::Batch(keys, messages) => {
                let ack = Ack { batch: self.next_batch, epoch: 0 };
                self.next_batch += 1;
                self.out.push_back((ack.batch, keys));
                Ok(Some(Batch { messages, ack }))
            }
            Found::Trouble(trouble) => Err(trouble),
            Found::End => {
                self.has_ended = true;
                Ok(None)
            }
        }
    }

    /// The messages are deleted by a task; until then they stay hidden.
    async fn ack(&mut self, ack: Ack, _receipts: &[Vec<Receipt>]) {
        if let Some(keys) = self.settled(ack) {
            self.shared.state().held.doom(&keys);
            self.shared.changed.notify_waiters();
        }
    }

    /// The messages stay here, hidden from others, and are given out again: another receive would count against the
    /// queue's `maxReceiveCount`.
    async fn refuse(&mut self, ack: Ack, retry_in: Duration) {
        let Some(keys) = self.settled(ack) else { return };
        let now = Instant::now();
        self.shared.state().held.refuse(&keys, now + retry_in);
        self.shared.arrived.notify_waiters();
        self.shared.changed.notify_waiters();
        if self.shared.stop.is_cancelled() {
            self.give_back(now + GIVE_BACK_WITHIN).await;
        }
    }

    /// Calls that bring messages are finished, what is committed is deleted, and the rest is given back.
    async fn stop(&mut self, by: Instant) {
        let shared = Arc::clone(&self.shared);
        shared.stop.cancel();
        shared.changed.notify_waiters();
        shared.arrived.notify_waiters();
        // A poll that waits at the server would swallow what is given back, also after its connection is closed. So it is
        // given back while the polls still listen: each that gets something brings it here, ends, and is asked no more.
        let grace = if shared.options.until_idle { receive::WAIT_UNTIL_IDLE + STOP_GRACE } else { STOP_GRACE };
        loop {
            self.give_back(by).await;
            let moved = |state: &mut shared::State| match state.receivers == 0 || state.held.has_ready() {
                true => Ok(state.receivers == 0),
                false => Err(None),
            };
            let until = by.min(Instant::now() + grace);
            match tokio::time::timeout_at(until, shared.when(&shared.arrived, moved)).await {
                Ok(false) if Instant::now() < by => {}
                _ => break,
            }
        }
        shared.abandon.cancel();
        // They end at their next turn.
        let no_receivers = |state: &mut shared::State| if state.receivers == 0 { Ok(()) } else { Err(None) };
        let soon = Instant::now() + STOP_GRACE;
        let _ = tokio::time::timeout_at(soon, shared.when(&shared.arrived, no_receivers)).await;
        self.give_back(by).await;
        let out: usize = self.out.iter().map(|(_, keys)| keys.len()).sum();
        let deleted = |state: &mut shared::State| if state.held.len() <= out { Ok(()) } else { Err(None) };
        let _ = tokio::time::timeout_at(by, shared.when(&shared.changed, deleted)).await;
        self.has_ended = true;
    }

    fn lag(&self) -> Option<u64> {
        self.shared.state().queue.as_ref().map(|queue| queue.waiting)
    }

    fn health(&self) -> Health {
        let state = self.shared.state();
        match state.why_down() {
            Some(why) => Health::Down(why.clone()),
            None if self.has_ended => Health::Ended,
            None => Health::Ready,
        }
    }
}
