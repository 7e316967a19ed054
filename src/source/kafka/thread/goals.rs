//! Where a run to the end ends.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;

use super::{Client, Poller, in_words};
use crate::source::kafka::kept::Key;

/// One partition's broker.
const ASK_WITHIN: Duration = Duration::from_secs(5);
/// All of an assignment's: while they are asked for, nothing is polled, and the group waits for `max.poll.interval.ms`, and
/// whoever stops the process for less.
const ASK_ALL_WITHIN: Duration = Duration::from_secs(10);

impl Poller {
    /// What is produced after the run has begun is for the next one. An end that can't be looked up in time is found by
    /// reaching it.
    pub(super) fn set_goals(&self, consumer: &Client, keys: &[Key]) {
        let by = Instant::now() + ASK_ALL_WITHIN;
        for key in keys {
            let left = by.saturating_duration_since(Instant::now());
            if left.is_zero() || self.shared.is_stopping() {
                tracing::info!(
                    source = self.settings.name,
                    "not every end is known; the others are read to where they are"
                );
                return;
            }
            let topic = self.shared.state().name(*key).to_owned();
            match consumer.fetch_watermarks(&topic, key.1, left.min(ASK_WITHIN)) {
                Ok((_, high)) => {
                    if let Some(progress) = self.shared.state().partitions.get_mut(key) {
                        progress.set_goal(high);
                    }
                }
                Err(e) => tracing::debug!(topic, partition = key.1, error = %in_words(&e), "the end is not known"),
            }
        }
    }
}
