//! The outlet of `--to kafka://HOST:PORT[,HOST:PORT]/TOPIC`.

use std::path::PathBuf;

use crate::app;
use crate::aws::Identity;
use crate::cli::{self, Failure};
use crate::config::{self, Config, SourceKind};
use crate::kafka::Cluster;
use crate::outlet::OutletError;
use crate::outlet::kafka::{self, KafkaOutlet};

/// Inside of a runtime.
///
/// # Errors
/// Usage: the URL, a property or the configuration can't be used.
pub(super) fn outlet(to: &str, properties: &[String], config: &[PathBuf]) -> Result<KafkaOutlet, Failure> {
    let (brokers, topic) = kafka::address(to).map_err(|why| Failure::usage(format!("--to: {why}")))?;
    let (mut cluster, identity) = configured(&cli::load(config)?, &brokers);
    cluster.brokers = brokers;
    let mut wrong = Vec::new();
    for property in properties {
        match given(property) {
            Ok((name, value)) => drop(cluster.properties.insert(name, value)),
            Err(why) => wrong.push(format!("--property: {why}")),
        }
    }
    for flaw in kafka::flaws(&cluster) {
        let near = config::did_you_mean(&flaw.property, flaw.known.iter().map(String::as_str));
        let line = format!("--property {}: {}{near}", flaw.property, flaw.what);
        if flaw.is_warning {
            anstream::eprintln!("owlpost: warning: {line}");
        } else {
            wrong.push(line);
        }
    }
    if !wrong.is_empty() {
        return Err(Failure::usage(wrong.join("\n")));
    }
    KafkaOutlet::new(&cluster, &identity, &topic).map_err(|e| match e {
        OutletError::Fatal(why) => Failure::usage(why),
        other => Failure::failed(other.to_string()),
    })
}

/// What the configuration's source with one of these brokers says about signing in there.
fn configured(config: &Config, brokers: &[String]) -> (Cluster, Identity) {
    let is_there =
        |s: &&config::SourceConfig| s.kind == SourceKind::Kafka && s.brokers.iter().any(|b| brokers.contains(b));
    let Some(source) = config.sources.iter().find(is_there) else { return Default::default() };
    let settings = app::kafka_settings(config, source, false);
    (kafka::of_source(&settings.cluster), settings.identity)
}

/// `NAME=VALUE`, without repeating what may be a password.
fn given(property: &str) -> Result<(String, String), String> {
    let (name, value) = property.split_once('=').ok_or("expected NAME=VALUE")?;
    let value = config::filled_in(value, config::environment()).map_err(|why| format!("{name}: {why}"))?;
    Ok((name.to_owned(), value))
}
