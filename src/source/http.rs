//! Events over HTTP: `POST /v1/events`. A request is one message; its answer waits until the store has committed.
//!
//! Requests that wait together leave in one batch, so the store's commit is shared by all of them (group commit). What
//! waits is bounded in number and bytes; above it the answer is 429 at once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use crate::model::Receipt;
use crate::source::{Ack, Batch, Health, Message, Room, Source, SourceError};

mod answer;
mod request;

use answer::Answer;

/// Where the events are posted to.
pub const PATH: &str = "/v1/events";

/// What the source is made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// `http.token`.
    pub token: Option<String>,
    /// `http.previous_token`, which is taken as well.
    pub previous_token: Option<String>,
    /// `http.body_max_bytes`: a longer body is answered with 413.
    pub body_max_bytes: usize,
    /// Requests that may wait for a commit; above it 429. As many as the listener has connections.
    pub waiting_max: usize,
    /// Bytes of all bodies that are being read or wait for a commit; above it 429. At least one whole body fits.
    pub waiting_max_bytes: usize,
    /// A body that takes longer is answered with 408: 8 MiB in 30 s is 280 KB/s.
    pub body_within: Duration,
    /// After so long without a commit the answer is 503; a store that is busy takes some seconds at most.
    pub commit_within: Duration,
}

impl Options {
    pub fn new(token: Option<String>, body_max_bytes: usize) -> Options {
        Options {
            token,
            previous_token: None,
            body_max_bytes,
            waiting_max: 1_024,
            waiting_max_bytes: 32 * 1024 * 1024,
            body_within: Duration::from_secs(30),
            commit_within: Duration::from_secs(30),
        }
    }
}

/// A 429 is over as soon as one batch is committed.
const RETRY_WHEN_FULL: Duration = Duration::from_secs(1);
/// For stopping and unanswered requests: the time that a restart takes.
const RETRY_WHEN_AWAY: Duration = Duration::from_secs(5);

/// What a batch made of a message.
enum Settled {
    Committed(Vec<Receipt>),
    Away { retry_in: Duration },
}

/// A request whose client waits. The permits are its share of the bounds, given back when it is answered.
struct Waiting {
    message: Message,
    reply: Reply,
}

struct Reply {
    to: oneshot::Sender<Settled>,
    _slot: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Reply {
    /// A client that is gone hears nothing, and harms nobody.
    fn settle(self, settled: Settled) {
        let _ = self.to.send(settled);
    }
}

struct Shared {
    /// BLAKE3 of each token: comparing hashes takes the same time wherever the texts differ ([`blake3::Hash`]'s `==`).
    /// Empty: anybody may publish.
    tokens: Vec<blake3::Hash>,
    options: Options,
    slots: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    queue: Mutex<Queue>,
    arrived: Notify,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    closed: bool,
}

impl Shared {
    /// The queue is whole at every moment, so a panic elsewhere does not spoil it.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing new from here on; who waits unread is sent away.
    fn close(&self) {
        let waiting = {
            let mut queue = self.queue();
            queue.closed = true;
            std::mem::take(&mut queue.waiting)
        };
        waiting.into_iter().for_each(|w| w.reply.settle(Settled::Away { retry_in: RETRY_WHEN_AWAY }));
        self.arrived.notify_one();
    }
}

/// The source of kind `http`.
pub struct HttpSource {
    name: String,
    shared: Arc<Shared>,
    /// Batches that were given out, in order, with those who wait for them.
    out: VecDeque<(u64, Vec<Reply>)>,
    next_batch: u64,
}

impl HttpSource {
    pub fn new(name: &str, options: Options) -> HttpSource {
        let whole_body = options.waiting_max_bytes.max(options.body_max_bytes).min(Semaphore::MAX_PERMITS);
        let shared = Shared {
            tokens: options.token.iter().chain(&options.previous_token).map(|t| blake3::hash(t.as_bytes())).collect(),
            slots: Arc::new(Semaphore::new(options.waiting_max.min(Semaphore::MAX_PERMITS))),
            bytes: Arc::new(Semaphore::new(whole_body)),
            queue: Mutex::new(Queue::default()),
            arrived: Notify::new(),
            options: Options { token: None, previous_token: None, ..options },
        };
        HttpSource { name: name.to_owned(), shared: Arc::new(shared), out: VecDeque::new(), next_batch: 0 }
    }

    /// Answers `POST /v1/events`; to be merged into the listener's. Usable as long as the source lives.
    pub fn router(&self) -> Router {
        Router::new().route(PATH, post(take)).with_state(Arc::clone(&self.shared))
    }

