//! The intake loop: next batch -> decode -> route -> resolve -> accept -> ack. One loop a source.
//!
//! While the store commits one batch, the next one is read and decoded: two are under way at most, and they are settled
//! in the order they came, also if they go back: events without a time are stamped in that order. A batch that asks many
//! people is committed in pieces, as is one that would hold up the store for long; that is safe since `accept` knows what
//! it has. It is acknowledged after the last.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::{self, EventOutcome};
use crate::model::{Entry, Receipt, RefusedReason};
use crate::source::{Ack, Batch, Room, Source, SourceError};
use crate::store::{Intake, StoreError};
use crate::vitals::Vitals;

mod outage;
mod pipeline;
mod refuse;
mod size;

use outage::Outage;
use pipeline::{Piece, Prepared, Stamps, prepare};
pub use pipeline::{Pipeline, replay_input};
use size::Size;

/// How much the loop takes at once.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Messages a batch: large batches make each page of the store's indexes be written once for many events; larger ones
    /// than this took more memory than a worker is to have.
    pub messages: usize,
    /// Bytes a batch: what two batches under way may hold in memory.
    pub bytes: usize,
    /// Items a transaction at most: one event may ask hundreds of people, so this is what bounds its memory (its time:
    /// `size.rs`). One that would ask more by itself is committed alone.
    pub items: usize,
    /// First and longest wait while the store is away.
    pub retry: (Duration, Duration),
    /// How old an answer of the directory may be at intake; the audience is looked up again before the mail leaves.
    pub directory_age: Duration,
    /// How long a source may take to leave at a stop.
    pub drain: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            messages: 6_000,
            bytes: 8 * 1024 * 1024,
            items: 20_000,
            retry: (Duration::from_millis(250), Duration::from_secs(15)),
            directory_age: Duration::from_secs(60),
            drain: Duration::from_secs(20),
        }
    }
}

