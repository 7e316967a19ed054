//! Troubles: what librdkafka and the brokers complain of, and the signs that it is over.

use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;

use super::{Client, JOINS_WITHIN, Poller, Protocol};
use crate::metrics::kafka as metrics;
use crate::source::kafka::condition::Meaning;
use crate::source::kafka::events::Failure;
use crate::source::kafka::kept::Key;
use crate::source::kafka::offsets::Progress;
use crate::source::kafka::shared::empty_for;
use crate::source::kafka::stats::Statistics;

/// A coordinator that has been there for so long has answered a heartbeat (KIP-848: every 5 s), and said no if it does.
const IN_GROUP: Duration = Duration::from_secs(12);

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

    pub(super) fn count(&mut self, consumer: &Client, json: &[u8]) {
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
        let is_waiting = self.settings.protocol == Protocol::Consumer && !state.joined && !state.condition.is_refused();
        drop(state);
        if is_waiting && statistics.in_group_for() >= IN_GROUP {
            self.joined_without_partitions(consumer);
        }
    }

    /// With KIP-848 a member that gets no partition is told nothing: its assignment, of nothing, did not change. If all
    /// topics are there, others have all partitions. (Whether a pattern fits any topic only the broker knows.)
    fn joined_without_partitions(&mut self, consumer: &Client) {
        if self.settings.topics.iter().any(|topic| topic.starts_with('^')) {
            return;
        }
        for topic in &self.settings.topics {
            let Ok(metadata) = consumer.fetch_metadata(Some(topic), LOOK_WITHIN) else { return };
            let Some(found) = metadata.topics().iter().find(|t| t.name() == topic) else { return };
            // Only this is told here: what is not allowed, or passes, librdkafka tells.
            if found.error() == Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) {
                self.shared.state().condition.missing(topic);
                self.shared.news.notify_one();
            }
            if found.error().is_some() {
                return;
            }
        }
        let mut state = self.shared.state();
        if state.partitions.is_empty() && !state.joined {
            state.condition.joined();
            state.note_empty(empty_for(Protocol::Consumer));
            (state.joined, self.join_by) = (true, None);
            tracing::info!(source = self.settings.name, "in the group without partitions: others have them all");
        }
        drop(state);
        self.shared.news.notify_one();
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
