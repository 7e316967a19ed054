//! A batch on its way into the store: its pieces, their receipts, and what is told of them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::piece::Piece;
use super::pipeline::{Pipeline, Prepared};
use crate::metrics::{self, EventOutcome};
use crate::model::{Entry, Receipt, RefusedReason};
use crate::source::Source;
use crate::store::{Intake, StoreError};

/// What became of each piece.
type Done = Vec<Result<Vec<Receipt>, StoreError>>;

pub(super) struct Committing {
    pub batch: Prepared,
    /// Under way side by side: as many as the store has hands.
    pieces: Vec<Piece>,
    began: Instant,
    handle: JoinHandle<Done>,
    pub told: Told,
}

/// Hands the store the first pieces of a batch, or gives it back if there is nothing in it.
pub(super) fn commit(
    mut batch: Prepared,
    store: &Arc<dyn Intake>,
    pipeline: &Pipeline,
    items: usize,
) -> Result<Committing, Box<Prepared>> {
    match batch.next_piece(pipeline, items) {
        Some(piece) => Ok(Committing::begin(batch, piece, Told::default(), store, pipeline)),
        None => Err(Box::new(batch)),
    }
}

impl Committing {
    fn begin(batch: Prepared, piece: Piece, told: Told, store: &Arc<dyn Intake>, pipeline: &Pipeline) -> Committing {
        let pieces = piece.shared_out(store.hands());
        let (store, now) = (store.clone(), pipeline.clock.now());
        let entries: Vec<Arc<Vec<Entry>>> = pieces.iter().map(|piece| piece.entries.clone()).collect();
        let all = async move { join_all(entries.into_iter().map(|entries| store.accept(now, entries))).await };
        Committing { batch, pieces, began: Instant::now(), handle: tokio::spawn(all), told }
    }

    pub fn items(&self) -> usize {
        self.pieces.iter().map(|piece| piece.items).sum()
    }

    pub fn took(&self) -> Duration {
        self.began.elapsed()
    }

    /// Waits for the store. Cancel-safe.
    pub async fn end(&mut self) -> Done {
        match (&mut self.handle).await {
            Ok(done) => done,
            Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
            Err(_) => vec![Err(StoreError::Unavailable("the process is stopping".into()))],
        }
    }

    /// What is durable is counted, whatever became of the others. Gives why a piece was not taken; that the store can't be
    /// used any more goes before all else.
    pub fn keep(&mut self, pipeline: &Pipeline, done: Done) -> Option<StoreError> {
        let took = self.took();
        let mut failed = None;
        for (piece, result) in self.pieces.iter().zip(done) {
            match result {
                Ok(receipts) => {
                    metrics::accepted_batch(took);
                    let took_ms = took.as_millis() as u64;
                    tracing::debug!(source = pipeline.source, entries = receipts.len(), took_ms, "batch committed");
                    lag(pipeline, &piece.entries, &receipts);
                    count(&pipeline.source, receipts.iter());
                    self.told.note(piece, &receipts);
                    self.batch.committed(piece, &receipts);
                }
                Err(why) if failed.is_none() || matches!(why, StoreError::Unusable(_)) => failed = Some(why),
                Err(_) => {}
            }
        }
        failed
    }

    /// The next pieces, or the acknowledgement.
    pub async fn go_on(
        mut self,
        source: &mut dyn Source,
        store: &Arc<dyn Intake>,
        pipeline: &Pipeline,
        items: usize,
    ) -> Option<Committing> {
        match self.batch.next_piece(pipeline, items) {
            Some(piece) => Some(Committing::begin(self.batch, piece, self.told, store, pipeline)),
            None => {
                settle(source, pipeline, &self.batch, &self.told).await;
                None
            }
        }
    }
}

/// Waits for what is under way, if anything is. Cancel-safe.
pub(super) async fn finished(committing: &mut Option<Committing>) -> Done {
    match committing {
        Some(at) => at.end().await,
        None => std::future::pending().await,
    }
}

/// All of the batch is durable.
pub(super) async fn settle(source: &mut dyn Source, pipeline: &Pipeline, batch: &Prepared, told: &Told) {
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
pub(super) struct Told {
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
