//! The intake loop: next batch -> decode -> route -> resolve -> accept -> ack. One loop a source.
//!
//! While the store commits one batch, the next one is read and decoded, and begun if the store works ahead: two are under
//! way at most, and they are settled in the order they came, also if they go back: events without a time are stamped in
//! that order. A batch that asks many
//! people is committed in pieces, as is one that would hold up the store for long; that is safe since `accept` knows what
//! it has. It is acknowledged after the last.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics;
use crate::model::Receipt;
use crate::source::{Batch, Room, Source, SourceError};
use crate::store::{BATCH_MESSAGES, Intake, StoreError};
use crate::vitals::Vitals;

mod flight;
mod outage;
mod pipeline;
mod receipts;
mod refuse;
mod size;
mod suspects;

use flight::{Flight, Next};
use outage::Outage;
pub use pipeline::{Pipeline, replay_input};
use pipeline::{Stamps, prepare};
use size::Size;

/// How much the loop takes at once.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Messages a batch ([`Intake::batch_messages`]).
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
            messages: BATCH_MESSAGES,
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
    let mut flight = Flight::new(store);
    let (mut ended, mut wait) = (false, bounds.retry.0);
    let mut pause_until: Option<Instant> = None;
    let (mut away, mut unasked): (Option<Outage>, Option<Outage>) = (None, None);
    let mut size = Size::new(bounds.items);
    let room = Room { messages: bounds.messages, bytes: bounds.bytes };
    let result = loop {
        if flight.advance(source.as_mut(), &pipeline, size.items(), wait).await {
            size.batch_taken();
            wait = bounds.retry.0;
            store_works(&vitals, &name, &pipeline.source);
        }
        if ended && flight.is_empty() {
            break Ok(());
        }
        pulse.beat();
        vitals.set_source(
            &pipeline.source,
            Outage::of(&away).or_else(|| Outage::of(&unasked)).unwrap_or_else(|| source.health()),
        );
        vitals.set_lag(&pipeline.source, source.lag());
        let may_read = flight.has_place() && !ended;
        tokio::select! {
            biased;
            () = stop.cancelled() => break Ok(()),
            taken = flight.answer(), if flight.is_under_way() => {
                match taken {
                    (Ok(receipts), at) => {
                        // Of a batch that is tried again the store knows the beginning: a full disk gives that answer too.
                        if receipts.iter().any(|receipt| matches!(receipt, Receipt::Accepted | Receipt::Dropped)) {
                            wait = bounds.retry.0;
                            store_works(&vitals, &name, &pipeline.source);
                        }
                        if let Some((piece, took)) = flight.landed(at) {
                            if piece.alone.is_none() {
                                size.learn(piece.items, took, vitals.calls_wait());
                            }
                            // The store first: what follows is of no use to it.
                            flight.fill(&pipeline, size.items()).await;
                            flight.keep(&pipeline, &piece, &receipts, took);
                        }
                        wake.notify_one();
                    }
                    (Err(why), _) => {
                        match &why {
                            StoreError::Broken(said) if flight.refuses_first(&pipeline, said) => continue,
                            StoreError::Broken(_) => {}
                            _ => size.failed(),
                        }
                        // What came later goes back too, or it would be committed before what is read again now.
                        for ack in flight.back() {
                            source.refuse(ack, wait).await;
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
                    Ok(Some(batch)) => match prepare(&pipeline, batch, &mut stamps, &bounds, size.items(), flight.suspects()).await {
                        Ok(ready) => {
                            if unasked.take().is_some() {
                                tracing::info!(source = pipeline.source, "the directory is back");
                            }
                            flight.add(Next::Ready(Box::new(ready)));
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
                            flight.add(Next::Back(ack));
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
    while flight.is_under_way()
        && let (Ok(receipts), at) = flight.answer().await
    {
        if let Some((piece, took)) = flight.landed(at) {
            flight.keep(&pipeline, &piece, &receipts, took);
        }
        wake.notify_one();
    }
    flight.settle(source.as_mut(), &pipeline).await;
    for ack in flight.back() {
        source.refuse(ack, wait).await;
    }
    source.stop(Instant::now() + bounds.drain).await;
    vitals.set_source(&pipeline.source, source.health());
    pulse.finish();
    result
}

fn store_works(vitals: &Vitals, of_loop: &str, source: &str) {
    if vitals.set_store(of_loop, Ok(())) {
        tracing::info!(source, "the store is back");
    }
}

/// Waits out a pause before the source is asked. Cancel-safe, as `next` is.
async fn read(source: &mut dyn Source, room: Room, pause: Option<Instant>) -> Result<Option<Batch>, SourceError> {
    if let Some(until) = pause {
        tokio::time::sleep_until(until).await;
    }
    source.next(room).await
}
