//! Receivers: each a task that asks for messages, one call after the other. A full answer brings another receiver, an
//! empty one (20 s without a message) or a failure sends this one home; one always stays.
//!
//! An answer that comes is never dropped. At a stop a call that still waits for messages is given up after a second without
//! any: what SQS hands out to it from then on is seen by nobody, stays hidden for the queue's visibility timeout and comes
//! again.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::operation::receive_message::ReceiveMessageOutput;
use tokio::time::Instant;

use super::held::CALL_MESSAGES;
use super::message;
use super::shared::{After, Shared};
use crate::aws::queue::Queue;
use crate::aws::trouble::{Class, Trouble};
use crate::metrics::sqs as metrics;

/// SQS's longest poll: an idle queue costs three calls a minute.
pub const WAIT: Duration = Duration::from_secs(20);
/// For a run to the end: long enough to ask all of the queue's servers, which only a poll that waits does.
pub const WAIT_UNTIL_IDLE: Duration = Duration::from_secs(1);

/// A receiver's place; given back when its task ends, however it ends.
struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.receivers = state.receivers.saturating_sub(1);
        metrics::receivers(&self.0.name, state.receivers);
        drop(state);
        self.0.arrived.notify_waiters();
        self.0.changed.notify_waiters();
    }
}

/// Starts another receiver, if there may be one more.
pub fn spawn(shared: &Arc<Shared>) {
    let mut state = shared.state();
    if state.receivers >= shared.options.receivers_max.max(1) || state.queue.is_none() || shared.stop.is_cancelled() {
        return;
    }
    state.receivers += 1;
    metrics::receivers(&shared.name, state.receivers);
    drop(state);
    let place = Place(Arc::clone(shared));
    tokio::spawn(async move { run(place).await });
}

/// Starts one, if there is none.
pub fn spawn_first(shared: &Arc<Shared>) {
    if shared.state().receivers == 0 {
        spawn(shared);
    }
}

async fn run(place: Place) {
    let shared = &place.0;
    // Of FIFO queues: a call whose answer was lost is made again under the same id, and gets the same messages.
    let mut attempt: Option<String> = None;
    loop {
        let Some((queue, reserved)) = shared.may_receive().await else { return };
        if queue.is_fifo && attempt.is_none() {
            attempt = Some(attempt_id());
        }
        let visibility = Shared::visibility(&queue);
        let began = Instant::now();
        let call = receive(shared, &queue, visibility, attempt.clone());
        let answer = tokio::select! {
            // An answer that is there is taken.
            biased;
            answer = call => answer,
            () = shared.abandon.cancelled() => {
                shared.state().held.add(Instant::now(), &reserved, Vec::new(), visibility);
                return;
            }
        };
        let after = match answer {
            Ok(answer) => {
                attempt = None;
                let options = &shared.options;
                let taken = answer.messages.unwrap_or_default().into_iter();
                let taken = taken.filter_map(|m| message::taken(&queue.name, queue.is_fifo, options.event_bytes, m));
                let taken: Vec<_> = taken.collect();
                let messages = taken.len();
                let mut state = shared.state();
                state.held.add(Instant::now(), &reserved, taken, visibility);
                metrics::in_flight(&shared.name, state.held.len());
                let after = shared.received(&mut state, messages, reserved.was_empty);
                drop(state);
                if messages >= CALL_MESSAGES {
                    spawn(shared);
                }
                after
            }
            Err(trouble) => {
                if trouble.class != Class::Unavailable {
                    attempt = None;
                }
                shared.state().held.add(Instant::now(), &reserved, Vec::new(), visibility);
                shared.failed(&trouble, began)
            }
        };
        if after == After::Retire {
            return;
        }
    }
}

async fn receive(
    shared: &Shared,
    queue: &Queue,
    visibility: Duration,
    attempt: Option<String>,
) -> Result<ReceiveMessageOutput, Trouble> {
    let wait = if shared.options.until_idle { WAIT_UNTIL_IDLE } else { WAIT };
    let seconds = |span: Duration| i32::try_from(span.as_secs()).unwrap_or(i32::MAX);
    let call = shared.caller.poll.receive_message().queue_url(&queue.url);
    let call = call
        .max_number_of_messages(CALL_MESSAGES as i32)
        .wait_time_seconds(seconds(wait))
        .visibility_timeout(seconds(visibility))
        .message_attribute_names("All")
        .set_message_system_attribute_names(Some(message::ATTRIBUTES.to_vec()))
        .set_receive_request_attempt_id(attempt);
    call.send().await.map_err(|e| Trouble::of("sqs:ReceiveMessage", &e))
}

/// A number of this process's own, by the system's chance: two workers that begin in one moment have not the same ids.
fn process() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    static NUMBER: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *NUMBER.get_or_init(|| RandomState::new().hash_one(0u8))
}

/// At most 128 letters and digits (SQS, `ReceiveRequestAttemptId`), never the same twice.
fn attempt_id() -> String {
    format!("{:016x}{:016x}", process(), fastrand::u64(..))
}
