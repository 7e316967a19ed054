//! What one message may become: a notification's rows are events with all of its recipients each, so that a small body
//! could be gigabytes.

use crate::decode::Limits;
use crate::decode::problem::Problem;
use crate::model::RefusedReason;

/// Most rows times recipients of one message. Athenz's consolidated notifications have one recipient; 200 rows may still
/// go to 500 people.
const ROWS_TIMES_RECIPIENTS: usize = 100_000;

/// Most bytes that are copied into rows: 200 rows for 500 people with names of 80 bytes.
const COPIED_BYTES: usize = 8 * 1024 * 1024;

/// What is left for the pieces of a message that come next.
pub(super) struct Budget {
    events: usize,
    recipients: usize,
    bytes: usize,
    most_events: usize,
}

impl Budget {
    pub fn new(limits: &Limits) -> Budget {
        Budget {
            events: limits.batch_events,
            recipients: ROWS_TIMES_RECIPIENTS,
            bytes: COPIED_BYTES,
            most_events: limits.batch_events,
        }
    }

    /// For one event.
    pub fn take_event(&mut self) -> Result<(), Problem> {
        self.events = self.events.checked_sub(1).ok_or_else(|| too_many_events(self.most_events))?;
        Ok(())
    }

    /// Rows that may be made of a notification whose recipients, and what else each row repeats, are so many and so long.
    pub fn rows(&self, recipients: usize, bytes: usize) -> usize {
        self.events.min(self.recipients / recipients.max(1)).min(self.bytes / bytes.max(1))
    }

    /// For so many rows, no more than [`Budget::rows`] said.
    pub fn take_rows(&mut self, rows: usize, recipients: usize, bytes: usize) {
        self.events = self.events.saturating_sub(rows);
        self.recipients = self.recipients.saturating_sub(rows.saturating_mul(recipients));
        self.bytes = self.bytes.saturating_sub(rows.saturating_mul(bytes));
    }
}

pub(super) fn too_many_events(most: usize) -> Problem {
    Problem::new(RefusedReason::TooLarge, format!("more than {most} events in one message; send fewer at a time"))
}
