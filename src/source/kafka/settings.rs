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
            // What waits in librdkafka beside the batches here, however large the backlog is: 3 MiB or 10,000 messages,
            // each of which costs it half a KiB, and what one fetch brings beyond that. A fetch is counted as it is sent:
            // compressed, so 384 KiB may be 4 MiB or more (by default up to 50 MiB). A larger message comes all the same
            // (KIP-74); `message.max.bytes` is only what the other two may not be below.
            .set("queued.max.messages.kbytes", "3072")
            .set("queued.min.messages", "10000")
            .set("fetch.max.bytes", "393216")
            .set("fetch.message.max.bytes", "393216")
            .set("message.max.bytes", "393216")
            // Full for a moment is the rule with a backlog; the default of a second leaves the loop without work.
            .set("fetch.queue.backoff.ms", "10")
            // A topic that is made later is found in seconds, not in five minutes.
            .set("topic.metadata.refresh.interval.ms", "10000")
            .set("socket.keepalive.enable", "true");
        if self.protocol == Protocol::Classic {
            // Only the partitions that move stop.
            client.set("partition.assignment.strategy", "cooperative-sticky");
        }
        if let Some(family) = self.cluster.address_family() {
            client.set("broker.address.family", family);
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
