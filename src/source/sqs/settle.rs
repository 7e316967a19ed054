//! Deleting what is committed, and changing for how long the rest is hidden: ten messages a call, several calls at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry as Change, DeleteMessageBatchRequestEntry as Delete,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::held::CALL_MESSAGES;
use super::shared::{Shared, State};
use super::streak::{Streak, jittered};
use crate::aws::queue::Queue;
use crate::aws::trouble::{Class, Trouble};
use crate::metrics::sqs as metrics;

/// Calls of one kind at the same time: with some 10 ms each that is thousands of messages a second, and as many
/// connections as receivers.
const CALLS: usize = 8;
/// After these, and the SDK's own, a message is let go: it comes again and is known.
const TRIES: u32 = 5;
const RETRY_WAIT: Duration = Duration::from_millis(200);

/// Messages of all calls that are made at once.
pub const VOLLEY: usize = CALLS * CALL_MESSAGES;

type Keyed = Vec<(u64, String)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Delete,
    Hide,
}

impl Call {
    fn action(self) -> &'static str {
        match self {
            Call::Delete => "sqs:DeleteMessage",
            Call::Hide => "sqs:ChangeMessageVisibility",
        }
    }
}

/// What became of each message of a call.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    done: Vec<u64>,
    /// For another try.
    again: Vec<u64>,
    /// For no other try.
    failed: Vec<u64>,
    /// Why, of one of them.
    why: Option<Trouble>,
}

impl Outcome {
    /// From the entries that an answer says went wrong; their ids are our keys.
    fn of(call: Call, keys: &[u64], failed: &[BatchResultErrorEntry]) -> Outcome {
        let failed: HashMap<&str, &BatchResultErrorEntry> = failed.iter().map(|e| (e.id(), e)).collect();
        let mut outcome = Outcome::default();
        for key in keys {
            let Some(entry) = failed.get(key.to_string().as_str()) else {
                outcome.done.push(*key);
                continue;
            };
            // Without a fault of ours it is the server's.
            let status = if entry.sender_fault() { 400 } else { 500 };
            let why = Trouble::answered(call.action(), entry.code(), entry.message().unwrap_or_default(), status);
            outcome.put(call, *key, &why);
            outcome.why = Some(why);
        }
        outcome
    }

    fn all(call: Call, keys: &[u64], why: Trouble) -> Outcome {
        let mut outcome = Outcome::default();
        keys.iter().for_each(|key| outcome.put(call, *key, &why));
        outcome.why = Some(why);
        outcome
    }

    fn put(&mut self, call: Call, key: u64, why: &Trouble) {
        let is_over = match why.class {
            Class::Throttled | Class::Unavailable | Class::Denied | Class::NoCredentials => false,
            Class::Expired => true,
            // A message that can't be hidden for longer, or whose queue is gone, is nobody else's yet.
            Class::Refused | Class::NoQueue => call == Call::Delete,
        };
        if is_over { self.failed.push(key) } else { self.again.push(key) }
    }

    fn is_denied(&self) -> bool {
        self.why.as_ref().is_some_and(|why| matches!(why.class, Class::Denied | Class::NoCredentials))
    }
}

/// Deletes what is doomed, as long as the source lives. Ends when everything is deleted after a stop.
pub async fn delete(shared: Arc<Shared>) {
    let mut calls: JoinSet<(Outcome, Instant)> = JoinSet::new();
    let mut tries: HashMap<u64, u32> = HashMap::new();
    loop {
        while calls.len() < CALLS {
            let mut state = shared.state();
            // Where there is no queue there is nothing to delete from; it comes again, if it comes again.
            let queue = state.queue.clone();
            let chunk = state.held.begin_deletes(CALL_MESSAGES);
            drop(state);
            match (chunk.is_empty(), queue) {
                (true, _) => break,
                (false, Some(queue)) => {
                    let slowest = chunk.iter().filter_map(|(key, _)| tries.get(key)).max().copied().unwrap_or(0);
                    let shared = Arc::clone(&shared);
                    calls.spawn(async move { delete_once(&shared, &queue, chunk, slowest).await });
                }
                (false, None) => {
                    let why = Trouble {
                        class: Class::NoQueue,
                        code: String::new(),
                        text: "the queue is gone, and what was committed with it".into(),
                    };
                    let keys: Vec<u64> = chunk.iter().map(|(key, _)| *key).collect();
                    settle(&shared, &mut tries, Outcome::all(Call::Delete, &keys, why), Instant::now());
                }
            }
        }
        let over = |state: &mut State| {
            let all_done = shared.stop.is_cancelled() && state.receivers == 0 && state.held.is_empty();
            match all_done || shared.abandon.is_cancelled() && state.held.is_empty() {
                true => Ok(true),
                false if state.held.has_to_delete() => Ok(false),
                false => Err(None),
            }
        };
        tokio::select! {
            // What is deleted makes room first.
            biased;
            Some(done) = calls.join_next() => match done {
                Ok((outcome, began)) => settle(&shared, &mut tries, outcome, began),
                Err(broken) if broken.is_panic() => std::panic::resume_unwind(broken.into_panic()),
                Err(_) => {}
            },
            over = shared.when(&shared.changed, over), if calls.len() < CALLS => if over && calls.is_empty() { return },
        }
    }
}

