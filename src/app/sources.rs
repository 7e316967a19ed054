//! Makes the sources that the configuration names.

use super::AppError;
use crate::aws::Identity;
use crate::aws::queue::Named;
use crate::config::{Config, GroupProtocol, SourceConfig, SourceKind};
use crate::kafka::Cluster;
use crate::source::Source;
use crate::source::file::FileSource;
use crate::source::http::{HttpSource, Options};
use crate::source::kafka::{KafkaSource, Protocol, Settings};
use crate::source::sqs::{self, SqsSource};

/// `events`: the router of the listener, for sources that are asked over HTTP. `until_idle`: the run ends where the
/// sources end now.
///
/// # Errors
/// What the section names can't be opened.
pub(super) async fn open(
    config: &Config,
    section: &SourceConfig,
    events: &mut axum::Router,
    until_idle: bool,
) -> Result<Box<dyn Source>, AppError> {
    Ok(match section.kind {
        SourceKind::Http => {
            let [token, previous_token] =
                [&config.http.token, &config.http.previous_token].map(|t| t.as_ref().map(|t| t.0.clone()));
            let usual = Options::new(token, config.http.body_max_bytes as usize);
            let made = HttpSource::new(&section.name, Options { previous_token, ..usual });
            *events = std::mem::take(events).merge(made.router());
            Box::new(made)
        }
        SourceKind::File => {
            let path = section.path.clone().unwrap_or_default();
            Box::new(FileSource::open(&section.name, &path, config.limits.event_bytes as usize)?)
        }
        SourceKind::Kafka => Box::new(KafkaSource::open(kafka(config, section, until_idle))?),
        SourceKind::Sqs => Box::new(SqsSource::open(&section.name, sqs_options(config, section, until_idle)?).await?),
        SourceKind::Zms => {
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

/// What a section of kind `sqs` says; also for `check --live`.
///
/// # Errors
/// It names no queue, which validation has told.
pub fn sqs_options(config: &Config, section: &SourceConfig, until_idle: bool) -> Result<sqs::Options, AppError> {
    let wrong = |why: String| AppError::Config(format!("source {}: queue: {why}", section.name));
    let queue = match (&section.queue_url, &section.queue) {
        (Some(url), _) => Named::Url(url.clone()),
        (None, Some(queue)) => Named::read(queue).map_err(wrong)?,
        (None, None) => return Err(wrong("set queue_url or queue".into())),
    };
    Ok(sqs::Options {
        identity: Identity {
            region: section.region.clone(),
            assume_role_arn: section.assume_role_arn.clone(),
            external_id: section.external_id.clone(),
        },
        endpoint_url: section.endpoint_url.clone(),
        queue,
        receivers_max: section.receivers_max.unwrap_or(sqs::RECEIVERS_MAX),
        event_bytes: config.limits.event_bytes as usize,
        until_idle,
    })
}
