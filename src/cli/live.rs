//! `check --live`: whether what the configuration names can be reached.

use std::path::Path;
use std::sync::Arc;

use super::Failure;
use crate::app::{self, Parts};
use crate::clock::{self, Clock as _, SystemClock};
use crate::config::{Config, SourceKind};
use crate::mailer::Finding;
use crate::source::{kafka, sqs};
use crate::store::Opening;

/// What was found, and what the store's clock says of ours.
pub struct Live {
    pub found: Vec<Finding>,
    pub clock: Option<String>,
}

/// # Errors
/// The configuration names something that can't even be built, e.g. a certificate file that is not there.
pub fn probe(config: &Config) -> Result<Live, Failure> {
    let clock = Arc::new(SystemClock::new());
    let mut found = vec![store(config, clock.clone())];
    found.extend(super::runtime()?.block_on(async {
        let mailer = app::mailer(config).await?;
        let mut found = mailer.probe().await;
        for section in config.sources.iter().filter(|s| s.kind == SourceKind::Kafka) {
            let told = kafka::probe::probe(app::kafka_settings(config, section, false)).await;
            found.extend(told.into_iter().map(|(ok, what)| Finding { ok, what }));
        }
        for section in config.sources.iter().filter(|s| s.kind == SourceKind::Sqs) {
            let options = app::sqs_options(config, section, false)?;
            let told = sqs::probe::probe(&section.name, &options, config.store.retention.0).await;
            found.extend(told.into_iter().map(|(ok, what)| Finding { ok, what }));
        }
        Ok::<_, Failure>(found)
    })?);
    Ok(Live { found, clock: clock::apart(clock.ahead_us()) })
}

/// Beside a running worker, and without making anything.
fn store(config: &Config, clock: Arc<SystemClock>) -> Finding {
    let url = &config.store.url;
    let Some(path) = config.store.sqlite_path() else { return open(config, clock) };
    if !path.exists() {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return match std::fs::metadata(folder) {
            Ok(meta) if meta.is_dir() && !meta.permissions().readonly() => {
                Finding { ok: true, what: format!("store: {url} is not there yet; `owlpost run` makes it") }
            }
            Ok(_) => Finding { ok: false, what: format!("store: {} can't be written", folder.display()) },
            // Made at the first start, like the file.
            Err(_) => Finding { ok: true, what: format!("store: {url} and its folder are made by `owlpost run`") },
        };
    }
    open(config, clock)
}

fn open(config: &Config, clock: Arc<SystemClock>) -> Finding {
    let mut quiet = config.clone();
    quiet.store.migrate = false;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let opened = runtime.map_err(|e| app::AppError::Failed(format!("cannot start: {e}"))).and_then(|runtime| {
        let parts = Parts::new(&quiet, clock, false)?;
        runtime.block_on(parts.open_store(&quiet, Opening::Operator)).map(|opened| opened.id)
    });
    match opened {
        Ok(id) => Finding { ok: true, what: format!("store: {} can be read, id {id:08x}", config.store.shown()) },
        Err(why) => Finding { ok: false, what: format!("store: {why}") },
    }
}
