//! `[[source]]`: which keys belong to which kind, and what each of them needs.

use std::collections::BTreeMap;

use super::Check;
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
            SourceKind::Kafka => kafka::validate(check, &n, config, source),
            SourceKind::Sqs => check.not_yet(&["source", &n, "kind"], "SQS source", "\"http\" or \"file\""),
            SourceKind::Zms => check.not_yet(&["source", &n, "kind"], "ZMS source", "\"http\" or \"file\""),
        }
    }
    if config.sources.is_empty() && !check.root.damaged {
        check.warn(&[], "no [[source]]: nothing comes in");
    }
}

/// Keys of another kind.
fn strangers(check: &mut Check<'_>, n: &str, source: &SourceConfig) {
    use SourceKind::{File, Kafka, Sqs};
    let aws: &[SourceKind] = &[Sqs, Kafka];
    let keys: [(&str, bool, &[SourceKind]); 15] = [
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
