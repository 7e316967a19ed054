//! Every metric: its name, labels, buckets and help text stand here and nowhere else. Callers use the typed functions.
//!
//! Label values come from closed sets (configured source names, the mailer's kind, states): never an address, a subject,
//! a topic key or an error text. All label sets are made at zero by [`touch`], so that `rate()` sees the first increment.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::model::{DigestState, ItemState, Time};
use crate::quota::Day;

pub mod kafka;
mod outcome;
pub mod sqs;

pub use outcome::{Breaker, EventOutcome, LetterOutcome, MailOutcome};

const EVENTS: &str = "owlpost_events_total";
const ITEMS: &str = "owlpost_items";
const DIGESTS: &str = "owlpost_digests";
const MAILS: &str = "owlpost_mails_total";
const MAIL_SEND: &str = "owlpost_mail_send_seconds";
const LATENESS: &str = "owlpost_digest_lateness_seconds";
const OLDEST_DUE: &str = "owlpost_oldest_due_timestamp_seconds";
const PAUSES: &str = "owlpost_pauses";
const INTAKE_LAG: &str = "owlpost_intake_lag_seconds";
const ACCEPT: &str = "owlpost_accept_seconds";
const STORE_ERRORS: &str = "owlpost_store_errors_total";
const DEAD_LETTERS: &str = "owlpost_dead_letters";
const LETTERS_FORWARDED: &str = "owlpost_dead_letters_forwarded_total";
const UNFORWARDED: &str = "owlpost_dead_letters_unforwarded";
const STORE_SIZE: &str = "owlpost_store_size_bytes";
const PURGED: &str = "owlpost_purged_items_total";
const LEASES_EXPIRED: &str = "owlpost_leases_expired_total";
const SOURCE_UP: &str = "owlpost_source_up";
const SOURCE_RESTARTS: &str = "owlpost_source_restarts_total";
const BREAKER: &str = "owlpost_breaker_state";
const QUOTA_PER_SECOND: &str = "owlpost_quota_per_second";
const QUOTA_PER_DAY: &str = "owlpost_quota_per_day";
const QUOTA_USED: &str = "owlpost_quota_used_24h";
const QUOTA_RESERVED: &str = "owlpost_quota_reserved";
const QUOTA_EXTERNAL: &str = "owlpost_quota_external_24h";
const QUOTA_FACTOR: &str = "owlpost_quota_rate_factor";
const BUILD_INFO: &str = "owlpost_build_info";
const HTTP_REQUESTS: &str = "owlpost_http_requests_total";
const RESIDENT: &str = "owlpost_process_resident_memory_bytes";

/// One call of a mail server: milliseconds on a LAN, up to the call's own limit (`delivery.call_timeout`, 10 s).
const SEND_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0];
/// Handed over minus due: the promise is "under 1 s"; hours are an outage or a quota.
const LATENESS_BUCKETS: [f64; 14] =
    [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 120.0, 300.0, 3_600.0, 21_600.0];
/// Accepted minus the event's own time: from a fast producer to a backlog of days.
const LAG_BUCKETS: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 3_600.0, 21_600.0, 86_400.0];
/// One transaction of the store: an fsync is 0.1 to 30 ms, a batch of 10,000 events some 100 ms.
const ACCEPT_BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

const HISTOGRAMS: [(&str, &[f64]); 4] =
    [(MAIL_SEND, &SEND_BUCKETS), (LATENESS, &LATENESS_BUCKETS), (INTAKE_LAG, &LAG_BUCKETS), (ACCEPT, &ACCEPT_BUCKETS)];

/// How often the app calls [`Recorder::upkeep`]: samples of histograms pile up in memory until then.
pub const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// The statuses that the listener counts; anything else stands under `other`.
const STATUSES: [&str; 15] =
    ["200", "202", "400", "401", "404", "405", "408", "413", "415", "417", "429", "431", "500", "503", "other"];

/// Reads out what was counted.
#[derive(Clone)]
pub struct Recorder {
    handle: PrometheusHandle,
}

