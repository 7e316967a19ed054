//! What is told of receipts: in metrics, and of what was refused in the log.

use super::pipeline::{Piece, Pipeline};
use crate::metrics::{self, EventOutcome};
use crate::model::{Entry, Receipt, RefusedReason};

/// How long after its own time (without one: the broker's, else that of its receipt) each event was accepted.
pub(super) fn lag(pipeline: &Pipeline, entries: &[Entry], receipts: &[Receipt]) {
    let now = pipeline.clock.now();
    let accepted = entries.iter().zip(receipts).filter_map(|(entry, receipt)| match (entry, receipt) {
        (Entry::Event(arrival), Receipt::Accepted) => Some(now.since(arrival.time)),
        _ => None,
    });
    metrics::intake_lags(accepted);
}

pub(super) fn count<'r>(source: &str, receipts: impl Iterator<Item = &'r Receipt>) {
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
    pub fn note(&mut self, piece: &Piece, receipts: &[Receipt]) {
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

    pub fn log(&self, source: &str) {
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
