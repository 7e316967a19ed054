//! Troubles: what librdkafka and the brokers complain of, and the signs that it is over.

use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;

use super::{Client, JOINS_WITHIN, Poller};
use crate::metrics::kafka as metrics;
use crate::source::kafka::condition::Meaning;
use crate::source::kafka::events::Failure;
use crate::source::kafka::kept::Key;
use crate::source::kafka::offsets::Progress;
use crate::source::kafka::stats::Statistics;

/// A topic that is looked for.
const LOOK_WITHIN: Duration = Duration::from_secs(1);

impl Poller {
    pub(super) fn failed(&mut self, consumer: &Client, failure: &Failure) {
        let name = &self.settings.name;
        if failure.fatal || failure.code == RDKafkaErrorCode::Fatal {
            let (code, text) = consumer.client().fatal_error().unwrap_or((failure.code, failure.text.clone()));
            self.fatal(match code {
                RDKafkaErrorCode::FencedInstanceId | RDKafkaErrorCode::UnreleasedInstanceId => format!(
                    "another process is in source.group {:?} with the same source.instance_id: give each one its own, or \
                     leave it out",
                    self.settings.group
                ),
                _ => text,
            });
            return;
        }
        metrics::error(name);
        let (is_news, meaning, words) = {
            let mut state = self.shared.state();
            let before = state.condition.words();
            let key =
                failure.topic.as_deref().zip(failure.partition).map(|(topic, number)| (state.topic(topic), number));
            // Told late, of a partition that is gone: nobody would say that it is over.
            let key = key.filter(|key| state.partitions.contains_key(key));
            let meaning = state.condition.failed(failure, key, &self.settings.group);
            let after = state.condition.words();
            (before != after, meaning, after.unwrap_or_default())
        };
        match (meaning, failure.code) {
            (Meaning::Down, _) if is_news => tracing::warn!(source = name, "{words}"),
            (Meaning::Down, _) => {}
            (Meaning::Passing, RDKafkaErrorCode::PollExceeded) => tracing::warn!(
                source = name,
                "this process was held up for longer than max.poll.interval.ms; it leaves the group and joins again"
            ),
            (Meaning::Passing, _) => {
                tracing::info!(source = name, error = failure.text, "trouble with a broker; it is tried on")
            }
        }
        // The loop waits in `next`; it tells the health when it turns.
        self.shared.news.notify_one();
    }

    pub(super) fn count(&self, json: &[u8]) {
        let Some(statistics) = Statistics::of(json) else { return };
        let mut state = self.shared.state();
        let is_news = match (statistics.is_connected(), statistics.is_all_connected()) {
            (_, true) => state.condition.connected(),
            (true, false) => state.condition.answered(),
            (false, false) => false,
        };
        if is_news {
            tracing::info!(source = self.settings.name, "the brokers are back");
        }
        let of = |(key, progress): (&Key, &Progress)| statistics.lag(state.name(*key), key.1, progress.settled());
        let lag = state.partitions.iter().filter_map(of).sum();
        state.lag = Some(lag);
        metrics::lag(&self.settings.name, lag);
    }

    /// librdkafka tells once that a topic is not there, and not that it has come if another member gets it.
    pub(super) fn look_for_topics(&self, consumer: &Client) {
        let missing = self.shared.state().condition.missing_topics();
        for topic in missing {
            let Ok(metadata) = consumer.fetch_metadata(Some(&topic), LOOK_WITHIN) else { return };
            let there = metadata.topics().iter().any(|t| t.name() == topic && t.error().is_none());
            if there && self.shared.state().condition.found(&topic) {
                tracing::info!(source = self.settings.name, topic, "the topic is there");
                self.shared.news.notify_one();
            }
        }
    }

    /// Nobody has said what is wrong, or nothing that has a part of its own in the condition.
    pub(super) fn not_joined(&self) {
        let (name, group) = (&self.settings.name, &self.settings.group);
        let words = self.shared.state().condition.not_joined(group, JOINS_WITHIN.as_secs());
        tracing::warn!(source = name, "{words}");
        self.shared.news.notify_one();
    }
}