/// What came of it, and when it began.
async fn delete_once(shared: &Shared, queue: &Queue, chunk: Keyed, tries: u32) -> (Outcome, Instant) {
    let of_tries = if tries > 0 { jittered(RETRY_WAIT.saturating_mul(1 << tries.min(TRIES))) } else { Duration::ZERO };
    let wait = of_tries.max(shared.state().denials.backoff());
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    let began = Instant::now();
    let keys: Vec<u64> = chunk.iter().map(|(key, _)| *key).collect();
    let entries = chunk.into_iter().map(|(key, receipt)| Delete::builder().id(key.to_string()).receipt_handle(receipt));
    let entries: Result<Vec<Delete>, _> = entries.map(|entry| entry.build()).collect();
    let call = shared.caller.quick.delete_message_batch().queue_url(&queue.url).set_entries(entries.ok());
    let outcome = match call.send().await {
        Ok(answer) => Outcome::of(Call::Delete, &keys, answer.failed()),
        Err(error) => Outcome::all(Call::Delete, &keys, Trouble::of(Call::Delete.action(), &error)),
    };
    (outcome, began)
}

fn settle(shared: &Shared, tries: &mut HashMap<u64, u32>, outcome: Outcome, began: Instant) {
    let mut guard = shared.state();
    let state = &mut *guard;
    // What was held may hide others of its group, or come again.
    state.empties = 0;
    if outcome.is_denied() {
        state.denials.fail(began, Instant::now());
        state.stuck = outcome.why.as_ref().map(|why| why.text.clone());
    } else if !outcome.done.is_empty() || !outcome.failed.is_empty() {
        state.denials = Streak::default();
        if state.stuck.take().is_some() {
            tracing::info!(source = shared.name, "messages are deleted again");
        }
    }
    for key in &outcome.done {
        tries.remove(key);
        state.held.forget(*key);
    }
    let mut let_go = outcome.failed.len();
    for key in &outcome.failed {
        tries.remove(key);
        state.held.forget(*key);
    }
    for key in &outcome.again {
        if state.stuck.is_some() {
            // Until somebody grants the right.
            state.held.delete_again(&[*key]);
            continue;
        }
        let so_often = tries.entry(*key).or_default();
        *so_often += 1;
        if *so_often >= TRIES {
            tries.remove(key);
            state.held.forget(*key);
            let_go += 1;
        } else {
            state.held.delete_again(&[*key]);
        }
    }
    match &outcome.why {
        None => {
            state.delete_told = false;
            state.fading = None;
        }
        Some(why) => {
            if why.class == Class::NoQueue {
                state.doubt();
            }
            if state.stuck.is_some() && shared.options.until_idle {
                // Somebody waits for the end of this run: it ends, and says why.
                state.fatal = Some(format!("source {}: {}", shared.name, why.text));
            }
            if let_go > 0 {
                metrics::deletes_failed(&shared.name, let_go);
                if !std::mem::replace(&mut state.delete_told, true) {
                    tracing::warn!(
                        source = shared.name,
                        error = why.text,
                        messages = let_go,
                        "committed messages could not be deleted; if they come again they count as duplicates"
                    );
                }
            }
        }
    }
    metrics::in_flight(&shared.name, state.held.len());
    drop(guard);
    // There is room again, and perhaps nothing left.
    shared.changed.notify_waiters();
    shared.arrived.notify_waiters();
}

/// Hides messages for so long from now on; zero gives them back. `within`: what a call may take.
/// What can't be changed any more is another receiver's.
pub async fn hide(
    shared: &Arc<Shared>,
    queue: &Arc<Queue>,
    messages: Keyed,
    span: Duration,
    within: Duration,
) -> Vec<Hidden> {
    let mut calls: JoinSet<Vec<Hidden>> = JoinSet::new();
    let mut hidden = Vec::new();
    let mut rest = messages.into_iter().peekable();
    while rest.peek().is_some() || !calls.is_empty() {
        while calls.len() < CALLS && rest.peek().is_some() {
            let chunk: Keyed = rest.by_ref().take(CALL_MESSAGES).collect();
            let (shared, queue) = (Arc::clone(shared), Arc::clone(queue));
            calls.spawn(async move { hide_once(&shared, &queue, chunk, span, within).await });
        }
        if let Some(Ok(of_call)) = calls.join_next().await {
            hidden.extend(of_call);
        }
    }
    hidden
}

