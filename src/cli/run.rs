//! The worker.

use std::path::PathBuf;
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use super::{Failure, Outcome};
use crate::app::{AppError, Role, Worker};
use crate::config::{Config, SourceKind};
use crate::model::ItemState;
use crate::store::Gauges;
use crate::telemetry;

/// The worker
#[derive(clap::Args)]
pub struct Args {
    /// Which half to run; both meet only in the store
    #[arg(long, value_enum, default_value_t)]
    role: Role,
    /// Read every source to its end, send everything that is due or gathering, and exit
    #[arg(long)]
    until_idle: bool,
}

pub fn run(args: Args, files: &[PathBuf]) -> Outcome {
    let config = super::load(files)?;
    if args.until_idle
        && let Some(source) = config.sources.iter().find(|s| s.kind == SourceKind::Http)
    {
        return Err(Failure::usage(format!(
            "--until-idle: source {} is of kind http, which has no end; leave it out for this run",
            source.name
        )));
    }
    telemetry::init(&config.log).map_err(Failure::usage)?;
    super::runtime()?.block_on(work(&config, &args))
}

async fn work(config: &Config, args: &Args) -> Outcome {
    let stop = CancellationToken::new();
    let signals = tokio::spawn(on_signal(stop.clone()));
    let worker = Worker::start(config, args.role, args.until_idle).await?;
    let store = worker.store().store_id();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = worker.address().map(|a| a.to_string()),
        store = format!("{store:08x}"),
        sources = config.sources.len(),
        routes = config.routes.len(),
        "ready"
    );
    let gauges = worker.run(stop).await?;
    signals.abort();
    let (pending, in_doubt) = (gauges.item(ItemState::Pending), gauges.item(ItemState::InDoubt));
    tracing::info!(pending, in_doubt, delivered = gauges.item(ItemState::Delivered), "stopped");
    if args.until_idle { end_of_idle(&gauges) } else { Ok(ExitCode::SUCCESS) }
}

fn end_of_idle(gauges: &Gauges) -> Outcome {
    let dead = gauges.item(ItemState::Dead);
    if dead > 0 {
        tracing::warn!(items = dead, "dead items: owlpost dead-letters list");
    }
    let left = gauges.item(ItemState::Pending) + gauges.item(ItemState::InDoubt);
    if left > 0 {
        return Err(Failure::failed(format!(
            "{left} items are still open in held or paused digests: owlpost digests list, owlpost digests release"
        )));
    }
    Ok(ExitCode::SUCCESS)
}

/// The first signal begins the stop, the second ends the process at once: whatever was under way, the store knows.
async fn on_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        tracing::error!("no signal handlers; stop with SIGKILL, which loses nothing");
        return;
    };
    for last in [false, true] {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        if last {
            tracing::warn!("second signal: stopped at once");
            std::process::exit(1);
        }
        tracing::info!("stopping; a second signal stops at once");
        stop.cancel();
    }
}

impl From<AppError> for Failure {
    fn from(e: AppError) -> Failure {
        match e {
            AppError::Config(why) => Failure::usage(why),
            AppError::Failed(why) => Failure::failed(why),
        }
    }
}