impl Recorder {
    /// Prometheus text format, version 0.0.4.
    pub fn render(&self) -> String {
        if let Some(bytes) = resident_bytes() {
            gauge!(RESIDENT).set(bytes as f64);
        }
        self.handle.render()
    }

    /// Folds the samples of histograms into their buckets; to be called every [`UPKEEP_EVERY`].
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// Makes this process count. The recorder is the process's only one: a second call gives the same.
pub fn install() -> Recorder {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    let handle = HANDLE.get_or_init(|| {
        let builder = HISTOGRAMS.iter().fold(PrometheusBuilder::new(), |builder, (name, buckets)| {
            // The only error is an empty list of buckets, and none of the constants is empty.
            builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), buckets).expect("buckets are not empty")
        });
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        // Refused only if somebody else's recorder is installed; this is the only place that installs one.
        let _ = metrics::set_global_recorder(recorder);
        describe();
        handle
    });
    Recorder { handle: handle.clone() }
}

fn describe() {
    describe_counter!(EVENTS, "Events by source and what became of them; dead: refused and kept as a dead letter.");
    describe_gauge!(
        ITEMS,
        "The ledger: items (one event for one recipient by one route) in each state, from the store."
    );
    describe_gauge!(DIGESTS, "Digests in each state, from the store; counted up to 10,000 a state.");
    describe_counter!(MAILS, "Attempts to send a mail by mailer and outcome; only delivered means that it was taken.");
    describe_histogram!(MAIL_SEND, "How long the mailer's call took.");
    describe_histogram!(LATENESS, "How long after its due time a digest was handed to the mailer.");
    describe_gauge!(
        OLDEST_DUE,
        "Due time of the oldest digest that is due, not behind a pause, and not yet sent; 0 if none is."
    );
    describe_gauge!(PAUSES, "Pauses that are set, of everything and of single routes: what is due behind them stays.");
    describe_histogram!(INTAKE_LAG, "How long after its own time an event was accepted.");
    describe_histogram!(ACCEPT, "How long the store took to commit a batch of events.");
    describe_counter!(STORE_ERRORS, "Calls of the store that failed.");
    describe_gauge!(DEAD_LETTERS, "Refused inputs that are kept and not discarded; counted up to 10,000.");
    describe_counter!(
        LETTERS_FORWARDED,
        "Dead letters sent to a broker by what it said: forwarded (confirmed), refused for ever, failed (sent again)."
    );
    describe_gauge!(
        UNFORWARDED,
        "Refused inputs and dead items that wait to be forwarded, counted up to 10,000 each; 0 where nothing is forwarded."
    );
    describe_gauge!(STORE_SIZE, "Size of the store's file.");
    describe_counter!(PURGED, "Items deleted because they were final and older than store.retention.");
    describe_counter!(LEASES_EXPIRED, "Leases that ended because their worker did not come back in time.");
    describe_gauge!(SOURCE_UP, "1 if the source gives messages or is at its end, 0 if it is down.");
    describe_counter!(
        SOURCE_RESTARTS,
        "How often a source was opened again after something that does not heal by itself."
    );
    describe_gauge!(BREAKER, "Whether mails are let through to the mailer: 0 closed (they are), 1 probing, 2 open.");
    describe_gauge!(QUOTA_PER_SECOND, "Recipients a second that the account may send; +Inf: without a bound.");
    describe_gauge!(QUOTA_PER_DAY, "Recipients in any 24 hours that the account may send; +Inf: without a bound.");
    describe_gauge!(QUOTA_USED, "Recipients of this store's mails in the last 24 hours.");
    describe_gauge!(QUOTA_RESERVED, "Mails that are claimed or in a call, and count for the 24 hours already.");
    describe_gauge!(
        QUOTA_EXTERNAL,
        "Recipients that others sent to from the same account in 24 hours, when last asked."
    );
    describe_gauge!(
        QUOTA_FACTOR,
        "The part of the rate that is used after the server said that it was too fast; 1: all."
    );
    describe_gauge!(BUILD_INFO, "Always 1; the version stands in the label.");
    describe_counter!(HTTP_REQUESTS, "Requests to the listener by status, without probes.");
    describe_gauge!(RESIDENT, "Resident memory of this process.");
    kafka::describe();
    sqs::describe();
}

