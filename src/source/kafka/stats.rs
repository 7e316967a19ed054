//! The few numbers of librdkafka's statistics that are read (STATISTICS.md of librdkafka). Pure.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;

/// How often librdkafka counts: its text has some hundred bytes for each partition of a subscribed topic.
pub(super) const EVERY_MS: u32 = 5_000;

#[derive(Debug, Deserialize)]
pub(super) struct Statistics {
    #[serde(default)]
    brokers: HashMap<String, Broker>,
    #[serde(default)]
    topics: HashMap<String, Topic>,
    cgrp: Option<Group>,
}

#[derive(Debug, Deserialize)]
struct Group {
    state: String,
    /// Milliseconds.
    #[serde(rename = "stateage")]
    state_age_ms: i64,
}

#[derive(Debug, Deserialize)]
struct Broker {
    state: String,
}

#[derive(Debug, Deserialize)]
struct Topic {
    partitions: HashMap<i32, Partition>,
}

#[derive(Debug, Deserialize)]
struct Partition {
    lo_offset: i64,
    hi_offset: i64,
    ls_offset: i64,
    committed_offset: i64,
}

impl Statistics {
    pub fn of(json: &[u8]) -> Option<Statistics> {
        serde_json::from_slice(json).ok()
    }

    /// At least one broker is connected and signed in.
    pub fn is_connected(&self) -> bool {
        self.brokers.values().any(|broker| broker.state == "UP")
    }

    /// Every broker that was needed so far is connected and signed in.
    pub fn is_all_connected(&self) -> bool {
        self.is_connected() && self.brokers.values().all(|broker| matches!(broker.state.as_str(), "UP" | "INIT"))
    }

    /// The group's coordinator has been there for so long.
    pub fn in_group_for(&self) -> Duration {
        let up = self.cgrp.as_ref().filter(|group| group.state == "up");
        Duration::from_millis(up.and_then(|group| group.state_age_ms.try_into().ok()).unwrap_or(0))
    }

    /// Messages that are not committed yet, of one partition. `settled`: how far we are, if it is farther than the last
    /// commit. `None`: not known yet.
    pub fn lag(&self, topic: &str, partition: i32, settled: Option<i64>) -> Option<u64> {
        let of = self.topics.get(topic)?.partitions.get(&partition)?;
        // Negative: not known (yet). The last stable offset is the end for who reads what is committed.
        let end = if of.ls_offset >= 0 { of.ls_offset } else { of.hi_offset };
        if end < 0 {
            return None;
        }
        let at = settled.unwrap_or(-1).max(of.committed_offset).max(of.lo_offset).max(0);
        Some(u64::try_from(end.saturating_sub(at)).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_counts_from_what_is_settled_committed_or_still_there() {
        let text = br#"{"brokers":{"a":{"state":"UP"}},"cgrp":{"state":"up","stateage":7000,"join_state":"init"},"topics":{"t":{"partitions":{
            "0":{"lo_offset":10,"hi_offset":50,"ls_offset":40,"committed_offset":20},
            "1":{"lo_offset":10,"hi_offset":50,"ls_offset":-1001,"committed_offset":-1001},
            "2":{"lo_offset":-1001,"hi_offset":-1001,"ls_offset":-1001,"committed_offset":-1001}}}}}"#;
        let stats = Statistics::of(text).unwrap();
        assert!(stats.is_connected());
        assert_eq!(stats.in_group_for(), Duration::from_secs(7));
        assert_eq!(stats.lag("t", 0, None), Some(20));
        assert_eq!(stats.lag("t", 0, Some(39)), Some(1));
        assert_eq!(stats.lag("t", 0, Some(99)), Some(0));
        assert_eq!(stats.lag("t", 1, None), Some(40));
        assert_eq!(stats.lag("t", 2, None), None);
        assert_eq!(stats.lag("u", 0, None), None);
    }
}
