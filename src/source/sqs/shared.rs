//! What the source and its tasks share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Options;
use super::held::{Held, Reserved};
use super::streak::Streak;
use crate::aws::queue::{Caller, Queue};
use crate::aws::trouble::{Class, Trouble};
use crate::metrics::sqs as metrics;
use crate::source::SourceError;

/// So many failures in a row make the source "down": a 500 or a lost connection now and then is nothing to tell.
const DOWN_AFTER: u32 = 3;
/// So many failures in a row end a run with `--until-idle`: about a minute, and somebody waits for it.
const GIVE_UP_AFTER: u32 = 10;
/// Queues whose visibility timeout is shorter are asked for this one: extending it takes a call, and calls take time.
const VISIBILITY_MIN: Duration = Duration::from_secs(3);

pub struct Shared {
    pub name: String,
    pub options: Options,
    pub caller: Caller,
    state: Mutex<State>,
    /// There may be something to give out, or to tell.
    pub arrived: Notify,
    /// There may be room, work for the deleter, or a queue.
    pub changed: Notify,
    /// Nothing new is received from here on.
    pub stop: CancellationToken,
    /// Calls that still wait for messages are given up.
    pub abandon: CancellationToken,
}

#[derive(Default)]
pub struct State {
    pub held: Held,
    /// `None`: not found yet, or gone.
    pub queue: Option<Arc<Queue>>,
    /// A call was told that there is no such queue: it is asked for at once.
    pub is_doubted: bool,
    pub receivers: u32,
    /// Failures of receiving in a row.
    failures: Streak,
    not_before: Option<Instant>,
    /// Why nothing comes in.
    down: Option<String>,
    /// Why nothing is deleted: a right is missing. Nothing is received until it is there, or all of the queue would end up
    /// in its dead-letter queue, committed as it is.
    pub stuck: Option<String>,
    /// Deletes in a row that were not allowed.
    pub denials: Streak,
    /// Why nothing is hidden for longer.
    pub fading: Option<String>,
    /// A reason that `next` has not told yet.
    news: Option<String>,
    pub fatal: Option<String>,
    /// Empty answers since something was held, for `--until-idle`.
    pub empties: u32,
    /// Whether a throttling, or a failed delete, has been told since it last went well.
    throttling_told: bool,
    pub delete_told: bool,
}

impl State {
    /// The queue is said to be gone: whether it comes back with what is held, nobody knows.
    pub fn doubt(&mut self) {
        self.is_doubted = self.queue.is_some();
        self.held.orphan();
    }

    pub fn why_down(&self) -> Option<&String> {
        self.fatal.as_ref().or(self.down.as_ref()).or(self.stuck.as_ref()).or(self.fading.as_ref())
    }

    pub fn set_down(&mut self, why: &str) {
        if self.down.as_deref() != Some(why) {
            self.down = Some(why.to_owned());
            self.news = Some(why.to_owned());
        }
    }
}

/// What a receiver does after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Again,
    Retire,
}

impl Shared {
    pub fn new(name: &str, options: Options, caller: Caller) -> Shared {
        Shared {
            name: name.to_owned(),
            options,
            caller,
            state: Mutex::default(),
            arrived: Notify::new(),
            changed: Notify::new(),
            stop: CancellationToken::new(),
            abandon: CancellationToken::new(),
        }
    }