/// Makes every label set at zero, so that it is there before the first event.
pub fn touch(sources: &[&str], mailer: &str) {
    for source in sources {
        EventOutcome::ALL.iter().for_each(|outcome| events(source, *outcome, 0));
        source_up(source, true);
        source_restarts(source, 0);
    }
    ItemState::ALL.iter().for_each(|state| items(*state, 0));
    // Of closed ones there are ever more: nobody counts them.
    DigestState::ALL.iter().filter(|s| **s != DigestState::Closed).for_each(|state| digests(*state, 0));
    MailOutcome::ALL.iter().for_each(|outcome| counter!(MAILS, &mail_labels(mailer, *outcome)).absolute(0));
    for (name, _) in HISTOGRAMS {
        let _ = histogram!(name);
    }
    for name in [STORE_ERRORS, PURGED, LEASES_EXPIRED] {
        counter!(name).absolute(0);
    }
    LetterOutcome::ALL.iter().for_each(|outcome| letters_forwarded(*outcome, 0));
    for name in [OLDEST_DUE, PAUSES, DEAD_LETTERS, UNFORWARDED, STORE_SIZE] {
        gauge!(name).set(0.0);
    }
    STATUSES.iter().for_each(|status| counter!(HTTP_REQUESTS, "status" => *status).absolute(0));
    breaker(mailer, Breaker::Closed);
    quota(None, None, &Day::default(), 1.0);
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

pub fn events(source: &str, outcome: EventOutcome, count: u64) {
    counter!(EVENTS, "source" => source.to_owned(), "outcome" => outcome.as_str()).increment(count);
}

pub fn items(state: ItemState, count: u64) {
    gauge!(ITEMS, "state" => state.as_str()).set(count as f64);
}

pub fn digests(state: DigestState, count: u64) {
    gauge!(DIGESTS, "state" => state.as_str()).set(count as f64);
}

fn mail_labels(mailer: &str, outcome: MailOutcome) -> [(&'static str, String); 2] {
    [("mailer", mailer.to_owned()), ("outcome", outcome.as_str().to_owned())]
}

/// One attempt ended. `took` is the call's time; `None` if it never started.
pub fn mail(mailer: &str, outcome: MailOutcome, took: Option<Duration>) {
    counter!(MAILS, &mail_labels(mailer, outcome)).increment(1);
    if let Some(took) = took {
        histogram!(MAIL_SEND).record(took.as_secs_f64());
    }
}

/// A digest was handed to the mailer so long after it was due.
pub fn lateness(late: Duration) {
    histogram!(LATENESS).record(late.as_secs_f64());
}

/// `None`: nothing is due that may leave.
pub fn oldest_due(at: Option<Time>) {
    gauge!(OLDEST_DUE).set(at.map_or(0.0, |t| t.0 as f64 / 1e6));
}

pub fn pauses(count: u64) {
    gauge!(PAUSES).set(count as f64);
}

/// Events were accepted so long after their own times.
pub fn intake_lags(lags: impl Iterator<Item = Duration>) {
    // One look-up for a batch of thousands.
    let histogram = histogram!(INTAKE_LAG);
    lags.for_each(|lag| histogram.record(lag.as_secs_f64()));
}

/// The store committed a batch.
pub fn accepted_batch(took: Duration) {
    histogram!(ACCEPT).record(took.as_secs_f64());
}

pub fn store_error() {
    counter!(STORE_ERRORS).increment(1);
}

pub fn dead_letters(count: u64) {
    gauge!(DEAD_LETTERS).set(count as f64);
}

/// A dead letter was sent.
pub fn letter_forwarded(outcome: LetterOutcome) {
    letters_forwarded(outcome, 1);
}

fn letters_forwarded(outcome: LetterOutcome, count: u64) {
    counter!(LETTERS_FORWARDED, "outcome" => outcome.as_str()).increment(count);
}

pub fn unforwarded(count: u64) {
    gauge!(UNFORWARDED).set(count as f64);
}

pub fn store_size(size_bytes: u64) {
    gauge!(STORE_SIZE).set(size_bytes as f64);
}

/// The account's quota; without one, everything is unbounded and unused.
pub fn quota(per_second: Option<f64>, per_day: Option<u64>, day: &Day, factor: f64) {
    gauge!(QUOTA_PER_SECOND).set(per_second.unwrap_or(f64::INFINITY));
    gauge!(QUOTA_PER_DAY).set(per_day.map_or(f64::INFINITY, |n| n as f64));
    gauge!(QUOTA_USED).set(day.used as f64);
    gauge!(QUOTA_RESERVED).set(day.reserved as f64);
    gauge!(QUOTA_EXTERNAL).set(day.external as f64);
    gauge!(QUOTA_FACTOR).set(factor);
}

pub fn purged(items: u64) {
    counter!(PURGED).increment(items);
}

pub fn leases_expired(count: u64) {
    counter!(LEASES_EXPIRED).increment(count);
}

pub fn source_up(source: &str, up: bool) {
    gauge!(SOURCE_UP, "source" => source.to_owned()).set(if up { 1.0 } else { 0.0 });
}

/// A source is opened again.
pub fn source_restarted(source: &str) {
    source_restarts(source, 1);
}

fn source_restarts(source: &str, count: u64) {
    counter!(SOURCE_RESTARTS, "source" => source.to_owned()).increment(count);
}

pub fn breaker(mailer: &str, state: Breaker) {
    gauge!(BREAKER, "mailer" => mailer.to_owned()).set(f64::from(state as u8));
}

/// The listener answered a request.
pub fn http_request(status: u16) {
    let known = STATUSES.iter().find(|s| s.parse() == Ok(status)).copied().unwrap_or("other");
    counter!(HTTP_REQUESTS, "status" => known).increment(1);
}

/// `VmRSS` of /proc/self/status (proc(5)); `None` where there is no such file.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> String {
        install();
        touch(&["events", "zms"], "outbox");
        install().render()
    }

    #[test]
    fn every_label_set_is_there_before_the_first_event() {
        let text = text();
        for line in [
            "owlpost_events_total{source=\"zms\",outcome=\"dead\"} 0",
            "owlpost_items{state=\"in_doubt\"} 0",
            "owlpost_digests{state=\"gathering\"} 0",
            "owlpost_mails_total{mailer=\"outbox\",outcome=\"not_called\"} 0",
            "owlpost_breaker_state{mailer=\"outbox\"} 0",
            "owlpost_source_up{source=\"events\"} 1",
            "owlpost_source_restarts_total{source=\"events\"} 0",
            "owlpost_oldest_due_timestamp_seconds 0",
            "owlpost_store_errors_total 0",
            "owlpost_dead_letters_forwarded_total{outcome=\"refused\"} 0",
            "owlpost_http_requests_total{status=\"429\"} 0",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("state=\"closed\""), "what nobody counts is not there");
        assert!(text.contains(concat!("owlpost_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1")));
    }

    #[test]
    fn durations_are_histograms_that_can_be_added_up_over_replicas() {
        install();
        lateness(Duration::from_millis(300));
        mail("test", MailOutcome::Delivered, Some(Duration::from_millis(2)));
        intake_lags([Duration::from_secs(2)].into_iter());
        accepted_batch(Duration::from_millis(2));
        let text = text();
        for name in ["mail_send", "digest_lateness", "intake_lag", "accept"] {
            assert!(text.contains(&format!("# TYPE owlpost_{name}_seconds histogram")), "{name} in\n{text}");
            assert!(text.contains(&format!("owlpost_{name}_seconds_bucket{{le=\"+Inf\"}} ")), "{name}");
        }
    }

    #[test]
    fn every_metric_has_our_prefix_and_a_help_text() {
        let text = text();
        for line in text.lines().filter(|l| l.starts_with("# TYPE ")) {
            let name = line.split(' ').nth(2).unwrap();
            assert!(name.starts_with("owlpost_"), "{name}");
            assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
        }
    }

    #[test]
    fn resident_memory_is_told_in_bytes() {
        assert!(resident_bytes().is_none_or(|bytes| bytes > 1_000_000));
    }
}
