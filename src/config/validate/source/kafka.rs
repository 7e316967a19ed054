//! A source of kind `kafka`: what librdkafka would say at the start, or never.

use std::time::Duration;

use crate::config::nearest::did_you_mean;
use crate::config::validate::Check;
use crate::config::{Config, GroupProtocol, SourceConfig, SourceKind};
use crate::kafka::{Cluster, check_broker, flaws_of_source};
use crate::span::Span;

/// The longest name of a topic (Apache Kafka).
const TOPIC_MAX: usize = 249;
/// `retention.ms` of a topic, unless somebody sets it: so late a message may come again when a group is rewound.
const TOPIC_KEEPS: Duration = Duration::from_secs(7 * 86_400);

pub fn validate(check: &mut Check<'_>, n: &str, config: &Config, source: &SourceConfig) {
    let path = |key| ["source", n, key];
    if source.brokers.is_empty() {
        check.missing(
            &["source", n],
            "kind = \"kafka\" needs brokers: a list of HOST:PORT, as in [\"broker.example.com:9093\"]",
        );
    }
    for (index, broker) in source.brokers.iter().enumerate() {
        if let Err(what) = check_broker(broker) {
            check.error(&["source", n, "brokers", &index.to_string()], what);
        }
    }
    if source.topics.is_empty() {
        check.missing(
            &["source", n],
            "kind = \"kafka\" needs topics: a list of names, or of patterns that begin with ^",
        );
    }
    for (index, topic) in source.topics.iter().enumerate() {
        let at = index.to_string();
        let at = ["source", n, "topics", &at];
        if topic.starts_with('^') {
            if let Err(what) = pattern(topic) {
                check.error(&at, what);
            }
        } else if topic.is_empty()
            || topic.len() > TOPIC_MAX
            || matches!(topic.as_str(), "." | "..")
            || !topic.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        {
            check.error(
                &at,
                format!(
                    "no name of a topic: 1 to {TOPIC_MAX} letters, digits, '.', '_' and '-'; a pattern begins with ^, as in \
                     \"^events[.].*\""
                ),
            );
        }
        if source.topics[..index].contains(topic) {
            check.error(&at, "stands in the list already");
        }
    }
    match source.group.as_deref() {
        None => check.missing(&["source", n], "kind = \"kafka\" needs a group: all workers of one store share one"),
        Some(group) if group.is_empty() || group.chars().any(char::is_control) => {
            check.error(&path("group"), "a group is a text with at least one character");
        }
        Some(_) => {}
    }
    if source.instance_id.as_deref().is_some_and(|id| id.is_empty() || id.chars().any(char::is_control)) {
        check.error(
            &path("instance_id"),
            "an instance id is a text with at least one character; each worker has its own",
        );
    }
    if !source.iam {
        for (key, is_set) in [
            ("region", source.region.is_some()),
            ("assume_role_arn", source.assume_role_arn.is_some()),
            ("external_id", source.external_id.is_some()),
        ] {
            if is_set {
                check.error(&path(key), "with kind = \"kafka\" it goes with iam = true only");
            }
        }
    } else if source.external_id.is_some() && source.assume_role_arn.is_none() {
        check.error(&path("external_id"), "goes with assume_role_arn only");
    }
    let properties = source.properties.iter().map(|(key, value)| (key.clone(), value.0.clone())).collect();
    let cluster = Cluster { brokers: source.brokers.clone(), properties, iam: source.iam };
    for flaw in flaws_of_source(&cluster, source.protocol == GroupProtocol::Consumer) {
        let at = ["source", n, "properties", &flaw.property];
        let near = did_you_mean(&crate::kafka::plain(&flaw.property), flaw.known.iter().map(String::as_str));
        let message = format!("{:?} {}{near}", flaw.property, flaw.what);
        if flaw.is_warning {
            check.warn(&at, message);
        } else {
            check.error(&at, message);
        }
    }
    if config.store.retention.0 < TOPIC_KEEPS {
        check.warn(
            &["store", "retention"],
            format!(
                "a topic keeps its messages for {} by default: what a rewound group reads again when the store has forgotten \
                 it counts as new",
                Span(TOPIC_KEEPS)
            ),
        );
    }
}

/// librdkafka has a regular expression of its own (POSIX, extended); what no such expression can be is found here, the rest
/// when it subscribes.
fn pattern(text: &str) -> Result<(), &'static str> {
    let (mut round, mut square, mut escaped) = (0i32, false, false);
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => square = true,
            ']' => square = false,
            '(' if !square => round += 1,
            ')' if !square => round -= 1,
            c if c.is_control() => return Err("a pattern holds no control characters"),
            _ => {}
        }
        if round < 0 {
            return Err("this pattern closes a bracket that it did not open");
        }
    }
    match (round, square, escaped) {
        (0, false, false) => Ok(()),
        _ => Err("this pattern does not close a bracket, or ends with a backslash"),
    }
}

/// An Athenz message without an id has that of its place: topic, partition and offset. On two clusters those are two messages.
pub fn two_clusters<'c>(
    check: &mut Check<'_>,
    n: &str,
    source: &SourceConfig,
    before: impl Iterator<Item = &'c SourceConfig>,
) {
    let like = |other: &&SourceConfig| {
        other.kind == SourceKind::Kafka && other.origin() == source.origin() && other.brokers != source.brokers
    };
    for other in before.filter(like) {
        if let Some(topic) = source.topics.iter().find(|topic| other.topics.contains(topic)) {
            check.warn(
                &["source", n, "topics"],
                format!(
                    "source {:?} reads {topic:?} on other brokers under the same origin: an Athenz message without an id may be \
                     taken for a copy of the other cluster's; give one of them another origin, unless all have ids",
                    other.name
                ),
            );
        }
    }
}
