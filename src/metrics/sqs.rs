//! Metrics of sources of kind `sqs`; the label is the source's name.

use metrics::{counter, describe_counter, describe_gauge, gauge};

const RECEIVERS: &str = "owlpost_sqs_receivers";
const IN_FLIGHT: &str = "owlpost_sqs_in_flight_messages";
const BACKLOG: &str = "owlpost_sqs_backlog_messages";
const DELETES_FAILED: &str = "owlpost_sqs_deletes_failed_total";
const EXTENSIONS: &str = "owlpost_sqs_visibility_extensions_total";
const RECEIVE_ERRORS: &str = "owlpost_sqs_receive_errors_total";

pub(super) fn describe() {
    describe_gauge!(RECEIVERS, "Receivers that ask the queue for messages; they grow and shrink with the load.");
    describe_gauge!(IN_FLIGHT, "Messages that were received and are not yet deleted or given back.");
    describe_gauge!(BACKLOG, "Messages that wait in the queue, about, asked every 30 s.");
    describe_counter!(DELETES_FAILED, "Committed messages that could not be deleted; they may come again.");
    describe_counter!(EXTENSIONS, "Messages whose visibility timeout was extended while they were held.");
    describe_counter!(RECEIVE_ERRORS, "Calls for messages, or for the queue, that failed.");
}

/// Makes every label set of this source, at zero.
pub fn touch(source: &str) {
    for name in [DELETES_FAILED, EXTENSIONS, RECEIVE_ERRORS] {
        counter!(name, "source" => source.to_owned()).absolute(0);
    }
    for name in [RECEIVERS, IN_FLIGHT, BACKLOG] {
        gauge!(name, "source" => source.to_owned()).set(0.0);
    }
}

pub fn receivers(source: &str, count: u32) {
    gauge!(RECEIVERS, "source" => source.to_owned()).set(f64::from(count));
}

pub fn in_flight(source: &str, messages: usize) {
    gauge!(IN_FLIGHT, "source" => source.to_owned()).set(messages as f64);
}

pub fn backlog(source: &str, messages: u64) {
    gauge!(BACKLOG, "source" => source.to_owned()).set(messages as f64);
}

pub fn deletes_failed(source: &str, messages: usize) {
    counter!(DELETES_FAILED, "source" => source.to_owned()).increment(messages as u64);
}

pub fn extended(source: &str, messages: u64) {
    counter!(EXTENSIONS, "source" => source.to_owned()).increment(messages);
}

pub fn receive_error(source: &str) {
    counter!(RECEIVE_ERRORS, "source" => source.to_owned()).increment(1);
}
