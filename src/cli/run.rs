//! The worker.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::output::counted;
use super::{Failure, Outcome};
use crate::app::shadow::Shadow;
use crate::app::{AppError, Role, Worker};
use crate::config::{Config, SourceKind};
use crate::mailer::discard::DiscardMailer;
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
    /// Decide and record everything beside the real worker, send nothing, and print at the end what would have been otherwise
    #[arg(long)]
    shadow: bool,
    /// Go on with the store of the shadow before, instead of a new one
    #[arg(long, requires = "shadow")]
    keep: bool,
    /// Every difference as one JSON object a line (NDJSON), on stdout
    #[arg(long, requires = "shadow")]
    json: bool,
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
    for warning in &config.warnings {
        tracing::warn!(file = warning.file, line = warning.line, problem = warning.message, "configuration");
    }
    let runtime = super::runtime()?;
    let outcome = match args.shadow {
        true => cast(&runtime, &config, &args),
        false => runtime.block_on(work(&config, &args)),
    };
    match outcome {
        // From here on whoever reads stderr reads a log, and a line of another form would be lost to its parser.
        Err(failure) if tracing::enabled!(tracing::Level::ERROR) => {
            tracing::error!("{}", failure.message);
            Ok(ExitCode::from(failure.code))
        }
        outcome => outcome,
    }
}

/// A shadow of the worker that this configuration describes.
fn cast(runtime: &tokio::runtime::Runtime, config: &Config, args: &Args) -> Outcome {
    if args.role != Role::All {
        return Err(Failure::usage("--shadow: a shadow is the whole worker; leave --role out"));
    }
    let shadow = runtime.block_on(Shadow::of(config, args.keep))?;
    tracing::warn!(
        real = %shadow.real().display(),
        store = shadow.config.store.url,
        "this is a shadow: it decides and records everything, and sends nothing"
    );
    let stop = CancellationToken::new();
    let gauges = runtime.block_on(async {
        let signals = tokio::spawn(on_signal(stop.clone()));
        let mailer = Arc::new(DiscardMailer::new());
        let worker = Worker::start_with(&shadow.config, args.role, args.until_idle, mailer).await?;
        let gauges = to_the_end(worker, &shadow.config, &stop).await;
        signals.abort();
        gauges
    })?;
    let open = gauges.item(ItemState::Pending) + gauges.item(ItemState::InDoubt);
    if open > 0 {
        tracing::info!(open, "items of the shadow are not settled: they stand as still open where the real ones are");
    }
    super::shadow::report(runtime, &shadow, args.json)
}

async fn work(config: &Config, args: &Args) -> Outcome {
    let stop = CancellationToken::new();
    let signals = tokio::spawn(on_signal(stop.clone()));
    let worker = Worker::start(config, args.role, args.until_idle).await?;
    let gauges = to_the_end(worker, config, &stop).await?;
    signals.abort();
    if !args.until_idle || args.role == Role::Intake {
        return Ok(ExitCode::SUCCESS);
    }
    end_of_idle(&gauges, config.dead_letters.forward_to.is_some(), stop.is_cancelled())
}

async fn to_the_end(worker: Worker, config: &Config, stop: &CancellationToken) -> Result<Gauges, AppError> {
    let store = worker.store_id();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = worker.address().map(|a| a.to_string()),
        store = format!("{store:08x}"),
        sources = config.sources.len(),
        routes = config.routes.len(),
        "ready"
    );
    let gauges = worker.run(stop.clone()).await?;
    let (pending, in_doubt) = (gauges.item(ItemState::Pending), gauges.item(ItemState::InDoubt));
    tracing::info!(pending, in_doubt, delivered = gauges.item(ItemState::Delivered), "stopped");
    Ok(gauges)
}

/// `stopped`: by a signal, which is no failure of what is left.
fn end_of_idle(gauges: &Gauges, forwards: bool, stopped: bool) -> Outcome {
    let dead = gauges.item(ItemState::Dead);
    if dead > 0 {
        tracing::warn!(items = dead, "dead items: owlpost dead-letters list");
    }
    let left = gauges.item(ItemState::Pending) + gauges.item(ItemState::InDoubt);
    if stopped {
        tracing::info!("stopped before idle: {left} pending");
    } else if left > 0 {
        let (items, are) = (counted(left, "item"), if left == 1 { "is" } else { "are" });
        return Err(Failure::failed(format!(
            "{items} {are} still open: held, paused, beyond the quota, in another worker's hands, or the mailer takes none; \
             owlpost status and owlpost digests list say which"
        )));
    } else if forwards && gauges.unforwarded > 0 {
        let letters = counted(gauges.unforwarded, "dead letter");
        return Err(Failure::failed(format!(
            "{letters} could not be forwarded: the broker takes none; they are kept, and the next run tries again"
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
