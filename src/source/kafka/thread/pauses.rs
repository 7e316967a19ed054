//! Pauses: what happens to the partitions while nobody takes their messages.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;

use super::{Client, POLL, Poller, Queue, in_words};
use crate::source::kafka::kept::Key;
use crate::source::kafka::shared::Wait;

/// A batch that nobody takes for so long: the partitions are paused. Pausing throws away what librdkafka has fetched, so
/// it must not come at every short wait for the store.
const PAUSE_AFTER: Duration = Duration::from_secs(1);

impl Poller {
    /// The batch is full: a short wait is the store's, a longer one is an outage.
    pub(super) fn wait_or_pause(&mut self, consumer: &Client, events: &Queue<'_>) {
        let by = Instant::now() + PAUSE_AFTER;
        loop {
            match self.shared.wait_for_room(POLL) {
                Wait::Room | Wait::Stopping => return,
                Wait::Full if Instant::now() >= by => break,
                Wait::Full => self.due(consumer, events),
            }
        }
        let keys: Vec<Key> = self.shared.state().partitions.keys().copied().collect();
        self.pause(consumer, keys);
        self.is_paused = true;
        tracing::info!(source = self.settings.name, "nobody takes its messages; its partitions are paused");
    }

    pub(super) fn pause(&mut self, consumer: &Client, keys: Vec<Key>) {
        let list = self.list(keys.iter().copied());
        match consumer.pause(&list) {
            Ok(()) => self.paused.extend(keys),
            Err(e) => tracing::debug!(source = self.settings.name, error = %in_words(&e), "partitions can't be paused"),
        }
    }

    pub(super) fn resume(&mut self, consumer: &Client) {
        self.is_paused = false;
        let keys = std::mem::take(&mut self.paused);
        let list = self.list(keys.into_iter());
        if let Err(e) = consumer.resume(&list) {
            tracing::warn!(source = self.settings.name, error = %in_words(&e), "partitions can't be resumed");
        }
        tracing::info!(source = self.settings.name, "its messages are taken again; its partitions go on");
    }

    /// Of what is given back or lost: librdkafka keeps our mark at a partition that goes, so that it would stand still when
    /// it comes again, and nobody would know.
    pub(super) fn unpause(&mut self, consumer: &Client, keys: &[Key]) {
        let ours: Vec<Key> = keys.iter().copied().filter(|key| self.paused.remove(key)).collect();
        if ours.is_empty() {
            return;
        }
        let list = self.list(ours.into_iter());
        if let Err(e) = consumer.resume(&list) {
            tracing::warn!(source = self.settings.name, error = %in_words(&e), "partitions that go can't be resumed");
        }
    }
}
