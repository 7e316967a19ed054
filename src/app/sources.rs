//! Makes the sources that the configuration names.

use super::AppError;
use crate::config::{Config, SourceConfig, SourceKind};
use crate::source::Source;
use crate::source::file::FileSource;
use crate::source::http::{HttpSource, Options};

/// `events`: the router of the listener, for sources that are asked over HTTP.
///
/// # Errors
/// What the section names can't be opened.
pub(super) fn open(
    config: &Config,
    section: &SourceConfig,
    events: &mut axum::Router,
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
        SourceKind::Kafka | SourceKind::Sqs | SourceKind::Zms => {
            return Err(AppError::Config(format!("source {}: this kind comes with a later version", section.name)));
        }
    })
}
