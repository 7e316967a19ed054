//! The intake loop: next batch -> decode -> route -> resolve -> accept -> ack. One loop a source.
//!
//! While the store commits one batch, the next one is read and decoded: two are under way at most, and they are settled
//! in the order they came.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::{self, EventOutcome};
use crate::model::{Entry, Receipt};
use crate::source::{Batch, Health, Room, Source, SourceError};
use crate::store::{Intake, StoreError};
use crate::vitals::Vitals;

mod pipeline;
mod refuse;

pub use pipeline::{Pipeline, replay_input};
use pipeline::{Prepared, Slot, Stamps, prepare};

/// How much the loop takes at once.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Messages a batch: large batches make each page of the store's indexes be written once for many events
    /// (10,000 made 64,000 events/s where 1,000 made 38,000).
    pub messages: usize,
    /// Bytes a batch: what two batches under way may hold in memory.
    pub bytes: usize,
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
            messages: 10_000,
            bytes: 8 * 1024 * 1024,
            retry: (Duration::from_millis(250), Duration::from_secs(15)),
            directory_age: Duration::from_secs(60),
            drain: Duration::from_secs(20),
        }
    }
}

/// How often a loop that waits shows that it lives.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// How a loop ended that was not asked to.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error("{0}")]
    Source(#[from] SourceError),
    #[error("{0}")]
    Store(#[from] StoreError),
}

type Committing = (Prepared, Instant, JoinHandle<Result<Vec<Receipt>, StoreError>>);

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
    let mut prepared: Option<Prepared> = None;
    let (mut ended, mut wait) = (false, bounds.retry.0);
    let mut pause_until: Option<Instant> = None;
    let room = Room { messages: bounds.messages, bytes: bounds.bytes };
    let result = loop {
        if committing.is_none()
            && let Some(next) = prepared.take()
        {
            committing = Some(commit(next, &store, &pipeline));
        }
        if committing.is_none() && ended {
            break Ok(());
        }
        pulse.beat();
        vitals.set_source(&pipeline.source, source.health());
        let may_read = prepared.is_none() && !ended;
        tokio::select! {
            biased;
            () = stop.cancelled() => break Ok(()),
            done = finished(&mut committing), if committing.is_some() => {
                let Some((batch, began, _)) = committing.take() else { continue };
                match done {
                    Ok(receipts) => {
                        wait = bounds.retry.0;
                        if vitals.set_store(&name, Ok(())) {
                            tracing::info!(source = pipeline.source, "the store is back");
                        }
                        settle(source.as_mut(), &pipeline, &batch, began, &receipts).await;
                        wake.notify_one();
                    }
                    Err(StoreError::Unusable(why)) => {
                        source.refuse(batch.ack, wait).await;
                        break Err(StoreError::Unusable(why).into());
                    }
                    Err(why) => {
                        metrics::store_error();
                        let retry_ms = wait.as_millis() as u64;
                        if vitals.set_store(&name, Err(why.to_string())) {
                            tracing::warn!(source = pipeline.source, error = %why, retry_ms,
                                "the store took no batch; it is tried again until it does");
                        } else {
                            tracing::debug!(source = pipeline.source, error = %why, retry_ms, "the store is still away");
                        }
                        source.refuse(batch.ack, wait).await;
                        pause_until = Some(Instant::now() + wait);
                        wait = (wait * 2).min(bounds.retry.1);
                    }
                }
            }
            next = read(source.as_mut(), room, pause_until), if may_read => {
                pause_until = None;
                match next {
                    Ok(Some(batch)) => match prepare(&pipeline, batch, &mut stamps, bounds.directory_age).await {
                        Ok(ready) => prepared = Some(ready),
                        Err((ack, why)) => {
                            tracing::warn!(source = pipeline.source, error = %why, retry_ms = wait.as_millis() as u64,
                                "the directory gave no answer; the batch is tried again");
                            source.refuse(ack, wait).await;
                            pause_until = Some(Instant::now() + wait);
                        }
                    },
                    Ok(None) => ended = true,
                    Err(SourceError::Unavailable(why)) => {
                        tracing::warn!(source = pipeline.source, error = %why, "the source is away");
                        vitals.set_source(&pipeline.source, Health::Down(why));
                        pause_until = Some(Instant::now() + wait);
                    }
                    Err(fatal) => break Err(fatal.into()),
                }
            }
            () = tokio::time::sleep(HEARTBEAT) => {}
        }
    };
    // What the store is committing is finished and acknowledged; what it has not seen goes back.
    if let Some((batch, began, handle)) = committing {
        match handle.await {
            Ok(Ok(receipts)) => settle(source.as_mut(), &pipeline, &batch, began, &receipts).await,
            _ => source.refuse(batch.ack, wait).await,
        }
        wake.notify_one();
    }
    if let Some(batch) = prepared {
        source.refuse(batch.ack, wait).await;
    }
    source.stop(Instant::now() + bounds.drain).await;
    vitals.set_source(&pipeline.source, source.health());
    pulse.finish();
    result
}

