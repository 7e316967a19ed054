//! `[[source]]`: which keys belong to which kind, and what each of them needs.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Check, mailer};
use crate::aws::queue::Named;
use crate::config::{Config, GroupProtocol, SourceConfig, SourceKind};

mod kafka;

pub fn validate(check: &mut Check<'_>, config: &Config) {
    let mut paths = BTreeMap::new();
    let mut http = None;
    for (index, source) in config.sources.iter().enumerate() {
        let n = index.to_string();
        check.name(&["source", &n, "name"], &source.name);
        if source.origin.as_deref().is_some_and(|o| o.is_empty() || o.chars().any(char::is_control)) {
            check.error(&["source", &n, "origin"], "a CloudEvents source is a text with at least one character");
        }
        strangers(check, &n, source);
        match source.kind {
            SourceKind::Http if http.is_some() => {
                check.error(
                    &["source", &n, "kind"],
                    "there is one POST /v1/events, so there can be one source of this kind",
                );
            }
            SourceKind::Http => http = Some(index),
            SourceKind::File => match &source.path {
                None => {
                    check.missing(&["source", &n], "kind = \"file\" needs a path: a file of NDJSON, or \"-\" for stdin")
                }
                Some(path) if path.as_os_str().is_empty() => check.error(&["source", &n, "path"], "is empty"),
                Some(path) => {
                    if let Some(other) = paths.insert(path, &source.name) {
                        check.error(&["source", &n, "path"], format!("source {other:?} reads the same file"));
                    }
                }
            },
            SourceKind::Kafka => {
                kafka::validate(check, &n, config, source);
                kafka::two_clusters(check, &n, source, config.sources.iter().take(index));
            }
            SourceKind::Sqs => sqs(check, &n, config, source),
            SourceKind::Zms => check.not_yet(&["source", &n, "kind"], "ZMS source", "\"http\" or \"file\""),
        }
    }
    if config.sources.is_empty() && !check.root.damaged {
        check.warn(&[], "no [[source]]: nothing comes in");
    }
}

/// More receivers than one worker's store could serve, and as many connections.
const RECEIVERS_MAX: u32 = 64;
/// The longest that SQS keeps a message (`MessageRetentionPeriod`): so late one may come again.
const SQS_KEEPS: Duration = Duration::from_secs(14 * 86_400);

fn sqs(check: &mut Check<'_>, n: &str, config: &Config, source: &SourceConfig) {
    let path = |key| ["source", n, key];
    match (&source.queue_url, &source.queue) {
        (Some(_), Some(_)) => check.error(&path("queue"), "queue_url names the queue already: set one of them"),
        (None, None) => check.missing(
            &["source", n],
            "kind = \"sqs\" needs a queue: its name or ARN, or queue_url = \"https://sqs.REGION.amazonaws.com/ACCOUNT/NAME\"",
        ),
        (None, Some(queue)) => match Named::read(queue) {
            Err(why) => check.error(&path("queue"), why),
            Ok(named) => {
                if let (Some(own), Some(set)) = (named.region(), &source.region)
                    && own != set
                {
                    check.error(&path("region"), format!("the ARN in queue says {own:?}"));
                }
            }
        },
        (Some(url), None) => {
            let (scheme, rest) = url.split_once("://").unwrap_or(("", ""));
            let parts: Vec<&str> = rest.trim_end_matches('/').split('/').collect();
            if !matches!(scheme, "http" | "https") || parts.len() < 3 || parts.iter().any(|p| p.is_empty()) {
                check.error(
                    &path("queue_url"),
                    "not the URL of a queue: expected https://sqs.REGION.amazonaws.com/ACCOUNT/NAME",
                );
            }
            let named = Named::Url(url.clone());
            if let (Some(own), Some(set)) = (named.region(), &source.region)
                && own != set
            {
                check.error(&path("region"), format!("queue_url says {own:?}"));
            }
        }
    }
    if let Some(url) = &source.endpoint_url {
        mailer::endpoint(check, &path("endpoint_url"), url);
    }
    let region = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if source.region.as_deref().is_some_and(|r| r.is_empty() || !r.chars().all(region)) {
        check.error(&path("region"), "not a region: expected a name as in \"eu-west-1\"");
    }
    if source.assume_role_arn.as_deref().is_some_and(|arn| !arn.starts_with("arn:") || !arn.contains(":role/")) {
        check.error(&path("assume_role_arn"), "not an ARN of this kind: expected \"arn:aws:…:role/NAME\"");
    }
    if source.external_id.is_some() && source.assume_role_arn.is_none() {
        check.error(&path("external_id"), "goes with assume_role_arn only");
    }
    if source.receivers_max.is_some_and(|most| !(1..=RECEIVERS_MAX).contains(&most)) {
        check.error(&path("receivers_max"), format!("must be from 1 to {RECEIVERS_MAX}"));
    }
    if config.store.retention.0 < SQS_KEEPS {
        check.warn(
            &["store", "retention"],
            "SQS keeps a message for up to 14d: one that comes again when the store has forgotten it counts as new",
        );
    }
}

/// Keys of another kind.
fn strangers(check: &mut Check<'_>, n: &str, source: &SourceConfig) {
    use SourceKind::{File, Kafka, Sqs};
    let aws: &[SourceKind] = &[Sqs, Kafka];
    let keys: [(&str, bool, &[SourceKind]); 16] = [
        ("path", source.path.is_some(), &[File]),
        ("brokers", !source.brokers.is_empty(), &[Kafka]),
        ("topics", !source.topics.is_empty(), &[Kafka]),
        ("group", source.group.is_some(), &[Kafka]),
        ("instance_id", source.instance_id.is_some(), &[Kafka]),
        ("protocol", source.protocol != GroupProtocol::Classic, &[Kafka]),
        ("iam", source.iam, &[Kafka]),
        ("properties", !source.properties.is_empty(), &[Kafka]),
        ("queue_url", source.queue_url.is_some(), &[Sqs]),
        ("queue", source.queue.is_some(), &[Sqs]),
        ("shadow_queue", source.shadow_queue.is_some(), &[Sqs]),
        ("endpoint_url", source.endpoint_url.is_some(), &[Sqs]),
        ("receivers_max", source.receivers_max.is_some(), &[Sqs]),
        ("region", source.region.is_some(), aws),
        ("assume_role_arn", source.assume_role_arn.is_some(), aws),
        ("external_id", source.external_id.is_some(), aws),
    ];
    for (key, is_set, kinds) in keys {
        if is_set && !kinds.contains(&source.kind) {
            let kinds: Vec<String> = kinds.iter().map(|k| format!("kind = {:?}", k.as_str())).collect();
            check.error(&["source", n, key], format!("belongs to {} only", kinds.join(" or ")));
        }
    }
}
