//! One source and its loop, begun again after what it can't heal by itself: the others must not notice, and what is due
//! must leave. Only what is wrong from the start and all there is ends the worker, so that whoever deploys it sees it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{AppError, sources};
use crate::config::{Config, SourceConfig, SourceKind};
use crate::ingest::{self, Bounds, IngestError, Pipeline};
use crate::metrics;
use crate::source::{Health, Source};
use crate::store::Intake;
use crate::vitals::Vitals;

/// First and longest wait before a source is opened again: an expired credential or a deleted topic is somebody's work
/// for minutes, and a broker is not to be pestered meanwhile.
const AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// What one source's loop needs, again and again.
pub(super) struct Tap {
    pub config: Arc<Config>,
    pub section: SourceConfig,
    pub pipeline: Arc<Pipeline>,
    pub store: Arc<dyn Intake>,
    pub bounds: Bounds,
    pub vitals: Vitals,
    pub wake: Arc<Notify>,
    /// It must come to its end: a run that waits for it can't wait for somebody to act.
    pub until_idle: bool,
}

impl Tap {
    /// Runs until the source is at its end, or `stop`. `opened`: what it was at the start.
    ///
    /// # Errors
    /// The store can't be used any more; with `until_idle`, the source neither.
    pub async fn run(self, opened: Result<Box<dyn Source>, AppError>, stop: CancellationToken) -> Result<(), AppError> {
        let name = self.section.name.clone();
        let (mut opened, mut wait) = (opened, AGAIN.0);
        loop {
            let began = Instant::now();
            let why = match opened {
                Err(why) if self.until_idle => return Err(why),
                Err(why) => why.to_string(),
                Ok(source) => match self.drain(source, &stop).await {
                    Err(IngestError::Source(why)) if !self.until_idle && !stop.is_cancelled() => why.to_string(),
                    ended => return ended.map_err(|e| AppError::Failed(e.to_string())),
                },
            };
            // It worked for longer than the longest wait: this is another trouble.
            if began.elapsed() > AGAIN.1 {
                wait = AGAIN.0;
            }
            let retry_s = wait.as_secs();
            tracing::error!(source = name, error = why, retry_s, "the source can't go on; the others do");
            self.vitals.set_source(&name, Health::Down(why));
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(AGAIN.1);
            metrics::source_restarted(&name);
            opened = sources::open(&self.config, &self.section, &mut axum::Router::new(), false).await;
        }
    }

    async fn drain(&self, source: Box<dyn Source>, stop: &CancellationToken) -> Result<(), IngestError> {
        let (pipeline, store) = (self.pipeline.clone(), self.store.clone());
        ingest::run(source, pipeline, store, self.bounds, self.vitals.clone(), self.wake.clone(), stop.clone()).await
    }
}

/// Whether a source that can't be opened is to be tried again while the others work. The router of one of kind http is
/// the listener's from the start.
pub(super) fn may_come_later(section: &SourceConfig, of: usize) -> bool {
    section.kind != SourceKind::Http && of > 1
}