/// Waits out a pause before the source is asked. Cancel-safe, as `next` is.
async fn read(source: &mut dyn Source, room: Room, pause: Option<Instant>) -> Result<Option<Batch>, SourceError> {
    if let Some(until) = pause {
        tokio::time::sleep_until(until).await;
    }
    source.next(room).await
}

fn commit(batch: Prepared, store: &Arc<dyn Intake>, pipeline: &Pipeline) -> Committing {
    let (store, entries, now) = (store.clone(), batch.entries.clone(), pipeline.clock.now());
    let handle =
        tokio::spawn(async move { if entries.is_empty() { Ok(vec![]) } else { store.accept(now, entries).await } });
    (batch, Instant::now(), handle)
}

async fn finished(committing: &mut Option<Committing>) -> Result<Vec<Receipt>, StoreError> {
    match committing {
        Some((_, _, handle)) => match handle.await {
            Ok(result) => result,
            Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
            Err(_) => Err(StoreError::Unavailable("the process is stopping".into())),
        },
        None => std::future::pending().await,
    }
}

async fn settle(source: &mut dyn Source, pipeline: &Pipeline, batch: &Prepared, began: Instant, receipts: &[Receipt]) {
    let took = began.elapsed();
    metrics::accepted_batch(took);
    let took_ms = took.as_millis() as u64;
    tracing::debug!(source = pipeline.source, entries = batch.entries.len(), took_ms, "batch committed");
    lag(pipeline, &batch.entries, receipts);
    let of_messages: Vec<Vec<Receipt>> = batch
        .slots
        .iter()
        .map(|slots| {
            let receipt = |slot: &Slot| match slot {
                Slot::Entry(i) => receipts.get(*i).cloned().unwrap_or(Receipt::Duplicate),
                Slot::Known(receipt) => receipt.clone(),
            };
            slots.iter().map(receipt).collect()
        })
        .collect();
    count(&pipeline.source, of_messages.iter().flatten());
    tell_refused(pipeline, batch, receipts);
    source.ack(batch.ack, &of_messages).await;
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

/// One line a batch, however many were refused: each is in `dead-letters`.
fn tell_refused(pipeline: &Pipeline, batch: &Prepared, receipts: &[Receipt]) {
    let mut refused = batch.entries.iter().zip(receipts).filter_map(|(entry, receipt)| match (entry, receipt) {
        (Entry::Refused(r), _) => Some((r.position.as_str(), r.reason, r.detail.as_str())),
        (Entry::Event(a), Receipt::Refused { reason, detail }) => {
            Some((a.stale.as_ref().map_or("", |s| s.position.as_str()), *reason, detail.as_str()))
        }
        _ => None,
    });
    if let Some((position, reason, detail)) = refused.next() {
        let more = refused.count();
        tracing::warn!(
            source = pipeline.source,
            position,
            reason = reason.as_str(),
            detail,
            more,
            "input refused; it is kept: owlpost dead-letters list"
        );
    }
}