/// What became of one message's visibility.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    Done(u64, Instant),
    /// Not known: tried again while there is time.
    Unknown,
    Lost(u64),
}

async fn hide_once(shared: &Shared, queue: &Queue, chunk: Keyed, span: Duration, within: Duration) -> Vec<Hidden> {
    let keys: Vec<u64> = chunk.iter().map(|(key, _)| *key).collect();
    let seconds = i32::try_from(span.as_secs()).unwrap_or(i32::MAX);
    let entry = |(key, receipt): (u64, String)| {
        Change::builder().id(key.to_string()).receipt_handle(receipt).visibility_timeout(seconds).build()
    };
    let entries: Result<Vec<Change>, _> = chunk.into_iter().map(entry).collect();
    let call = shared.caller.quick.change_message_visibility_batch().queue_url(&queue.url).set_entries(entries.ok());
    // Hidden at least from the moment of the call.
    let now = Instant::now();
    let outcome = match tokio::time::timeout(within, call.send()).await {
        Ok(Ok(answer)) => Outcome::of(Call::Hide, &keys, answer.failed()),
        Ok(Err(error)) => Outcome::all(Call::Hide, &keys, Trouble::of(Call::Hide.action(), &error)),
        Err(_) => return Vec::new(),
    };
    if let Some(why) = &outcome.why {
        tracing::debug!(source = shared.name, error = why.text, "the visibility of messages could not be changed");
    }
    match &outcome.why {
        None => shared.state().fading = None,
        // Not lost: hidden until the time that they were received with.
        Some(why) if outcome.is_denied() => shared.state().fading = Some(why.text.clone()),
        // Known here before a poll that waits sees it.
        Some(why) if why.class == Class::NoQueue => {
            shared.state().doubt();
            shared.changed.notify_waiters();
        }
        Some(_) => {}
    }
    let done = outcome.done.into_iter().map(|key| Hidden::Done(key, now));
    let lost = outcome.failed.into_iter().map(Hidden::Lost);
    done.chain(lost).chain(outcome.again.into_iter().map(|_| Hidden::Unknown)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_that_is_missing_lets_nothing_go_and_a_queue_that_is_gone_has_no_other_reader() {
        let why = |code| Trouble::answered("sqs:DeleteMessage", code, "", 400);
        for (call, code, again) in [
            (Call::Delete, "AccessDenied", true),
            (Call::Delete, "ExpiredToken", true),
            (Call::Delete, "QueueDoesNotExist", false),
            (Call::Hide, "AccessDenied", true),
            (Call::Hide, "QueueDoesNotExist", true),
            (Call::Hide, "ReceiptHandleIsInvalid", false),
        ] {
            let outcome = Outcome::all(call, &[7], why(code));
            assert_eq!(outcome.again == [7], again, "{call:?} {code}");
            assert_eq!(outcome.failed == [7], !again, "{call:?} {code}");
        }
    }

    #[test]
    fn each_entry_of_an_answer_has_its_own_outcome() {
        let entry = |id: &str, code: &str, ours: bool| {
            BatchResultErrorEntry::builder().id(id).code(code).sender_fault(ours).build().unwrap()
        };
        let failed = [
            entry("2", "InternalError", false),
            entry("3", "ReceiptHandleIsInvalid", true),
            entry("4", "RequestThrottled", true),
            entry("6", "InvalidParameterValue", true),
        ];
        let outcome = Outcome::of(Call::Delete, &[1, 2, 3, 4, 5, 6], &failed);
        assert_eq!((outcome.done, outcome.again, outcome.failed), (vec![1, 5], vec![2, 4], vec![3, 6]));
        assert!(outcome.why.is_some());
        // Hidden for as long as SQS lets us: nobody else has it yet.
        let outcome = Outcome::of(Call::Hide, &[1, 2, 3, 4, 5, 6], &failed);
        assert_eq!((outcome.done, outcome.again, outcome.failed), (vec![1, 5], vec![2, 4, 6], vec![3]));
        assert_eq!(Outcome::of(Call::Delete, &[1], &[]), Outcome { done: vec![1], ..Outcome::default() });
    }
}