/// How often a loop that waits shows that it lives, and looks at its source: so late `/readyz` knows that it is ill.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How a loop ended that was not asked to.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error("{0}")]
    Source(#[from] SourceError),
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// What the store gave, and after how long: this loop may be busy decoding when it comes.
type Taken = (Result<Vec<Receipt>, StoreError>, Duration);

struct Committing {
    batch: Prepared,
    piece: Piece,
    handle: JoinHandle<Taken>,
    told: Told,
}

/// The batch behind the one that the store has.
enum Next {
    Ready(Box<Prepared>),
    /// The directory gave no answer: it goes back, in its turn.
    Back(Ack),
}

/// Runs until the source is at its end (`Ok`), or `stop`, or nothing can be done any more.
pub async fn run(
    mut source: Box<dyn Source>,
    pipeline: Arc<Pipeline>,
    store: Arc<dyn Intake>,
    bounds: Bounds,
    vitals: Vitals,
    wake: Arc<Notify>,
    stop: CancellationToken,
) -> Result<(), IngestError> {
    let name = format!("intake {}", pipeline.source);
    let pulse = vitals.pulse(name.clone());
    let mut stamps = Stamps::default();
    let mut committing: Option<Committing> = None;
    let mut behind: Option<Next> = None;
    let (mut ended, mut wait) = (false, bounds.retry.0);
    let mut pause_until: Option<Instant> = None;
    let (mut away, mut unasked): (Option<Outage>, Option<Outage>) = (None, None);
    let mut size = Size::new(bounds.items);
    let room = Room { messages: bounds.messages, bytes: bounds.bytes };
    let result = loop {
        if committing.is_none()
            && let Some(next) = behind.take()
        {
            match next {
                Next::Back(ack) => source.refuse(ack, wait).await,
                Next::Ready(batch) => match commit(*batch, &store, &pipeline, size.items()) {
                    Ok(begun) => committing = Some(begun),
                    Err(batch) => settle(source.as_mut(), &pipeline, &batch, &Told::default()).await,
                },
            }
        }
        if committing.is_none() && ended {
            break Ok(());
        }
        pulse.beat();
        vitals.set_source(
            &pipeline.source,
            Outage::of(&away).or_else(|| Outage::of(&unasked)).unwrap_or_else(|| source.health()),
        );
        vitals.set_lag(&pipeline.source, source.lag());
        let may_read = behind.is_none() && !ended;
        tokio::select! {
            biased;
            () = stop.cancelled() => break Ok(()),
            done = finished(&mut committing), if committing.is_some() => {
                let Some(mut at) = committing.take() else { continue };
                match done {
                    (Ok(receipts), took) => {
                        wait = bounds.retry.0;
                        if vitals.set_store(&name, Ok(())) {
                            tracing::info!(source = pipeline.source, "the store is back");
                        }
                        size.learn(at.piece.items, took, vitals.calls_wait());
                        at.keep(&pipeline, &receipts, took);
                        wake.notify_one();
                        committing = at.go_on(source.as_mut(), &store, &pipeline, size.items()).await;
                        if committing.is_none() {
                            size.batch_taken();
                        }
                    }
                    (Err(why), _) => {
                        size.failed();
                        // What came later goes back too, or it would be committed before what is read again now.
                        source.refuse(at.batch.ack, wait).await;
                        if let Some(next) = behind.take() {
                            source.refuse(next.ack(), wait).await;
                        }
                        if let StoreError::Unusable(why) = why {
                            break Err(StoreError::Unusable(why).into());
                        }
                        metrics::store_error();
                        let retry_ms = wait.as_millis() as u64;
                        if vitals.set_store(&name, Err(why.to_string())) {
                            tracing::warn!(source = pipeline.source, error = %why, retry_ms,
                                "the store took no batch; it is tried again until it does");
                        } else {
                            tracing::debug!(source = pipeline.source, error = %why, retry_ms, "the store is still away");
                        }
                        pause_until = Some(Instant::now() + wait);
                        wait = (wait * 2).min(bounds.retry.1);
                    }
                }
            }
            next = read(source.as_mut(), room, pause_until), if may_read => {
                pause_until = None;
                if next.is_ok() && away.take().is_some() {
                    tracing::info!(source = pipeline.source, "the source is back");
                }
                match next {
                    Ok(Some(batch)) => match prepare(&pipeline, batch, &mut stamps, &bounds, size.items()).await {
                        Ok(ready) => {
                            if unasked.take().is_some() {
                                tracing::info!(source = pipeline.source, "the directory is back");
                            }
                            behind = Some(Next::Ready(Box::new(ready)));
                        }
                        Err((ack, why)) => {
                            unasked = unasked.filter(Outage::lasts);
                            let outage = Outage::after(&unasked, bounds.retry, format!("the directory gave no answer: {why}"));
                            let retry_ms = outage.pause_ms();
                            if unasked.is_none() {
                                tracing::warn!(source = pipeline.source, error = %why, retry_ms,
                                    "the directory gave no answer; the batch is tried again until it does");
                            } else {
                                tracing::debug!(source = pipeline.source, error = %why, retry_ms, "the directory is still away");
                            }
                            behind = Some(Next::Back(ack));
                            pause_until = Some(outage.until);
                            unasked = Some(outage);
                        }
                    },
                    Ok(None) => ended = true,
                    Err(SourceError::Unavailable(why)) => {
                        let outage = Outage::after(&away, bounds.retry, why.clone());
                        let retry_ms = outage.pause_ms();
                        if away.is_none() {
                            tracing::warn!(source = pipeline.source, error = why, retry_ms,
                                "the source is away; it is asked again until it answers");
                        } else {
                            tracing::debug!(source = pipeline.source, error = why, retry_ms, "the source is still away");
                        }
                        pause_until = Some(outage.until);
                        away = Some(outage);
                    }
                    Err(fatal) => break Err(fatal.into()),
                }
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    };
    // What the store is committing is finished, and acknowledged if it was the last of its batch; the rest goes back.
    if let Some(mut at) = committing {
        match (&mut at.handle).await {
            Ok((Ok(receipts), took)) => {
                at.keep(&pipeline, &receipts, took);
                match at.batch.is_done() {
                    true => settle(source.as_mut(), &pipeline, &at.batch, &at.told).await,
                    false => source.refuse(at.batch.ack, wait).await,
                }
            }
            _ => source.refuse(at.batch.ack, wait).await,
        }
        wake.notify_one();
    }
    if let Some(next) = behind {
        source.refuse(next.ack(), wait).await;
    }
    source.stop(Instant::now() + bounds.drain).await;
    vitals.set_source(&pipeline.source, source.health());
    pulse.finish();
    result
}

impl Next {
    fn ack(&self) -> Ack {
        match self {
            Next::Ready(batch) => batch.ack,
            Next::Back(ack) => *ack,
        }
    }
}

/// Waits out a pause before the source is asked. Cancel-safe, as `next` is.
async fn read(source: &mut dyn Source, room: Room, pause: Option<Instant>) -> Result<Option<Batch>, SourceError> {
    if let Some(until) = pause {
        tokio::time::sleep_until(until).await;
    }
    source.next(room).await
}

/// Hands the store the first piece of a batch, or gives it back if there is nothing in it.
fn commit(
    mut batch: Prepared,
    store: &Arc<dyn Intake>,
    pipeline: &Pipeline,
    items: usize,
) -> Result<Committing, Box<Prepared>> {
    match batch.next_piece(pipeline, items) {
        Some(piece) => {
            let handle = accept(store, pipeline, &piece);
            Ok(Committing { batch, piece, handle, told: Told::default() })
        }
        None => Err(Box::new(batch)),
    }
}

fn accept(store: &Arc<dyn Intake>, pipeline: &Pipeline, piece: &Piece) -> JoinHandle<Taken> {
    let (store, entries, now) = (store.clone(), piece.entries.clone(), pipeline.clock.now());
    let began = Instant::now();
    tokio::spawn(async move { (store.accept(now, entries).await, began.elapsed()) })
}

impl Committing {
    /// The piece is durable.
    fn keep(&mut self, pipeline: &Pipeline, receipts: &[Receipt], took: Duration) {
        metrics::accepted_batch(took);
        let took_ms = took.as_millis() as u64;
        tracing::debug!(source = pipeline.source, entries = receipts.len(), took_ms, "batch committed");
        lag(pipeline, &self.piece.entries, receipts);
        count(&pipeline.source, receipts.iter());
        self.told.note(&self.piece, receipts);
        self.batch.committed(&self.piece, receipts);
    }

    /// The next piece, or the acknowledgement.
    async fn go_on(
        mut self,
        source: &mut dyn Source,
        store: &Arc<dyn Intake>,
        pipeline: &Pipeline,
        items: usize,
    ) -> Option<Committing> {
        match self.batch.next_piece(pipeline, items) {
            Some(piece) => {
                let handle = accept(store, pipeline, &piece);
                Some(Committing { piece, handle, ..self })
            }
            None => {
                settle(source, pipeline, &self.batch, &self.told).await;
                None
            }
        }
    }
}

async fn finished(committing: &mut Option<Committing>) -> Taken {
    match committing {
        Some(at) => match (&mut at.handle).await {
            Ok(taken) => taken,
            Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
            Err(_) => (Err(StoreError::Unavailable("the process is stopping".into())), Duration::ZERO),
        },
        None => std::future::pending().await,
    }
}

/// All of the batch is durable.
async fn settle(source: &mut dyn Source, pipeline: &Pipeline, batch: &Prepared, told: &Told) {
    count(&pipeline.source, batch.known.iter());
    told.log(&pipeline.source);
    source.ack(batch.ack, batch.receipts()).await;
}

/// How long after its own time (without one: the broker's, else that of its receipt) each event was accepted.
fn lag(pipeline: &Pipeline, entries: &[Entry], receipts: &[Receipt]) {
    let now = pipeline.clock.now();
    let accepted = entries.iter().zip(receipts).filter_map(|(entry, receipt)| match (entry, receipt) {
        (Entry::Event(arrival), Receipt::Accepted) => Some(now.since(arrival.time)),
        _ => None,
    });
    metrics::intake_lags(accepted);
}

fn count<'r>(source: &str, receipts: impl Iterator<Item = &'r Receipt>) {
    let mut counts = [0u64; 4];
    const OUTCOMES: [EventOutcome; 4] =
        [EventOutcome::Accepted, EventOutcome::Duplicate, EventOutcome::Dropped, EventOutcome::Dead];
    for receipt in receipts {
        counts[match receipt {
            Receipt::Accepted => 0,
            Receipt::Duplicate => 1,
            Receipt::Dropped => 2,
            Receipt::Refused { .. } => 3,
        }] += 1;
    }
    for (outcome, n) in OUTCOMES.into_iter().zip(counts) {
        metrics::events(source, outcome, n);
    }
}

/// What was refused of a batch: one line in the log, however many they were; each is in `dead-letters`.
#[derive(Default)]
struct Told {
    /// Position, reason, detail.
    first: Option<(String, RefusedReason, String)>,
    refused: u64,
}

impl Told {
    fn note(&mut self, piece: &Piece, receipts: &[Receipt]) {
        for (entry, receipt) in piece.entries.iter().zip(receipts) {
            let Receipt::Refused { reason, detail, .. } = receipt else { continue };
            self.refused += 1;
            if self.first.is_none() {
                let position = match entry {
                    Entry::Refused(refused) => refused.position.as_str(),
                    Entry::Event(arrival) => arrival.stale.as_ref().map_or("", |s| s.position.as_str()),
                };
                self.first = Some((position.to_owned(), *reason, detail.clone()));
            }
        }
    }

    fn log(&self, source: &str) {
        if let Some((position, reason, detail)) = &self.first {
            tracing::warn!(
                source,
                position,
                reason = reason.as_str(),
                detail,
                more = self.refused - 1,
                "input refused; it is kept: owlpost dead-letters list"
            );
        }
    }
}