    /// As many of those who wait as there is room for; at least one, since a message above the room must go as well.
    fn give(&mut self, room: Room) -> Option<Batch> {
        let mut messages = Vec::new();
        let mut replies = Vec::new();
        let mut bytes = 0usize;
        let mut queue = self.shared.queue();
        while let Some(first) = queue.waiting.front() {
            bytes = bytes.saturating_add(first.message.body.len());
            if !messages.is_empty() && (messages.len() >= room.messages || bytes > room.bytes) {
                break;
            }
            let Some(waiting) = queue.waiting.pop_front() else { break };
            messages.push(waiting.message);
            replies.push(waiting.reply);
        }
        drop(queue);
        if messages.is_empty() {
            return None;
        }
        let ack = Ack { batch: self.next_batch, epoch: 0 };
        self.next_batch += 1;
        self.out.push_back((ack.batch, replies));
        Some(Batch { messages, ack })
    }

    fn settled(&mut self, ack: Ack) -> Vec<Reply> {
        let at = self.out.iter().position(|(batch, _)| *batch == ack.batch);
        at.and_then(|at| self.out.remove(at)).map_or_else(Vec::new, |(_, replies)| replies)
    }
}

impl Drop for HttpSource {
    fn drop(&mut self) {
        self.shared.close();
    }
}

#[async_trait]
impl Source for HttpSource {
    fn name(&self) -> &str {
        &self.name
    }

    /// Cancel-safe: nothing is awaited between taking from the queue and handing it out. At its end once stopped.
    async fn next(&mut self, room: Room) -> Result<Option<Batch>, SourceError> {
        loop {
            if let Some(batch) = self.give(room) {
                return Ok(Some(batch));
            }
            if self.shared.queue().closed {
                return Ok(None);
            }
            self.shared.arrived.notified().await;
        }
    }

    async fn ack(&mut self, ack: Ack, receipts: &[Vec<Receipt>]) {
        for (i, reply) in self.settled(ack).into_iter().enumerate() {
            // Without a receipt nothing is known to be stored: the sender must come again.
            let settled =
                receipts.get(i).map_or(Settled::Away { retry_in: RETRY_WHEN_AWAY }, |r| Settled::Committed(r.clone()));
            reply.settle(settled);
        }
    }

    /// HTTP gives nothing out again: each sender is told to.
    async fn refuse(&mut self, ack: Ack, retry_in: Duration) {
        self.settled(ack).into_iter().for_each(|reply| reply.settle(Settled::Away { retry_in }));
    }

    /// Batches that are out may still be acknowledged after it; their senders wait for that.
    async fn stop(&mut self, _by: tokio::time::Instant) {
        self.shared.close();
    }

    fn health(&self) -> Health {
        if self.shared.queue().closed { Health::Ended } else { Health::Ready }
    }
}

async fn take(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, mut body) = request.into_parts();
    // Who waits for `100 Continue` sends no body before it is asked for.
    let waits = parts.headers.contains_key(axum::http::header::EXPECT);
    let answer = answer_to(&shared, &parts.headers, &mut body).await;
    if !waits && !body.is_end_stream() && answer.leaves_body_unread() {
        request::discard(&mut body).await;
    }
    answer.into()
}

async fn answer_to(shared: &Shared, headers: &axum::http::HeaderMap, body: &mut Body) -> Answer {
    if !request::may_publish(&shared.tokens, headers) {
        return Answer::Unauthorized;
    }
    if shared.queue().closed {
        return Answer::Away { why: "stopping", retry_in: RETRY_WHEN_AWAY };
    }
    let headers_kept = match request::headers_of(headers) {
        Ok(kept) => kept,
        Err(answer) => return answer,
    };
    let Ok(slot) = Arc::clone(&shared.slots).try_acquire_owned() else {
        return Answer::Full { retry_in: RETRY_WHEN_FULL };
    };
    let reading = request::read(body, headers, shared.options.body_max_bytes, &shared.bytes);
    let (body, bytes) = match tokio::time::timeout(shared.options.body_within, reading).await {
        Ok(Ok(read)) => read,
        Ok(Err(answer)) => return answer,
        Err(_) => return Answer::Slow,
    };
    let (to, settled) = oneshot::channel();
    let message =
        Message { position: format!("POST {PATH}"), broker_id: None, headers: headers_kept, body, time: None };
    {
        let mut queue = shared.queue();
        if queue.closed {
            return Answer::Away { why: "stopping", retry_in: RETRY_WHEN_AWAY };
        }
        queue.waiting.push_back(Waiting { message, reply: Reply { to, _slot: slot, _bytes: bytes } });
    }
    shared.arrived.notify_one();
    match tokio::time::timeout(shared.options.commit_within, settled).await {
        Ok(Ok(Settled::Committed(receipts))) => Answer::of(&receipts),
        Ok(Ok(Settled::Away { retry_in })) => Answer::Away { why: "the store is away", retry_in },
        Ok(Err(_)) => Answer::Away { why: "stopping", retry_in: RETRY_WHEN_AWAY },
        Err(_) => Answer::Away {
            why: "not committed in time; it may still be, sending it again with the same id is safe",
            retry_in: RETRY_WHEN_AWAY,
        },
    }
}
