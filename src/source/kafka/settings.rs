//! The consumer's settings, and why each is what it is.

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use super::{Protocol, Settings, stats};

impl Settings {
    /// The properties come over what is merely a default, and under what is ours.
    pub(super) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            // A group that never committed begins with what is there.
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            // 8 MiB wait in librdkafka beside the batches here, however large the backlog is: one fetch more is the most
            // that goes beyond it, so that is bounded as well (50 MiB by default).
            .set("queued.max.messages.kbytes", "8192")
            .set("fetch.max.bytes", "4194304")
            // Full for a moment is the rule with a backlog; the default of a second leaves the loop without work.
            .set("fetch.queue.backoff.ms", "10")
            // A topic that is made later is found in seconds, not in five minutes.
            .set("topic.metadata.refresh.interval.ms", "10000")
            .set("socket.keepalive.enable", "true");
        if self.protocol == Protocol::Classic {
            // Only the partitions that move stop.
            client.set("partition.assignment.strategy", "cooperative-sticky");
        }
        if self.cluster.is_local() {
            // `localhost` may be two addresses, and a broker mostly listens to one.
            client.set("broker.address.family", "v4");
        }
        self.cluster.apply(&mut client);
        client
            .set("group.id", &self.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("statistics.interval.ms", stats::EVERY_MS.to_string());
        if self.protocol == Protocol::Consumer {
            client.set("group.protocol", "consumer");
        }
        if let Some(id) = &self.instance_id {
            client.set("group.instance.id", id);
        }
        client.set_log_level(if tracing::enabled!(target: super::LOG, tracing::Level::DEBUG) {
            RDKafkaLogLevel::Debug
        } else {
            RDKafkaLogLevel::Info
        });
        client
    }
}
