//! Keeps what is held hidden from other receivers, and keeps an eye on the queue.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::receive;
use super::settle::{self, Hidden};
use super::shared::{Shared, State};
use crate::aws::queue::Queue;
use crate::aws::trouble::Class;
use crate::metrics::sqs as metrics;

/// How often the queue is asked how many messages wait, and whether its settings have changed.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// How often it is looked whether something must be hidden for longer: a tenth of the visibility timeout, within these.
const TICK: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));

/// Hides for longer what is held, a third of the visibility timeout after the last time; lets go what was held too long.
pub async fn visibility(shared: Arc<Shared>) {
    let (mut told, mut more) = (false, false);
    loop {
        let queue = shared.state().queue.clone();
        let visibility = queue.as_deref().map(Shared::visibility);
        let tick = match visibility {
            // Some are due since before the last calls.
            _ if more => Duration::ZERO,
            Some(visibility) => (visibility / 10).clamp(TICK.0, TICK.1),
            None => TICK.1,
        };
        // What is still being deleted at a stop stays hidden. A queue that is found, or has other settings by now, may hide
        // messages for less than the tick was made for.
        let changes = |state: &mut State| {
            let is_over = shared.abandon.is_cancelled() && state.held.is_empty();
            match is_over || state.queue.as_deref().map(Shared::visibility) != visibility {
                true => Ok(is_over),
                false => Err(None),
            }
        };
        match tokio::time::timeout(tick, shared.when(&shared.changed, changes)).await {
            Ok(true) => return,
            Ok(false) => continue,
            Err(_) => {}
        }
        // Without the queue nothing is given out again by it.
        let (Some(queue), Some(visibility)) = (queue, visibility) else { continue };
        let now = Instant::now();
        let (over, back) = {
            let mut state = shared.state();
            if state.queue.is_none() {
                continue;
            }
            let (over, back) = state.held.expire(now);
            if over > 0 || !back.is_empty() {
                // They are in the queue again.
                state.empties = 0;
            }
            (over, back)
        };
        if over > 0 {
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(
                    source = shared.name,
                    messages = over,
                    "messages were held for too long while the store was away; the queue gives them out again"
                );
            }
            shared.changed.notify_waiters();
        } else if shared.state().held.is_empty() {
            told = false;
        }
        more = extend(&shared, &queue, visibility, now).await;
        if !back.is_empty() {
            drop(settle::hide(&shared, &queue, back, Duration::ZERO, visibility / 3).await);
        }
    }
}

/// Hides for longer what is due, as much as goes in one volley of calls: what is due meanwhile is chosen afresh, and does
/// not wait behind what has more time. Whether there may be more.
async fn extend(shared: &Arc<Shared>, queue: &Arc<Queue>, visibility: Duration, now: Instant) -> bool {
    let due = shared.state().held.to_extend(now, visibility, settle::VOLLEY);
    if due.is_empty() {
        return false;
    }
    let is_full = due.len() == settle::VOLLEY;
    let hidden = settle::hide(shared, queue, due, visibility, visibility / 3).await;
    let mut state = shared.state();
    let mut extended = 0;
    for one in hidden {
        match one {
            Hidden::Done(key, at) => {
                state.held.extended(key, at, visibility);
                extended += 1;
            }
            Hidden::Lost(key) => state.held.lost(key, now),
            Hidden::Unknown => {}
        }
    }
    drop(state);
    metrics::extended(&shared.name, extended);
    // Where nothing can be hidden for longer, a tick goes by before the next try.
    is_full && extended > 0
}

/// Finds the queue, again whenever it is gone; asks it for its backlog; keeps at least one receiver.
pub async fn queue(shared: Arc<Shared>) {
    loop {
        if shared.stop.is_cancelled() {
            return;
        }
        let began = Instant::now();
        let is_new = {
            let mut state = shared.state();
            state.is_doubted = false;
            state.queue.is_none()
        };
        let asked = tokio::select! {
            asked = shared.caller.queue(&shared.options.queue) => asked,
            () = shared.stop.cancelled() => return,
        };
        match asked {
            Ok(queue) if is_new => {
                let (fifo, visibility_s) = (queue.is_fifo, queue.visibility.as_secs());
                tracing::info!(source = shared.name, queue = queue.name, fifo, visibility_s, "the queue is there");
                metrics::backlog(&shared.name, queue.waiting);
                shared.found(queue);
            }
            Ok(queue) => {
                metrics::backlog(&shared.name, queue.waiting);
                let mut state = shared.state();
                // Not if a receiver has found out meanwhile that it is gone.
                if state.queue.is_some() {
                    state.queue = Some(Arc::new(queue));
                }
                drop(state);
                shared.changed.notify_waiters();
            }
            // A backlog that is not known for once harms nobody; the receivers see whether the queue is well.
            Err(trouble) if !is_new && trouble.class != Class::NoQueue => {
                tracing::debug!(source = shared.name, error = trouble.text, "the queue's attributes are not known");
            }
            Err(trouble) => {
                shared.failed(&trouble, began);
                let wait = shared.next_try();
                if tokio::time::timeout(wait, shared.stop.cancelled()).await.is_ok() {
                    return;
                }
                continue;
            }
        }
        receive::spawn_first(&shared);
        // Also sooner, if the queue or the last receiver is gone, or a call was told that there is no queue: a poll that
        // waits may hear of that only at its end.
        let by = Instant::now() + ASK_EVERY;
        let gone = shared.when(&shared.changed, |state| {
            let is_gone = state.queue.is_none() || state.is_doubted;
            let is_time = is_gone || state.receivers == 0 || shared.stop.is_cancelled();
            if is_time || Instant::now() >= by { Ok(()) } else { Err(Some(by)) }
        });
        gone.await;
    }
}
