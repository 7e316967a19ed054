//! `[dead_letters]`: where they go, and that they don't come back from there.

use super::{Check, mailer};
use crate::aws::queue::Named;
use crate::config::dead_letters::Destination;
use crate::config::nearest::did_you_mean;
use crate::config::{Config, SourceConfig};
use crate::kafka::{flaws_of_outlet, plain};

pub fn validate(check: &mut Check<'_>, config: &Config) {
    let letters = &config.dead_letters;
    let set = [
        ("properties", !letters.properties.is_empty(), true),
        ("iam", letters.iam, true),
        ("region", letters.region.is_some(), false),
        ("endpoint_url", letters.endpoint_url.is_some(), false),
        ("assume_role_arn", letters.assume_role_arn.is_some(), false),
        ("external_id", letters.external_id.is_some(), false),
    ];
    let Some(text) = &letters.forward_to else {
        for (key, _, _) in set.iter().filter(|(_, is_set, _)| *is_set) {
            check.warn(&["dead_letters", key], "has no effect without dead_letters.forward_to");
        }
        return;
    };
    let path = ["dead_letters", "forward_to"];
    let destination = match Destination::parse(text) {
        Ok(destination) => destination,
        Err(why) => return check.error(&path, why),
    };
    let to_kafka = matches!(destination, Destination::Kafka { .. });
    let iam = letters.iam && to_kafka;
    for (key, _, of_kafka) in set.iter().filter(|(_, is_set, _)| *is_set) {
        let what = if to_kafka { "a Kafka topic" } else { "an SQS queue" };
        // With iam, a role and a region are a topic's, too.
        if *of_kafka != to_kafka && !(iam && *key != "endpoint_url") {
            check.warn(&["dead_letters", key], format!("has no effect: dead_letters.forward_to is {what}"));
        }
    }
    match &destination {
        Destination::Queue(Named::Url(url)) if !mailer::is_safe_url(url) => {
            check.error(&path, "http:// is for this machine only; use https://");
        }
        Destination::Queue(_) => {}
        Destination::Kafka { brokers, .. } => {
            for flaw in flaws_of_outlet(&letters.cluster(brokers)) {
                let near = did_you_mean(&plain(&flaw.property), flaw.known.iter().map(String::as_str));
                let message = format!("{:?} {}{near}", flaw.property, flaw.what);
                let at = ["dead_letters", "properties", &flaw.property];
                if flaw.is_warning { check.warn(&at, message) } else { check.error(&at, message) }
            }
        }
    }
    if letters.endpoint_url.as_deref().is_some_and(|url| !mailer::is_safe_url(url)) {
        check.error(
            &["dead_letters", "endpoint_url"],
            "expected https://HOST, or http:// and an address of this machine",
        );
    }
    if letters.external_id.is_some() && letters.assume_role_arn.is_none() {
        check.error(&["dead_letters", "external_id"], "goes with assume_role_arn only");
    }
    if let Some(source) = config.sources.iter().find(|source| reads(source, &destination)) {
        check.error(
            &path,
            format!("source {:?} reads from there: what is refused would come back for ever", source.name),
        );
    }
}

/// By the names as they are written; a pattern of topics, or two names of one broker, is not seen through.
fn reads(source: &SourceConfig, destination: &Destination) -> bool {
    match destination {
        Destination::Kafka { brokers, topic } => {
            source.topics.contains(topic) && source.brokers.iter().any(|broker| brokers.contains(broker))
        }
        Destination::Queue(Named::Url(url)) => source.queue_url.as_ref() == Some(url),
        Destination::Queue(named) => source.queue.as_deref().and_then(|q| Named::read(q).ok()).as_ref() == Some(named),
    }
}