    /// The state is whole at every moment, so a panic elsewhere does not spoil it.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `look` finds something in the state; looked at after every change, and at the moment that it names.
    pub async fn when<T>(&self, on: &Notify, mut look: impl FnMut(&mut State) -> Result<T, Option<Instant>>) -> T {
        loop {
            let mut told = std::pin::pin!(on.notified());
            // From here on no notification is missed.
            told.as_mut().enable();
            let at = match look(&mut self.state()) {
                Ok(found) => return found,
                Err(at) => at,
            };
            match at {
                // Told, or its time has come: looked at again in any case.
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, told).await;
                }
                None => told.await,
            }
        }
    }

    /// Room for a call and the queue to call, once there are both. `None`: this receiver ends.
    pub async fn may_receive(&self) -> Option<(Arc<Queue>, Reserved)> {
        let look = |state: &mut State| {
            let Some(queue) = state.queue.clone().filter(|_| !self.stop.is_cancelled()) else { return Ok(None) };
            if let Some(at) = state.not_before.filter(|at| *at > Instant::now()) {
                return Err(Some(at));
            }
            if state.stuck.is_some() {
                return Err(None);
            }
            state.held.reserve(Shared::visibility(&queue)).map(|reserved| Some((queue, reserved))).ok_or(None)
        };
        self.when(&self.changed, look).await
    }

    pub fn visibility(queue: &Queue) -> Duration {
        queue.visibility.max(VISIBILITY_MIN)
    }

    /// An answer came, with so many messages that are in the buffer by now. `was_empty`: see [`Reserved`].
    pub fn received(&self, state: &mut State, messages: usize, was_empty: bool) -> After {
        state.failures = Streak::default();
        state.not_before = None;
        state.throttling_told = false;
        if state.down.take().is_some() {
            state.news = None;
            tracing::info!(source = self.name, "the queue answers again");
        }
        self.arrived.notify_waiters();
        if messages > 0 {
            state.empties = 0;
            return After::Again;
        }
        if was_empty {
            state.empties = state.empties.saturating_add(1);
        }
        if state.receivers > 1 { After::Retire } else { After::Again }
    }

    /// Receiving, or asking for the queue, failed, with a call that began then.
    pub fn failed(&self, trouble: &Trouble, began: Instant) -> After {
        metrics::receive_error(&self.name);
        let mut guard = self.state();
        let state = &mut *guard;
        let now = Instant::now();
        if !state.failures.fail(began, now) {
            // One outage, which ends the calls of all receivers.
            return if state.receivers > 1 || state.queue.is_none() { After::Retire } else { After::Again };
        }
        let failures = state.failures.count();
        state.not_before = Some(now + state.failures.backoff());
        let until_idle = self.options.until_idle;
        // A source's name is the operator's word for it; who looks for it at AWS needs the queue's.
        let why = format!("queue {}: {}", self.options.queue.name(), trouble.text);
        match trouble.class {
            Class::NoQueue => {
                state.queue = None;
                state.held.orphan();
                state.set_down(&why);
            }
            Class::Denied | Class::NoCredentials | Class::Refused | Class::Expired => state.set_down(&why),
            Class::Throttled => {
                if !std::mem::replace(&mut state.throttling_told, true) {
                    tracing::warn!(source = self.name, error = trouble.text, "SQS is asked less often for a while");
                }
            }
            Class::Unavailable if failures >= DOWN_AFTER => state.set_down(&why),
            Class::Unavailable => {}
        }
        let heals = matches!(trouble.class, Class::Throttled | Class::Unavailable);
        if until_idle && (!heals || failures >= GIVE_UP_AFTER) {
            // Somebody waits for the end of this run: it ends, and says why.
            state.fatal = Some(format!("source {}: {why}", self.name));
        }
        let retire = state.receivers > 1 || state.queue.is_none();
        drop(guard);
        tracing::debug!(source = self.name, error = trouble.text, "a call of SQS failed");
        self.arrived.notify_waiters();
        self.changed.notify_waiters();
        if retire { After::Retire } else { After::Again }
    }

    /// How long whoever asks for the queue waits before the next try.
    pub fn next_try(&self) -> Duration {
        let at = self.state().not_before;
        at.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()))
    }

    /// The queue was found. Whether messages come from it is seen when they do: of a queue that was just deleted, AWS may
    /// tell for a minute how it is, and that it does not exist.
    pub fn found(&self, queue: Queue) {
        let mut state = self.state();
        state.queue = Some(Arc::new(queue));
        if state.down.take().is_some() {
            state.news = None;
            tracing::info!(source = self.name, "the queue is there");
        }
        drop(state);
        self.changed.notify_waiters();
    }
}

impl State {
    /// What `next` has to tell before anything else.
    pub fn tell(&mut self) -> Option<SourceError> {
        if let Some(why) = &self.fatal {
            return Some(SourceError::Fatal(why.clone()));
        }
        self.news.take().map(SourceError::Unavailable)
    }

    /// Of a run to the end: two empty answers, one receiver left, and nothing that is not deleted.
    pub fn is_idle(&self) -> bool {
        self.empties >= 2 && self.receivers == 1 && self.held.is_empty()
    }
}
