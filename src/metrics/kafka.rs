//! Metrics of sources of kind `kafka`; the label is the source's name.

use metrics::{counter, describe_counter, describe_gauge, gauge};

const LAG: &str = "owlpost_source_lag_messages";
const PARTITIONS: &str = "owlpost_source_partitions";
const ERRORS: &str = "owlpost_source_errors_total";
const COMMIT_FAILURES: &str = "owlpost_source_commit_failures_total";
const REBALANCES: &str = "owlpost_source_rebalances_total";
const RESETS: &str = "owlpost_source_offset_resets_total";

pub(super) fn describe() {
    describe_gauge!(
        LAG,
        "Messages of this process's partitions that are not settled; open transactions count once they end (Kafka)."
    );
    describe_gauge!(PARTITIONS, "Partitions that are assigned to this process (Kafka).");
    describe_counter!(ERRORS, "Errors of brokers, topics and partitions that the source met (Kafka).");
    describe_counter!(COMMIT_FAILURES, "Commits of offsets that failed; each is tried again (Kafka).");
    describe_counter!(REBALANCES, "Assignments and revocations of partitions (Kafka).");
    describe_counter!(
        RESETS,
        "Partitions that were read from elsewhere because the committed offset is not there (Kafka)."
    );
}

/// Makes every label set of this source, at zero.
pub fn touch(source: &str) {
    lag(source, 0);
    partitions(source, 0);
    for name in [ERRORS, COMMIT_FAILURES, REBALANCES, RESETS] {
        counter!(name, "source" => source.to_owned()).absolute(0);
    }
}

pub fn lag(source: &str, messages: u64) {
    gauge!(LAG, "source" => source.to_owned()).set(messages as f64);
}

pub fn partitions(source: &str, count: usize) {
    gauge!(PARTITIONS, "source" => source.to_owned()).set(count as f64);
}

pub fn error(source: &str) {
    counter!(ERRORS, "source" => source.to_owned()).increment(1);
}

pub fn commit_failed(source: &str) {
    counter!(COMMIT_FAILURES, "source" => source.to_owned()).increment(1);
}

pub fn rebalance(source: &str) {
    counter!(REBALANCES, "source" => source.to_owned()).increment(1);
}

pub fn reset(source: &str) {
    counter!(RESETS, "source" => source.to_owned()).increment(1);
}
