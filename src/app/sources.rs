//! Makes the sources that the configuration names.

use super::AppError;
use crate::aws::Identity;
use crate::config::{Config, GroupProtocol, SourceConfig, SourceKind};
use crate::kafka::Cluster;
use crate::source::Source;
use crate::source::file::FileSource;
use crate::source::http::{HttpSource, Options};
use crate::source::kafka::{KafkaSource, Protocol, Settings};

/// `events`: the router of the listener, for sources that are asked over HTTP. `until_idle`: the run ends where the
/// sources end now.
///
/// # Errors
/// What the section names can't be opened.
pub(super) fn open(
    config: &Config,
    section: &SourceConfig,
    events: &mut axum::Router,
    until_idle: bool,
) -> Result<Box<dyn Source>, AppError> {
    Ok(match section.kind {
        SourceKind::Http => {
            let token = config.http.token.as_ref().map(|t| t.0.clone());
            let made = HttpSource::new(&section.name, Options::new(token, config.http.body_max_bytes as usize));
            *events = std::mem::take(events).merge(made.router());
            Box::new(made)
        }
        SourceKind::File => {
            let path = section.path.clone().unwrap_or_default();
            Box::new(FileSource::open(&section.name, &path, config.limits.event_bytes as usize)?)
        }
        SourceKind::Kafka => Box::new(KafkaSource::open(kafka(config, section, until_idle))?),
        SourceKind::Sqs | SourceKind::Zms => {
            return Err(AppError::Config(format!("source {}: this kind comes with a later version", section.name)));
        }
    })
}

/// Of a section of kind `kafka`.
pub fn kafka(config: &Config, section: &SourceConfig, until_idle: bool) -> Settings {
    Settings {
        name: section.name.clone(),
        cluster: cluster(section),
        topics: section.topics.clone(),
        group: section.group.clone().unwrap_or_default(),
        instance_id: section.instance_id.clone(),
        protocol: match section.protocol {
            GroupProtocol::Classic => Protocol::Classic,
            GroupProtocol::Consumer => Protocol::Consumer,
        },
        event_bytes: config.limits.event_bytes as usize,
        identity: Identity {
            region: section.region.clone(),
            assume_role_arn: section.assume_role_arn.clone(),
            external_id: section.external_id.clone(),
        },
        until_idle,
    }
}

fn cluster(section: &SourceConfig) -> Cluster {
    let properties = section.properties.iter().map(|(key, value)| (key.clone(), value.0.clone())).collect();
    Cluster { brokers: section.brokers.clone(), properties, iam: section.iam }
}
